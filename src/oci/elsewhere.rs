//! Addresses outside of registries: which `urls` of a descriptor may be fetched, by what the operator named.
//!
//! Whoever made an image chose them, so they are as hostile as any text of a manifest. The rules stand here, without any
//! I/O, so that a plan can say beforehand what a pull will do, and each redirect is held to the same.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// The port that `https` means.
const HTTPS: u16 = 443;

/// The longest address that is looked at. Those that are known have less than 300 characters; signed ones of object
/// stores, to which they redirect, up to about 2000.
pub const URL_LENGTH_MAX: usize = 4096;

/// The longest host name (RFC 1035, section 2.3.4).
const NAME_LENGTH_MAX: usize = 253;

/// How many addresses of one layer are looked at. Real ones have one, of which two spellings at the most.
pub const URLS_MAX: usize = 8;

/// A host of addresses, with its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UrlHost {
    host: Host,
    port: u16,
}

/// A text that is no such host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no host of addresses: {why}")]
pub struct InvalidHost {
    text: String,
    why: &'static str,
}

/// Where blobs may be fetched from that registries do not have: what the operator named, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Elsewhere {
    /// The hosts.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub hosts: Vec<UrlHost>,
    /// Those of them that may have an address of this machine or of a private network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub allow_private: Vec<UrlHost>,
}

/// An address of a blob, and the rules that it and whatever it redirects to is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerUrl {
    /// The address.
    pub url: Url,
    /// The rules.
    pub rules: Arc<Elsewhere>,
}

/// Why an address is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// It cannot be read as one.
    #[error("it is no address")]
    NoAddress,
    /// It is longer than any real one.
    #[error("it has more than {URL_LENGTH_MAX} characters")]
    TooLong,
    /// Its scheme is not `https`.
    #[error("{host}: its scheme is {scheme:?}, and only https is asked")]
    Scheme {
        /// Where it leads.
        host: String,
        /// What it has.
        scheme: String,
    },
    /// It holds a user or a password.
    #[error("{0}: it holds a user or a password")]
    Login(String),
    /// Its host was not named.
    #[error("{0} is not among the `hosts` of foreignLayers")]
    Unnamed(UrlHost),
}

impl UrlHost {
    /// The host of `url`; `None` for an address without one, or with a longer one than there are, or of a scheme whose port
    /// is not known.
    pub fn of(url: &Url) -> Option<Self> {
        let host = url.host().filter(|host| !matches!(host, Host::Domain(name) if name.len() > NAME_LENGTH_MAX))?;
        Some(UrlHost { host: host.to_owned(), port: url.port_or_known_default()? })
    }

    /// Whether it is a loopback address or `localhost`.
    fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        }
    }
}

impl FromStr for UrlHost {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        // A user and a password before a host are not shown.
        let shown = || if text.contains('@') { "…".to_owned() } else { text.chars().take(300).collect() };
        let fail = |why| Err(InvalidHost { text: shown(), why });
        if text.contains("://") || text.contains(['/', '?', '#', '@', '\\']) {
            return fail("write the host alone, or host:port");
        }
        if text.contains('*') {
            return fail("each host is named; patterns are not taken");
        }
        let parsed = Url::parse(&format!("https://{text}/")).ok();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        let Some(url) = parsed.filter(|_| plain && !text.is_empty()) else {
            return fail("it is no domain name or address");
        };
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) if port != 0 => Ok(UrlHost { host: host.to_owned(), port }),
            _ => fail("it is no domain name or address"),
        }
    }
}

impl fmt::Display for UrlHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            HTTPS => write!(f, "{}", self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

impl TryFrom<String> for UrlHost {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        text.parse()
    }
}

impl From<UrlHost> for String {
    fn from(host: UrlHost) -> String {
        host.to_string()
    }
}

impl Elsewhere {
    /// What is against asking `url`, if anything is. Plain HTTP is taken for loopback addresses that were opened.
    pub fn check(&self, url: &Url) -> Result<(), NotAsked> {
        if url.as_str().len() > URL_LENGTH_MAX {
            return Err(NotAsked::TooLong);
        }
        let host = UrlHost::of(url).ok_or(NotAsked::NoAddress)?;
        let plain = url.scheme() == "http" && host.is_loopback() && self.may_be_private(&host);
        if url.scheme() != "https" && !plain {
            return Err(NotAsked::Scheme { host: host.to_string(), scheme: url.scheme().to_owned() });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NotAsked::Login(host.to_string()));
        }
        if !self.hosts.contains(&host) {
            return Err(NotAsked::Unnamed(host));
        }
        Ok(())
    }

    /// Whether `host` may have an address of this machine or of a private network.
    pub fn may_be_private(&self, host: &UrlHost) -> bool {
        self.allow_private.contains(host)
    }

    /// The text of a descriptor as an address that may be asked.
    pub fn address(self: &Arc<Self>, text: &str) -> Result<LayerUrl, NotAsked> {
        if text.len() > URL_LENGTH_MAX {
            return Err(NotAsked::TooLong);
        }
        let mut url = Url::parse(text).map_err(|_| NotAsked::NoAddress)?;
        self.check(&url)?;
        url.set_fragment(None);
        Ok(LayerUrl { url, rules: Arc::clone(self) })
    }

    /// Takes in what `other` names too.
    pub fn merge(&mut self, other: Elsewhere) {
        for host in other.hosts {
            if !self.hosts.contains(&host) {
                self.hosts.push(host);
            }
        }
        for host in other.allow_private {
            if !self.allow_private.contains(&host) {
                self.allow_private.push(host);
            }
        }
    }
}

/// The hosts of `urls`, for people; each once, in their order.
pub fn hosts_of(urls: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for text in urls.iter().take(URLS_MAX).filter(|text| text.len() <= URL_LENGTH_MAX) {
        let host = Url::parse(text).ok().as_ref().and_then(UrlHost::of).map(|host| host.to_string());
        if let Some(host) = host.filter(|host| !hosts.contains(host)) {
            hosts.push(host);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_people_write_them() {
        let rows = [
            ("mcr.microsoft.com", Some("mcr.microsoft.com")),
            ("MCR.Microsoft.com:443", Some("mcr.microsoft.com")),
            ("files.corp:8443", Some("files.corp:8443")),
            ("127.0.0.1:8443", Some("127.0.0.1:8443")),
            ("0x7f.1", Some("127.0.0.1")),
            ("[::1]:8443", Some("[::1]:8443")),
            ("[fd00::1]", Some("[fd00::1]")),
            ("localhost", Some("localhost")),
            ("", None),
            ("*", None),
            ("*.microsoft.com", None),
            ("https://mcr.microsoft.com", None),
            ("mcr.microsoft.com/", None),
            ("mcr.microsoft.com/v2", None),
            ("me:s3cr3t@host.example", None),
            ("host.example:0", None),
            ("host.example:port", None),
            ("host.example:65536", None),
            ("a b", None),
            ("a\tb", None),
            ("host.example?x", None),
            ("host.example\\x", None),
            ("::1", None),
        ];
        for (text, expected) in rows {
            let found = text.parse::<UrlHost>();
            assert_eq!(found.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{text}");
            assert!(!format!("{found:?}").contains("s3cr3t"), "{found:?}");
            if let Ok(host) = found {
                assert_eq!(host.to_string().parse(), Ok(host));
            }
        }
    }

    fn rules() -> Arc<Elsewhere> {
        let hosts = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Elsewhere {
            hosts: hosts(&["a.example", "b.example:8443", "127.0.0.1:80", "127.0.0.1:9", "[::1]:7", "192.0.2.1:80"]),
            allow_private: hosts(&["127.0.0.1:9", "[::1]:7", "192.0.2.1:80"]),
        })
    }

    #[test]
    fn only_named_hosts_by_https_and_without_logins() {
        let scheme = |host: &str, scheme: &str| NotAsked::Scheme { host: host.into(), scheme: scheme.into() };
        let unnamed = |host: &str| NotAsked::Unnamed(host.parse().unwrap());
        let rows = [
            ("https://a.example/x?sig=s3cr3t", Ok(())),
            ("https://A.example:443/x#y", Ok(())),
            ("https://b.example:8443/x", Ok(())),
            ("http://127.0.0.1:9/x", Ok(())),
            ("http://2130706433:9/x", Ok(())),
            ("http://[::1]:7/x", Ok(())),
            ("https://127.0.0.1:9/x", Ok(())),
            // Named, and not opened; opened, and not on this machine.
            ("http://127.0.0.1/x", Err(scheme("127.0.0.1:80", "http"))),
            ("http://192.0.2.1/x", Err(scheme("192.0.2.1:80", "http"))),
            ("http://a.example/x", Err(scheme("a.example:80", "http"))),
            ("ftp://a.example/x", Err(scheme("a.example:21", "ftp"))),
            ("file:///etc/passwd", Err(NotAsked::NoAddress)),
            ("https://b.example/x", Err(unnamed("b.example"))),
            ("https://a.example:444/x", Err(unnamed("a.example:444"))),
            ("https://a.example./x", Err(unnamed("a.example."))),
            ("https://sub.a.example/x", Err(unnamed("sub.a.example"))),
            ("https://evil.example\\@a.example/x", Err(unnamed("evil.example"))),
            ("https://me@a.example/x", Err(NotAsked::Login("a.example".into()))),
            ("https://:s3cr3t@a.example/x", Err(NotAsked::Login("a.example".into()))),
            ("/x", Err(NotAsked::NoAddress)),
            ("", Err(NotAsked::NoAddress)),
            ("https://", Err(NotAsked::NoAddress)),
        ];
        for (text, expected) in rows {
            let found = rules().address(text);
            assert!(!format!("{:?}", found.as_ref().err()).contains("s3cr3t"), "{found:?}");
            assert!(found.as_ref().is_err() || found.as_ref().is_ok_and(|found| found.url.fragment().is_none()));
            assert_eq!(found.map(drop), expected, "{text}");
        }
        let name = format!("https://{}example/x", "a.".repeat(200));
        assert_eq!(rules().address(&name).map(drop), Err(NotAsked::NoAddress));
        let long = format!("https://a.example/{}", "x".repeat(URL_LENGTH_MAX));
        assert_eq!(rules().address(&long).map(drop), Err(NotAsked::TooLong));
    }

    #[test]
    fn hosts_are_named_once_and_nonsense_is_passed_over() {
        let urls = ["https://a.example/1", "https://a.example/2", "nonsense", "https://b.example:8443/x?y"];
        assert_eq!(hosts_of(&urls.map(str::to_owned)), ["a.example", "b.example:8443"]);
    }
}
