//! [`Health`]: whether an endpoint was found down a moment ago, so that this is found out once and not by every request.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::retry::Trouble;
use crate::error::{Error, Kind};

/// How long an endpoint that was found down is not asked again: long enough that a dead one does not slow down every
/// request of a run, short enough to notice that it is back.
const REST: Duration = Duration::from_secs(30);

/// What is known about one endpoint, shared by all its requests.
#[derive(Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Default)]
struct State {
    /// When it last answered anything.
    heard: Option<Instant>,
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
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it rests: nobody asks it.
    pub fn rests(&self) -> bool {
        self.state().down.as_ref().is_some_and(|down| Instant::now() < down.rests_until)
    }

    /// Whether it was found down and has not answered since: after its rest, one attempt is enough.
    pub fn is_doubted(&self) -> bool {
        self.state().down.is_some()
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
        *self.state() = State { heard: Some(Instant::now()), down: None };
    }

    /// Attempts from `first` on ended with `error`, and nothing was heard. It rests, unless it answered somebody else in
    /// the meantime: then it is not down, and only that one question is too much for it.
    pub fn found_down(&self, error: &Error, first: Instant) {
        let mut state = self.state();
        if state.heard.is_some_and(|heard| heard >= first) {
            return;
        }
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
        assert!(health.check("r.example").is_ok() && !health.rests() && !health.is_doubted());
        health.found_down(&down(), Instant::now());
        tokio::time::advance(Duration::from_secs(12)).await;
        let error = health.check("r.example").unwrap_err().into_error();
        assert_eq!(error.to_string(), "r.example was found down 12 s ago: connection refused");
        assert_eq!(error.help_text(), Some("start it"));
        tokio::time::advance(REST).await;
        assert!(health.check("r.example").is_ok() && !health.rests() && health.is_doubted());
        // Down still: it rests again, and since when is not forgotten.
        health.found_down(&down(), Instant::now());
        let error = health.check("r.example").unwrap_err().into_error();
        assert!(error.to_string().contains("found down 42 s ago"), "{error}");
        health.heard();
        assert!(health.check("r.example").is_ok() && !health.is_doubted());
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_others_meanwhile_is_not_down() {
        let health = Health::default();
        let first = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        health.heard();
        tokio::time::advance(Duration::from_secs(1)).await;
        health.found_down(&Error::failed("nothing came"), first);
        assert!(!health.rests());
        health.found_down(&Error::failed("nothing came"), Instant::now());
        assert!(health.rests());
    }
}
