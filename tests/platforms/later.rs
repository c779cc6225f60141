//! A platform that is added a month later. Every digest of the index is there by then, in the store, in the bundle and on the
//! target, and where the target wanted stubs it answers 200 for the very child that is added. What moves is what that child
//! needs and nobody has, to the byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealift::oci::{Descriptor, Digest};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf};
use serde_json::Value;

use super::selection::tag;
use crate::support::faults::{Faults, blob, upload};
use crate::support::{DockerRegistry, Reader, World};

const SHARED: usize = 60_000;

fn three_platforms(docker: bool) -> SampleImage {
    let mut builder = ImageBuilder::new().layer_files(&[("etc/shared", &sealift::sample::pseudo_random(SHARED, 1))]);
    for (number, (architecture, variant)) in (2..).zip([("amd64", ""), ("arm64", "v8"), ("s390x", "")]) {
        builder = builder.platform("linux", architecture, variant).random_layer(100_000 + number as usize, number);
        if !docker {
            builder = builder.attestation();
        }
    }
    if docker { builder.docker_format() } else { builder }.build().unwrap()
}

/// What an architecture needs, and an index without it does not: blobs with their sizes.
fn only_for(image: &SampleImage, architecture: &str, without: &[&str]) -> BTreeMap<Digest, u64> {
    let mut needed = blobs_for(image, architecture);
    for other in without {
        for there in blobs_for(image, other).keys() {
            needed.remove(there);
        }
    }
    needed
}

/// The configs and layers of a child and of its attestation.
fn blobs_for(image: &SampleImage, architecture: &str) -> BTreeMap<Digest, u64> {
    let child = image.child("linux", architecture, "").unwrap();
    let belongs = |other: &Descriptor| other.digest == child.digest || other.attests() == Some(child.digest);
    let children = image.children().into_iter().filter(belongs);
    let blobs = children.flat_map(|child| {
        let manifest = image.parsed(&child).unwrap();
        manifest.successors().map(|blob| (blob.digest, blob.size)).collect::<Vec<_>>()
    });
    blobs.collect()
}

/// The far end, with a proxy that counts before it.
enum Target {
    Embedded(Running),
    Distribution(DockerRegistry),
}

impl Target {
    fn host(&self) -> String {
        match self {
            Target::Embedded(running) => running.address().to_string(),
            Target::Distribution(registry) => registry.host().to_owned(),
        }
    }

    /// Whether it takes an index only with stubs beside it.
    fn wants_stubs(&self) -> bool {
        matches!(self, Target::Distribution(_))
    }
}

struct Journey {
    world: World,
    source: Faults,
    target: Faults,
    far: Target,
    image: SampleImage,
    _source_at: Running,
}

impl Journey {
    async fn begin(far: Target, docker: bool) -> Self {
        let (shelf, image) = (MemoryShelf::new(), three_platforms(docker));
        seed(shelf.writer().unwrap(), "app", Some(&tag()), &image).unwrap();
        let source_at = Running::start(Arc::new(shelf)).await.unwrap();
        let source = Faults::start(&source_at.address().to_string()).await;
        let target = Faults::start(&far.host()).await;
        Journey { world: World::new(&[]).await, source, target, far, image, _source_at: source_at }
    }

    fn spec(&self, platforms: &str) {
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: later\ndefaults:\n  platforms: [{platforms}]\nimages:\n  \
             - {{source: {}/app, tags: {{exact: ['1']}}}}\n",
            self.source.host()
        );
        std::fs::write(self.world.path("later.yaml"), text).unwrap();
    }

    /// Pulls, exports and replays; what the export said of itself, and the report of the replay.
    fn carry(&self) -> (Value, Value) {
        self.source.heal();
        self.target.heal();
        self.world.run(&["pull", "later.yaml"]).ok();
        let export = ["export", "later", "--to", "drive", "--sign-key", "exporter.key", "--output", "json"];
        let exported = self.world.run(&export).ok();
        let (to, folder) = (format!("{}/m", self.target.host()), exported["folder"].as_str().unwrap().to_owned());
        let replay = ["replay", &folder, "--key", "exporter.pub", "--to", &to, "--output", "json"];
        let replayed = self.world.run(&replay).ok();
        let contents = std::fs::read(self.world.path(&folder).join("bundle.json")).unwrap();
        (serde_json::from_slice(&contents).unwrap(), replayed["reports"][0]["images"][0].clone())
    }

    /// Bytes of blobs that came from the source, by what was asked for.
    fn downloaded(&self) -> BTreeMap<Digest, u64> {
        let mut found = BTreeMap::new();
        for passed in self.source.passed().into_iter().filter(|passed| blob(&passed.asked)) {
            let digest = passed.asked.path.rsplit_once('/').unwrap().1.parse().unwrap();
            *found.entry(digest).or_default() += passed.down;
        }
        found
    }

    /// Bytes of blobs that went to the target.
    fn uploaded(&self) -> Vec<u64> {
        let puts = self.target.passed().into_iter().filter(|passed| upload(&passed.asked));
        let mut sizes: Vec<u64> = puts.map(|passed| passed.up).collect();
        sizes.sort_unstable();
        sizes
    }

    fn on_target(&self) -> Reader {
        let name = format!("m/{}/app", self.source.host().replace(':', "_"));
        Reader::new(&format!("http://{}", self.far.host()), &name)
    }

    async fn is_whole(&self, architecture: &str) -> bool {
        let reader = self.on_target();
        for digest in blobs_for(&self.image, architecture).keys() {
            if !reader.has_blob(digest).await {
                return false;
            }
        }
        true
    }
}

/// The blobs of a bundle, with their sizes.
fn carried(contents: &Value) -> BTreeMap<Digest, u64> {
    let blobs = contents["blobs"].as_array().unwrap().iter();
    blobs.map(|blob| (blob["digest"].as_str().unwrap().parse().unwrap(), blob["size"].as_u64().unwrap())).collect()
}

fn sizes(blobs: &BTreeMap<Digest, u64>) -> Vec<u64> {
    let mut sizes: Vec<u64> = blobs.values().copied().collect();
    sizes.sort_unstable();
    sizes
}

async fn it_moves_exactly_what_is_missing(far: Target, docker: bool) {
    let journey = Journey::begin(far, docker).await;
    let image = &journey.image;
    let arm64 = image.child("linux", "arm64", "").unwrap();
    journey.spec("linux/amd64");
    let (first, replayed) = journey.carry();
    assert_eq!(replayed["rung"], if journey.far.wants_stubs() { "stubs" } else { "put" });
    let there = journey.on_target().manifest(arm64.digest).await.is_some();
    assert_eq!(there, journey.far.wants_stubs(), "a stub answers 200");
    assert_eq!(journey.on_target().manifest("1").await.as_ref(), image.bytes(&image.root.digest));
    assert!(journey.is_whole("amd64").await && !journey.is_whole("arm64").await);

    journey.spec("linux/amd64, linux/arm64");
    let missing = only_for(image, "arm64", &["amd64"]);
    assert!(missing.len() >= 2 && !missing.values().any(|size| *size == SHARED as u64));
    let plan = journey.world.run(&["plan", "later.yaml", "--output", "json"]).ok();
    assert_eq!(plan["plans"][0]["totals"]["new"], missing.values().sum::<u64>(), "the plan says so beforehand");
    let (second, _) = journey.carry();
    assert_eq!(journey.downloaded(), missing, "pull");
    let mut added = carried(&second);
    let before = carried(&first);
    added.retain(|digest, _| !before.contains_key(digest));
    assert!(
        before.keys().all(|digest| carried(&second).contains_key(digest)),
        "export: each bundle is whole in itself"
    );
    assert_eq!(added, missing, "export");
    assert_eq!(journey.uploaded(), sizes(&missing), "replay");
    for architecture in ["amd64", "arm64"] {
        assert!(journey.is_whole(architecture).await, "{architecture}");
    }
    assert!(!journey.is_whole("s390x").await);
    assert_eq!(journey.on_target().manifest(arm64.digest).await.as_ref(), image.bytes(&arm64.digest));

    // Once more: nothing moves.
    let (third, _) = journey.carry();
    assert_eq!((journey.downloaded().len(), journey.uploaded().len()), (0, 0));
    assert_eq!(carried(&third), carried(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_registry_that_takes_sparse_indexes() {
    for docker in [false, true] {
        let shelf = Running::start(Arc::new(MemoryShelf::new())).await.unwrap();
        it_moves_exactly_what_is_missing(Target::Embedded(shelf), docker).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_distribution_which_has_stubs_of_all_that_was_left_out() {
    for docker in [false, true] {
        let Some(registry) = DockerRegistry::start().await else { return };
        it_moves_exactly_what_is_missing(Target::Distribution(registry), docker).await;
    }
}
