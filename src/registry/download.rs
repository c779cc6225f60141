//! Downloading blobs: a stream that goes on where it was cut.
//!
//! Each new beginning goes through the registry again, never to the address of an earlier redirect: those
//! expire. It asks for the rest with `Range`; where that is not understood, it reads from the start and passes
//! over what was delivered. Attempts count only while next to nothing new arrives.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};

use super::blobs::content_length;
use super::endpoint::{Call, Endpoint, Outcome};
use super::limits::Held;
use super::remote::{Door, Remote};
use super::retry::{Patience, Trouble};
use super::scope::Scope;
use super::transport::{encoding_of, next_piece};
use crate::content::{Body, Sender};
use crate::error::{Error, Result};
use crate::oci::Descriptor;

/// What can be done about bytes that are not the announced ones.
pub(super) const ALTERED: &str =
    "the registry or a proxy before it hands out damaged or altered content: try again, or use another mirror";

/// How much has to be new for the attempts to begin anew. A registry that breaks off after each byte would be asked as often
/// as a layer has bytes.
const PROGRESS_MIN: u64 = 64 * 1024;

/// An answer that carries a blob, and how many of its first bytes were delivered before.
struct Opened {
    response: Held,
    /// Whose bandwidth it uses.
    endpoint: Arc<Endpoint>,
    skip: u64,
}

/// One download on its way.
struct Download {
    remote: Remote,
    descriptor: Descriptor,
    /// How many bytes of the blob were delivered, including those before the first offset.
    at: u64,
    /// Where the attempts began to be counted.
    counted_from: u64,
    patience: Patience,
}

/// How reading one answer ended.
enum Drained {
    Whole,
    /// Nobody listens any more.
    Gone,
    Cut(Trouble),
}

impl Remote {
    /// Opens a blob; `None` when it is not there.
    pub(super) async fn try_open_blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Option<Body>> {
        let operation = || format!("fetch blob {}@{}", self.repository(), descriptor.digest);
        if offset >= descriptor.size {
            // Never asked of a registry: distribution 2.8 answers 416 with a body that does not come.
            return match offset == descriptor.size {
                true => Ok(Some(Body::full(""))),
                false => {
                    let error = Error::failed(format!("byte {offset} is behind its end at {}", descriptor.size));
                    self.tell(Err(error), operation)
                }
            };
        }
        let opened = self.own.retry.run(&self.own.endpoint.health, || self.connect(descriptor, offset)).await;
        let Some(opened) = self.tell(opened, operation)? else { return Ok(None) };
        let (sender, body) = Body::channel();
        let patience = self.own.patience();
        let download = Download {
            remote: self.clone(),
            descriptor: descriptor.clone(),
            at: offset,
            counted_from: offset,
            patience,
        };
        tokio::spawn(download.run(opened, sender));
        Ok(Some(body))
    }

    /// One attempt at an answer with the bytes from `at` on: from the mirrors, then from the registry.
    async fn connect(&self, descriptor: &Descriptor, at: u64) -> Result<Option<Opened>, Trouble> {
        for mirror in self.mirrors.iter().filter(|mirror| !mirror.endpoint.health.rests()) {
            match mirror.open(descriptor, at).await {
                Ok(Some(opened)) => return Ok(Some(opened)),
                Ok(None) => {}
                Err(trouble) => {
                    let (host, error) = (mirror.endpoint.host(), mirror.patience().give_up(trouble).await);
                    tracing::warn!(mirror = host, repository = %self.repository(), %error, "passing over the mirror");
                }
            }
        }
        self.own.open(descriptor, at).await
    }
}

impl Door {
    async fn open(&self, descriptor: &Descriptor, at: u64) -> Result<Option<Opened>, Trouble> {
        let url = self.endpoint.url(&self.path, &format!("blobs/{}", descriptor.digest))?;
        let call = Call::new(Method::GET, url, &self.path, Scope::pull(&self.path));
        if at > 0
            && let Some(opened) = self.open_range(&call, descriptor, at).await?
        {
            return Ok(Some(opened));
        }
        match self.endpoint.attempt(&call).await? {
            Outcome::Good(response) => self.whole(response, descriptor, at).map(Some),
            Outcome::Bad(answer) if answer.is_absent() => Ok(None),
            Outcome::Bad(answer) => Err(answer.into_error().into()),
        }
    }

    /// With `Range`; `None` when the answer is neither that range nor the whole blob.
    async fn open_range(&self, call: &Call, descriptor: &Descriptor, at: u64) -> Result<Option<Opened>, Trouble> {
        let range = HeaderValue::from_str(&format!("bytes={at}-")).map_err(|error| Error::failed(error.to_string()))?;
        let Outcome::Good(response) = self.endpoint.attempt(&call.clone().with(RANGE, range)).await? else {
            return Ok(None);
        };
        if response.status().as_u16() != 206 {
            return self.whole(response, descriptor, at).map(Some);
        }
        let told = response.headers().get(CONTENT_RANGE).and_then(|value| content_range(value.to_str().ok()?));
        match told {
            Some((start, all)) if start == at => {
                self.check_size(all, descriptor, &encoding_of(response.headers()))?;
                Ok(Some(Opened { response, endpoint: self.endpoint.clone(), skip: 0 }))
            }
            _ => Ok(None),
        }
    }

    fn whole(&self, response: Held, descriptor: &Descriptor, at: u64) -> Result<Opened, Trouble> {
        let encoding = encoding_of(response.headers());
        if !encoding.is_empty() {
            // Whoever finds another digest behind it does not see these headers.
            tracing::warn!(host = self.endpoint.host(), digest = %descriptor.digest, "odd answer{encoding}");
        }
        self.check_size(content_length(response.headers()), descriptor, &encoding)?;
        Ok(Opened { response, endpoint: self.endpoint.clone(), skip: at })
    }

    fn check_size(&self, told: Option<u64>, descriptor: &Descriptor, encoding: &str) -> Result<()> {
        match told.filter(|&told| told != descriptor.size) {
            Some(told) => Err(wrong_size(self.endpoint.host(), format_args!("has {told} bytes{encoding}"), descriptor)),
            None => Ok(()),
        }
    }
}

impl Download {
    async fn run(mut self, mut opened: Opened, sender: Sender) {
        let end = loop {
            match self.drain(opened, &sender).await {
                Drained::Whole => break Ok(()),
                Drained::Gone => return,
                Drained::Cut(trouble) => match self.go_on(trouble).await {
                    Ok(again) => opened = again,
                    Err(error) => break Err(error),
                },
            }
        };
        let operation = || format!("fetch blob {}@{}", self.remote.repository(), self.descriptor.digest);
        sender.finish(self.remote.tell(end, operation)).await;
    }

    /// Hands over what an answer brings.
    async fn drain(&mut self, opened: Opened, sender: &Sender) -> Drained {
        let Opened { mut response, endpoint, mut skip } = opened;
        let host = super::transport::host_of(response.url());
        loop {
            let piece = tokio::select! {
                piece = next_piece(&mut response) => piece,
                // The connection is not kept for nobody.
                () = sender.gone() => return Drained::Gone,
            };
            let mut piece = match piece {
                Ok(Some(piece)) => piece,
                // All is here: whether the connection ended well does not matter.
                Ok(None) | Err(_) if self.at == self.descriptor.size => return Drained::Whole,
                Ok(None) => return Drained::Cut(self.too_short(&host)),
                Err(trouble) => return Drained::Cut(trouble),
            };
            // What is passed over came over the line as well.
            endpoint.lane.pass(piece.len() as u64).await;
            let passed = skip.min(piece.len() as u64);
            // Not longer than the piece, so it fits.
            bytes::Buf::advance(&mut piece, passed as usize);
            skip -= passed;
            if piece.is_empty() {
                continue;
            }
            if piece.len() as u64 > self.descriptor.size - self.at {
                return Drained::Cut(wrong_size(&host, format_args!("sends more bytes"), &self.descriptor).into());
            }
            self.at += piece.len() as u64;
            self.progressed();
            if sender.send(piece).await.is_err() {
                return Drained::Gone;
            }
        }
    }

    /// A piece came that is new.
    fn progressed(&mut self) {
        // It is heard of, so others need not wait for this one.
        self.patience.step_back();
        if self.at - self.counted_from >= PROGRESS_MIN {
            self.counted_from = self.at;
            self.patience.progressed();
        }
    }

    fn too_short(&self, host: &str) -> Trouble {
        let size = self.descriptor.size;
        let error = Error::failed(format!("{host} ended after {} of {size} bytes", self.at));
        Trouble::passing(error.help("run the same command again: it goes on where it stopped. If it always stops there, the registry has lost the rest, or a proxy before it cuts large answers"))
    }

    /// The next beginning after trouble; the error when patience is at its end.
    async fn go_on(&mut self, mut trouble: Trouble) -> Result<Opened> {
        loop {
            self.patience.wait(trouble).await?;
            tracing::debug!(digest = %self.descriptor.digest, at = self.at, "the download goes on");
            match self.remote.connect(&self.descriptor, self.at).await {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => return Err(Error::failed("404: the blob has gone while it was fetched")),
                Err(again) => trouble = again,
            }
        }
    }
}

fn wrong_size(host: &str, what: std::fmt::Arguments<'_>, descriptor: &Descriptor) -> Error {
    let size = descriptor.size;
    Error::verification(format!("{host} {what}, though the manifest announces {size}")).help(ALTERED)
}

/// Start and complete length from `bytes 5-9/10`; the length may be `*` (RFC 9110, section 14.4).
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, all) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let all = match all.trim() {
        "*" => None,
        all => Some(all.parse().ok()?),
    };
    Some((start.trim().parse().ok()?, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for text in ["bytes */10", "5-9/10", "bytes 5-9", "", "bytes x-9/10"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
