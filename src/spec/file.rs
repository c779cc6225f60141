//! The mirror spec as written. Plain maps and words only: positions get lost in cleverer enums.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::yaml::NotHonoured;

/// What to mirror from which registries, and how. One file is one stream of bundles.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (apiVersion, kind, name, images, …)")]
pub struct SpecFile {
    /// The version of this format: `sealift/v1`.
    #[schemars(extend("const" = "sealift/v1"))]
    pub api_version: String,
    /// The kind of this document: `MirrorSpec`.
    #[schemars(extend("const" = "MirrorSpec"))]
    pub kind: String,
    /// The name of the stream of bundles: 1 to 63 lower-case letters, digits and dashes.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,63}$"))]
    pub name: String,
    /// When to run. Left out: only by hand. Schedules are checked, and take effect with the daemon.
    pub schedule: Option<ScheduleFile>,
    /// What images that do not say otherwise get.
    #[serde(default)]
    pub defaults: DefaultsFile,
    /// What to mirror.
    #[schemars(length(min = 1))]
    pub images: Vec<ImageFile>,
    /// Where bundles go, and how they are cut.
    #[serde(default)]
    pub export: ExportFile,
    /// What is known about the far side.
    #[serde(default)]
    pub target: TargetFile,
}

/// When to run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (cron, timezone, jitter, catchUp)")]
pub struct ScheduleFile {
    /// Minute, hour, day of the month, month, day of the week: the rules of crontab(5).
    #[schemars(extend("examples" = ["15 2 * * 1-5"]))]
    pub cron: String,
    /// An IANA time zone. Default: UTC.
    #[schemars(extend("examples" = ["Europe/Berlin"]))]
    pub timezone: Option<String>,
    /// A random delay up to this, below 24 hours. Default: none.
    #[schemars(extend("examples" = ["10m"]))]
    pub jitter: Option<String>,
    /// Whether one run is made at start where at least one was missed. Default: true.
    pub catch_up: Option<bool>,
}

/// What images that do not say otherwise get.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping (platforms, missingPlatform, index, foreignLayers, signatures)"
)]
pub struct DefaultsFile {
    /// The platforms to keep: `os/arch[/variant][:os.version][+os.feature]`, * allowed in each part; or all.
    #[schemars(length(min = 1))]
    pub platforms: Option<Vec<String>>,
    /// When an image has none of a selected platform. Default: fail.
    pub missing_platform: Option<MissingPlatformWord>,
    /// What becomes of an index of which only some children are kept. Default: sparse.
    pub index: Option<IndexWord>,
    /// What becomes of foreign layers.
    pub foreign_layers: Option<ForeignLayersFile>,
    /// What becomes of signatures.
    pub signatures: Option<SignaturesFile>,
}

/// Images of one repository.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (source, and tags or digest)")]
pub struct ImageFile {
    /// The repository; its host is always written out.
    #[schemars(extend("examples" = ["docker.io/library/nginx"]))]
    pub source: String,
    /// Which tags. Either this, or `digest` and `tag`.
    pub tags: Option<TagsFile>,
    /// The one image with this digest. Needs `tag`.
    #[schemars(regex(pattern = "^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$"))]
    pub digest: Option<String>,
    /// The tag that the image of `digest` gets on the target.
    pub tag: Option<String>,
    /// The platforms to keep; replaces those of `defaults`.
    #[schemars(length(min = 1))]
    pub platforms: Option<Vec<String>>,
    /// When an image has none of a selected platform. Default: that of `defaults`.
    pub missing_platform: Option<MissingPlatformWord>,
    /// What becomes of an index of which only some children are kept. Default: that of `defaults`.
    pub index: Option<IndexWord>,
    /// What becomes of foreign layers. What is left out comes from `defaults`.
    pub foreign_layers: Option<ForeignLayersFile>,
    /// What becomes of signatures. What is left out comes from `defaults`.
    pub signatures: Option<SignaturesFile>,
}

/// Which tags of a repository.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping (exact, semver, variants, glob, newest, exclude)"
)]
pub struct TagsFile {
    /// Tags that are always taken.
    #[serde(default)]
    pub exact: Vec<String>,
    /// A range of versions, on the version part of the tag: 1.27.3-alpine is version 1.27.3, variant alpine.
    #[schemars(extend("examples" = [">=1.26, <2"]))]
    pub semver: Option<String>,
    /// Which variants `semver` takes; "" is the plain one. Default: only the plain one.
    pub variants: Option<Vec<String>>,
    /// Patterns: `*`, `?`, `[a-z]`, `{a,b}`.
    #[serde(default)]
    pub glob: Vec<String>,
    /// Of what semver and glob take, only so many versions, the highest, within each variant.
    #[schemars(range(min = 1))]
    pub newest: Option<u32>,
    /// Patterns of what semver and glob do not take.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// When an image has none of a selected platform.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MissingPlatformWord {
    /// The image is not complete, and the exit status says so.
    Fail,
    /// The other platforms are taken.
    Skip,
}

/// What becomes of an index of which only some children are kept.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IndexWord {
    /// The index stays byte for byte, with its digest and signatures; left-out children are not carried.
    Sparse,
    /// All children are carried.
    Full,
    /// A new index is made without the left-out children; a witness shows what was signed.
    Trim,
    /// The one selected child is carried instead of the index.
    Child,
}

/// What becomes of foreign layers, and from where layers may be fetched that a registry does not have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping (policy, hosts, acknowledge, allowPrivate)"
)]
pub struct ForeignLayersFile {
    /// Default: skip.
    pub policy: Option<ForeignWord>,
    /// The hosts, `host` or `host:port`, from which the `urls` of layers may be fetched where the registry does not have
    /// them; redirects included. Default: none.
    #[schemars(extend("examples" = [["mcr.microsoft.com"]]))]
    pub hosts: Option<Vec<String>>,
    /// The licence text or ticket that allows it; it goes into plans, records, bundles and reports. Needed with include and
    /// require.
    #[schemars(extend("examples" = ["ticket LEGAL-1742"]))]
    pub acknowledge: Option<String>,
    /// Which of the hosts may have addresses of this machine or of a private network. Default: none.
    pub allow_private: Option<Vec<String>>,
}

/// What becomes of foreign layers.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ForeignWord {
    /// They stay where their urls point; manifests are unchanged.
    Skip,
    /// They come along: from the registry, or from their urls. What cannot be had stays behind, and the run is incomplete.
    Include,
    /// The same, and an image fails without them.
    Require,
}

/// What becomes of signatures and other referrers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (carry, recheck)")]
pub struct SignaturesFile {
    /// Which are carried. Default: all.
    pub carry: Option<CarryWord>,
    /// After how long the signatures of a known digest are looked up again. Default: 24h.
    #[schemars(extend("examples" = ["24h"]))]
    pub recheck: Option<String>,
    /// Not honoured by this version.
    #[serde(default)]
    #[schemars(with = "NotHonoured")]
    pub verify: Option<NotHonoured>,
    /// Not honoured by this version.
    #[serde(default)]
    #[schemars(with = "NotHonoured")]
    pub policies: Option<NotHonoured>,
}

/// Which signatures are carried.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CarryWord {
    /// Every signature, attestation and other referrer.
    All,
    /// None.
    None,
}

/// Where bundles go, and how they are cut.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (to, volumeSize, baseline)")]
pub struct ExportFile {
    /// The folder for bundles; relative to this file. Default: named on the command line.
    pub to: Option<String>,
    /// The largest volume, at least 64 KiB. 4095MiB fits on FAT32.
    #[schemars(extend("examples" = ["4095MiB", "64GiB"]))]
    pub volume_size: Option<String>,
    /// What an export need not carry.
    pub baseline: Option<BaselineFile>,
}

/// What an export need not carry because a site has it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (from)")]
pub struct BaselineFile {
    /// The name of the site. Not honoured by this version.
    #[serde(default)]
    #[schemars(with = "NotHonoured")]
    pub site: Option<NotHonoured>,
    /// Default: none.
    pub from: Option<BaselineWord>,
}

/// What an export need not carry because a site has it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BaselineWord {
    /// Every bundle is whole in itself.
    None,
    /// Not honoured by this version.
    Acknowledged,
    /// Not honoured by this version.
    Drive,
}

/// What is known about the far side.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping (profile, sparseRefused)")]
pub struct TargetFile {
    /// The file that `sealift probe` wrote on the far side; relative to this file. Default: nothing is known, and stubs are
    /// carried.
    #[schemars(extend("examples" = ["enclave-a.profile.json"]))]
    pub profile: Option<String>,
    /// When the target takes neither sparse indexes nor stubs, as its profile says. Default: fail.
    pub sparse_refused: Option<SparseRefusedWord>,
}

/// When the target takes neither sparse indexes nor stubs.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SparseRefusedWord {
    /// That image fails.
    Fail,
    /// All its platforms are taken.
    Full,
    /// Its index is trimmed, as `index: trim` does.
    Trim,
}
