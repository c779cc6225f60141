//! The store as a [`Source`] and a [`Target`].

use std::fs::File;
use std::sync::Arc;

use super::{Store, ingest};
use crate::content::{Body, PIECE_SIZE, Rejected, Source, Status, Target, Work, read_piece};
use crate::error::{Context, Error, Result, Side};
use crate::oci::Digest;

impl Source for Arc<Store> {
    async fn open(&self, work: &Work, offset: u64) -> Result<Body> {
        self.body(&work.descriptor.digest, offset, work.span.end)
    }
}

impl Store {
    /// The bytes of a blob from `offset` to `end`, read by a blocking thread of their own.
    pub fn body(&self, digest: &Digest, offset: u64, end: u64) -> Result<Body> {
        Ok(file_body(self.open_blob(digest)?, offset, end))
    }
}

impl Target for Arc<Store> {
    async fn status(&self, work: &Work) -> Result<Status> {
        if self.has(&work.descriptor) {
            return Ok(Status::Present);
        }
        Ok(Status::From(ingest::resumable(self, &work.descriptor)))
    }

    async fn take<S: Source>(&self, work: &Work, offset: u64, source: &S) -> Result<(), Rejected> {
        let body = source.open(work, offset).await?;
        let (store, descriptor) = (Arc::clone(self), work.descriptor.clone());
        tokio::task::spawn_blocking(move || ingest::take(&store, &descriptor, offset, body))
            .await
            .unwrap_or_else(|error| Err(Error::failed(format!("writing stopped: {error}")).on(Side::Store).into()))
    }
}

/// The bytes of `file` from `offset` to `end`, read by a blocking thread of its own.
fn file_body(file: File, offset: u64, end: u64) -> Body {
    let (sender, body) = Body::channel();
    tokio::task::spawn_blocking(move || {
        let mut at = offset;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_SIZE);
            let piece = match read_piece(&file, at, length) {
                Ok(piece) => piece,
                Err(error) => return sender.blocking_finish(Err(error).on(Side::Store).while_(|| "read a blob")),
            };
            at += length as u64;
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
        sender.blocking_finish(Ok(()));
    });
    body
}
