//! Bundles that were written once, and are read for ever: `tests/fixtures/bundles/`, one folder for each version of the
//! format (and for each later version of sealift that writes something new into it).
//!
//! None is ever made again: what it holds is what lies on somebody's shelf. `SEALIFT_NEW_GOLDEN=NAME cargo test --test golden`
//! makes a new one beside them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealift::oci::{Descriptor, Digest, Manifest, MediaType, Name};
use sealift::sample::{ImageBuilder, SampleImage, pseudo_random, seed};
use sealift::serve::{MemoryShelf, Running, Shelf, ShelfWriter};
use serde_json::{Value, json};
use support::Machine;

/// The port in the names of sources: it is part of what was signed.
const SOURCE: &str = "127.0.0.1:17099";

/// What a replay puts in place of it.
const PREFIX: &str = "m/127.0.0.1_17099/";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundles")
}

/// Everything on a shelf that its tags lead to: what it is called, and what it is.
fn published(shelf: &MemoryShelf) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for repository in shelf.repositories().unwrap() {
        let short = repository.strip_prefix(PREFIX).unwrap();
        for tag in shelf.tags(&repository).unwrap().into_iter().flatten() {
            let root = shelf.resolve(&repository, &Name::Tag(tag.parse().unwrap())).unwrap().unwrap();
            found.insert(format!("{short}:{tag}"), root.digest.to_string());
            walk(shelf, &repository, short, &root, &mut found);
        }
    }
    found
}

fn walk(shelf: &MemoryShelf, repository: &str, short: &str, at: &Descriptor, found: &mut BTreeMap<String, String>) {
    let place = format!("{short}@{}", at.digest);
    let Some(there) = shelf.resolve(repository, &Name::Digest(at.digest)).unwrap() else {
        let stub = shelf.blob(repository, &at.digest).unwrap();
        found.insert(place, stub.map_or("left out".to_owned(), |size| format!("stub of {size} bytes")));
        return;
    };
    let bytes = shelf.manifest(&there).unwrap();
    assert_eq!(at.digest.same_algorithm_of(&bytes), at.digest);
    found.insert(place, format!("{} of {} bytes", there.media_type, bytes.len()));
    let manifest = Manifest::parse(&there.media_type, &bytes).unwrap();
    for child in manifest.children() {
        walk(shelf, repository, short, child, found);
    }
    for blob in manifest.successors().filter(|_| manifest.children().is_empty()) {
        let size = shelf.blob(repository, &blob.digest).unwrap().unwrap();
        found.insert(format!("{short}/{}", blob.digest), format!("{size} bytes"));
    }
    for referrer in shelf.referrers(repository, &at.digest).unwrap() {
        walk(shelf, repository, short, &referrer, found);
    }
}

/// Verifies and replays the bundle of a fixture; what is on the target then.
async fn read(fixture: &Path) -> BTreeMap<String, String> {
    let machine = Machine::new();
    let bundle = fixture.join("drive/golden-1-1");
    let (bundle, key) = (bundle.to_str().unwrap(), fixture.join("exporter.pub"));
    let key = key.to_str().unwrap();
    let report = machine.json(&["verify", bundle, "--key", key]).await;
    let volumes = report["reports"][0]["volumes"].as_array().unwrap_or_else(|| panic!("{report}"));
    assert!(volumes.len() > 2, "{report}");
    let shelf = MemoryShelf::new();
    let target = Running::start(Arc::new(shelf.clone())).await.unwrap();
    let to = format!("{}/m", target.address());
    machine.ok(&["replay", bundle, "--key", key, "--to", &to, "--state", "state"]).await;
    published(&shelf)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_once_is_read_for_ever() {
    let mut count = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let fixture = entry.unwrap().path();
        let expected = std::fs::read(fixture.join("expected.json")).unwrap();
        let expected: BTreeMap<String, String> = serde_json::from_slice(&expected).unwrap();
        assert_eq!(read(&fixture).await, expected, "{}", fixture.display());
        count += 1;
    }
    assert!(count >= 1);
}

// ---- making a new one ----

/// An image of a signed index, of which one platform is left out.
fn indexed() -> SampleImage {
    ImageBuilder::new()
        .layer_files(&[("etc/motd", b"for every platform\n")])
        .platform("linux", "amd64", "")
        .random_layer(30_000, 1)
        .attestation()
        .child_referrer("application/spdx+json", b"{\"spdxVersion\":\"SPDX-2.3\"}")
        .platform("linux", "arm64", "v8")
        .layer_files_zstd(&[("usr/bin/app", b"arm")])
        .random_layer(30_000, 2)
        .platform("linux", "s390x", "")
        .random_layer(1_000, 3)
        .referrer("application/vnd.example.signature", b"signature")
        .cosign_tag("example/app", |payload| Digest::of(payload).bytes().to_vec())
        .build()
        .unwrap()
}

fn docker() -> SampleImage {
    ImageBuilder::new().docker_format().platform("linux", "amd64", "").random_layer(20_000, 4).single().build().unwrap()
}

/// An image whose layer is named by SHA-512: it travels in parts.
fn sha512(shelf: &MemoryShelf) {
    let layer = pseudo_random(25_000, 5);
    let digest = Digest::Sha512([0; 64]).same_algorithm_of(&layer);
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}});
    let config = config.to_string();
    let described = |media_type: &str, digest: &Digest, size: usize| json!({"mediaType": media_type, "digest": digest, "size": size});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", &Digest::of(config.as_bytes()), config.len()),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &digest, layer.len())],
    });
    for (digest, bytes) in [(Digest::of(config.as_bytes()), config.as_bytes()), (digest, &layer)] {
        let mut upload = shelf.begin_upload("sha512").unwrap();
        upload.write(bytes).unwrap();
        upload.commit(&digest).unwrap();
    }
    let manifest = manifest.to_string();
    let root = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
    shelf.put_manifest("sha512", Some(&"1".parse().unwrap()), &root, manifest.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_one_is_made_on_demand() {
    let Ok(name) = std::env::var("SEALIFT_NEW_GOLDEN") else { return };
    let fixture = fixtures().join(name);
    assert!(!fixture.exists(), "{} is there: none is ever made again", fixture.display());
    let shelf = MemoryShelf::new();
    seed(&shelf, "team/app", Some(&"1.0".parse().unwrap()), &indexed()).unwrap();
    seed(&shelf, "team/trimmed", Some(&"1.0".parse().unwrap()), &indexed()).unwrap();
    seed(&shelf, "docker", Some(&"stable".parse().unwrap()), &docker()).unwrap();
    sha512(&shelf);
    let _source = Running::start_at(SOURCE.parse().unwrap(), Arc::new(shelf)).await.unwrap();
    let machine = Machine::new();
    let spec = format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: golden\ndefaults:\n  platforms: [linux/amd64, linux/arm64]\n  missingPlatform: skip\nimages:\n  - {{source: {SOURCE}/team/app, tags: {{exact: ['1.0']}}}}\n  - {{source: {SOURCE}/docker, tags: {{exact: [stable]}}}}\n  - {{source: {SOURCE}/sha512, tags: {{exact: ['1']}}}}\n  - {{source: {SOURCE}/team/trimmed, tags: {{exact: ['1.0']}}, index: trim}}\n"
    );
    machine.write("spec.yaml", &spec);
    machine.ok(&["key", "generate", "--out", "exporter"]).await;
    machine.ok(&["pull", "spec.yaml", "--store", "store"]).await;
    let drive = fixture.join("drive");
    let export =
        ["export", "golden", "--store", "store", "--sign-key", "exporter.key", "--volume-size", "64KiB", "--to"];
    machine.ok(&[&export[..], &[drive.to_str().unwrap()]].concat()).await;
    std::fs::copy(machine.path("exporter.pub"), fixture.join("exporter.pub")).unwrap();
    let expected: Value = serde_json::to_value(read(&fixture).await).unwrap();
    std::fs::write(fixture.join("expected.json"), format!("{expected:#}\n")).unwrap();
}
