//! [`Budget`]: how many pulls a registry still allows, as Docker Hub counts them.
//!
//! It counts the GET of a manifest; HEAD and blobs are free. Each answer about a manifest, to HEAD too, says
//! `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`: of 100 in six hours, 76 are left. A registry
//! that says nothing of the kind does not count.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::oci::Registry;

/// What can be done when a registry allows no more pulls.
pub(super) const MORE_PULLS: &str = "log in, which raises the limit; run the same command again when the registry has counted anew, for it goes on where it stopped; or configure a mirror of the registry";

/// How long the word of a registry is believed that names no window.
const WINDOW_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many pulls a registry allows, as it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The registry, or the host of a mirror.
    pub registry: String,
    /// How many pulls it allows in a window.
    pub limit: u64,
    /// How many of them are left, those on their way taken off.
    pub remaining: u64,
    /// The length of the window in seconds, where the registry says it.
    pub window: Option<u64>,
    /// How many were made by this client.
    pub made: u64,
}

/// The count of one endpoint.
pub(super) struct Pulls {
    registry: Registry,
    /// How many are left for others.
    reserve: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    told: Option<Told>,
    /// Sent and not answered: what the registry told last does not know of them.
    on_the_way: u64,
    made: u64,
}

struct Told {
    limit: u64,
    remaining: u64,
    window: Option<u64>,
    at: Instant,
}

/// One pull on its way.
pub(super) struct OnTheWay<'a>(&'a Pulls);

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        self.0.state().on_the_way -= 1;
    }
}

impl Pulls {
    /// Those of `registry`, of which `reserve` are to be left.
    pub fn new(registry: Registry, reserve: u64) -> Self {
        Pulls { registry, reserve, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a pull; it is on its way until the value is dropped.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`] when no more than the reserve is left. Nothing was sent then.
    pub fn take(&self) -> Result<OnTheWay<'_>, Error> {
        let mut state = self.state();
        let left = state.left();
        if let Some((told, left)) = left.filter(|(_, left)| self.reserve > 0 && *left <= self.reserve) {
            let (registry, reserve) = (&self.registry, self.reserve);
            let span = span(told.window);
            let what = format!("{registry} allows {left} more of {} pulls{span}, and {reserve} are kept", told.limit);
            return Err(Error::new(Kind::Refused, what).help(format!(
                "{MORE_PULLS}; `limits.reserve` of {registry} in the configuration says how many are kept"
            )));
        }
        state.on_the_way += 1;
        state.made += 1;
        Ok(OnTheWay(self))
    }

    /// Learns what an answer says of it.
    pub fn learn(&self, headers: &HeaderMap) {
        let told = |name| headers.get(name).and_then(|value| value.to_str().ok()).and_then(quota);
        if let (Some((limit, window)), Some((remaining, own))) = (told("ratelimit-limit"), told("ratelimit-remaining"))
        {
            self.state().told = Some(Told { limit, remaining, window: window.or(own), at: Instant::now() });
        }
    }

    /// What is known; `None` where the registry does not count.
    pub fn budget(&self) -> Option<Budget> {
        let state = self.state();
        let (told, remaining) = state.left()?;
        let (registry, made) = (self.registry.to_string(), state.made);
        Some(Budget { registry, limit: told.limit, remaining, window: told.window, made })
    }
}

impl State {
    /// What was told and is not over, and how many that leaves.
    fn left(&self) -> Option<(&Told, u64)> {
        let told = self.told.as_ref()?;
        let window = told.window.map_or(WINDOW_DEFAULT, Duration::from_secs);
        (told.at.elapsed() < window).then(|| (told, told.remaining.saturating_sub(self.on_the_way)))
    }
}

/// Number and window of `100;w=21600`.
fn quota(value: &str) -> Option<(u64, Option<u64>)> {
    let mut parts = value.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    Some((number, parts.find_map(|part| part.strip_prefix("w=")?.trim().parse().ok())))
}

/// ` in 6 h`, or nothing where no window is known.
fn span(window: Option<u64>) -> String {
    match window {
        Some(seconds) if seconds.is_multiple_of(3600) => format!(" in {} h", seconds / 3600),
        Some(seconds) => format!(" in {seconds} s"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulls(reserve: u64) -> Pulls {
        Pulls::new("docker.io".parse().unwrap(), reserve)
    }

    fn tell(pulls: &Pulls, limit: &str, remaining: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-limit", limit.parse().unwrap());
        headers.insert("ratelimit-remaining", remaining.parse().unwrap());
        pulls.learn(&headers);
    }

    #[test]
    fn what_registries_say() {
        let rows = [
            ("100;w=21600", "76;w=21600", Some((100, 76, Some(21600)))),
            ("100", "76", Some((100, 76, None))),
            (" 200 ; w=60", "0;x=1;w=60", Some((200, 0, Some(60)))),
            ("100;w=x", "1;w=5", Some((100, 1, Some(5)))),
            ("many", "76", None),
            ("100", "-1", None),
        ];
        for (limit, remaining, expected) in rows {
            let pulls = pulls(0);
            tell(&pulls, limit, remaining);
            let found = pulls.budget().map(|budget| (budget.limit, budget.remaining, budget.window));
            assert_eq!(found, expected, "{limit} {remaining}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_reserve_is_kept_by_many_at_once_and_until_the_window_is_over() {
        let pulls = pulls(20);
        assert!(pulls.take().is_ok(), "nothing is known yet");
        tell(&pulls, "100;w=21600", "22;w=21600");
        let (one, two) = (pulls.take().unwrap(), pulls.take().unwrap());
        let refused = pulls.take().err().unwrap();
        assert_eq!(refused.kind(), Kind::Refused);
        assert_eq!(refused.to_string(), "docker.io allows 20 more of 100 pulls in 6 h, and 20 are kept");
        // The first of them was answered, and the registry counts both already.
        drop(one);
        tell(&pulls, "100;w=21600", "20;w=21600");
        assert!(pulls.take().is_err());
        drop(two);
        assert!(pulls.take().is_err());
        assert_eq!(pulls.budget().map(|budget| (budget.remaining, budget.made)), Some((20, 3)));
        tokio::time::advance(Duration::from_secs(21600)).await;
        assert!(pulls.take().is_ok());
        assert_eq!(pulls.budget(), None);
    }

    #[test]
    fn without_a_reserve_the_registry_decides() {
        let pulls = pulls(0);
        tell(&pulls, "100;w=21600", "0;w=21600");
        assert!(pulls.take().is_ok());
    }
}
