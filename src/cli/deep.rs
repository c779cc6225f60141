//! What `--deep` prints, and how its memory is bounded.

use std::fmt::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::output::{count, size};
use crate::layers::{DeepReport, Why};

/// What can be done when layers are not what their images say.
pub(super) const NOT_AS_SAID: &str = "layers are not what their images say. They were made, or pushed, like that, and clients \
    refuse them: ask whoever built the image for a sound one";

/// glibc's name for the size from which on memory is given back to the system as soon as it is free.
const THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";

/// Says that it was tried. glibc takes its own variables away from a program that has more rights than whoever begins it
/// (set-user-id, file capabilities), so the one above cannot say so.
const TRIED: &str = "SEALIFT_BEGUN_AGAIN";

/// Begins again with an allocator that gives the windows of zstd frames back when they are no longer needed.
///
/// By itself glibc keeps what was freed for what comes next, up to 64 MiB for each thread, beside a window of 128 MiB.
/// It asks the environment once, when the process begins. Where that cannot be done, verification goes on without.
pub(super) fn bound_memory() {
    if [THRESHOLD, TRIED].into_iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    // Begun by a loader by hand, the program that runs is the loader.
    let named = std::env::args_os().next().map(PathBuf::from);
    if named.as_deref().and_then(Path::file_name) != program.file_name() {
        return;
    }
    // Comes back only when it failed.
    let error =
        Command::new(program).args(std::env::args_os().skip(1)).env(THRESHOLD, "1048576").env(TRIED, "1").exec();
    tracing::warn!(%error, "memory may go beyond what --deep promises");
}

/// Adds what was found to a report.
pub(super) fn tell(text: &mut String, report: Option<&DeepReport>) {
    let Some(report) = report else { return };
    let _ = writeln!(
        text,
        "  {} unpacked to {}, as their images say",
        count(report.layers, "layer"),
        size(report.unpacked_bytes)
    );
    for skipped in &report.not_checked {
        let why = match skipped.why {
            Why::NoLayer => "no layer of a file system",
            Why::Foreign => "foreign, and left where its urls say",
            Why::Lost => "missing or damaged",
        };
        let _ = writeln!(text, "not unpacked: {} of {} ({why})", skipped.layers, skipped.media_type);
    }
    for failure in &report.failures {
        let which = match (failure.position, failure.layer) {
            (Some(position), Some(layer)) => format!("layer {position}, {layer}"),
            _ => format!("manifest {}", failure.manifest),
        };
        let _ = writeln!(text, "wrong layer: {}\n  {which}\n  {}", failure.image, failure.problem);
        if let (Some(expected), Some(found)) = (failure.expected, failure.found) {
            let _ = writeln!(text, "  expected {expected}\n  found    {found}");
        }
    }
    if report.more_failures > 0 {
        let _ = writeln!(text, "wrong layers: {} more", report.more_failures);
    }
}
