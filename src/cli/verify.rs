//! `sealift verify`.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::output::{self, count, size};
use super::progress::Progress;
use super::{KeysArgument, Output, StateArgument};
use crate::bundle::{DamageKind, group_folders};
use crate::error::{Error, Kind, Result};
use crate::site::state::State;
use crate::verify::{VerifyReport, verify};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift verify /media/drive/base-images-1-7 --key exporter.pub
  sealift verify /media/one/base-images-1-7 /media/two/base-images-1-7 --key exporter.pub

Folders that hold parts of one bundle are taken as one. Nothing is written, and no socket is opened.")]
pub(super) struct VerifyArguments {
    /// Folders of bundles: <stream>-<epoch>-<sequence>
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    #[command(flatten)]
    keys: KeysArgument,
    #[command(flatten)]
    state: StateArgument,
}

/// What `verify --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct VerifyReports {
    /// One for each bundle.
    pub reports: Vec<VerifyReport>,
}

pub(super) fn run(arguments: &VerifyArguments, output: Output) -> Result<Option<Kind>> {
    let keys = arguments.keys.load(&[])?;
    let (reports, failed) = check(&arguments.bundles, &keys, &arguments.state.path());
    let reports = VerifyReports { reports };
    output::report(output, &reports, |reports| reports.reports.iter().map(human).collect())?;
    for error in &failed {
        output::say(&output::describe(error));
    }
    let verdicts = reports.reports.iter().filter_map(VerifyReport::verdict);
    Ok(Kind::first_of(verdicts.chain(failed.iter().map(Error::kind))))
}

/// Every bundle is looked at, whatever is wrong with another.
fn check(
    bundles: &[PathBuf],
    keys: &[crate::bundle::PublicKey],
    state: &std::path::Path,
) -> (Vec<VerifyReport>, Vec<Error>) {
    let monitor = Progress::new();
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for folders in group_folders(bundles) {
        match verify(&folders, keys, &monitor).and_then(|report| against_state(report, state)) {
            Ok(report) => reports.push(report),
            Err(error) => failed.push(error),
        }
    }
    (reports, failed)
}

/// A bundle whose number was used for other bytes before is refused here as it is by `replay`.
fn against_state(report: VerifyReport, root: &std::path::Path) -> Result<VerifyReport> {
    if let Ok(name) = report.bundle.parse::<crate::image::BundleName>() {
        State::open(root, &name.stream, &report.key)?.check(&name, &report.digest)?;
    }
    Ok(report)
}

fn human(report: &VerifyReport) -> String {
    let mut text = format!(
        "bundle {} of {}, signed by {}\n  {} checked in {}\n",
        report.bundle,
        report.created,
        report.key.short(),
        size(report.bytes),
        count(report.volumes.iter().filter(|volume| volume.present).count() as u64, "volume"),
    );
    for volume in report.volumes.iter().filter(|volume| !volume.present) {
        let _ = writeln!(text, "missing: {} ({})", volume.name, size(volume.size));
    }
    for damage in &report.damages {
        let how = match &damage.kind {
            DamageKind::Changed => "its bytes are not what was signed".to_owned(),
            DamageKind::Unreadable(why) => format!("it cannot be read: {why}"),
        };
        let _ = writeln!(
            text,
            "damaged: {}, bytes {} to {} (16 MiB piece {} of blob {}): {how}\n  {}",
            damage.volume,
            damage.offset,
            damage.offset + damage.length,
            damage.piece,
            damage.blob.short(),
            damage.file.display(),
        );
    }
    for file in &report.changed_files {
        let _ = writeln!(text, "damaged: {file} is missing or not what was signed; a replay does not need it");
    }
    for oddity in &report.oddities {
        let _ = writeln!(text, "odd: {oddity}");
    }
    let broken: Vec<_> = report.images.iter().filter_map(|image| Some((image, image.problem.as_ref()?))).collect();
    for (image, problem) in &broken {
        let _ = writeln!(text, "not whole: {}@{}\n  {problem}", image.repository, image.root.short());
    }
    let whole = (report.images.len() - broken.len()) as u64;
    let some = format!("{whole} of {} can be replayed", count(report.images.len() as u64, "image"));
    let last = match report.verdict() {
        None => format!("good: {} can be replayed", count(whole, "image")),
        Some(Kind::Missing) => format!("not all is here: {some}. Bring the other drive, and name its folder too"),
        Some(Kind::Verification) => format!(
            "bad: {some}. To mend it, the exporter removes what is damaged and exports to this drive again: only what is missing is written"
        ),
        Some(_) => format!("bad: {some}"),
    };
    let _ = writeln!(text, "{last}");
    text
}
