//! Downloading and removing blobs.

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

use super::fault::{Code, Fault};
use super::range::{self, Wanted};
use super::server::{Server, header, with};
use super::{CONTENT_DIGEST, empty, etag};
use crate::oci::{Digest, MediaType};

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
    let body = server.ask(move |shelf| shelf.open(&digest, offset, length)).await?;
    Ok(Body::from_stream(body))
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
    let deleted = server.change(move |writer| writer.delete_blob(&repository, &digest)).await?;
    if deleted { Ok(empty(StatusCode::ACCEPTED)) } else { Err(unknown()) }
}
