//! The configuration: how registries are reached. `ConfigFile` as written, [`Config`] as meant.

use std::collections::BTreeMap;

use url::Url;

use crate::oci::Registry;

/// The configuration as meant.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What differs from the defaults, by registry identity (`docker.io` for Docker Hub).
    pub registries: BTreeMap<Registry, RegistryConfig>,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Base addresses that are asked before the registry itself, in order; the paths of repositories stay.
    pub mirrors: Vec<Url>,
    /// Plain HTTP instead of TLS, for a host that is no loopback address.
    pub plain_http: bool,
}
