//! Every MUST of the OCI distribution specification, version 1.1, that speaks to registries, in the order of its text:
//! pull, push, content discovery, content management. Each is asked of the shelf in memory and of a writable store.

mod discovery;
mod management;
mod pull;
mod push;

use std::sync::Arc;

use sealift::oci::Digest;
use sealift::serve::{MemoryShelf, StoreShelf};
use sealift::store::{Access, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Answer, OCI_INDEX, OCI_MANIFEST, Registry};

const CONFIG: &str = "application/vnd.example.config+json";

/// A registry without content, and what it is over.
struct Case {
    over: &'static str,
    registry: Registry,
    _folder: Option<TempDir>,
}

async fn cases() -> [Case; 2] {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Access::Writer).unwrap());
    let shelf = Arc::new(StoreShelf::new(store, true).unwrap());
    [
        Case { over: "memory", registry: Registry::start().await, _folder: None },
        Case { over: "a store", registry: Registry::over(MemoryShelf::new(), shelf).await, _folder: Some(folder) },
    ]
}

/// An image manifest, and what it says beside its config.
struct Artifact {
    document: Value,
    media_type: &'static str,
}

impl Artifact {
    /// A manifest whose config and only layer are small blobs, which [`Artifact::push`] uploads.
    fn image() -> Self {
        let document = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(CONFIG, b"{}"),
            "layers": [descriptor("application/octet-stream", b"layer")],
        });
        Artifact { document, media_type: OCI_MANIFEST }
    }

    fn index() -> Self {
        let document = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
        Artifact { document, media_type: OCI_INDEX }
    }

    fn with(mut self, member: &str, value: Value) -> Self {
        self.document[member] = value;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        self.document.to_string().into_bytes()
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.bytes())
    }

    /// As the `subject` of another one.
    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes().len() })
    }

    /// Uploads its blobs and puts it under `name`.
    async fn push(&self, registry: &Registry, repository: &str, name: &str) -> Answer {
        registry.blob(repository, b"{}").await;
        registry.blob(repository, b"layer").await;
        let path = format!("/v2/{repository}/manifests/{name}");
        registry.send("PUT", &path, &[("content-type", self.media_type)], self.bytes()).await
    }

    /// Puts it under its digest, and fails unless it is taken.
    async fn keep(&self, registry: &Registry, repository: &str) {
        let answer = self.push(registry, repository, &self.digest().to_string()).await;
        assert_eq!(answer.status, 201, "{:?}", answer.body);
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

/// The path of a `Location` header, which is one of this registry.
fn location(answer: &Answer) -> &str {
    let location = answer.header("location");
    assert!(location.starts_with("/v2/"), "{location}");
    location
}
