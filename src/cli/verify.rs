//! `sealift verify`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::output::{self, count, size};
use super::progress::Progress;
use super::{KeysArgument, Output, StateArgument, deep};
use crate::bundle::{DamageKind, PublicKey, group_folders};
use crate::error::{Error, Kind, Result};
use crate::site::state::State;
use crate::verify::{Depth, LayoutReport, VerifyReport, is_layout, verify_layout, verify_to};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift verify /media/drive/base-images-1-7 --key exporter.pub
  sealift verify /media/one/base-images-1-7 /media/two/base-images-1-7 --key exporter.pub
  sealift verify /media/drive/base-images-1-7 --key exporter.pub --deep
  sealift verify /var/lib/sealift/store --deep

Folders that hold parts of one bundle are taken as one. A store needs no key: nobody signed it. It is known by its
oci-layout, and so is any other OCI image layout. Nothing is written, and no socket is opened.

--deep takes at most 160 MiB of memory beside what the bundle's table of contents takes. What comes out of a layer is hashed
and thrown away.")]
pub(super) struct VerifyArguments {
    /// Folders of bundles: <stream>-<epoch>-<sequence>; or, without a key, of stores
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,
    #[command(flatten)]
    keys: KeysArgument,
    #[command(flatten)]
    state: StateArgument,
    /// Unpack every layer too, and compare what comes out with what the config of its image says
    #[arg(long)]
    deep: bool,
}

/// What `verify --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct VerifyReports {
    /// One for each bundle.
    pub reports: Vec<VerifyReport>,
    /// One for each store.
    pub stores: Vec<LayoutReport>,
}

pub(super) fn run(arguments: &VerifyArguments, output: Output) -> Result<Option<Kind>> {
    let depth = if arguments.deep { Depth::Layers } else { Depth::Bytes };
    // Before anything is read: a key may come through a pipe, which can be read once.
    if arguments.deep {
        deep::bound_memory();
    }
    // Whoever names a key wants to know what it signed; without its bundle.json a folder is no store all at once.
    let (stores, bundles): (Vec<_>, Vec<_>) =
        arguments.bundles.iter().cloned().partition(|folder| arguments.keys.is_empty() && is_layout(folder));
    let keys = if bundles.is_empty() { Vec::new() } else { arguments.keys.load(&[])? };
    let (reports, mut failed) = check(depth, &bundles, &keys, &arguments.state.path());
    let (stores, more) = check_stores(depth, &stores);
    failed.extend(more);
    let reports = VerifyReports { reports, stores };
    output::report(output, &reports, |reports| {
        reports.reports.iter().map(human).chain(reports.stores.iter().map(human_store)).collect()
    })?;
    for error in &failed {
        output::say(&output::describe(error));
    }
    let verdicts = reports.reports.iter().filter_map(VerifyReport::verdict);
    let verdicts = verdicts.chain(reports.stores.iter().filter_map(LayoutReport::verdict));
    Ok(Kind::first_of(verdicts.chain(failed.iter().map(Error::kind))))
}

/// Every bundle is looked at, whatever is wrong with another.
fn check(depth: Depth, bundles: &[PathBuf], keys: &[PublicKey], state: &Path) -> (Vec<VerifyReport>, Vec<Error>) {
    let monitor = Progress::new();
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for folders in group_folders(bundles) {
        match verify_to(depth, &folders, keys, &monitor).and_then(|report| against_state(report, state)) {
            Ok(report) => reports.push(report),
            Err(error) => failed.push(error),
        }
    }
    (reports, failed)
}

fn check_stores(depth: Depth, stores: &[PathBuf]) -> (Vec<LayoutReport>, Vec<Error>) {
    let monitor = Progress::new();
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for folder in stores {
        match verify_layout(depth, folder, &monitor) {
            Ok(report) => reports.push(report),
            Err(error) => failed.push(error),
        }
    }
    (reports, failed)
}

/// A bundle whose number was used for other bytes before is refused here as it is by `replay`.
fn against_state(report: VerifyReport, root: &Path) -> Result<VerifyReport> {
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
    deep::tell(&mut text, report.deep.as_ref());
    let whole = (report.images.len() - broken.len()) as u64;
    let some = format!("{whole} of {} can be replayed", count(report.images.len() as u64, "image"));
    let last = match report.verdict() {
        None => format!("good: {} can be replayed", count(whole, "image")),
        Some(Kind::Missing) => format!("not all is here: {some}. Bring the other drive, and name its folder too"),
        Some(Kind::Verification) if report.damages.is_empty() && report.changed_files.is_empty() => {
            format!("bad: {some}, but {}", deep::NOT_AS_SAID)
        }
        Some(Kind::Verification) => format!(
            "bad: {some}. To mend it, the exporter removes what is damaged and exports to this drive again: only what is missing is written"
        ),
        Some(_) => format!("bad: {some}"),
    };
    let _ = writeln!(text, "{last}");
    text
}

fn human_store(report: &LayoutReport) -> String {
    let mut text = format!(
        "store {}\n  {} checked in {}\n",
        report.folder.display(),
        size(report.bytes),
        count(report.blobs, "blob")
    );
    for blob in &report.damaged {
        let _ = writeln!(text, "damaged: {}\n  {}", blob.file.display(), blob.problem);
    }
    for oddity in &report.oddities {
        let _ = writeln!(text, "odd: {oddity}");
    }
    for image in &report.images {
        let Some(problem) = &image.problem else { continue };
        let name = if image.names.is_empty() { image.root.to_string() } else { image.names.join(", ") };
        let _ = writeln!(text, "not whole: {name}\n  {problem}");
    }
    deep::tell(&mut text, report.deep.as_ref());
    let images = count(report.images.len() as u64, "image");
    let are = if report.images.len() == 1 { "is" } else { "are" };
    let whole = report.images.iter().filter(|image| image.problem.is_none()).count();
    let left_out = match report.left_out {
        0 => String::new(),
        number => format!("; {number} left-out children of indexes are not here, or only their manifests"),
    };
    let _ = match report.verdict() {
        None => {
            writeln!(text, "good: {images} {are} whole{left_out}. No key signed this: it is free of damage, no more")
        }
        Some(Kind::Incomplete) if report.images.is_empty() => {
            writeln!(text, "nothing to check: it names no image. Pull, or look at what the latest pull said")
        }
        Some(Kind::Verification) if report.damaged.is_empty() => {
            writeln!(text, "bad: {whole} of {images} {are} whole, but {}", deep::NOT_AS_SAID)
        }
        Some(_) => writeln!(
            text,
            "bad: {whole} of {images} {are} whole{left_out}. To mend it, remove what is damaged, and pull again"
        ),
    };
    text
}
