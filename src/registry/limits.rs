//! How much of a registry is used: requests at once, requests in a second, bytes in a second; and bytes in a second
//! over all registries, by the time of day.
//!
//! [`Lane`] is one endpoint's share of it. The endpoint takes a [`Turn`] for each request and keeps it until the
//! answer was read; blobs ask [`Lane::pass`] for each piece, in both directions.

use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::config::{Bandwidth, Limits, RegistryLimits};

/// Requests on their way to one registry at a time, where nobody says otherwise: what common registries take from one
/// client without a word.
const REQUESTS_AT_ONCE: usize = 16;

/// The part of a second that one slice of a blob may take. Transfers take turns slice by slice: with short ones none
/// stands still for so long that the other side gives it up, and a new window holds within a moment.
const SLICES_A_SECOND: u64 = 16;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// What lets things pass at a rate: it remembers when the next may.
#[derive(Default)]
struct Pacer(Mutex<Option<Instant>>);

impl Pacer {
    /// The moment from which `amount` may pass, at `rate` a second. The next one comes after it.
    fn moment(&self, amount: u64, rate: NonZeroU64) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used is gone: a line that was idle must not be flooded afterwards.
        let moment = free.map_or_else(Instant::now, |free| free.max(Instant::now()));
        let takes = u128::from(amount) * u128::from(SECOND) / u128::from(rate.get());
        *free = moment.checked_add(Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX)));
        moment
    }
}

/// The bandwidth over all registries of a client.
pub(super) struct Bytes {
    limits: Limits,
    pacer: Pacer,
    /// The clock on the wall, for windows.
    clock: fn() -> Timestamp,
}

impl Bytes {
    /// As `limits` says.
    pub fn new(limits: Limits) -> Self {
        Bytes { limits, pacer: Pacer::default(), clock: Timestamp::now }
    }

    fn rate(&self) -> Option<NonZeroU64> {
        self.limits.bandwidth_at((self.clock)()).and_then(NonZeroU64::new)
    }
}

/// One endpoint's limits.
pub(super) struct Lane {
    at_once: Arc<Semaphore>,
    per_second: Option<NonZeroU64>,
    bandwidth: Bandwidth,
    requests: Pacer,
    bytes: Pacer,
    overall: Arc<Bytes>,
}

/// The right to have one request on its way, given back when it is dropped.
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// An answer with the turn of its request: the next request begins when it was read, or is not wanted any more.
pub(super) struct Held {
    response: Response,
    _turn: Turn,
}

impl Lane {
    /// As `limits` says. `jobs` transfers are to go on at the same time, so there are as many turns where the
    /// configuration names no number.
    pub fn new(limits: &RegistryLimits, jobs: usize, overall: Arc<Bytes>) -> Self {
        let at_once = limits.requests.map_or(jobs.max(REQUESTS_AT_ONCE), |requests| requests as usize);
        Lane {
            at_once: Arc::new(Semaphore::new(at_once.max(1))),
            per_second: limits.requests_per_second.map(u64::from).and_then(NonZeroU64::new),
            bandwidth: limits.bandwidth,
            requests: Pacer::default(),
            bytes: Pacer::default(),
            overall,
        }
    }

    /// Waits until one more may be on its way.
    pub async fn turn(&self) -> Turn {
        // The semaphore is never closed.
        Turn { _permit: self.at_once.clone().acquire_owned().await.ok() }
    }

    /// Waits until one more may begin.
    pub async fn begin(&self) {
        if let Some(rate) = self.per_second {
            sleep_until(self.requests.moment(1, rate)).await;
        }
    }

    /// The largest slice that may pass at once: `None` where nothing is limited now.
    pub fn slice(&self) -> Option<u64> {
        let slowest = self.rate().into_iter().chain(self.overall.rate()).min()?;
        Some((slowest.get() / SLICES_A_SECOND).max(1))
    }

    /// Waits until `bytes` of a blob may have passed but for the last slice of them. Rates are looked up for each slice.
    pub async fn pass(&self, bytes: u64) {
        let mut left = bytes;
        while left > 0 {
            let Some(slice) = self.slice() else { return };
            let slice = slice.min(left);
            let own = self.rate().map(|rate| self.bytes.moment(slice, rate));
            let overall = self.overall.rate().map(|rate| self.overall.pacer.moment(slice, rate));
            if let Some(moment) = own.into_iter().chain(overall).max() {
                sleep_until(moment).await;
            }
            left -= slice;
        }
    }

    fn rate(&self) -> Option<NonZeroU64> {
        self.bandwidth.and_then(NonZeroU64::new)
    }
}

impl Held {
    /// `response`, for which `turn` was taken.
    pub fn new(response: Response, turn: Turn) -> Self {
        Held { response, _turn: turn }
    }
}

impl Deref for Held {
    type Target = Response;

    fn deref(&self) -> &Response {
        &self.response
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Response {
        &mut self.response
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use futures_util::future::join_all;
    use jiff::civil::Time;

    use super::*;
    use crate::config::Window;

    const KIB: u64 = 1024;

    fn lane(own: RegistryLimits, overall: Limits) -> Lane {
        Lane::new(&own, 4, Arc::new(Bytes::new(overall)))
    }

    fn at_most(bandwidth: u64) -> (RegistryLimits, Limits) {
        let own = RegistryLimits { bandwidth: Some(bandwidth), ..RegistryLimits::default() };
        (own, Limits { bandwidth: Some(bandwidth), ..Limits::default() })
    }

    async fn seconds(work: impl Future) -> f64 {
        let begun = Instant::now();
        work.await;
        begun.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_slower_of_both_rates_whoever_wants_them() {
        let (slow, fast) = (64 * KIB, 640 * KIB);
        let rows = [
            (lane(at_most(slow).0, Limits::default()), 10.0),
            (lane(RegistryLimits::default(), at_most(slow).1), 10.0),
            (lane(at_most(slow).0, at_most(fast).1), 10.0),
            (lane(at_most(fast).0, at_most(slow).1), 10.0),
            (lane(RegistryLimits::default(), Limits::default()), 0.0),
        ];
        for (at, (lane, expected)) in rows.into_iter().enumerate() {
            // Ten seconds' worth, by five at once and in pieces of any size.
            let took = seconds(join_all((0..5).map(|n| {
                let lane = &lane;
                async move {
                    for _ in 0..1 << n {
                        lane.pass((2 * slow) >> n).await;
                    }
                }
            })))
            .await;
            // The last slice of all is let go when its time begins.
            assert!((took - expected).abs() <= 0.26, "row {at}: {took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_registries_share_what_all_may_use() {
        let overall = Arc::new(Bytes::new(at_most(100 * KIB).1));
        let lanes = [0, 1].map(|_| Lane::new(&RegistryLimits::default(), 4, overall.clone()));
        let took = seconds(join_all(lanes.iter().map(|lane| lane.pass(500 * KIB)))).await;
        assert!((took - 10.0).abs() <= 0.3, "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_transfer_changes_its_speed_when_a_window_begins() {
        // The clock on the wall goes with the paused one: it is five seconds to seven.
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        fn clock() -> Timestamp {
            let before: Timestamp = "2026-11-27T06:59:55Z".parse().unwrap();
            before + BEGUN.get_or_init(Instant::now).elapsed()
        }
        let hour = |hour| Time::new(hour, 0, 0, 0).unwrap();
        let day = Window { days: Vec::new(), from: hour(7), to: hour(19), bandwidth: Some(100 * KIB) };
        let limits = Limits { bandwidth: Some(1000 * KIB), windows: vec![day], ..Limits::default() };
        let overall = Arc::new(Bytes { clock, ..Bytes::new(limits) });
        let lane = Lane::new(&RegistryLimits::default(), 4, overall);
        // Five seconds' worth of the night, and ten of the day; one slice had been let go by the old rate.
        let took = seconds(lane.pass(6000 * KIB)).await;
        assert!((14.0..=15.0).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_begin_one_after_the_other_and_idle_time_is_not_saved_up() {
        let lane =
            lane(RegistryLimits { requests_per_second: Some(10), ..RegistryLimits::default() }, Limits::default());
        let took = seconds(join_all((0..21).map(|_| lane.begin()))).await;
        assert!((took - 2.0).abs() < 0.01, "{took} s");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let took = seconds(join_all((0..11).map(|_| lane.begin()))).await;
        assert!((took - 1.0).abs() < 0.01, "{took} s");
    }

    #[tokio::test]
    async fn turns_are_as_many_as_are_configured_or_wanted() {
        let rows = [(None, 4, 16), (None, 64, 64), (Some(2), 64, 2), (Some(100), 4, 100)];
        for (requests, jobs, expected) in rows {
            let limits = RegistryLimits { requests, ..RegistryLimits::default() };
            let lane = Lane::new(&limits, jobs, Arc::new(Bytes::new(Limits::default())));
            assert_eq!(lane.at_once.available_permits(), expected);
            let turn = lane.turn().await;
            assert_eq!(lane.at_once.available_permits(), expected - 1);
            drop(turn);
            assert_eq!(lane.at_once.available_permits(), expected);
        }
    }
}
