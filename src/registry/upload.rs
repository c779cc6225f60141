//! Uploading blobs: one POST for a session, one PUT with all bytes.
//!
//! That is the form which every registry takes. ECR loses all but the first chunk, GHCR refuses chunks of over
//! 4 MiB, and distribution 2.8 forgets a session whose chunk was cut, so chunks would gain nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, ready};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response};
use url::Url;

use super::Answer;
use super::endpoint::{Call, Outcome, Streamed, resolve};
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

impl Door {
    pub async fn push_blob<F, Fut>(&self, descriptor: &Descriptor, open: &F, mut hashed: bool) -> Result<()>
    where
        F: Fn(u64) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Body>> + Send,
    {
        let mut attempt = 0;
        let mut refreshed = false;
        let mut patience = self.retry.patience();
        loop {
            attempt += 1;
            // The answer to an upload that arrived may have been lost on its way.
            if attempt > 1 && self.blob_exists(&descriptor.digest).await? == Some(descriptor.size) {
                return Ok(());
            }
            match self.push_once(descriptor, open, hashed).await {
                Ok(Pushed::Whole) => return Ok(()),
                Ok(Pushed::Unauthorised(answer)) if refreshed => return Err(answer.into_error()),
                Ok(Pushed::Unauthorised(_)) => refreshed = true,
                Ok(Pushed::Mismatch(answer)) if hashed => return Err(altered(answer)),
                Ok(Pushed::Mismatch(_)) => hashed = true,
                Err(trouble) => patience.wait(trouble).await?,
            }
        }
    }

    /// One upload.
    async fn push_once<F, Fut>(&self, descriptor: &Descriptor, open: &F, hashed: bool) -> Result<Pushed, Trouble>
    where
        F: Fn(u64) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Body>> + Send,
    {
        let url = self.session(&descriptor.digest).await?;
        let (outgoing, watch) = Outgoing::new(open(0).await?, descriptor, hashed);
        let call = Call::new(Method::PUT, url, &self.path, Scope::push(&self.path))
            .with(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .with(CONTENT_LENGTH, HeaderValue::from(descriptor.size));
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
            Streamed::Answered(Outcome::Bad(answer)) if answer.has_code("DIGEST_INVALID") => {
                Ok(Pushed::Mismatch(answer))
            }
            Streamed::Answered(Outcome::Bad(answer)) => Err(judge(answer)),
        }
    }

    /// Opens an upload and gives the address for its one PUT.
    async fn session(&self, digest: &Digest) -> Result<Url, Trouble> {
        let url = self.endpoint.url(&self.path, "blobs/uploads/")?;
        let call = Call::new(Method::POST, url, &self.path, Scope::push(&self.path));
        let response = match self.endpoint.attempt(&call).await? {
            Outcome::Good(response) => response,
            Outcome::Bad(answer) => return Err(answer.into_error().into()),
        };
        let Some(location) = response.headers().get(LOCATION) else {
            return Err(self.error(format_args!("opened an upload and did not say where (no Location)")).into());
        };
        let mut session = resolve(&call.url, location)?;
        // Appended, never rebuilt: what the address holds already is the registry's own state.
        session.query_pairs_mut().append_pair("digest", &digest.to_string());
        Ok(session)
    }
}

/// How an upload ended, where it was heard out.
enum Pushed {
    Whole,
    /// A 401 for which a fresh token was had.
    Unauthorised(Answer),
    /// The registry found another digest.
    Mismatch(Answer),
}

/// The bytes were right when they were sent.
fn altered(answer: Answer) -> Error {
    Error::verification(format!("{} did not get the bytes that were sent: {answer}", answer.host))
        .help("something on the way alters uploads: look at the proxies before the registry")
}

/// What a refused PUT means.
fn judge(answer: Answer) -> Trouble {
    // The session was lost, as after a restart of the registry: the next upload begins anew.
    let lost = answer.is_absent() || answer.has_code("BLOB_UPLOAD_UNKNOWN") || answer.has_code("BLOB_UPLOAD_INVALID");
    match lost {
        true => Trouble::passing(answer.into_error()),
        false => Trouble::Final(answer.into_error()),
    }
}

/// A body on its way out: counted, and hashed where nobody did before, so that wrong bytes never make a whole upload.
struct Outgoing {
    body: Body,
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
    /// The source is waited for; it has time-outs of its own.
    Source,
    /// The registry is to take bytes that are there.
    Wire,
    /// All bytes were handed out.
    Finish,
}

impl Outgoing {
    fn new(body: Body, descriptor: &Descriptor, hashed: bool) -> (Self, Watch) {
        // Until the first piece is asked for, a connection is made.
        let state = Arc::new(Mutex::new(State { phase: Phase::Wire, since: Instant::now(), failure: None }));
        let watch = Watch { size: descriptor.size, state: state.clone() };
        let hasher = hashed.then(|| descriptor.digest.hasher());
        (Outgoing { body, expected: descriptor.digest, hasher, left: descriptor.size, state }, watch)
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
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
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
            let end = futures_util::StreamExt::next(&mut outgoing.body).await;
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
