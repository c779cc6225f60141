//! `sealift serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::KeysArgument;
use super::held::{self, Held};
use super::output::{self, count};
use crate::error::{Context, Error, Kind, Result};
use crate::image::Addresses;
use crate::serve::{BundleShelf, Certificate, Foreign, Serving, Several, Shelf, StoreShelf, serve_with};
use crate::store::{Access, Store};

/// The most hosts, urls and errors that are named. `sealift client-config` names all of them.
const SHOWN_MAX: usize = 20;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift serve ./store
  sealift serve /media/drive/base-images-1-7 --key exporter.pub --listen 127.0.0.1:5000
  sealift serve ./registry --writable
  sealift serve /srv/base-images-1-7 --key exporter.pub --foreign \\
      --listen 0.0.0.0:443 --tls-cert foreign.pem --tls-key foreign.key

Plain HTTP on loopback addresses, TLS elsewhere. Left-out platforms answer 404. Of several stores and bundles, the first that
has a tag shows it; folders that hold parts of one bundle are taken as one.

--foreign answers for the `urls` of layers too, by host, path and query as manifests have them: for machines whose names of
those hosts lead here (see `sealift client-config`). Whatever else is asked for under such a host is a 404 at once. What is
pulled or pushed later is answered for after the next start.")]
pub(super) struct ServeArguments {
    /// Stores, or the folders of bundles
    #[arg(value_name = "STORE|BUNDLE", required = true)]
    what: Vec<PathBuf>,
    #[command(flatten)]
    keys: KeysArgument,
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// The certificate to show, with its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Answer for the urls of layers too
    #[arg(long)]
    foreign: bool,
    /// Take pushes too, into a store, which is made where there is none
    #[arg(long)]
    writable: bool,
}

pub(super) async fn run(arguments: ServeArguments) -> Result<Option<Kind>> {
    check_place(&arguments)?;
    let certificate = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Certificate::load(certificate, key)?),
        _ => None,
    };
    let shelf = shelf(&arguments)?;
    let addresses = if arguments.foreign { shelf.addresses()? } else { Addresses::default() };
    let listener = TcpListener::bind(arguments.listen).await.while_(|| format!("listen on {}", arguments.listen))?;
    say_what(&arguments, &listener.local_addr()?)?;
    if arguments.foreign {
        say_foreign(&addresses, certificate.as_ref())?;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let foreign = Foreign::new(&addresses);
    drop(addresses);
    serve_with(listener, Serving { shelf, foreign, certificate }, stopped).await?;
    Ok(None)
}

/// What may be served to whom.
fn check_place(arguments: &ServeArguments) -> Result<()> {
    let ip = arguments.listen.ip();
    if ip.is_loopback() {
        return Ok(());
    }
    if arguments.tls_cert.is_none() {
        return Err(Error::usage(format!("{ip} is no loopback address, and nothing is served in plain HTTP there"))
            .help("--tls-cert and --tls-key; or listen on 127.0.0.1, and put a proxy with TLS before it"));
    }
    if arguments.writable {
        return Err(Error::usage(format!("{ip} is no loopback address, and anybody could push there"))
            .help("this version knows no passwords: listen on 127.0.0.1, and put a proxy with passwords before it"));
    }
    Ok(())
}

fn say_what(arguments: &ServeArguments, address: &SocketAddr) -> Result<()> {
    let how = if arguments.writable { "for pulls and pushes" } else { "for pulls" };
    let scheme = if arguments.tls_cert.is_some() { "https" } else { "http" };
    let what: Vec<String> = arguments.what.iter().map(|folder| folder.display().to_string()).collect();
    output::print(&output::clean(format!("serving {} at {scheme}://{address} {how}\n", what.join(", "))))
}

/// What is answered for, and what clients will stumble over.
fn say_foreign(addresses: &Addresses, certificate: Option<&Certificate>) -> Result<()> {
    let hosts = held::answered_hosts(addresses);
    let urls: usize = hosts.values().map(|host| host.urls).sum();
    let names: Vec<&str> = hosts.keys().map(String::as_str).take(SHOWN_MAX).collect();
    let of = match (hosts.len() > names.len(), names.join(", ")) {
        (_, names) if names.is_empty() => String::new(),
        (true, names) => format!(": {names} and others"),
        (false, names) => format!(": {names}"),
    };
    output::print(&output::clean(format!(
        "answering for {} of {}{of}\n",
        count(urls as u64, "url"),
        count(hosts.len() as u64, "host")
    )))?;
    for (name, host) in hosts.iter().take(SHOWN_MAX) {
        if certificate.is_some_and(|certificate| host.secure && !certificate.names(name)) {
            output::say(&format!(
                "warning: the certificate is not for {name}: clients will refuse it\n  help: `sealift client-config` shows how to make one for all hosts"
            ));
        }
    }
    for url in held::doubtful(addresses).take(SHOWN_MAX) {
        output::say(&output::clean(format!("warning: 404 for {url}: manifests want different bytes there")));
    }
    for error in addresses.unreadable().iter().take(SHOWN_MAX) {
        output::say(&output::clean(format!("warning: {error}")));
    }
    if addresses.beyond() > 0 {
        output::say(&format!("warning: {} urls more are not answered for: there are too many", addresses.beyond()));
    }
    Ok(())
}

fn shelf(arguments: &ServeArguments) -> Result<Arc<dyn Shelf>> {
    if arguments.writable {
        return writable(&arguments.what);
    }
    let mut shelves: Vec<Arc<dyn Shelf>> = Vec::new();
    for held in held::open(&arguments.what, &arguments.keys)? {
        shelves.push(match held {
            Held::Store(store) => Arc::new(StoreShelf::new(store, false)?),
            Held::Bundle(reader) => Arc::new(BundleShelf::new(reader)?),
        });
    }
    match shelves.pop() {
        Some(only) if shelves.is_empty() => Ok(only),
        last => Ok(Arc::new(Several::new(shelves.into_iter().chain(last).collect()))),
    }
}

fn writable(what: &[PathBuf]) -> Result<Arc<dyn Shelf>> {
    match what {
        [folder] if held::is_bundle(folder) => {
            Err(Error::usage("a bundle cannot take pushes").help("leave --writable out, or name a store"))
        }
        [folder] => Ok(Arc::new(StoreShelf::new(Arc::new(Store::open(folder, Access::Writer)?), true)?)),
        _ => Err(Error::usage("only one store can take pushes").help("leave --writable out, or name one store")),
    }
}
