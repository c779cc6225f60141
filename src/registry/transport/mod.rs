//! Connections: one request, one answer, with time-outs; no redirects, no authorisation, no second attempt.
//!
//! A [`Pool`] has the HTTP clients of all registries: one for each distinct way of connecting, made when it is first
//! needed. A [`Transport`] is the pool as one base address may use it: it knows which hosts the operator named, and where
//! a registry must not send requests to ([`addresses`]). Every request goes through it, so nothing has to be checked by
//! those who follow redirects, locations and realms.

mod addresses;
mod body;
mod certificates;
mod pool;
mod proxies;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Request, Response};
use url::{Host, Url};

use self::addresses::Reach;
pub(super) use self::body::{encoding_of, next_piece, read_body};
use self::pool::{Class, Route};
pub(super) use self::pool::{Network, Pool};
#[cfg(test)]
pub(super) use self::proxies::Proxies;
use self::proxies::Proxy;
use self::trouble::Way;
use super::retry::Trouble;
use crate::config::Timeouts;
use crate::error::{Error, Kind, Result};
use crate::oci::{Elsewhere, Registry, UrlHost};

/// How an address that an image named may be one of this machine or of a private network.
const OPENED: &str =
    "if this is a server of your own, name it in foreignLayers.allowPrivate of the spec, with its port";

/// The pool as one base address may use it.
pub(super) struct Transport {
    pool: Arc<Pool>,
    /// `None` for what no URL can be made of; nothing is asked then.
    base: Option<Url>,
    /// The rules for addresses that an image named.
    elsewhere: Option<Arc<Elsewhere>>,
}

impl Transport {
    /// The pool for `base`, the address of a registry or mirror that the operator named.
    pub fn new(pool: Arc<Pool>, base: &str) -> Self {
        Transport { pool, base: Url::parse(base).ok(), elsewhere: None }
    }

    /// The pool for addresses that an image named, within `rules`; `first` is the one that is asked first.
    pub fn elsewhere(pool: Arc<Pool>, first: &Url, rules: Arc<Elsewhere>) -> Self {
        Transport { pool, base: Some(first.clone()), elsewhere: Some(rules) }
    }

    /// Sends `request` and waits for the head of its answer, as long as its host may stand still.
    pub async fn send(&self, request: Request) -> Result<Response, Trouble> {
        let route = self.route(request.url())?;
        let idle = route.way.idle;
        match tokio::time::timeout(idle, self.execute_on(&route, request)).await {
            Ok(sent) => sent,
            Err(_) => Err(route.way.too_late(idle)),
        }
    }

    /// Sends `request`, however long that takes: for bodies that are watched on their way.
    pub async fn execute(&self, request: Request) -> Result<Response, Trouble> {
        let route = self.route(request.url())?;
        self.execute_on(&route, request).await
    }

    async fn execute_on(&self, route: &Route, request: Request) -> Result<Response, Trouble> {
        let sent = self.pool.client(route)?.execute(request).await;
        let mut response = sent.map_err(|error| route.way.trouble(error))?;
        if route.way.proxy.is_some() && response.status().as_u16() == 407 {
            return Err(route.way.no_login_at_proxy().into());
        }
        // For whoever reads the body.
        response.extensions_mut().insert(route.way.clone());
        Ok(response)
    }

    fn route(&self, url: &Url) -> Result<Route> {
        let names = names_of(url);
        let reach = self.reach(url, &names);
        let Timeouts { connect, idle } = self.pool.timeouts(&names);
        let secure = url.scheme() == "https";
        let certificates = if secure { self.pool.certificates(&names)? } else { Arc::default() };
        // Loopback addresses are spoken to directly, whatever proxies the environment names.
        let proxy = if is_loopback(url) { None } else { self.pool.network.proxies.before(url) };
        let host = host_of(url);
        let way = Way {
            key: names.first().map_or_else(|| host.clone(), ToString::to_string),
            home: self.base.as_ref().map_or_else(|| host.clone(), host_of),
            host,
            shows: certificates.identity.is_some() && reach.shows_identity(),
            named_by_image: self.elsewhere.is_some(),
            connect,
            idle,
            proxy,
        };
        reach.check(url).map_err(|forbidden| way.forbidden(&forbidden))?;
        let literal = matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_)));
        if let (Some(_), true, Reach::Public) = (&way.proxy, literal, reach) {
            // What lies behind a proxy is not seen from here, and no name was named that stands for it.
            let what = format!("{} is an address and no name, and behind a proxy: refused", way.host);
            return Err(Error::new(Kind::Refused, what).help(OPENED));
        }
        if let (Some(proxy), true, Some(Host::Ipv6(_))) = (&way.proxy, secure, url.host()) {
            // The HTTP client takes the brackets for a part of the name then.
            let what =
                format!("{} cannot be reached with TLS through the proxy {proxy}: it is an IPv6 address", way.host);
            return Err(Error::usage(what).help("use its name, or name the address in NO_PROXY"));
        }
        let own = names.into_iter().next().filter(|_| !certificates.is_empty());
        let proxy = way.proxy.as_ref().map(Proxy::to_string);
        Ok(Route { class: Class { secure, reach, connect, proxy, own }, certificates, way })
    }

    /// Who named the host of `url`: the operator, as this registry or in the configuration, or the registry.
    fn reach(&self, url: &Url, names: &[Registry]) -> Reach {
        let home = |base: &Url| {
            base.host_str() == url.host_str() && base.port_or_known_default() == url.port_or_known_default()
        };
        if let Some(rules) = &self.elsewhere {
            let opened = UrlHost::of(url).is_some_and(|host| rules.may_be_private(&host));
            return if opened { Reach::Opened } else { Reach::Public };
        }
        match &self.base {
            Some(base) if home(base) => Reach::Anywhere,
            _ if self.pool.configured(names).is_some() => Reach::Anywhere,
            Some(base) if addresses::names_this_machine(base) => Reach::Here,
            _ => Reach::Outside,
        }
    }
}

pub(super) fn too_late(host: &str, limit: Duration) -> Trouble {
    let error = Error::failed(format!("nothing came for {} s", limit.as_secs())).while_(format_args!("talk to {host}"));
    Trouble::passing(error.help(format!("check {host} and the network in between, then run the same command again")))
}

/// `host[:port]` of an address, for people. Never its query.
pub(super) fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "(no host)".to_owned(),
    }
}

/// What the host of `url` may be called in the configuration and in folders: as people write it, then with the port that
/// its scheme means.
fn names_of(url: &Url) -> Vec<Registry> {
    let with_port = url.port_or_known_default().filter(|_| url.port().is_none());
    let with_port = with_port.map(|port| format!("{}:{port}", host_of(url)));
    [Some(host_of(url)), with_port].into_iter().flatten().filter_map(|name| name.parse().ok()).collect()
}

/// A loopback address or `localhost`.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
