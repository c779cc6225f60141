//! The one copy function.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, future, stream};

use super::{Body, Rejected, Role, Source, Status, Target, Work};
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
    /// Eight: enough to keep a line busy on which an answer takes a while, few enough for a small registry.
    fn default() -> Self {
        Limits { concurrent_blobs: 8, keep_going: true }
    }
}

/// How often the monitor hears how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);

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
    let source = Counting { source, moved: Arc::default() };
    let mut moving = pin!(copy_all(work, &source, target, limits, monitor));
    let mut tick = tokio::time::interval(TELL_EVERY);
    let tell = || monitor.advance(source.moved.swap(0, Ordering::Relaxed));
    loop {
        tokio::select! {
            failed = &mut moving => {
                tell();
                return failed;
            }
            _ = tick.tick() => tell(),
        }
    }
}

async fn copy_all<S: Source, T: Target>(
    work: &[Work],
    source: &Counting<'_, S>,
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

async fn copy_one<S: Source, T: Target>(
    item: &Work,
    source: &Counting<'_, S>,
    target: &T,
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut rejected: Option<(u64, Error)> = None;
    loop {
        let offset = match target.status(item).await? {
            Status::Present => {
                source.found(item.span.end - item.span.start);
                break;
            }
            Status::From(offset) => offset,
        };
        // Once more only from an earlier byte than before. So this ends, at the start of the span at the latest.
        if let Some((before, error)) = rejected.take()
            && offset >= before
        {
            return Err(error);
        }
        match target.take(item, offset, source).await {
            Ok(()) => {
                source.found(offset - item.span.start);
                break;
            }
            Err(Rejected::Resumed(error)) => rejected = Some((offset, error)),
            Err(Rejected::Final(error)) => return Err(error),
        }
    }
    monitor.item(&item.descriptor.digest.short());
    Ok(())
}

/// A source that counts what is taken from it, so that a large blob shows while it moves.
struct Counting<'a, S> {
    source: &'a S,
    moved: Arc<AtomicU64>,
}

impl<S> Counting<'_, S> {
    /// Counts bytes that need not be moved.
    fn found(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl<S: Source> Source for Counting<'_, S> {
    async fn open(&self, work: &Work, offset: u64) -> Result<Body> {
        Ok(self.source.open(work, offset).await?.counted(Arc::clone(&self.moved)))
    }

    fn is_checked(&self, work: &Work) -> bool {
        self.source.is_checked(work)
    }
}
