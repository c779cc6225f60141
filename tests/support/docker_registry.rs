//! [`DockerRegistry`]: Debian's docker-registry (distribution 2.8), or another version of it, on a free loopback port.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a registry may take to listen.
const STARTING_MAX: Duration = Duration::from_secs(20);

/// The access log in a registry's own folder.
const OWN_ACCESS_LOG: &str = "access.log";

/// How the registry is set up.
pub struct Settings {
    /// Another version than Debian's.
    pub program: Option<PathBuf>,
    /// Where it listens; port 0 is any free one.
    pub address: &'static str,
    /// Whether manifests and blobs may be deleted.
    pub delete: bool,
    /// Lines of YAML below `http:`, indented by two spaces; for example `  tls: {…}`.
    pub http: String,
    /// Whole sections of YAML; for example `validation: {manifests: {urls: {allow: [".*"]}}}`.
    pub sections: String,
    /// Variables of its environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// Where the access log goes (Apache's combined format); nowhere when `None`.
    pub access_log: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            program: None,
            address: "127.0.0.1:0",
            delete: true,
            http: String::new(),
            sections: String::new(),
            environment: &[],
            access_log: None,
        }
    }
}

/// A running registry with storage of its own; dropped, it is killed and its storage removed.
pub struct DockerRegistry {
    process: Child,
    host: String,
    scheme: &'static str,
    access_log: Option<PathBuf>,
    folder: TempDir,
}

/// A line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub method: String,
    /// The path with its query.
    pub path: String,
    pub status: u16,
}

impl DockerRegistry {
    /// Starts one with the default settings; `None` when the test is to be skipped.
    pub async fn start() -> Option<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Starts one that keeps an access log in its own folder, with these sections of YAML.
    pub async fn start_logged(sections: &str) -> Option<Self> {
        let own = PathBuf::from(OWN_ACCESS_LOG);
        Self::start_with(Settings { access_log: Some(own), sections: sections.to_owned(), ..Settings::default() }).await
    }

    /// Starts one; `None` when the test is to be skipped.
    pub async fn start_with(settings: Settings) -> Option<Self> {
        if settings.program.is_none() && !super::have(&["docker-registry"]) {
            return None;
        }
        let program = settings.program.clone().unwrap_or_else(|| "docker-registry".into());
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        std::fs::write(&config, config_text(&settings, folder.path())).unwrap();
        // A relative path is one in the registry's own folder.
        let access_log = settings.access_log.as_ref().map(|path| folder.path().join(path));
        let output = match &access_log {
            Some(path) => Stdio::from(File::create(path).unwrap()),
            None => Stdio::null(),
        };
        let process = Command::new(program)
            .arg("serve")
            .arg(&config)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Version 3 looks for a collector of traces otherwise.
            .env("OTEL_TRACES_EXPORTER", "none")
            .envs(settings.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let scheme = if settings.http.contains("tls:") { "https" } else { "http" };
        let mut registry = DockerRegistry { process, host: String::new(), scheme, access_log, folder };
        registry.host = registry.listening().await;
        Some(registry)
    }

    /// Waits until it listens. It was told to take any free port, and its log says which one it took: a port that
    /// was looked for before could be taken by another test in the meantime.
    async fn listening(&mut self) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log();
            if let Some((_, rest)) = log.split_once("listening on ") {
                let of_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']');
                let end = rest.find(|c: char| !of_address(c)).unwrap_or(rest.len());
                return rest[..end].to_owned();
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < STARTING_MAX, "docker-registry did not start:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `127.0.0.1:<port>`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    /// The root of its storage.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    /// Its configuration file; for example for `docker-registry garbage-collect`.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.yml")
    }

    /// The requests that it has answered, where it keeps an access log.
    pub fn accesses(&self) -> Vec<Access> {
        let text = std::fs::read_to_string(self.access_log.as_ref().unwrap()).unwrap();
        text.lines().filter_map(access).collect()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A line such as `127.0.0.1 - - [time] "GET /v2/ HTTP/1.1" 200 2 "" "curl"`.
fn access(line: &str) -> Option<Access> {
    let mut quoted = line.split('"');
    let (request, after) = (quoted.nth(1)?, quoted.next()?);
    let mut words = request.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Access { method, path, status: after.split_whitespace().next()?.parse().ok()? })
}

fn config_text(settings: &Settings, folder: &Path) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: {no_access_log}}}}}\n\
         storage:\n  filesystem: {{rootdirectory: \"{storage}\"}}\n  delete: {{enabled: {delete}}}\n\
         http:\n  addr: \"{address}\"\n  secret: of-no-importance\n{http}\n{sections}\n",
        no_access_log = settings.access_log.is_none(),
        storage = folder.join("storage").display(),
        address = settings.address,
        delete = settings.delete,
        http = settings.http,
        sections = settings.sections,
    )
}
