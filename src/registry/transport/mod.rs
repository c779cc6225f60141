//! Connections: one request, one answer, with time-outs; no redirects, no authorisation, no second attempt.
//!
//! A [`Pool`] has the HTTP clients of all registries: one for each distinct way of connecting, made when it is first
//! needed. A [`Transport`] is the pool as one base address may use it: it knows which hosts the operator named, and where
//! a registry must not send requests to ([`addresses`]). Every request goes through it, so nothing has to be checked by
//! those who follow redirects, locations and realms.

mod addresses;
mod certificates;
mod proxies;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::Resolve;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Request, Response, redirect};
use url::{Host, Url};

use self::addresses::{Reach, SystemResolver};
use self::certificates::Certificates;
pub(super) use self::proxies::Proxies;
use self::proxies::Proxy;
use self::trouble::{Way, innermost};
use super::retry::Trouble;
use crate::config::{Config, Timeouts};
use crate::error::{Context, Error, Result};
use crate::oci::Registry;

/// The longest pause in a body that a test waits for.
const TEST_STALL_MAX: Duration = Duration::from_secs(2);

/// How long an unused connection is kept: less than the 60 s after which common proxies close theirs.
const KEPT_TIMEOUT: Duration = Duration::from_secs(50);

/// For how many hosts it is remembered which certificates lie in folders: some kilobytes each, and looked up again at the
/// cost of a few file names.
const HOSTS_MAX: usize = 1_000;

/// How sealift names itself.
const USER_AGENT: &str = concat!("sealift/", env!("CARGO_PKG_VERSION"));

/// What lies outside of the process.
pub(super) struct Network {
    pub resolver: Arc<dyn Resolve>,
    pub proxies: Proxies,
    /// Folders in the layout of docker's `certs.d`.
    pub certificates: Vec<PathBuf>,
}

/// The HTTP clients of all registries.
pub(super) struct Pool {
    network: Network,
    /// What the configuration says, with its certificates read.
    hosts: BTreeMap<Registry, (Timeouts, Certificates)>,
    /// Certificates of hosts that were connected to, from the configuration and from folders.
    certificates: Mutex<HashMap<Registry, Arc<Certificates>>>,
    clients: Mutex<HashMap<Kind, reqwest::Client>>,
}

/// What makes two ways of connecting different.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// A client with TLS cannot be made on a machine without CA certificates; plain HTTP must work there
    /// nevertheless (loopback registries, embedded ones), so it has clients of its own that know no certificate.
    secure: bool,
    reach: Reach,
    connect: Duration,
    proxy: Option<String>,
    /// The host, where it has certificates of its own.
    own: Option<Registry>,
}

/// The pool as one base address may use it.
pub(super) struct Transport {
    pool: Arc<Pool>,
    /// `None` for what no URL can be made of; nothing is asked then.
    base: Option<Url>,
}

/// How to connect to one address.
struct Route {
    kind: Kind,
    certificates: Arc<Certificates>,
    way: Way,
}

impl Network {
    /// That of this machine.
    pub fn of_system() -> Result<Self> {
        Ok(Network {
            resolver: Arc::new(SystemResolver),
            proxies: Proxies::from_environment()?,
            certificates: certificates::folders_of_system(),
        })
    }
}

impl Pool {
    /// Reads the certificates that `config` names; what lies in folders is read when a host is connected to.
    pub fn new(config: &Config, network: Network) -> Result<Self> {
        let read = |(name, one): (&Registry, &crate::config::RegistryConfig)| {
            let certificates = Certificates::configured(&one.tls).while_(|| format!("configure TLS of {name}"))?;
            Ok((name.clone(), (one.timeouts, certificates)))
        };
        let hosts = config.registries.iter().map(read).collect::<Result<_>>()?;
        Ok(Pool { network, hosts, certificates: Mutex::default(), clients: Mutex::default() })
    }

    /// Whether there are certificates for `registry` alone, or a file that was meant for one.
    pub fn has_certificates(&self, registry: &Registry) -> bool {
        let Ok(url) = Url::parse(&format!("https://{}/", registry.endpoint())) else { return false };
        self.certificates(&names_of(&url)).map_or(true, |found| !found.is_empty())
    }

    fn timeouts(&self, names: &[Registry]) -> Timeouts {
        self.configured(names).map(|(timeouts, _)| *timeouts).unwrap_or_default()
    }

    fn configured(&self, names: &[Registry]) -> Option<&(Timeouts, Certificates)> {
        names.iter().find_map(|name| self.hosts.get(name))
    }

    /// The certificates for a host, by its names.
    fn certificates(&self, names: &[Registry]) -> Result<Arc<Certificates>> {
        let Some(name) = names.first() else { return Ok(Arc::default()) };
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(name) {
            return Ok(found.clone());
        }
        let configured = self.configured(names).map(|(_, certificates)| certificates.clone()).unwrap_or_default();
        let found = Arc::new(configured.and_found(&self.network.certificates, names)?);
        if known.len() >= HOSTS_MAX {
            known.clear();
        }
        Ok(known.entry(name.clone()).or_insert(found).clone())
    }

    fn client(&self, route: &Route) -> Result<reqwest::Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&route.kind) {
            return Ok(client.clone());
        }
        let client = self.build(route)?;
        Ok(clients.entry(route.kind.clone()).or_insert(client).clone())
    }

    fn build(&self, route: &Route) -> Result<reqwest::Client> {
        let Route { kind, certificates, way } = route;
        // Registries compress nothing that was asked for like this; some proxies compress everything that was not.
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        // HTTP/1.1 only: measured, one HTTP/2 stream over a long line is many times slower. Nothing is
        // decompressed: digest and length are of the bytes as they travel. No read time-out of the client: it
        // would also end uploads, whose answer comes last.
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(kind.connect)
            .pool_idle_timeout(KEPT_TIMEOUT)
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .no_proxy();
        // A proxy asks for addresses itself, and its own is the operator's affair.
        builder = match &way.proxy {
            Some(proxy) => builder.proxy(proxy.for_client().map_err(|_| {
                Error::usage(format!("{proxy} is no address of a proxy"))
                    .help("mend HTTPS_PROXY, HTTP_PROXY or ALL_PROXY")
            })?),
            None => builder.dns_resolver(kind.reach.guard(self.network.resolver.clone())),
        };
        builder = match kind.secure {
            true => builder.tls_certs_merge(certificates.authorities.iter().cloned()),
            false => builder.tls_certs_only([]),
        };
        if let Some(identity) = certificates.identity.as_ref().filter(|_| kind.secure) {
            builder = builder.identity(identity.clone());
        }
        builder.build().map_err(|error| {
            Error::failed(format!("no TLS client can be made: {}", innermost(&error)))
                .help("install the CA certificates of the system (package ca-certificates), or name a file of them in SSL_CERT_FILE")
        })
    }
}

impl Transport {
    /// The pool for `base`, the address of a registry or mirror that the operator named.
    pub fn new(pool: Arc<Pool>, base: &str) -> Self {
        Transport { pool, base: Url::parse(base).ok() }
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
            shows: certificates.identity.is_some(),
            connect,
            idle,
            proxy,
        };
        reach.check(url).map_err(|forbidden| way.forbidden(&forbidden))?;
        if let (Some(proxy), true, Some(Host::Ipv6(_))) = (&way.proxy, secure, url.host()) {
            // The HTTP client takes the brackets for a part of the name then.
            let what =
                format!("{} cannot be reached with TLS through the proxy {proxy}: it is an IPv6 address", way.host);
            return Err(Error::usage(what).help("use its name, or name the address in NO_PROXY"));
        }
        let own = names.into_iter().next().filter(|_| !certificates.is_empty());
        let proxy = way.proxy.as_ref().map(Proxy::to_string);
        Ok(Route { kind: Kind { secure, reach, connect, proxy, own }, certificates, way })
    }

    /// Who named the host of `url`: the operator, as this registry or in the configuration, or the registry.
    fn reach(&self, url: &Url, names: &[Registry]) -> Reach {
        let home = |base: &Url| {
            base.host_str() == url.host_str() && base.port_or_known_default() == url.port_or_known_default()
        };
        match &self.base {
            Some(base) if home(base) => Reach::Anywhere,
            _ if self.pool.configured(names).is_some() => Reach::Anywhere,
            Some(base) if addresses::names_this_machine(base) => Reach::Here,
            _ => Reach::Outside,
        }
    }
}

/// The next piece of an answer's body; `None` at its end.
pub(super) async fn next_piece(response: &mut Response) -> Result<Option<Bytes>, Trouble> {
    let way = way_of(response);
    let idle = if cfg!(test) { way.idle.min(TEST_STALL_MAX) } else { way.idle };
    match tokio::time::timeout(idle, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(way.trouble(error)),
        Err(_) => Err(way.too_late(idle)),
    }
}

/// The way an answer came; made up where it came past a [`Transport`].
fn way_of(response: &Response) -> Way {
    let made_up = || {
        let (host, Timeouts { connect, idle }) = (host_of(response.url()), Timeouts::default());
        Way { key: host.clone(), home: host.clone(), host, proxy: None, shows: false, connect, idle }
    };
    response.extensions().get::<Way>().cloned().unwrap_or_else(made_up)
}

/// The whole body of an answer; `None` when it has more than `limit` bytes.
pub(super) async fn read_body(response: &mut Response, limit: usize) -> Result<Option<Bytes>, Trouble> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Ok(None);
    }
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(response).await? {
        if whole.len() + piece.len() > limit {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole.freeze()))
}

/// What to say of bytes that are not as they should be: that they came with an encoding, which nobody asked for and
/// nobody takes away. Empty where they did not.
pub(super) fn encoding_of(headers: &HeaderMap) -> String {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::to_str) {
        None => String::new(),
        Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("identity") => String::new(),
        Some(Ok(encoding)) if encoding.len() <= 20 => {
            format!(" (it came with the Content-Encoding {encoding:?}, which was not asked for)")
        }
        Some(_) => " (it came with a Content-Encoding, which was not asked for)".to_owned(),
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
