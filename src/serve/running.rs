//! [`Running`]: a registry on a loopback port, for as long as it is held.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Foreign, Serving, Shelf, serve_with};
use crate::error::{Context, Error, Result};

/// A registry that runs as a task of the current runtime. Dropped, it is told to stop and not waited for.
pub struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Running {
    /// Serves `shelf` in plain HTTP on a free port of 127.0.0.1.
    pub async fn start(shelf: Arc<dyn Shelf>) -> Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), shelf).await
    }

    /// Serves `shelf` in plain HTTP at `address`; port 0 takes a free one.
    pub async fn start_at(address: SocketAddr, shelf: Arc<dyn Shelf>) -> Result<Self> {
        Self::start_with(address, Serving { shelf, foreign: Foreign::default(), certificate: None }).await
    }

    /// Serves at `address` what `serving` says; port 0 takes a free one.
    pub async fn start_with(address: SocketAddr, serving: Serving) -> Result<Self> {
        let listener = TcpListener::bind(address).await.while_(|| format!("listen on {address}"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve_with(listener, serving, async {
            // Also when the handle was dropped.
            let _ = stopped.await;
        }));
        Ok(Running { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://<address>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Tells it to stop, and waits until requests under way have ended.
    pub async fn stop(self) -> Result<()> {
        let _ = self.stop.send(());
        self.task.await.map_err(|panic| Error::failed(panic.to_string()))?
    }
}
