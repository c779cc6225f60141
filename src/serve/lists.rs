//! Lists: the catalog, the tags of a repository, the referrers of a manifest.

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, HeaderName, LINK};
use axum::response::Response;
use serde_json::json;

use super::fault::{Code, Fault};
use super::page;
use super::query::Query;
use super::server::{Server, json as json_response, with};
use crate::oci::{Descriptor, Digest, MediaType};

/// Says that the answer was filtered, so that clients need not do it again.
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The most referrers of one answer.
const REFERRERS_PAGE_MAX: usize = 500;

/// The most bytes of annotations in one answer, as long as it has one referrer: clients read 4 MiB of an index, and
/// one manifest alone can have annotations of nearly that size.
const ANNOTATIONS_PAGE_MAX: usize = 2 * 1024 * 1024;

/// `GET /v2/_catalog`
pub(super) async fn catalog(server: &Server, query: &Query) -> Result<Response, Fault> {
    let names = server.ask(|shelf| shelf.repositories()).await?;
    let page = page::cut(names, query, "/v2/_catalog")?;
    Ok(linked(json_response(&json!({ "repositories": page.items })), page.link))
}

/// `GET /v2/<name>/tags/list`
pub(super) async fn tags(server: &Server, repository: String, query: &Query) -> Result<Response, Fault> {
    let name = repository.clone();
    let tags = server.ask(move |shelf| shelf.tags(&name)).await?;
    let tags = tags.ok_or_else(|| Fault::new(Code::NameUnknown, "there is no such repository"))?;
    let page = page::cut(tags, query, &format!("/v2/{repository}/tags/list"))?;
    Ok(linked(json_response(&json!({ "name": repository, "tags": page.items })), page.link))
}

/// `GET /v2/<name>/referrers/<digest>`: always 200, because 404 would mean that this registry does not have the
/// interface at all (distribution specification, "Listing Referrers").
pub(super) async fn referrers(
    server: &Server,
    repository: String,
    subject: Digest,
    query: &Query,
) -> Result<Response, Fault> {
    let name = repository.clone();
    let mut found = server.ask(move |shelf| shelf.referrers(&name, &subject)).await?;
    let filter = query.get("artifactType");
    if let Some(kind) = filter {
        found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(kind));
    }
    let link = cut_referrers(&mut found, query, &format!("/v2/{repository}/referrers/{subject}"));
    let mut response = json_response(&json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_INDEX.as_str(),
        "manifests": found,
    }));
    let kind = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if filter.is_some() {
        response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(linked(response, link))
}

/// Cuts a list of referrers to one page, which begins after the digest `last`; the `Link` to the next one.
fn cut_referrers(found: &mut Vec<Descriptor>, query: &Query, path: &str) -> Option<String> {
    found.sort_by_key(|descriptor| descriptor.digest);
    if let Some(last) = query.get("last").and_then(|last| last.parse::<Digest>().ok()) {
        found.retain(|descriptor| descriptor.digest > last);
    }
    let length = page_length(found);
    let more = found.len() > length;
    found.truncate(length);
    let last = found.last().filter(|_| more)?.digest.to_string();
    let mut next = url::form_urlencoded::Serializer::new(String::new());
    next.append_pair("last", &last);
    if let Some(kind) = query.get("artifactType") {
        next.append_pair("artifactType", kind);
    }
    Some(format!("<{path}?{}>; rel=\"next\"", next.finish()))
}

/// How many of these fit into one answer; at least one where there is one.
fn page_length(found: &[Descriptor]) -> usize {
    let mut bytes = 0;
    let fits = |descriptor: &&Descriptor| {
        bytes += descriptor.annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        bytes <= ANNOTATIONS_PAGE_MAX
    };
    found.iter().take(REFERRERS_PAGE_MAX).take_while(fits).count().max(found.len().min(1))
}

fn linked(response: Response, link: Option<String>) -> Response {
    match link {
        Some(link) => with(response, LINK, link),
        None => response,
    }
}
