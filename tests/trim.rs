//! A trimmed index and its witness, the whole way: the same bytes every night, nothing missing on the other side, and what
//! was signed can still be shown.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use sealift::bundle::{BundleReader, PublicKey, SigningKey};
use sealift::oci::manifest::Content;
use sealift::oci::{Descriptor, Digest, Manifest, MediaType, Name};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{BundleShelf, MemoryShelf, Running, Shelf, StoreShelf};
use sealift::store::{Access, Store};
use serde_json::{Value, json};
use support::{StrictRegistry, World};

const WITNESS: &str = "application/vnd.sealift.witness.v1";

/// A key of the vendor, whose files are of no world.
struct Vendor {
    _folder: tempfile::TempDir,
    key: SigningKey,
    public: std::path::PathBuf,
}

impl Vendor {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("vendor");
        sealift::bundle::generate_key(&out).unwrap();
        let key = SigningKey::load(&out.with_extension("key")).unwrap();
        Vendor { key, public: out.with_extension("pub"), _folder: folder }
    }

    /// Three platforms with attestations, a child without one, a signature and a bill of materials of the index, and one of
    /// a child.
    fn image(self: &Arc<Self>) -> SampleImage {
        let vendor = Arc::clone(self);
        let sign = move |payload: &[u8]| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(vendor.key.sign(payload).unwrap().trim()).unwrap()
        };
        ImageBuilder::new()
            .layer_files(&[("etc/base", b"base")])
            .platform("linux", "amd64", "")
            .random_layer(3_000, 1)
            .attestation()
            .child_referrer("application/spdx+json", b"{\"name\":\"amd64\"}")
            .platform("linux", "arm64", "v8")
            .random_layer(3_000, 2)
            .attestation()
            .platform("linux", "s390x", "")
            .random_layer(3_000, 3)
            .platformless()
            .random_layer(100, 4)
            .annotation("org.example.key", "value")
            .referrer("application/spdx+json", b"{\"name\":\"index\"}")
            .cosign_tag("registry.example/app", sign)
            .build()
            .unwrap()
    }
}

fn vendor() -> (Arc<Vendor>, SampleImage) {
    let vendor = Arc::new(Vendor::new());
    let image = vendor.image();
    (vendor, image)
}

fn write_spec(world: &World, platforms: &str, more: &str) {
    let text = format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: world\ndefaults:\n  platforms: [{platforms}]\nimages:\n  \
         - {{source: {}/app, tags: {{exact: ['1']}}}}\n{more}",
        world.source_host()
    );
    std::fs::write(world.path("world.yaml"), text).unwrap();
}

fn trim_spec(world: &World, platforms: &str) {
    write_spec(world, &format!("{platforms}]\n  index: trim #"), "");
}

const EXPORT: [&str; 6] = ["export", "world", "--to", "drive", "--sign-key", "exporter.key"];

fn json(world: &World, arguments: &[&str]) -> Value {
    world.run(&[arguments, &["--output", "json"]].concat()).ok()
}

/// The record of the one image in the latest bundle.
fn carried(world: &World, bundle: &str) -> Value {
    let text = std::fs::read(world.path(&format!("drive/{bundle}/bundle.json"))).unwrap();
    let contents: Value = serde_json::from_slice(&text).unwrap();
    contents["images"][0].clone()
}

fn digest(value: &Value) -> Digest {
    value["digest"].as_str().unwrap().parse().unwrap()
}

/// Replays to the target of the world, and says what became of the one image.
fn replay(world: &World, to: &str, bundle: &str) -> Value {
    let bundle = format!("drive/{bundle}");
    json(world, &["replay", &bundle, "--key", "exporter.pub", "--to", to])["reports"][0]["images"][0].clone()
}

/// The manifest under a name in a repository of a shelf.
fn manifest(shelf: &MemoryShelf, repository: &str, name: &Name) -> (Descriptor, Manifest) {
    let found = shelf.resolve(repository, name).unwrap().unwrap_or_else(|| panic!("{name} is not there"));
    let parsed = Manifest::parse(&found.media_type, &shelf.manifest(&found).unwrap()).unwrap();
    (found, parsed)
}

fn target_name(world: &World) -> String {
    format!("m/{}/app", world.source_host().replace(':', "_"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_registry_to_a_registry() {
    let (vendor, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    trim_spec(&world, "linux/amd64");
    let plan = json(&world, &["plan", "world.yaml"]);
    let note = plan["plans"][0]["notes"].to_string();
    assert!(note.contains("no longer cover it") && note.contains("sealift inspect"), "{note}");
    assert_eq!(json(&world, &["pull", "world.yaml"])["reports"][0]["complete"], 1);
    world.run(&EXPORT).ok();
    world.run(&["verify", "drive/world-1-1", "--key", "exporter.pub", "--deep"]).ok();
    world.run(&["verify", "store", "--deep"]).ok();

    let record = carried(&world, "world-1-1");
    assert_eq!((record["mode"].as_str(), record["leftOut"].as_array().unwrap().len()), (Some("trim"), 3));
    let contents = std::fs::read(world.path("drive/world-1-1/bundle.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&contents).unwrap()["critical"], json!(["trimmed"]));
    assert!(record["leftOut"].as_array().unwrap().iter().all(|child| child["stub"] == false));
    let replayed = replay(&world, &format!("{}/m", world.target_at.address()), "world-1-1");
    assert_eq!(replayed["signatures"], json!({"expected": 2, "present": 2}), "the child's, and the witness");
    assert_eq!((replayed["rung"].as_str(), replayed["problem"].as_str()), (None, None));

    // What is there: the trimmed index, whose children are all there, and which is the original without three members.
    let repository = target_name(&world);
    let (root, index) = manifest(&world.target, &repository, &Name::Tag("1".parse().unwrap()));
    let original: Value = serde_json::from_slice(image.bytes(&image.root.digest).unwrap()).unwrap();
    let mut expected = original.clone();
    let keep = |child: &Value| index.children().iter().any(|kept| kept.digest == digest(child));
    expected["manifests"].as_array_mut().unwrap().retain(keep);
    let found: Value = serde_json::from_slice(&world.target.manifest(&root).unwrap()).unwrap();
    assert_eq!(found, expected);
    assert_eq!(index.children().len(), 3, "amd64, its attestation, and the child without a platform");
    for child in index.children() {
        let (_, child) = manifest(&world.target, &repository, &Name::Digest(child.digest));
        for blob in child.successors() {
            assert_eq!(world.target.blob(&repository, &blob.digest).unwrap(), Some(blob.size));
        }
    }
    // The original is there as a layer of the witness, and is no manifest of the repository.
    assert_eq!(world.target.resolve(&repository, &Name::Digest(image.root.digest)).unwrap(), None);
    let referrers = world.target.referrers(&repository, &root.digest).unwrap();
    assert_eq!(referrers.iter().map(|found| found.artifact_type.as_deref()).collect::<Vec<_>>(), [Some(WITNESS)]);
    let (_, witness) = manifest(&world.target, &repository, &Name::Digest(referrers[0].digest));
    let Content::Image { layers, config } = &witness.content else { panic!() };
    assert_eq!((config.media_type.clone(), witness.subject.unwrap().digest), (MediaType::OCI_EMPTY, root.digest));
    // The index; cosign's signature and the bill of materials, each with a config (one is empty) and a layer.
    assert_eq!(layers.len(), 1 + 2 * 3);
    for layer in layers {
        assert_eq!(world.target.blob(&repository, &layer.digest).unwrap(), Some(layer.size));
    }

    let at = format!("{}/{repository}:1", world.target_at.address());
    let (of_store, of_bundle) = served(&world).await;
    let below = repository.strip_prefix("m/").unwrap();
    let [from_store, from_bundle] = [&of_store, &of_bundle].map(|served| format!("{}/{below}:1", served.address()));
    for (what, more) in [
        (at.as_str(), &[][..]),
        (&from_store, &[]),
        (&from_bundle, &[]),
        ("store", &[]),
        ("drive/world-1-1", &["--key", "exporter.pub"]),
        ("unpacked", &[]),
    ] {
        if what == "unpacked" {
            unpack(&world);
        }
        let public = vendor.public.to_str().unwrap();
        let report = json(&world, &[&["inspect", what, "--verify-key", public][..], more].concat());
        let inspected = &report["images"][0];
        assert_eq!(inspected["problems"], json!([]), "{what}");
        let witness = &inspected["witnesses"][0];
        assert_eq!(witness["original"].as_str().unwrap(), image.root.digest.to_string(), "{what}");
        assert_eq!(
            (&witness["linked"], &witness["kept"], &witness["signatures"]),
            (&json!(true), &json!(3), &json!(2))
        );
        let removed: BTreeSet<&str> =
            witness["removed"].as_array().unwrap().iter().map(|child| child["platform"].as_str().unwrap()).collect();
        assert_eq!(removed, BTreeSet::from(["linux/arm64", "linux/s390x", "unknown/unknown"]), "{what}");
        let verified = &inspected["verification"];
        assert_eq!(
            (&verified["good"], verified["signed"].as_str()),
            (&json!(true), Some(&*image.root.digest.to_string()))
        );
        // Another key has signed nothing.
        let other = world.run(&[&["inspect", what, "--verify-key", "exporter.pub"][..], more].concat());
        assert_eq!(other.status, Some(5), "{what}: {}", other.out);
        assert!(other.out.contains("NOT signed") && other.out.contains("not a signature of this key"), "{}", other.out);
    }
}

/// Registries over the store and the bundle, which show the original as no manifest.
async fn served(world: &World) -> (Running, Running) {
    let store = Store::open(&world.path("store"), Access::Shared).unwrap();
    let shelf = StoreShelf::new(Arc::new(store), false).unwrap();
    let key = PublicKey::load(&world.path("exporter.pub")).unwrap();
    let reader = BundleReader::open(&[world.path("drive/world-1-1")], &[key]).unwrap();
    let bundle = BundleShelf::new(Arc::new(reader)).unwrap();
    let [repository] = &shelf.repositories().unwrap()[..] else { panic!() };
    let original = carried(world, "world-1-1")["trimmed"]["indexes"][0]["original"].clone();
    let original = Name::Digest(digest(&original));
    assert_eq!(shelf.resolve(repository, &original).unwrap(), None);
    assert_eq!(bundle.resolve(repository, &original).unwrap(), None);
    (Running::start(Arc::new(shelf)).await.unwrap(), Running::start(Arc::new(bundle)).await.unwrap())
}

/// The bundle as the layout that it is.
fn unpack(world: &World) {
    std::fs::create_dir_all(world.path("unpacked")).unwrap();
    for entry in std::fs::read_dir(world.path("drive/world-1-1")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            tar::Archive::new(std::fs::File::open(path).unwrap()).unpack(world.path("unpacked")).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_night_makes_the_same_bytes_and_a_later_platform_moves_what_is_missing() {
    let (_, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    trim_spec(&world, "linux/amd64");
    let first = json(&world, &["pull", "world.yaml"]);
    let export = json(&world, &EXPORT);
    // In another store, from nothing.
    let other = json(&world, &["pull", "world.yaml", "--store", "other"]);
    assert_eq!(first["reports"][0]["fetchedBlobs"], other["reports"][0]["fetchedBlobs"]);
    let again = json(&world, &["export", "world", "--to", "drive2", "--sign-key", "exporter.key", "--store", "other"]);
    assert_eq!(carried(&world, "world-1-1")["root"], {
        let text = std::fs::read(world.path("drive2/world-1-1/bundle.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["images"][0]["root"].clone()
    });
    for volume in ["meta.tar", "vol-0001.tar"] {
        let read = |drive: &str| std::fs::read(world.path(&format!("{drive}/world-1-1/{volume}"))).unwrap();
        assert!(read("drive") == read("drive2"), "{volume}");
    }
    assert_eq!(export["bundle"], again["bundle"]);
    // The next night: nothing is new, and it is the same bundle. So it is with a catalog that was made anew.
    assert_eq!(json(&world, &["pull", "world.yaml"])["reports"][0]["fetchedBlobs"], 0);
    assert_eq!(json(&world, &EXPORT)["bundle"], "world-1-1");
    assert_eq!(json(&world, &["pull", "world.yaml", "--rebuild"])["reports"][0]["fetchedBlobs"], 0);
    assert_eq!(json(&world, &EXPORT)["bundle"], "world-1-1");
    let to = format!("{}/m", world.target_at.address());
    replay(&world, &to, "world-1-1");
    // A platform more: its config and its own layer, and no more.
    trim_spec(&world, "linux/amd64, linux/s390x");
    assert_eq!(json(&world, &["pull", "world.yaml"])["reports"][0]["fetchedBlobs"], 2);
    assert_eq!(json(&world, &EXPORT)["bundle"], "world-1-2");
    let replayed = replay(&world, &to, "world-1-2");
    assert_eq!(replayed["signatures"], json!({"expected": 2, "present": 2}));
    let (_, index) = manifest(&world.target, &target_name(&world), &Name::Tag("1".parse().unwrap()));
    assert_eq!(index.children().len(), 4);
    // All of them: the original itself, under its own digest, with its own signatures.
    trim_spec(&world, "all");
    json(&world, &["pull", "world.yaml"]);
    assert_eq!(json(&world, &EXPORT)["bundle"], "world-1-3");
    let record = carried(&world, "world-1-3");
    assert_eq!((record["mode"].as_str(), digest(&record["root"])), (Some("full"), image.root.digest));
    replay(&world, &to, "world-1-3");
    let at = format!("{to}/{}/app:1", world.source_host().replace(':', "_"));
    assert_eq!(json(&world, &["inspect", &at])["images"][0]["signatures"].as_array().unwrap().len(), 3);
}

/// A plan in a file, and a store that has never seen the image: what no registry has is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_from_a_file_is_pulled_into_another_store() {
    let (_, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    trim_spec(&world, "linux/amd64");
    world.run(&["plan", "world.yaml", "--out", "plan.json"]).ok();
    let pulled = json(&world, &["pull", "--plan", "plan.json", "--store", "other"]);
    assert_eq!(pulled["reports"][0]["complete"], 1, "{pulled}");
    world.run(&["verify", "other"]).ok();
    let planned = std::fs::read_to_string(world.path("plan.json")).unwrap();
    let root = serde_json::from_str::<Value>(&planned).unwrap()["plans"][0]["images"][0]["image"]["root"].clone();
    // A plan that somebody has changed makes something else, and says so.
    let changed = planned.replace(root["digest"].as_str().unwrap(), &Digest::of(b"another").to_string());
    std::fs::write(world.path("changed.json"), changed).unwrap();
    let said = world.run(&["pull", "--plan", "changed.json", "--store", "third"]);
    assert_eq!(said.status, Some(5), "{}{}", said.out, said.err);
    assert!(said.out.contains("cannot be made again"), "{}{}", said.out, said.err);
}

/// A registry that takes neither sparse indexes nor stubs takes a trimmed index, and `sparseRefused: trim` makes one where a
/// profile says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_registry_takes_it_and_its_profile_asks_for_it() {
    let (vendor, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    let strict = StrictRegistry::start().await;
    world.run(&["probe", strict.host(), "--out", "strict.json"]).ok();
    write_spec(&world, "linux/amd64", "target: {profile: strict.json, sparseRefused: trim}\n");
    let plan = json(&world, &["plan", "world.yaml"]);
    assert_eq!(plan["plans"][0]["images"][0]["image"]["mode"], "trim");
    json(&world, &["pull", "world.yaml"]);
    world.run(&EXPORT).ok();
    let to = format!("{}/m", strict.host());
    let replayed = replay(&world, &to, "world-1-1");
    assert_eq!((&replayed["problem"], &replayed["signatures"]), (&Value::Null, &json!({"expected": 2, "present": 2})));
    let at = format!("{to}/{}/app:1", world.source_host().replace(':', "_"));
    json(&world, &["inspect", &at, "--verify-key", vendor.public.to_str().unwrap()]);
    // With a profile that takes sparse indexes the word changes nothing.
    world.run(&["probe", &world.target_at.address().to_string(), "--out", "strict.json"]).ok();
    let plan = json(&world, &["plan", "world.yaml"]);
    assert_eq!(plan["plans"][0]["images"][0]["image"]["mode"], "sparse");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_manifest_lists_are_trimmed_and_exported_as_layouts() {
    let image = ImageBuilder::new()
        .docker_format()
        .platform("linux", "amd64", "")
        .random_layer(3_000, 1)
        .platform("linux", "arm64", "v8")
        .random_layer(3_000, 2)
        .build()
        .unwrap();
    let world = World::new(&[("app", &image)]).await;
    trim_spec(&world, "linux/arm64");
    json(&world, &["pull", "world.yaml"]);
    world.run(&EXPORT).ok();
    let record = carried(&world, "world-1-1");
    assert_eq!(record["root"]["mediaType"], MediaType::DOCKER_LIST.as_str());
    world.run(&["export", "world", "--layout", "layout"]).ok();
    world.run(&["verify", "layout"]).ok();
    for what in ["layout", "store"] {
        let report = json(&world, &["inspect", what]);
        let image = &report["images"][0];
        assert_eq!((&image["problems"], &image["manifests"][0]["state"]), (&json!([]), &json!("complete")), "{what}");
        assert_eq!(image["witnesses"][0]["linked"], true, "{what}");
    }
    let to = format!("{}/m", world.target_at.address());
    assert_eq!(replay(&world, &to, "world-1-1")["problem"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_entries_are_one_index_and_a_tag_has_one_meaning() {
    let (_, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    let entry = |tags: &str, more: &str| format!("  - {{source: {}/app, tags: {tags}, {more}}}\n", world.source_host());
    let write = |entries: String| {
        let text = format!("apiVersion: sealift/v1\nkind: MirrorSpec\nname: world\nimages:\n{entries}");
        std::fs::write(world.path("world.yaml"), text).unwrap();
    };
    write(
        entry("{exact: ['1']}", "platforms: [linux/amd64], index: trim")
            + &entry("{glob: ['1']}", "platforms: [linux/s390x], index: trim"),
    );
    let plan = json(&world, &["plan", "world.yaml"]);
    let images = plan["plans"][0]["images"].as_array().unwrap();
    assert_eq!((images.len(), images[0]["image"]["kept"].as_array().unwrap().len()), (1, 4));
    write(
        entry("{exact: ['1']}", "platforms: [linux/amd64], index: trim")
            + &entry("{glob: ['1']}", "platforms: [linux/s390x]"),
    );
    let said = world.run(&["plan", "world.yaml"]);
    assert_eq!(said.status, Some(2), "{}{}", said.out, said.err);
    assert!(said.err.contains("one of them trims its index"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_signatures_the_witness_holds_the_original_alone() {
    let (vendor, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    write_spec(&world, "linux/amd64]\n  index: trim\n  signatures: {carry: none} #", "");
    json(&world, &["pull", "world.yaml"]);
    let report = json(&world, &["inspect", "store"]);
    let witness = &report["images"][0]["witnesses"][0];
    assert_eq!((&witness["linked"], &witness["signatures"]), (&json!(true), &json!(0)));
    let said = world.run(&["inspect", "store", "--verify-key", vendor.public.to_str().unwrap()]);
    assert_eq!(said.status, Some(5));
}

/// What a hostile target shows in place of the witness, or of the index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_lies_is_found_out() {
    let (vendor, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    trim_spec(&world, "linux/amd64");
    json(&world, &["pull", "world.yaml"]);
    let report = json(&world, &["inspect", "store"]);
    let witness: Digest = report["images"][0]["witnesses"][0]["digest"].as_str().unwrap().parse().unwrap();
    // A layer of the witness that is not what its name says.
    let original = world.path("store").join(image.root.digest.layout_path());
    let good = std::fs::read(&original).unwrap();
    let put = |path: &Path, bytes: &[u8]| {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    put(&original, &good.iter().rev().copied().collect::<Vec<_>>());
    let said = world.run(&["inspect", "store", "--verify-key", vendor.public.to_str().unwrap()]);
    assert_eq!(said.status, Some(5), "{}", said.out);
    assert!(said.out.contains("damaged"), "{}", said.out);
    put(&original, &good);
    // No witness at all.
    std::fs::remove_file(world.path("store").join(witness.layout_path())).unwrap();
    let said = world.run(&["inspect", "store"]);
    assert_eq!(said.status, Some(5), "{}", said.out);
    assert!(said.out.contains("of the original index is not here"), "{}", said.out);
}

/// An index whose child is another than the original says: with a witness that claims it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_index_with_a_true_witness_is_found_out() {
    let (vendor, image) = vendor();
    let world = World::new(&[("app", &image)]).await;
    trim_spec(&world, "linux/amd64");
    for arguments in [&["pull", "world.yaml"][..], &EXPORT] {
        world.run(arguments).ok();
    }
    let to = format!("{}/m", world.target_at.address());
    replay(&world, &to, "world-1-1");
    let repository = target_name(&world);
    let (root, index) = manifest(&world.target, &repository, &Name::Tag("1".parse().unwrap()));
    let text = String::from_utf8(world.target.manifest(&root).unwrap().to_vec()).unwrap();
    // Another image under the platform that was kept.
    let amd64 = index.children()[0].digest.to_string();
    let forged = text.replacen(&amd64, &image.child("linux", "s390x", "").unwrap().digest.to_string(), 1);
    let forged_root = Descriptor::of(root.media_type.clone(), forged.as_bytes());
    let witness = world.target.referrers(&repository, &root.digest).unwrap().remove(0);
    let witness_text = String::from_utf8(world.target.manifest(&witness).unwrap().to_vec()).unwrap();
    let witness_text = witness_text
        .replace(&root.digest.to_string(), &forged_root.digest.to_string())
        .replace(&format!("\"size\": {}", root.size), &format!("\"size\": {}", forged_root.size));
    let forged_witness = Descriptor::of(MediaType::OCI_MANIFEST, witness_text.as_bytes());
    let writer = sealift::serve::Shelf::writer(&world.target).unwrap();
    let tag = "forged".parse().unwrap();
    writer.put_manifest(&repository, Some(&tag), &forged_root, forged.as_bytes()).unwrap();
    writer.put_manifest(&repository, None, &forged_witness, witness_text.as_bytes()).unwrap();
    let at = format!("{}/{repository}:forged", world.target_at.address());
    let said = world.run(&["inspect", &at, "--verify-key", vendor.public.to_str().unwrap()]);
    assert_eq!(said.status, Some(5), "{}{}", said.out, said.err);
    assert!(said.out.contains("is not listed in the original"), "{}", said.out);
    assert!(said.out.contains("NOT signed"), "{}", said.out);
}

/// An index that was not touched, in all places; foreign layers, stubs and what was left out are shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparse_image_is_shown_as_what_it_is() {
    let vendor = Arc::new(Vendor::new());
    let image = vendor.image();
    let world = World::new(&[("app", &image)]).await;
    let windows = ImageBuilder::new()
        .platform("windows", "amd64", "")
        .os_version("10.0.17763.1")
        .foreign_layer("https://mcr.example/layer?secret=1", 1000, 2)
        .random_layer(10, 3)
        .single()
        .build()
        .unwrap();
    let shelf = MemoryShelf::default();
    let tag = "1".parse().unwrap();
    seed(shelf.writer().unwrap(), "win", Some(&tag), &windows).unwrap();
    let registry = Running::start(Arc::new(shelf)).await.unwrap();
    write_spec(&world, "linux/amd64", "");
    json(&world, &["pull", "world.yaml"]);
    world.run(&EXPORT).ok();
    let public = vendor.public.to_str().unwrap();
    let source = format!("{}/app:1", world.source_host());
    for what in [source.as_str(), "store"] {
        let report = json(&world, &["inspect", what, "--verify-key", public]);
        let image = &report["images"][0];
        assert_eq!((&image["problems"], &image["witnesses"]), (&json!([]), &Value::Null), "{what}");
        assert_eq!(image["verification"]["good"], true, "{what}");
    }
    let report = json(&world, &["inspect", "drive/world-1-1", "--key", "exporter.pub"]);
    let states: Vec<(&str, &str)> = report["images"][0]["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| (manifest["decision"].as_str().unwrap(), manifest["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states.iter().filter(|state| **state == ("kept", "complete")).count(), 3, "{states:?}");
    assert_eq!(states.iter().filter(|state| **state == ("leftOut", "manifestOnly")).count(), 3, "{states:?}");
    // A volume that is not here.
    std::fs::rename(world.path("drive/world-1-1/vol-0001.tar"), world.path("gone.tar")).unwrap();
    let report = json(&world, &["inspect", "drive/world-1-1", "--key", "exporter.pub"]);
    assert_eq!(report["images"][0]["manifests"][0]["state"], "incomplete");
    let said = world.run(&["inspect", "drive/world-1-1"]);
    assert_eq!(said.status, Some(2), "no key: {}", said.err);
    let said = world.run(&["inspect", &format!("{}/win:1", registry.address())]);
    assert_eq!(said.status, Some(0), "{}", said.err);
    assert!(said.out.contains("windows/amd64:10.0.17763.1") && said.out.contains("mcr.example"), "{}", said.out);
    assert!(!said.out.contains("secret"), "{}", said.out);
    for (what, status) in [("nowhere", 2), ("./nowhere", 2), (&*format!("{}/none:1", registry.address()), 1)] {
        assert_eq!(world.run(&["inspect", what]).status, Some(status), "{what}");
    }
    let report = json(&world, &["inspect", "store", "--image", &format!("{}/app:1", world.source_host())]);
    assert_eq!(report["images"].as_array().unwrap().len(), 1);
    let said = world.run(&["inspect", "store", "--image", "registry.example/other"]);
    assert!(said.status == Some(2) && said.err.contains("the first that are here"), "{}", said.err);
}

/// An index of indexes: of the first one platform is kept, of the second none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_indexes_are_trimmed_too_and_what_would_be_empty_is_left_out() {
    let platform = |builder: ImageBuilder, architecture: &str, number| {
        builder.platform("linux", architecture, "").random_layer(2_000, number)
    };
    let first = platform(platform(ImageBuilder::new(), "amd64", 1), "arm64", 2).build().unwrap();
    let second = platform(platform(ImageBuilder::new(), "s390x", 3), "ppc64le", 4).build().unwrap();
    let world = World::new(&[]).await;
    let writer = Shelf::writer(&world.source).unwrap();
    for image in [&first, &second] {
        seed(writer, "app", None, image).unwrap();
    }
    // Written as nobody else would.
    let entry = |image: &SampleImage| {
        format!(
            "\n   {{\"size\" : {}, \"mediaType\":\"{}\",\"digest\": \"{}\", \"annotations\": {{\"a\": \"\\u00e9\"}} }}",
            image.root.size, image.root.media_type, image.root.digest
        )
    };
    let text = format!("{{\"manifests\" : [{} ,{}\n ], \"schemaVersion\": 2 }}\n", entry(&first), entry(&second));
    let root = Descriptor::of(MediaType::OCI_INDEX, text.as_bytes());
    writer.put_manifest("app", Some(&"1".parse().unwrap()), &root, text.as_bytes()).unwrap();
    trim_spec(&world, "linux/amd64");
    assert_eq!(json(&world, &["pull", "world.yaml"])["reports"][0]["complete"], 1);
    world.run(&EXPORT).ok();
    let record = carried(&world, "world-1-1");
    assert_eq!(record["kept"].as_array().unwrap().len(), 2, "an index and its child");
    assert_eq!(record["leftOut"].as_array().unwrap().len(), 1 + 1 + 2, "arm64, the other index and its children");
    assert_eq!(record["trimmed"]["indexes"].as_array().unwrap().len(), 2);

    let strict = StrictRegistry::start().await;
    let to = format!("{}/m", strict.host());
    assert_eq!(replay(&world, &to, "world-1-1")["problem"], Value::Null);
    replay(&world, &format!("{}/m", world.target_at.address()), "world-1-1");
    let (found, _) = manifest(&world.target, &target_name(&world), &Name::Tag("1".parse().unwrap()));
    let inner = &record["trimmed"]["indexes"][1]["trimmed"];
    let expected = text
        .replace(&format!(" ,{}", entry(&second)), "")
        .replace(&first.root.digest.to_string(), inner["digest"].as_str().unwrap())
        .replace(&format!("\"size\" : {}", first.root.size), &format!("\"size\" : {}", inner["size"]));
    assert_eq!(String::from_utf8(world.target.manifest(&found).unwrap().to_vec()).unwrap(), expected);
    let at = format!("{to}/{}/app:1", world.source_host().replace(':', "_"));
    for what in [at.as_str(), "store"] {
        let report = json(&world, &["inspect", what]);
        let image = &report["images"][0];
        assert_eq!((&image["problems"], &image["witnesses"][0]["linked"]), (&json!([]), &json!(true)), "{what}");
        assert_eq!(image["witnesses"][0]["removed"].as_array().unwrap().len(), 2, "arm64, and the other index");
    }
    // From the plan alone, in another store.
    world.run(&["plan", "world.yaml", "--out", "plan.json"]).ok();
    let pulled = json(&world, &["pull", "--plan", "plan.json", "--store", "other"]);
    assert_eq!(pulled["reports"][0]["complete"], 1, "{pulled}");
}
