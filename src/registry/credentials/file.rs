//! [`AuthFile`]: one file of docker or podman, as far as it matters.
//!
//! Sources: docker/cli, `config.json`; containers/image, `containers-auth.json(5)`. Keys are hosts, hosts with the
//! beginning of a repository path (the longest that fits wins), or old-style addresses such as
//! `https://index.docker.io/v1/`.

use std::fs::File;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::places::Candidate;
use super::{Found, Login, Origin};
use crate::error::{Error, Result};
use crate::oci::{Registry, json};
use crate::registry::secret::Secret;

/// The largest credentials file that is read. Real ones have a few kilobytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

#[derive(Debug)]
pub(super) struct AuthFile {
    name: String,
    /// What has a secret in the file.
    logins: Vec<Entry<Login>>,
    /// What a helper of its own keeps.
    helpers: Vec<Entry<String>>,
    /// The helper that keeps everything else.
    store: Option<String>,
}

/// What a key of a file stands for.
#[derive(Debug)]
struct Entry<T> {
    key: String,
    registry: Registry,
    /// The beginning of the repository paths that it is for; empty for all.
    path: String,
    value: T,
}

/// A helper that a file names for a registry.
pub(super) struct Named<'a> {
    pub helper: &'a str,
    pub origin: Origin,
}

impl AuthFile {
    /// `None` for a file that is not there and need not be.
    pub fn read(candidate: &Candidate) -> Result<Option<Self>> {
        let path = &candidate.path;
        let fail = |why: String| Error::usage(why).while_(format_args!("read credentials from {}", path.display()));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !candidate.required => return Ok(None),
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
    pub fn from_value(name: String, value: &Value) -> Self {
        let members = |key: &str| value.get(key).and_then(Value::as_object).into_iter().flatten();
        let helpers = members("credHelpers").filter_map(|(key, helper)| entry(key, helper.as_str()?.to_owned()));
        let store = value.get("credsStore").and_then(Value::as_str).filter(|store| !store.is_empty());
        AuthFile {
            name,
            logins: members("auths").filter_map(|(key, auth)| entry(key, login(auth)?)).collect(),
            helpers: helpers.collect(),
            store: store.map(str::to_owned),
        }
    }

    /// A file that nobody wrote, with one login.
    pub fn of(name: &str, registry: Registry, login: Login) -> Self {
        let entry = Entry { key: registry.to_string(), registry, path: String::new(), value: login };
        AuthFile { name: name.to_owned(), logins: vec![entry], helpers: Vec::new(), store: None }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The helper that is asked first: the registry's own, or else the one for all (docker/cli, `configfile`). An empty
    /// name is docker's way to say that a registry has none.
    pub fn helper(&self, registry: &Registry, path: &str) -> Option<Named<'_>> {
        let (helper, entry) = match best(&self.helpers, registry, path) {
            Some(own) => (&own.value, format!("credHelpers {:?}", own.key)),
            None => (self.store.as_ref()?, "credsStore".to_owned()),
        };
        let origin = Origin { file: self.name.clone(), entry, helper: Some(helper.clone()) };
        Some(Named { helper, origin }).filter(|named| !named.helper.is_empty())
    }

    /// The login that stands in the file itself.
    pub fn login(&self, registry: &Registry, path: &str) -> Option<Found> {
        let entry = best(&self.logins, registry, path)?;
        let origin = Origin { file: self.name.clone(), entry: format!("auths {:?}", entry.key), helper: None };
        Some(Found { login: entry.value.clone(), origin })
    }
}

/// The entry with the longest beginning of `path`, whole parts only.
fn best<'a, T>(entries: &'a [Entry<T>], registry: &Registry, path: &str) -> Option<&'a Entry<T>> {
    let fits = |entry: &&Entry<T>| {
        let rest = path.strip_prefix(entry.path.as_str());
        entry.registry == *registry
            && (entry.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    entries.iter().filter(fits).max_by_key(|entry| entry.path.len())
}

/// The entry of a key: `host[:port]`, `host/path`, or an address, of which only the host counts.
fn entry<T>(key: &str, value: T) -> Option<Entry<T>> {
    let address = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = address.unwrap_or(key).split_once('/').unwrap_or((address.unwrap_or(key), ""));
    let path = path.trim_matches('/');
    let path = if address.is_some() || path == "v1" || path == "v2" { "" } else { path };
    Some(Entry { key: key.to_owned(), registry: host.parse().ok()?, path: path.to_owned(), value })
}

/// The secret of an entry, where it has one.
fn login(auth: &Value) -> Option<Login> {
    let text = |key: &str| auth.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Some(Login::Bearer { token: Secret::new(token) });
    }
    let encoded = text("auth").and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    let decoded = encoded.and_then(|bytes| String::from_utf8(bytes).ok());
    // docker pads the password with NUL characters.
    let pair = decoded.as_deref().and_then(|text| text.split_once(':')).map(|(u, p)| (u, p.trim_end_matches('\0')));
    let user = text("username").or(pair.map(|(user, _)| user)).unwrap_or_default();
    if let Some(token) = text("identitytoken") {
        return Some(Login::Identity { user: user.to_owned(), token: Secret::new(token) });
    }
    Login::of(user, text("password").or(pair.map(|(_, password)| password))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        AuthFile::from_value("a file".to_owned(), &serde_json::from_str(text).unwrap())
    }

    fn shown(file: &AuthFile, registry: &str, path: &str) -> Option<String> {
        match file.login(&registry.parse().unwrap(), path)?.login {
            Login::Password { user, password } => Some(format!("{user}:{}", password.expose())),
            Login::Identity { user, token } => Some(format!("{user}!{}", token.expose())),
            Login::Bearer { token } => Some(format!("={}", token.expose())),
        }
    }

    #[test]
    fn keys_of_every_form() {
        // a:b, c:d, e:f, and a name without a password
        let file = file(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "YTpi"},
                "r.example:5000": {"auth": "YzpkAAA="},
                "r.example:5000/team": {"auth": "ZTpm"},
                "r.example:5000/team/app": {"username": "g", "password": "h"},
                "azure.example": {"auth": "YTpi", "identitytoken": "refresh"},
                "ready.example": {"auth": "YTpi", "registrytoken": "whole"},
                "docker.example": {"auth": "PHRva2VuPjpyZWZyZXNo"},
                "http://old.example:81/v2/": {"auth": "YTpi"}, "older.example/v1": {"auth": "YTpi"},
                "nobody.example": {"auth": "YTo="}, "nobody.example/a": {},
                "odd.example": {"auth": "!!"}, "bad host": {"auth": "YTpi"}, "none.example": 7,
                "a:b@mail.example": {"auth": "YTpi"}
            }}"#,
        );
        let rows = [
            ("docker.io", "library/nginx", Some("a:b")),
            ("r.example:5000", "other", Some("c:d")),
            ("r.example:5000", "teams/x", Some("c:d")),
            ("r.example:5000", "team/x", Some("e:f")),
            ("r.example:5000", "team", Some("e:f")),
            ("r.example:5000", "team/app", Some("g:h")),
            ("r.example", "team", None),
            ("azure.example", "x", Some("a!refresh")),
            ("ready.example", "x", Some("=whole")),
            ("docker.example", "x", Some("!refresh")),
            ("old.example:81", "x", Some("a:b")),
            ("older.example", "x", Some("a:b")),
            ("nobody.example", "a", None),
            ("odd.example", "x", None),
            ("none.example", "x", None),
            ("mail.example", "x", None),
        ];
        for (registry, path, expected) in rows {
            assert_eq!(shown(&file, registry, path).as_deref(), expected, "{registry}/{path}");
        }
    }

    #[test]
    fn which_helper_keeps_a_login() {
        let file = file(
            r#"{"auths": {"a.example": {}}, "credsStore": "all",
                "credHelpers": {"b.example": "own", "c.example": "", "https://index.docker.io/v1/": "hub", "d.example": 5}}"#,
        );
        let rows = [
            ("a.example", Some(("all", "credsStore"))),
            ("other.example", Some(("all", "credsStore"))),
            ("b.example", Some(("own", r#"credHelpers "b.example""#))),
            ("c.example", None),
            ("docker.io", Some(("hub", r#"credHelpers "https://index.docker.io/v1/""#))),
            ("d.example", Some(("all", "credsStore"))),
        ];
        for (registry, expected) in rows {
            let named = file.helper(&registry.parse().unwrap(), "p");
            let found = named.as_ref().map(|named| (named.helper, named.origin.entry.as_str()));
            assert_eq!(found, expected, "{registry}");
        }
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, required| AuthFile::read(&Candidate { path: folder.path().join(name), required });
        std::fs::write(folder.path().join("config.json"), r#"{"auths": s3cr3t}"#).unwrap();
        let error = read("config.json", false).unwrap_err();
        assert!(error.to_string().contains("config.json") && !error.to_string().contains("s3cr3t"), "{error}");
        std::fs::write(folder.path().join("large"), vec![b' '; FILE_SIZE_MAX as usize + 1]).unwrap();
        assert!(read("large", false).unwrap_err().to_string().contains("more than"));
        assert!(read("none", false).unwrap().is_none());
        assert!(read("none", true).is_err());
    }
}
