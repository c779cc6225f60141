//! [`Health`]: whether an endpoint was found down a moment ago, so that this is found out once and not by every request.
//!
//! An endpoint of which nothing was heard is *doubted*. One undertaking then has the lead: it goes on with its attempts,
//! and all others wait until something is heard, or until the endpoint is found down and *rests*. After the rest one
//! attempt decides.
//!
//! Before it rests it is asked the simplest question there is: one image that is too much for a registry, or for
//! something before it, must not cost the others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};
use tokio::time::Instant;

use super::retry::Trouble;
use crate::error::{Error, Kind};

/// How long an endpoint that was found down is not asked again: long enough that a dead one does not slow down every
/// request of a run, short enough to notice that it is back.
const REST: Duration = Duration::from_secs(30);

/// How long the simplest question may take.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// The simplest question: whether anything is answered.
pub(super) type Probe = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// What is known about one endpoint, shared by all its requests.
#[derive(Default)]
pub(super) struct Health {
    probe: Option<Probe>,
    state: Mutex<State>,
    lead: Arc<AsyncMutex<()>>,
    /// Something was heard of what was doubted.
    back: Notify,
}

/// The right to attempt what is doubted, until it is dropped.
pub(super) struct Lead {
    _guard: OwnedMutexGuard<()>,
}

#[derive(Default)]
struct State {
    /// When it last answered anything.
    heard: Option<Instant>,
    /// Nothing was heard of an attempt since then.
    doubted: bool,
    down: Option<Down>,
}

/// It was found down.
struct Down {
    since: Instant,
    rests_until: Instant,
    kind: Kind,
    what: String,
    help: Option<String>,
}

impl Health {
    /// Of an endpoint that `probe` asks.
    pub fn new(probe: Probe) -> Self {
        Health { probe: Some(probe), ..Health::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it rests: nobody asks it.
    pub fn rests(&self) -> bool {
        self.state().down.as_ref().is_some_and(|down| Instant::now() < down.rests_until)
    }

    /// Whether it was found down and has not answered since: after its rest, one attempt is enough.
    pub fn was_down(&self) -> bool {
        self.state().down.is_some()
    }

    /// Whether nothing was heard of the last attempts.
    pub fn is_doubted(&self) -> bool {
        self.state().doubted
    }

    /// Nothing was heard of an attempt.
    pub fn doubt(&self) {
        self.state().doubted = true;
    }

    /// Waits until this endpoint may be attempted; with the lead, where it is doubted.
    pub async fn ready(&self) -> Option<Lead> {
        let mut back = std::pin::pin!(self.back.notified());
        // Enabled before the look at the state: what is heard in between is not missed.
        back.as_mut().enable();
        // At what rests, nobody attempts anything: whoever asks is told at once.
        if !self.state().doubted || self.rests() {
            return None;
        }
        let guard = tokio::select! {
            guard = self.lead.clone().lock_owned() => guard,
            () = back => return None,
        };
        self.state().doubted.then_some(Lead { _guard: guard })
    }

    /// While it rests: what it was found down with. It is the last word, for the attempts at it were made.
    pub fn check(&self, host: &str) -> Result<(), Trouble> {
        let state = self.state();
        let now = Instant::now();
        let Some(down) = state.down.as_ref().filter(|down| now < down.rests_until) else { return Ok(()) };
        let ago = now.duration_since(down.since).as_secs();
        let error = Error::new(down.kind, &down.what).while_(format_args!("{host} was found down {ago} s ago"));
        Err(Trouble::Final(match &down.help {
            Some(help) => error.help(help),
            None => error,
        }))
    }

    /// It answered, whatever it said.
    pub fn heard(&self) {
        let before =
            std::mem::replace(&mut *self.state(), State { heard: Some(Instant::now()), doubted: false, down: None });
        if before.doubted {
            self.back.notify_waiters();
        }
    }

    /// Attempts from `first` on ended with `error`, and nothing was heard. It rests, unless it answered somebody else in
    /// the meantime, or answers the simplest question: then only that one question is too much for it.
    pub async fn found_down(&self, error: &Error, first: Instant) {
        if self.state().heard.is_some_and(|heard| heard >= first) {
            return;
        }
        match self.answers().await {
            true => self.heard(),
            false => self.rest(error),
        }
    }

    async fn answers(&self) -> bool {
        let Some(probe) = &self.probe else { return false };
        tokio::time::timeout(PROBE_MAX, probe()).await.unwrap_or(false)
    }

    fn rest(&self, error: &Error) {
        let mut state = self.state();
        state.doubted = true;
        let now = Instant::now();
        match &mut state.down {
            Some(down) => down.rests_until = now + REST,
            None => {
                let help = error.help_text().map(str::to_owned);
                let what = error.to_string();
                state.down = Some(Down { since: now, rests_until: now + REST, kind: error.kind(), what, help });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_found_down_rests_and_is_then_doubted_until_it_answers() {
        let health = Health::default();
        let down = || Error::failed("connection refused").help("start it");
        assert!(health.check("r.example").is_ok() && !health.rests() && !health.was_down());
        health.found_down(&down(), Instant::now()).await;
        tokio::time::advance(Duration::from_secs(12)).await;
        let error = health.check("r.example").unwrap_err().into_error();
        assert_eq!(error.to_string(), "r.example was found down 12 s ago: connection refused");
        assert_eq!(error.help_text(), Some("start it"));
        tokio::time::advance(REST).await;
        assert!(health.check("r.example").is_ok() && !health.rests() && health.was_down());
        // One tries, and others wait for it.
        let lead = health.ready().await.unwrap();
        let waits = tokio::time::timeout(Duration::from_secs(5), health.ready()).await.is_err();
        assert!(waits);
        // Down still: it rests again, and since when is not forgotten.
        health.found_down(&down(), Instant::now()).await;
        drop(lead);
        assert!(health.ready().await.is_none());
        let error = health.check("r.example").unwrap_err().into_error();
        assert!(error.to_string().contains("found down 47 s ago"), "{error}");
        health.heard();
        assert!(health.check("r.example").is_ok() && !health.was_down());
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_others_meanwhile_is_not_down() {
        let health = Health::default();
        let first = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        health.heard();
        tokio::time::advance(Duration::from_secs(1)).await;
        health.found_down(&Error::failed("nothing came"), first).await;
        assert!(!health.rests());
        health.found_down(&Error::failed("nothing came"), Instant::now()).await;
        assert!(health.rests());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_the_lead_goes_on_when_something_is_heard() {
        let health = Health::default();
        health.doubt();
        let lead = health.ready().await;
        assert!(lead.is_some());
        let others = futures_util::future::join(health.ready(), health.ready());
        let hear = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            health.heard();
        };
        let ((one, two), ()) = futures_util::future::join(others, hear).await;
        assert!(one.is_none() && two.is_none());
        assert!(health.ready().await.is_none());
    }
}
