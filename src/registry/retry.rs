//! The one policy of trying again: what counts as passing trouble, how often, and how long between.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

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

    pub(super) fn patience(self) -> Patience {
        Patience { policy: self, delays: self.delays() }
    }

    /// Runs `attempt` until it succeeds, fails for good, or the attempts are used up.
    pub(super) async fn run<T, F, Fut>(self, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Trouble>>,
    {
        let mut patience = self.patience();
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(trouble) => patience.wait(trouble).await?,
            }
        }
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
        /// The wait that the registry asked for.
        after: Option<Duration>,
    },
    /// The same again would end the same.
    Final(Error),
}

impl Trouble {
    /// Trouble that may pass, with no wish from the other side.
    pub fn passing(error: Error) -> Self {
        Trouble::Passing { error, after: None }
    }

    /// The error, for a caller that does not try again.
    pub fn into_error(self) -> Error {
        match self {
            Trouble::Passing { error, .. } | Trouble::Final(error) => error,
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
}

impl Patience {
    /// Waits before the next attempt; the error when there is none.
    pub async fn wait(&mut self, trouble: Trouble) -> Result<()> {
        let (error, after) = match trouble {
            Trouble::Passing { error, after } => (error, after.unwrap_or_default()),
            Trouble::Final(error) => return Err(error),
        };
        if after > RETRY_AFTER_MAX {
            let help =
                format!("the registry asks to come back in {} s; run the same command again then", after.as_secs());
            return Err(error.help(help));
        }
        let Some(delay) = self.delays.next() else {
            return Err(match self.policy.attempts {
                0 | 1 => error,
                attempts => error.while_(format_args!("{attempts} attempts, the last")),
            });
        };
        let delay = delay.max(after);
        tracing::debug!(%error, ?delay, "trying again");
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Something was achieved: the attempts begin anew.
    pub fn progressed(&mut self) {
        self.delays = self.policy.delays();
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

    #[tokio::test]
    async fn attempts_end_and_progress_renews_them() {
        let retry = Retry { attempts: 3, base: Duration::ZERO };
        let mut patience = retry.patience();
        let cut = || Trouble::passing(Error::failed("cut"));
        assert!(patience.wait(cut()).await.is_ok());
        assert!(patience.wait(cut()).await.is_ok());
        patience.progressed();
        assert!(patience.wait(cut()).await.is_ok());
        assert!(patience.wait(cut()).await.is_ok());
        let error = patience.wait(cut()).await.unwrap_err();
        assert_eq!(error.to_string(), "3 attempts, the last: cut");
    }

    #[tokio::test]
    async fn a_wait_of_hours_is_an_error_that_says_so() {
        let trouble = Trouble::Passing { error: Error::failed("429"), after: Some(Duration::from_secs(9000)) };
        let error = Retry::default().patience().wait(trouble).await.unwrap_err();
        assert!(error.help_text().is_some_and(|help| help.contains("9000 s")));
    }
}
