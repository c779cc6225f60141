//! Going on is real: what was moved before a kill is not moved again.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use sealift::sample::{ImageBuilder, SampleImage};

use super::moments::{Ended, kill};
use super::support::sound::{assert_sound, files_below, snapshot};
use super::support::{DockerRegistry, Proxy, World, push_sample};

const MIB: u64 = 1024 * 1024;

/// What may be moved again, in each stream.
const CHUNK: u64 = 16 * MIB;

/// The one large layer.
const LAYER: usize = 200 * 1024 * 1024;

/// Heads of answers, manifests and configs.
const SLACK_OF_HEADS: u64 = 256 * 1024;

/// The catalog with its log, the small files of a bundle, and what a process writes to itself to wake threads.
const SLACK_OF_WRITES: u64 = MIB;

/// How often an export may be faster than whoever watches it.
const ATTEMPTS_MAX: usize = 20;

fn large() -> SampleImage {
    ImageBuilder::new().platform("linux", "amd64", "").random_layer(LAYER, 1).build().unwrap()
}

/// Waits without turning for long.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |found| found.len())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "moves 200 MiB"]
async fn a_pull_that_was_killed_asks_for_the_rest_alone() {
    let Some(registry) = DockerRegistry::start_logged("").await else { return };
    let image = large();
    push_sample(&registry.url(), "large", Some("1"), &image).await;
    let manifest = image.parsed(&image.child("linux", "amd64", "").unwrap()).unwrap();
    let layer = manifest.successors().max_by_key(|blob| blob.size).unwrap().clone();
    drop(image);
    let blob = format!("/v2/large/blobs/{}", layer.digest);
    let proxy = Proxy::start(registry.host()).await;
    let world = World::new(&[]).await;
    world.write_spec("world", &proxy.host(), &["large"]);

    proxy.hold_after(layer.size * 6 / 10);
    let mut child = world.command(&["pull", "world.yaml"]).spawn().unwrap();
    proxy.holding().await;
    let partial = world.path("store/ingest").join(format!("{}.partial", layer.digest.hex()));
    // All that came through but what is in buffers.
    until(|| length(&partial) >= layer.size * 6 / 10 - 8 * MIB).await;
    assert!(matches!(kill(&mut child), Ended::Hit));
    assert_sound(&world.path("store"));
    proxy.release();
    proxy.forget();
    world.run(&["pull", "world.yaml"]).ok();

    let asked: Vec<_> = proxy.asked().into_iter().filter(|asked| asked.path == blob).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let range = asked[0].range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let from: u64 = range.unwrap().parse().unwrap();
    assert!(from >= layer.size * 6 / 10 - 8 * MIB - CHUNK && from.is_multiple_of(CHUNK), "{from}");
    assert!(proxy.passed() <= layer.size + CHUNK + SLACK_OF_HEADS, "{} for {}", proxy.passed(), layer.size);
    let gets = || -> Vec<u16> {
        let all = registry.accesses().into_iter();
        all.filter(|access| access.method == "GET" && access.path == blob).map(|access| access.status).collect()
    };
    // The registry writes its log after its answer.
    until(|| gets().len() >= 2).await;
    assert_eq!(gets().iter().filter(|status| **status == 206).count(), 1, "{:?}", gets());
    assert_eq!(gets().len(), 2, "{:?}", gets());
    assert_sound(&world.path("store"));
    assert!(!partial.exists() && length(&world.path("store").join(layer.digest.layout_path())) == layer.size);
}

fn export(store: &str, drive: &str) -> Vec<String> {
    let key = ["--sign-key", "exporter.key", "--volume-size", "64MiB"];
    let arguments = [&["export", "world", "--store", store, "--to", drive], &key[..]].concat();
    arguments.into_iter().map(str::to_owned).collect()
}

fn spawn(world: &World, arguments: &[String]) -> Child {
    world.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap()
}

/// How much lies there of volumes.
fn written(drive: &Path) -> u64 {
    let volumes = files_below(drive).into_iter().filter(|(name, _)| name.contains(".tar"));
    volumes.map(|(_, path)| length(&path)).sum()
}

/// What a process has written in all, once it has ended well.
fn written_by(mut child: Child) -> u64 {
    let process = Pid::from_child(&child);
    // It is left a zombie: its counters go with it.
    waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let counters = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    assert!(child.wait().unwrap().success());
    let line = counters.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "moves 200 MiB"]
async fn an_export_that_was_killed_writes_the_rest_alone() {
    let world = World::new(&[("large", &large())]).await;
    world.write_spec("world", &world.source_host(), &["large"]);
    world.run(&["pull", "world.yaml"]).ok();
    let drive = world.path("drive");
    let whole = LAYER as u64;
    let mut killed = false;
    for _ in 0..ATTEMPTS_MAX {
        world.remove("drive");
        let mut child = spawn(&world, &export("store", "drive"));
        until(|| written(&drive) >= whole * 6 / 10 || child.try_wait().unwrap().is_some()).await;
        killed = matches!(kill(&mut child), Ended::Hit);
        if killed {
            break;
        }
    }
    assert!(killed, "it was always faster");
    let there = written(&drive);
    assert!(there < whole, "{there}");
    let wrote = written_by(spawn(&world, &export("store", "drive")));
    let all = written(&drive);
    assert!(wrote <= all - there + CHUNK + SLACK_OF_WRITES, "{wrote} were written, and {} were missing", all - there);
    let undisturbed = written_by(spawn(&world, &export("store", "other")));
    assert!(undisturbed >= all, "the counter counts: {undisturbed}");
    assert_eq!(snapshot(&drive), snapshot(&world.path("other")));
    assert_sound(&world.path("store"));
}
