//! `sealift client-config`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::output::{self, count, size};
use super::{KeysArgument, Output, held};
use crate::client_config::{Behind, ClientConfig, Part, Wanted, client_config, write};
use crate::error::{Context, Error, Kind, Result};
use crate::image::Addresses;
use crate::oci::Registry;

/// The largest file of CAs that is read: those of a system have some 200 KiB.
const CA_MAX: u64 = 1024 * 1024;

/// The most urls without an answer that people are shown. The JSON report has all of them.
const NOT_ANSWERED_SHOWN_MAX: usize = 20;

/// What a certificate and a private key begin with, in PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift client-config /media/drive/base-images-1-7 --key exporter.pub
  sealift client-config /srv/base-images-1-7 --key exporter.pub --for hosts --address 10.0.0.5
  sealift client-config /srv/base-images-1-7 --key exporter.pub --for hosts,nginx,containerd,podman \\
      --address 10.0.0.5 --registry registry.corp:5000 --ca ca.pem --out ./enclave

Layers with `urls` (foreign layers, and others) are asked for at these urls by containerd and podman, before they ask a registry.
In an enclave their hosts have to lead to a machine that answers: `sealift serve --foreign`, by itself or behind nginx. This
command writes what the machines need for that. Without --for it only says which hosts there are.

Nothing is applied: read what it wrote, above all the names in `hosts`. They come from manifests, whoever made those.")]
pub(super) struct ClientConfigArguments {
    /// Stores, or the folders of bundles: what is to be answered for
    #[arg(value_name = "STORE|BUNDLE", required = true)]
    what: Vec<PathBuf>,
    #[command(flatten)]
    keys: KeysArgument,
    /// What to write a configuration for
    #[arg(long = "for", value_name = "WHAT", value_enum, value_delimiter = ',')]
    parts: Vec<PartWord>,
    /// The address of the machine that answers: where `sealift serve --foreign` or nginx runs
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Only this foreign host; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The registry of the enclave that images are pulled from
    #[arg(long, value_name = "HOST[:PORT]")]
    registry: Option<String>,
    /// The CA of the enclave, in PEM: its certificate is put where clients look for it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where nginx finds the certificate [default: /etc/ssl/sealift/foreign.pem]
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<String>,
    /// Where nginx finds its key [default: /etc/ssl/sealift/foreign.key]
    #[arg(long, value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<String>,
    /// Where nginx finds `sealift serve --foreign`, in plain HTTP
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5000")]
    upstream: String,
    /// Let nginx send the files of this unpacked bundle, without `sealift serve`
    #[arg(long, value_name = "DIR", conflicts_with = "upstream")]
    layout: Option<String>,
    /// Write the files below this folder, with a README.txt, and not to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PartWord {
    /// Lines for /etc/hosts
    Hosts,
    /// A server for nginx
    Nginx,
    /// certs.d of containerd, for the registry
    Containerd,
    /// certs.d of podman, skopeo and CRI-O, for the registry
    Podman,
    /// certs.d of docker, for the registry
    Docker,
}

impl From<PartWord> for Part {
    fn from(word: PartWord) -> Self {
        match word {
            PartWord::Hosts => Part::Hosts,
            PartWord::Nginx => Part::Nginx,
            PartWord::Containerd => Part::Containerd,
            PartWord::Podman => Part::Podman,
            PartWord::Docker => Part::Docker,
        }
    }
}

pub(super) fn run(arguments: &ClientConfigArguments, output: Output) -> Result<Option<Kind>> {
    let wanted = wanted(arguments)?;
    let mut addresses = Addresses::default();
    for held in held::open(&arguments.what, &arguments.keys)? {
        addresses.merge(held.addresses()?);
    }
    let config = client_config(&addresses, &wanted)?;
    let written = match &arguments.out {
        Some(folder) => write(&config, folder)?,
        None => Vec::new(),
    };
    output::report(output, &config, |config| match arguments.out.is_some() || config.files.is_empty() {
        true => summary(config, &written),
        false => contents(config),
    })?;
    if output == Output::Human && written.is_empty() && !config.files.is_empty() {
        output::say(&output::clean(notes(&config)));
    }
    for problem in &config.problems {
        output::say(&output::clean(format!("error: {}", problem.text)));
    }
    Ok(config.verdict())
}

fn wanted(arguments: &ClientConfigArguments) -> Result<Wanted> {
    let registry = arguments
        .registry
        .as_ref()
        .map(|text| text.parse::<Registry>().map_err(|error| Error::usage(format!("--registry {text}: {error}"))));
    let behind = match &arguments.layout {
        Some(folder) => Behind::Layout(folder.clone()),
        None => Behind::Serve(arguments.upstream.clone()),
    };
    Ok(Wanted {
        parts: arguments.parts.iter().map(|&word| Part::from(word)).collect(),
        address: arguments.address,
        hosts: arguments.hosts.iter().map(|host| host.to_ascii_lowercase()).collect::<BTreeSet<_>>(),
        registry: registry.transpose()?,
        ca: arguments.ca.as_deref().map(ca).transpose()?,
        certificate: arguments.tls_cert.clone().zip(arguments.tls_key.clone()),
        behind,
    })
}

/// A certificate of a CA. It is copied to every machine, so nothing but certificates may be in it.
fn ca(path: &Path) -> Result<String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(CA_MAX + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text: std::io::Result<String> = read();
    let text = text.map_err(|error| Error::usage(error.to_string())).while_(|| format!("read {}", path.display()))?;
    if text.contains(PRIVATE_KEY) {
        return Err(Error::usage(format!(
            "{} holds a private key, which would be copied to every machine",
            path.display()
        ))
        .help("name a file with the CA's certificate alone"));
    }
    if !text.contains(CERTIFICATE) || text.len() as u64 > CA_MAX {
        return Err(Error::usage(format!("{} is no certificate of a CA in PEM", path.display()))
            .help("openssl x509 -in ca.der -inform DER -out ca.pem"));
    }
    Ok(text)
}

/// One file as it is, to be put behind another; several with their names.
fn contents(config: &ClientConfig) -> String {
    match config.files.as_slice() {
        [only] => only.content.clone(),
        files => {
            let mut text = String::new();
            for file in files {
                let _ = writeln!(text, "# ==== {} ====\n{}", file.path, file.content);
            }
            text
        }
    }
}

fn summary(config: &ClientConfig, written: &[PathBuf]) -> String {
    let mut text = String::new();
    for host in &config.hosts {
        let ports: Vec<String> = host.tls_ports.iter().chain(&host.plain_ports).map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "{} (port {}): {}, {}, for {}",
            host.name,
            ports.join(", "),
            count(host.urls as u64, "url"),
            size(host.bytes),
            host.repositories.iter().cloned().collect::<Vec<_>>().join(", ")
        );
    }
    written.iter().for_each(|path| _ = writeln!(text, "wrote {}", path.display()));
    text + &notes(config)
}

fn notes(config: &ClientConfig) -> String {
    let mut text = String::new();
    for (at, step) in config.steps.iter().enumerate() {
        let _ = writeln!(text, "{}. {step}", at + 1);
    }
    if !config.not_answered.is_empty() {
        let _ = writeln!(text, "nobody answers for {}:", count(config.not_answered.len() as u64, "url"));
        for row in config.not_answered.iter().take(NOT_ANSWERED_SHOWN_MAX) {
            let _ = writeln!(text, "  {}: {}", row.url.escape_debug(), row.why);
        }
        if config.not_answered.len() > NOT_ANSWERED_SHOWN_MAX {
            text += "  and others: --output json names all of them\n";
        }
    }
    text
}
