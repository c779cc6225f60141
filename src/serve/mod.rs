//! The embedded registry: the OCI distribution specification, version 1.1, over anything that is a [`Shelf`].
//!
//! A request goes from `path` (what is asked for) through `server` (who answers) to one small module for each
//! kind of content. The protocol is here and nowhere else: a shelf only keeps and finds. `connections` bounds what clients may
//! cost before that, and `foreign` answers for the `urls` of layers.

mod blobs;
mod bundle_shelf;
mod connections;
mod fault;
mod foreign;
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
mod several;
mod shelf;
mod shown;
mod store_shelf;
mod stream;
mod tls;
mod uploads;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::HeaderName;
use axum::response::Response;
use tokio::net::TcpListener;

pub use bundle_shelf::BundleShelf;
pub use foreign::Foreign;
pub use memory::MemoryShelf;
pub use running::Running;
pub use several::Several;
pub use shelf::{Committed, Removal, Shelf, ShelfWriter, Upload};
pub use store_shelf::StoreShelf;
pub use tls::Certificate;

use connections::{Connections, Patience};

use crate::error::Result;
use crate::oci::Digest;

/// The digest of what is sent or was taken.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// How long requests may go on after the server was told to stop.
const STOPPING_MAX: Duration = Duration::from_secs(5);

/// The registry as a service: to be served as it is, or inside of something that checks passwords before.
pub fn router(shelf: Arc<dyn Shelf>) -> Router {
    router_with(shelf, Foreign::default())
}

fn router_with(shelf: Arc<dyn Shelf>, foreign: Foreign) -> Router {
    let server = Arc::new(server::Server { foreign, ..server::Server::new(shelf) });
    // One function sees every path: a router's patterns cannot tell where a repository name ends.
    Router::new().fallback(server::dispatch).with_state(server)
}

/// What is served, and how.
pub struct Serving {
    /// The registry's content.
    pub shelf: Arc<dyn Shelf>,
    /// The foreign addresses that are answered for too.
    pub foreign: Foreign,
    /// The certificate that is shown; `None` for plain HTTP.
    pub certificate: Option<Certificate>,
}

/// Serves `shelf` in plain HTTP until `shutdown` is ready; then requests under way have five seconds to end.
pub async fn serve(
    listener: TcpListener,
    shelf: Arc<dyn Shelf>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    serve_with(listener, Serving { shelf, foreign: Foreign::default(), certificate: None }, shutdown).await
}

/// Serves until `shutdown` is ready; then requests under way have five seconds to end.
pub async fn serve_with(
    listener: TcpListener,
    serving: Serving,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let router = router_with(serving.shelf, serving.foreign);
    let tls = serving.certificate.as_ref().map(Certificate::acceptor);
    Connections { router, tls, patience: Patience::USUAL }.serve(listener, shutdown).await;
    Ok(())
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
