//! [`Counterparts`]: crane, regctl, oras and the like, which `tests/interop` builds, with a home of their own.
//!
//! No distribution packages them, so they are not among what `tests/run` wants: a test that needs one asks
//! [`counterpart`], and passes where it is not there, also when real parts are required.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

/// Where `tests/interop` says that they are.
const FOLDER: &str = "SEALIFT_COUNTERPARTS";

/// A tool that `tests/interop` has built; `None` when the test is to be skipped.
pub fn counterpart(tool: &str) -> Option<PathBuf> {
    let found = std::env::var_os(FOLDER).map(|folder| Path::new(&folder).join(tool)).filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {tool} is not in the folder that {FOLDER} names; tests/interop builds it");
    }
    found
}

/// A home for the tools; removed when dropped.
pub struct Counterparts {
    home: TempDir,
}

impl Counterparts {
    /// A new home; `None` when one of these tools is missing, and the test is to be skipped.
    pub fn with(tools: &[&str]) -> Option<Self> {
        tools
            .iter()
            .all(|tool| counterpart(tool).is_some())
            .then(|| Counterparts { home: tempfile::tempdir().unwrap() })
    }

    /// The folder in which the tools run, removed with the home.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// A program in this home. The tools come first on its `PATH`.
    pub fn command(&self, program: &str) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::var_os(FOLDER).map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("HOME", self.folder())
            .env("TMPDIR", self.folder())
            .env("DOCKER_CONFIG", self.folder().join("docker"))
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a tool.
    pub async fn run(&self, tool: &str, arguments: &[&str]) -> Output {
        let found = counterpart(tool).unwrap();
        self.command(found.to_str().unwrap()).args(arguments).output().await.unwrap()
    }

    /// Runs a tool, and fails when it does; its standard output.
    pub async fn ok(&self, tool: &str, arguments: &[&str]) -> String {
        super::clients::succeeded(tool, arguments, self.run(tool, arguments).await)
    }

    /// Runs a tool, and fails unless it does and says `words`.
    pub async fn refused(&self, tool: &str, arguments: &[&str], words: &str) {
        let output = self.run(tool, arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        let line = arguments.join(" ");
        assert!(!output.status.success() && said.contains(words), "{tool} {line}: {output:?}");
    }

    /// Tells regctl that a registry speaks plain HTTP; the others find out, or are told each time.
    pub async fn regctl_without_tls(&self, host: &str) {
        self.ok("regctl", &["registry", "set", host, "--tls", "disabled"]).await;
    }
}
