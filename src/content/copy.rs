//! The one copy function.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, future, stream};

use super::{Rejected, Role, Source, Status, Target, Work};
use crate::error::{Error, Result};
use crate::monitor::Monitor;

/// How much is moved at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Blobs on their way at the same time.
    pub concurrent_blobs: usize,
    /// Whether the blobs that are left are still moved when one has failed: so for many images at once, where each
    /// stands for itself; not so for one image, which has failed with its first blob.
    pub keep_going: bool,
}

impl Default for Limits {
    /// Four: enough to keep two cores and one line busy, few enough for a small registry.
    fn default() -> Self {
        Limits { concurrent_blobs: 4, keep_going: true }
    }
}

/// Carries `work` from `source` to `target`: blobs first, several at once and in the order given; then
/// manifests, one after the other, so that what a manifest needs is there before it.
///
/// Once something has failed no manifest is moved, and of the blobs only as [`Limits::keep_going`] says. Returns the items
/// that failed with their errors; none means that all of `work` is on the target.
pub async fn copy<S: Source, T: Target>(
    work: &[Work],
    source: &S,
    target: &T,
    limits: Limits,
    monitor: &dyn Monitor,
) -> Vec<(usize, Error)> {
    let blobs = work.iter().enumerate().filter(|(_, item)| item.role == Role::Blob);
    let stopped = AtomicBool::new(false);
    let mut failed: Vec<(usize, Error)> = stream::iter(blobs)
        .take_while(|_| future::ready(limits.keep_going || !stopped.load(Ordering::Relaxed)))
        .map(|(at, item)| async move { (at, copy_one(item, source, target, monitor).await) })
        .buffer_unordered(limits.concurrent_blobs)
        .filter_map(|(at, result)| {
            stopped.fetch_or(result.is_err(), Ordering::Relaxed);
            future::ready(result.err().map(|error| (at, error)))
        })
        .collect()
        .await;
    for (at, item) in work.iter().enumerate().filter(|(_, item)| item.role != Role::Blob) {
        if !failed.is_empty() {
            break;
        }
        if let Err(error) = copy_one(item, source, target, monitor).await {
            failed.push((at, error));
        }
    }
    failed.sort_by_key(|(at, _)| *at);
    failed
}

async fn copy_one<S: Source, T: Target>(item: &Work, source: &S, target: &T, monitor: &dyn Monitor) -> Result<()> {
    let mut rejected: Option<(u64, Error)> = None;
    loop {
        let offset = match target.status(item).await? {
            Status::Present => break,
            Status::From(offset) => offset,
        };
        // Once more only from an earlier byte than before. So this ends, at the start of the span at the latest.
        if let Some((before, error)) = rejected.take()
            && offset >= before
        {
            return Err(error);
        }
        match target.take(item, offset, source).await {
            Ok(()) => break,
            Err(Rejected::Resumed(error)) => rejected = Some((offset, error)),
            Err(Rejected::Final(error)) => return Err(error),
        }
    }
    monitor.advance(item.span.end - item.span.start);
    monitor.item(&item.descriptor.digest.short());
    Ok(())
}
