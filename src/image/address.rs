//! [`Address`]: one of the `urls` of a descriptor, as clients ask for it.

use std::fmt;

use crate::oci::Registry;

/// The longest address that is looked at, in bytes. Servers take about 8 KiB of a request's first line.
pub const ADDRESS_MAX: usize = 4096;

/// The longest host name (RFC 1035, 2.3.4).
const HOST_MAX: usize = 253;

/// An `http` or `https` address: what is connected to, and what is asked for there. The path and the query are kept as they
/// were written: clients send them so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    secure: bool,
    host: String,
    port: u16,
    target: String,
}

impl Address {
    /// Reads an address from a manifest; what is wrong with it where no server could answer for it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > ADDRESS_MAX {
            return Err("it is longer than any server takes");
        }
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("it holds control characters");
        }
        let (scheme, rest) = text.split_once("://").ok_or("it is neither http nor https")?;
        let secure = match scheme {
            scheme if scheme.eq_ignore_ascii_case("https") => true,
            scheme if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err("it is neither http nor https"),
        };
        // What stands behind `#` is never sent.
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("it holds a name or a password");
        }
        let (host, port) = split_port(authority).ok_or("its host or port is not legal")?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Address { secure, host, port: port.unwrap_or(if secure { 443 } else { 80 }), target })
    }

    /// Whether it is asked for over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host's name, in small letters, or its IP address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is an IP address: no name leads elsewhere there.
    pub fn is_ip(&self) -> bool {
        self.host.starts_with('[') || self.host.parse::<std::net::IpAddr>().is_ok()
    }

    /// The path and the query, as they were written.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The host as a request names it, see [`host_key`].
    pub fn key(&self) -> String {
        with_port(&self.host, Some(self.port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        let usual = if self.secure { 443 } else { 80 };
        match self.port == usual {
            true => write!(f, "{scheme}://{}{}", self.host, self.target),
            false => write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.target),
        }
    }
}

/// The host that a request names (`Host`, or the authority of its address) in the form of [`Address::key`]; `None` where it is no
/// host. The usual ports 80 and 443 are left out, as clients do: a proxy with TLS may stand between.
pub fn host_key(text: &str) -> Option<String> {
    let (host, port) = split_port(text)?;
    Some(with_port(&host, port))
}

fn with_port(host: &str, port: Option<u16>) -> String {
    match port {
        None | Some(80 | 443) => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    }
}

fn split_port(authority: &str) -> Option<(String, Option<u16>)> {
    // An empty port is the usual one (RFC 3986, 3.2.3).
    let authority = authority.strip_suffix(':').unwrap_or(authority);
    let (host, port) = match authority.rfind(':').filter(|&at| !authority[at..].contains(']')) {
        Some(at) => (&authority[..at], Some(port(&authority[at + 1..])?)),
        None => (authority, None),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    Some((legal_host(host)?, port))
}

/// Digits and nothing else: `u16::from_str` would take a plus sign.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

/// The rule of [`Registry`], without its other names for Docker Hub: letters, digits, `-`, `_` and dots, or an IP address. So a
/// host can stand in files of other programs.
fn legal_host(host: &str) -> Option<String> {
    let legal = host.len() <= HOST_MAX && host.parse::<Registry>().is_ok_and(|parsed| parsed.port().is_none());
    legal.then(|| host.to_ascii_lowercase())
}

/// What a path and query mean: every `%XX` decoded. Clients write one path in several ways (containerd decodes it, and encodes
/// again what it must), and two that mean the same are asked for in one.
pub fn decoded(target: &str) -> Vec<u8> {
    let digit =
        |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let bytes = target.as_bytes();
    let mut meant = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                meant.push(high * 16 + low);
                at += 3;
            }
            _ => {
                meant.push(byte);
                at += 1;
            }
        }
    }
    meant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_would_connect_to_and_ask_for() {
        let rows = [
            ("https://a.example/x/y.tar.gz", "a.example", "/x/y.tar.gz"),
            ("HTTPS://A.Example./x?a=b&c=%20#part", "a.example", "/x?a=b&c=%20"),
            ("https://a.example", "a.example", "/"),
            ("https://a.example?x", "a.example", "/?x"),
            ("https://a.example:443/x", "a.example", "/x"),
            ("http://a.example:80/x", "a.example", "/x"),
            ("https://a.example:/x", "a.example", "/x"),
            ("https://a.example:8443/../%2e%2e//x", "a.example:8443", "/../%2e%2e//x"),
            ("https://[2001:DB8::1]:8443/x", "[2001:db8::1]:8443", "/x"),
            ("https://10.0.0.1/x", "10.0.0.1", "/x"),
            ("https://docker.io/x", "docker.io", "/x"),
            ("https://registry-1.docker.io/x", "registry-1.docker.io", "/x"),
            ("https://a.example/\"';}$ {é", "a.example", "/\"';}$ {é"),
        ];
        for (text, key, target) in rows {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.key().as_str(), address.target()), (key, target), "{text}");
            assert_eq!(Address::parse(&address.to_string()), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_no_server_answers_for() {
        let long = format!("https://a.example/{}", "x".repeat(ADDRESS_MAX));
        let rows = [
            "",
            "a.example/x",
            "ftp://a.example/x",
            "file:///etc/passwd",
            "https:///x",
            "https://user:pw@a.example/x",
            "https://a.example:0/x",
            "https://a.example:99999/x",
            "https://a.example:+1/x",
            "https://a b/x",
            "https://a;b/x",
            "https://a}b/x",
            "https://$host/x",
            "https://a..b/x",
            "https://-a/x",
            "https://ä.example/x",
            "https://[::1/x",
            "https://a.example/x\ny",
            "https://a.example/x\u{0}",
            long.as_str(),
        ];
        for text in rows {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_that_requests_name() {
        let rows = [
            ("A.example", Some("a.example")),
            ("a.example:443", Some("a.example")),
            ("a.example:80", Some("a.example")),
            ("a.example:5000", Some("a.example:5000")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("", None),
            ("a/b", None),
            ("a.example:x", None),
        ];
        for (text, key) in rows {
            assert_eq!(host_key(text).as_deref(), key, "{text}");
        }
    }

    #[test]
    fn what_a_target_means() {
        let rows: [(&str, &[u8]); 6] = [
            ("/a%20b", b"/a b"),
            ("/a%2Fb%2fc", b"/a/b/c"),
            ("/a?b=%3D", b"/a?b=="),
            ("/100%", b"/100%"),
            ("/%zz%2", b"/%zz%2"),
            ("/%ff%00", b"/\xff\x00"),
        ];
        for (target, meant) in rows {
            assert_eq!(decoded(target), meant, "{target}");
        }
    }
}
