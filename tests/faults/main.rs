//! Bad lines: whatever happens to single requests on the way, a pull and a replay end with the content of an undisturbed one,
//! fetch little of it twice, and keep no wrong byte.
//!
//! Between sealift and a registry (the embedded one, and distribution where it is installed) stands a proxy that does one
//! thing wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod cuts;
mod pulls;
mod replays;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use sealift::Kind;
use sealift::oci::Descriptor;
use sealift::sample::{ImageBuilder, SampleImage};
use sealift::serve::{MemoryShelf, Running};
use support::faults::{Fault, Faults};
use support::{Asked, DockerRegistry};

const REPOSITORY: &str = "team/app";

/// The bytes of the large blob where not all depends on it.
const LAYER: usize = 8_000;

/// A refusal that comes with any status.
const DENIED: &str = r#"{"errors":[{"code":"UNKNOWN"},{"code":"DENIED","message":"requested access is denied"}]}"#;

/// What stands behind the proxy.
enum Behind {
    Embedded(Running),
    Distribution(DockerRegistry),
}

impl Behind {
    async fn embedded() -> Self {
        Behind::Embedded(Running::start(Arc::new(MemoryShelf::new())).await.unwrap())
    }

    /// `None` where it is not installed.
    async fn distribution() -> Option<Self> {
        DockerRegistry::start().await.map(Behind::Distribution)
    }

    fn host(&self) -> String {
        match self {
            Behind::Embedded(running) => running.address().to_string(),
            Behind::Distribution(registry) => registry.host().to_owned(),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.host())
    }
}

/// Whom a fault is for.
#[derive(Clone, Copy)]
enum Which {
    Of(fn(&Asked) -> bool),
    /// The one large blob, read or uploaded.
    Layer,
    /// The rest of it.
    Rest,
}

/// What goes wrong, and what comes of it.
struct Row {
    name: &'static str,
    /// For the requests that fit, so many times.
    faults: &'static [(Which, usize, Fault)],
    /// How the runs end before the one that ends well: none, where nobody is to notice.
    before: &'static [Kind],
}

impl Row {
    fn tell(&self, faults: &Faults, layer: &Descriptor) {
        for (which, times, fault) in self.faults {
            let (which, layer) = (*which, layer.clone());
            faults.on(move |asked| which.fits(asked, &layer), *times, fault.clone());
        }
    }
}

impl Which {
    fn fits(self, asked: &Asked, layer: &Descriptor) -> bool {
        match self {
            Which::Of(fits) => fits(asked),
            Which::Layer => is_of(asked, layer),
            Which::Rest => is_of(asked, layer) && asked.range.is_some(),
        }
    }
}

/// Moves this blob.
fn is_of(asked: &Asked, blob: &Descriptor) -> bool {
    matches!(asked.method.as_str(), "GET" | "PUT" | "PATCH") && asked.path.contains(&blob.digest.hex().to_string())
}

/// The one large blob of an image.
fn layer_of(image: &SampleImage) -> Descriptor {
    image.contents.iter().map(|(blob, _)| blob).max_by_key(|blob| blob.size).unwrap().clone()
}

/// An image with everything that a pull looks for; its layer has `size` bytes that nothing compresses.
fn image(size: usize) -> SampleImage {
    ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(size, 1)
        .attestation()
        .platform("linux", "arm64", "v8")
        .random_layer(1_000, 2)
        .referrer("application/spdx+json", b"{\"name\":\"app\"}")
        .cosign_tag("registry.example/team/app", |payload| payload.to_vec())
        .build()
        .unwrap()
}
