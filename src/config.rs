//! The configuration: how registries are reached, and how much of them is used. [`ConfigFile`] as written, [`Config`] as
//! meant.

mod file;
mod limits;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

pub use file::ConfigFile;
use file::{RegistryFile, TimeoutsFile, TlsFile};
pub use limits::{BANDWIDTH_MIN, Bandwidth, Limits, RegistryLimits, Window};

use crate::oci::Registry;
use crate::yaml::{At, Diagnostics, Document, Fault};

/// The `kind` of a configuration.
pub const KIND: &str = "Config";

/// The shortest time-out: below it, every busy moment is one.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The longest time-out: above it, a night passes with a few of them.
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);

/// The configuration as meant.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The store, where the file names one.
    pub store: Option<PathBuf>,
    /// Limits over all registries together.
    pub limits: Limits,
    /// What differs from the defaults, by registry identity (`docker.io` for Docker Hub).
    pub registries: BTreeMap<Registry, RegistryConfig>,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Base addresses that are asked before the registry itself, in order; the paths of repositories stay.
    pub mirrors: Vec<Url>,
    /// Plain HTTP instead of TLS, for a host that is no loopback address.
    pub plain_http: bool,
    /// Certificates beside those of the system.
    pub tls: Tls,
    /// How long it is waited for.
    pub timeouts: Timeouts,
    /// How much of it is used.
    pub limits: RegistryLimits,
}

/// Certificates for one registry; files that were not looked at yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// CA certificates that are believed beside those of the system.
    pub ca: Option<PathBuf>,
    /// What sealift shows.
    pub identity: Option<Identity>,
}

/// A certificate to show, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How long one registry is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer to begin, and for a body to go on.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// Slow lines and busy registries need a few seconds for a connection; those that fetch from elsewhere first, and busy
    /// object stores, take their time with answers.
    fn default() -> Self {
        Timeouts { connect: Duration::from_secs(20), idle: Duration::from_secs(60) }
    }
}

impl Config {
    /// Reads the configuration in `file`.
    pub fn load(file: &Path) -> Result<Self, Diagnostics> {
        Self::of(&Document::read(file)?)
    }

    /// Takes `bytes` as a configuration; `file` is what messages call it.
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Self, Diagnostics> {
        Self::of(&Document::parse(file, bytes)?)
    }

    fn of(document: &Document) -> Result<Self, Diagnostics> {
        let file: ConfigFile = document.deserialize(KIND)?;
        document.check(|at| {
            if file.store.as_deref() == Some("") {
                at.key("store").wrong(Fault::new("the path is empty").expected("a folder"));
            }
            let store = file.store.as_ref().map(|path| document.resolve(path));
            let limits = limits::limits(at.key("limits"), &file.limits);
            let registries = registries(at.key("registries"), &file.registries);
            Some(Config { store, limits: limits?, registries })
        })
    }
}

/// The JSON Schema of a configuration, for editors.
pub fn schema() -> serde_json::Value {
    crate::yaml::schema::<ConfigFile>("config", "sealift configuration")
}

fn registries(at: At<'_>, files: &BTreeMap<String, RegistryFile>) -> BTreeMap<Registry, RegistryConfig> {
    let mut made = BTreeMap::new();
    for (host, file) in files {
        let at = at.key(host);
        let registry: Registry = match host.parse() {
            Ok(registry) => registry,
            Err(error) => {
                let error: crate::oci::reference::InvalidName = error;
                at.wrong_key(Fault::new(error.to_string()).expected("host[:port]"));
                continue;
            }
        };
        let mirrors = at.key("mirrors");
        let urls = file.mirrors.iter().enumerate().filter_map(|(i, text)| mirror(mirrors.item(i), text)).collect();
        let tls = tls(at.key("tls"), &file.tls);
        let timeouts = timeouts(at.key("timeouts"), &file.timeouts);
        let limits = limits::of_registry(at.key("limits"), &file.limits);
        // What is not there was reported: nothing is made of this document.
        let (Some(tls), Some(timeouts), Some(limits)) = (tls, timeouts, limits) else { continue };
        let config = RegistryConfig { mirrors: urls, plain_http: file.plain_http, tls, timeouts, limits };
        if made.insert(registry.clone(), config).is_some() {
            at.wrong_key(Fault::new(format!("another name of {registry}, which stands here already")));
        }
    }
    made
}

fn tls(at: At<'_>, file: &TlsFile) -> Option<Tls> {
    let path = |key: &str, text: &Option<String>, what: &str| match text {
        Some(text) => at.key(key).path(text, what).map(Some),
        None => Some(None),
    };
    let ca = path("ca", &file.ca, "a file of CA certificates");
    let certificate = path("certificate", &file.certificate, "a file with a certificate");
    let key = path("key", &file.key, "a file with its private key");
    let identity = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (None, None) => None,
        _ => {
            at.wrong(Fault::new("`certificate` and `key` belong together").expected("both, or neither"));
            None
        }
    };
    Some(Tls { ca: ca?, identity })
}

fn timeouts(at: At<'_>, file: &TimeoutsFile) -> Option<Timeouts> {
    let one = |key: &str, text: &Option<String>, default: Duration| {
        let Some(text) = text else { return Some(default) };
        let found = at.key(key).duration(text)?;
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&found) {
            at.key(key).wrong(Fault::new(format!("{text:?} is out of bounds")).expected("1s to 1h"));
        }
        Some(found)
    };
    let default = Timeouts::default();
    let connect = one("connect", &file.connect, default.connect);
    let idle = one("idle", &file.idle, default.idle);
    Some(Timeouts { connect: connect?, idle: idle? })
}

fn mirror(at: At<'_>, text: &str) -> Option<Url> {
    let wrong = |why: String| {
        at.wrong(Fault::new(format!("{text:?} is no address of a mirror: {why}")).expected("https://host[:port]"));
        None
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return wrong(error.to_string()),
    };
    if !matches!(url.scheme(), "https" | "http") {
        return wrong("it is neither https nor http".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("it has a ? or #".into());
    }
    Some(url)
}
