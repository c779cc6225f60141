//! [`Credentials`]: who sealift is on which registry, from the files that docker and podman keep.
//!
//! Sources: docker/cli, `config.json`; containers/image, `containers-auth.json(5)`. Keys are hosts, hosts with the
//! beginning of a repository path (the longest that fits wins), or old-style addresses such as
//! `https://index.docker.io/v1/`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::secret::Secret;
use crate::error::{Error, Result};
use crate::oci::{Registry, json};

/// The largest credentials file that is read. Real ones have a few kilobytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// Who sealift is on which registry. Cheap to clone; shows no secret, however it is printed.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Vec<AuthFile>,
    /// Registries of which it was said that their helper is not asked.
    warned: Mutex<BTreeSet<Registry>>,
}

/// One file, as far as it matters.
#[derive(Debug)]
struct AuthFile {
    name: String,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    registry: Registry,
    /// The beginning of the repository paths that it is for; empty for all.
    path: String,
    /// `None` where the file leaves the secret to a credential helper.
    login: Option<Login>,
}

/// What is shown to a registry or to its token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token for the registry's token server.
    Identity {
        /// The name that came with it; often none.
        user: String,
        /// The token.
        token: Secret,
    },
}

impl Credentials {
    /// Nobody, everywhere.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// One name and password for one registry.
    pub fn of(registry: Registry, user: &str, password: &str) -> Self {
        let login = Login::Password { user: user.to_owned(), password: Secret::new(password) };
        let entry = Entry { registry, path: String::new(), login: Some(login) };
        Self::from_parts(vec![AuthFile { name: "the credentials that were given".to_owned(), entries: vec![entry] }])
    }

    /// What the files of this user say: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json`, podman's `auth.json`
    /// (`$XDG_RUNTIME_DIR`, `$XDG_CONFIG_HOME`) and `~/.docker/config.json`, in this order; the first that
    /// knows a registry decides. A file that is not there is passed over, unless `$REGISTRY_AUTH_FILE` names it.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`](crate::Kind::Usage) with the name of a file that is not readable or no JSON.
    pub fn from_environment() -> Result<Self> {
        let mut files = Vec::new();
        for (path, required) in places(|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)) {
            files.extend(AuthFile::read(&path, required)?);
        }
        Ok(Self::from_parts(files))
    }

    fn from_parts(files: Vec<AuthFile>) -> Self {
        Credentials(Arc::new(Inner { files, warned: Mutex::default() }))
    }

    /// What one file with this text would say.
    #[cfg(test)]
    pub(super) fn from_json(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        Self::from_parts(vec![AuthFile::from_value("a file".to_owned(), &value)])
    }

    /// The login for a repository; `None` for nobody.
    pub(super) fn find(&self, registry: &Registry, path: &str) -> Option<Login> {
        for file in &self.0.files {
            match file.find(registry, path) {
                Some(Entry { login: Some(login), .. }) => return Some(login.clone()),
                Some(Entry { login: None, .. }) => self.warn(registry, &file.name),
                None => {}
            }
        }
        None
    }

    /// Where was looked, for people: the answer to "why am I anonymous there?".
    pub(super) fn looked_in(&self) -> String {
        match self.0.files.as_slice() {
            [] => "no credentials file was found".to_owned(),
            files => {
                let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
                format!("looked in {}", names.join(", "))
            }
        }
    }

    fn warn(&self, registry: &Registry, file: &str) {
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(registry.clone()) {
            tracing::warn!(%registry, file, "a credential helper keeps this login; helpers are not asked: going on without");
        }
    }
}

/// The files in the order in which they are asked, each with whether it has to be there.
fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<(PathBuf, bool)> {
    let home = variable("HOME");
    let config = variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let podman = |folder: PathBuf| folder.join("containers/auth.json");
    let candidates = [
        variable("REGISTRY_AUTH_FILE").map(|path| (path, true)),
        variable("DOCKER_CONFIG").map(|folder| (folder.join("config.json"), false)),
        variable("XDG_RUNTIME_DIR").map(|folder| (podman(folder), false)),
        config.map(|folder| (podman(folder), false)),
        home.map(|home| (home.join(".docker/config.json"), false)),
    ];
    candidates.into_iter().flatten().collect()
}

impl AuthFile {
    fn read(path: &Path, required: bool) -> Result<Option<Self>> {
        let fail = |why: String| Error::usage(why).while_(format_args!("read credentials from {}", path.display()));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
            Err(error) => return Err(fail(error.to_string())),
        };
        let mut bytes = Vec::new();
        file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
        if bytes.len() as u64 > FILE_SIZE_MAX {
            return Err(fail(format!("it has more than {FILE_SIZE_MAX} bytes")));
        }
        // Parsed into a plain value first: an error about a member's type would quote that member.
        let value: Value = json::parse(&bytes).map_err(|why| fail(format!("it is no JSON: {why}")))?;
        Ok(Some(Self::from_value(path.display().to_string(), &value)))
    }

    /// What is understood of a file; odd entries are passed over, for other tools own it.
    fn from_value(name: String, value: &Value) -> Self {
        let members = |key: &str| value.get(key).and_then(Value::as_object).into_iter().flatten();
        let helped = members("credHelpers").filter_map(|(key, _)| entry(key, None));
        let store = value.get("credsStore").and_then(Value::as_str).is_some_and(|store| !store.is_empty());
        let stored = members("auths").filter_map(|(key, auth)| match login(auth) {
            Some(login) => entry(key, Some(login)),
            // With a store the entry is empty and only says that there is a login.
            None if store => entry(key, None),
            None => None,
        });
        // A login in the file comes before a helper that is not asked anyway.
        AuthFile { name, entries: stored.chain(helped).collect() }
    }

    fn find(&self, registry: &Registry, path: &str) -> Option<&Entry> {
        let fits = |entry: &&Entry| {
            let rest = path.strip_prefix(entry.path.as_str());
            entry.registry == *registry
                && (entry.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        self.entries.iter().filter(fits).max_by_key(|entry| (entry.login.is_some(), entry.path.len()))
    }
}

/// The entry of a key: `host[:port]`, `host/path`, or an address, of which only the host counts.
fn entry(key: &str, login: Option<Login>) -> Option<Entry> {
    let address = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = address.unwrap_or(key).split_once('/').unwrap_or((address.unwrap_or(key), ""));
    let path = path.trim_matches('/');
    let path = if address.is_some() || path == "v1" || path == "v2" { "" } else { path };
    Some(Entry { registry: host.parse().ok()?, path: path.to_owned(), login })
}

fn login(auth: &Value) -> Option<Login> {
    let text = |key: &str| auth.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let encoded = text("auth").and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    let decoded = encoded.and_then(|bytes| String::from_utf8(bytes).ok());
    // docker pads the password with NUL characters.
    let pair = decoded.as_deref().and_then(|text| text.split_once(':')).map(|(u, p)| (u, p.trim_end_matches('\0')));
    let user = text("username").or(pair.map(|(user, _)| user)).unwrap_or_default().to_owned();
    if let Some(token) = text("identitytoken") {
        return Some(Login::Identity { user, token: Secret::new(token) });
    }
    let password = text("password").or(pair.map(|(_, password)| password))?;
    // What `docker login` writes for a refresh token that it got as a password.
    match user.as_str() {
        "<token>" => Some(Login::Identity { user: String::new(), token: Secret::new(password) }),
        _ => Some(Login::Password { user, password: Secret::new(password) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(credentials: &Credentials, registry: &str, path: &str) -> Option<String> {
        match credentials.find(&registry.parse().unwrap(), path)? {
            Login::Password { user, password } => Some(format!("{user}:{}", password.expose())),
            Login::Identity { user, token } => Some(format!("{user}!{}", token.expose())),
        }
    }

    #[test]
    fn keys_of_every_form() {
        // a:b, c:d, e:f
        let file = Credentials::from_json(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "YTpi"},
                "r.example:5000": {"auth": "YzpkAAA="},
                "r.example:5000/team": {"auth": "ZTpm"},
                "r.example:5000/team/app": {"username": "g", "password": "h"},
                "azure.example": {"auth": "YTpi", "identitytoken": "refresh"},
                "odd.example": {"auth": "!!"}, "bad host": {"auth": "YTpi"}, "none.example": 7
            }}"#,
        );
        let rows = [
            ("docker.io", "library/nginx", Some("a:b")),
            ("r.example:5000", "other", Some("c:d")),
            ("r.example:5000", "teams/x", Some("c:d")),
            ("r.example:5000", "team/x", Some("e:f")),
            ("r.example:5000", "team/app", Some("g:h")),
            ("r.example", "team", None),
            ("azure.example", "x", Some("a!refresh")),
            ("odd.example", "x", None),
            ("none.example", "x", None),
        ];
        for (registry, path, expected) in rows {
            assert_eq!(user(&file, registry, path).as_deref(), expected, "{registry}/{path}");
        }
    }

    #[test]
    fn helpers_are_noted_and_secrets_are_not_shown() {
        let file = Credentials::from_json(
            r#"{"auths": {"a.example": {}, "b.example": {"auth": "eDpzM2NyM3Q="}}, "credsStore": "x",
                "credHelpers": {"b.example": "y", "c.example": "z"}}"#,
        );
        assert_eq!(user(&file, "a.example", "p"), None);
        assert_eq!(user(&file, "b.example", "p").as_deref(), Some("x:s3cr3t"));
        assert_eq!(user(&file, "c.example", "p"), None);
        let shown = format!("{file:?}");
        assert!(!shown.contains("s3cr3t") && shown.contains("b.example"), "{shown}");
    }

    #[test]
    fn the_order_of_the_files() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        let names: Vec<String> = places(all).iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(
            names,
            [
                "/REGISTRY_AUTH_FILE",
                "/DOCKER_CONFIG/config.json",
                "/XDG_RUNTIME_DIR/containers/auth.json",
                "/XDG_CONFIG_HOME/containers/auth.json",
                "/HOME/.docker/config.json"
            ]
        );
        assert!(places(|_| None).is_empty());
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"auths": s3cr3t}"#).unwrap();
        let error = AuthFile::read(&path, false).unwrap_err();
        assert!(error.to_string().contains("config.json") && !error.to_string().contains("s3cr3t"), "{error}");
        assert!(AuthFile::read(&folder.path().join("none"), false).unwrap().is_none());
        assert!(AuthFile::read(&folder.path().join("none"), true).is_err());
    }
}
