//! Blobs: looking up and mounting.

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, LOCATION};

use super::endpoint::{Call, Outcome, resolve, same_origin};
use super::remote::Door;
use super::scope::Scope;
use crate::error::Result;
use crate::oci::Digest;

impl Door {
    pub async fn blob_exists(&self, digest: &Digest) -> Result<Option<u64>> {
        let url = self.endpoint.url(&self.path, &format!("blobs/{digest}"))?;
        let head = Call::new(Method::HEAD, url, &self.path, Scope::pull(&self.path));
        match self.ask(&head).await? {
            Outcome::Good(response) => {
                if let Some(size) = content_length(response.headers()) {
                    return Ok(Some(size));
                }
            }
            Outcome::Bad(answer) if answer.is_absent() => return Ok(None),
            // Redirects lead to addresses that are signed for GET alone.
            Outcome::Bad(_) => {}
        }
        match self.ask(&Call { method: Method::GET, ..head }).await? {
            // The body is not read: dropping the answer closes the connection.
            Outcome::Good(response) => Ok(content_length(response.headers())),
            Outcome::Bad(answer) if answer.is_absent() => Ok(None),
            Outcome::Bad(answer) => Err(answer.into_error()),
        }
    }

    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool> {
        let mut url = self.endpoint.url(&self.path, "blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        // Token servers may grant less without a word; the refusal that follows is no more than "not mounted".
        let scope = Scope::push(&self.path).with(from, &["pull"]);
        let call = Call::new(Method::POST, url, &self.path, scope);
        let outcome = self.retry.run(&self.endpoint.health, || async {
            match self.endpoint.attempt(&call).await {
                Err(super::retry::Trouble::Final(error)) => {
                    tracing::debug!(%error, "not mounted");
                    Ok(None)
                }
                other => other.map(Some),
            }
        });
        let Some(Outcome::Good(response)) = outcome.await? else { return Ok(false) };
        if response.status().as_u16() == 201 {
            return Ok(true);
        }
        let headers = response.headers().clone();
        // Given back first: the next request may need this very turn.
        drop(response);
        self.cancel(&call, &headers).await;
        Ok(false)
    }

    /// Ends an upload that the registry opened instead of mounting. Only good manners: it forgets it by itself.
    async fn cancel(&self, asked: &Call, headers: &HeaderMap) {
        let session = headers.get(LOCATION).and_then(|location| resolve(&asked.url, location).ok());
        if let Some(url) = session.filter(|url| same_origin(url, &asked.url)) {
            let call = Call::new(Method::DELETE, url, &self.path, Scope::push(&self.path));
            // distribution wants the right to delete for it: ignored.
            let _ = self.endpoint.attempt(&call).await;
        }
    }
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
