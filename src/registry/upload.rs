//! Uploading blobs: one POST for a session, one PUT with all bytes; after a cut, one PUT with the rest.
//!
//! One PUT is the form which every registry takes. ECR loses all but the first chunk, and GHCR refuses chunks of over
//! 4 MiB.
//!
//! A PUT that was cut goes on where the registry says that it stands: `GET` of the session answers 204 with
//! `Range: 0-N`. distribution 3 (measured with 3.1.1) and `sealift serve` do. distribution 2.8 does not: measured with
//! 2.8.2, it keeps the bytes of a cut PUT or PATCH, and then answers 404 `BLOB_UPLOAD_INVALID` ("upload resumed at wrong
//! offset" in its log), for the offset stands in the `_state` of the address. There, and wherever the answer is another,
//! the blob begins anew.
//! `0-0` means one byte or none, everywhere; a client cannot tell, so it counts as none.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, ready};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Request, Response, StatusCode};
use url::Url;

use super::Answer;
use super::endpoint::{Call, Outcome, Streamed, resolve};
use super::limits::Lane;
use super::remote::Door;
use super::retry::Trouble;
use super::scope::Scope;
use super::transport::{Transport, host_of, too_late};
use crate::content::Body;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Hasher};

/// How long a registry may leave bytes of an upload untaken.
const TAKE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a registry may think after the last byte: it hashes the whole blob then, and those with an object
/// store behind them copy it.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How often both are looked at.
const TICK: Duration = Duration::from_secs(1);

/// An upload at the registry.
struct Session {
    /// Where its next request goes, without the digest.
    url: Url,
    /// How many bytes the registry has.
    from: u64,
}

/// How an upload ended, where it was heard out.
enum Pushed {
    Whole,
    /// A 401 for which a fresh token was had.
    Unauthorised(Answer),
    /// The registry found another digest.
    Mismatch(Answer),
    /// The registry does not know this upload, as after a restart; or it does not take the rest of one.
    Lost(Answer),
}

impl Door {
    pub async fn push_blob<F, Fut>(&self, descriptor: &Descriptor, open: &F, mut hashed: bool) -> Result<()>
    where
        F: Fn(u64) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Body>> + Send,
    {
        let (mut again, mut refreshed, mut resumes) = (false, false, true);
        let (mut cut, mut furthest) = (None, 0);
        let mut patience = self.patience();
        loop {
            // Each of the following is an undertaking of its own, and may have to find out what is the matter.
            patience.step_back();
            // The answer to an upload that arrived may have been lost on its way.
            if again && self.blob_exists(&descriptor.digest).await? == Some(descriptor.size) {
                return Ok(());
            }
            again = true;
            let session = match self.go_on(cut.take(), descriptor.size).await {
                Ok(session) => session,
                Err(trouble) => {
                    patience.wait(trouble).await?;
                    continue;
                }
            };
            if session.from > furthest {
                furthest = session.from;
                refreshed = false;
                patience.progressed();
            }
            let resumed = session.from > 0;
            match self.put(&session, descriptor, open, hashed).await {
                Ok(Pushed::Whole) => return Ok(()),
                Ok(Pushed::Unauthorised(answer)) if refreshed => return Err(answer.into_error()),
                Ok(Pushed::Unauthorised(_)) => {
                    refreshed = true;
                    cut = Some(session).filter(|_| resumed);
                }
                // What was sent before may be damaged, or not be there: whole, hashed, and never in parts again.
                Ok(Pushed::Mismatch(_)) if resumed => (hashed, resumes) = (true, false),
                Ok(Pushed::Mismatch(answer)) if hashed => return Err(altered(answer)),
                Ok(Pushed::Mismatch(_)) => hashed = true,
                Ok(Pushed::Lost(answer)) => {
                    resumes &= !resumed;
                    patience.wait(Trouble::passing(answer.into_error())).await?;
                }
                Err(trouble) => {
                    cut = Some(session).filter(|_| resumes);
                    patience.wait(trouble).await?;
                }
            }
        }
    }

    /// The session that was cut, where the registry can go on with it; else a new one.
    async fn go_on(&self, cut: Option<Session>, size: u64) -> Result<Session, Trouble> {
        if let Some(cut) = cut {
            match self.status(&cut, size).await {
                Ok(Some(session)) => return Ok(session),
                Ok(None) => tracing::debug!(host = self.endpoint.host(), "the upload cannot go on, and begins anew"),
                Err(trouble) => tracing::debug!(?trouble, "the upload begins anew"),
            }
        }
        self.begin().await
    }

    /// How far the registry is with a session; `None` when it has nothing that could be gone on with.
    async fn status(&self, cut: &Session, size: u64) -> Result<Option<Session>, Trouble> {
        // At another host all rights are in the address, which is for PUT alone.
        if !self.endpoint.is_own(&cut.url) {
            return Ok(None);
        }
        let call = Call::new(Method::GET, cut.url.clone(), &self.path, Scope::push(&self.path));
        let Outcome::Good(response) = self.endpoint.attempt(&call).await? else { return Ok(None) };
        let stored = response.headers().get(RANGE).and_then(|range| stored(range.to_str().ok()?));
        let Some(from) = stored.filter(|&from| response.status() == StatusCode::NO_CONTENT && from <= size) else {
            return Ok(None);
        };
        let url = match response.headers().get(LOCATION) {
            Some(location) => resolve(&cut.url, location)?,
            None => cut.url.clone(),
        };
        Ok(Some(Session { url, from }).filter(|session| self.endpoint.is_own(&session.url)))
    }

    /// Opens an upload.
    async fn begin(&self) -> Result<Session, Trouble> {
        let url = self.endpoint.url(&self.path, "blobs/uploads/")?;
        let call = Call::new(Method::POST, url, &self.path, Scope::push(&self.path));
        let response = match self.endpoint.attempt(&call).await? {
            Outcome::Good(response) => response,
            Outcome::Bad(answer) => return Err(answer.into_error().into()),
        };
        let Some(location) = response.headers().get(LOCATION) else {
            return Err(self.error(format_args!("opened an upload and did not say where (no Location)")).into());
        };
        Ok(Session { url: resolve(&call.url, location)?, from: 0 })
    }

    /// Sends all that the registry does not have yet.
    async fn put<F, Fut>(
        &self,
        session: &Session,
        descriptor: &Descriptor,
        open: &F,
        hashed: bool,
    ) -> Result<Pushed, Trouble>
    where
        F: Fn(u64) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Body>> + Send,
    {
        let from = session.from;
        let body = if from > 0 && from == descriptor.size { Body::full("") } else { open(from).await? };
        // Of a rest no digest is known here: the registry's own check decides.
        let hasher = (hashed && from == 0).then(|| descriptor.digest.hasher());
        let (outgoing, watch) = Outgoing::new(paced(body, self.endpoint.lane.clone()), descriptor, from, hasher);
        let call = self.put_call(session, descriptor)?;
        let sent = self.endpoint.attempt_stream(&call, |transport, request| watch.send(transport, request, outgoing));
        match sent.await? {
            Streamed::Unauthorised(answer) => Ok(Pushed::Unauthorised(answer)),
            // 201 by the specification; 204 from older registries.
            Streamed::Answered(Outcome::Good(response)) if matches!(response.status().as_u16(), 201 | 204) => {
                Ok(Pushed::Whole)
            }
            Streamed::Answered(Outcome::Good(response)) => {
                let status = response.status().as_u16();
                Err(self.error(format_args!("answered {status} to a whole upload, expected 201")).into())
            }
            Streamed::Answered(Outcome::Bad(answer)) => judge(answer, from > 0),
        }
    }

    fn put_call(&self, session: &Session, descriptor: &Descriptor) -> Result<Call> {
        let (from, size) = (session.from, descriptor.size);
        let mut url = session.url.clone();
        // Appended, never rebuilt: what the address holds already is the registry's own state.
        url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let call = Call::new(Method::PUT, url, &self.path, Scope::push(&self.path))
            .with(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .with(CONTENT_LENGTH, HeaderValue::from(size - from));
        if from == 0 || from == size {
            return Ok(call);
        }
        // Not of a whole upload, which some registries would take for a chunk.
        let range = HeaderValue::from_str(&format!("{from}-{}", size - 1));
        Ok(call.with(CONTENT_RANGE, range.map_err(|error| Error::failed(error.to_string()))?))
    }
}

/// How many bytes `Range: 0-N` says that a registry has; `None` where there is nothing to go on from.
fn stored(range: &str) -> Option<u64> {
    let last: u64 = range.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    last.checked_add(1).filter(|_| last > 0)
}

/// The bytes were right when they were sent.
fn altered(answer: Answer) -> Error {
    Error::verification(format!("{} did not get the bytes that were sent: {answer}", answer.host))
        .help("something on the way alters uploads: look at the proxies before the registry")
}

/// What a refused PUT means.
fn judge(answer: Answer, resumed: bool) -> Result<Pushed, Trouble> {
    if answer.has_code("DIGEST_INVALID") {
        return Ok(Pushed::Mismatch(answer));
    }
    let lost = answer.is_absent() || answer.has_code("BLOB_UPLOAD_UNKNOWN") || answer.has_code("BLOB_UPLOAD_INVALID");
    // A whole upload may be taken where a rest is not; what is not allowed is not allowed in any form.
    let rest_refused = resumed && !matches!(answer.status, 403 | 405 | 413);
    match lost || rest_refused {
        true => Ok(Pushed::Lost(answer)),
        false => Err(Trouble::Final(answer.into_error())),
    }
}

/// The pieces of `body` at the pace of `lane`. They are cut into slices where that is needed, so that none is so long on
/// its way that the registry gives the upload up.
fn paced(body: Body, lane: Arc<Lane>) -> BoxStream<'static, Result<Bytes>> {
    let next = |(mut body, mut rest, lane): (Body, Bytes, Arc<Lane>)| async move {
        if rest.is_empty() {
            rest = match body.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), (body, rest, lane))),
            };
        }
        let slice = lane.slice().and_then(|slice| usize::try_from(slice).ok()).unwrap_or(usize::MAX);
        let piece = rest.split_to(slice.min(rest.len()));
        lane.pass(piece.len() as u64).await;
        Some((Ok(piece), (body, rest, lane)))
    };
    stream::unfold((body, Bytes::new(), lane), next).boxed()
}

/// A body on its way out: counted, and hashed where nobody did before, so that wrong bytes never make a whole upload.
struct Outgoing {
    body: BoxStream<'static, Result<Bytes>>,
    expected: Digest,
    hasher: Option<Hasher>,
    left: u64,
    state: Arc<Mutex<State>>,
}

/// The other end of an [`Outgoing`].
struct Watch {
    size: u64,
    state: Arc<Mutex<State>>,
}

struct State {
    phase: Phase,
    since: Instant,
    /// What the source failed with, which the connection only shows as a broken body.
    failure: Option<Error>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// The source is waited for, which has time-outs of its own, or a limit of this side.
    Source,
    /// The registry is to take bytes that are there.
    Wire,
    /// All bytes were handed out.
    Finish,
}

impl Outgoing {
    fn new(
        body: BoxStream<'static, Result<Bytes>>,
        descriptor: &Descriptor,
        from: u64,
        hasher: Option<Hasher>,
    ) -> (Self, Watch) {
        // Until the first piece is asked for, a connection is made.
        let state = Arc::new(Mutex::new(State { phase: Phase::Wire, since: Instant::now(), failure: None }));
        let left = descriptor.size - from;
        let watch = Watch { size: left, state: state.clone() };
        (Outgoing { body, expected: descriptor.digest, hasher, left, state }, watch)
    }

    fn enter(&self, phase: Phase) {
        let mut state = lock(&self.state);
        if state.phase != phase || phase == Phase::Wire {
            (state.phase, state.since) = (phase, Instant::now());
        }
    }

    /// Takes note of the next piece. The last one is let go only when all are right.
    fn check(&mut self, piece: Option<Result<Bytes>>) -> Result<Option<Bytes>> {
        let Some(piece) = piece.transpose()? else {
            return match self.left {
                0 => self.check_digest().map(|()| None),
                left => Err(Error::verification(format!("the blob ended {left} bytes before its announced size"))),
            };
        };
        let over = || Error::verification("the blob is longer than its announced size");
        self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(over)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        if self.left == 0 {
            self.check_digest()?;
        }
        Ok(Some(piece))
    }

    fn check_digest(&mut self) -> Result<()> {
        // Taken: the digest is checked once.
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.expected => Err(Error::verification(format!(
                "the blob's bytes have the digest {found}, expected {}",
                self.expected
            ))),
            _ => Ok(()),
        }
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        self.enter(Phase::Source);
        let piece = ready!(self.body.poll_next_unpin(context));
        let checked = self.check(piece);
        self.enter(if self.left == 0 { Phase::Finish } else { Phase::Wire });
        Poll::Ready(match checked {
            Ok(piece) => piece.map(Ok),
            Err(error) => {
                lock(&self.state).failure = Some(error);
                Some(Err(std::io::Error::other("the source failed")))
            }
        })
    }
}

impl Watch {
    /// Sends `request` with the body, for as long as either the source or the registry goes on.
    async fn send(
        self,
        transport: Arc<Transport>,
        mut request: Request,
        mut outgoing: Outgoing,
    ) -> Result<Response, Trouble> {
        let host = host_of(request.url());
        if self.size == 0 {
            // No byte is asked for when none is announced.
            let end = outgoing.body.next().await;
            let empty = outgoing.check(end.filter(|piece| !matches!(piece, Ok(bytes) if bytes.is_empty())))?;
            *request.body_mut() = Some(empty.unwrap_or_default().into());
        } else {
            *request.body_mut() = Some(reqwest::Body::wrap_stream(outgoing));
        }
        let sent = tokio::select! {
            sent = transport.execute(request) => sent,
            limit = self.stalled() => Err(too_late(&host, limit)),
        };
        // The source's own word says more than the connection that it broke, unless the registry answered.
        match (sent, lock(&self.state).failure.take()) {
            (Err(_), Some(failure)) => Err(Trouble::Final(failure)),
            (sent, _) => sent,
        }
    }

    /// Returns when the registry has stood still for too long.
    async fn stalled(&self) -> Duration {
        loop {
            tokio::time::sleep(TICK).await;
            let state = lock(&self.state);
            let limit = match state.phase {
                Phase::Source => continue,
                Phase::Wire => TAKE_TIMEOUT,
                Phase::Finish => FINISH_TIMEOUT,
            };
            if state.since.elapsed() > limit {
                return limit;
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_that_it_has() {
        let rows = [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-1", Some(2)),
            ("0-0", None),
            ("5-9", None),
            ("0-", None),
            ("0--1", None),
            ("", None),
            ("0-18446744073709551615", None),
        ];
        for (range, expected) in rows {
            assert_eq!(stored(range), expected, "{range:?}");
        }
    }
}
