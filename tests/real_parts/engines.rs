//! dockerd and containerd take the platform of this machine from a sparse index, by the digest of the index and by tag:
//! from docker-registry, where replay laid stubs beside it, and from `sealift serve` over a store and over a bundle.

use std::process::Output;

use super::support::{Containerd, Docker, Serving};
use super::*;

/// The platform of this machine, and one that is left out.
const OWN: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
const LEFT_OUT: &str = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };

/// A registry that offers the sparse index; the parts of it end when this is dropped.
struct Offer {
    what: &'static str,
    /// Host and repository.
    name: String,
    _target: Option<DockerRegistry>,
    _serving: Option<Serving>,
}

struct Offers {
    image: SampleImage,
    everywhere: Vec<Offer>,
    _machine: Machine,
}

impl Offers {
    async fn start() -> Option<Self> {
        let (machine, source, image, bundle) = carried(&format!("{OWN}, linux/s390x")).await?;
        let repository = format!("{}/debian/busybox", source.host().replace(':', "_"));
        let target = DockerRegistry::start().await?;
        let report = replay(&machine, 0, &bundle, target.host()).await;
        assert_eq!(replayed(&report, "debian/busybox")["rung"], "stubs", "{report}");
        let after_replay = Offer {
            what: "docker-registry",
            name: format!("{}/{repository}", target.host()),
            _target: Some(target),
            _serving: None,
        };
        let mut everywhere = vec![after_replay];
        let shelves: [(_, &[&str]); 2] =
            [("a store", &["store"]), ("a bundle", &[&bundle, "--key", "keys/exporter.pub"])];
        for (what, arguments) in shelves {
            let serving = machine.serve(arguments).await;
            let name = format!("{}/{repository}", serving.host());
            everywhere.push(Offer { what, name, _target: None, _serving: Some(serving) });
        }
        Some(Offers { image, everywhere, _machine: machine })
    }

    /// The manifest for a platform.
    fn child(&self, platform: &str) -> Descriptor {
        let (os, architecture) = platform.split_once('/').unwrap();
        self.image.child(os, architecture, "").unwrap()
    }

    /// Config and layers of the platform of this machine.
    fn own_blobs(&self) -> Vec<Digest> {
        blobs_of(&self.image, &self.child(OWN))
    }
}

/// It failed, and says so.
fn failed_with(output: &Output, words: &str, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "{what}: {output:?}");
}

#[tokio::test]
async fn dockerd_pulls_the_platform_that_was_kept() {
    let Some(docker) = Docker::start().await else { return };
    let Some(offers) = Offers::start().await else { return };
    let index = offers.image.root.digest;
    let config = offers.own_blobs().remove(0);
    for Offer { what, name, .. } in &offers.everywhere {
        let (by_digest, by_tag) = (format!("{name}@{index}"), format!("{name}:1"));
        for reference in [&by_digest, &by_tag] {
            docker.ok(&["pull", "--quiet", reference]).await;
            let image = docker.inspect(reference).await;
            assert_eq!(image["Id"], config.to_string(), "{what} {reference}");
            let architecture = OWN.split_once('/').unwrap().1;
            assert_eq!((&image["Os"], &image["Architecture"]), (&"linux".into(), &architecture.into()), "{what}");
            assert_eq!(image["RepoDigests"], serde_json::json!([by_digest]), "{what}: the digest of the index");
            docker.ok(&["image", "rm", reference]).await;
            assert_eq!(docker.ok(&["image", "ls", "--quiet"]).await, "", "the next one is pulled again");
            // docker-registry gives a stub out as a manifest, and its config is what is missing.
            let words = if *what == "docker-registry" { "unknown blob" } else { "manifest unknown" };
            failed_with(&docker.run(&["pull", "--platform", LEFT_OUT, reference]).await, words, what);
        }
    }
}

#[tokio::test]
async fn containerd_pulls_the_platform_that_was_kept() {
    let Some(containerd) = Containerd::start().await else { return };
    let Some(offers) = Offers::start().await else { return };
    let index = offers.image.root.digest;
    for Offer { what, name, .. } in &offers.everywhere {
        for reference in [format!("{name}@{index}"), format!("{name}:1")] {
            let pulled = containerd.pull(OWN, &reference).await;
            assert!(pulled.status.success(), "{what}: {pulled:?}");
            let listed = containerd.listed(&reference).await;
            assert_eq!(listed[1..3], [offers.image.root.media_type.to_string(), index.to_string()], "{what}");
            let content = containerd.ok(&["content", "ls", "--quiet"]).await;
            let mut there: Vec<Digest> = content.lines().map(|line| line.parse().unwrap()).collect();
            let mut expected = offers.own_blobs();
            expected.extend([index, offers.child(OWN).digest]);
            there.sort_unstable();
            expected.sort_unstable();
            assert_eq!(there, expected, "{what}: the index, one child, and what it consists of");
            failed_with(&containerd.pull(LEFT_OUT, &reference).await, "not found", what);
            containerd.ok(&["images", "rm", "--sync", &reference]).await;
            assert_eq!(containerd.ok(&["content", "ls", "--quiet"]).await, "", "the next one is pulled again");
        }
    }
}
