//! [`Confined`]: a daemon with processes and mounts of its own, none of which outlives it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A daemon and all that it starts. Dropped, they are killed.
///
/// The daemon is the first process of a namespace: when it dies, the kernel kills everything in there, also what left its
/// process group. Its mounts are in a namespace too, and vanish with it. When the test itself is killed, so is the daemon.
pub struct Confined(Child);

impl Confined {
    /// Whether this can work; says why not otherwise.
    pub fn possible() -> bool {
        if !rustix::process::getuid().is_root() {
            return super::skip("daemons with namespaces of their own need root");
        }
        super::have(&["setpriv", "unshare"])
    }

    /// Starts `program`; what it says goes to `log`.
    pub fn start(program: &str, arguments: &[impl AsRef<OsStr>], home: &Path, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child=KILL", "--", program])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("TMPDIR", home)
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Confined(child)
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// The first process of the namespace, which is the one child of `unshare`.
    fn first(&self) -> Option<rustix::process::Pid> {
        let id = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        rustix::process::Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // `unshare` learns of the death of the first process only when all others of the namespace are dead.
        match self.first() {
            Some(first) => drop(rustix::process::kill_process(first, rustix::process::Signal::KILL)),
            None => drop(self.0.kill()),
        }
        let _ = self.0.wait();
    }
}
