//! What the end state of a command is compared with: that of an undisturbed run.

use std::collections::BTreeMap;
use std::path::Path;

use sealift::oci::{Digest, Name};
use sealift::sample::{ImageBuilder, SampleImage};
use sealift::serve::Shelf;
use serde_json::Value;

use super::support::World;
use super::support::journey::tagged;
use super::support::sound::{assert_sound, files_below, recorded, snapshot};

/// How many layers of its own the platform that is taken of an image has.
const LAYERS: u64 = 10;

/// A layer of two chunks and a bit.
const LARGE: usize = 34_000_000;

/// The names of the images.
pub const NAMES: [&str; 3] = ["app", "base", "tool"];

/// A stream `world` of three images, pulled into `whole` and exported to `drive`, undisturbed.
pub struct Fixture {
    pub world: World,
    pub images: Vec<SampleImage>,
    pub volume_size: &'static str,
}

impl Fixture {
    /// About forty small blobs.
    pub async fn small() -> Self {
        Self::new(0, "150KiB").await
    }

    /// The same and a large one.
    pub async fn large() -> Self {
        Self::new(LARGE, "20MiB").await
    }

    async fn new(large: usize, volume_size: &'static str) -> Self {
        let images: Vec<SampleImage> =
            (0..3).map(|number| image(number, if number == 0 { large } else { 0 })).collect();
        let named: Vec<(&str, &SampleImage)> = NAMES.into_iter().zip(&images).collect();
        let world = World::new(&named).await;
        world.write_spec("world", &world.source_host(), &NAMES);
        let fixture = Fixture { world, images, volume_size };
        fixture.world.run(&["pull", "world.yaml", "--store", "whole"]).ok();
        let blobs = files_below(&fixture.world.path("whole/blobs")).len();
        assert!(blobs >= 40, "{blobs} blobs");
        fixture.world.copy("whole", "exported");
        fixture.export("exported", "drive").ok();
        fixture
    }

    pub fn export_arguments<'a>(&'a self, store: &'a str, drive: &'a str) -> Vec<&'a str> {
        let key = ["--sign-key", "exporter.key", "--volume-size", self.volume_size, "--output", "json"];
        [&["export", "world", "--store", store, "--to", drive], &key[..]].concat()
    }

    pub fn export(&self, store: &str, drive: &str) -> super::support::Said {
        self.world.run(&self.export_arguments(store, drive))
    }

    /// The store is what the undisturbed one is, but for the numbers and times of runs; and nothing is left over.
    pub fn assert_store_is_as_undisturbed(&self, store: &str) {
        let (found, expected) = (self.world.path(store), self.world.path("whole"));
        for same in ["blobs", "records/images"] {
            assert_eq!(snapshot(&found.join(same)), snapshot(&expected.join(same)), "{same}");
        }
        let index = |store: &Path| std::fs::read_to_string(store.join("index.json")).unwrap();
        assert_eq!(index(&found), index(&expected));
        assert_eq!(latest_run(&found), latest_run(&expected));
        assert_nothing_is_left_over(&found);
        assert_eq!(assert_sound(&found), recorded(&found));
    }

    /// Each image whose tag is there is there as a whole, for each of which `place` says where.
    pub fn assert_tags_are_whole(&self, shelf: &dyn Shelf, place: impl Fn(&str) -> String) -> usize {
        let found = NAMES.into_iter().zip(&self.images).filter(|(name, image)| {
            let root = tagged(shelf, &place(name), "1");
            assert!(root.is_none_or(|root| root == image.root.digest), "{name}");
            root.is_some()
        });
        found.count()
    }

    /// All images are there with everything that the bundle has of them, and nothing else has a tag.
    pub fn assert_all_is_published(&self, shelf: &dyn Shelf, place: impl Fn(&str) -> String) {
        assert_eq!(self.assert_tags_are_whole(shelf, &place), NAMES.len());
        for (name, image) in NAMES.into_iter().zip(&self.images) {
            let (place, child) = (place(name), image.child("linux", "amd64", "").unwrap());
            for kept in [&image.root, &child] {
                let found = shelf.resolve(&place, &Name::Digest(kept.digest)).unwrap().unwrap();
                assert_eq!(shelf.manifest(&found).unwrap(), image.bytes(&kept.digest).unwrap(), "{name}");
            }
            assert_eq!(shelf.tags(&place).unwrap().unwrap(), ["1"], "{name}");
        }
        let mut places: Vec<String> = NAMES.into_iter().map(place).collect();
        let mut repositories = shelf.repositories().unwrap();
        places.sort();
        repositories.sort();
        assert_eq!(repositories, places);
    }
}

fn image(number: u64, large: usize) -> SampleImage {
    let mut builder = ImageBuilder::new()
        .layer_files(&[("etc/shared", b"shared by all platforms of all images\n")])
        .platform("linux", "amd64", "");
    for layer in 0..LAYERS {
        builder = builder.random_layer(2000 + 5000 * layer as usize, 100 * number + layer);
    }
    if large > 0 {
        builder = builder.random_layer(large, 99);
    }
    builder.platform("linux", "arm64", "v8").random_layer(1000, 1000 + number).build().unwrap()
}

/// The latest run of the stream without what differs from run to run.
fn latest_run(store: &Path) -> Value {
    let numbered = |(name, path): (String, _)| {
        let number = name.strip_prefix("world-")?.strip_suffix(".json")?.parse::<u64>().ok()?;
        Some((number, path))
    };
    let runs: BTreeMap<u64, _> = files_below(&store.join("records/runs")).into_iter().filter_map(numbered).collect();
    let (number, path) = runs.last_key_value().unwrap();
    let mut run: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(run["number"].as_u64(), Some(*number));
    assert_eq!(runs.len() as u64, *number, "no number is left out");
    let members = run.as_object_mut().unwrap();
    members.remove("number");
    members.remove("started");
    for image in run["images"].as_array_mut().unwrap() {
        image.as_object_mut().unwrap().remove("signaturesChecked");
    }
    run
}

/// Nothing below `folder` is a temporary file.
pub fn assert_nothing_is_left_over(folder: &Path) {
    let left: Vec<String> = files_below(folder)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with(".partial") || name.starts_with("ingest/"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The digests of the volumes and of what does not depend on the time; by name.
pub fn timeless(bundle: &Path) -> BTreeMap<String, Digest> {
    let mut files = snapshot(bundle);
    files.retain(|name, _| name.ends_with(".tar") || matches!(name.as_str(), "bundle.chunks" | "SHA256SUMS"));
    files
}

/// `bundle.json` without the time, and without the digest of README.txt, which tells it.
pub fn contents(bundle: &Path) -> Value {
    let mut contents: Value = serde_json::from_slice(&std::fs::read(bundle.join("bundle.json")).unwrap()).unwrap();
    contents.as_object_mut().unwrap().remove("created");
    contents["files"].as_array_mut().unwrap().retain(|file| file["path"] != "README.txt");
    contents
}
