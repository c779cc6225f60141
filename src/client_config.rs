//! `client-config`: from the `urls` of what is carried to the configuration that machines in the enclave need, so that clients
//! that ask these urls first get their layers. Decides and writes texts; what applies them is the operator.

mod clients;
#[cfg(test)]
mod config_tests;
mod nginx;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use crate::durable;
use crate::error::{Context, Error, Kind, Problem, Result};
use crate::image::{Address, AddressContent, Addresses};
use crate::oci::{Digest, Registry};

pub use nginx::Behind;

/// Configurations and certificates of CAs are no secrets.
const MODE: u32 = 0o644;

/// What a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Lines for `/etc/hosts`.
    Hosts,
    /// A server for nginx.
    Nginx,
    /// `certs.d` of containerd.
    Containerd,
    /// `certs.d` of podman, skopeo and CRI-O.
    Podman,
    /// `certs.d` of docker.
    Docker,
}

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The parts.
    pub parts: BTreeSet<Part>,
    /// Where the machine that answers for the urls is.
    pub address: Option<IpAddr>,
    /// Only these hosts; all where it is empty.
    pub hosts: BTreeSet<String>,
    /// The registry that the images are pulled from.
    pub registry: Option<Registry>,
    /// The CA that signed the certificates of the enclave, in PEM.
    pub ca: Option<String>,
    /// Where nginx finds its certificate and its key.
    pub certificate: Option<(String, String)>,
    /// What nginx takes the layers from.
    pub behind: Behind,
}

/// What `client-config --output json` prints.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientConfig {
    /// The foreign hosts that are answered for in the enclave, by name.
    pub hosts: Vec<ForeignHost>,
    /// The files.
    pub files: Vec<ConfigFile>,
    /// What to do with them, in this order.
    pub steps: Vec<String>,
    /// The urls that nobody answers for, and why.
    pub not_answered: Vec<NotAnswered>,
    /// Manifests that could not be read: their urls are not known.
    pub problems: Vec<Problem>,
}

/// A host that urls name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForeignHost {
    /// Its name.
    pub name: String,
    /// The ports that clients connect to with TLS.
    pub tls_ports: BTreeSet<u16>,
    /// The ports that clients connect to without TLS.
    pub plain_ports: BTreeSet<u16>,
    /// How many urls are answered for.
    pub urls: usize,
    /// How many bytes are at them; each content counted once.
    pub bytes: u64,
    /// The repositories, with their source hosts, whose images have these urls.
    pub repositories: BTreeSet<String>,
}

/// A file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ConfigFile {
    /// Its place below the folder of `--out`.
    pub path: String,
    /// What is in it.
    pub content: String,
}

/// A url that nobody answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct NotAnswered {
    /// As it stands in its manifest.
    pub url: String,
    /// Why.
    pub why: String,
}

impl ClientConfig {
    /// The kind of what is wrong; `None` when nothing is.
    pub fn verdict(&self) -> Option<Kind> {
        (!self.problems.is_empty()).then_some(Kind::Incomplete)
    }
}

/// The one content of a url that is answered for.
struct Answered<'a> {
    address: &'a Address,
    digest: Digest,
}

/// Makes the configuration for everything in `addresses` that was carried along.
pub fn client_config(addresses: &Addresses, wanted: &Wanted) -> Result<ClientConfig> {
    let mut hosts = BTreeMap::new();
    let mut counted = BTreeSet::new();
    let (mut answered, mut not_answered) = (Vec::new(), Vec::new());
    for (address, contents) in addresses.iter() {
        match choose(address, contents, wanted) {
            Ok(content) => {
                let host = hosts.entry(address.host().to_owned()).or_insert_with(|| named(address.host()));
                count(host, address, content, counted.insert((address.host(), content.digest)));
                answered.push(Answered { address, digest: content.digest });
            }
            Err(why) => {
                if why == DOUBTFUL && is_wanted(address, wanted).is_ok() {
                    // A quick 404 is what makes containerd go on to the registry.
                    let host = hosts.entry(address.host().to_owned()).or_insert_with(|| named(address.host()));
                    add_port(host, address);
                }
                not_answered.push(NotAnswered { url: address.to_string(), why: why.to_owned() });
            }
        }
    }
    let unusable = addresses.unusable().iter();
    not_answered.extend(unusable.map(|(url, why)| NotAnswered { url: url.clone(), why: (*why).to_owned() }));
    let hosts: Vec<ForeignHost> = hosts.into_values().collect();
    all_are_there(&wanted.hosts, &hosts)?;
    let files = files(&hosts, &answered, wanted, &mut not_answered)?;
    let steps = steps::steps(&hosts, wanted);
    let mut problems: Vec<Problem> = addresses.unreadable().iter().map(Problem::from).collect();
    if addresses.beyond() > 0 {
        let beyond = Error::failed(format!("{} urls more than are looked at", addresses.beyond()));
        problems.push(Problem::from(&beyond));
    }
    Ok(ClientConfig { hosts, files, steps, not_answered, problems })
}

const DOUBTFUL: &str = "several manifests want different bytes there, and a request does not say which: it gets 404";

/// What is answered for at an address, or why nothing is.
fn choose<'a>(
    address: &Address,
    contents: &'a [AddressContent],
    wanted: &Wanted,
) -> Result<&'a AddressContent, &'static str> {
    is_wanted(address, wanted)?;
    match contents {
        [content] if content.carried => Ok(content),
        [_] => Err("its layer was not carried along"),
        _ => Err(DOUBTFUL),
    }
}

fn is_wanted(address: &Address, wanted: &Wanted) -> Result<(), &'static str> {
    let host = address.host();
    if address.is_ip() {
        return Err("its host is an IP address, which no name leads elsewhere");
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Err("its host is the client's own machine");
    }
    if wanted.registry.as_ref().is_some_and(|registry| registry.host() == host) {
        return Err("its host is the registry of the enclave, which must stay where it is");
    }
    match wanted.hosts.is_empty() {
        true if !host.contains('.') => Err("its host has no domain: name it with --host if it may be answered for"),
        false if !wanted.hosts.contains(host) => Err("its host is not among those that --host names"),
        _ => Ok(()),
    }
}

fn named(host: &str) -> ForeignHost {
    ForeignHost {
        name: host.to_owned(),
        tls_ports: BTreeSet::new(),
        plain_ports: BTreeSet::new(),
        urls: 0,
        bytes: 0,
        repositories: BTreeSet::new(),
    }
}

fn add_port(host: &mut ForeignHost, address: &Address) {
    let ports = if address.is_secure() { &mut host.tls_ports } else { &mut host.plain_ports };
    ports.insert(address.port());
}

fn count(host: &mut ForeignHost, address: &Address, content: &AddressContent, is_new: bool) {
    add_port(host, address);
    host.urls += 1;
    if is_new {
        host.bytes = host.bytes.saturating_add(content.size);
    }
    host.repositories.extend(content.repositories.iter().cloned());
}

/// A name that was written wrongly would leave its host without an answer.
fn all_are_there(named: &BTreeSet<String>, hosts: &[ForeignHost]) -> Result<()> {
    match named.iter().find(|name| hosts.iter().all(|host| host.name != **name)) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!("no url that could be answered for names the host {name}"))
            .help("`sealift client-config` without --host shows which there are")),
    }
}

fn files(
    hosts: &[ForeignHost],
    answered: &[Answered<'_>],
    wanted: &Wanted,
    not_answered: &mut Vec<NotAnswered>,
) -> Result<Vec<ConfigFile>> {
    let mut files = Vec::new();
    for part in &wanted.parts {
        match part {
            Part::Hosts => files.push(clients::hosts(hosts, wanted)?),
            Part::Nginx => files.push(nginx::nginx(hosts, answered, wanted, not_answered)?),
            Part::Containerd => files.extend(clients::containerd(wanted)?),
            Part::Podman => files.push(clients::certificates("podman", "containers", wanted)?),
            Part::Docker => files.push(clients::certificates("docker", "docker", wanted)?),
        }
    }
    files.extend(clients::trust(wanted));
    Ok(files)
}

/// Writes the files below `folder`, and a README.txt that says what to do with them. Nothing outside of it is touched, also not
/// through links that lie there.
pub fn write(config: &ClientConfig, folder: &Path) -> Result<Vec<PathBuf>> {
    let readme = ConfigFile { path: "README.txt".to_owned(), content: steps::readme(config) };
    let mut written = Vec::new();
    for file in config.files.iter().chain([&readme]) {
        let path = below(folder, Path::new(&file.path))?;
        if let Some(parent) = path.parent() {
            durable::create_folder(parent)?;
        }
        durable::write_file(&path, file.content.as_bytes(), MODE)?;
        written.push(path);
    }
    Ok(written)
}

/// The place of `file` below `folder`; an error where it would be another.
fn below(folder: &Path, file: &Path) -> Result<PathBuf> {
    let mut path = folder.to_owned();
    for part in file.components() {
        let Component::Normal(name) = part else {
            return Err(Error::failed(format!("{} is no place below a folder", file.display())));
        };
        path.push(name);
        for place in [path.clone(), durable::with_suffix(&path, ".partial")] {
            let is_link = place.symlink_metadata().is_ok_and(|found| found.is_symlink());
            if is_link {
                return Err(Error::usage(format!("{} is a link", place.display()))
                    .help("nothing is written through links: remove it, or name another folder"))
                .while_(|| format!("write {}", path.display()));
            }
        }
    }
    Ok(path)
}
