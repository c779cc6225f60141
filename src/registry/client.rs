//! [`Client`]: all registries of one side.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use url::Url;

use super::auth::Authority;
use super::budget::{Budget, Pulls};
use super::credentials::Credentials;
use super::elsewhere::UrlSite;
use super::endpoint::Endpoint;
use super::limits::{self, Lane};
use super::remote::{Door, Remote};
use super::retry::Retry;
use super::transport::{Network, Pool, Transport, is_loopback};
use crate::config::{Config, RegistryConfig, RegistryLimits};
use crate::error::{Context, Error, Result, Side};
use crate::oci::{LayerUrl, Registry, Repository, UrlHost};

/// Speaks to registries. Cheap to clone; all clones share connections, tokens and what was learnt.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    credentials: Credentials,
    side: Side,
    retry: Retry,
    /// How many transfers are to go on at the same time.
    jobs: usize,
    pool: Arc<Pool>,
    /// Over all registries.
    bytes: Arc<limits::Bytes>,
    /// By base address, so that a registry that is also a mirror is known once.
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
    /// Hosts of addresses outside of registries.
    sites: Mutex<HashMap<UrlHost, UrlSite>>,
}

impl Client {
    /// A client for the registries of `side`; nothing is connected to yet.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`](crate::Kind::Usage) for a mirror whose address is not usable: no host, another scheme than
    /// `http` and `https`, a user or password inside, or plain HTTP to a host that is neither a loopback
    /// address nor configured for it; for a file of certificates that cannot be used; and for a proxy variable of the
    /// environment that names no proxy.
    pub fn new(config: &Config, credentials: Credentials, side: Side) -> Result<Client> {
        Self::in_network(config, credentials, side, Network::of_system().on(side)?)
    }

    pub(super) fn in_network(
        config: &Config,
        credentials: Credentials,
        side: Side,
        network: Network,
    ) -> Result<Client> {
        for (registry, one) in &config.registries {
            for mirror in &one.mirrors {
                check_mirror(config, mirror).map_err(|why| {
                    Error::usage(why).while_(format_args!("configure mirrors of {registry}")).on(side)
                })?;
            }
        }
        Ok(Client(Arc::new(Inner {
            config: config.clone(),
            credentials,
            side,
            retry: Retry::default(),
            jobs: 0,
            pool: Arc::new(Pool::new(config, network).on(side)?),
            bytes: Arc::new(limits::Bytes::new(config.limits.clone())),
            endpoints: Mutex::default(),
            sites: Mutex::default(),
        })))
    }

    /// The same client with another policy of trying again. Connections are shared; tokens are fetched anew, and what was
    /// learnt about registries is learnt anew.
    #[must_use]
    pub fn with_retry(&self, retry: Retry) -> Client {
        self.changed(|inner| inner.retry = retry)
    }

    /// The same client for `jobs` transfers at the same time: each registry gets as many requests at once, unless the
    /// configuration says how many. Tokens are fetched anew, and what was learnt about registries is learnt anew.
    #[must_use]
    pub fn with_jobs(&self, jobs: usize) -> Client {
        self.changed(|inner| inner.jobs = jobs)
    }

    fn changed(&self, change: impl FnOnce(&mut Inner)) -> Client {
        let mut inner = Inner {
            config: self.0.config.clone(),
            credentials: self.0.credentials.clone(),
            side: self.0.side,
            retry: self.0.retry,
            jobs: self.0.jobs,
            pool: self.0.pool.clone(),
            bytes: self.0.bytes.clone(),
            endpoints: Mutex::default(),
            sites: Mutex::default(),
        };
        change(&mut inner);
        Client(Arc::new(inner))
    }

    /// What registries that count pulls have said, by name.
    pub fn budgets(&self) -> Vec<Budget> {
        let endpoints = self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut budgets: Vec<Budget> = endpoints.values().filter_map(|endpoint| endpoint.pulls.budget()).collect();
        budgets.sort_by(|one, other| one.registry.cmp(&other.registry));
        budgets
    }

    /// The side whose registries these are.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// A repository. It need not exist.
    pub fn repository(&self, name: &Repository) -> Remote {
        let registry = name.registry();
        let config = self.0.config.registries.get(registry);
        let path: Arc<str> = name.path().into();
        let door = |endpoint, retry| Door { endpoint, path: path.clone(), retry };
        // What a target has is asked of the target itself, never of a cache of it.
        let mirrors = config.filter(|_| self.0.side == Side::Source).map_or(&[][..], |config| &config.mirrors);
        // A mirror is asked once: what helps against its trouble is the registry behind it.
        let mirrors = mirrors.iter().filter_map(|url| Some(door(self.mirror(url)?, self.0.retry.once()))).collect();
        let own = door(self.own(registry, config), self.0.retry);
        Remote::new(name.clone(), self.0.side, mirrors, own)
    }

    /// The registry itself, without its mirrors, for its `path`.
    pub(super) fn door(&self, registry: &Registry, path: &str) -> Door {
        let config = self.0.config.registries.get(registry);
        Door { endpoint: self.own(registry, config), path: path.into(), retry: self.0.retry }
    }

    /// The policy of trying again.
    pub(super) fn retry(&self) -> Retry {
        self.0.retry
    }

    /// How an address outside of registries is asked. Its host is used no more than the registry of that name.
    pub(super) fn elsewhere(&self, address: &LayerUrl) -> (UrlSite, Transport) {
        let transport = Transport::elsewhere(self.0.pool.clone(), &address.url, address.rules.clone());
        let host = UrlHost::of(&address.url);
        let known = host.as_ref().and_then(|host| self.sites().get(host).cloned());
        let site = known.unwrap_or_else(|| {
            let name: Option<Registry> = host.as_ref().and_then(|host| host.to_string().parse().ok());
            let lane = match name {
                Some(name) => self.own(&name, self.0.config.registries.get(&name)).lane.clone(),
                None => Arc::new(Lane::new(&RegistryLimits::default(), self.0.jobs, self.0.bytes.clone())),
            };
            // Nothing is asked there but the address itself.
            UrlSite { lane, health: Arc::default() }
        });
        let site = match host {
            Some(host) => self.sites().entry(host).or_insert(site).clone(),
            None => site,
        };
        (site, transport)
    }

    fn sites(&self) -> MutexGuard<'_, HashMap<UrlHost, UrlSite>> {
        self.0.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who it is on which registry.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    fn own(&self, registry: &Registry, config: Option<&RegistryConfig>) -> Arc<Endpoint> {
        let plain = config.is_some_and(|config| config.plain_http)
            || (registry.is_loopback() && !self.0.pool.has_certificates(registry));
        let scheme = if plain { "http" } else { "https" };
        self.endpoint(format!("{scheme}://{}/", registry.endpoint()), registry.clone(), plain)
    }

    fn mirror(&self, url: &Url) -> Option<Arc<Endpoint>> {
        // Checked when the client was made.
        let registry = mirror_registry(url)?;
        Some(self.endpoint(url.to_string(), registry, url.scheme() == "http"))
    }

    fn endpoint(&self, base: String, registry: Registry, plain: bool) -> Arc<Endpoint> {
        let mut endpoints = self.0.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let made = |base: &String| {
            let limits =
                self.0.config.registries.get(&registry).map(|config| config.limits.clone()).unwrap_or_default();
            let pulls = Pulls::new(registry.clone(), limits.reserve);
            let lane = Lane::new(&limits, self.0.jobs, self.0.bytes.clone());
            let authority = Authority::new(registry, self.0.credentials.clone(), plain);
            let transport = Arc::new(Transport::new(self.0.pool.clone(), base));
            Arc::new(Endpoint::new(base, transport, authority, lane, pulls))
        };
        endpoints.entry(base).or_insert_with_key(made).clone()
    }
}

fn check_mirror(config: &Config, url: &Url) -> Result<(), String> {
    let Some(registry) = mirror_registry(url) else {
        return Err("the address of a mirror must name a host".to_owned());
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("the address of the mirror {registry} must not hold a user or a password"));
    }
    let plain = config.registries.get(&registry).is_some_and(|one| one.plain_http);
    match url.scheme() {
        "https" => Ok(()),
        "http" if plain || is_loopback(url) => Ok(()),
        "http" => {
            Err(format!("the mirror {registry} has no TLS; if that is meant, say plain HTTP for {registry} as well"))
        }
        other => Err(format!("the mirror {registry} has the scheme {other:?}; it must be https or http")),
    }
}

/// The name by which a mirror's credentials are looked up.
fn mirror_registry(url: &Url) -> Option<Registry> {
    let host = url.host_str()?;
    match url.port() {
        Some(port) => format!("{host}:{port}").parse().ok(),
        None => host.parse().ok(),
    }
}
