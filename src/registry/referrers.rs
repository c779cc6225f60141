//! Listing referrers: by the API where there is one, else by the fallback tag (OCI distribution specification,
//! "Listing Referrers" and "Referrers Tag Schema").

use std::collections::BTreeSet;
use std::sync::PoisonError;

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use url::Url;

use super::Answer;
use super::endpoint::Call;
use super::link::{self, Progress};
use super::remote::{Door, Read};
use super::scope::Scope;
use super::transport::encoding_of;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, MANIFEST_SIZE_MAX, Manifest, MediaType, Tag};

/// The most referrers of one subject. Images that are signed and scanned every night collect some hundreds.
pub const REFERRERS_MAX: usize = 1_000;

/// How many bytes all pages of one list may have. Real entries have some hundred; annotations may hold anything, and a
/// thousand pages of the largest size would be gigabytes.
const LIST_SIZE_MAX: usize = 16 * 1024 * 1024;

/// What refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    /// Where that was found.
    pub form: ReferrersForm,
    /// The referring manifests, each once, in the registry's order.
    pub descriptors: Vec<Descriptor>,
}

/// Where referrers were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferrersForm {
    /// The registry's referrers API; its list may be empty.
    Api,
    /// The index behind the fallback tag.
    FallbackTag,
    /// There is neither the API nor an index behind the fallback tag.
    Absent,
}

/// What a registry says at the place of the API.
enum Api {
    Page(Read),
    Missing(Option<Answer>),
}

impl Door {
    pub async fn referrers(&self, subject: &Digest) -> Result<Referrers> {
        match self.referrers_api(subject).await? {
            Some(descriptors) => Ok(Referrers { form: ReferrersForm::Api, descriptors }),
            None => self.referrers_fallback(subject).await,
        }
    }

    /// A digest that nothing has: the API answers with an empty index for it.
    pub async fn supports_referrers(&self) -> Result<bool> {
        let known = &self.endpoint.referrers_api;
        if let Some(known) = *known.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(known);
        }
        let supported = match self.referrers_page(self.referrers_url(&Digest::Sha256([0; 32]))?).await? {
            Api::Page(_) => true,
            // The repository is not there yet, which says nothing about the API.
            Api::Missing(Some(answer)) if answer.has_code("NAME_UNKNOWN") => return Ok(false),
            Api::Missing(_) => false,
        };
        *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(supported);
        Ok(supported)
    }

    /// All pages; `None` where there is no API.
    async fn referrers_api(&self, subject: &Digest) -> Result<Option<Vec<Descriptor>>> {
        let mut url = self.referrers_url(subject)?;
        let (mut found, mut progress, mut size) = (Found::default(), Progress::default(), 0);
        // Each page but the last brings one at least.
        for page in 0..=REFERRERS_MAX {
            let read = match self.referrers_page(url.clone()).await? {
                Api::Page(read) => read,
                Api::Missing(_) if page == 0 => return Ok(None),
                Api::Missing(_) => return Err(self.error(format_args!("ended its list of referrers in the middle"))),
            };
            size += read.body.len();
            if size > LIST_SIZE_MAX {
                return Err(self.error(format_args!("lists referrers in more than {LIST_SIZE_MAX} bytes")));
            }
            self.add_referrers(&MediaType::OCI_INDEX, &read.body, &encoding_of(&read.headers), &mut found)?;
            let count = found.descriptors.len();
            progress.check(count).map_err(|what| self.error(format_args!("lists referrers on {what}")))?;
            match link::next(&url, &read.headers)? {
                Some(next) if next != url => url = next,
                _ => return Ok(Some(found.descriptors)),
            }
        }
        Err(self.error(format_args!("lists referrers on more than {REFERRERS_MAX} pages")))
    }

    /// The API is there when the answer is an index and says so: some registries answer 200 with something else.
    async fn referrers_page(&self, url: Url) -> Result<Api> {
        let accept = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
        let call = Call::new(Method::GET, url, &self.path, Scope::pull(&self.path)).with(ACCEPT, accept);
        match self.read(&call, MANIFEST_SIZE_MAX as usize).await? {
            Ok(read) => {
                let kind = read.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(MediaType::new);
                Ok(if kind == Some(MediaType::OCI_INDEX) { Api::Page(read) } else { Api::Missing(None) })
            }
            // Not being allowed to know is not the same as there being none.
            Err(answer) if answer.status == 403 => Err(answer.into_error()),
            Err(answer) => Ok(Api::Missing(Some(answer))),
        }
    }

    async fn referrers_fallback(&self, subject: &Digest) -> Result<Referrers> {
        let tag = Tag::referrers_fallback(subject);
        let Some((descriptor, bytes)) = self.get_manifest(&tag.into(), None).await? else {
            return Ok(Referrers::absent());
        };
        // cosign's copies leave images under this very tag: they are no list of referrers.
        if !descriptor.media_type.is_index() {
            return Ok(Referrers::absent());
        }
        let mut found = Found::default();
        self.add_referrers(&descriptor.media_type, &bytes, "", &mut found)?;
        Ok(Referrers { form: ReferrersForm::FallbackTag, descriptors: found.descriptors })
    }

    fn add_referrers(&self, media_type: &MediaType, bytes: &[u8], encoding: &str, found: &mut Found) -> Result<()> {
        let host = self.endpoint.host();
        let index = Manifest::parse(media_type, bytes).map_err(|error| {
            Error::failed(format!("the list of referrers of {host} cannot be used: {error}{encoding}"))
        })?;
        for child in index.children() {
            if found.seen.insert(child.digest) {
                found.descriptors.push(child.clone());
            }
        }
        match found.descriptors.len() > REFERRERS_MAX {
            true => Err(self
                .error(format_args!("lists more than {REFERRERS_MAX} referrers"))
                .help("set signatures: {carry: none} for this image, or ask its publisher to remove old ones")),
            false => Ok(()),
        }
    }

    fn referrers_url(&self, subject: &Digest) -> Result<Url> {
        self.endpoint.url(&self.path, &format!("referrers/{subject}"))
    }
}

#[derive(Default)]
struct Found {
    descriptors: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
}
