//! What must always hold, each promise under its name. The numbers are those of `docs/ARCHITECTURE.md`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sealift::Result;
use sealift::content::Body;
use sealift::oci::{Descriptor, Digest, Name, Tag};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf, ShelfWriter};
use serde_json::Value;

/// A registry that serves some blobs with their first bit flipped.
#[derive(Clone, Default)]
struct Lying {
    honest: MemoryShelf,
    about: Arc<Mutex<HashSet<Digest>>>,
}

impl Shelf for Lying {
    fn repositories(&self) -> Result<Vec<String>> {
        self.honest.repositories()
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        self.honest.tags(repository)
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        self.honest.resolve(repository, name)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.honest.manifest(descriptor)
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.honest.referrers(repository, subject)
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        self.honest.blob(repository, digest)
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        let mut body = self.honest.open(digest, offset, length)?;
        if !self.about.lock().unwrap().contains(digest) {
            return Ok(body);
        }
        let mut bytes = Vec::new();
        while let Some(piece) = body.blocking_next() {
            bytes.extend_from_slice(&piece?);
        }
        bytes[0] ^= 1;
        Ok(Body::full(bytes))
    }

    fn writer(&self) -> Option<&dyn ShelfWriter> {
        self.honest.writer()
    }
}

/// Two registries in this process, and a folder with everything else.
struct World {
    folder: tempfile::TempDir,
    source: Lying,
    source_at: Running,
    target: MemoryShelf,
    target_at: Running,
}

impl World {
    async fn new(images: &[(&str, &SampleImage)]) -> World {
        let (source, target) = (Lying::default(), MemoryShelf::default());
        for (repository, image) in images {
            seed(source.writer().unwrap(), repository, Some(&tag("1")), image).unwrap();
        }
        let source_at = Running::start(Arc::new(source.clone())).await.unwrap();
        let target_at = Running::start(Arc::new(target.clone())).await.unwrap();
        let world = World { folder: tempfile::tempdir().unwrap(), source, source_at, target, target_at };
        world.write_spec(&images.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &["linux/amd64"]);
        ok(&world.sealift(&["key", "generate", "--out", "exporter"]));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_spec(&self, repositories: &[&str], platforms: &[&str]) {
        let host = self.source_at.address();
        let entries: String = repositories
            .iter()
            .map(|name| format!("  - {{source: {host}/{name}, tags: {{exact: ['1']}}}}\n"))
            .collect();
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: world\ndefaults:\n  platforms: [{}]\nimages:\n{entries}",
            platforms.join(", ")
        );
        std::fs::write(self.path("spec.yaml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealift"));
        command.current_dir(self.folder.path()).args(arguments).env_clear();
        command.env("HOME", self.folder.path()).env("SEALIFT_STORE", "store").env("SEALIFT_STATE", "state");
        command.stdin(Stdio::null());
        command
    }

    fn sealift(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn pull(&self) -> Output {
        self.sealift(&["pull", "spec.yaml", "--output", "json"])
    }

    fn export(&self) -> Output {
        self.sealift(&EXPORT)
    }

    fn replay(&self) -> Output {
        let (to, bundles) = (format!("{}/m", self.target_at.address()), self.bundles());
        let mut arguments = vec!["replay", "--key", "exporter.pub", "--output", "json", "--to", &to];
        arguments.extend(bundles.iter().map(|path| path.to_str().unwrap()));
        self.sealift(&arguments)
    }

    fn all_the_way(&self) {
        ok(&self.pull());
        ok(&self.export());
        ok(&self.replay());
    }

    fn bundles(&self) -> Vec<PathBuf> {
        let Ok(list) = std::fs::read_dir(self.path("drive")) else { return Vec::new() };
        let mut list: Vec<PathBuf> = list.map(|entry| entry.unwrap().path()).collect();
        list.retain(|path| path.join("bundle.json").exists());
        list.sort();
        list
    }

    fn bundle_json(&self) -> Value {
        let last = self.bundles().pop().unwrap();
        serde_json::from_slice(&std::fs::read(last.join("bundle.json")).unwrap()).unwrap()
    }

    fn on_target(&self, repository: &str) -> String {
        format!("m/{}/{repository}", self.source_at.address().to_string().replace(':', "_"))
    }

    fn target_root(&self, repository: &str) -> Option<Digest> {
        let found = self.target.resolve(&self.on_target(repository), &Name::from(tag("1"))).unwrap();
        found.map(|descriptor| descriptor.digest)
    }
}

const EXPORT: [&str; 10] =
    ["export", "world", "--to", "drive", "--sign-key", "exporter.key", "--volume-size", "20MiB", "--output", "json"];

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn ok(output: &Output) -> Value {
    assert!(output.status.success(), "{:?}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn two_platforms(number: u64, size: usize) -> SampleImage {
    ImageBuilder::new()
        .layer_files(&[("etc/shared", b"shared by both platforms\n")])
        .platform("linux", "amd64", "")
        .random_layer(size, number)
        .platform("linux", "arm64", "v8")
        .random_layer(size, number + 1000)
        .build()
        .unwrap()
}

/// Every file below `folder` with its digest, but for what may differ between two runs that end alike.
fn snapshot(folder: &Path) -> BTreeMap<String, Digest> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        // A command that was killed early has not made it yet.
        let Ok(entries) = std::fs::read_dir(next) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, Digest::of(&std::fs::read(path).unwrap()));
            }
        }
    }
    files
}

fn assert_blobs_are_what_they_are_called(store: &Path) {
    for (name, digest) in snapshot(&store.join("blobs")) {
        assert_eq!(name, format!("sha256/{}", digest.hex()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_01_a_blob_path_never_holds_bytes_of_another_digest() {
    let image = two_platforms(1, 300_000);
    let world = World::new(&[("app", &image)]).await;
    // The source now answers with other bytes of the same length for one layer.
    let layer = image.parsed(&image.child("linux", "amd64", "").unwrap()).unwrap();
    let layer = layer.successors().max_by_key(|blob| blob.size).unwrap().digest;
    world.source.about.lock().unwrap().insert(layer);
    let output = world.pull();
    assert_eq!(output.status.code(), Some(5));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains(&layer.to_string()) && error.contains("instead of") && error.contains("help: "), "{error}");
    assert_blobs_are_what_they_are_called(&world.path("store"));
    assert!(!world.path("store").join(layer.layout_path()).exists());
    world.source.about.lock().unwrap().clear();
    ok(&world.pull());
    assert_blobs_are_what_they_are_called(&world.path("store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_02_a_manifest_is_copied_byte_for_byte() {
    let image = two_platforms(2, 1000);
    let world = World::new(&[("app", &image)]).await;
    // The same index as somebody else would write it: odd spacing, members in another order, one that nobody knows.
    let text = String::from_utf8(image.bytes(&image.root.digest).unwrap().to_vec()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let odd = format!(
        "{{ \"schemaVersion\":2,\n\n\"x-unknown\": [null, 1.50],\t\"manifests\": {},\"mediaType\":{} }}  ",
        value["manifests"], value["mediaType"]
    );
    let descriptor = Descriptor::of(image.root.media_type.clone(), odd.as_bytes());
    world.source.writer().unwrap().put_manifest("app", Some(&tag("1")), &descriptor, odd.as_bytes()).unwrap();
    world.all_the_way();
    assert_eq!(world.target_root("app"), Some(descriptor.digest));
    assert_eq!(world.target.manifest(&descriptor).unwrap(), odd.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_03_a_tag_appears_only_when_everything_is_there() {
    let (bad, good) = (two_platforms(3, 400_000), two_platforms(4, 1000));
    let world = World::new(&[("bad", &bad), ("good", &good)]).await;
    ok(&world.pull());
    ok(&world.export());
    // The volume that holds a layer of one image is damaged on its way.
    let bundle = world.bundle_json();
    let largest = bundle["blobs"].as_array().unwrap().iter().max_by_key(|blob| blob["size"].as_u64()).unwrap();
    let extent = &largest["extents"][0];
    let volume =
        bundle["volumes"][usize::try_from(extent["volume"].as_u64().unwrap()).unwrap()]["name"].as_str().unwrap();
    let path = world.bundles().pop().unwrap().join(volume);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[usize::try_from(extent["offset"].as_u64().unwrap()).unwrap() + 7] ^= 4;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let output = world.replay();
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.target_root("bad"), None);
    assert_eq!(world.target_root("good"), Some(good.root.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_04_a_platform_that_is_added_later_moves_exactly_what_is_missing() {
    let image = two_platforms(5, 200_000);
    let world = World::new(&[("app", &image)]).await;
    world.all_the_way();
    let child = image.child("linux", "arm64", "v8").unwrap();
    let arm = image.parsed(&child).unwrap();
    let on_target = |blob: &Digest| world.target.blob(&world.on_target("app"), blob).unwrap().is_some();
    let missing: u64 = arm.successors().filter(|blob| !on_target(&blob.digest)).map(|blob| blob.size).sum();
    assert!(missing > 200_000 && arm.successors().any(|blob| on_target(&blob.digest)), "one layer is shared");
    world.write_spec(&["app"], &["linux/amd64", "linux/arm64"]);
    let report = ok(&world.pull());
    assert_eq!(report["reports"][0]["fetchedBytes"].as_u64(), Some(missing));
    ok(&world.export());
    ok(&world.replay());
    assert!(arm.successors().all(|blob| on_target(&blob.digest)));
    let child = world.target.resolve(&world.on_target("app"), &Name::from(child.digest)).unwrap();
    assert!(child.is_some());
    assert_eq!(ok(&world.pull())["reports"][0]["fetchedBlobs"].as_u64(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_05_nothing_is_dropped_silently() {
    let image = two_platforms(6, 1000);
    let world = World::new(&[("app", &image)]).await;
    let plan = ok(&world.sealift(&["plan", "spec.yaml", "--output", "json"]));
    let left_out = &plan["plans"][0]["images"][0]["image"]["leftOut"][0];
    assert_eq!(left_out["platform"], "linux/arm64");
    world.all_the_way();
    assert_eq!(world.bundle_json()["images"][0]["leftOut"][0]["descriptor"], left_out["descriptor"]);
    // What is missing by accident: an image that the source does not have.
    world.write_spec(&["app", "gone"], &["linux/amd64"]);
    for (output, what) in [(world.pull(), "pull"), (world.export(), "export")] {
        assert_eq!(output.status.code(), Some(3), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let failed = report["failed"].as_array().or(report["reports"][0]["failed"].as_array()).unwrap();
        assert!(failed[0]["subject"].as_str().unwrap().ends_with("/gone:1"), "{what}: {failed:?}");
    }
}

/// Kills the command after ever longer times, then lets it run.
fn kill_then_run(world: &World, arguments: &[&str]) {
    for step in 0..12 {
        let mut child = world.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(2 + step * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_blobs_are_what_they_are_called(&world.path("store"));
    }
    ok(&world.sealift(arguments));
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_06_every_command_can_be_killed_and_run_again() {
    let images = [two_platforms(7, 9_000_000), two_platforms(8, 200_000)];
    let named: Vec<(&str, &SampleImage)> = ["one", "two"].into_iter().zip(&images).collect();
    let (world, undisturbed) = (World::new(&named).await, World::new(&named).await);
    undisturbed.all_the_way();
    kill_then_run(&world, &["pull", "spec.yaml"]);
    kill_then_run(&world, &EXPORT);
    let (to, bundle) = (format!("{}/m", world.target_at.address()), world.bundles().pop().unwrap());
    kill_then_run(&world, &["replay", bundle.to_str().unwrap(), "--key", "exporter.pub", "--to", &to]);
    assert_eq!(snapshot(&world.path("store/blobs")), snapshot(&undisturbed.path("store/blobs")));
    assert_eq!(world.bundles().len(), 1, "no number was burnt: the same content is the same bundle");
    ok(&world.sealift(&["verify", bundle.to_str().unwrap(), "--key", "exporter.pub"]));
    let leftovers = snapshot(&bundle).into_keys().filter(|name| name.ends_with(".partial")).count();
    assert_eq!(leftovers, 0);
    for ((name, image), (_, other)) in named.iter().zip(&named) {
        assert_eq!(world.target_root(name), Some(image.root.digest));
        assert_eq!(undisturbed.target_root(name), Some(other.root.digest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_07_bytes_from_a_drive_are_used_only_when_a_trusted_key_signed_them() {
    let world = World::new(&[("app", &two_platforms(9, 1000))]).await;
    ok(&world.pull());
    ok(&world.export());
    ok(&world.sealift(&["key", "generate", "--out", "other"]));
    let (to, bundle) = (format!("{}/m", world.target_at.address()), world.bundles().pop().unwrap());
    let bundle = bundle.to_str().unwrap();
    for arguments in [
        vec!["verify", bundle, "--key", "other.pub"],
        vec!["replay", bundle, "--key", "other.pub", "--to", &to],
        vec!["serve", bundle, "--key", "other.pub", "--listen", "127.0.0.1:0"],
        vec!["serve", bundle, "--key", "other.pub", "--listen", "127.0.0.1:0", "--foreign"],
        vec!["client-config", bundle, "--key", "other.pub"],
    ] {
        let output = world.sealift(&arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {error}");
        assert!(error.contains("no trusted key signed"), "{error}");
    }
    assert!(world.target.repositories().unwrap().is_empty());
    assert_eq!(world.sealift(&["verify", bundle]).status.code(), Some(2), "no key, no trust");
}

/// The largest resident size that the process reached, in KiB, read until it is gone.
fn peak_memory(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}: {status}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_08_memory_and_extra_disk_are_bounded() {
    const LIMIT_KIB: u64 = 64 * 1024;
    let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(160_000_000, 10).build().unwrap();
    let world = World::new(&[("large", &image)]).await;
    let (to, bundle) = (format!("{}/m", world.target_at.address()), "drive/world-1-1");
    for arguments in [
        vec!["pull", "spec.yaml"],
        EXPORT.to_vec(),
        vec!["verify", bundle, "--key", "exporter.pub"],
        vec!["replay", bundle, "--key", "exporter.pub", "--to", &to],
    ] {
        let peak = peak_memory(world.command(&arguments));
        assert!(peak > 0 && peak < LIMIT_KIB, "{arguments:?} took {peak} KiB");
    }
    let used = |folder: &str| -> u64 {
        let files = snapshot(&world.path(folder)).into_keys();
        files.map(|name| world.path(folder).join(name).metadata().unwrap().len()).sum()
    };
    assert!(used("store") < 161_000_000, "one copy in the store");
    assert!(used("drive") < 161_000_000, "one copy on the drive");
    assert!(used("state") < 100_000, "none beside the target");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_09_secrets_are_nowhere() {
    const CANARY: &str = "canary-7f3a-not-to-be-seen";
    let world = World::new(&[("app", &two_platforms(11, 1000))]).await;
    let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("user:{CANARY}"));
    let hosts = [world.source_at.address(), world.target_at.address()]
        .map(|host| format!("\"{host}\": {{\"auth\": \"{auth}\"}}"));
    std::fs::create_dir(world.path("docker")).unwrap();
    std::fs::write(world.path("docker/config.json"), format!("{{\"auths\": {{{}}}}}", hosts.join(","))).unwrap();
    let (to, bundle) = (format!("{}/m", world.target_at.address()), "drive/world-1-1");
    for arguments in [
        vec!["pull", "spec.yaml", "-vvv"],
        [EXPORT.as_slice(), &["-vvv"]].concat(),
        vec!["replay", bundle, "--key", "exporter.pub", "--to", &to, "-vvv"],
    ] {
        let output = world.command(&arguments).env("DOCKER_CONFIG", world.path("docker")).output().unwrap();
        ok(&output);
        for text in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains(CANARY) && !text.contains(&auth), "{text}");
        }
    }
    let spec = format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: x\nimages:\n  - source: user:{CANARY}@{}/app\n",
        world.source_at.address()
    );
    std::fs::write(world.path("secret.yaml"), spec).unwrap();
    let output = world.sealift(&["spec", "check", "secret.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&output.stderr).contains(CANARY), "{}", String::from_utf8_lossy(&output.stderr));
    for folder in ["store", "drive", "state"] {
        for name in snapshot(&world.path(folder)).keys() {
            let bytes = std::fs::read(world.path(folder).join(name)).unwrap();
            for secret in [CANARY.as_bytes(), auth.as_bytes()] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{folder}/{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_10_the_catalog_can_be_deleted_without_losing_anything() {
    let world = World::new(&[("app", &two_platforms(12, 20_000_000))]).await;
    world.all_the_way();
    let (before, plan) = (snapshot(&world.path("drive")), ["plan", "spec.yaml", "--output", "json"]);
    let totals = |output: Output| ok(&output)["plans"][0]["totals"].clone();
    let planned = totals(world.sealift(&plan));
    for name in ["catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm"] {
        let _ = std::fs::remove_file(world.path("store").join(name));
    }
    assert_eq!(totals(world.sealift(&plan)), planned);
    assert_eq!(ok(&world.export())["again"], true);
    assert_eq!(snapshot(&world.path("drive")), before);
    ok(&world.pull());
    ok(&world.export());
    assert_eq!(snapshot(&world.path("drive")), before, "nothing new, so the same bundle");
}
