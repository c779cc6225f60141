//! Downloading and removing blobs.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE, RETRY_AFTER,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

use super::fault::{Code, Fault};
use super::range::{self, Wanted};
use super::server::{Server, header, with};
use super::shelf::Removal;
use super::{CONTENT_DIGEST, empty, etag, stream};
use crate::oci::{Digest, MediaType};

/// How soon a client may ask again when too many blobs are on their way, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

fn unknown() -> Fault {
    Fault::new(Code::BlobUnknown, "this repository has no such blob")
}

/// `GET` and `HEAD /v2/<name>/blobs/<digest>`, with a single `Range` on `GET`.
pub(super) async fn get(
    server: &Server,
    repository: String,
    digest: Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let size = server.ask(move |shelf| shelf.blob(&repository, &digest)).await?.ok_or_else(unknown)?;
    send(server, digest, size, method, headers).await
}

/// Sends a blob of `size` bytes, or what `Range` asks of it, or says how long it is.
pub(super) async fn send(
    server: &Server,
    digest: Digest,
    size: u64,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    if method == Method::HEAD {
        return Ok(described(empty(StatusCode::OK), &digest, size));
    }
    match range::wanted(range_header(headers, &digest), size) {
        Wanted::Whole => Ok(described(Response::new(open(server, digest, 0, size).await?), &digest, size)),
        Wanted::Part { offset, length } => {
            let mut response = Response::new(open(server, digest, offset, length).await?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = offset + length - 1;
            let response = with(response, CONTENT_RANGE, format!("bytes {offset}-{last}/{size}"));
            Ok(described(response, &digest, length))
        }
        Wanted::Unsatisfiable => Err(Fault::new(Code::SizeInvalid, "the range lies beyond the end of the blob")
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(CONTENT_RANGE, format!("bytes */{size}"))),
    }
}

/// The `Range` that counts: none when `If-Range` names something else than this blob.
fn range_header<'h>(headers: &'h HeaderMap, digest: &Digest) -> Option<&'h str> {
    match header(headers, IF_RANGE) {
        Some(condition) if condition.trim() != etag(digest) => None,
        _ => header(headers, RANGE),
    }
}

async fn open(server: &Server, digest: Digest, offset: u64, length: u64) -> Result<Body, Fault> {
    if length == 0 {
        return Ok(Body::empty());
    }
    let permit = Arc::clone(&server.bodies).try_acquire_owned().map_err(|_| {
        Fault::new(Code::TooManyRequests, "too many blobs are on their way").header(RETRY_AFTER, RETRY_AFTER_SECONDS)
    })?;
    let body = server.ask(move |shelf| shelf.open(&digest, offset, length)).await?;
    Ok(stream::hand_on(body, permit, stream::STALL_MAX))
}

fn described(response: Response, digest: &Digest, length: u64) -> Response {
    let response = with(response, CONTENT_TYPE, MediaType::OCTET_STREAM.as_str());
    let response = with(response, CONTENT_LENGTH, length.to_string());
    let response = with(response, CONTENT_DIGEST, digest.to_string());
    let response = with(response, ETAG, etag(digest));
    with(response, ACCEPT_RANGES, "bytes")
}

/// `DELETE /v2/<name>/blobs/<digest>`
pub(super) async fn delete(server: &Server, repository: String, digest: Digest) -> Result<Response, Fault> {
    match server.change(move |writer| writer.delete_blob(&repository, &digest)).await? {
        Removal::Done => Ok(empty(StatusCode::ACCEPTED)),
        Removal::NotThere => Err(unknown()),
        Removal::Never => Err(Fault::new(Code::Unsupported, "blobs are not removed here; delete the manifest")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::extract::{Request, State};
    use tokio::sync::Semaphore;

    use super::super::StoreShelf;
    use super::super::server::dispatch;
    use super::*;
    use crate::content::PIECE_SIZE;
    use crate::store::{Access, Store};

    async fn ask(server: &Arc<Server>, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        dispatch(State(Arc::clone(server)), request).await
    }

    #[tokio::test]
    async fn readers_that_read_nothing_leave_the_registry_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), Access::Writer).unwrap());
        let bytes = vec![7; 20 * PIECE_SIZE];
        let digest = Digest::of(&bytes);
        store.put(&digest, &bytes).unwrap();
        let shelf = Arc::new(StoreShelf::new(store, true).unwrap());
        let server = Arc::new(Server { bodies: Arc::new(Semaphore::new(1)), ..Server::new(shelf) });
        let path = format!("/v2/a/blobs/{digest}");
        let unread = ask(&server, Method::GET, &path).await;
        assert_eq!(unread.status(), StatusCode::OK);
        let refused = ask(&server, Method::GET, &path).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key(RETRY_AFTER));
        assert_eq!(ask(&server, Method::HEAD, &path).await.status(), StatusCode::OK);
        drop(unread);
        let free = tokio::time::timeout(Duration::from_secs(10), server.bodies.acquire()).await;
        drop(free.unwrap().unwrap());
        let read = ask(&server, Method::GET, &path).await.into_body();
        assert_eq!(axum::body::to_bytes(read, usize::MAX).await.unwrap(), bytes);
    }
}
