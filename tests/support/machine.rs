//! [`Machine`]: the sealift command with a home of its own, so that it never meets the user's files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a server may take to say where it listens.
const STARTING_MAX: Duration = Duration::from_secs(20);

/// A machine with sealift on it. Commands run in its folder, so paths in arguments are relative to that.
pub struct Machine {
    folder: TempDir,
    variables: Vec<(String, PathBuf)>,
}

/// What a command said.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

/// `sealift serve` as a process; killed when dropped.
pub struct Serving {
    child: Child,
    host: String,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    pub fn new() -> Self {
        Machine { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// One whose folder lies below `place`.
    pub fn below(place: &Path) -> Self {
        Machine { folder: tempfile::tempdir_in(place).unwrap(), variables: Vec::new() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes a file below the folder; its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Sets an environment variable for all commands that follow.
    pub fn set(&mut self, variable: &str, value: impl Into<PathBuf>) {
        self.variables.push((variable.to_owned(), value.into()));
    }

    /// Forgets all variables that were set.
    pub fn unset_all(&mut self) {
        self.variables.clear();
    }

    /// A program in this machine's environment. The folder of sealift comes first on its `PATH`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let sealift = Path::new(env!("CARGO_BIN_EXE_sealift")).parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([sealift].into_iter().chain(std::env::split_paths(&path))).unwrap();
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path).env("HOME", self.folder()).env("TMPDIR", std::env::temp_dir());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs sealift.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_sealift"));
        Ran::of(command.args(arguments).output().await.unwrap())
    }

    /// Runs sealift, and fails unless it ends with `status`.
    pub async fn run_to(&self, status: i32, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments).await;
        assert_eq!(ran.status, Some(status), "sealift {}\n{}\n{}", arguments.join(" "), ran.out, ran.err);
        ran
    }

    /// Runs sealift, and fails when it does.
    pub async fn ok(&self, arguments: &[&str]) -> Ran {
        self.run_to(0, arguments).await
    }

    /// What sealift prints with `--output json`, when it ends with `status`: one document and nothing else.
    pub async fn json_to(&self, status: i32, arguments: &[&str]) -> Value {
        let ran = self.run_to(status, &[arguments, &["--output", "json"]].concat()).await;
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
    }

    /// What sealift prints with `--output json`.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        self.json_to(0, arguments).await
    }

    /// Runs a script with bash in `folder`; it stops at the first command that fails.
    pub async fn bash(&self, folder: &Path, script: &str) -> Ran {
        let mut command = self.command("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(folder);
        Ran::of(command.output().await.unwrap())
    }

    /// Starts `sealift serve` on a free port.
    pub async fn serve(&self, arguments: &[&str]) -> Serving {
        let mut command = self.command(env!("CARGO_BIN_EXE_sealift"));
        command.arg("serve").args(arguments).args(["--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        tokio::time::timeout(STARTING_MAX, lines.read_line(&mut line)).await.unwrap().unwrap();
        let Some((_, rest)) = line.split_once("http://") else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
            panic!("sealift serve {}: {line}{said}", arguments.join(" "));
        };
        Serving { child, host: rest.split_whitespace().next().unwrap().to_owned() }
    }
}

impl Ran {
    fn of(output: std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Serving {
    /// `127.0.0.1:<port>`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends SIGTERM, and waits; the exit status.
    pub async fn terminate(mut self) -> Option<i32> {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.child.wait().await.unwrap().code()
    }
}
