//! [`Enclave`]: a network of its own in which nothing is but what a test puts there, and an `/etc` of its own, into which
//! configurations are put as an operator does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long it may take to be there.
const STARTING_MAX: Duration = Duration::from_secs(20);

/// Namespaces of network and mounts. They vanish with the last process in them; what was started there is killed with
/// whatever holds it.
pub struct Enclave {
    holder: Child,
    folder: TempDir,
}

/// The way into an enclave.
#[derive(Clone)]
pub struct Nsenter(u32);

impl Enclave {
    /// The address of its registry, [`Enclave::REGISTRY`].
    pub const REGISTRY_ADDRESS: &'static str = "10.77.0.5";
    /// The name of its registry.
    pub const REGISTRY: &'static str = "registry.corp";
    /// The address at which foreign hosts may be answered for.
    pub const FOREIGN_ADDRESS: &'static str = "10.77.0.6";

    /// Makes one; `None` when the test is to be skipped.
    pub fn start() -> Option<Self> {
        if !super::have(&["unshare", "nsenter", "setpriv", "ip", "mount", "update-ca-certificates"]) {
            return None;
        }
        if !rustix::process::getuid().is_root() {
            super::skip("a network of its own needs root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "set -e
            ip link set lo up
            ip address add {}/32 dev lo
            ip address add {}/32 dev lo
            cp -a /etc etc
            mkdir ca
            mount --bind ca /usr/local/share/ca-certificates
            mount --bind etc /etc
            rm -f /etc/resolv.conf
            echo 'nameserver 127.0.0.1' > /etc/resolv.conf
            echo '127.0.0.1 localhost' > /etc/hosts
            echo '{} {}' >> /etc/hosts
            touch ready
            exec sleep infinity",
            Self::REGISTRY_ADDRESS,
            Self::FOREIGN_ADDRESS,
            Self::REGISTRY_ADDRESS,
            Self::REGISTRY
        );
        let holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--", "sh", "-c", &script])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut enclave = Enclave { holder, folder };
        let begun = Instant::now();
        while !enclave.folder.path().join("ready").exists() {
            let ended = enclave.holder.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < STARTING_MAX, "no enclave could be made: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(enclave)
    }

    /// The way into it.
    pub fn enter(&self) -> Nsenter {
        Nsenter(self.holder.id())
    }

    /// A program that runs `program` in it, in the folder in which it is started.
    pub fn wrapper(&self, program: impl AsRef<OsStr>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let program = Path::new(program.as_ref());
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let path = self.folder.path().join(format!("in-enclave-{name}"));
        let (enter, program) = (self.enter().arguments().join(" "), program.display());
        // Another tree of mounts begins at its root.
        let script = format!("#!/bin/sh\nexec nsenter {enter} \"--wdns=$PWD\" -- {program} \"$@\"\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs a script as an operator would on a machine in there.
    pub fn run(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(self.enter().arguments()).args(["--", "bash", "-euo", "pipefail", "-c", script]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a script that has to work; what it says.
    pub fn ok(&self, script: &str) -> String {
        super::clients::succeeded("bash", &[script], self.run(script))
    }
}

impl Nsenter {
    fn arguments(&self) -> [String; 4] {
        ["--target".to_owned(), self.0.to_string(), "--net".to_owned(), "--mount".to_owned()]
    }

    /// A program in the enclave.
    pub fn command(&self, program: impl AsRef<OsStr>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("nsenter");
        command.args(self.arguments()).arg("--").arg(program);
        command.kill_on_drop(true);
        command
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
