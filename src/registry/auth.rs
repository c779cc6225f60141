//! [`Authority`]: what goes into `Authorization` for one base address.
//!
//! The first request to a host goes out bare and learns from the 401 what is wanted. From then on the right
//! token is had before each request, so that no upload starts only to be refused. Credentials are looked up when
//! a host has asked for them, and go nowhere but to that host and to the token server that it names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderMap, HeaderValue};

use super::answer::Answer;
use super::challenge::{Bearer, Challenge};
use super::credentials::{Credentials, Found, Login};
use super::retry::Trouble;
use super::scope::Scope;
use super::token::{self, Fetched, Token};
use super::transport::Transport;
use crate::error::Result;
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

/// What a request carries after it was refused.
pub(super) struct Next {
    pub header: HeaderValue,
    /// Another request has had it before. It may have ended since; what was just fetched has not.
    pub kept: bool,
}

impl Next {
    fn new(header: HeaderValue) -> Self {
        Next { header, kept: false }
    }
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
        match self.challenge() {
            None => Ok(None),
            Some(Challenge::Basic) => self.direct(path, None).await,
            Some(Challenge::Bearer(bearer)) => {
                Ok(self.token(transport, &bearer, path, scope, None).await?.map(|next| next.header))
            }
        }
    }

    /// After a 401: learns its challenge, and gives what the same request carries the next time. `None` when
    /// there is nothing new to show.
    pub async fn answer(
        &self,
        transport: &Transport,
        path: &str,
        scope: &Scope,
        headers: &HeaderMap,
        shown: Option<&HeaderValue>,
    ) -> Result<Option<Next>, Trouble> {
        let challenge = Challenge::from_headers(headers);
        if challenge.is_some() {
            self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&challenge);
        }
        let stale = shown.cloned().unwrap_or_else(|| HeaderValue::from_static(""));
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.direct(path, Some(stale)).await?.map(Next::new)),
            Some(Challenge::Bearer(bearer)) => self.token(transport, &bearer, path, scope, Some(stale)).await,
        }
    }

    /// Whether this host has asked for a login.
    pub fn is_challenged(&self) -> bool {
        self.challenge().is_some()
    }

    /// What the operator can do about a 401 or 403. Asks no helper: a host may refuse without wanting a login.
    pub fn advice(&self, path: &str) -> String {
        let (registry, looked_in) = (&self.registry, self.credentials.looked_in());
        match self.credentials.known(registry, path) {
            Some(origin) => format!(
                "the login for {registry} from {origin} is not valid or may not do this: check its password and its rights on {path}, or log in as another user ({looked_in})"
            ),
            None => format!(
                "no login for {registry} is known here ({looked_in}): if {path} is there and not public, run `docker login {registry}` or `podman login {registry}` as this user"
            ),
        }
    }

    /// The login for a repository at this host. May start a helper.
    pub async fn login(&self, path: &str) -> Result<Option<Found>> {
        self.credentials.find(&self.registry, path).await
    }

    fn challenge(&self) -> Option<Challenge> {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The login itself. A `stale` one was shown and not taken: it will not be the second time, but a helper may have a
    /// newer one.
    async fn direct(&self, path: &str, stale: Option<HeaderValue>) -> Result<Option<HeaderValue>, Trouble> {
        let Some(found) = self.login(path).await? else { return Ok(None) };
        let header = token::direct(&found.login)?;
        if stale.as_ref() != Some(&header) {
            return Ok(Some(header));
        }
        let renewed = self.credentials.renew(&self.registry, path, &found).await?;
        Ok(renewed.map(|found| token::direct(&found.login)).transpose()?)
    }

    /// The token for `scope`: the kept one while it is fresh and is not the `stale` one.
    async fn token(
        &self,
        transport: &Transport,
        bearer: &Bearer,
        path: &str,
        scope: &Scope,
        stale: Option<HeaderValue>,
    ) -> Result<Option<Next>, Trouble> {
        let slot = self.slot(scope);
        let mut kept = slot.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| token.is_fresh() && stale.as_ref() != Some(token.header())) {
            return Ok(Some(Next { header: token.header().clone(), kept: true }));
        }
        *kept = None;
        let found = self.login(path).await?;
        if let Some(Found { login: login @ Login::Bearer { .. }, .. }) = &found {
            let header = token::direct(login)?;
            return Ok(Some(header).filter(|header| stale.as_ref() != Some(header)).map(Next::new));
        }
        // What this very request needs may be more than what sealift asks for by itself. Where it asks for nothing, some
        // registries name a repository as an example.
        let wanted = match (&bearer.scope, &stale) {
            (Some(text), Some(_)) if !scope.is_empty() => scope.clone().and(text),
            _ => scope.clone(),
        };
        // In a box: it is rare, and its state would lie in that of every request.
        let token = Box::pin(self.fetch(transport, bearer, path, &wanted, found)).await?;
        Ok(Some(Next::new(kept.insert(token).header().clone())))
    }

    /// A token from the token server; where it does not take the login of a helper, the helper is asked for a newer one.
    async fn fetch(
        &self,
        transport: &Transport,
        bearer: &Bearer,
        path: &str,
        scope: &Scope,
        found: Option<Found>,
    ) -> Result<Token, Trouble> {
        let login = found.as_ref().map(|found| &found.login);
        let mut answer = match token::fetch(transport, bearer, login, scope, self.plain).await? {
            Fetched::Token(token) => return Ok(token),
            Fetched::Refused(answer) => answer,
        };
        let Some(found) = found else {
            answer.help = Some(self.advice(path));
            return Err(answer.into_trouble());
        };
        let Some(newer) = self.credentials.renew(&self.registry, path, &found).await? else {
            return Err(refused(answer, &found));
        };
        match token::fetch(transport, bearer, Some(&newer.login), scope, self.plain).await? {
            Fetched::Token(token) => Ok(token),
            Fetched::Refused(answer) => Err(refused(answer, &newer)),
        }
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

/// A token server did not take a login.
fn refused(mut answer: Answer, found: &Found) -> Trouble {
    answer.help = Some(format!("the token server did not take the login from {}: log in again", found.origin));
    answer.into_trouble()
}
