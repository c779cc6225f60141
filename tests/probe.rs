//! What a probe finds out, and what a plan makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;

use sealift::monitor::Silent;
use sealift::oci::{Digest, Registry};
use sealift::plan::{Plan, plan};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf, StoreShelf};
use sealift::spec::{self, MirrorSpec};
use sealift::store::{Access, Store};
use sealift::target::profile::{Finding, Taken};
use sealift::target::{Profile, TakesSparse, probe, scratch};
use sealift::{Error, Kind, Side};
use support::StrictRegistry;
use support::journey::quick_client;

async fn probed(host: &str, prefix: &str) -> Result<Profile, Error> {
    let registry: Registry = host.parse().unwrap();
    probe(&quick_client(Side::Target), &scratch(&registry, prefix).unwrap(), &Silent).await
}

#[tokio::test]
async fn a_registry_that_takes_everything_is_left_as_it_was() {
    let shelf = MemoryShelf::new();
    let registry = Running::start(Arc::new(shelf.clone())).await.unwrap();
    let profile = probed(&registry.address().to_string(), "mirror").await.unwrap();
    assert_eq!(profile.takes_sparse(), TakesSparse::Plainly);
    assert_eq!(profile.repository, format!("{}/mirror/sealift-probe", registry.address()));
    for (what, found) in [
        ("foreign", &profile.foreign_layers),
        ("docker foreign", &profile.docker_foreign_layers),
        ("docker", &profile.docker_media_types),
        ("artifacts", &profile.artifacts),
        ("referrers", &profile.referrers_api),
        ("mounts", &profile.mounts),
        ("nested", &profile.nested_names),
        ("deletion", &profile.deletion),
    ] {
        assert_eq!(found, &Finding::yes(), "{what}");
    }
    assert_eq!(profile.stubs.taken, Taken::Unknown);
    assert!(profile.manifest_size > 4_000_000, "{}", profile.manifest_size);
    assert_eq!(profile.left_behind, Vec::<String>::new());
    for repository in ["mirror/sealift-probe", "mirror/sealift-probe/a/b/c/d"] {
        let tags = shelf.tags(repository).unwrap().unwrap_or_default();
        assert!(tags.is_empty(), "{repository}: {tags:?}");
    }
}

#[tokio::test]
async fn a_registry_that_wants_every_child_says_so_with_stubs_too() {
    let registry = StrictRegistry::start().await;
    let profile = probed(registry.host(), "").await.unwrap();
    assert_eq!(profile.takes_sparse(), TakesSparse::Not);
    for found in [&profile.sparse_index, &profile.stubs] {
        assert!(found.answer.as_ref().is_some_and(|answer| answer.contains("MANIFEST_BLOB_UNKNOWN")), "{found:?}");
    }
}

#[tokio::test]
async fn where_nothing_can_be_pushed_there_is_no_profile() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Access::Shared).unwrap());
    let registry = Running::start(Arc::new(StoreShelf::new(store, false).unwrap())).await.unwrap();
    let error = probed(&registry.address().to_string(), "").await.unwrap_err();
    assert_eq!(error.side(), Some(Side::Target), "{error}");
}

/// A source with one image of two platforms, and a store.
struct Near {
    source: Running,
    image: SampleImage,
    folder: tempfile::TempDir,
}

impl Near {
    async fn new() -> Near {
        let image = ImageBuilder::new()
            .platform("linux", "amd64", "")
            .random_layer(3_000, 1)
            .platform("linux", "arm64", "v8")
            .random_layer(3_000, 2)
            .build()
            .unwrap();
        let shelf = MemoryShelf::new();
        seed(&shelf, "app", Some(&"1".parse().unwrap()), &image).unwrap();
        let source = Running::start(Arc::new(shelf)).await.unwrap();
        Near { source, image, folder: tempfile::tempdir().unwrap() }
    }

    /// The plan with a profile of these answers, and these words below `target:`.
    async fn plan(&self, sparse: Taken, stubs: Taken, words: &str) -> Plan {
        let profile = self.folder.path().join("profile.json");
        std::fs::write(&profile, profile_of(sparse, stubs)).unwrap();
        let spec = self.spec(&format!("target: {{profile: profile.json{words}}}\n"));
        let store = Arc::new(Store::open(&self.folder.path().join("store"), Access::Writer).unwrap());
        plan(&spec, &quick_client(Side::Source), &store, &Silent).await.unwrap()
    }

    fn spec(&self, more: &str) -> MirrorSpec {
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: test\ndefaults:\n  platforms: [linux/amd64]\nimages:\n  \
             - {{source: {}/app, tags: {{exact: ['1']}}}}\n{more}",
            self.source.address()
        );
        spec::parse(&self.folder.path().join("test.yaml"), text.as_bytes()).unwrap()
    }

    fn has(&self, digest: &Digest) -> bool {
        Path::new(&self.folder.path().join("store").join(digest.layout_path())).exists()
    }

    fn child(&self, architecture: &str) -> Digest {
        let children = self.image.children();
        let of = children.iter().find(|child| child.platform.as_ref().unwrap().architecture == architecture);
        of.unwrap().digest
    }
}

fn profile_of(sparse: Taken, stubs: Taken) -> String {
    let finding = |taken: Taken| serde_json::json!({"taken": taken});
    let no = finding(Taken::No);
    serde_json::json!({
        "type": "sealift/profile", "version": "1.0", "registry": "registry.corp", "repository": "registry.corp/sealift-probe",
        "created": "2026-11-26T00:00:00Z", "sparseIndex": finding(sparse), "stubs": finding(stubs), "foreignLayers": no,
        "dockerForeignLayers": no, "dockerMediaTypes": no, "artifacts": no, "referrersApi": no, "mounts": no,
        "nestedNames": no, "deletion": no, "manifestSize": 4_000_000
    })
    .to_string()
}

#[tokio::test]
async fn stubs_are_fetched_only_for_a_target_that_may_need_them() {
    for (sparse, stubs, fetched) in
        [(Taken::Yes, Taken::Unknown, false), (Taken::No, Taken::Yes, true), (Taken::Unknown, Taken::Unknown, true)]
    {
        let near = Near::new().await;
        let plan = near.plan(sparse, stubs, "").await;
        let left_out = &plan.images[0].image.left_out;
        assert_eq!(left_out.len(), 1);
        assert_eq!((left_out[0].stub, near.has(&near.child("arm64"))), (fetched, fetched), "{sparse:?} {stubs:?}");
    }
}

#[tokio::test]
async fn an_image_that_the_target_would_refuse_fails_before_anything_is_carried() {
    let near = Near::new().await;
    let plan = near.plan(Taken::No, Taken::No, "").await;
    assert_eq!(plan.images, []);
    let problem = &plan.failed[0].problem;
    assert_eq!(problem.kind, Kind::Refused);
    assert!(problem.text.contains("registry.corp takes no index of which children are missing"), "{problem}");
    assert!(problem.help.as_ref().unwrap().contains("sparseRefused: full"), "{problem:?}");
}

#[tokio::test]
async fn all_platforms_are_taken_where_the_target_wants_them_and_the_spec_says_so() {
    let near = Near::new().await;
    let plan = near.plan(Taken::No, Taken::No, ", sparseRefused: full").await;
    let image = &plan.images[0].image;
    assert_eq!((image.kept.len(), image.left_out.len()), (2, 0));
    assert_eq!(image.mode, spec::IndexMode::Full);
    assert!(plan.notes.iter().any(|note| note.contains("all platforms are taken")), "{:?}", plan.notes);
}

#[tokio::test]
async fn a_profile_that_is_none_stops_the_plan() {
    let near = Near::new().await;
    std::fs::write(near.folder.path().join("profile.json"), "{}").unwrap();
    let store = Arc::new(Store::open(&near.folder.path().join("store"), Access::Writer).unwrap());
    let spec = near.spec("target: {profile: profile.json}\n");
    let error = plan(&spec, &quick_client(Side::Source), &store, &Silent).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("is no profile"), "{error}");
}
