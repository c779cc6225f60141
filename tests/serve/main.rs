//! The protocol of the embedded registry, request by request, over TCP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod conformance;
mod foreign;
mod pull;
mod push;
mod refusals;

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Client, Method, StatusCode};
use sealift::oci::Digest;
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf};
use serde_json::{Value, json};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The only codes that the specification allows in answers of the 400s ("Error Codes").
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

struct Registry {
    running: Running,
    shelf: MemoryShelf,
    client: Client,
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The codes of the error envelope.
    fn codes(&self) -> Vec<String> {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let entries = document["errors"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["code"].as_str().unwrap().to_owned()).collect()
    }
}

impl Registry {
    async fn start() -> Self {
        let shelf = MemoryShelf::new();
        Self::over(shelf.clone(), Arc::new(shelf)).await
    }

    async fn over(shelf: MemoryShelf, served: Arc<dyn Shelf>) -> Self {
        let running = Running::start(served).await.unwrap();
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Registry { running, shelf, client }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        let method: Method = method.parse().unwrap();
        let url = format!("{}{path}", self.running.url());
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer { status, headers, body: response.bytes().await.unwrap() };
        if (400..500).contains(&status) && !answer.body.is_empty() {
            let codes = answer.codes();
            assert!(!codes.is_empty() && codes.iter().all(|code| CODES.contains(&code.as_str())), "{path}: {codes:?}");
        }
        answer
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Uploads a blob in one request.
    async fn blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send("POST", &path, &[], bytes.to_vec()).await.status, 201);
        digest
    }

    /// Begins an upload; its location.
    async fn begin(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
        assert_eq!((answer.status, answer.header("range")), (202, "0-0"));
        answer.header("location").to_owned()
    }
}

fn image() -> SampleImage {
    ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(1000, 1)
        .platform("linux", "arm64", "v8")
        .random_layer(1000, 2)
        .referrer("application/spdx+json", b"{\"sbom\":1}")
        .referrer("application/vnd.example.signature", b"signature")
        .build()
        .unwrap()
}

async fn seeded() -> (Registry, SampleImage) {
    let (registry, image) = (Registry::start().await, image());
    seed(&registry.shelf, "team/app", Some(&"1.0".parse().unwrap()), &image).unwrap();
    (registry, image)
}

#[tokio::test]
async fn the_base_says_that_it_is_a_registry() {
    let registry = Registry::start().await;
    for path in ["/v2/", "/v2", "/v2/?ns=docker.io"] {
        let answer = registry.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        assert_eq!(answer.json(), json!({}));
    }
}

#[tokio::test]
async fn stopping_ends_the_listener() {
    let Registry { running, client, .. } = Registry::start().await;
    let url = format!("{}/v2/", running.url());
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::OK);
    running.stop().await.unwrap();
    assert!(client.get(&url).send().await.is_err());
}
