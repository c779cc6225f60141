//! Uploading blobs: in one request, in two, or in chunks (distribution specification, "Pushing blobs").

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::fault::{Code, Fault};
use super::query::Query;
use super::server::{Server, blocking, header, with};
use super::sessions::Held;
use super::shelf::Committed;
use super::{CONTENT_DIGEST, empty, path, range, stream};
use crate::oci::Digest;

/// The id of an upload, which some clients show to people.
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST /v2/<name>/blobs/uploads/`: mounts a blob, takes a whole blob, or begins an upload.
pub(super) async fn post(
    server: &Server,
    repository: String,
    query: &Query,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Fault> {
    server.writable()?;
    if let Some(digest) = query.get("mount") {
        let digest = digest_of(digest)?;
        if mount(server, &repository, digest, query.get("from")).await? {
            return Ok(created(&repository, &digest));
        }
    } else if let Some(digest) = query.get("digest") {
        let digest = digest_of(digest)?;
        return post_whole(server, &repository, digest, headers, body).await;
    }
    begin(server, repository).await
}

async fn mount(server: &Server, repository: &str, digest: Digest, from: Option<&str>) -> Result<bool, Fault> {
    if from.is_some_and(|from| !path::is_repository(from)) {
        // Mounting is a favour: what cannot be mounted is uploaded.
        return Ok(false);
    }
    let (repository, from) = (repository.to_owned(), from.map(str::to_owned));
    server.change(move |writer| writer.mount(&repository, &digest, from.as_deref())).await
}

async fn begin(server: &Server, repository: String) -> Result<Response, Fault> {
    let (shelf, sessions, name) = (Arc::clone(&server.shelf), Arc::clone(&server.sessions), repository.clone());
    let id = blocking(move || {
        let writer = shelf.writer().ok_or_else(|| Fault::new(Code::Unsupported, "this registry is read-only"))?;
        sessions.insert(&name, writer.begin_upload(&name)?)
    })
    .await?;
    Ok(going_on(StatusCode::ACCEPTED, &repository, &id, 0))
}

async fn post_whole(
    server: &Server,
    repository: &str,
    digest: Digest,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Fault> {
    let name = repository.to_owned();
    let upload = server.change(move |writer| writer.begin_upload(&name)).await?;
    let held = stream::write(body, stream::content_length(headers), Held::alone(upload)?).await?;
    commit(held, digest).await?;
    Ok(created(repository, &digest))
}

/// `GET /v2/<name>/blobs/uploads/<id>`: how far it is.
pub(super) async fn status(server: &Server, repository: &str, id: &str) -> Result<Response, Fault> {
    let mut held = server.sessions.hold(repository, id).await?;
    Ok(going_on(StatusCode::NO_CONTENT, repository, id, held.get()?.written()))
}

/// `PATCH /v2/<name>/blobs/uploads/<id>`: a chunk, or all of it as a stream.
pub(super) async fn patch(
    server: &Server,
    repository: &str,
    id: &str,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Fault> {
    let held = server.sessions.hold(repository, id).await?;
    let mut held = take_body(repository, id, headers, body, held).await?;
    server.sessions.touch(id);
    Ok(going_on(StatusCode::ACCEPTED, repository, id, held.get()?.written()))
}

/// `PUT /v2/<name>/blobs/uploads/<id>?digest=…`: the rest of it, which may be nothing, and the end.
pub(super) async fn put(
    server: &Server,
    repository: &str,
    id: &str,
    query: &Query,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Fault> {
    let digest = digest_of(query.get("digest").unwrap_or_default())?;
    let held = server.sessions.hold(repository, id).await?;
    let held = take_body(repository, id, headers, body, held).await?;
    // Whatever comes out of it, the upload is over: a client that sent the wrong bytes begins again.
    let outcome = commit(held, digest).await;
    server.sessions.remove(id);
    outcome.map(|()| created(repository, &digest))
}

/// `DELETE /v2/<name>/blobs/uploads/<id>`
pub(super) async fn cancel(server: &Server, repository: &str, id: &str) -> Result<Response, Fault> {
    let mut held = server.sessions.hold(repository, id).await?;
    let upload = held.take()?;
    server.sessions.remove(id);
    blocking(move || {
        drop(upload);
        Ok(())
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Writes the body of a `PATCH` or a `PUT`. With a `Content-Range`, it must begin where the upload ends: 416 with
/// the true state otherwise, and nothing is written.
async fn take_body(
    repository: &str,
    id: &str,
    headers: &HeaderMap,
    body: &mut Body,
    mut held: Held,
) -> Result<Held, Fault> {
    let length = stream::content_length(headers);
    let Some(range) = header(headers, CONTENT_RANGE) else { return stream::write(body, length, held).await };
    let (first, expected) = range::chunk(range)
        .ok_or_else(|| Fault::new(Code::BlobUploadInvalid, "the Content-Range is not of the form first-last"))?;
    if length.is_some_and(|length| length != expected) {
        return Err(Fault::new(Code::SizeInvalid, "Content-Range and Content-Length do not agree"));
    }
    let written = held.get()?.written();
    if first != written {
        return Err(Fault::new(Code::BlobUploadInvalid, format!("the next chunk begins at byte {written}"))
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(LOCATION, location(repository, id))
            .header(RANGE, range_of(written))
            .header(UPLOAD_ID, id));
    }
    stream::write(body, Some(expected), held).await
}

async fn commit(mut held: Held, digest: Digest) -> Result<(), Fault> {
    let committed = blocking(move || Ok(held.take()?.commit(&digest)?)).await?;
    match committed {
        Committed::Kept(_) => Ok(()),
        Committed::Mismatch(actual) => {
            Err(Fault::new(Code::DigestInvalid, format!("the blob that was sent has the digest {actual}")))
        }
    }
}

fn digest_of(text: &str) -> Result<Digest, Fault> {
    text.parse().map_err(|_| Fault::new(Code::DigestInvalid, "the digest is missing or illegal"))
}

fn location(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// The state of an upload. An upload of nothing is `0-0` too, as clients of other registries know it.
fn range_of(written: u64) -> String {
    format!("0-{}", written.saturating_sub(1))
}

fn going_on(status: StatusCode, repository: &str, id: &str, written: u64) -> Response {
    let response = with(empty(status), LOCATION, location(repository, id));
    with(with(response, RANGE, range_of(written)), UPLOAD_ID, id)
}

fn created(repository: &str, digest: &Digest) -> Response {
    let response = with(empty(StatusCode::CREATED), LOCATION, format!("/v2/{repository}/blobs/{digest}"));
    with(response, CONTENT_DIGEST, digest.to_string())
}
