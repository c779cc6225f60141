//! [`Nginx`]: Debian's nginx as a process of its own, with a folder of its own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long it may take to listen.
const STARTING_MAX: Duration = Duration::from_secs(20);

/// How often another port is tried, where somebody else took the one that was free.
const PORTS_MAX: usize = 10;

/// A running nginx; dropped, it is killed and its folder removed.
pub struct Nginx {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Nginx {
    /// Starts one; `None` when the test is to be skipped. `http` makes the lines of the section `http` for a port of
    /// loopback; the access log is `log` in its folder unless they say otherwise.
    pub async fn start(http: impl Fn(u16) -> String) -> Option<Self> {
        let program = PathBuf::from("/usr/sbin/nginx");
        if !program.exists() && !super::have(&["nginx"]) {
            return None;
        }
        for _ in 0..PORTS_MAX {
            let folder = tempfile::tempdir().unwrap();
            // nginx takes no port by itself, so one that is free now is named.
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            std::fs::write(folder.path().join("nginx.conf"), config(&http(port))).unwrap();
            let process = Command::new(if program.exists() { program.clone() } else { "nginx".into() })
                .arg("-p")
                .arg(folder.path())
                .args(["-e", "errors", "-c", "nginx.conf"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut nginx = Nginx { process, port, folder };
            if nginx.listening().await {
                return Some(nginx);
            }
        }
        panic!("nginx did not start");
    }

    /// Waits until it listens; `false` when its port was taken.
    async fn listening(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                let errors = self.file("errors");
                assert!(errors.contains("Address already in use"), "{status}\n{errors}");
                return false;
            }
            // Its process has to be alive after that: another could listen there.
            let answers = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            if answers && self.folder.path().join("pid").metadata().is_ok_and(|pid| pid.len() > 0) {
                return true;
            }
            assert!(begun.elapsed() < STARTING_MAX, "nginx did not start:\n{}", self.file("errors"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What is in a file of its folder; nothing where there is none.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One process in the foreground, with everything in its own folder.
fn config(http: &str) -> String {
    let folders: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};\n")).concat();
    format!(
        "daemon off;\nmaster_process off;\npid pid;\nevents {{}}\nhttp {{\n{folders}access_log log;\n\
         client_max_body_size 0;\n{http}\n}}\n"
    )
}
