//! [`Clients`]: skopeo and podman with a home of their own, so that they never touch the user's files.

use std::path::Path;
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use super::enclave::{Enclave, Nsenter};

/// A home for skopeo and podman; removed when dropped.
pub struct Clients {
    home: TempDir,
    /// Where the two are started; `None` for this machine.
    within: Option<Nsenter>,
}

impl Default for Clients {
    fn default() -> Self {
        Self::new()
    }
}

impl Clients {
    /// A new home. Everything that the two read from the system or the user is set here: storage, registries,
    /// credentials (none), signature policy (everything is taken).
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().display();
        let write = |name: &str, text: &str| {
            let file = home.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("config/containers/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        // podman wants the file to be there when it is named.
        write("auth.json", "{}");
        write("registries.conf", "unqualified-search-registries = []\n");
        // Without systemd there is neither its cgroup manager nor its journal.
        write("containers.conf", "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n");
        // vfs is the one driver that works in every sandbox.
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{path}/root\"\nrunroot = \"{path}/run\"\n");
        write("storage.conf", &storage);
        for folder in ["tmp", "run", "root"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
        }
        Clients { home, within: None }
    }

    /// A new home for clients in an enclave.
    pub fn within(enclave: &Enclave) -> Self {
        Clients { within: Some(enclave.enter()), ..Self::new() }
    }

    /// A folder that is removed with the clients.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Runs skopeo. `--policy` and the like come before its subcommand, as in `["copy", …]` they need not be given.
    pub async fn skopeo(&self, arguments: &[&str]) -> Output {
        let policy = self.home.path().join("config/containers/policy.json");
        let mut command = self.command("skopeo");
        command.arg("--policy").arg(policy).args(arguments);
        command.output().await.unwrap()
    }

    /// Runs podman.
    pub async fn podman(&self, arguments: &[&str]) -> Output {
        self.command("podman").args(arguments).output().await.unwrap()
    }

    /// Runs skopeo, and fails when it does; its standard output.
    pub async fn skopeo_ok(&self, arguments: &[&str]) -> String {
        succeeded("skopeo", arguments, self.skopeo(arguments).await)
    }

    /// Runs podman, and fails when it does; its standard output.
    pub async fn podman_ok(&self, arguments: &[&str]) -> String {
        succeeded("podman", arguments, self.podman(arguments).await)
    }

    fn command(&self, tool: &str) -> Command {
        let home = self.home.path();
        let mut command = self.within.as_ref().map_or_else(|| Command::new(tool), |enclave| enclave.command(tool));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("TMPDIR", home.join("tmp"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("REGISTRY_AUTH_FILE", home.join("auth.json"))
            .env("CONTAINERS_CONF", home.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", home.join("storage.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", home.join("registries.conf"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// The standard output of a tool; fails with what it said where it failed.
pub fn succeeded(tool: &str, arguments: &[&str], output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{tool} {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout)
}
