//! The configuration: how registries are reached. [`ConfigFile`] as written, [`Config`] as meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::oci::Registry;
use crate::yaml::{At, Diagnostics, Document, Fault};

/// The `kind` of a configuration.
pub const KIND: &str = "Config";

/// The configuration as meant.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The store, where the file names one.
    pub store: Option<PathBuf>,
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
}

/// How sealift works on this machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (apiVersion, kind, store, registries)")]
pub struct ConfigFile {
    /// The version of this format: `sealift/v1`.
    #[schemars(extend("const" = "sealift/v1"))]
    pub api_version: String,
    /// The kind of this document: `Config`.
    #[schemars(extend("const" = "Config"))]
    pub kind: String,
    /// The folder of the store; relative to this file. Default: /var/lib/sealift/store.
    pub store: Option<String>,
    /// How registries are reached, by `host[:port]`.
    #[serde(default)]
    pub registries: BTreeMap<String, RegistryFile>,
}

/// How one registry is reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (mirrors, plainHttp)")]
pub struct RegistryFile {
    /// Base addresses that are asked before the registry itself, in order.
    #[serde(default)]
    #[schemars(extend("examples" = [["https://mirror.corp"]]))]
    pub mirrors: Vec<String>,
    /// Plain HTTP instead of TLS. Loopback addresses need no word for that. Default: false.
    #[serde(default)]
    pub plain_http: bool,
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
            Some(Config { store, registries: registries(at.key("registries"), &file.registries) })
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
        let config = RegistryConfig { mirrors: urls, plain_http: file.plain_http };
        if made.insert(registry.clone(), config).is_some() {
            at.wrong_key(Fault::new(format!("another name of {registry}, which stands here already")));
        }
    }
    made
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
