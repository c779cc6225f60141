//! What has no index: an image is taken for what its config says; what is no image has no platform, and is taken whole.

use sealift::oci::{Descriptor, Manifest, MediaType, Name};
use sealift::sample::{ImageBuilder, SampleImage};
use sealift::serve::Shelf;
use serde_json::{Value, json};

use super::selection::{Source, nested, tag};
use crate::support::World;

fn single(os: &str, architecture: &str, variant: &str, version: &str, docker: bool) -> SampleImage {
    let builder =
        ImageBuilder::new().platform(os, architecture, variant).os_version(version).random_layer(100, 1).single();
    if docker { builder.docker_format() } else { builder }.build().unwrap()
}

/// What the config says, what the spec wants, and whether it is taken.
const SINGLES: &[(&str, &str, &str, &str, &str, bool)] = &[
    ("linux", "amd64", "", "", "linux/amd64", true),
    ("linux", "amd64", "", "", "linux/arm64", false),
    ("linux", "x86_64", "", "", "linux/amd64", true),
    ("linux", "aarch64", "", "", "linux/arm64/v8", true),
    ("linux", "arm64", "v8", "", "linux/arm64", true),
    ("linux", "arm", "", "", "linux/arm/v7", true),
    ("linux", "arm", "v6", "", "linux/arm", false),
    ("linux", "arm", "v6", "", "linux/arm/*", true),
    ("windows", "amd64", "", "10.0.17763.5576", "windows/amd64", true),
    ("windows", "amd64", "", "10.0.17763.5576", "windows/amd64:10.0.17763.*", true),
    ("windows", "amd64", "", "10.0.20348.2340", "windows/amd64:10.0.17763.*", false),
    ("wasip1", "wasm", "", "", "wasip1/wasm", true),
    ("linux", "amd64", "", "", "all", true),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_an_index_is_compared_by_its_config() {
    for docker in [false, true] {
        for (os, architecture, variant, version, wanted, taken) in SINGLES {
            let name = format!("{os}/{architecture}/{variant}:{version} for {wanted}");
            let image = single(os, architecture, variant, version, docker);
            let source = Source::of(&image).await;
            let planned = source.plan(&[wanted], "").await;
            assert_eq!(planned.images.len(), usize::from(*taken), "{name}: {:?}", planned.failed);
            assert_eq!(planned.failed.len(), usize::from(!taken), "{name}");
            if *taken {
                assert_eq!(planned.images[0].image.root.digest, image.root.digest);
                continue;
            }
            let text = format!("{:?}", planned.failed);
            assert!(text.contains("it is a single image for ") && text.contains("missingPlatform: skip"), "{text}");
            let skipped = source.plan(&[wanted], "    missingPlatform: skip\n").await;
            assert_eq!((skipped.images.len(), skipped.failed.len()), (0, 0), "{name}");
            assert!(skipped.notes.iter().any(|note| note.contains("it is a single image for ")), "{name}");
        }
    }
}

/// A name, the type of the config, its bytes, and the type of the one layer.
const ARTIFACTS: &[(&str, &str, &[u8], &str)] = &[
    (
        "helm",
        "application/vnd.cncf.helm.config.v1+json",
        b"{\"name\":\"chart\",\"version\":\"1.0.0\"}",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    ),
    (
        "wasm",
        "application/vnd.wasm.config.v0+json",
        b"{\"architecture\":\"wasm\",\"os\":\"wasip1\",\"layerDigests\":[]}",
        "application/wasm",
    ),
    ("policy", "application/vnd.oci.empty.v1+json", b"{}", "application/vnd.example.policy+json"),
    // A signature that is carried for itself: it has the config of an image that names no platform.
    (
        "signature",
        "application/vnd.oci.image.config.v1+json",
        b"{\"architecture\":\"\",\"os\":\"\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
        "application/vnd.dev.cosign.simplesigning.v1+json",
    ),
    (
        "attestation",
        "application/vnd.oci.image.config.v1+json",
        b"{\"architecture\":\"unknown\",\"os\":\"unknown\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}",
        "application/vnd.in-toto+json",
    ),
];

/// Puts an artifact; its manifest.
fn put(source: &Source, (name, config_type, config, layer_type): &(&str, &str, &[u8], &str)) -> Descriptor {
    let config = source.blob(config_type, config);
    let layer = source.blob(layer_type, format!("the content of {name}").as_bytes());
    let mut manifest =
        json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config, "layers": [layer]});
    if *name == "policy" {
        manifest["artifactType"] = json!("application/vnd.example.policy");
    }
    source.put(MediaType::OCI_MANIFEST, &manifest)
}

/// From the source to the target with the binary, for one platform that none of them has.
fn carry(world: &World, source: &Source, name: &str) -> Value {
    let stream = format!("s-{name}");
    world.write_spec(&stream, &source.at.address().to_string(), &["app"]);
    let pulled = world.run(&["pull", &format!("{stream}.yaml"), "--output", "json"]).ok();
    assert_eq!(pulled["reports"][0]["complete"], 1, "{name}: {pulled}");
    world.run(&["export", &stream, "--to", "drive", "--sign-key", "exporter.key"]).ok();
    let to = format!("{}/{name}", world.target_at.address());
    let bundle = format!("drive/{stream}-1-1");
    world.run(&["replay", &bundle, "--key", "exporter.pub", "--to", &to, "--output", "json"]).ok()
}

/// Everything that `descriptor` needs is on the target: seen from the documents themselves.
fn assert_whole(world: &World, repository: &str, descriptor: &Descriptor) {
    let bytes = world.target.manifest(descriptor).unwrap_or_else(|error| panic!("{repository}: {error}"));
    let manifest = Manifest::parse(&descriptor.media_type, &bytes).unwrap();
    for needed in manifest.successors() {
        match needed.media_type.is_manifest() {
            true => assert_whole(world, repository, needed),
            false => {
                assert_eq!(world.target.blob(repository, &needed.digest).unwrap(), Some(needed.size), "{needed:?}")
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_passes_whole_for_any_platform() {
    let world = World::new(&[]).await;
    for artifact in ARTIFACTS {
        let (name, source) = (artifact.0, Source::empty().await);
        let root = put(&source, artifact);
        let report = carry(&world, &source, name);
        let repository = report["reports"][0]["images"][0]["target"].as_str().unwrap().split_once('/').unwrap().1;
        let there = world.target.resolve(repository, &Name::from(tag())).unwrap();
        assert_eq!(there.map(|there| there.digest), Some(root.digest), "{name}");
        assert_whole(&world, repository, &root);
    }
}

/// An index of artifacts has children without platforms: all of them are kept.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_artifacts_passes_whole() {
    let (world, source) = (World::new(&[]).await, Source::empty().await);
    let children: Vec<Descriptor> = ARTIFACTS.iter().map(|artifact| put(&source, artifact)).collect();
    let index = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "artifactType": "application/vnd.example.set",
        "manifests": children,
    });
    let root = source.put(MediaType::OCI_INDEX, &index);
    let report = carry(&world, &source, "set");
    let repository = report["reports"][0]["images"][0]["target"].as_str().unwrap().split_once('/').unwrap().1;
    let there = world.target.resolve(repository, &Name::from(tag())).unwrap();
    assert_eq!(there.map(|there| there.digest), Some(root.digest));
    assert_whole(&world, repository, &root);
}

/// Of nested indexes, each keeps its own bytes, though only one platform of each came along.
#[tokio::test(flavor = "multi_thread")]
async fn nested_indexes_arrive_sparse_with_their_digests() {
    let (world, source) = (World::new(&[]).await, Source::empty().await);
    let (first, second, root) = nested(&source, &Value::Null);
    let report = carry(&world, &source, "nested");
    let repository = report["reports"][0]["images"][0]["target"].as_str().unwrap().split_once('/').unwrap().1;
    let there = |name: Name| world.target.resolve(repository, &name).unwrap().map(|there| there.digest);
    assert_eq!(there(Name::from(tag())), Some(root.digest));
    for inner in [&first, &second] {
        assert_eq!(world.target.manifest(&inner.root).unwrap(), inner.bytes(&inner.root.digest).unwrap());
        assert_eq!(there(Name::from(inner.root.digest)), Some(inner.root.digest));
        let (amd64, arm64) = (inner.child("linux", "amd64", "").unwrap(), inner.child("linux", "arm64", "").unwrap());
        assert_whole(&world, repository, &amd64);
        assert_eq!(there(Name::from(arm64.digest)), None, "a platform that was left out");
    }
}

/// What is listed without a type of an index is not opened: it would arrive without its children, and pass for whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_listed_as_something_else_is_refused() {
    let (world, source) = (World::new(&[]).await, Source::empty().await);
    let child = put(&source, &ARTIFACTS[0]);
    let index = |children: Value| json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": children});
    let inner = source.put(MediaType::OCI_INDEX, &index(json!([child])));
    source.put(
        MediaType::OCI_INDEX,
        &index(json!([{"mediaType": "application/json", "digest": inner.digest, "size": inner.size}])),
    );
    world.write_spec("disguised", &source.at.address().to_string(), &["app"]);
    let ran = world.run(&["pull", "disguised.yaml", "--output", "json"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["reports"][0]["complete"], 0, "{report}");
    let problem = report["reports"][0]["failed"][0].to_string();
    assert!(problem.contains("is listed as application/json"), "{problem}");
}
