//! Other people's tools and registries against sealift: the conformance suite, crane, regctl, oras, cosign,
//! distribution 3 and olareg.
//! `tests/interop` builds them and runs this; without it, each test says that it was skipped and passes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod layouts;
mod matrix;
mod probing;
mod registries;
mod serving;
mod signatures;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod targets;
mod uploads;

use sealift::oci::Digest;
use sealift::sample::{ImageBuilder, SampleImage};
use serde_json::Value;
use support::{Counterparts, DockerRegistry, Machine, Reader, Serving, counterpart, push_sample};

/// What is carried, and what stays behind.
const KEPT: &str = "linux/amd64";
const LEFT_OUT: &str = "linux/arm64";

/// An image on a registry, one platform of it in a store and in a bundle.
struct Carried {
    machine: Machine,
    source: DockerRegistry,
    image: SampleImage,
    /// The folder of the bundle.
    bundle: String,
}

impl Carried {
    /// `None` when the test is to be skipped.
    async fn start() -> Option<Self> {
        let source = DockerRegistry::start().await?;
        let image = image();
        push_sample(&source.url(), "team/app", Some("1"), &image).await;
        let machine = Machine::new();
        let spec = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: met\ndefaults:\n  platforms: [{KEPT}]\n\
             images:\n  - source: {}/team/app\n    tags: {{exact: [\"1\"]}}\n",
            source.host()
        );
        machine.write("spec.yaml", &spec);
        machine.ok(&["pull", "spec.yaml", "--store", "store"]).await;
        machine.ok(&["key", "generate", "--out", "keys/exporter"]).await;
        let export = ["export", "met", "--store", "store", "--to", "drive", "--sign-key", "keys/exporter.key"];
        let report = machine.json(&export).await;
        let bundle = report["folder"].as_str().unwrap().to_owned();
        Some(Carried { machine, source, image, bundle })
    }

    /// `host/repository` of the image at its source.
    fn at_source(&self) -> String {
        format!("{}/team/app", self.source.host())
    }

    /// The repository of the image where sealift serves or replays it.
    fn repository(&self) -> String {
        format!("{}/team/app", self.source.host().replace(':', "_"))
    }

    async fn serve_bundle(&self) -> Serving {
        self.machine.serve(&[&self.bundle, "--key", "keys/exporter.pub"]).await
    }

    async fn serve_store(&self) -> Serving {
        self.machine.serve(&["store", "--writable"]).await
    }

    fn index(&self) -> Digest {
        self.image.root.digest
    }

    fn child(&self, architecture: &str) -> Digest {
        self.image.child("linux", architecture, "").unwrap().digest
    }

    /// `name@digest` of the sparse index.
    fn by_digest(&self, name: &str) -> String {
        format!("{name}@{}", self.index())
    }
}

fn image() -> SampleImage {
    ImageBuilder::new()
        .layer_files(&[("etc/base", b"base\n")])
        .platform("linux", "amd64", "")
        .random_layer(200_000, 1)
        .attestation()
        .platform("linux", "arm64", "v8")
        .random_layer(200_000, 2)
        .referrer("application/spdx+json", b"{\"name\":\"app\"}")
        .build()
        .unwrap()
}
