//! [`Reader`]: what a registry answers, seen without any code of sealift's client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Response};
use sealift::oci::{Digest, MediaType};
use serde_json::Value;

/// Reads one repository of a registry.
pub struct Reader {
    client: Client,
    base: String,
}

impl Reader {
    /// The repository `repository` of the registry at `url`.
    pub fn new(url: &str, repository: &str) -> Self {
        Reader { client: Client::builder().no_proxy().build().unwrap(), base: format!("{url}/v2/{repository}") }
    }

    /// The same for a registry that wants a name and a password.
    pub fn logged_in((user, password): (&str, &str), url: &str, repository: &str) -> Self {
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let headers = [(AUTHORIZATION, basic.parse().unwrap())].into_iter().collect();
        let client = Client::builder().no_proxy().default_headers(headers).build().unwrap();
        Reader { client, ..Self::new(url, repository) }
    }

    async fn get(&self, path: &str) -> Response {
        let accept =
            [MediaType::OCI_INDEX, MediaType::OCI_MANIFEST, MediaType::DOCKER_LIST, MediaType::DOCKER_MANIFEST];
        let accept: Vec<&str> = accept.iter().map(MediaType::as_str).collect();
        self.client.get(format!("{}/{path}", self.base)).header("accept", accept.join(", ")).send().await.unwrap()
    }

    /// The bytes of a manifest; `None` for 404.
    pub async fn manifest(&self, name: impl std::fmt::Display) -> Option<Bytes> {
        let answer = self.get(&format!("manifests/{name}")).await;
        match answer.status().as_u16() {
            200 => Some(answer.bytes().await.unwrap()),
            404 => None,
            other => panic!("{name}: {other}: {}", answer.text().await.unwrap()),
        }
    }

    /// A manifest that has to be there, as JSON.
    pub async fn document(&self, name: impl std::fmt::Display) -> Value {
        let bytes = self.manifest(&name).await.unwrap_or_else(|| panic!("{}: {name} is not there", self.base));
        serde_json::from_slice(&bytes).unwrap()
    }

    /// What the referrers API lists of a subject.
    pub async fn referrers(&self, subject: &Digest) -> Vec<Digest> {
        self.try_referrers(subject).await.unwrap_or_else(|| panic!("{}: there is no referrers API", self.base))
    }

    /// The same; `None` where there is no such API.
    pub async fn try_referrers(&self, subject: &Digest) -> Option<Vec<Digest>> {
        let answer = self.get(&format!("referrers/{subject}")).await;
        if answer.status() == 404 {
            return None;
        }
        assert_eq!(answer.status(), 200, "{}", self.base);
        let index: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let digests = index["manifests"].as_array().unwrap().iter().map(|one| one["digest"].as_str().unwrap());
        Some(digests.map(|digest| digest.parse().unwrap()).collect())
    }

    /// The bytes of a blob, where it is there; they have its digest.
    pub async fn blob(&self, digest: &Digest) -> Option<Bytes> {
        let answer = self.get(&format!("blobs/{digest}")).await;
        if !answer.status().is_success() {
            return None;
        }
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(Digest::of(&bytes), *digest);
        Some(bytes)
    }

    /// Whether a blob is there, whole.
    pub async fn has_blob(&self, digest: &Digest) -> bool {
        self.blob(digest).await.is_some()
    }

    /// The tags; none for a repository that is not there.
    pub async fn tags(&self) -> Vec<String> {
        let answer = self.get("tags/list").await;
        if answer.status() == 404 {
            return Vec::new();
        }
        let list: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let mut tags: Vec<String> = serde_json::from_value(list["tags"].clone()).unwrap_or_default();
        tags.sort();
        tags
    }
}
