//! `sealift foreign`: listing the layers that are had from elsewhere, making an image of which some are, and the reverse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/mod.rs"]
mod support;

use sealift::oci::manifest::Content;
use sealift::oci::{Descriptor, Digest, Manifest, MediaType, Name, Tag};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::Shelf;
use serde_json::{Value, json};
use support::{Said, World};

const URL: &str = "https://layers.example/base.tgz";

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// An image of two layers, or an index of two such images that share their first layer.
fn image(docker: bool, single: bool) -> SampleImage {
    let builder = ImageBuilder::new()
        .layer_files(&[("etc/base", b"the base of all of them\n")])
        .platform("linux", "amd64", "")
        .random_layer(3_000, 1);
    let builder = match single {
        true => builder.single(),
        false => builder.platform("linux", "arm64", "v8").random_layer(3_000, 2),
    };
    if docker { builder.docker_format() } else { builder }.build().unwrap()
}

/// The same as another tool would write it: indented, and members in another order.
fn rewritten(image: &SampleImage) -> SampleImage {
    let mut image = image.clone();
    let mut renamed: Vec<(Descriptor, Descriptor)> = Vec::new();
    for (descriptor, bytes) in &mut image.contents {
        if !descriptor.media_type.is_manifest() {
            continue;
        }
        let mut text = String::from_utf8(bytes.to_vec()).unwrap();
        for (old, new) in &renamed {
            let mut value: Value = serde_json::from_str(&text).unwrap();
            for child in value["manifests"].as_array_mut().into_iter().flatten() {
                if child["digest"] == old.digest.to_string() {
                    child["digest"] = json!(new.digest);
                    child["size"] = json!(new.size);
                }
            }
            text = value.to_string();
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        *bytes = format!("{}\n", serde_json::to_string_pretty(&value).unwrap().replace("  ", "   ")).into();
        let new = Descriptor::of(descriptor.media_type.clone(), bytes);
        renamed.push((std::mem::replace(descriptor, new.clone()), new));
    }
    image.root = image.contents.iter().rfind(|(one, _)| one.media_type == image.root.media_type).unwrap().0.clone();
    image
}

struct Foreign {
    world: World,
    image: SampleImage,
}

impl Foreign {
    async fn with(image: SampleImage) -> Self {
        let world = World::new(&[]).await;
        seed(world.source.writer().unwrap(), "app", Some(&tag("1")), &image).unwrap();
        Foreign { world, image }
    }

    fn source(&self, name: &str) -> String {
        format!("{}/{name}", self.world.source_at.address())
    }

    fn target(&self, name: &str) -> String {
        format!("{}/{name}", self.world.target_at.address())
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.world.run(&[&["foreign"], arguments, &["--output", "json"]].concat())
    }

    /// The base layer, which all images of the sample have first.
    fn base(&self) -> Descriptor {
        let first = match self.image.children().first() {
            Some(child) => self.image.parsed(child).unwrap(),
            None => self.image.manifest().unwrap(),
        };
        let Content::Image { layers, .. } = first.content else { panic!("no image") };
        layers[0].clone()
    }

    fn on_target(&self, repository: &str, name: impl Into<Name>) -> Option<Manifest> {
        let found = self.world.target.resolve(repository, &name.into()).unwrap()?;
        let bytes = self.world.target.manifest(&found).unwrap();
        Some(Manifest::parse(&found.media_type, &bytes).unwrap())
    }
}

fn layers(manifest: &Manifest) -> &[Descriptor] {
    match &manifest.content {
        Content::Image { layers, .. } => layers,
        Content::Index { .. } => panic!("an index"),
    }
}

/// Marked and unmarked again, an image is what it was, byte for byte; in between it is the same image for who runs it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_marked_and_unmarked_has_its_first_digest() {
    for (docker, single) in [(false, true), (false, false), (true, true), (true, false)] {
        for image in [image(docker, single), rewritten(&image(docker, single))] {
            there_and_back(image, docker).await;
        }
    }
}

async fn there_and_back(image: SampleImage, docker: bool) {
    let foreign = Foreign::with(image).await;
    let (image, base) = (&foreign.image, foreign.base());
    let name = format!("{} {}", image.root.media_type, image.root.digest);
    let (source, to) = (foreign.source("app:1"), foreign.target("vendor/app:1"));
    let layer = base.digest.to_string();
    let report = foreign.run(&["mark", &source, "--layer", &layer, "--url", URL, "--to", &to, "--push-layers"]).ok();
    assert_eq!(report["old"], image.root.digest.to_string(), "{name}");
    let marked: Digest = report["new"].as_str().unwrap().parse().unwrap();
    assert_ne!(marked, image.root.digest);
    let expected = match docker {
        true => "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        false => "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    };
    let images = report["images"].as_array().unwrap();
    assert_eq!(images.len(), image.children().len().max(1), "{name}: {report}");
    for (one, layer) in images.iter().zip(report["layers"].as_array().unwrap()) {
        let (old, new): (Digest, Digest) =
            (one["old"].as_str().unwrap().parse().unwrap(), one["new"].as_str().unwrap().parse().unwrap());
        let (before, after) = (image.bytes(&old).unwrap(), foreign.on_target("vendor/app", new).unwrap());
        let before = Manifest::parse(&after.media_type, before).unwrap();
        assert_eq!(before.successors().next(), after.successors().next(), "{name}: the config stays");
        let (before, after) = (layers(&before), layers(&after));
        assert_eq!(
            after[0],
            Descriptor { media_type: MediaType::new(expected), urls: vec![URL.into()], ..base.clone() }
        );
        assert_eq!(before[1..], after[1..], "{name}: other layers stay");
        assert_eq!((&layer["is"], &layer["number"]), (&json!(expected), &json!(1)), "{report}");
        assert_eq!(layer["pushed"], true, "{report}");
    }
    // The index lists what is there now, and nothing else in it is another.
    let root = foreign.on_target("vendor/app", tag("1")).unwrap();
    for (before, after) in image.children().iter().zip(root.children()) {
        let same = Descriptor { digest: after.digest, size: after.size, ..before.clone() };
        assert_eq!(*after, same, "{name}");
    }
    let back = foreign.run(&["unmark", &to, "--to", &foreign.target("back/app:1")]).ok();
    assert_eq!(back["new"], image.root.digest.to_string(), "{name}: {back}");
    for (descriptor, bytes) in image.contents.iter().filter(|(one, _)| one.media_type.is_manifest()) {
        assert_eq!(foreign.world.target.manifest(descriptor).unwrap(), bytes, "{name}");
        let there = foreign.world.target.resolve("back/app", &Name::from(descriptor.digest)).unwrap();
        assert!(there.is_some(), "{name}: {descriptor:?}");
    }
    for (blob, _) in image.contents.iter().filter(|(one, _)| !one.media_type.is_manifest()) {
        assert!(foreign.world.target.blob("back/app", &blob.digest).unwrap().is_some(), "{name}: {blob:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_the_marked_layers_is_pushed() {
    let foreign = Foreign::with(image(true, false)).await;
    let (base, source) = (foreign.base(), foreign.source("app:1"));
    let layer = base.digest.to_string();
    let report = foreign.run(&["mark", &source, "--layer", &layer, "--url", URL, "--to", &foreign.target("v:1")]).ok();
    assert!(report["layers"].as_array().unwrap().iter().all(|layer| layer["pushed"] == false), "{report}");
    for (blob, _) in foreign.image.contents.iter().filter(|(one, _)| !one.media_type.is_manifest()) {
        let there = foreign.world.target.blob("v", &blob.digest).unwrap().is_some();
        assert_eq!(there, blob.digest != base.digest, "{blob:?}");
    }
    let notes = report["notes"].to_string();
    assert!(notes.contains("deprecated foreign") && notes.contains("do not cover"), "{notes}");
    // What is nowhere but at its address cannot be made a layer like others.
    let said = foreign.run(&["unmark", &foreign.target("v:1"), "--to", &foreign.target("w:1")]);
    assert_eq!(said.status, Some(1), "{said:?}");
    let expected = format!("layer {layer} is not in {}", foreign.target("v"));
    assert!(
        said.err.contains(&expected) && said.err.contains("help: its bytes have to be in that repository"),
        "{said:?}"
    );
    assert_eq!(foreign.world.target.tags("w").unwrap(), None, "nothing was pushed");
}

/// Each --url belongs to the layer before it; of an index, only one platform may be meant.
#[tokio::test(flavor = "multi_thread")]
async fn several_layers_and_one_platform() {
    let foreign = Foreign::with(image(false, false)).await;
    let (source, to) = (foreign.source("app:1"), foreign.target("v:1"));
    let urls = ["https://a.example/1", "https://b.example/1", "https://a.example/2?token=canary"];
    let marks = ["--layer", "1", "--url", urls[0], "--url", urls[1], "--layer", "2", "--url", urls[2]];
    let report =
        foreign.run(&[&["mark", &source, "--platform", "linux/aarch64", "--to", &to][..], &marks].concat()).ok();
    assert_eq!(report["images"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["images"][0]["platform"], "linux/arm64");
    let new: Digest = report["images"][0]["new"].as_str().unwrap().parse().unwrap();
    let manifest = foreign.on_target("v", new).unwrap();
    let found: Vec<&[String]> = layers(&manifest).iter().map(|layer| layer.urls.as_slice()).collect();
    assert_eq!(found, [&urls[..2], &urls[2..]]);
    assert!(!report.to_string().contains("canary"), "a query may be a secret");
    // The other platform has the shared layer still, and it was pushed for it.
    let amd64 = foreign.image.child("linux", "amd64", "").unwrap();
    assert!(foreign.on_target("v", amd64.digest).is_some());
    assert!(foreign.world.target.blob("v", &foreign.base().digest).unwrap().is_some());
}

/// A command, how it ends, and what it says. Words that stand for what differs each time: SOURCE, TO, BASE, ABSENT, URL.
const MISTAKES: &[(&str, i32, &str)] = &[
    (
        "mark SOURCE:1 --layer 1 --url URL --to TO:1",
        2,
        "layer 1 of which image? There are several: linux/amd64, linux/arm64",
    ),
    ("mark SOURCE:1 --layer 9 --url URL --platform linux/amd64 --to TO:1", 2, "there is no layer 9: the image has 2"),
    ("mark SOURCE:1 --layer 0 --url URL --to TO:1", 2, "layers are counted from 1"),
    ("mark SOURCE:1 --layer x --url URL --to TO:1", 2, "neither a number, from 1, nor a digest"),
    ("mark SOURCE:1 --layer ABSENT --url URL --to TO:1", 2, "no image in it has the layer"),
    ("mark SOURCE:1 --layer BASE --url http://a.example/ --to TO:1", 2, "it is not https"),
    ("mark SOURCE:1 --layer BASE --url https://u:canary@a.example/ --to TO:1", 2, "it has a name or a password"),
    (
        "mark SOURCE:1 --layer BASE --url https://a.example/?canary#x --to TO:1",
        2,
        "--url 1 is not to be used: it has a fragment",
    ),
    ("mark u:canary@h.example/a:1 --layer BASE --url URL --to TO:1", 2, "SOURCE: there is an @ in it"),
    ("unmark SOURCE:1 --to u:canary@h.example/a:1", 2, "--to: there is an @ in it"),
    ("list u:canary@h.example/a:1", 2, "WHAT: there is an @ in it"),
    ("list h.example", 2, "WHAT: "),
    ("mark SOURCE:1 --url URL --layer BASE --to TO:1", 2, "stands before any --layer"),
    ("mark SOURCE:1 --layer BASE --layer 1 --url URL --to TO:1", 2, "has no --url behind it"),
    ("mark SOURCE:1 --layer BASE --url URL --layer BASE --url URL --to TO:1", 2, "is named twice"),
    (
        "mark SOURCE:1 --layer BASE --url URL --platform linux/s390x --to TO:1",
        2,
        "it has no image for linux/s390x; it has linux/amd64, linux/arm64",
    ),
    ("mark SOURCE:1 --layer BASE --url URL --to TO@ABSENT", 2, "--to names a digest"),
    ("mark SOURCE --layer BASE --url URL --to TO:1", 2, "names a repository, and no image in it"),
    ("mark SOURCE-gone:1 --layer BASE --url URL --to TO:1", 1, "app-gone:1 is not there"),
    ("unmark SOURCE:1 --to TO:1", 2, "none of these layers is foreign or has urls"),
    ("list ./nothing-here", 2, "there is no such folder"),
    ("list .", 2, "is neither a store, a bundle nor another image layout"),
    ("list SOURCE:1 --key exporter.pub", 2, "--key is for bundles"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_said() {
    let foreign = Foreign::with(image(false, false)).await;
    let stands_for = [
        ("SOURCE", foreign.source("app")),
        ("TO", foreign.target("v")),
        ("BASE", foreign.base().digest.to_string()),
        ("ABSENT", Digest::of(b"nowhere").to_string()),
        ("URL", URL.to_owned()),
    ];
    for (line, status, says) in MISTAKES {
        let line = stands_for.iter().fold((*line).to_owned(), |line, (word, text)| line.replace(word, text));
        let said = foreign.run(&line.split(' ').collect::<Vec<_>>());
        assert!(said.status == Some(*status) && said.err.contains(says), "{line}: {said:?}");
        assert!(!said.err.contains("canary"), "{line}: a password is repeated: {said:?}");
    }
    assert_eq!(foreign.world.target.repositories().unwrap(), Vec::<String>::new(), "nothing was pushed");
}

/// What speaks of the old manifests stays as it is, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn attestations_stay_what_they_were() {
    let image = ImageBuilder::new()
        .layer_files(&[("etc/base", b"base\n")])
        .platform("linux", "amd64", "")
        .attestation()
        .platform("linux", "arm64", "v8")
        .attestation()
        .build()
        .unwrap();
    let foreign = Foreign::with(image).await;
    let (source, to) = (foreign.source("app:1"), foreign.target("v:1"));
    let layer = foreign.base().digest.to_string();
    let report = foreign.run(&["mark", &source, "--layer", &layer, "--url", URL, "--to", &to, "--push-layers"]).ok();
    assert_eq!(report["images"].as_array().unwrap().len(), 2, "an attestation is no image: {report}");
    assert!(report["notes"].to_string().contains("its 2 attestations as they are"), "{report}");
    let attestations = |children: &[Descriptor]| -> Vec<Descriptor> {
        children.iter().filter(|child| child.attests().is_some()).cloned().collect()
    };
    let there = foreign.on_target("v", tag("1")).unwrap();
    assert_eq!(attestations(there.children()), attestations(&foreign.image.children()));
    let back = foreign.run(&["unmark", &to, "--to", &foreign.target("back:1")]).ok();
    assert_eq!(back["new"], foreign.image.root.digest.to_string());
}

/// A sparse index, a manifest of another family, artifacts.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_changed_is_refused() {
    let foreign = Foreign::with(image(false, false)).await;
    let to = foreign.target("v:1");
    let shelf = foreign.world.source.writer().unwrap();
    let arm64 = foreign.image.child("linux", "arm64", "").unwrap();
    assert!(shelf.delete_manifest("app", &Name::from(arm64.digest)).unwrap());
    let mark = ["--layer", &foreign.base().digest.to_string(), "--url", URL, "--to", &to];
    let said = foreign.run(&[&["mark", &foreign.source("app:1")][..], &mark].concat());
    assert!(said.status == Some(1) && said.err.contains("is listed, but not there"), "{said:?}");
    assert!(said.err.contains("help: a sparse index cannot be changed"), "{said:?}");
    // One child of it can be.
    let amd64 = foreign.image.child("linux", "amd64", "").unwrap();
    foreign.run(&[&["mark", &foreign.source(&format!("app@{}", amd64.digest))][..], &mark].concat()).ok();
    // Indexes in indexes in indexes.
    let deep = (0..6).fold(foreign.image.root.clone(), |inner, _| {
        let bytes = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [inner]}).to_string();
        let outer = Descriptor::of(MediaType::OCI_INDEX, bytes.as_bytes());
        shelf.put_manifest("app", Some(&tag("deep")), &outer, bytes.as_bytes()).unwrap();
        outer
    });
    let said = foreign.run(&[&["mark", &foreign.source(&format!("app@{}", deep.digest))][..], &mark].concat());
    assert!(said.status == Some(5) && said.err.contains("nested more than 4 levels deep"), "{said:?}");
    // Docker's type of a layer in a manifest of OCI.
    let manifest = foreign.image.parsed(&amd64).unwrap();
    let mut document: Value = serde_json::from_slice(foreign.image.bytes(&amd64.digest).unwrap()).unwrap();
    document["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
    let bytes = document.to_string();
    let mixed = Descriptor::of(manifest.media_type.clone(), bytes.as_bytes());
    shelf.put_manifest("app", Some(&tag("mixed")), &mixed, bytes.as_bytes()).unwrap();
    let said = foreign.run(&[&["mark", &foreign.source("app:mixed")][..], &mark].concat());
    assert!(said.status == Some(2) && said.err.contains("which cannot be foreign"), "{said:?}");
}

/// A Windows-shaped image: its base is foreign, and of an index with one that is not.
fn windows(docker: bool) -> SampleImage {
    let builder = ImageBuilder::new()
        .platform("windows", "amd64", "")
        .os_version("10.0.17763.5576")
        .foreign_layer("https://mcr.example/base", 2_000, 1)
        .foreign_layer("https://mcr.example/update?sig=canary", 2_000, 2)
        .random_layer(1_000, 3)
        .platform("linux", "amd64", "")
        .random_layer(1_000, 4);
    if docker { builder.docker_format() } else { builder }.build().unwrap()
}

fn assert_listed(name: &str, report: &Value, image: &SampleImage, here: bool) {
    let images = report["images"].as_array().unwrap();
    assert_eq!(images.len(), 1, "{name}: {report}");
    assert_eq!(images[0]["root"], image.root.digest.to_string(), "{name}");
    let layers = images[0]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2, "{name}: {report}");
    for ((number, layer), (expected, _)) in (1..).zip(layers).zip(&image.foreign) {
        assert_eq!(layer["number"], number, "{name}");
        assert_eq!(layer["digest"], expected.digest.to_string(), "{name}");
        assert_eq!((&layer["foreign"], &layer["here"]), (&json!(true), &json!(here)), "{name}: {layer}");
        assert_eq!(layer["platform"], "windows/amd64:10.0.17763.5576", "{name}");
        assert_eq!(layer["hosts"], json!(["mcr.example"]), "{name}");
    }
    assert!(!report.to_string().contains("canary"), "{name}: a query may be a secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_layers_are_listed_wherever_an_image_is() {
    for docker in [false, true] {
        let foreign = Foreign::with(windows(docker)).await;
        let (world, image) = (&foreign.world, &foreign.image);
        let spec = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: win\nimages:\n  - source: {}\n    tags: {{exact: ['1']}}\n    platforms: [all]\n",
            foreign.source("app")
        );
        std::fs::write(world.path("win.yaml"), spec).unwrap();
        world.run(&["pull", "win.yaml"]).ok();
        world.run(&["export", "win", "--to", "drive", "--sign-key", "exporter.key"]).ok();
        world.run(&["export", "win", "--layout", "layout"]).ok();
        let by_digest = foreign.source(&format!("app@{}", image.root.digest));
        for (what, medium, names) in [
            (foreign.source("app:1").as_str(), "registry", foreign.source("app:1")),
            (&by_digest, "registry", by_digest.clone()),
            ("store", "layout", foreign.source("app:1")),
            ("layout", "layout", foreign.source("app:1")),
        ] {
            let report = foreign.run(&["list", what]).ok();
            assert_listed(what, &report, image, false);
            assert_eq!((&report["medium"], &report["images"][0]["names"]), (&json!(medium), &json!([names])), "{what}");
        }
        let report = foreign.run(&["list", "drive/win-1-1", "--key", "exporter.pub"]).ok();
        assert_listed("bundle", &report, image, false);
        assert_eq!(report["medium"], "bundle");
        // A bundle is not looked into without a key that signed it.
        assert_eq!(foreign.run(&["list", "drive/win-1-1"]).status, Some(2));
        world.run(&["key", "generate", "--out", "other"]).ok();
        assert_eq!(foreign.run(&["list", "drive/win-1-1", "--key", "other.pub"]).status, Some(5));
        let said = world.run(&["foreign", "list", "store"]);
        assert!(said.out.contains("from mcr.example") && said.out.contains("not here"), "{said:?}");
    }
}

/// A layer is here when its bytes are; one that is no foreign layer and has urls is listed too; one without is not.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_are_here_and_layers_that_only_have_urls() {
    let foreign = Foreign::with(image(false, true)).await;
    let (source, to) = (foreign.source("app:1"), foreign.target("v:1"));
    let said = foreign.run(&["list", &source]).ok();
    assert_eq!((&said["images"], &said["looked_at"], &said["lookedAt"]), (&json!([]), &Value::Null, &json!(1)));
    foreign.run(&["mark", &source, "--layer", "1", "--url", URL, "--to", &to, "--push-layers"]).ok();
    let report = foreign.run(&["list", &to]).ok();
    let layer = &report["images"][0]["layers"][0];
    assert_eq!(
        (&layer["here"], &layer["urls"], &layer["platform"]),
        (&json!(true), &json!([URL]), &json!("linux/amd64"))
    );
    let mut document: Value = serde_json::from_slice(foreign.image.bytes(&foreign.image.root.digest).unwrap()).unwrap();
    document["layers"][1]["urls"] = json!([URL]);
    let bytes = document.to_string();
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, bytes.as_bytes());
    foreign.world.source.writer().unwrap().put_manifest("app", Some(&tag("2")), &descriptor, bytes.as_bytes()).unwrap();
    let report = foreign.run(&["list", &foreign.source("app:2")]).ok();
    let layer = &report["images"][0]["layers"][0];
    assert_eq!((&layer["number"], &layer["foreign"], &layer["here"]), (&json!(2), &json!(false), &json!(true)));
    // Without a word about layers, unmark takes care of foreign ones alone; by name, of any.
    let back = foreign.target("back:1");
    assert_eq!(foreign.run(&["unmark", &foreign.source("app:2"), "--to", &back]).status, Some(2));
    foreign.run(&["unmark", &foreign.source("app:2"), "--layer", "2", "--to", &back]).ok();
    assert!(foreign.on_target("back", tag("1")).is_some_and(|manifest| layers(&manifest)[1].urls.is_empty()));
}

/// A layout that somebody has made to harm: it is an error of its image, or ends, and the rest is listed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_layout_holds_is_not_believed() {
    let foreign = Foreign::with(windows(false)).await;
    let world = &foreign.world;
    let folder = world.path("layout");
    let put = |bytes: &[u8]| {
        let descriptor = Descriptor::of(MediaType::OCI_INDEX, bytes);
        std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        std::fs::write(folder.join(descriptor.digest.layout_path()), bytes).unwrap();
        descriptor
    };
    let nested = (0..8).fold(put(b"{\"schemaVersion\":2,\"manifests\":[]}"), |inner, _| {
        put(json!({"schemaVersion": 2, "manifests": [inner]}).to_string().as_bytes())
    });
    let changed = put(b"{\"schemaVersion\":2}");
    std::fs::write(folder.join(changed.digest.layout_path()), b"{\"schemaVersion\":3}").unwrap();
    for (descriptor, bytes) in foreign.image.contents.iter().filter(|(one, _)| one.media_type.is_manifest()) {
        std::fs::write(folder.join(descriptor.digest.layout_path()), bytes).unwrap();
    }
    let large = Descriptor { size: 1 << 40, ..Descriptor::of(MediaType::OCI_INDEX, b"large") };
    let listed = json!({"schemaVersion": 2, "manifests": [nested, changed, large, foreign.image.root]});
    std::fs::write(folder.join("index.json"), listed.to_string()).unwrap();
    std::fs::write(folder.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    let said = foreign.run(&["list", "layout"]);
    assert_eq!(said.status, Some(5), "{said:?}");
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let images = report["images"].as_array().unwrap();
    let problems: Vec<&str> = images.iter().filter_map(|image| image["problem"]["text"].as_str()).collect();
    assert_eq!(problems.len(), 3, "{report}");
    for (problem, says) in
        problems.iter().zip(["nested more than 4 levels", "is not what its name says", "has 1099511627776 bytes"])
    {
        assert!(problem.contains(says), "{problem}");
    }
    assert_eq!(images[3]["layers"].as_array().unwrap().len(), 2, "{report}");
}
