//! [`Containerd`]: a private containerd (Debian's) and `ctr`, the command line that comes with it.

use std::fs::File;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::confined::Confined;
use super::enclave::{Enclave, Nsenter};

/// How long the daemon may take to answer. It takes a fraction of a second on a machine that does nothing else.
const STARTING_MAX: Duration = Duration::from_secs(60);

/// The one way of unpacking that works in every sandbox.
const SNAPSHOTTER: &str = "native";

/// A running containerd with content of its own; dropped, it is killed, and its content is removed.
pub struct Containerd {
    // Before the folder: what it writes there has to end first.
    daemon: Daemon,
    folder: TempDir,
    within: Option<Nsenter>,
}

/// Where the daemon runs.
enum Daemon {
    Confined(Confined),
    Within(Child),
}

impl Daemon {
    fn ended(&mut self) -> bool {
        match self {
            Daemon::Confined(daemon) => daemon.ended(),
            Daemon::Within(daemon) => daemon.try_wait().unwrap().is_some(),
        }
    }
}

impl Containerd {
    /// Starts one; `None` when the test is to be skipped.
    pub async fn start() -> Option<Self> {
        Self::start_in(None).await
    }

    /// Starts one in an enclave; `None` when the test is to be skipped.
    pub async fn within(enclave: &Enclave) -> Option<Self> {
        Self::start_in(Some(enclave.enter())).await
    }

    async fn start_in(within: Option<Nsenter>) -> Option<Self> {
        if !super::have(&["containerd", "ctr"]) || !Confined::possible() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{}\"\n",
            path("root"),
            path("state"),
            path("socket"),
        );
        std::fs::write(path("config.toml"), config).unwrap();
        let arguments = ["--config".to_owned(), path("config.toml")];
        let log = folder.path().join("log");
        let daemon = match &within {
            None => Daemon::Confined(Confined::start("containerd", &arguments, folder.path(), &log)),
            Some(enclave) => {
                let mut command = enclave.command("containerd");
                command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
                Daemon::Within(command.stderr(File::create(&log).unwrap()).spawn().unwrap())
            }
        };
        let mut containerd = Containerd { daemon, folder, within };
        containerd.answering().await;
        Some(containerd)
    }

    async fn answering(&mut self) {
        let begun = Instant::now();
        while !self.run(&["version"]).await.status.success() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(!self.daemon.ended() && begun.elapsed() < STARTING_MAX, "containerd did not start:\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs `ctr` with these arguments.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.within.as_ref().map_or_else(|| Command::new("ctr"), |enclave| enclave.command("ctr"));
        command
            .arg("--address")
            .arg(self.folder.path().join("socket"))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output().await.unwrap()
    }

    /// Runs `ctr`, and fails when it does; its standard output.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        super::clients::succeeded("ctr", arguments, self.run(arguments).await)
    }

    /// Pulls and unpacks one platform from a registry without TLS.
    pub async fn pull(&self, platform: &str, reference: &str) -> Output {
        let options = ["--plain-http", "--snapshotter", SNAPSHOTTER, "--platform", platform];
        self.run(&[&["images", "pull"], &options[..], &[reference]].concat()).await
    }

    /// Pulls and unpacks one platform from a registry that the folder of `hosts.toml` files describes.
    pub async fn pull_by(&self, hosts: &str, platform: &str, reference: &str) -> Output {
        let options = ["--hosts-dir", hosts, "--snapshotter", SNAPSHOTTER, "--platform", platform];
        self.run(&[&["images", "pull"], &options[..], &[reference]].concat()).await
    }

    /// The line of `ctr images ls` for a reference: type and digest are its second and third words.
    pub async fn listed(&self, reference: &str) -> Vec<String> {
        let list = self.ok(&["images", "ls", &format!("name=={reference}")]).await;
        let line = list.lines().find(|line| line.starts_with(reference)).unwrap_or_else(|| panic!("{list}"));
        line.split_whitespace().map(str::to_owned).collect()
    }
}
