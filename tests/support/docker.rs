//! [`Docker`]: a private dockerd (Debian's docker.io) and the `docker` command line that talks to it.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::Command;

use super::confined::Confined;

/// How long the daemon may take to answer. It takes half a second on a machine that does nothing else.
const STARTING_MAX: Duration = Duration::from_secs(60);

/// A running dockerd with images of its own; dropped, it is killed with the containerd that it started, and its images
/// are removed. Registries on loopback addresses are taken without TLS.
pub struct Docker {
    // Before the folder: what it writes there has to end first.
    daemon: Confined,
    folder: TempDir,
}

impl Docker {
    /// Starts one; `None` when the test is to be skipped.
    pub async fn start() -> Option<Self> {
        if !super::have(&["docker", "dockerd", "containerd"]) || !Confined::possible() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        // By default it makes a key in /etc.
        let config = serde_json::json!({ "deprecated-key-path": path("key.json") });
        std::fs::write(path("daemon.json"), config.to_string()).unwrap();
        let arguments = [
            format!("--config-file={}", path("daemon.json")),
            format!("--host=unix://{}", path("socket")),
            format!("--data-root={}", path("data")),
            format!("--exec-root={}", path("exec")),
            format!("--pidfile={}", path("pid")),
            // vfs is the one driver that works in every sandbox. No container is run, so nothing is asked of the network.
            "--storage-driver=vfs".to_owned(),
            "--bridge=none".to_owned(),
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
        ];
        let log = folder.path().join("log");
        let daemon = Confined::start("dockerd", &arguments, folder.path(), &log);
        let mut docker = Docker { daemon, folder };
        docker.answering().await;
        Some(docker)
    }

    async fn answering(&mut self) {
        let begun = Instant::now();
        while !self.run(&["version"]).await.status.success() {
            let log = std::fs::read_to_string(self.folder().join("log")).unwrap_or_default();
            assert!(!self.daemon.ended() && begun.elapsed() < STARTING_MAX, "dockerd did not start:\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A folder that is removed with the daemon.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `docker` with these arguments.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command
            .arg(format!("--host=unix://{}", self.folder().join("socket").display()))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder())
            .env("DOCKER_CONFIG", self.folder().join("config"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output().await.unwrap()
    }

    /// Runs `docker`, and fails when it does; its standard output.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        super::clients::succeeded("docker", arguments, self.run(arguments).await)
    }

    /// `docker load` of an archive; what it said.
    pub async fn load(&self, archive: &Path) -> String {
        self.ok(&["load", "--input", archive.to_str().unwrap()]).await
    }

    /// What `docker image inspect` says of one image.
    pub async fn inspect(&self, image: &str) -> serde_json::Value {
        let text = self.ok(&["image", "inspect", image]).await;
        let mut images: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(images.len(), 1, "{text}");
        images.remove(0)
    }
}
