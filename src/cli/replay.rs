//! `sealift replay`.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::output::{self, count, one_line, size};
use super::progress::Progress;
use super::{ConfigArgument, KeysArgument, Output, StateArgument};
use crate::bundle::{BundleReader, group_folders};
use crate::content::Limits;
use crate::error::{Error, Kind, Result, Side};
use crate::image::ForeignDecision;
use crate::oci::{Registry, Repository};
use crate::replay::{Destination, ReplayReport, ReplayedForeign, ReplayedImage, SignatureCount, in_order, replay};
use crate::site::state::State;
use crate::site::{Site, Stubs};
use crate::target::{Known, Rung};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift replay /media/drive/base-images-1-7 --to registry.corp:5000/mirror --key exporter.pub
  sealift replay /media/drive/* --site enclave-a.yaml

Images appear one by one, each tag last. A tag that a newer bundle has set is not moved back. After an interruption the
same command goes on.")]
pub(super) struct ReplayArguments {
    /// Folders of bundles: <stream>-<epoch>-<sequence>
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    /// The registry, and the prefix of all names on it
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]", required_unless_present = "site")]
    to: Option<String>,
    /// The site: registry, names and keys from a file
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    site: Option<PathBuf>,
    #[command(flatten)]
    keys: KeysArgument,
    #[command(flatten)]
    state: StateArgument,
    /// Let tags be moved back to what an older bundle says
    #[arg(long, requires = "reason")]
    allow_rollback: bool,
    /// Why tags may be moved back
    #[arg(long, value_name = "TEXT", requires = "allow_rollback", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Blobs to push at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().concurrent_blobs, value_parser = super::parse_jobs)]
    jobs: usize,
    #[command(flatten)]
    config: ConfigArgument,
}

/// What `replay --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct ReplayReports {
    /// One for each bundle.
    pub reports: Vec<ReplayReport>,
}

pub(super) async fn run(arguments: ReplayArguments, output: Output) -> Result<Option<Kind>> {
    let config = arguments.config.load()?;
    let site = site(&arguments)?;
    let keys = arguments.keys.load(&site.keys)?;
    let mut failed = Vec::new();
    let mut readers = Vec::new();
    for folders in group_folders(&arguments.bundles) {
        match BundleReader::open(&folders, &keys) {
            Ok(reader) => readers.push(reader),
            Err(error) => failed.push(error),
        }
    }
    let destination = Destination {
        client: super::client(&config, Side::Target)?.with_jobs(arguments.jobs),
        known: Known::default(),
        stubs: site.stubs == Stubs::Allow,
        tag_children: site.tag_children,
        rollback: arguments.reason.filter(|_| arguments.allow_rollback),
        limits: Limits { concurrent_blobs: arguments.jobs, keep_going: false },
        name: Box::new(move |source| {
            let path = site.target_path(source).map_err(|error| Error::usage(error.to_string()))?;
            Repository::new(site.registry.clone(), &path).map_err(|error| Error::usage(error.to_string()))
        }),
    };
    let (root, monitor) = (arguments.state.path(), Progress::new());
    let mut reports = Vec::new();
    for reader in in_order(readers) {
        let replayed = async {
            let mut state = State::lock(&root, &reader.contents().stream, &reader.key().id())?;
            replay(&reader, &destination, &mut state, &monitor).await
        };
        match replayed.await {
            Ok(report) => reports.push(report),
            Err(error) => failed.push(error),
        }
    }
    let reports = ReplayReports { reports };
    output::report(output, &reports, |reports| reports.reports.iter().map(human).collect())?;
    for error in &failed {
        output::say(&output::describe(error));
    }
    let verdicts = reports.reports.iter().filter_map(ReplayReport::verdict);
    Ok(Kind::first_of(verdicts.chain(failed.iter().map(Error::kind))))
}

/// The site of a file, or one made of `--to`.
fn site(arguments: &ReplayArguments) -> Result<Site> {
    if let Some(file) = &arguments.site {
        return Ok(crate::site::load(file)?);
    }
    let to = arguments.to.as_deref().unwrap_or_default();
    if to.contains('@') {
        // Not quoted: what stands before it is a password, or a part of one.
        return Err(Error::usage("--to: there is an @ in it, as after a user and a password")
            .help("HOST[:PORT][/PREFIX]; log in with `docker login` or `podman login`, whose files are read. Change the password, if it is a real one"));
    }
    let (registry, prefix) = to.split_once('/').unwrap_or((to, ""));
    let registry: Registry = registry.parse().map_err(|error| Error::usage(format!("--to: {error}")))?;
    let prefix = prefix.trim_end_matches('/').to_owned();
    if !prefix.is_empty() {
        Repository::new(registry.clone(), &prefix).map_err(|error| Error::usage(format!("--to: {error}")))?;
    }
    Ok(Site {
        name: registry.to_string(),
        registry,
        prefix,
        rewrite: Vec::new(),
        keys: Vec::new(),
        stubs: Stubs::Allow,
        tag_children: false,
    })
}

fn human(report: &ReplayReport) -> String {
    let published = report.images.iter().filter(|image| image.problem.is_none()).count() as u64;
    let mut text = format!(
        "bundle {}: {} of {} published\n",
        report.bundle,
        published,
        count(report.images.len() as u64, "image")
    );
    if let Some(reason) = &report.rollback {
        let _ = writeln!(text, "  tags were allowed to move back: {reason}");
    }
    for image in &report.images {
        image_rows(&mut text, image);
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn foreign_row(text: &mut String, layer: &ReplayedForeign) {
    let decision = match (layer.decision, layer.unavailable) {
        (ForeignDecision::Include, _) => "is here",
        (ForeignDecision::Skip, false) => "stays where its urls say",
        (ForeignDecision::Skip, true) => "was to come along, and could not be had",
    };
    let hosts = if layer.hosts.is_empty() { "no url".to_owned() } else { layer.hosts.join(", ") };
    let _ = write!(text, "    foreign layer {} ({}, {hosts}) {decision}", layer.digest.short(), size(layer.size));
    match &layer.acknowledge {
        Some(why) => _ = writeln!(text, "; acknowledged: {}", one_line(why)),
        None => text.push('\n'),
    }
}

fn image_rows(text: &mut String, image: &ReplayedImage) {
    let word = if image.problem.is_none() { "published" } else { "NOT published" };
    let _ = writeln!(text, "  {word}: {}@{}", image.target, image.root);
    let tags: Vec<&str> = image.tags.iter().map(|tag| tag.as_str()).collect();
    if !tags.is_empty() {
        let _ = writeln!(text, "    tags: {}", tags.join(" "));
    }
    for tag in &image.tags_kept {
        let _ = writeln!(text, "    tag {tag} stays where a newer bundle has put it");
    }
    match image.rung {
        Some(Rung::Put) => text.push_str("    the index is sparse, and was taken as it is\n"),
        Some(Rung::Stubs) => text.push_str("    the index is sparse, and was taken with stubs beside it\n"),
        None => {}
    }
    let SignatureCount { expected, present } = image.signatures;
    if expected > 0 {
        let _ = writeln!(text, "    signatures: expected {expected}, present {present}");
    }
    for layer in &image.foreign {
        foreign_row(text, layer);
    }
    for shortfall in &image.shortfalls {
        let _ = writeln!(text, "    shortfall: {shortfall}");
    }
    if let Some(problem) = &image.problem {
        let _ = writeln!(text, "    {}", problem.text);
        if let Some(help) = &problem.help {
            let _ = writeln!(text, "    help: {help}");
        }
    }
}
