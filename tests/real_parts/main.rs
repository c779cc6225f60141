//! The whole way with real parts: the sealift binary, Debian's docker-registry on both sides, skopeo, podman, dockerd,
//! containerd, openssl, coreutils and tar, and a true image from real packages.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod client;
mod collected;
mod command_line;
mod credentials;
mod engines;
mod foreign;
mod foreign_hosts;
mod journey;
mod later;
mod loading;
mod login_check;
mod marked;
mod matrix;
mod network;
mod probe;
mod serving;
mod signed;
mod silent;
mod statuses;
mod strict;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod tokens;
mod trim;
mod unpacked;

use sealift::oci::{Descriptor, Digest};
use sealift::sample::{ImageBuilder, SampleImage};
use serde_json::Value;
use support::{
    Access, Clients, DockerRegistry, Machine, Ran, Reader, Settings, debian_busybox_image, have, push_sample,
};

/// Makes more than one volume of the layers of these tests.
const VOLUME_SIZE: &str = "1300KiB";

/// A mirror spec; each image is its source and the other lines of its entry, separated by `; `.
fn spec(stream: &str, platforms: &str, images: &[(String, &str)]) -> String {
    let mut text = format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: {stream}\ndefaults:\n  platforms: [{platforms}]\nimages:\n"
    );
    for (source, rest) in images {
        text += &format!("  - source: {source}\n");
        rest.split("; ").for_each(|line| text += &format!("    {line}\n"));
    }
    text
}

/// The connected and the disconnected side, each with a registry that keeps an access log.
struct Sides {
    machine: Machine,
    source: DockerRegistry,
    target: DockerRegistry,
}

impl Sides {
    /// `None` when the test is to be skipped.
    async fn start() -> Option<Self> {
        let (source, target) = (DockerRegistry::start_logged("").await?, DockerRegistry::start_logged("").await?);
        Some(Sides { machine: Machine::new(), source, target })
    }

    fn source_of(&self, repository: &str) -> String {
        format!("{}/{repository}", self.source.host())
    }

    /// The name that a repository of the source gets below `prefix` on a target.
    fn name_on_target(&self, prefix: &str, repository: &str) -> String {
        format!("{prefix}/{}/{repository}", self.source.host().replace(':', "_"))
    }

    fn on_target(&self, repository: &str) -> Reader {
        Reader::new(&self.target.url(), &self.name_on_target("mirror", repository))
    }

    async fn replay(&self, bundle: &str, prefix: &str) -> Value {
        let to = format!("{}/{prefix}", self.target.host());
        replay(&self.machine, 0, bundle, &to).await
    }
}

async fn pull(machine: &Machine, spec: &str) -> Value {
    machine.json(&["pull", spec, "--store", "store"]).await
}

/// Makes the key where there is none, and exports to `drive`; the folder of the bundle.
async fn export(machine: &Machine, stream: &str, volume_size: &str) -> String {
    if !machine.path("keys/exporter.key").exists() {
        machine.json(&["key", "generate", "--out", "keys/exporter"]).await;
    }
    let arguments = ["export", stream, "--store", "store", "--to", "drive", "--sign-key", "keys/exporter.key"];
    let report = machine.json(&[&arguments[..], &["--volume-size", volume_size]].concat()).await;
    report["folder"].as_str().unwrap().to_owned()
}

async fn verify(machine: &Machine, bundle: &str) -> Value {
    machine.json(&["verify", bundle, "--key", "keys/exporter.pub", "--state", "state"]).await
}

async fn replay(machine: &Machine, status: i32, bundle: &str, to: &str) -> Value {
    let arguments = ["replay", bundle, "--to", to, "--key", "keys/exporter.pub", "--state", "state"];
    machine.json_to(status, &arguments).await
}

/// Debian's busybox at a registry, its platforms in a store and in a bundle; `None` when the test is to be skipped.
async fn carried(platforms: &str) -> Option<(Machine, DockerRegistry, SampleImage, String)> {
    let image = debian_busybox_image()?;
    let source = DockerRegistry::start().await?;
    push_sample(&source.url(), "debian/busybox", Some("1"), &image).await;
    let machine = Machine::new();
    let images = [(format!("{}/debian/busybox", source.host()), "tags: {exact: [\"1\"]}")];
    machine.write("spec.yaml", &spec("served", platforms, &images));
    pull(&machine, "spec.yaml").await;
    let bundle = export(&machine, "served", VOLUME_SIZE).await;
    Some((machine, source, image, bundle))
}

/// The entry of a report's image whose source ends with `repository`.
fn replayed<'a>(report: &'a Value, repository: &str) -> &'a Value {
    let images = report["reports"][0]["images"].as_array().unwrap();
    images.iter().find(|image| image["source"].as_str().unwrap().ends_with(repository)).unwrap()
}

/// The config and the layers of a manifest of `image`.
fn blobs_of(image: &SampleImage, descriptor: &Descriptor) -> Vec<Digest> {
    image.parsed(descriptor).unwrap().successors().map(|blob| blob.digest).collect()
}

/// The children for an architecture, with their attestations.
fn children_for(image: &SampleImage, architecture: &str) -> Vec<Descriptor> {
    let children = image.children();
    let for_it = |child: &&Descriptor| child.platform.as_ref().is_some_and(|p| p.architecture == architecture);
    let images: Vec<Digest> = children.iter().filter(for_it).map(|child| child.digest).collect();
    let belongs =
        |child: &Descriptor| images.contains(&child.digest) || child.attests().is_some_and(|of| images.contains(&of));
    children.into_iter().filter(belongs).collect()
}

/// The digests of blobs that were asked for with `method`.
fn blobs_asked(accesses: &[Access], method: &str) -> Vec<Digest> {
    let asked = accesses.iter().filter(|access| access.method == method);
    asked.filter_map(|access| access.path.split_once("/blobs/")?.1.parse().ok()).collect()
}

/// Requests that begin or fill an upload; mounts that worked are none.
fn uploads(accesses: &[Access]) -> Vec<&Access> {
    let writes = |access: &&Access| matches!(access.method.as_str(), "POST" | "PUT" | "PATCH");
    let of_blobs = accesses.iter().filter(writes).filter(|access| access.path.contains("/blobs/uploads/"));
    of_blobs.filter(|access| !(access.path.contains("mount=") && access.status == 201)).collect()
}
