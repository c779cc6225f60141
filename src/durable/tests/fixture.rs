//! What the sweeps run: every stage that writes, from a registry in this process over a folder that holds store and drive.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::bundle::{BundleReader, PublicKey, ReadBack, SigningKey, generate_key};
use crate::config::Config;
use crate::content::{CHUNK_SIZE, Limits};
use crate::durable::with_suffix;
use crate::error::{Error, Result, Side};
use crate::export::{ExportOptions, export};
use crate::monitor::Silent;
use crate::oci::Digest;
use crate::plan::plan;
use crate::pull::pull;
use crate::registry::{Client, Credentials, Pull, Retry};
use crate::replay::{Destination, replay};
use crate::sample::{ImageBuilder, SampleImage, seed};
use crate::serve::{MemoryShelf, Running};
use crate::site::state::State;
use crate::spec::{self, MirrorSpec};
use crate::store::{Access, Store};
use crate::target::Known;

/// The stream of every fixture.
pub const STREAM: &str = "test";

/// The platforms that are kept.
pub const PLATFORMS: [&str; 2] = ["amd64", "arm64"];

/// The repository whose index is trimmed.
const TRIMMED: &str = "b/c";

/// A volume takes about a dozen of the small fixture's layers, so there are several.
const VOLUME_SIZE: u64 = 64 * 1024;

/// The same for a blob of three chunks.
const LARGE_VOLUME_SIZE: u64 = 64 * 1024 * 1024;

/// A stage that writes to the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Plan and pull into `store`.
    Pull,
    /// From `store` to `drive`.
    Export,
    /// The bundle on `drive` to the target; the site's memory is in `state`.
    Replay,
    /// What opening `store` for writing removes.
    CleanUp,
}

/// A source registry, a spec and a key.
pub struct Fixture {
    /// Runs as long as it is held.
    _source: Running,
    spec: MirrorSpec,
    volume_size: u64,
    key: SigningKey,
    pub public: PublicKey,
    folder: TempDir,
}

/// A folder where syncs cost nothing, if there is one: what a power loss leaves is computed, not tried.
pub fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

fn small_image(seed: u64) -> SampleImage {
    let mut image = ImageBuilder::new().random_layer(9_000, 1).random_layer(5_000, 100 + seed);
    for (at, (architecture, variant)) in [("amd64", ""), ("arm64", "v8"), ("s390x", "")].into_iter().enumerate() {
        image = image.platform("linux", architecture, variant);
        for layer in 0..2 {
            image = image.random_layer(3_000 + layer, 1000 * seed + 10 * at as u64 + layer as u64);
        }
        if at == 0 {
            image = image.attestation().child_referrer("application/spdx+json", &seed.to_be_bytes());
        }
    }
    image.referrer("application/vnd.example.signature", &[seed as u8; 40]).build().unwrap()
}

impl Fixture {
    /// Three images of three platforms, of which two are kept, in the last one by a trimmed index: about forty blobs.
    pub async fn small() -> Fixture {
        let images = [small_image(1), small_image(2), small_image(3)];
        Self::of(&[("a", &images[0]), ("b", &images[1]), ("b/c", &images[2])], VOLUME_SIZE).await
    }

    /// One image with a layer of two chunks and a half.
    pub async fn large() -> Fixture {
        let size = usize::try_from(CHUNK_SIZE * 5 / 2).unwrap();
        let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(size, 7).build().unwrap();
        Self::of(&[("large", &image)], LARGE_VOLUME_SIZE).await
    }

    async fn of(images: &[(&str, &SampleImage)], volume_size: u64) -> Fixture {
        let shelf = MemoryShelf::new();
        for (repository, image) in images {
            seed(&shelf, repository, Some(&"1".parse().unwrap()), image).unwrap();
        }
        let source = Running::start(Arc::new(shelf)).await.unwrap();
        let host = source.address();
        let entry = |(repository, _): &(&str, &SampleImage)| {
            let index = if *repository == TRIMMED { "trim" } else { "sparse" };
            format!("  - {{source: {host}/{repository}, tags: {{exact: ['1']}}, index: {index}}}\n")
        };
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: {STREAM}\ndefaults:\n  platforms: [linux/amd64, linux/arm64]\n  missingPlatform: skip\nimages:\n{}",
            images.iter().map(entry).collect::<String>()
        );
        let spec = spec::parse(Path::new("test.yaml"), text.as_bytes()).unwrap();
        let folder = temporary();
        let key = folder.path().join("exporter");
        let public = generate_key(&key).unwrap();
        let key = SigningKey::load(&with_suffix(&key, ".key")).unwrap();
        Fixture { _source: source, spec, volume_size, key, public, folder }
    }

    /// A place below a folder of this fixture's own. There is nothing yet.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `stage` below `root`; whether all of it was done. `target` is where a replay goes.
    pub async fn run(&self, stage: Stage, root: &Path, target: Option<&Running>) -> Result<bool> {
        match stage {
            Stage::Pull => self.pull(root).await,
            Stage::Export => self.export(root).await,
            Stage::Replay => self.replay(root, target.unwrap()).await,
            Stage::CleanUp => Store::open(&root.join("store"), Access::Writer).map(|_| true),
        }
    }

    async fn pull(&self, root: &Path) -> Result<bool> {
        let store = Arc::new(Store::open(&root.join("store"), Access::Writer)?);
        let report = async {
            let client = quick_client(Side::Source);
            let plan = plan(&self.spec, &client, &store, &Silent).await?;
            pull(&plan, &Pull::new(client), &store, Limits::default(), &Silent).await
        };
        let report = report.await;
        ended(store).await;
        Ok(report?.failed.is_empty())
    }

    async fn export(&self, root: &Path) -> Result<bool> {
        let store = Arc::new(Store::open_existing(&root.join("store"), Access::Shared)?);
        let options =
            ExportOptions { recorded: None, volume_size: self.volume_size, epoch: None, read_back: ReadBack::Direct };
        let report = export(STREAM, &store, &root.join("drive"), &self.key, options, &Silent).await;
        ended(store).await;
        Ok(report?.failed.is_empty())
    }

    /// The bundle below `root`.
    pub fn reader(&self, root: &Path) -> Result<BundleReader> {
        BundleReader::open(&[root.join("drive").join(format!("{STREAM}-1-1"))], std::slice::from_ref(&self.public))
    }

    async fn replay(&self, root: &Path, target: &Running) -> Result<bool> {
        let reader = Arc::new(self.reader(root)?);
        let host = target.address().to_string();
        let destination = Destination {
            client: quick_client(Side::Target),
            name: Box::new(move |source| {
                format!("{host}/{}", source.path()).parse().map_err(|error| Error::failed(format!("{error}")))
            }),
            known: Known::default(),
            stubs: true,
            tag_children: false,
            rollback: None,
            limits: Limits::default(),
        };
        let mut state = State::lock(&root.join("state"), STREAM, &self.public.id())?;
        let report = replay(&reader, &destination, &mut state, &Silent).await?;
        Ok(report.verdict().is_none())
    }
}

/// Waits for the threads that still write to `store` after a stage has given up, as the end of a process does. Otherwise one
/// of them could hold its locks against the next process.
async fn ended(mut store: Arc<Store>) {
    while let Err(shared) = Arc::try_unwrap(store) {
        store = shared;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn quick_client(side: Side) -> Client {
    let client = Client::new(&Config::default(), Credentials::anonymous(), side).unwrap();
    client.with_retry(Retry::default().with_base(Duration::ZERO))
}

/// Copies a tree.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy_tree(&path, &place) } else { std::fs::copy(&path, &place).map(drop).unwrap() }
    }
}

/// Every file below `root` with its path from there.
pub fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The digest that a path below `blobs/` names.
pub fn named(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.split_once("blobs/")?.1.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}
