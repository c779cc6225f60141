//! [`Body`]: the bytes of one blob on their way from a Source to a Target.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// How many pieces may wait between producer and consumer. With [`PIECE_SIZE`] this bounds the memory
/// of one transfer to about a megabyte.
const PIECES_WAITING_MAX: usize = 3;

/// How large the pieces are that files are read in. Measured: larger buffers are slower.
pub const PIECE_SIZE: usize = 256 * 1024;

/// A stream of bytes with a bounded queue between producer and consumer.
///
/// The producer is a task (network) or a blocking thread (file); so is the consumer. It ends with the
/// last byte, or with the first error. A producer that vanishes without a word before it was
/// [`Sender::finish`]ed is an error too, so a cut stream is never taken for a whole one.
pub struct Body {
    pieces: mpsc::Receiver<Piece>,
    over: bool,
    counter: Option<Arc<AtomicU64>>,
}

enum Piece {
    Bytes(Bytes),
    End,
    Failed(Error),
}

/// The producer's end of a [`Body`].
pub struct Sender(mpsc::Sender<Piece>);

/// The consumer has gone: stop producing.
#[derive(Debug)]
pub struct Gone;

impl Body {
    /// A body and the end into which its bytes are put.
    pub fn channel() -> (Sender, Body) {
        Self::channel_of(PIECES_WAITING_MAX)
    }

    /// The same with room for `waiting` pieces, of which there must be one at least: for a second queue behind a first,
    /// which holds enough.
    pub fn channel_of(waiting: usize) -> (Sender, Body) {
        let (sender, pieces) = mpsc::channel(waiting.max(1));
        (Sender(sender), Body { pieces, over: false, counter: None })
    }

    /// A body of bytes that are in memory already.
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        let (sender, pieces) = mpsc::channel(2);
        // Two places are free in a new queue, and its receiver lives.
        let _ = sender.try_send(Piece::Bytes(bytes.into()));
        let _ = sender.try_send(Piece::End);
        Body { pieces, over: false, counter: None }
    }

    /// Adds the bytes that are taken out from now on to `counter`.
    pub fn counted(mut self, counter: Arc<AtomicU64>) -> Body {
        self.counter = Some(counter);
        self
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.over {
            return None;
        }
        let piece = self.pieces.recv().await;
        self.take(piece)
    }

    /// The next bytes, for a consumer on a blocking thread.
    pub fn blocking_next(&mut self) -> Option<Result<Bytes>> {
        if self.over {
            return None;
        }
        let piece = self.pieces.blocking_recv();
        self.take(piece)
    }

    fn take(&mut self, piece: Option<Piece>) -> Option<Result<Bytes>> {
        match piece {
            Some(Piece::Bytes(bytes)) => {
                if let Some(counter) = &self.counter {
                    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                Some(Ok(bytes))
            }
            Some(Piece::End) => {
                self.over = true;
                None
            }
            Some(Piece::Failed(error)) => {
                self.over = true;
                Some(Err(error))
            }
            None => {
                self.over = true;
                Some(Err(Error::failed("the transfer was broken off")))
            }
        }
    }
}

impl Stream for Body {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<Option<Self::Item>> {
        if self.over {
            return task::Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| self.take(piece))
    }
}

impl Sender {
    /// Waits until the consumer has gone.
    pub async fn gone(&self) {
        self.0.closed().await;
    }

    /// Hands over the next bytes; waits while the queue is full.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.0.send(Piece::Bytes(bytes)).await.map_err(|_| Gone)
    }

    /// The same from a blocking thread.
    pub fn blocking_send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.0.blocking_send(Piece::Bytes(bytes)).map_err(|_| Gone)
    }

    /// Says that all is said: with `Ok` after the last byte, or with the error that ended it.
    pub async fn finish(self, end: Result<()>) {
        let _ = self.0.send(Self::last(end)).await;
    }

    /// The same from a blocking thread.
    pub fn blocking_finish(self, end: Result<()>) {
        let _ = self.0.blocking_send(Self::last(end));
    }

    fn last(end: Result<()>) -> Piece {
        match end {
            Ok(()) => Piece::End,
            Err(error) => Piece::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_that_vanishes_is_an_error() {
        let (sender, mut body) = Body::channel();
        drop(sender);
        assert!(body.blocking_next().is_some_and(|end| end.is_err()));
        assert!(body.blocking_next().is_none());
    }

    #[test]
    fn a_full_body_ends() {
        let mut body = Body::full("abc");
        assert_eq!(body.blocking_next().and_then(Result::ok).as_deref(), Some(&b"abc"[..]));
        assert!(body.blocking_next().is_none());
    }
}
