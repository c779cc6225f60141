//! [`Authority`]: what goes into `Authorization` for one base address.
//!
//! The first request to a host goes out bare and learns from the 401 what is wanted. From then on the right
//! token is had before each request, so that no upload starts only to be refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderMap, HeaderValue};

use super::challenge::{Bearer, Challenge};
use super::credentials::{Credentials, Login};
use super::retry::Trouble;
use super::scope::Scope;
use super::token::{self, Token};
use super::transport::Transport;
use crate::oci::Registry;

/// How many tokens are kept for one host: one for each repository that is worked on, some kilobytes each.
const TOKENS_MAX: usize = 1_000;

/// The place of the token for one scope. It is locked while the token is fetched, so that many requests at
/// once fetch it once.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// Credentials, the last challenge and the tokens of one base address.
pub(super) struct Authority {
    registry: Registry,
    credentials: Credentials,
    plain: bool,
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<HashMap<Scope, Slot>>,
}

impl Authority {
    /// For `registry`, whose name the credentials are looked up by; `plain` when it is spoken to without TLS.
    pub fn new(registry: Registry, credentials: Credentials, plain: bool) -> Self {
        Authority { registry, credentials, plain, challenge: Mutex::default(), tokens: Mutex::default() }
    }

    /// What a request for `scope` in the repository `path` carries, by what is known so far.
    pub async fn header(
        &self,
        transport: &Transport,
        path: &str,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic(path),
            Some(Challenge::Bearer(bearer)) => self.token(transport, &bearer, path, scope, None).await.map(Some),
        }
    }

    /// After a 401: learns its challenge, and gives what the same request carries the second time. `None` when
    /// there is nothing new to show.
    pub async fn answer(
        &self,
        transport: &Transport,
        path: &str,
        scope: &Scope,
        headers: &HeaderMap,
        shown: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let challenge = Challenge::from_headers(headers);
        if challenge.is_some() {
            self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&challenge);
        }
        match challenge {
            None => Ok(None),
            // The password was shown and not taken: it will not be the second time.
            Some(Challenge::Basic) => Ok(self.basic(path)?.filter(|header| Some(header) != shown)),
            Some(Challenge::Bearer(bearer)) => {
                let stale = shown.cloned().unwrap_or_else(|| HeaderValue::from_static(""));
                self.token(transport, &bearer, path, scope, Some(stale)).await.map(Some)
            }
        }
    }

    /// What the operator can do about a 401 or 403.
    pub fn advice(&self, path: &str) -> String {
        let registry = &self.registry;
        match self.login(path) {
            Some(_) => format!(
                "the stored login for {registry} is not valid or may not do this ({}): check its password and its rights on {path}, or log in as another user",
                self.credentials.looked_in()
            ),
            None => format!(
                "no login for {registry} is known here ({}): if {path} is there and not public, run `docker login {registry}` or `podman login {registry}` as this user",
                self.credentials.looked_in()
            ),
        }
    }

    fn login(&self, path: &str) -> Option<Login> {
        self.credentials.find(&self.registry, path)
    }

    fn basic(&self, path: &str) -> Result<Option<HeaderValue>, Trouble> {
        Ok(self.login(path).map(|login| token::basic(&login)).transpose()?)
    }

    /// The token for `scope`: the kept one while it is fresh and is not the `stale` one.
    async fn token(
        &self,
        transport: &Transport,
        bearer: &Bearer,
        path: &str,
        scope: &Scope,
        stale: Option<HeaderValue>,
    ) -> Result<HeaderValue, Trouble> {
        let slot = self.slot(scope);
        let mut kept = slot.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| token.is_fresh() && stale.as_ref() != Some(token.header())) {
            return Ok(token.header().clone());
        }
        *kept = None;
        // What this very request needs may be more than what sealift asks for by itself.
        let wanted = match (&bearer.scope, &stale) {
            (Some(text), Some(_)) => scope.clone().and(text),
            _ => scope.clone(),
        };
        let token = token::fetch(transport, bearer, self.login(path).as_ref(), &wanted, self.plain).await?;
        Ok(kept.insert(token).header().clone())
    }

    fn slot(&self, scope: &Scope) -> Slot {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX && !tokens.contains_key(scope) {
            // Those in use live on in the hands of their users.
            tokens.clear();
        }
        tokens.entry(scope.clone()).or_default().clone()
    }
}
