//! [`push_sample`]: a sample image into any registry, over plain HTTP requests that share no code with sealift.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, StatusCode, Url};
use sealift::oci::{Descriptor, Manifest, MediaType, Tag};
use sealift::sample::SampleImage;
use serde_json::{Value, json};

/// Uploads everything of `image` (blobs in two requests each) and tags its root. Where the registry has no referrers
/// API, keeps the fallback tags. Fails on any answer that is not the expected one.
pub async fn push_sample(registry: &str, repository: &str, tag: Option<&str>, image: &SampleImage) {
    push_sample_as(None, registry, repository, tag, image).await;
}

/// The same with the name and the password of a registry that wants them.
pub async fn push_sample_as(
    login: Option<(&str, &str)>,
    registry: &str,
    repository: &str,
    tag: Option<&str>,
    image: &SampleImage,
) {
    let basic = login.map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
    push_sample_with(basic.as_deref(), registry, repository, tag, image).await;
}

/// The same with this in `Authorization`.
pub async fn push_sample_with(
    authorization: Option<&str>,
    registry: &str,
    repository: &str,
    tag: Option<&str>,
    image: &SampleImage,
) {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
    }
    let client = Client::builder().no_proxy().default_headers(headers).build().unwrap();
    push_sample_through(client, registry, repository, tag, image).await;
}

/// The same with a client of the test's own.
pub async fn push_sample_through(
    client: Client,
    registry: &str,
    repository: &str,
    tag: Option<&str>,
    image: &SampleImage,
) {
    let pusher = Pusher { client, registry, repository };
    let mut referrers: BTreeMap<Tag, Vec<Value>> = BTreeMap::new();
    for (descriptor, bytes) in &image.contents {
        if !descriptor.media_type.is_manifest() {
            pusher.blob(descriptor, bytes).await;
            continue;
        }
        let is_root = descriptor.digest == image.root.digest;
        let own_tag = image.tag_of(&descriptor.digest).map(Tag::as_str);
        let name = if is_root { tag } else { own_tag }.map_or(descriptor.digest.to_string(), str::to_owned);
        let listed = pusher.manifest(&name, &descriptor.media_type, bytes).await;
        let manifest = Manifest::parse(&descriptor.media_type, bytes).unwrap();
        if let Some(subject) = manifest.subject.as_ref().filter(|_| !listed) {
            let mut entry = descriptor.clone();
            entry.artifact_type = manifest.referrer_type();
            entry.annotations = manifest.annotations;
            referrers.entry(Tag::referrers_fallback(&subject.digest)).or_default().push(json!(entry));
        }
    }
    for (tag, entries) in referrers {
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries });
        pusher.manifest(tag.as_str(), &MediaType::OCI_INDEX, index.to_string().as_bytes()).await;
    }
}

/// Pushes into one repository of a registry.
pub struct Pusher<'a> {
    client: Client,
    registry: &'a str,
    repository: &'a str,
}

impl<'a> Pusher<'a> {
    /// The repository of the registry at this URL.
    pub fn new(registry: &'a str, repository: &'a str) -> Self {
        Pusher { client: Client::builder().no_proxy().build().unwrap(), registry, repository }
    }

    /// A blob, in two requests.
    pub async fn blob(&self, descriptor: &Descriptor, bytes: &Bytes) {
        let begin: Url = format!("{}/v2/{}/blobs/uploads/", self.registry, self.repository).parse().unwrap();
        let begun = self.client.post(begin.clone()).header("content-length", "0").send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = begun.headers()["location"].to_str().unwrap();
        let mut upload = begin.join(location).unwrap();
        upload.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let put = self.client.put(upload).header("content-type", "application/octet-stream").body(bytes.clone());
        let done = put.send().await.unwrap();
        assert_eq!(done.status(), StatusCode::CREATED, "{descriptor:?}");
    }

    /// A manifest that has to be taken; whether the registry will list it as a referrer.
    async fn manifest(&self, name: &str, media_type: &MediaType, bytes: &[u8]) -> bool {
        self.try_manifest(name, media_type, bytes).await.unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
    }

    /// A manifest: whether the registry will list it as a referrer, or the status and the telling code of its refusal.
    pub async fn try_manifest(&self, name: &str, media_type: &MediaType, bytes: &[u8]) -> Result<bool, String> {
        let url = format!("{}/v2/{}/manifests/{name}", self.registry, self.repository);
        let put = self.client.put(url).header("content-type", media_type.as_str()).body(bytes.to_vec());
        let done = put.send().await.unwrap();
        let (status, listed) = (done.status(), done.headers().contains_key("oci-subject"));
        if status == StatusCode::CREATED {
            return Ok(listed);
        }
        let body: Value = serde_json::from_slice(&done.bytes().await.unwrap()).unwrap_or_default();
        let entries = body["errors"].as_array().cloned().unwrap_or_default();
        let codes: Vec<&str> = entries.iter().filter_map(|entry| entry["code"].as_str()).collect();
        // The first entries of distribution's refusals may be "UNKNOWN"; the telling one comes later.
        let code = codes.iter().find(|code| **code != "UNKNOWN").or(codes.first()).unwrap_or(&"");
        Err(format!("{} {code}", status.as_u16()).trim_end().to_owned())
    }
}
