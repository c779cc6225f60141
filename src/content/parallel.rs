//! Checking on all cores, without the asynchronous runtime.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many threads check content at once, at the most: each has buffers of its own.
const WORKERS_MAX: usize = 8;

/// How many threads check content at once here: one for each core, at most [`WORKERS_MAX`].
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
}

/// Does all of `jobs`, the first ones first, on as many threads as [`workers`] says. Each thread
/// has what `start` gives. What comes out is in no order.
pub fn in_parallel<T: Sync, S, R: Send>(
    jobs: &[T],
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let (mut state, mut done) = (start(), Vec::new());
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(&mut state, job));
        }
        done
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers().min(jobs.len())).map(|_| scope.spawn(worker)).collect();
        let outcomes = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        outcomes.flat_map(|outcome| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once() {
        let jobs: Vec<usize> = (0..1000).collect();
        let mut done = in_parallel(&jobs, || (), |(), job| *job);
        done.sort_unstable();
        assert_eq!(done, jobs);
        assert!(in_parallel(&[], || (), |(), job: &usize| *job).is_empty());
    }
}
