//! The tables of `docs/targets.md`: what each target takes, and what clients say there. Every cell is measured, and compared with
//! what the document says; `SEALIFT_BLESS=1` writes the rows that were measured.
//!
//! What a target takes is asked in plain requests, without any code of sealift's client. The image that clients pull was
//! replayed by sealift.

use std::path::PathBuf;
use std::process::Output;

use bytes::Bytes;
use sealift::oci::{Descriptor, Digest, MediaType};
use sealift::sample::{ImageBuilder, SampleImage};
use serde_json::{Value, json};

use super::push::Pusher;
use super::{Clients, Containerd, Docker, DockerRegistry, Machine, Reader, debian_busybox_image, push_sample};

/// The rows of both tables, in their order.
const ROWS: [&str; 8] = [
    "`sealift serve --writable`",
    "docker-registry 2.8",
    "docker-registry 2.8, `urls.allow`",
    "distribution 3, `all` (default)",
    "distribution 3, `none`",
    "distribution 3, `none` and `urls.allow`",
    "distribution 3, `list`",
    "olareg",
];

/// The platform of this machine, and one that is left out.
const OWN: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
const LEFT_OUT: &str = if cfg!(target_arch = "aarch64") { "linux/amd64" } else { "linux/arm64" };

/// By what the words of a client are told, the first that fits.
const WORDS: [&str; 5] = ["unknown blob", "manifest unknown", "404 (Not Found)", "blob unknown", "not found"];

/// The beginning of the lines after which a table comes, and of those that end it.
const BEGIN: &str = "<!-- measured: ";
const END: &str = "<!-- /measured -->";

/// Clients of a kind each, and an image to be replayed.
pub struct Matrix {
    docker: Docker,
    containerd: Containerd,
    clients: Clients,
    machine: Machine,
    source: DockerRegistry,
    image: SampleImage,
    bundle: String,
}

impl Matrix {
    /// `None` when the test is to be skipped.
    pub async fn start() -> Option<Self> {
        if !super::have(&["skopeo", "podman"]) {
            return None;
        }
        let (docker, containerd) = (Docker::start().await?, Containerd::start().await?);
        let (image, source) = (debian_busybox_image()?, DockerRegistry::start().await?);
        push_sample(&source.url(), "debian/busybox", Some("1"), &image).await;
        let machine = Machine::new();
        let spec = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: matrix\ndefaults:\n  platforms: [{OWN}]\n\
             images:\n  - source: {}/debian/busybox\n    tags: {{exact: [\"1\"]}}\n",
            source.host()
        );
        machine.write("spec.yaml", &spec);
        machine.ok(&["pull", "spec.yaml", "--store", "store"]).await;
        machine.ok(&["key", "generate", "--out", "keys/exporter"]).await;
        let export = ["export", "matrix", "--store", "store", "--to", "drive", "--sign-key", "keys/exporter.key"];
        let bundle = machine.json(&export).await["folder"].as_str().unwrap().to_owned();
        Some(Matrix { docker, containerd, clients: Clients::new(), machine, source, image, bundle })
    }

    /// Measures the target at `host`, and holds both rows of it to the document.
    pub async fn check(&self, row: &str, host: &str) {
        let takes = Takes::measure(host).await;
        let mut pulled = vec!["–".to_owned(); 5];
        if let Some(rung) = self.replay(host).await {
            let rung_expected = if takes.sparse == "yes" { "put" } else { "stubs" };
            assert_eq!(rung, rung_expected, "{row}: a replay finds what requests find");
            let name = format!("{host}/{}/debian/busybox", self.source.host().replace(':', "_"));
            pulled = self.pulled(row, &format!("{name}@{}", self.image.root.digest)).await;
        }
        hold("takes", row, &takes.cells());
        hold("clients", row, &pulled);
    }

    /// The rung of the ladder; `None` where the target does not take the index.
    async fn replay(&self, host: &str) -> Option<String> {
        let state = format!("state-{}", host.replace(':', "-"));
        let arguments = ["replay", &self.bundle, "--to", host, "--key", "keys/exporter.pub", "--state", &state];
        let ran = self.machine.run(&[&arguments[..], &["--output", "json"]].concat()).await;
        let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let image = &report["reports"][0]["images"][0];
        assert_eq!(image["problem"].is_null(), ran.status == Some(0), "{ran:?}");
        image["rung"].as_str().map(str::to_owned)
    }

    /// How each client pulls the kept platform by the digest of the index, and what it says of one that is left out.
    async fn pulled(&self, row: &str, reference: &str) -> Vec<String> {
        let mut cells = vec![self.stub_manifest(reference).await];
        for client in ["docker", "podman", "ctr", "skopeo"] {
            let kept = self.pull(client, OWN, reference).await;
            assert!(kept.status.success(), "{row}, {client}: {kept:?}");
            self.forget(client, reference).await;
            let left_out = self.pull(client, LEFT_OUT, reference).await;
            assert!(!left_out.status.success(), "{row}, {client}: {left_out:?}");
            let said = String::from_utf8_lossy(&left_out.stderr);
            let words =
                WORDS.iter().find(|words| said.contains(*words)).unwrap_or_else(|| panic!("{row}, {client}: {said}"));
            cells.push(format!("yes; \"{words}\""));
        }
        cells
    }

    /// What the registry answers for the manifest of the platform that is left out.
    async fn stub_manifest(&self, reference: &str) -> String {
        let (host, repository) = reference.split('@').next().unwrap().split_once('/').unwrap();
        let (os, architecture) = LEFT_OUT.split_once('/').unwrap();
        let left_out = self.image.child(os, architecture, "").unwrap().digest;
        let there = Reader::new(&format!("http://{host}"), repository).manifest(left_out).await.is_some();
        if there { "200" } else { "404" }.to_owned()
    }

    async fn pull(&self, client: &str, platform: &str, reference: &str) -> Output {
        let (os, architecture) = platform.split_once('/').unwrap();
        match client {
            "docker" => self.docker.run(&["pull", "--quiet", "--platform", platform, reference]).await,
            "ctr" => self.containerd.pull(platform, reference).await,
            "podman" => {
                let choice = ["--os", os, "--arch", architecture];
                self.clients
                    .podman(&[&["pull", "--quiet", "--tls-verify=false"], &choice[..], &[reference]].concat())
                    .await
            }
            _ => {
                let folder = tempfile::tempdir_in(self.clients.folder()).unwrap();
                let (from, to) = (format!("docker://{reference}"), format!("dir:{}", folder.path().display()));
                let choice = ["--override-os", os, "--override-arch", architecture];
                let copy = ["copy", "--src-tls-verify=false", &from, &to];
                self.clients.skopeo(&[&choice[..], &copy].concat()).await
            }
        }
    }

    /// The next pull is one of everything.
    async fn forget(&self, client: &str, reference: &str) {
        match client {
            "docker" => drop(self.docker.ok(&["image", "rm", reference]).await),
            "ctr" => drop(self.containerd.ok(&["images", "rm", "--sync", reference]).await),
            "podman" => drop(self.clients.podman_ok(&["image", "rm", "--force", reference]).await),
            _ => {}
        }
    }
}

/// What a target takes, in words of the table.
struct Takes {
    sparse: String,
    stubs: String,
    trim: String,
    foreign_skip: String,
    foreign_include: String,
    referrers: String,
}

impl Takes {
    async fn measure(host: &str) -> Self {
        let url = format!("http://{host}");
        let image = ImageBuilder::new()
            .platform("linux", "amd64", "")
            .random_layer(2_000, 1)
            .platform("linux", "s390x", "")
            .random_layer(2_000, 2)
            .referrer("application/spdx+json", b"{}")
            .build()
            .unwrap();
        let (kept, left_out) = (image.child("linux", "amd64", "").unwrap(), image.child("linux", "s390x", "").unwrap());
        let ladder = Pusher::new(&url, "matrix/ladder");
        push_child(&ladder, &image, &kept).await;
        let index = image.bytes(&image.root.digest).unwrap();
        let sparse = put(&ladder, &image.root, index).await;
        let stubs = if sparse == "yes" {
            "not needed".to_owned()
        } else {
            ladder.blob(&left_out, image.bytes(&left_out.digest).unwrap()).await;
            put(&ladder, &image.root, index).await
        };
        let trimmed = Pusher::new(&url, "matrix/trimmed");
        push_child(&trimmed, &image, &kept).await;
        let (without, bytes) = trimmed_index(index, &left_out.digest);
        let trim = put(&trimmed, &without, &bytes).await;
        Takes {
            sparse,
            stubs,
            trim,
            foreign_skip: foreign(&url, false).await,
            foreign_include: foreign(&url, true).await,
            referrers: referrers(&url, &image, &kept).await,
        }
    }

    fn cells(self) -> Vec<String> {
        vec![self.sparse, self.stubs, self.trim, self.foreign_skip, self.foreign_include, self.referrers]
    }
}

async fn push_child(pusher: &Pusher<'_>, image: &SampleImage, child: &Descriptor) {
    for blob in image.parsed(child).unwrap().successors() {
        pusher.blob(blob, image.bytes(&blob.digest).unwrap()).await;
    }
    assert_eq!(put(pusher, child, image.bytes(&child.digest).unwrap()).await, "yes");
}

async fn put(pusher: &Pusher<'_>, descriptor: &Descriptor, bytes: &Bytes) -> String {
    match pusher.try_manifest(&descriptor.digest.to_string(), &descriptor.media_type, bytes).await {
        Ok(_) => "yes".to_owned(),
        Err(refusal) => refusal,
    }
}

/// The index without one of its children, and nothing else changed.
fn trimmed_index(index: &[u8], without: &Digest) -> (Descriptor, Bytes) {
    let mut index: Value = serde_json::from_slice(index).unwrap();
    let children = index["manifests"].as_array_mut().unwrap();
    children.retain(|child| child["digest"] != without.to_string());
    let bytes = Bytes::from(index.to_string());
    (Descriptor::of(MediaType::OCI_INDEX, &bytes), bytes)
}

/// A manifest with a foreign layer that has an address, in the types of both families; the layer is pushed as well, or not.
async fn foreign(url: &str, include: bool) -> String {
    let mut answers = Vec::new();
    for docker in [true, false] {
        let begun = if docker { ImageBuilder::new().docker_format() } else { ImageBuilder::new() };
        let begun = begun.single().platform("windows", "amd64", "").os_version("10.0.17763.1");
        let image = begun.foreign_layer("https://layers.invalid/layer", 2_000, 3).build().unwrap();
        let repository = format!("matrix/foreign-{docker}-{include}");
        let pusher = Pusher::new(url, &repository);
        let blobs = image.contents.iter().filter(|(descriptor, _)| !descriptor.media_type.is_manifest());
        for (descriptor, bytes) in blobs.chain(image.foreign.iter().filter(|_| include)) {
            pusher.blob(descriptor, bytes).await;
        }
        answers.push(put(&pusher, &image.root, image.bytes(&image.root.digest).unwrap()).await);
    }
    match &answers[..] {
        [docker, oci] if docker == oci => docker.clone(),
        [docker, oci] => format!("Docker's type: {docker}; OCI's: {oci}"),
        _ => unreachable!(),
    }
}

/// How a referrer of a manifest is listed.
async fn referrers(url: &str, image: &SampleImage, subject: &Descriptor) -> String {
    let repository = "matrix/referrers";
    let pusher = Pusher::new(url, repository);
    push_child(&pusher, image, subject).await;
    let empty = Bytes::from_static(b"{}");
    let config = Descriptor::of(MediaType::OCI_EMPTY, &empty);
    pusher.blob(&config, &empty).await;
    let artifact = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": "text/x",
        "config": config, "layers": [config],
        "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}});
    let artifact = Bytes::from(artifact.to_string());
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &artifact);
    assert_eq!(put(&pusher, &descriptor, &artifact).await, "yes");
    match Reader::new(url, repository).try_referrers(&subject.digest).await {
        Some(listed) if listed == [descriptor.digest] => "API".to_owned(),
        Some(listed) => panic!("{url}: lists {listed:?}"),
        None => "tag".to_owned(),
    }
}

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/targets.md")
}

/// The cells of a line of a table; none for another line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").collect())
}

/// The numbers of the lines of a table that hold rows, in their order.
fn rows(lines: &[String], table: &str) -> std::ops::Range<usize> {
    let begin = lines.iter().position(|line| line.starts_with(&format!("{BEGIN}{table} -->"))).unwrap();
    let end = begin + lines[begin..].iter().position(|line| line == END).unwrap();
    // Behind the marker: head and rule of the table.
    begin + 3..end
}

/// Holds one row of a table to what was measured, or writes it.
fn hold(table: &str, row: &str, measured: &[String]) {
    let path = document();
    let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    let rows = rows(&lines, table);
    let names: Vec<&str> = lines[rows.clone()].iter().filter_map(|line| cells(line)?.first().copied()).collect();
    assert_eq!(names, ROWS, "{}: the rows of table {table}", path.display());
    let at = rows.start + ROWS.iter().position(|name| *name == row).unwrap();
    let expected = format!("| {row} | {} |", measured.join(" | "));
    if std::env::var_os("SEALIFT_BLESS").is_some_and(|value| value == "1") {
        lines[at] = expected;
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    assert_eq!(lines[at], expected, "{}: table {table} (SEALIFT_BLESS=1 writes what was measured)", path.display());
}
