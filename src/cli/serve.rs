//! `sealift serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{KeysArgument, output};
use crate::bundle::{BUNDLE_JSON, BundleReader};
use crate::error::{Context, Error, Kind, Result};
use crate::serve::{BundleShelf, Shelf, StoreShelf, serve};
use crate::store::{Access, Store};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift serve ./store
  sealift serve /media/drive/base-images-1-7 --key exporter.pub --listen 127.0.0.1:5000
  sealift serve ./registry --writable

Plain HTTP, on loopback addresses only. Left-out platforms answer 404.")]
pub(super) struct ServeArguments {
    /// A store, or the folder of a bundle
    #[arg(value_name = "STORE|BUNDLE")]
    what: PathBuf,
    #[command(flatten)]
    keys: KeysArgument,
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Take pushes too, into a store, which is made where there is none
    #[arg(long)]
    writable: bool,
}

pub(super) async fn run(arguments: ServeArguments) -> Result<Option<Kind>> {
    if !arguments.listen.ip().is_loopback() {
        return Err(Error::usage(format!("{} is no loopback address", arguments.listen.ip())).help(
            "this version serves without TLS and passwords: listen on 127.0.0.1, and put a proxy with TLS before it for other machines",
        ));
    }
    let shelf = shelf(&arguments)?;
    let listener = TcpListener::bind(arguments.listen).await.while_(|| format!("listen on {}", arguments.listen))?;
    let address = listener.local_addr()?;
    let how = if arguments.writable { "for pulls and pushes" } else { "for pulls" };
    output::print(&format!("serving {} at http://{address} {how}\n", arguments.what.display()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(listener, shelf, stopped).await?;
    Ok(None)
}

fn shelf(arguments: &ServeArguments) -> Result<Arc<dyn Shelf>> {
    let what: &Path = &arguments.what;
    if what.join(BUNDLE_JSON).exists() {
        if arguments.writable {
            return Err(Error::usage("a bundle cannot take pushes").help("leave --writable out, or name a store"));
        }
        let reader = BundleReader::open(&[what.to_owned()], &arguments.keys.load(&[])?)?;
        return Ok(Arc::new(BundleShelf::new(Arc::new(reader))?));
    }
    let store = match arguments.writable {
        true => Store::open(what, Access::Writer)?,
        false => Store::open_existing(what, Access::Shared)?,
    };
    Ok(Arc::new(StoreShelf::new(Arc::new(store), arguments.writable)?))
}
