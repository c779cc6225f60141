//! The embedded registry: the OCI distribution specification, version 1.1, over anything that is a [`Shelf`].
//!
//! A request goes from `path` (what is asked for) through `server` (who answers) to one small module for each
//! kind of content. The protocol is here and nowhere else: a shelf only keeps and finds.

mod blobs;
mod bundle_shelf;
mod fault;
mod lists;
mod manifests;
mod memory;
mod page;
mod path;
mod query;
mod range;
mod running;
mod server;
mod sessions;
mod shelf;
mod shown;
mod store_shelf;
mod stream;
mod uploads;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::HeaderName;
use axum::response::Response;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use bundle_shelf::BundleShelf;
pub use memory::MemoryShelf;
pub use running::Running;
pub use shelf::{Committed, Removal, Shelf, ShelfWriter, Upload};
pub use store_shelf::StoreShelf;

use crate::error::{Context, Error, Result};
use crate::oci::Digest;

/// The digest of what is sent or was taken.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How long requests may go on after the server was told to stop.
const STOPPING_MAX: Duration = Duration::from_secs(5);

/// The registry as a service: to be served as it is, or inside of something that checks passwords before.
pub fn router(shelf: Arc<dyn Shelf>) -> Router {
    let server = Arc::new(server::Server::new(shelf));
    // One function sees every path: a router's patterns cannot tell where a repository name ends.
    Router::new().fallback(server::dispatch).with_state(server)
}

/// Serves `shelf` in plain HTTP until `shutdown` is ready; then requests under way have five seconds to end.
///
/// An error means that the listener can accept no more.
pub async fn serve(
    listener: TcpListener,
    shelf: Arc<dyn Shelf>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (told, stopping) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        let _ = told.send(());
    };
    let overdue = async move {
        // A server that ends by itself drops the sender; then there is nothing to wait for, and the other wins.
        match stopping.await {
            Ok(()) => tokio::time::sleep(STOPPING_MAX).await,
            Err(_) => std::future::pending().await,
        }
    };
    // Small answers must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
    });
    let serving = axum::serve(listener, router(shelf)).with_graceful_shutdown(shutdown);
    tokio::select! {
        ended = serving => ended.map_err(Error::from).while_(|| "serve the registry"),
        () = overdue => Ok(()),
    }
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The entity tag of content that is named by its digest.
fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}
