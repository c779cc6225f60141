//! The peak of resident memory of every command, with one blob of 4 GiB and with 20,000 small ones.
//!
//! What the kernel accounts to the finished process (`ru_maxrss`), as time(1) tells it; of servers, the same number while
//! they still run. With `--nocapture` the figures are rows of a table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail loudly")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use sealift::content::Body;
use sealift::oci::{Descriptor, Digest, MediaType, Name, Repository, Tag};
use sealift::registry::Client;
use sealift::sample::{ImageBuilder, seed};
use sealift::serve::{MemoryShelf, Running, Shelf, ShelfWriter};
use sealift::{Result, Side};
use support::journey::quick_client;
use support::{Machine, Serving};

/// What no command may take.
const LIMIT_KIB: u64 = 64 * 1024;

/// The bytes of the one large blob.
const LARGE: u64 = 4 << 30;

/// Room for it in a store and on a drive, or in two stores.
const ROOM: u64 = 9 << 30;

/// What the large blob consists of.
static PIECE: [u8; 1 << 18] = [0x5a; 1 << 18];

/// A shelf with one more blob, which is in no memory.
struct WithLarge {
    shelf: MemoryShelf,
    large: Descriptor,
}

impl WithLarge {
    fn new() -> Self {
        let mut hasher = sealift::oci::Hasher::sha256();
        (0..LARGE / PIECE.len() as u64).for_each(|_| hasher.update(&PIECE));
        let layer = MediaType::new("application/vnd.oci.image.layer.v1.tar");
        WithLarge { shelf: MemoryShelf::new(), large: Descriptor::new(layer, hasher.finish(), LARGE) }
    }

    /// An image of that blob alone.
    fn add_image(&self, repository: &str, tag: &str) {
        let config = serde_json::json!({
            "os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [self.large.digest]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let described = Descriptor::of(MediaType::OCI_CONFIG, &config);
        let mut upload = self.shelf.begin_upload(repository).unwrap();
        upload.write(&config).unwrap();
        upload.commit(&described.digest).unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": described, "layers": [self.large],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let root = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
        let tag: Tag = tag.parse().unwrap();
        self.shelf.put_manifest(repository, Some(&tag), &root, &manifest).unwrap();
    }
}

impl Shelf for WithLarge {
    fn repositories(&self) -> Result<Vec<String>> {
        self.shelf.repositories()
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        self.shelf.tags(repository)
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        self.shelf.resolve(repository, name)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.shelf.manifest(descriptor)
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.shelf.referrers(repository, subject)
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        if *digest == self.large.digest {
            return Ok(Some(LARGE));
        }
        self.shelf.blob(repository, digest)
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        if *digest != self.large.digest {
            return self.shelf.open(digest, offset, length);
        }
        let (sender, body) = Body::channel();
        tokio::task::spawn_blocking(move || {
            let mut left = length;
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE.len());
                if sender.blocking_send(Bytes::from_static(&PIECE[..now])).is_err() {
                    return;
                }
                left -= now as u64;
            }
            sender.blocking_finish(Ok(()));
        });
        Ok(body)
    }
}

/// A machine whose commands are measured.
struct Measured {
    machine: Machine,
    what: &'static str,
}

impl Measured {
    /// Runs sealift, which must succeed within the limit.
    async fn run(&self, arguments: &[&str]) {
        let peak = self.machine.path("peak");
        let mut command = self.machine.command("time");
        command.args(["-f", "%M", "-o"]).arg(&peak).arg(env!("CARGO_BIN_EXE_sealift")).args(arguments);
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        self.tell(arguments[0], std::fs::read_to_string(peak).unwrap().trim().parse().unwrap());
    }

    /// What a server has taken so far.
    fn served(&self, how: &str, server: &Serving) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        self.tell(how, peak.trim().trim_end_matches(" kB").parse().unwrap());
    }

    fn tell(&self, command: &str, kib: u64) {
        println!("| {command} | {} | {:.1} MiB | at most 64 MiB |", self.what, kib as f64 / 1024.0);
        assert!(kib > 0 && kib < LIMIT_KIB, "{command} took {kib} KiB with {}", self.what);
    }

    /// Pull, export, verify, replay into `serve --writable`; then everything from that store and from the bundle again.
    async fn all_commands(&self, host: &str, spec: &str, blobs: &[(String, Descriptor)]) {
        let machine = &self.machine;
        machine.write("spec.yaml", spec);
        machine.ok(&["key", "generate", "--out", "exporter"]).await;
        self.run(&["pull", "spec.yaml", "--store", "store"]).await;
        self.run(&["export", "large", "--store", "store", "--to", "drive", "--sign-key", "exporter.key"]).await;
        std::fs::remove_dir_all(machine.path("store")).unwrap();
        let bundle = "drive/large-1-1";
        self.run(&["verify", bundle, "--key", "exporter.pub", "--state", "state"]).await;
        let target = machine.serve(&["registry", "--writable"]).await;
        let to = format!("{}/m", target.host());
        self.run(&["replay", bundle, "--key", "exporter.pub", "--state", "state", "--to", &to]).await;
        self.served("serve --writable", &target);
        target.terminate().await;
        let source = host.replace(':', "_");
        let store = machine.serve(&["registry"]).await;
        fetch(store.host(), &format!("m/{source}"), blobs).await;
        self.served("serve STORE", &store);
        store.terminate().await;
        let bundle = machine.serve(&[bundle, "--key", "exporter.pub"]).await;
        fetch(bundle.host(), &source, blobs).await;
        self.served("serve BUNDLE", &bundle);
        bundle.terminate().await;
    }
}

/// Reads blobs from a server, eight at a time.
async fn fetch(host: &str, prefix: &str, blobs: &[(String, Descriptor)]) {
    let client: Client = quick_client(Side::Target);
    stream::iter(blobs)
        .for_each_concurrent(8, |(repository, descriptor)| {
            let name: Repository = format!("{host}/{prefix}/{repository}").parse().unwrap();
            let remote = client.repository(&name);
            async move {
                let mut body = remote.open_blob(descriptor, 0).await.unwrap();
                let mut read = 0;
                while let Some(piece) = body.next().await {
                    read += piece.unwrap().len() as u64;
                }
                assert_eq!(read, descriptor.size);
            }
        })
        .await;
}

fn spec(entries: &str) -> String {
    format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: large\ndefaults:\n  platforms: [linux/amd64]\nimages:\n{entries}"
    )
}

fn has_room(folder: &Path) -> bool {
    let free = sealift::durable::free_space(folder).unwrap_or(u64::MAX);
    free > ROOM || support::skip(&format!("{} has {free} bytes free, and {ROOM} are needed", folder.display()))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "moves 4 GiB seven times"]
async fn one_blob_of_4_gib_needs_no_more_memory_than_others() {
    let machine = Machine::new();
    if !support::have(&["time"]) || !has_room(machine.folder()) {
        return;
    }
    let shelf = WithLarge::new();
    shelf.add_image("app", "1");
    let blobs = [("app".to_owned(), shelf.large.clone())];
    let source = Running::start(Arc::new(shelf)).await.unwrap();
    let host = source.address().to_string();
    let entry = format!("  - {{source: {host}/app, tags: {{exact: ['1']}}}}\n");
    Measured { machine, what: "one blob of 4 GiB" }.all_commands(&host, &spec(&entry), &blobs).await;
}

/// Small files are synced one by one, which takes a disk minutes for 20,000: they go to memory where that is possible.
fn quick_folder() -> Machine {
    let memory = PathBuf::from("/dev/shm");
    let room = |folder: &PathBuf| sealift::durable::free_space(folder).is_some_and(|free| free > 1 << 30);
    if memory.is_dir() && room(&memory) { Machine::below(&memory) } else { Machine::new() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "moves 20,000 blobs seven times"]
async fn twenty_thousand_blobs_need_no_more_memory_than_few() {
    const REPOSITORIES: u32 = 20;
    const TAGS: u32 = 10;
    const LAYERS: u32 = 100;
    if !support::have(&["time"]) {
        return;
    }
    let (shelf, mut blobs) = (MemoryShelf::new(), Vec::new());
    for image in 0..REPOSITORIES * TAGS {
        let repository = format!("app-{}", image / TAGS);
        let layers = (0..LAYERS).map(|layer| format!("{image} {layer}"));
        let empty = ImageBuilder::new().platform("linux", "amd64", "");
        let builder = layers.fold(empty, |builder, text| builder.layer_files(&[("content", text.as_bytes())]));
        let image_made = builder.build().unwrap();
        let tag: Tag = format!("{}", image % TAGS).parse().unwrap();
        seed(&shelf as &dyn ShelfWriter, &repository, Some(&tag), &image_made).unwrap();
        let small = image_made.contents.iter().filter(|(blob, _)| !blob.media_type.is_manifest());
        blobs.extend(small.map(|(blob, _)| (repository.clone(), blob.clone())));
    }
    assert!(blobs.len() >= 20_000);
    let source = Running::start(Arc::new(shelf)).await.unwrap();
    let host = source.address().to_string();
    let entries: String =
        (0..REPOSITORIES).map(|at| format!("  - {{source: {host}/app-{at}, tags: {{glob: ['*']}}}}\n")).collect();
    Measured { machine: quick_folder(), what: "20,000 blobs" }.all_commands(&host, &spec(&entries), &blobs).await;
}
