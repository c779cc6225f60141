//! From the spec as written to the spec as meant: everything but the images.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::file::{BaselineWord, ExportFile, ScheduleFile, SparseRefusedWord, SpecFile, TargetFile};
use super::{Baseline, ExportSpec, KIND, MirrorSpec, Schedule, SparseRefused, TargetSpec, image};
use crate::yaml::{At, Diagnostics, Document, Fault};

/// The smallest volume: below it, the headers of a tar file outweigh what it holds.
const VOLUME_SIZE_MIN: u64 = 64 * 1024;

/// The longest jitter. A longer one would move a daily run to another day.
const JITTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The spec that `document` means.
pub(super) fn spec(document: &Document) -> Result<MirrorSpec, Diagnostics> {
    let file: SpecFile = document.deserialize(KIND)?;
    document.check(|at| {
        let name = at.key("name").parsed(&file.name);
        let schedule = match &file.schedule {
            Some(written) => schedule(at.key("schedule"), written).map(Some),
            None => Some(None),
        };
        let images = image::images(at, &file);
        let export = export(at.key("export"), &file.export);
        let target = target(at.key("target"), &file.target);
        let notes = notes(at, &file);
        Some(MirrorSpec {
            name: name?,
            file: document.file().to_owned(),
            schedule: schedule?,
            images: images?,
            export: export?,
            target,
            notes,
        })
    })
}

/// Reports a stream that another file makes already.
pub(super) fn only_stream(at: At<'_>, spec: &MirrorSpec, others: &[MirrorSpec]) {
    if let Some(other) = others.iter().find(|other| other.name == spec.name) {
        let fault = Fault::new(format!("the stream `{}` is also in {}", spec.name, other.file.display()));
        at.key("name").wrong(fault.expected("another name: each stream comes from one file"));
    }
}

fn notes(at: At<'_>, file: &SpecFile) -> Vec<String> {
    let schedule = file.schedule.as_ref().map(|_| {
        let place = at.key("schedule").place();
        format!(
            "{place}: the schedule is well-formed; schedules take effect with the daemon, which this version does not \
             have: run this spec by hand or from a timer"
        )
    });
    schedule.into_iter().collect()
}

fn schedule(at: At<'_>, file: &ScheduleFile) -> Option<Schedule> {
    let cron = at.key("cron").parsed(&file.cron);
    let timezone = match &file.timezone {
        Some(name) => at.key("timezone").timezone(name),
        None => Some(TimeZone::UTC),
    };
    let jitter = match &file.jitter {
        Some(text) => at.key("jitter").duration(text),
        None => Some(Duration::ZERO),
    };
    if jitter.is_some_and(|jitter| jitter >= JITTER_MAX) {
        at.key("jitter").wrong(Fault::new("the jitter is too long").expected("less than 24 hours"));
    }
    Some(Schedule { cron: cron?, timezone: timezone?, jitter: jitter?, catch_up: file.catch_up.unwrap_or(true) })
}

fn export(at: At<'_>, file: &ExportFile) -> Option<ExportSpec> {
    let to = match &file.to {
        Some(text) => at.key("to").path(text, "a folder").map(Some),
        None => Some(None),
    };
    let volume_size = match &file.volume_size {
        Some(text) => volume_size(at.key("volumeSize"), text).map(Some),
        None => Some(None),
    };
    if let Some(written) = &file.baseline {
        let at = at.key("baseline");
        let instead = "`from: none`, or leave baseline out: every bundle is whole in itself";
        match written.from {
            None | Some(BaselineWord::None) => {}
            Some(BaselineWord::Acknowledged) => at.key("from").not_honoured("baseline from acknowledged", instead),
            Some(BaselineWord::Drive) => at.key("from").not_honoured("baseline from drive", instead),
        }
        if written.site.is_some() {
            at.key("site").not_honoured("baseline of a site", instead);
        }
    }
    Some(ExportSpec { to: to?, volume_size: volume_size?, baseline: Baseline::None })
}

fn volume_size(at: At<'_>, text: &str) -> Option<u64> {
    let size = at.size(text)?;
    if size < VOLUME_SIZE_MIN {
        at.wrong(Fault::new(format!("a volume of {size} bytes is too small")).expected("64KiB or more"));
        return None;
    }
    Some(size)
}

fn target(at: At<'_>, file: &TargetFile) -> TargetSpec {
    let profile =
        file.profile.as_ref().and_then(|text| at.key("profile").path(text, "a file that `sealift probe` wrote"));
    let sparse_refused = match file.sparse_refused {
        None | Some(SparseRefusedWord::Fail) => SparseRefused::Fail,
        Some(SparseRefusedWord::Full) => SparseRefused::Full,
        Some(SparseRefusedWord::Trim) => SparseRefused::Trim,
    };
    let instead = match sparse_refused {
        SparseRefused::Fail => None,
        SparseRefused::Full => Some("full"),
        SparseRefused::Trim => Some("trim"),
    };
    if let Some(mode) = instead.filter(|_| file.profile.is_none()) {
        let fault = Fault::new("without a profile nobody knows here what the target refuses");
        at.key("sparseRefused").wrong(fault.expected(format!("`profile` as well, or `index: {mode}` for the images")));
    }
    TargetSpec { profile, sparse_refused }
}
