//! [`World`]: two registries in this process, and a folder in which the binary keeps everything else.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use sealift::oci::Tag;
use sealift::sample::{SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf};
use serde_json::Value;
use tempfile::TempDir;

/// A folder in memory where the machine has one: syncs cost nothing there, and a kill loses nothing that was written.
pub fn quick_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    made.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// A source with images, an empty target, and a folder with a key, stores and drives.
pub struct World {
    folder: TempDir,
    pub source: MemoryShelf,
    pub source_at: Running,
    pub target: MemoryShelf,
    pub target_at: Running,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Said {
    /// Its JSON, when it ended with 0.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, Some(0), "{}\n{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap_or(Value::Null)
    }

    /// Refused at once, because another process holds this lock.
    pub fn is_refused_by(&self, lock: &str) {
        assert_eq!(self.status, Some(1), "{}\n{}", self.out, self.err);
        let line = self.err.lines().find(|line| line.contains("another sealift process holds ")).unwrap_or_default();
        let named = line.split(" (process").next().unwrap().ends_with(&format!("/{lock}"));
        assert!(named && self.err.contains("help: wait until"), "{lock}: {}", self.err);
    }
}

impl World {
    /// A world whose source has these images, each with the tag `1`.
    pub async fn new(images: &[(&str, &SampleImage)]) -> World {
        let (source, target) = (MemoryShelf::default(), MemoryShelf::default());
        let tag: Tag = "1".parse().unwrap();
        for (repository, image) in images {
            seed(source.writer().unwrap(), repository, Some(&tag), image).unwrap();
        }
        let source_at = Running::start(Arc::new(source.clone())).await.unwrap();
        let target_at = Running::start(Arc::new(target.clone())).await.unwrap();
        let world = World { folder: quick_folder(), source, source_at, target, target_at };
        world.run(&["key", "generate", "--out", "exporter"]).ok();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `<stream>.yaml`, which takes linux/amd64 of the tag `1` of these repositories at `host`.
    pub fn write_spec(&self, stream: &str, host: &str, repositories: &[&str]) {
        let entry = |name: &&str| format!("  - {{source: {host}/{name}, tags: {{exact: ['1']}}}}\n");
        let entries: String = repositories.iter().map(entry).collect();
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: {stream}\ndefaults:\n  platforms: [linux/amd64]\nimages:\n{entries}"
        );
        std::fs::write(self.path(&format!("{stream}.yaml")), text).unwrap();
    }

    /// The host of the source.
    pub fn source_host(&self) -> String {
        self.source_at.address().to_string()
    }

    /// sealift in this world; its store is `store` unless an argument names another.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealift"));
        command.current_dir(self.folder.path()).args(arguments).env_clear();
        command.env("HOME", self.folder.path()).env("SEALIFT_STORE", "store").env("SEALIFT_STATE", "state");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    /// Copies a folder below this one: blobs, which nobody writes to, by their names only.
    pub fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        for (name, path) in super::sound::files_below(&from) {
            let new = to.join(&name);
            std::fs::create_dir_all(new.parent().unwrap()).unwrap();
            match name.starts_with("blobs/") {
                true => std::fs::hard_link(path, new).unwrap(),
                false => _ = std::fs::copy(path, new).unwrap(),
            }
        }
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.exists() {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}
