//! The embedded registry with real clients, and sample images on a real registry.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod support;

use std::sync::Arc;

use sealift::oci::{Descriptor, Name, Tag};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf, ShelfWriter};
use support::{Clients, DockerRegistry, Settings, debian_busybox_image, have, push_sample};

fn image(docker: bool) -> SampleImage {
    let builder = ImageBuilder::new()
        .layer_files(&[("etc/motd", b"hello\n")])
        .platform("linux", "amd64", "")
        .random_layer(3_000_000, 1);
    let builder = if docker { builder.docker_format() } else { builder.attestation() };
    builder.platform("linux", "arm64", "v8").random_layer(100_000, 2).build().unwrap()
}

fn tagged(shelf: &MemoryShelf, repository: &str, tag: &str) -> Option<Descriptor> {
    shelf.resolve(repository, &Name::Tag(tag.parse().unwrap())).unwrap()
}

/// skopeo carries an index with all children to the embedded registry, within it, and back out of it; no digest
/// changes on the way.
async fn skopeo_carries(image: &SampleImage) {
    let shelf = MemoryShelf::new();
    seed(&shelf, "team/app", Some(&"1".parse().unwrap()), image).unwrap();
    let registry = Running::start(Arc::new(shelf.clone())).await.unwrap();
    let clients = Clients::new();
    let host = registry.address();
    let layout = format!("oci:{}", clients.folder().join("layout").display());
    let (from, to) = (format!("docker://{host}/team/app:1"), format!("docker://{host}/other/app:2"));
    let copy = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"];
    clients.skopeo_ok(&[&copy[..], &[&from, &to]].concat()).await;
    assert_eq!(tagged(&shelf, "other/app", "2").map(|found| found.digest), Some(image.root.digest));
    if image.root.media_type == sealift::oci::MediaType::OCI_INDEX {
        clients.skopeo_ok(&[&copy[..], &[&from, &format!("{layout}:1")]].concat()).await;
        clients.skopeo_ok(&[&copy[..], &[&format!("{layout}:1"), &format!("docker://{host}/third:3")]].concat()).await;
        assert_eq!(tagged(&shelf, "third", "3").map(|found| found.digest), Some(image.root.digest));
    }
    let tags = clients.skopeo_ok(&["list-tags", "--tls-verify=false", &format!("docker://{host}/other/app")]).await;
    assert!(tags.contains("\"2\""), "{tags}");
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn skopeo_carries_oci_images() {
    if have(&["skopeo"]) {
        skopeo_carries(&image(false)).await;
    }
}

#[tokio::test]
async fn skopeo_carries_docker_images() {
    if have(&["skopeo"]) {
        skopeo_carries(&image(true)).await;
    }
}

/// podman pulls the kept platform of a sparse index by the digest of the index, and pushes in both formats.
#[tokio::test]
async fn podman_pulls_from_a_sparse_index_and_pushes() {
    if !have(&["podman"]) {
        return;
    }
    let image = image(false);
    let shelf = MemoryShelf::new();
    seed(&shelf, "team/app", Some(&"1".parse().unwrap()), &image).unwrap();
    // The architecture that this machine does not have is left out.
    let left_out = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let child = image.child("linux", left_out, "").unwrap();
    assert!(shelf.delete_manifest("team/app", &Name::Digest(child.digest)).unwrap());
    let registry = Running::start(Arc::new(shelf.clone())).await.unwrap();
    let clients = Clients::new();
    let host = registry.address();
    let name = format!("{host}/team/app@{}", image.root.digest);
    clients.podman_ok(&["pull", "--quiet", "--tls-verify=false", &name]).await;
    for format in ["oci", "v2s2"] {
        let to = format!("{host}/pushed:{format}");
        clients.podman_ok(&["push", "--quiet", "--tls-verify=false", "--format", format, &name, &to]).await;
        let pushed = tagged(&shelf, "pushed", format).unwrap();
        assert!(pushed.media_type.is_image_manifest(), "{pushed:?}");
    }
    let missing = clients.podman(&["pull", "--tls-verify=false", "--arch", left_out, &name]).await;
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("manifest unknown"), "{missing:?}");
    registry.stop().await.unwrap();
}

/// Sample images are what a strict registry takes, and real clients find what was pushed.
#[tokio::test]
async fn a_real_registry_takes_sample_images() {
    let folder = tempfile::tempdir().unwrap();
    let access_log = folder.path().join("access.log");
    let settings = Settings { access_log: Some(access_log.clone()), ..Settings::default() };
    let Some(registry) = DockerRegistry::start_with(settings).await else { return };
    let oci = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(10_000, 1)
        .attestation()
        .platformless()
        .layer_files_zstd(&[("a", b"b")])
        .referrer("application/spdx+json", b"{}")
        .cosign_tag("registry.example/app", |payload| payload.to_vec())
        .build()
        .unwrap();
    push_sample(&registry.url(), "team/oci", Some("1"), &oci).await;
    push_sample(&registry.url(), "team/docker", Some("1"), &image(true)).await;
    if !have(&["skopeo"]) {
        return;
    }
    let clients = Clients::new();
    let source = format!("docker://{}/team/docker:1", registry.host());
    let raw = clients.skopeo_ok(&["inspect", "--raw", "--tls-verify=false", &source]).await;
    assert!(raw.contains("manifest.list.v2+json"));
    let source = format!("docker://{}/team/oci", registry.host());
    let tags = clients.skopeo_ok(&["list-tags", "--tls-verify=false", &source]).await;
    for tag in [Tag::cosign(&oci.root.digest, "sig"), Tag::referrers_fallback(&oci.root.digest)] {
        assert!(tags.contains(tag.as_str()), "{tag} is not in {tags}");
    }
    assert!(std::fs::read_to_string(access_log).unwrap().contains("PUT /v2/team/oci/manifests/1 "));
}

/// A true image goes from a real registry into the embedded one, and podman pulls it there.
#[tokio::test]
async fn busybox_travels_from_a_real_registry_to_podman() {
    let Some(image) = debian_busybox_image() else { return };
    let Some(source) = DockerRegistry::start().await else { return };
    if !have(&["skopeo", "podman"]) {
        return;
    }
    push_sample(&source.url(), "debian/busybox", Some("1"), &image).await;
    let shelf = MemoryShelf::new();
    let target = Running::start(Arc::new(shelf.clone())).await.unwrap();
    let clients = Clients::new();
    let from = format!("docker://{}/debian/busybox:1", source.host());
    let to = format!("docker://{}/mirror/busybox:1", target.address());
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    clients.skopeo_ok(&["copy", "--all", "--preserve-digests", tls[0], tls[1], &from, &to]).await;
    let name = format!("{}/mirror/busybox@{}", target.address(), image.root.digest);
    for architecture in ["amd64", "s390x"] {
        clients.podman_ok(&["pull", "--quiet", "--tls-verify=false", "--arch", architecture, &name]).await;
        let inspected = clients.podman_ok(&["image", "inspect", "--format", "{{.Architecture}}", &name]).await;
        assert_eq!(inspected.trim(), architecture);
    }
    target.stop().await.unwrap();
}
