//! [`Pool`]: the HTTP clients of all registries, and the certificates and time-outs of single hosts.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::Resolve;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect;
use url::Url;

use super::addresses::{Reach, SystemResolver};
use super::certificates::{self, Certificates};
use super::names_of;
use super::proxies::Proxies;
use super::trouble::{Way, innermost};
use crate::config::{Config, Timeouts};
use crate::error::{Context, Error, Result};
use crate::oci::Registry;

/// How long an unused connection is kept: less than the 60 s after which common proxies close theirs.
const KEPT_TIMEOUT: Duration = Duration::from_secs(50);

/// For how many hosts it is remembered which certificates lie in folders: some kilobytes each, and looked up again at the
/// cost of a few file names.
const HOSTS_MAX: usize = 1_000;

/// How sealift names itself.
const USER_AGENT: &str = concat!("sealift/", env!("CARGO_PKG_VERSION"));

/// What lies outside of the process.
pub(in crate::registry) struct Network {
    pub resolver: Arc<dyn Resolve>,
    pub proxies: Proxies,
    /// Folders in the layout of docker's `certs.d`.
    pub certificates: Vec<PathBuf>,
}

/// The HTTP clients of all registries.
pub(in crate::registry) struct Pool {
    pub(super) network: Network,
    /// What the configuration says, with its certificates read.
    hosts: BTreeMap<Registry, (Timeouts, Certificates)>,
    /// Certificates of hosts that were connected to, from the configuration and from folders.
    certificates: Mutex<HashMap<Registry, Arc<Certificates>>>,
    clients: Mutex<HashMap<Class, reqwest::Client>>,
}

/// What makes two ways of connecting different.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// A client with TLS cannot be made on a machine without CA certificates; plain HTTP must work there
    /// nevertheless (loopback registries, embedded ones), so it has clients of its own that know no certificate.
    pub secure: bool,
    pub reach: Reach,
    pub connect: Duration,
    pub proxy: Option<String>,
    /// The host, where it has certificates of its own.
    pub own: Option<Registry>,
}

/// How to connect to one address.
pub(super) struct Route {
    pub class: Class,
    pub certificates: Arc<Certificates>,
    pub way: Way,
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

    pub(super) fn timeouts(&self, names: &[Registry]) -> Timeouts {
        self.configured(names).map(|(timeouts, _)| *timeouts).unwrap_or_default()
    }

    pub(super) fn configured(&self, names: &[Registry]) -> Option<&(Timeouts, Certificates)> {
        names.iter().find_map(|name| self.hosts.get(name))
    }

    /// The certificates for a host, by its names.
    pub(super) fn certificates(&self, names: &[Registry]) -> Result<Arc<Certificates>> {
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

    pub(super) fn client(&self, route: &Route) -> Result<reqwest::Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&route.class) {
            return Ok(client.clone());
        }
        let client = self.build(route)?;
        Ok(clients.entry(route.class.clone()).or_insert(client).clone())
    }

    fn build(&self, route: &Route) -> Result<reqwest::Client> {
        let Route { class, certificates, way } = route;
        // Registries compress nothing that was asked for like this; some proxies compress everything that was not.
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        // HTTP/1.1 only: measured, one HTTP/2 stream over a long line is many times slower. Nothing is
        // decompressed: digest and length are of the bytes as they travel. No read time-out of the client: it
        // would also end uploads, whose answer comes last.
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(class.connect)
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
            None => builder.dns_resolver(class.reach.guard(self.network.resolver.clone())),
        };
        builder = match class.secure {
            true => builder.tls_certs_merge(certificates.authorities.iter().cloned()),
            false => builder.tls_certs_only([]),
        };
        if let Some(identity) = certificates.identity.as_ref().filter(|_| class.secure && class.reach.shows_identity())
        {
            builder = builder.identity(identity.clone());
        }
        builder.build().map_err(|error| {
            Error::failed(format!("no TLS client can be made: {}", innermost(&error)))
                .help("install the CA certificates of the system (package ca-certificates), or name a file of them in SSL_CERT_FILE")
        })
    }
}
