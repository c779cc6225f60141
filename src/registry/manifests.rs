//! Manifests: looking up, getting, putting, deleting.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::Answer;
use super::download::ALTERED;
use super::endpoint::{Call, Outcome};
use super::remote::{Door, Read};
use super::scope::Scope;
use super::transport::encoding_of;
use crate::error::{Error, Result};
use crate::oci::Name;
use crate::oci::{Descriptor, Digest, MANIFEST_SIZE_MAX, MediaType, json};

/// What a registry did with a manifest that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It has it now.
    Accepted {
        /// It said that it lists the manifest among the referrers of its subject (`OCI-Subject`).
        subject: bool,
    },
    /// It does not take it, and will not when asked again: a status of 4xx, or distribution's 500 that carries
    /// `MANIFEST_BLOB_UNKNOWN`.
    Refused(Answer),
}

/// Codes with which registries refuse an index whose children they do not have. There is no common one: distribution and
/// Docker Hub, Nexus, zot and Quay, and others each have their own.
pub const MISSING_CHILD_CODES: &[&str] =
    &["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnType {
    media_type: Option<String>,
}

impl Door {
    pub async fn head_manifest(&self, name: &Name) -> Result<Option<Descriptor>> {
        let call = self.manifest_call(Method::HEAD, name, Scope::pull(&self.path))?;
        match self.ask(&call).await? {
            Outcome::Good(response) => {
                if let Some(descriptor) = described(name, response.headers()) {
                    return Ok(Some(descriptor));
                }
            }
            Outcome::Bad(answer) if answer.is_absent() => return Ok(None),
            // Not everyone knows HEAD, and its refusals have no body that says why.
            Outcome::Bad(_) => {}
        }
        Ok(self.get_manifest(name, None).await?.map(|(descriptor, _)| descriptor))
    }

    pub async fn get_manifest(
        &self,
        name: &Name,
        announced: Option<&Descriptor>,
    ) -> Result<Option<(Descriptor, Bytes)>> {
        let call = self.manifest_call(Method::GET, name, Scope::pull(&self.path))?;
        match self.read(&call, MANIFEST_SIZE_MAX as usize).await? {
            Ok(read) => self.check_manifest(name, announced, read).map(Some),
            Err(answer) if answer.is_absent() => Ok(None),
            Err(answer) => Err(answer.into_error()),
        }
    }

    fn check_manifest(&self, name: &Name, announced: Option<&Descriptor>, read: Read) -> Result<(Descriptor, Bytes)> {
        let Read { headers, body } = read;
        let host = self.endpoint.host();
        let named = match name {
            Name::Digest(digest) => Some(*digest),
            Name::Tag(_) => None,
        };
        let served = header_digest(&headers);
        let expected = [named, announced.map(|announced| announced.digest), served];
        for expected in expected.into_iter().flatten() {
            let found = expected.same_algorithm_of(&body);
            if found != expected {
                let encoding = encoding_of(&headers);
                let what = format!("{host} answered with bytes of the digest {found}, expected {expected}{encoding}");
                return Err(Error::verification(what).help(ALTERED));
            }
        }
        if let Some(announced) = announced.filter(|announced| announced.size != body.len() as u64) {
            let what = format!("{host} answered with {} bytes, announced were {}", body.len(), announced.size);
            return Err(Error::verification(what).help(ALTERED));
        }
        let digest = expected.into_iter().flatten().next().unwrap_or_else(|| Digest::of(&body));
        let media_type = media_type(&headers, &body, announced);
        Ok((Descriptor::new(media_type, digest, body.len() as u64), body))
    }

    pub async fn put_manifest(
        &self,
        name: &Name,
        media_type: &MediaType,
        bytes: Bytes,
        last_words: &'static [&'static str],
    ) -> Result<Put> {
        let kind = HeaderValue::from_str(media_type.as_str())
            .map_err(|_| Error::usage(format!("the media type {media_type} is none that a header takes")))?;
        let mut call = self.manifest_call(Method::PUT, name, Scope::push(&self.path))?.with(CONTENT_TYPE, kind);
        (call.body, call.last_words) = (bytes, last_words);
        match self.ask(&call).await? {
            Outcome::Good(response) => Ok(Put::Accepted { subject: response.headers().contains_key("oci-subject") }),
            Outcome::Bad(answer) if (300..400).contains(&answer.status) => Err(answer.into_error()),
            Outcome::Bad(answer) => Ok(Put::Refused(answer)),
        }
    }

    pub async fn delete_manifest(&self, name: &Name) -> Result<bool> {
        let call = self.manifest_call(Method::DELETE, name, Scope::delete(&self.path))?;
        match self.ask(&call).await? {
            Outcome::Good(_) => Ok(true),
            Outcome::Bad(answer) if answer.is_absent() => Ok(false),
            Outcome::Bad(answer) => Err(answer.into_error()),
        }
    }

    fn manifest_call(&self, method: Method, name: &Name, scope: Scope) -> Result<Call> {
        let url = self.endpoint.url(&self.path, &format!("manifests/{name}"))?;
        let reading = matches!(method, Method::GET | Method::HEAD);
        let is_pull = method == Method::GET;
        let mut call = Call { is_pull, ..Call::new(method, url, &self.path, scope) };
        // All of them, always: registries convert a manifest, or say it is unknown, when its type is not accepted.
        for accepted in MediaType::MANIFESTS.iter().filter(|_| reading) {
            if let Ok(value) = HeaderValue::from_str(accepted.as_str()) {
                call = call.with(ACCEPT, value);
            }
        }
        Ok(call)
    }
}

/// The descriptor in the headers of an answer to HEAD; `None` when they do not say enough, or are not believed.
fn described(name: &Name, headers: &HeaderMap) -> Option<Descriptor> {
    let digest = header_digest(headers)?;
    if matches!(name, Name::Digest(named) if *named != digest) {
        return None;
    }
    let media_type = header_type(headers)?;
    let size = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(Descriptor::new(media_type, digest, size))
}

fn header_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.trim().parse().ok()
}

/// The type in the header, where it is one of a manifest: some servers say `text/plain` of everything.
fn header_type(headers: &HeaderMap) -> Option<MediaType> {
    let media_type = MediaType::new(headers.get(CONTENT_TYPE)?.to_str().ok()?);
    (media_type.is_manifest() || media_type.is_schema1()).then_some(media_type)
}

fn media_type(headers: &HeaderMap, body: &[u8], announced: Option<&Descriptor>) -> MediaType {
    let own = || json::parse::<OwnType>(body).ok()?.media_type.map(|text| MediaType::new(&text));
    header_type(headers)
        .or_else(own)
        .or_else(|| announced.map(|announced| announced.media_type.clone()))
        .unwrap_or(MediaType::OCTET_STREAM)
}
