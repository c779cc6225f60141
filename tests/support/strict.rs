//! [`StrictRegistry`]: takes an index only when all its children are manifests of the repository. Blobs that look like
//! manifests do not count, as in distribution 3 and in registries with a database.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sealift::oci::{MANIFEST_SIZE_MAX, Manifest, MediaType, Name};
use sealift::serve::{MemoryShelf, Shelf, router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running registry; stops when dropped.
pub struct StrictRegistry {
    host: String,
    task: JoinHandle<()>,
}

impl StrictRegistry {
    pub async fn start() -> Self {
        let shelf = MemoryShelf::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let strict = router(Arc::new(shelf.clone())).layer(from_fn_with_state(shelf, check));
        let task = tokio::spawn(async move { axum::serve(listener, strict).await.unwrap() });
        StrictRegistry { host, task }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }
}

impl Drop for StrictRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn check(State(shelf): State<MemoryShelf>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let named = path.strip_prefix("/v2/").and_then(|path| path.split_once("/manifests/"));
    let Some((repository, _)) = named.filter(|_| request.method() == Method::PUT) else {
        return next.run(request).await;
    };
    let (head, body) = request.into_parts();
    let media_type = MediaType::new(head.headers["content-type"].to_str().unwrap());
    let bytes = to_bytes(body, usize::try_from(MANIFEST_SIZE_MAX).unwrap()).await.unwrap();
    let manifest = Manifest::parse(&media_type, &bytes).unwrap();
    let missing = |digest| shelf.resolve(repository, &Name::Digest(digest)).unwrap().is_none();
    let missing: Vec<_> = manifest.children().iter().filter(|child| missing(child.digest)).collect();
    if missing.is_empty() {
        return next.run(Request::from_parts(head, Body::from(bytes))).await;
    }
    let errors = missing.iter().map(|child| {
        json!({"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": child.digest.to_string()})
    });
    (StatusCode::BAD_REQUEST, json!({"errors": errors.collect::<Vec<_>>()}).to_string()).into_response()
}
