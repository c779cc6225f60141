//! [`Helpers`]: what credential helpers answered. Each is asked once for a registry, however many requests begin together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Login;
use super::helper::{self, Installed, Programs};
use crate::error::{Error, Kind, Result};

/// How long a helper rests that failed, or whose new answer was not taken either: thousands of requests of a run must not
/// start a program each.
const REST: Duration = Duration::from_secs(60);

/// The answers of helpers, kept for the life of the process.
#[derive(Debug)]
pub(super) struct Helpers {
    programs: Arc<dyn Programs>,
    /// By helper and server. A place is locked while its helper is asked.
    kept: Mutex<HashMap<(String, String), Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

#[derive(Debug)]
struct Kept {
    answer: Result<Option<Login>, Failure>,
    /// When it failed, or was asked again.
    again_at: Option<Instant>,
}

/// An error that can be told several times.
#[derive(Clone, Debug)]
struct Failure {
    kind: Kind,
    text: String,
    help: Option<String>,
}

impl Default for Helpers {
    fn default() -> Self {
        Self::new(Arc::new(Installed))
    }
}

impl Helpers {
    pub fn new(programs: Arc<dyn Programs>) -> Self {
        Helpers { programs, kept: Mutex::default() }
    }

    /// What the helper `name` says of `server`. It is asked anew when its login is the `refused` one.
    pub async fn get(&self, name: &str, server: &str, refused: Option<&Login>) -> Result<Option<Login>> {
        let slot = self.slot(name, server);
        let mut kept = slot.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| !kept.is_over(refused)) {
            return kept.tell();
        }
        let again = kept.is_some();
        tracing::debug!(helper = name, server, again, "asking the credential helper");
        let answer = helper::ask(self.programs.as_ref(), name, server).await.map_err(Failure::from);
        let again_at = (again || answer.is_err()).then(Instant::now);
        kept.insert(Kept { answer, again_at }).tell()
    }

    /// Whether a helper gave a login before. It is not asked.
    pub fn known(&self, name: &str, server: &str) -> bool {
        let slot = self.slot(name, server);
        slot.try_lock().is_ok_and(|kept| kept.as_ref().is_some_and(|kept| matches!(kept.answer, Ok(Some(_)))))
    }

    fn slot(&self, name: &str, server: &str) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry((name.to_owned(), server.to_owned())).or_default().clone()
    }
}

impl Kept {
    /// Whether the helper is worth asking again: its secrets may live shortly, as those of ECR, and failures may pass.
    fn is_over(&self, refused: Option<&Login>) -> bool {
        let rested = self.again_at.is_none_or(|at| at.elapsed() >= REST);
        match &self.answer {
            Ok(None) => false,
            Ok(Some(login)) => refused == Some(login) && rested,
            Err(_) => rested,
        }
    }

    fn tell(&self) -> Result<Option<Login>> {
        self.answer.clone().map_err(Error::from)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { kind: error.kind(), text: error.to_string(), help: error.help_text().map(str::to_owned) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let error = Error::new(failure.kind, failure.text);
        match failure.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}
