//! `sealift probe`.

use std::fmt::Write;
use std::path::PathBuf;

use super::progress::Progress;
use super::{ConfigArgument, Output, output};
use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Registry, json};
use crate::target::profile::{Finding, Taken};
use crate::target::{Profile, TakesSparse, probe, scratch};

/// Profiles are read by people and by the connected side.
const MODE: u32 = 0o644;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift probe registry.corp:5000/mirror --out enclave-a.profile.json
  sealift probe registry.corp:5000 --output json

Small documents of random content are pushed to the repository sealift-probe below the prefix, by digest and without a tag,
and deleted where the registry allows it; what stays is named. Carry the profile to the connected side and name it in a
spec as target.profile: plans then say what this registry can take before anything is carried.")]
pub(super) struct ProbeArguments {
    /// The registry, and the prefix of all names on it
    #[arg(value_name = "HOST[:PORT][/PREFIX]")]
    target: String,
    /// Write the profile to this file, too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

pub(super) async fn run(arguments: ProbeArguments, output: Output) -> Result<Option<Kind>> {
    let config = arguments.config.load()?;
    let (registry, prefix) = arguments.target.split_once('/').unwrap_or((&arguments.target, ""));
    let registry: Registry =
        registry.parse().map_err(|error| Error::usage(format!("{}: {error}", arguments.target)))?;
    let place = scratch(&registry, prefix.trim_end_matches('/'))?;
    let client = super::client(&config, Side::Target)?;
    let profile = probe(&client, &place, &Progress::new()).await?;
    if let Some(file) = &arguments.out {
        let bytes = json::canonical(&profile).map_err(|error| Error::failed(error.to_string()))?;
        crate::durable::write_file(file, &bytes, MODE)?;
    }
    output::report(output, &profile, human)?;
    Ok(None)
}

fn human(profile: &Profile) -> String {
    let mut text = format!("{}, tried in {}\n\n", profile.registry, profile.repository);
    let rows = [
        ("sparse indexes", &profile.sparse_index),
        ("the same with stubs", &profile.stubs),
        ("foreign layers", &profile.foreign_layers),
        ("foreign layers, Docker", &profile.docker_foreign_layers),
        ("Docker media types", &profile.docker_media_types),
        ("artifacts", &profile.artifacts),
        ("referrers API", &profile.referrers_api),
        ("mounting blobs", &profile.mounts),
        ("nested names", &profile.nested_names),
        ("deleting manifests", &profile.deletion),
    ];
    for (what, Finding { taken, answer }) in rows {
        let word = match taken {
            Taken::Yes => "yes",
            Taken::No => "no",
            Taken::Unknown => "-",
        };
        let _ = writeln!(text, "  {what:<24}{word:<5}{}", answer.as_deref().unwrap_or_default());
    }
    let _ = writeln!(text, "  {:<24}{}", "manifests up to", output::size(profile.manifest_size));
    let _ = writeln!(text, "\n{}", meaning(profile));
    if !profile.left_behind.is_empty() {
        let _ = writeln!(text, "\nleft behind, because it cannot be deleted:");
        profile.left_behind.iter().for_each(|name| text += &format!("  {name}\n"));
    }
    text
}

/// What the answers mean for who plans.
fn meaning(profile: &Profile) -> &'static str {
    match profile.takes_sparse() {
        TakesSparse::Plainly => "Chosen platforms can be carried: the index is taken as it is.",
        TakesSparse::WithStubs => {
            "Chosen platforms can be carried: the index is taken with stubs beside it. Never run `garbage-collect \
             --delete-untagged` of distribution 2.x there."
        }
        TakesSparse::Not => {
            "An index of which platforms are missing is refused: allow it there (distribution 3: \
             validation.manifests.indexes.platforms: none; Quay: FEATURE_SPARSE_INDEX: true), or carry all platforms \
             (`index: full`, or `target.sparseRefused: full`), a new index (`index: trim`, or `target.sparseRefused: trim`), or \
             one (`index: child`)."
        }
        TakesSparse::Unknown => "Whether chosen platforms can be carried is not known.",
    }
}
