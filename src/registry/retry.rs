//! The one policy of trying again: what counts as passing trouble, how often, and how long between.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use tokio::time::Instant;

use super::health::{Health, Lead};
use crate::error::{Error, Result};

/// How often something is attempted: enough for a registry that restarts (about 15 s with the delays below),
/// few enough that a registry that is really down is said to be so within a minute.
const ATTEMPTS: usize = 5;

/// The delay before the second attempt; it doubles from there, with jitter.
const DELAY_BASE: Duration = Duration::from_millis(500);

/// The longest delay of our own (before jitter).
const DELAY_MAX: Duration = Duration::from_secs(30);

/// The longest wait that a registry may ask for with `Retry-After`. One that asks for more (Docker Hub's limits
/// last hours) is not worth holding everything up for: that is an error which names the time.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// How long the attempts may take together at which nothing is heard: one that would begin later is not made, the second
/// excepted. Five connections that time out fit in; of a registry that takes connections and never answers, two are enough.
const UNHEARD_MAX: Duration = Duration::from_secs(100);

/// How often, and with which delays, a request is repeated after trouble that may pass.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    attempts: usize,
    base: Duration,
}

impl Default for Retry {
    /// Five attempts, half a second to half a minute between them.
    fn default() -> Self {
        Retry { attempts: ATTEMPTS, base: DELAY_BASE }
    }
}

impl Retry {
    /// The same with another first delay; the delays after it double. For tests, which should not wait.
    #[must_use]
    pub fn with_base(self, base: Duration) -> Self {
        Retry { base, ..self }
    }

    /// One attempt: where something else can be asked instead, as with mirrors.
    pub(super) fn once(self) -> Self {
        Retry { attempts: 1, ..self }
    }

    /// The attempts of one undertaking at the endpoint of `health`, which learns of it when they end unheard.
    pub(super) fn patience(self, health: &Arc<Health>) -> Patience {
        let health = health.clone();
        Patience {
            policy: self,
            delays: self.delays(),
            health,
            lead: None,
            unheard: Duration::ZERO,
            first: None,
            waited: 0,
        }
    }

    /// Runs `attempt` until it succeeds, fails for good, or the attempts are used up.
    pub(super) async fn run<T, F, Fut>(self, health: &Arc<Health>, attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Trouble>>,
    {
        self.patience(health).run(attempt).await
    }

    fn delays(self) -> ExponentialBackoff {
        // Without a seed of our own, backon's generator is the same in every process, and all would knock at once.
        ExponentialBuilder::new()
            .with_min_delay(self.base)
            .with_max_delay(DELAY_MAX)
            .with_max_times(self.attempts.saturating_sub(1))
            .with_jitter()
            .with_jitter_seed(RandomState::new().build_hasher().finish())
            .build()
    }
}

/// Why an attempt failed, as far as trying again goes.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may work a little later: a cut connection, a time-out, a status that says so.
    Passing {
        /// What is said when no attempt is left.
        error: Error,
        /// The wait that the registry asked for; `None` when it answered nothing.
        after: Option<Duration>,
    },
    /// Nothing was heard: no connection, or one without an answer. It may pass; where it does not, the other side is
    /// down, and nobody else need find that out.
    Unheard {
        /// What is said when no attempt is left.
        error: Error,
        /// How long the attempt took.
        took: Duration,
    },
    /// While it waited for its turn, nothing was heard of others: it was not attempted, and is once that is cleared up.
    Doubted,
    /// The same again would end the same.
    Final(Error),
}

impl Trouble {
    /// Trouble that may pass, with no wish from the other side.
    pub fn passing(error: Error) -> Self {
        Trouble::Passing { error, after: None }
    }

    /// The error.
    #[cfg(test)]
    pub fn into_error(self) -> Error {
        match self {
            Trouble::Passing { error, .. } | Trouble::Unheard { error, .. } | Trouble::Final(error) => error,
            Trouble::Doubted => Error::failed("doubted"),
        }
    }

    /// What came of a request that began at `begun` and was not answered.
    pub fn unheard(self, begun: Instant) -> Self {
        match self {
            Trouble::Passing { error, after: None } => Trouble::Unheard { error, took: begun.elapsed() },
            other => other,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Final(error)
    }
}

/// The attempts that are left of one undertaking.
pub(super) struct Patience {
    policy: Retry,
    delays: ExponentialBackoff,
    health: Arc<Health>,
    lead: Option<Lead>,
    /// How long attempts took at which nothing was heard.
    unheard: Duration,
    /// When the first of them began.
    first: Option<Instant>,
    /// How often was waited.
    waited: usize,
}

impl Patience {
    /// Runs `attempt` until it succeeds, fails for good, or the attempts are used up.
    pub async fn run<T, F, Fut>(mut self, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Trouble>>,
    {
        self.ready().await;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(trouble) => self.wait(trouble).await?,
            }
        }
    }

    /// Waits before the next attempt; the error when there is none.
    pub async fn wait(&mut self, trouble: Trouble) -> Result<()> {
        let (error, after) = match trouble {
            Trouble::Passing { error, after } => (error, after.unwrap_or_default()),
            Trouble::Unheard { error, took } => return self.wait_unheard(error, took).await,
            Trouble::Doubted => {
                self.ready().await;
                return Ok(());
            }
            Trouble::Final(error) => return Err(error),
        };
        if after > RETRY_AFTER_MAX {
            // In the text, for the answer brings a help of its own.
            let error = error.while_(format_args!("told to come back in {} s", after.as_secs()));
            return Err(error.help("run the same command again then"));
        }
        match self.delays.next() {
            Some(delay) => self.sleep(&error, delay.max(after)).await,
            None => return Err(self.last(error)),
        }
        Ok(())
    }

    /// Waits while another undertaking finds out whether the endpoint is down.
    pub async fn ready(&mut self) {
        if self.lead.is_none() {
            self.lead = self.health.ready().await;
        }
    }

    /// Lets others find that out: for an undertaking that is made of others.
    pub fn step_back(&mut self) {
        self.lead = None;
    }

    async fn wait_unheard(&mut self, error: Error, took: Duration) -> Result<()> {
        self.health.doubt();
        self.unheard += took;
        let first = *self.first.get_or_insert_with(|| Instant::now().checked_sub(took).unwrap_or_else(Instant::now));
        let enough = self.waited > 0 && self.unheard >= UNHEARD_MAX;
        // What was found down before has used up its attempts.
        let delay = self.delays.next().filter(|_| !enough && !self.health.was_down());
        let Some(delay) = delay else {
            let error = self.last(error);
            self.health.found_down(&error, first).await;
            return Err(error);
        };
        // Before the wait: nobody else is to begin in the meantime.
        self.ready().await;
        self.sleep(&error, delay).await;
        Ok(())
    }

    async fn sleep(&mut self, error: &Error, delay: Duration) {
        self.waited += 1;
        tracing::debug!(%error, ?delay, "trying again");
        tokio::time::sleep(delay).await;
    }

    fn last(&self, error: Error) -> Error {
        match self.waited + 1 {
            1 => error,
            attempts => error.while_(format_args!("{attempts} attempts, the last")),
        }
    }

    /// Something was achieved: the attempts begin anew.
    pub fn progressed(&mut self) {
        self.delays = self.policy.delays();
        (self.lead, self.unheard, self.first, self.waited) = (None, Duration::ZERO, None, 0);
    }

    /// The error of an undertaking that is not attempted again.
    pub async fn give_up(mut self, trouble: Trouble) -> Error {
        self.delays = Retry { attempts: 1, ..self.policy }.delays();
        self.wait(trouble).await.err().unwrap_or_else(|| Error::failed("nothing is heard of it at this moment"))
    }
}

/// What `Retry-After` asks for: seconds, or an HTTP date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    // A date in the past is no wait.
    Some(Duration::try_from(date.timestamp().duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn dates_that_are_wrong_or_far_away() {
        let far = retry_after("Thu, 31 Dec 2099 23:59:59 GMT").unwrap();
        assert!(far > RETRY_AFTER_MAX);
        for text in ["", "-1", "1.5", "Mon, 99 Nov 1994 08:49:37 GMT", "99999999999999999999999"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }

    fn patience(attempts: usize) -> Patience {
        Retry { attempts, base: Duration::ZERO }.patience(&Arc::default())
    }

    fn unheard(seconds: u64) -> Trouble {
        Trouble::Unheard { error: Error::failed("nothing came"), took: Duration::from_secs(seconds) }
    }

    #[tokio::test]
    async fn attempts_end_and_progress_renews_them() {
        let mut patience = patience(3);
        let cut = || Trouble::passing(Error::failed("cut"));
        assert!(patience.wait(cut()).await.is_ok());
        assert!(patience.wait(cut()).await.is_ok());
        patience.progressed();
        assert!(patience.wait(cut()).await.is_ok());
        assert!(patience.wait(cut()).await.is_ok());
        let error = patience.wait(cut()).await.unwrap_err();
        assert_eq!(error.to_string(), "3 attempts, the last: cut");
        assert!(!patience.health.rests(), "it answered");
    }

    #[tokio::test]
    async fn long_silence_ends_the_attempts_early() {
        // Seconds of each attempt, and how many are made.
        for (seconds, attempts) in [(0, 5), (20, 5), (60, 2), (120, 2), (3600, 2)] {
            let mut patience = patience(5);
            let mut made = 1;
            while patience.wait(unheard(seconds)).await.is_ok() {
                made += 1;
            }
            assert_eq!(made, attempts, "{seconds} s");
            assert!(patience.health.rests());
            // Whoever was trying at the same time gives up with its next trouble.
            let mut other = Retry { attempts: 5, base: Duration::ZERO }.patience(&patience.health);
            assert!(other.wait(unheard(0)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_wait_of_hours_is_an_error_that_says_so() {
        let trouble = Trouble::Passing { error: Error::failed("429"), after: Some(Duration::from_secs(9000)) };
        let error = patience(5).wait(trouble).await.unwrap_err();
        assert_eq!(error.to_string(), "told to come back in 9000 s: 429");
    }
}
