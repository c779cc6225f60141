//! Manifests: getting, putting, removing.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use super::fault::{Code, Fault};
use super::server::{Server, header, with};
use super::{CONTENT_DIGEST, empty, etag, stream};
use crate::oci::Name;
use crate::oci::manifest::InvalidManifest;
use crate::oci::{Descriptor, Digest, MANIFEST_SIZE_MAX, Manifest, MediaType};

/// Says that this registry lists the manifest as a referrer of that digest, so that the client need not keep the
/// fallback tag.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// The most missing blobs that one answer names.
const MISSING_NAMED_MAX: usize = 100;

/// There is no such manifest.
pub(super) fn unknown() -> Fault {
    Fault::new(Code::ManifestUnknown, "this repository has no such manifest")
}

/// `GET` and `HEAD /v2/<name>/manifests/<reference>`. The bytes are what they are: `Accept` changes nothing.
pub(super) async fn get(
    server: &Server,
    repository: String,
    name: Name,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Fault> {
    let found = server.ask(move |shelf| shelf.resolve(&repository, &name)).await?;
    let descriptor = found.ok_or_else(unknown)?;
    if header(headers, IF_NONE_MATCH).is_some_and(|known| matches(known, &descriptor.digest)) {
        return Ok(identified(empty(StatusCode::NOT_MODIFIED), &descriptor.digest));
    }
    let response = if method == Method::HEAD {
        empty(StatusCode::OK)
    } else {
        let wanted = descriptor.clone();
        Response::new(Body::from(server.ask(move |shelf| shelf.manifest(&wanted)).await?))
    };
    let response = with(response, CONTENT_TYPE, descriptor.media_type.as_str());
    let response = with(response, CONTENT_LENGTH, descriptor.size.to_string());
    Ok(identified(response, &descriptor.digest))
}

/// Whether an `If-None-Match` names `digest`; the comparison is the weak one (RFC 9110, section 13.1.2).
fn matches(known: &str, digest: &Digest) -> bool {
    let tag = etag(digest);
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

fn identified(response: Response, digest: &Digest) -> Response {
    with(with(response, CONTENT_DIGEST, digest.to_string()), ETAG, etag(digest))
}

/// `PUT /v2/<name>/manifests/<reference>`
///
/// Config and layers must be there, except foreign layers that say where else they are. The children of an index
/// need not be: the specification leaves that to the registry, and this one serves sparse indexes.
pub(super) async fn put(
    server: &Server,
    repository: String,
    name: Name,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Response, Fault> {
    server.writable()?;
    let media_type = announced(headers)?;
    let bytes = stream::read_small(body, headers, MANIFEST_SIZE_MAX).await?;
    let manifest = Manifest::parse(&media_type, &bytes).map_err(invalid)?;
    let (digest, tag) = match name {
        Name::Tag(tag) => (Digest::of(&bytes), Some(tag)),
        Name::Digest(expected) => (matching(expected, &bytes)?, None),
    };
    let missing = missing_blobs(server, &repository, &manifest).await?;
    if !missing.is_empty() {
        return Err(Fault::blobs_missing(&missing));
    }
    let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
    let location = format!("/v2/{repository}/manifests/{digest}");
    server.change(move |writer| writer.put_manifest(&repository, tag.as_ref(), &descriptor, &bytes)).await?;
    let response = with(identified(empty(StatusCode::CREATED), &digest), LOCATION, location);
    Ok(match manifest.subject {
        Some(subject) => with(response, SUBJECT, subject.digest.to_string()),
        None => response,
    })
}

/// The type that the client says the manifest has.
fn announced(headers: &HeaderMap) -> Result<MediaType, Fault> {
    let media_type = header(headers, CONTENT_TYPE).map(MediaType::new);
    match media_type {
        Some(media_type) if media_type.is_manifest() => Ok(media_type),
        Some(media_type) if media_type.is_schema1() => Err(invalid(InvalidManifest::Schema1)),
        _ => Err(Fault::new(Code::ManifestInvalid, "the Content-Type is not that of a manifest or an index")),
    }
}

fn invalid(error: InvalidManifest) -> Fault {
    Fault::new(Code::ManifestInvalid, error.to_string())
}

fn matching(expected: Digest, bytes: &Bytes) -> Result<Digest, Fault> {
    let actual = expected.same_algorithm_of(bytes);
    if actual == expected {
        return Ok(expected);
    }
    Err(Fault::new(Code::DigestInvalid, format!("the manifest that was sent has the digest {actual}")))
}

/// Which blobs an image manifest needs that the repository does not have.
async fn missing_blobs(server: &Server, repository: &str, manifest: &Manifest) -> Result<Vec<Digest>, Fault> {
    if manifest.media_type.is_index() {
        return Ok(Vec::new());
    }
    let needed: Vec<Digest> =
        manifest.successors().filter(|blob| !is_elsewhere(blob)).map(|blob| blob.digest).collect();
    let repository = repository.to_owned();
    server
        .ask(move |shelf| {
            let mut missing = Vec::new();
            for digest in needed {
                if missing.len() < MISSING_NAMED_MAX && shelf.blob(&repository, &digest)?.is_none() {
                    missing.push(digest);
                }
            }
            Ok(missing)
        })
        .await
}

/// A foreign layer that names where it can be had.
fn is_elsewhere(blob: &Descriptor) -> bool {
    blob.media_type.is_foreign_layer() && !blob.urls.is_empty()
}

/// `DELETE /v2/<name>/manifests/<reference>`
pub(super) async fn delete(server: &Server, repository: String, name: Name) -> Result<Response, Fault> {
    let deleted = server.change(move |writer| writer.delete_manifest(&repository, &name)).await?;
    if deleted { Ok(empty(StatusCode::ACCEPTED)) } else { Err(unknown()) }
}
