//! What went wrong with a connection, in one sentence, with what to configure; never with a URL.

use std::error::Error as StdError;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::addresses::Forbidden;
use super::proxies::Proxy;
use crate::error::{Error, Kind};
use crate::registry::retry::Trouble;

/// How many names of a certificate are shown.
const NAMES_MAX: usize = 5;

/// How much of each: the longest host name (RFC 1035, section 2.3.4).
const NAME_LENGTH_MAX: usize = 253;

/// The way to one host, as far as people need to know it.
#[derive(Clone)]
pub(super) struct Way {
    /// `host[:port]` of the address.
    pub host: String,
    /// What the host is called under `registries` in the configuration.
    pub key: String,
    /// The registry on whose behalf it is asked.
    pub home: String,
    pub proxy: Option<Proxy>,
    /// Whether a client certificate is there to be shown.
    pub shows: bool,
    pub connect: Duration,
    pub idle: Duration,
}

impl Way {
    /// What `error` means. It may pass, unless it is about certificates, about what is forbidden or about the request itself.
    pub fn trouble(&self, error: reqwest::Error) -> Trouble {
        let error = error.without_url();
        if let Some(forbidden) = find::<Forbidden>(&error) {
            return self.forbidden(forbidden).into();
        }
        if let Some(found) = find::<rustls::Error>(&error).and_then(|tls| self.tls(tls)) {
            return self.placed("connect to", found).into();
        }
        let text = innermost(&error);
        if self.proxy.is_some() && text.contains("proxy authorization required") {
            return self.no_login_at_proxy().into();
        }
        let slow = error.is_connect() && error.is_timeout();
        let text = if slow { format!("no connection after {} s", self.connect.as_secs()) } else { text };
        let what = if error.is_connect() { "connect to" } else { "talk to" };
        let made = self.placed(what, Error::failed(text));
        if error.is_builder() {
            return made.into();
        }
        Trouble::passing(made.help(match &self.proxy {
            Some(proxy) => format!(
                "check that the proxy {proxy} is up and lets {} through, or name that in NO_PROXY; then run the same command again",
                self.host
            ),
            None => format!(
                "check that {} is up and can be reached from here, then run the same command again",
                self.host
            ),
        }))
    }

    /// Nothing came for a time.
    pub fn too_late(&self, limit: Duration) -> Trouble {
        let error = self.placed("talk to", Error::failed(format!("nothing came for {} s", limit.as_secs())));
        let help = format!("check {} and the network in between, then run the same command again", self.host);
        Trouble::passing(error.help(help))
    }

    /// It came, but at a pace that leads nowhere.
    pub fn too_slow(&self, waited: Duration, brought: u64) -> Trouble {
        let error = Error::failed(format!("only {brought} bytes came in {} s", waited.as_secs()));
        let help = format!("check {} and the network in between, then run the same command again", self.host);
        Trouble::passing(self.placed("talk to", error).help(help))
    }

    /// The registry sends sealift to where it may not.
    pub fn forbidden(&self, forbidden: &Forbidden) -> Error {
        let Forbidden { special, .. } = forbidden;
        let what = format!("{} sends requests to {}, {special}: refused", self.home, self.host);
        Error::new(Kind::Refused, what).help(format!(
            "a registry elsewhere has no business there; if that is meant, name {} under `registries` in the configuration",
            self.host
        ))
    }

    /// The proxy answered 407.
    pub fn no_login_at_proxy(&self) -> Error {
        let (proxy, login) = match &self.proxy {
            Some(proxy) => (proxy.to_string(), proxy.has_login()),
            None => ("before it".to_owned(), false),
        };
        let what = match login {
            true => format!("the proxy {proxy} refuses the user or the password in its address"),
            false => format!("the proxy {proxy} wants a user and a password"),
        };
        let error = Error::new(Kind::Refused, what).while_(format_args!("connect to {}", self.host));
        error
            .help("put them into the address of the proxy, percent-encoded: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT")
    }

    fn placed(&self, what: &str, error: Error) -> Error {
        let host = &self.host;
        match &self.proxy {
            Some(proxy) => error.while_(format_args!("{what} {host} through the proxy {proxy}")),
            None => error.while_(format_args!("{what} {host}")),
        }
    }

    /// Trouble of TLS that stays; `None` for what may pass.
    fn tls(&self, error: &rustls::Error) -> Option<Error> {
        use rustls::Error as E;
        match error {
            E::InvalidCertificate(why) => Some(self.certificate(why)),
            E::AlertReceived(alert) => Some(self.alert(*alert)),
            // What TLS says when the other side answers in plain text.
            E::InvalidMessage(InvalidMessage::InvalidContentType) => Some(Error::failed("it speaks no TLS").help(
                format!("say `registries.\"{}\".plainHttp: true` in the configuration if that is meant", self.key),
            )),
            E::PeerIncompatible(why) => Some(
                Error::failed(format!("its TLS is too old or too strange: {why:?}"))
                    .help(format!("{} has to speak TLS 1.2 or 1.3", self.host)),
            ),
            _ => None,
        }
    }

    fn certificate(&self, why: &CertificateError) -> Error {
        use CertificateError as C;
        let key = &self.key;
        match why {
            // A bad signature is what a CA has that was made anew under its old name.
            C::UnknownIssuer | C::BadSignature => Error::failed("its certificate is not trusted: its CA is not known here").help(format!(
                "name the CA in `registries.\"{key}\".tls.ca` of the configuration, put it into a certs.d folder, or install it in the system"
            )),
            C::Expired | C::ExpiredContext { .. } => Error::failed("its certificate has expired")
                .help("have it renewed; if it is good, this machine's clock is wrong"),
            C::NotValidYet | C::NotValidYetContext { .. } => Error::failed("its certificate is not valid yet")
                .help("check this machine's clock, then that of the CA"),
            C::NotValidForName => self.other_names(&[]),
            C::NotValidForNameContext { presented, .. } => self.other_names(presented),
            other => Error::failed(format!("its certificate is not good: {other}"))
                .help(format!("have another one issued for {}", self.host)),
        }
    }

    fn other_names(&self, presented: &[String]) -> Error {
        let shown: Vec<String> = presented.iter().take(NAMES_MAX).map(|name| bare(name)).collect();
        let names = match shown.is_empty() {
            true => "its certificate is for other names".to_owned(),
            false => format!("its certificate is for other names: {}", shown.join(", ")),
        };
        Error::failed(names).help(format!(
            "write the registry by a name that is in its certificate (subjectAltName), or have one issued for {}",
            self.host
        ))
    }

    /// The other side ended the handshake, and says why.
    fn alert(&self, alert: AlertDescription) -> Error {
        use AlertDescription as A;
        let key = &self.key;
        let about_ours = matches!(
            alert,
            A::CertificateRequired
                | A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::UnknownCA
                | A::AccessDenied
        );
        match (about_ours, self.shows) {
            (true, false) => Error::failed("it wants a client certificate").help(format!(
                "name one in `registries.\"{key}\".tls.certificate` of the configuration, and its key in `tls.key`"
            )),
            (true, true) => Error::failed(format!("it does not take the client certificate ({alert:?})")).help(format!(
                "see `registries.\"{key}\".tls.certificate` of the configuration: whether it has expired, and whether its CA is the one that is wanted there"
            )),
            (false, _) => Error::failed(format!("it ended the TLS handshake ({alert:?})"))
                .help(format!("see the log of {}: whether it knows that name, and which versions of TLS it speaks", self.host)),
        }
    }
}

/// A name of a certificate as people write it; rustls says `DnsName("a.example")` and `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"').chars().filter(|c| c.is_ascii_graphic()).take(NAME_LENGTH_MAX).collect()
}

/// The first error of type `T` among the causes of `error`.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // An I/O error passes over the error in it when it is asked for its source.
        let within = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = within.and_then(|within| find(within)) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// The cause at the bottom: the layers above only say that there is one.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
