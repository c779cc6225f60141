//! Foreign layers on their way from a registry, or from where their urls lead, to a target: what the policies of a spec
//! make of them, and that whatever did not come is said.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sealift::oci::{Descriptor, Digest, MediaType, Tag};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf};
use serde_json::Value;
use support::Machine;

/// A web server of a vendor: files by their paths, and who asked for what.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<HashMap<String, Bytes>>>, Arc<Mutex<Vec<String>>>);

impl Files {
    async fn start() -> (Self, String) {
        let files = Files::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(answer).with_state(files.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (files, host)
    }

    fn put(&self, path: &str, bytes: Bytes) {
        self.0.lock().unwrap().insert(path.to_owned(), bytes);
    }

    fn remove(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }

    /// What was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }
}

async fn answer(State(files): State<Files>, uri: Uri) -> Response {
    files.1.lock().unwrap().push(uri.path().to_owned());
    match files.0.lock().unwrap().get(uri.path()) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A registry with an image, the vendor's server of its two foreign layers, a target, and a machine in between.
struct World {
    machine: Machine,
    files: Files,
    vendor: String,
    source: Running,
    target: MemoryShelf,
    target_at: Running,
    image: SampleImage,
}

impl World {
    /// The vendor has all layers.
    async fn new() -> World {
        let (files, vendor) = Files::start().await;
        let url = |name: &str| format!("http://{vendor}/{name}");
        let image = ImageBuilder::new()
            .platform("windows", "amd64", "")
            .os_version("10.0.17763.1")
            .foreign_layer(&url("base"), 40_000, 1)
            .foreign_layer(&url("update"), 20_000, 2)
            .random_layer(5_000, 3)
            .platform("linux", "amd64", "")
            .random_layer(6_000, 4)
            .docker_format()
            .build()
            .unwrap();
        let shelf = MemoryShelf::new();
        seed(&shelf, "vendor/core", Some(&tag("1")), &image).unwrap();
        let source = Running::start(Arc::new(shelf)).await.unwrap();
        let target = MemoryShelf::new();
        let target_at = Running::start(Arc::new(target.clone())).await.unwrap();
        let world = World { machine: Machine::new(), files, vendor, source, target, target_at, image };
        for (layer, bytes) in &world.image.foreign {
            world.files.put(&path_of(layer), bytes.clone());
        }
        world.machine.ok(&["key", "generate", "--out", "exporter"]).await;
        world
    }

    /// Writes a spec with this `foreignLayers`.
    fn spec(&self, foreign: &str) {
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: foreign\nimages:\n- source: {}/vendor/core\n  tags: {{exact: ['1']}}\n  \
             platforms: [windows/amd64]\n  foreignLayers: {{{foreign}}}\n",
            self.source.address()
        );
        self.machine.write("spec.yaml", &text);
    }

    /// A spec that takes them from the vendor.
    fn wanting(&self, policy: &str) {
        let vendor = &self.vendor;
        self.spec(&format!(
            "policy: {policy}, hosts: ['{vendor}'], allowPrivate: ['{vendor}'], acknowledge: ticket LEGAL-1742"
        ));
    }

    async fn pull(&self, status: i32) -> Value {
        let ran = self.machine.run_to(status, &["pull", "spec.yaml", "--store", "store", "--output", "json"]).await;
        serde_json::from_str::<Value>(&ran.out).unwrap()["reports"][0].clone()
    }

    async fn export(&self) -> (String, Value) {
        let export = ["export", "foreign", "--store", "store", "--to", "drive", "--sign-key", "exporter.key"];
        let report = self.machine.json(&export).await;
        let folder = report["folder"].as_str().unwrap().to_owned();
        let contents = std::fs::read(self.machine.path(&folder).join("bundle.json")).unwrap();
        (folder, serde_json::from_slice(&contents).unwrap())
    }

    async fn replay(&self, folder: &str) -> Value {
        let to = format!("{}/mirror", self.target_at.address());
        let replay = ["replay", folder, "--to", &to, "--key", "exporter.pub", "--state", "state"];
        self.machine.ok(&["verify", folder, "--key", "exporter.pub", "--deep"]).await;
        self.machine.json(&replay).await["reports"][0].clone()
    }

    /// The repository on the target.
    fn there(&self) -> String {
        format!("mirror/{}/vendor/core", self.source.address().to_string().replace(':', "_"))
    }

    /// Which of the foreign layers the target has.
    fn arrived(&self) -> Vec<bool> {
        let there = self.there();
        let has =
            |(layer, _): &(Descriptor, Bytes)| self.target.blob(&there, &layer.digest).unwrap() == Some(layer.size);
        self.image.foreign.iter().map(has).collect()
    }

    /// The root under its tag on the target is the source's, byte for byte.
    fn assert_tagged(&self) {
        let name = sealift::oci::Name::Tag(tag("1"));
        let found = self.target.resolve(&self.there(), &name).unwrap().unwrap();
        assert_eq!(found.digest, self.image.root.digest);
    }

    fn digest(&self, at: usize) -> Digest {
        self.image.foreign[at].0.digest
    }
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn path_of(layer: &Descriptor) -> String {
    url::Url::parse(&layer.urls[0]).unwrap().path().to_owned()
}

/// The decisions of an image in `bundle.json` or in a replay's report.
fn decisions(image: &Value) -> Vec<(&str, bool, Option<&str>)> {
    let foreign = image["foreign"].as_array().unwrap();
    let one = |layer: &'_ Value| layer["unavailable"].as_bool().unwrap_or(false);
    foreign
        .iter()
        .map(|layer| (layer["decision"].as_str().unwrap(), one(layer), layer["acknowledge"].as_str()))
        .collect()
}

const SKIPPED: (&str, bool, Option<&str>) = ("skip", false, None);
const INCLUDED: (&str, bool, Option<&str>) = ("include", false, Some("ticket LEGAL-1742"));
const UNAVAILABLE: (&str, bool, Option<&str>) = ("skip", true, Some("ticket LEGAL-1742"));

#[tokio::test]
async fn skipped_layers_are_listed_and_nobody_is_asked_for_them() {
    let world = World::new().await;
    world.spec(&format!("policy: skip, hosts: ['{0}'], allowPrivate: ['{0}']", world.vendor));
    let plan = world.machine.json(&["plan", "spec.yaml", "--store", "store"]).await["plans"][0].clone();
    let sizes: u64 = world.image.foreign.iter().map(|(layer, _)| layer.size).sum();
    assert_eq!((&plan["totals"]["foreignSkipped"], &plan["totals"]["foreignIncluded"]), (&sizes.into(), &0.into()));
    let human = world.machine.ok(&["plan", "spec.yaml", "--store", "store"]).await.out;
    assert_eq!(human.matches(&format!("skip, at {}", world.vendor)).count(), 2, "{human}");
    world.pull(0).await;
    let (folder, contents) = world.export().await;
    assert_eq!(decisions(&contents["images"][0]), [SKIPPED; 2]);
    let report = world.replay(&folder).await;
    assert_eq!(decisions(&report["images"][0]), [SKIPPED; 2]);
    assert_eq!(report["images"][0]["foreign"][0]["hosts"], serde_json::json!([world.vendor]));
    assert!(report["notes"].to_string().contains(&world.vendor), "{report}");
    world.assert_tagged();
    assert_eq!(world.arrived(), [false; 2]);
    assert!(world.files.asked().is_empty());
}

#[tokio::test]
async fn a_policy_that_comes_later_moves_exactly_what_is_missing() {
    let world = World::new().await;
    world.spec("policy: skip");
    world.pull(0).await;
    let (first, _) = world.export().await;
    world.replay(&first).await;
    assert_eq!(world.arrived(), [false; 2]);
    world.wanting("include");
    let plan = world.machine.json(&["plan", "spec.yaml", "--store", "store"]).await["plans"][0].clone();
    let sizes: u64 = world.image.foreign.iter().map(|(layer, _)| layer.size).sum();
    assert_eq!((&plan["totals"]["new"], &plan["totals"]["foreignIncluded"]), (&sizes.into(), &sizes.into()));
    assert_eq!(plan["images"][0]["image"]["foreign"][0]["acknowledge"], "ticket LEGAL-1742");
    // A plan from a file knows the same hosts.
    world.machine.ok(&["plan", "spec.yaml", "--store", "store", "--out", "plan.json"]).await;
    let reports = world.machine.json(&["pull", "--plan", "plan.json", "--store", "store"]).await;
    let report = &reports["reports"][0];
    assert_eq!((&report["fetchedBlobs"], &report["fetchedBytes"]), (&2.into(), &sizes.into()));
    let mut asked = world.files.asked();
    asked.sort();
    assert_eq!(asked, ["/base", "/update"]);
    let (second, contents) = world.export().await;
    assert_ne!(first, second);
    assert_eq!(decisions(&contents["images"][0]), [INCLUDED; 2]);
    let report = world.replay(&second).await;
    assert_eq!(decisions(&report["images"][0]), [INCLUDED; 2]);
    world.assert_tagged();
    assert_eq!(world.arrived(), [true; 2]);
    // And then nothing: the same content is the same bundle.
    assert_eq!(world.pull(0).await["fetchedBlobs"], 0);
    assert!(world.files.asked().is_empty());
    assert_eq!(world.export().await.0, second);
}

#[tokio::test]
async fn the_registry_is_asked_first() {
    let world = World::new().await;
    let (base, bytes) = &world.image.foreign[0];
    let shelf = MemoryShelf::new();
    seed(&shelf, "vendor/core", Some(&tag("1")), &world.image).unwrap();
    let packed = Descriptor::new(MediaType::OCI_LAYER_GZIP, base.digest, base.size);
    let with = SampleImage {
        root: world.image.root.clone(),
        contents: world.image.contents.iter().cloned().chain([(packed, bytes.clone())]).collect(),
        foreign: Vec::new(),
        tags: Vec::new(),
    };
    seed(&shelf, "vendor/core", Some(&tag("1")), &with).unwrap();
    let source = Running::start(Arc::new(shelf)).await.unwrap();
    let world = World { source, ..world };
    world.wanting("require");
    world.pull(0).await;
    assert_eq!(world.files.asked(), ["/update"]);
}

#[tokio::test]
async fn what_cannot_be_had_stays_behind_and_is_said_everywhere() {
    let world = World::new().await;
    world.wanting("include");
    world.files.remove("/update");
    let report = world.pull(3).await;
    assert_eq!((&report["complete"], &report["failed"]), (&1.into(), &serde_json::json!([])));
    let left = report["leftBehind"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{report}");
    let subject = left[0]["subject"].as_str().unwrap();
    assert!(subject.contains(&world.digest(1).short()) && subject.contains("/vendor/core:1"), "{subject}");
    let text = left[0]["problem"]["text"].as_str().unwrap();
    assert!(text.contains("is in none of its repositories") && text.contains("404"), "{text}");
    let (folder, contents) = world.export().await;
    assert_eq!(decisions(&contents["images"][0]), [INCLUDED, UNAVAILABLE]);
    let report = world.replay(&folder).await;
    assert_eq!(decisions(&report["images"][0]), [INCLUDED, UNAVAILABLE]);
    assert_eq!(world.arrived(), [true, false]);
    world.assert_tagged();
    // The next night it is there again.
    world.files.put("/update", world.image.foreign[1].1.clone());
    assert_eq!(world.pull(0).await["fetchedBlobs"], 1);
    let (next, contents) = world.export().await;
    assert_eq!(decisions(&contents["images"][0]), [INCLUDED; 2]);
    world.replay(&next).await;
    assert_eq!(world.arrived(), [true; 2]);
}

#[tokio::test]
async fn an_image_fails_without_what_it_requires() {
    let world = World::new().await;
    world.wanting("require");
    world.files.remove("/update");
    let report = world.pull(1).await;
    assert_eq!((&report["complete"], report.get("leftBehind")), (&0.into(), None));
    assert!(report["failed"].to_string().contains("404"), "{report}");
    // What came is kept.
    world.files.asked();
    world.files.put("/update", world.image.foreign[1].1.clone());
    assert_eq!(world.pull(0).await["fetchedBlobs"], 1);
    assert_eq!(world.files.asked(), ["/update"]);
}

#[tokio::test]
async fn hosts_that_were_not_named_are_not_asked() {
    let world = World::new().await;
    world.spec("policy: include, acknowledge: ticket LEGAL-1742, hosts: [vendor.example]");
    let plan = world.machine.json(&["plan", "spec.yaml", "--store", "store"]).await["plans"][0].clone();
    let notes = plan["notes"].to_string();
    assert!(notes.contains("no url may be asked: 2;") && notes.contains(&world.vendor), "{notes}");
    let report = world.pull(3).await;
    let left = report["leftBehind"].as_array().unwrap();
    assert_eq!(left.len(), 2, "{report}");
    // Over plain HTTP nothing is asked but on this machine, and only where that was opened.
    assert!(left[0]["problem"]["text"].as_str().unwrap().contains("only https is asked"), "{report}");
    world.spec("policy: require, acknowledge: ticket LEGAL-1742, hosts: [vendor.example]");
    world.pull(1).await;
    assert!(world.files.asked().is_empty());
}

#[tokio::test]
async fn wrong_bytes_are_never_kept_and_the_next_address_is_asked() {
    let world = World::new().await;
    world.wanting("include");
    let mut bytes = world.image.foreign[0].1.to_vec();
    bytes[100] ^= 1;
    world.files.put("/base", bytes.into());
    let report = world.pull(3).await;
    let text = report["leftBehind"][0]["problem"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("the bytes have digest"), "{text}");
    support::sound::assert_blobs_are_true(&world.machine.path("store"));
    world.wanting("require");
    // The others are good, so the run as such is one of wrong bytes.
    world.pull(5).await;
}

/// Two addresses, of which the first has other bytes of the same length; and an ordinary layer that only an address has.
#[tokio::test]
async fn addresses_are_asked_in_their_order_also_for_ordinary_layers() {
    let world = World::new().await;
    let layer = Bytes::from(vec![7u8; 3000]);
    let config = Bytes::from_static(
        b"{\"architecture\":\"amd64\",\"os\":\"windows\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
    );
    let of = |media_type: &str, bytes: &Bytes| Descriptor::of(MediaType::new(media_type), bytes);
    let described = |media_type: &str, bytes: &Bytes| {
        let found = of(media_type, bytes);
        serde_json::json!({"mediaType": media_type, "digest": found.digest.to_string(), "size": found.size})
    };
    let mut listed = described("application/vnd.oci.image.layer.v1.tar", &layer);
    listed["urls"] = serde_json::json!([
        "https://elsewhere.example/x",
        format!("http://{}/wrong", world.vendor),
        format!("http://{}/right", world.vendor)
    ]);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [listed],
    });
    let manifest = Bytes::from(manifest.to_string());
    let root = of("application/vnd.oci.image.manifest.v1+json", &manifest);
    let contents =
        vec![(of("application/vnd.oci.image.config.v1+json", &config), config.clone()), (root.clone(), manifest)];
    let image = SampleImage { root, contents, foreign: Vec::new(), tags: Vec::new() };
    let shelf = MemoryShelf::new();
    seed(&shelf, "vendor/core", Some(&tag("1")), &image).unwrap();
    let source = Running::start(Arc::new(shelf)).await.unwrap();
    let world = World { source, ..world };
    world.files.put("/wrong", vec![8u8; 3000].into());
    world.files.put("/right", layer);
    // `skip` is about foreign layers; nothing has to be acknowledged for this one.
    world.spec("policy: skip");
    let report = world.pull(1).await;
    assert!(report["failed"].to_string().contains("in none of its repositories"), "{report}");
    assert!(world.files.asked().is_empty());
    world.spec(&format!("hosts: ['{0}'], allowPrivate: ['{0}']", world.vendor));
    let report = world.pull(0).await;
    assert_eq!((&report["fetchedBlobs"], &report["complete"]), (&1.into(), &1.into()));
    assert_eq!(world.files.asked(), ["/wrong", "/right"]);
    support::sound::assert_blobs_are_true(&world.machine.path("store"));
}
