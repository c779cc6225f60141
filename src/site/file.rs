//! The site as written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::yaml::NotHonoured;

/// The far side: its registry, the names there, and whose bundles are accepted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (apiVersion, kind, name, registry, …)")]
pub struct SiteFile {
    /// The version of this format: `sealift/v1`.
    #[schemars(extend("const" = "sealift/v1"))]
    pub api_version: String,
    /// The kind of this document: `Site`.
    #[schemars(extend("const" = "Site"))]
    pub kind: String,
    /// The name of the site: 1 to 63 lower-case letters, digits and dashes.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,63}$"))]
    pub name: String,
    /// The registry: `host[:port]`.
    #[schemars(extend("examples" = ["registry.corp:5000"]))]
    pub registry: String,
    /// What every name on the registry begins with. Default: nothing.
    #[schemars(extend("examples" = ["mirror"]))]
    pub prefix: Option<String>,
    /// How source names become names on the registry; the first that matches wins. Default: the source's
    /// host stays in the name.
    #[serde(default)]
    pub rewrite: Vec<RewriteFile>,
    /// Files of the public keys whose bundles are accepted, relative to this file.
    #[schemars(length(min = 1))]
    pub keys: Vec<String>,
    /// How many keys must have signed: 1.
    #[schemars(extend("const" = 1))]
    pub threshold: Option<u32>,
    /// Whether left-out children may be uploaded as stubs where the registry refuses a sparse index.
    /// Default: allow.
    pub stubs: Option<StubsWord>,
    /// Whether kept children and referrers get tags too, `sealift-keeps-…`, for registries that remove untagged manifests.
    /// Default: false.
    pub tag_children: Option<bool>,
    /// Image policies of this side. Not honoured by this version.
    #[serde(default)]
    #[schemars(with = "NotHonoured")]
    pub trust: Option<NotHonoured>,
}

/// One rule for names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (from, to)")]
pub struct RewriteFile {
    /// A source repository, or host/path/* for everything below.
    #[schemars(extend("examples" = ["docker.io/library/*"]))]
    pub from: String,
    /// The name below the prefix; with * at its end exactly where `from` has it.
    #[schemars(extend("examples" = ["hub/*"]))]
    pub to: String,
}

/// Whether left-out children may be uploaded as stubs.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StubsWord {
    /// They may.
    Allow,
    /// They may not.
    Never,
}
