//! Proxies: which one stands between here and an address, by the environment.

use std::fmt;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use url::Url;

use crate::error::{Error, Result};

/// Variables that hold the address of a proxy.
const VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// The proxies of this machine.
pub(in crate::registry) struct Proxies(Matcher);

/// One of them. Shown, it is its host and port: user and password are for the proxy alone.
#[derive(Clone)]
pub(super) struct Proxy(Intercept);

impl Proxies {
    /// Those that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name, in capitals or not.
    ///
    /// A value that names none is an error: to connect directly instead is not what was wanted.
    pub fn from_environment() -> Result<Self> {
        for variable in VARIABLES {
            let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { continue };
            check(variable, value.to_str().unwrap_or_default())?;
        }
        Ok(Proxies(Matcher::from_env()))
    }

    /// None at all.
    #[cfg(test)]
    pub fn none() -> Self {
        Proxies(Matcher::builder().build())
    }

    /// One for all addresses but those of `except`.
    #[cfg(test)]
    pub fn all(address: &str, except: &str) -> Self {
        Proxies(Matcher::builder().all(address.to_owned()).no(except.to_owned()).build())
    }

    /// The one before `url`. What lies behind the host of an address makes no difference.
    pub(super) fn before(&self, url: &Url) -> Option<Proxy> {
        let base = format!("{}://{}/", url.scheme(), super::host_of(url));
        self.0.intercept(&base.parse().ok()?).map(Proxy)
    }
}

fn check(variable: &str, value: &str) -> Result<()> {
    let taken = |value: &str| {
        let matcher = Matcher::builder().all(value.to_owned()).build();
        "http://a.example/".parse().is_ok_and(|uri| matcher.intercept(&uri).is_some())
    };
    match taken(value) {
        true => Ok(()),
        // The value is not shown: it may hold a password.
        false => Err(Error::usage(format!("{variable} is no address of a proxy"))
            .help("write it as http://HOST:PORT, with http://USER:PASSWORD@HOST:PORT where the proxy wants a login; percent-encode what is special in an address")),
    }
}

impl Proxy {
    /// As the HTTP client wants it.
    pub fn for_client(&self) -> reqwest::Result<reqwest::Proxy> {
        let proxy = reqwest::Proxy::all(self.0.uri().to_string())?;
        Ok(match (self.0.basic_auth(), self.0.raw_auth()) {
            (Some(header), _) => proxy.custom_http_auth(header.clone()),
            (None, Some((user, password))) => proxy.basic_auth(user, password),
            (None, None) => proxy,
        })
    }

    /// Whether there is a user and a password to show it.
    pub fn has_login(&self) -> bool {
        self.0.basic_auth().is_some() || self.0.raw_auth().is_some()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The matcher took the user away.
        f.write_str(self.0.uri().authority().map_or("(no host)", |authority| authority.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_login() {
        let proxies = Proxies::all("http://me:s3cr3t@proxy.corp:3128", "near.corp, 10.0.0.0/8, [fd00::1]");
        let before = |url: &str| proxies.before(&url.parse().unwrap());
        let proxy = before("https://r.example:5000/v2/?x=1").unwrap();
        assert_eq!(proxy.to_string(), "proxy.corp:3128");
        assert!(proxy.has_login());
        assert!(!format!("{:?}", proxy.for_client().unwrap()).contains("s3cr3t"));
        for url in ["https://near.corp/", "http://a.near.corp:80/", "https://10.1.2.3/"] {
            assert!(before(url).is_none(), "{url}");
        }
        assert!(before("https://[fd00::2]:5000/").is_some());
        assert!(Proxies::none().before(&"https://r.example/".parse().unwrap()).is_none());
    }

    #[test]
    fn what_is_no_address_of_a_proxy_is_not_passed_over() {
        for value in ["http://proxy:3128", "proxy.corp:3128", "socks5h://me:pw@proxy:1080", "https://proxy"] {
            assert!(check("HTTPS_PROXY", value).is_ok(), "{value}");
        }
        for value in ["http://me:s3cr et@proxy:3128", "ftp://s3cret@proxy", "http://"] {
            let error = check("HTTPS_PROXY", value).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Usage);
            assert!(!format!("{error:?}").contains("s3c"), "{error:?}");
        }
    }
}
