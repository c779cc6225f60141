//! The configuration as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// How sealift works on this machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping (apiVersion, kind, store, limits, registries)"
)]
pub struct ConfigFile {
    /// The version of this format: `sealift/v1`.
    #[schemars(extend("const" = "sealift/v1"))]
    pub api_version: String,
    /// The kind of this document: `Config`.
    #[schemars(extend("const" = "Config"))]
    pub kind: String,
    /// The folder of the store; relative to this file. Default: /var/lib/sealift/store.
    pub store: Option<String>,
    /// Limits over all registries together.
    #[serde(default)]
    pub limits: LimitsFile,
    /// How registries are reached, by `host[:port]`.
    #[serde(default)]
    pub registries: BTreeMap<String, RegistryFile>,
}

/// Limits over all registries together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (bandwidth, timezone, windows)")]
pub struct LimitsFile {
    /// How many bytes of blobs go over the line in a second, both ways together: a size such as `50MiB`, or `unlimited`.
    /// Default: unlimited.
    #[schemars(extend("examples" = ["50MiB", "unlimited"]))]
    pub bandwidth: Option<String>,
    /// The time zone of the windows, by its IANA name. Default: UTC.
    #[schemars(extend("examples" = ["Europe/Berlin"]))]
    pub timezone: Option<String>,
    /// Times of day with another bandwidth. The first that holds the moment decides.
    #[serde(default)]
    pub windows: Vec<WindowFile>,
}

/// A time of day with a bandwidth of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (days, from, to, bandwidth)")]
pub struct WindowFile {
    /// The days on which it begins. Default: every day.
    pub days: Option<Vec<DayWord>>,
    /// Its first minute, `HH:MM`.
    #[schemars(extend("examples" = ["07:00"]))]
    pub from: String,
    /// The minute after its last, `HH:MM`; one that is not after `from` is of the next day.
    #[schemars(extend("examples" = ["19:00"]))]
    pub to: String,
    /// How many bytes a second: a size such as `5MiB`, or `unlimited`.
    #[schemars(extend("examples" = ["5MiB", "unlimited"]))]
    pub bandwidth: String,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DayWord {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// How one registry is reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping (mirrors, plainHttp, tls, timeouts, limits)"
)]
pub struct RegistryFile {
    /// Base addresses that are asked before the registry itself, in order.
    #[serde(default)]
    #[schemars(extend("examples" = [["https://mirror.corp"]]))]
    pub mirrors: Vec<String>,
    /// Plain HTTP instead of TLS. Loopback addresses need no word for that. Default: false.
    #[serde(default)]
    pub plain_http: bool,
    /// Whom it is believed, and what sealift shows it.
    #[serde(default)]
    pub tls: TlsFile,
    /// How long it is waited for.
    #[serde(default)]
    pub timeouts: TimeoutsFile,
    /// How much of it is used.
    #[serde(default)]
    pub limits: RegistryLimitsFile,
}

/// Certificates for one registry. Those in the `certs.d` folders of docker, podman and containerd are used as well.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (ca, certificate, key)")]
pub struct TlsFile {
    /// A file of CA certificates (PEM) that are believed beside those of the system; relative to this file.
    pub ca: Option<String>,
    /// A file with the certificate that sealift shows, and those between it and its CA (PEM); relative to this file.
    pub certificate: Option<String>,
    /// The file of its private key (PEM); relative to this file. Needed with `certificate`.
    pub key: Option<String>,
}

/// How long one registry is waited for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (connect, idle)")]
pub struct TimeoutsFile {
    /// For a connection, TLS included. Default: 20s.
    #[schemars(extend("examples" = ["20s"]))]
    pub connect: Option<String>,
    /// For an answer to begin, and for a body to go on. Default: 60s.
    #[schemars(extend("examples" = ["60s"]))]
    pub idle: Option<String>,
}

/// How much of one registry is used.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping (requests, requestsPerSecond, bandwidth, reserve)"
)]
pub struct RegistryLimitsFile {
    /// Requests that are on their way at once, transfers included. Default: 16, and what `--jobs` asks for.
    #[schemars(range(min = 1, max = 256))]
    pub requests: Option<u32>,
    /// Requests that begin in a second. Default: no limit.
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second: Option<u32>,
    /// How many bytes of blobs a second, both ways together: a size such as `50MiB`, or `unlimited`. Default: unlimited.
    #[schemars(extend("examples" = ["50MiB"]))]
    pub bandwidth: Option<String>,
    /// Where the registry counts pulls (`ratelimit-remaining`): how many are left for others. Default: 0.
    pub reserve: Option<u64>,
}
