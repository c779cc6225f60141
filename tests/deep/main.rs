//! `verify --deep`: what comes out of a layer is what the config of its image says, and whatever a layer holds, the others
//! are still checked, in bounded time and memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod bombs;
mod command_line;
mod damage;
mod hostile;
mod made;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod volumes;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use sealift::bundle::{PublicKey, ReadBack, SigningKey, generate_key};
use sealift::export::{ExportOptions, export};
use sealift::layers::DeepReport;
use sealift::monitor::Silent;
use sealift::sample::{SampleImage, seed};
use sealift::serve::{MemoryShelf, Running};
use sealift::store::{Access, Store};
use sealift::verify::{Depth, LayoutReport, VerifyReport, verify_layout, verify_to};
use support::journey::{fetch, spec_of};

const MIB: usize = 1 << 20;

/// A stream with its source, store and key, below a temporary folder.
struct World {
    folder: tempfile::TempDir,
    shelf: MemoryShelf,
    source: Running,
    store: Arc<Store>,
    key: SigningKey,
}

impl World {
    /// A store that has these images, each with the tag `1`.
    async fn of(images: &[(String, SampleImage)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        generate_key(&folder.path().join("exporter")).unwrap();
        let key = SigningKey::load(&folder.path().join("exporter.key")).unwrap();
        let shelf = MemoryShelf::new();
        let source = Running::start(Arc::new(shelf.clone())).await.unwrap();
        let store = Arc::new(Store::open(&folder.path().join("store"), Access::Writer).unwrap());
        let world = World { folder, shelf, source, store, key };
        for (repository, image) in images {
            seed(&world.shelf, repository, Some(&"1".parse().unwrap()), image).unwrap();
        }
        let references: Vec<(&str, &str)> = images.iter().map(|(name, _)| (name.as_str(), "1")).collect();
        let fetched = fetch(&spec_of(&world.source.address().to_string(), &references), &world.store).await;
        assert!(fetched.report.failed.is_empty(), "{:?}", fetched.report.failed);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn keys(&self) -> [PublicKey; 1] {
        [self.key.public().clone()]
    }

    /// The folder of a bundle of everything.
    async fn export(&self, volume_size: u64) -> PathBuf {
        let options = ExportOptions { recorded: None, volume_size, epoch: None, read_back: ReadBack::None };
        export("test", &self.store, &self.path("drive"), &self.key, options, &Silent).await.unwrap().folder
    }

    fn verify(&self, folders: &[PathBuf]) -> VerifyReport {
        verify_to(Depth::Layers, folders, &self.keys(), &Silent).unwrap()
    }

    fn verify_store(&self) -> LayoutReport {
        verify_layout(Depth::Layers, self.store.root(), &Silent).unwrap()
    }

    /// `sealift verify` of a bundle or of the store.
    fn command(&self, folders: &[PathBuf], more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealift"));
        command.env_clear().env("HOME", self.folder.path()).env("SEALIFT_STATE", self.path("state"));
        command.arg("verify").args(folders).args(more);
        command
    }

    /// The name under which the reports have an image.
    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.source.address())
    }
}

/// What a command said, on both streams.
fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap()
}

/// The problems of one image.
fn problems(report: &DeepReport, image: &str) -> Vec<String> {
    report.failures.iter().filter(|failure| failure.image == image).map(|failure| failure.problem.clone()).collect()
}
