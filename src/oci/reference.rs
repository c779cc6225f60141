//! Names: registries, repositories, tags and references, and the name that a repository gets on a target.
//!
//! ```text
//! reference  = repository [ ":" tag ] [ "@" digest ]
//! repository = registry "/" path
//! registry   = host [ ":" port ]         host with a dot or a port, "localhost", or "[" IPv6 "]"
//! path       = part *( "/" part )        part = [a-z0-9]+ *( ( "." / "_" / "__" / 1*"-" ) [a-z0-9]+ )
//! tag        = [A-Za-z0-9_] 0*127[A-Za-z0-9._-]
//! ```
//!
//! The host is always written out. `docker.io` and `index.docker.io` are one identity, and a path of one
//! part there lies below `library/`, as every client has it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;

/// The longest repository path that registries take.
const PATH_LENGTH_MAX: usize = 255;

/// A text that is no name of the kind that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {expected}: {why}")]
pub struct InvalidName {
    text: String,
    expected: &'static str,
    why: String,
}

fn invalid(text: &str, expected: &'static str, why: impl Into<String>) -> InvalidName {
    // A user and a password before a host are not shown: `user:password@host`.
    let shown = match text.rsplit_once('@') {
        Some((before, after)) if before.contains(':') && after.parse::<Digest>().is_err() => format!("…@{after}"),
        _ => text.to_owned(),
    };
    InvalidName { text: shown.chars().take(300).collect(), expected, why: why.into() }
}

/// The host of a registry, with its port where one is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry {
    host: String,
    port: Option<u16>,
}

impl Registry {
    /// The identity of Docker Hub.
    pub const DOCKER_HUB: &'static str = "docker.io";

    /// The host without its port; an IPv6 literal keeps its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where one is named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Docker Hub, under whichever of its names.
    pub fn is_docker_hub(&self) -> bool {
        self.host == Self::DOCKER_HUB && self.port.is_none()
    }

    /// `host[:port]` as it is spoken to: Docker Hub's API lives at another host than its name.
    pub fn endpoint(&self) -> String {
        if self.is_docker_hub() { "registry-1.docker.io".to_owned() } else { self.to_string() }
    }

    /// A loopback address or `localhost`: spoken to in plain HTTP unless configured otherwise.
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Registry {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fail = |why: &str| invalid(text, "registry", why);
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or_else(|| fail("the bracket is not closed"))?;
            let address: Ipv6Addr = address.parse().map_err(|_| fail("between the brackets is no IPv6 address"))?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(fail("after the bracket comes neither a colon nor the end")),
            };
            (format!("[{address}]"), port)
        } else {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (host.to_ascii_lowercase(), port)
        };
        let port = match port {
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(
                port.parse::<u16>()
                    .ok()
                    .filter(|&port| port != 0)
                    .ok_or_else(|| fail("the port is not between 1 and 65535"))?,
            ),
            Some(_) => return Err(fail("the port is no number")),
            None => None,
        };
        if !host.starts_with('[') {
            let legal_label = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            if host.len() > 253 || !host.split('.').all(legal_label) {
                return Err(fail("the host is no domain name or address"));
            }
        }
        let host = match (host.as_str(), port) {
            ("index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com", None | Some(443)) => {
                Self::DOCKER_HUB.to_owned()
            }
            _ => host,
        };
        Ok(Registry { host, port })
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Whether `path` is a legal repository path; the reason where not.
fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    if path.len() > PATH_LENGTH_MAX {
        return Err(format!("the path has {} characters, more than {PATH_LENGTH_MAX}", path.len()));
    }
    match path.split('/').find(|part| !legal_part(part)) {
        Some(part) => Err(format!(
            "the part {part:?} is illegal: lower-case letters and digits, joined by one dot, one or two underscores, or dashes"
        )),
        None => Ok(()),
    }
}

fn legal_part(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .all(|separator| matches!(separator, [] | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

/// A repository on a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: Registry,
    path: String,
}

impl Repository {
    /// A repository from its parts; the path is checked, and completed for Docker Hub.
    pub fn new(registry: Registry, path: &str) -> Result<Self, InvalidName> {
        check_path(path).map_err(|why| invalid(path, "repository path", why))?;
        let path =
            if registry.is_docker_hub() && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        Ok(Repository { registry, path })
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The path on the registry: what `/v2/<path>/…` takes.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path that this repository gets on a target: `PREFIX/SOURCE-HOST/REPOSITORY`. The colon of a
    /// port becomes `_`; an IPv6 literal loses its brackets, and its colons become `-`.
    ///
    /// Over 255 characters, or an illegal part, is an error: silently another name would be worse.
    pub fn target_path(&self, prefix: &str) -> Result<String, InvalidName> {
        let mut host = self.registry.host.trim_start_matches('[').trim_end_matches(']').replace(':', "-");
        if let Some(port) = self.registry.port {
            host = format!("{host}_{port}");
        }
        let path = match prefix {
            "" => format!("{host}/{}", self.path),
            prefix => format!("{prefix}/{host}/{}", self.path),
        };
        check_path(&path).map_err(|why| invalid(&path, "name on the target", why))?;
        Ok(path)
    }
}

impl FromStr for Repository {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fail = |why: &str| invalid(text, "repository", why);
        let (registry, path) = text
            .split_once('/')
            .ok_or_else(|| fail("the host is always written out, for example docker.io/library/nginx"))?;
        let named = registry.contains(['.', ':', '[']) || registry == "localhost";
        if !named {
            return Err(fail("the first part must be a host, for example docker.io/library/nginx"));
        }
        let registry = registry.parse().map_err(|error: InvalidName| fail(&error.why))?;
        Repository::new(registry, path).map_err(|error| fail(&error.why))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag under which referrers of `subject` are listed where the API is missing: the algorithm
    /// cut to 32 characters, the encoded part to 64 (OCI distribution specification, "Referrers Tag
    /// Schema").
    pub fn referrers_fallback(subject: &Digest) -> Self {
        let encoded: String = subject.hex().chars().take(64).collect();
        Tag(format!("{}-{encoded}", subject.algorithm()))
    }

    /// Of what cosign 1 and 2 make tags: signatures, attestations, bills of materials.
    pub const COSIGN_SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

    /// The tag under which cosign 1 and 2 keep signatures (`sig`), attestations (`att`) or bills of
    /// materials (`sbom`) of `subject`.
    pub fn cosign(subject: &Digest, suffix: &'static str) -> Self {
        Tag(format!("{}-{}.{suffix}", subject.algorithm(), subject.hex()))
    }

    /// The subject of which cosign made this tag; `None` for any other tag.
    pub fn cosign_subject(&self) -> Option<Digest> {
        let (name, suffix) = self.0.rsplit_once('.')?;
        let (algorithm, hex) = name.split_once('-')?;
        Self::COSIGN_SUFFIXES.contains(&suffix).then(|| format!("{algorithm}:{hex}").parse().ok()).flatten()
    }

    /// The tag that protects `manifest`, which has no other, from what removes untagged manifests. Always the same for one
    /// manifest; of a longer digest the first 64 characters.
    pub fn keeping(manifest: &Digest) -> Self {
        let encoded: String = manifest.hex().chars().take(64).collect();
        Tag(format!("{KEEPING}{encoded}"))
    }

    /// Whether it is a tag made by [`Tag::keeping`].
    pub fn is_keeping(&self) -> bool {
        self.0.strip_prefix(KEEPING).is_some_and(|rest| rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

/// How tags begin that protect manifests.
const KEEPING: &str = "sealift-keeps-";

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let legal = bytes.len() <= 128
            && bytes.first().is_some_and(|&b| word(b))
            && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-');
        if legal {
            Ok(Tag(text.to_owned()))
        } else {
            Err(invalid(text, "tag", "at most 128 letters, digits, underscores, dots and dashes; no dot or dash first"))
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository with a tag, a digest, or both. With neither it names the repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// The repository.
    pub repository: Repository,
    /// The tag, where one is named.
    pub tag: Option<Tag>,
    /// The digest, where one is named; it wins over the tag.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse::<Digest>().map_err(|e| invalid(text, "reference", e.to_string()))?))
            }
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains(['/', ']']) && repository.contains('/') => {
                (repository, Some(tag.parse()?))
            }
            _ => (name, None),
        };
        Ok(Reference { repository: repository.parse()?, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

macro_rules! as_text {
    ($($name:ident: $description:literal),+ $(,)?) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "description": $description})
            }
        }
    )+};
}

as_text! {
    Registry: "host[:port] of a registry",
    Repository: "host[:port]/path of a repository; the host is always written out",
    Tag: "a tag",
    Reference: "host[:port]/path[:tag][@digest]",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Repository {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn docker_hub_is_one_identity() {
        for text in ["docker.io/nginx", "docker.io/library/nginx", "index.docker.io/library/nginx"] {
            assert_eq!(repository(text).to_string(), "docker.io/library/nginx");
        }
        assert_eq!(repository("docker.io/nginx").registry().endpoint(), "registry-1.docker.io");
    }

    #[test]
    fn names_on_a_target() {
        let rows = [
            ("docker.io/library/nginx", "mirror", "mirror/docker.io/library/nginx"),
            ("127.0.0.1:5001/team/app", "mirror", "mirror/127.0.0.1_5001/team/app"),
            ("[fd00::1]:5000/app", "", "fd00--1_5000/app"),
        ];
        for (source, prefix, name) in rows {
            assert_eq!(repository(source).target_path(prefix).as_deref(), Ok(name));
        }
        assert!(repository("[::1]:5000/app").target_path("").is_err(), "a part may not begin with a dash");
        let long = format!("a.example/{}", "x".repeat(250));
        assert!(repository(&long).target_path("mirror").is_err());
    }

    #[test]
    fn references() {
        let text =
            "localhost:5000/team/app:1.0@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        let untagged: Reference = "localhost:5000/app".parse().unwrap();
        assert_eq!(untagged.tag, None);
        let six: Reference = "[::1]:5000/app".parse().unwrap();
        assert_eq!(six.repository.registry().to_string(), "[::1]:5000");
        assert!(six.repository.registry().is_loopback());
    }

    #[test]
    fn illegal_names_are_refused() {
        for text in [
            "nginx",
            "library/nginx",
            "a.b/",
            "a.b/Nginx",
            "a.b/x//y",
            "a.b/../x",
            "a.b/x_-y",
            "a.b:0/x",
            "a.b:x/y",
            "[::1/x",
            "a..b/x",
            "-a.b/x",
            "a.b/x.",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text:?} was taken");
        }
        for text in ["", ".x", "-x", "a b", "a/b"] {
            assert!(text.parse::<Tag>().is_err(), "{text:?} was taken");
        }
    }
}
