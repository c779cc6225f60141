//! The bodies of requests on their way in, and those of blobs on their way out.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::fault::{Code, Fault};
use super::server::{blocking, header};
use super::sessions::Held;
use crate::content;

/// How many pieces of a body may wait for the thread that writes them.
const PIECES_WAITING_MAX: usize = 4;

/// How long a client may send nothing in the middle of a body.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a client may take nothing in the middle of a blob.
pub(super) const STALL_MAX: Duration = Duration::from_secs(60);

/// How much of the body of a request that failed is read and thrown away, in bytes.
const DRAINED_MAX: u64 = 64 * 1024 * 1024;

/// How long that may take.
const DRAINING_MAX: Duration = Duration::from_secs(5);

/// The `Content-Length` of a request; `None` when the body has no length known before.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    header(headers, CONTENT_LENGTH).and_then(|length| length.parse().ok())
}

/// The next bytes of a body; `None` at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Fault> {
    loop {
        let frame = timeout(SILENCE_MAX, body.frame()).await.map_err(|_| {
            Fault::new(Code::BlobUploadInvalid, "the client sent nothing for too long")
                .status(StatusCode::REQUEST_TIMEOUT)
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(Fault::new(Code::BlobUploadInvalid, format!("the body broke off: {error}")));
            }
            // Trailers are passed over.
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Reads what is left of the body of a request that failed, within bounds. A connection that is closed while the
/// client still sends is reset, and the client never sees why.
pub(super) async fn drain(body: &mut Body) {
    let all = async {
        let mut left = DRAINED_MAX;
        while let Ok(Some(bytes)) = next(body).await {
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Either way the answer is sent now.
    let _ = timeout(DRAINING_MAX, all).await;
}

/// A body of `limit` bytes at the most: 413 where it is larger.
pub(super) async fn read_small(body: &mut Body, headers: &HeaderMap, limit: u64) -> Result<Bytes, Fault> {
    let too_large = || {
        Fault::new(Code::ManifestInvalid, format!("the manifest is larger than {limit} bytes"))
            .status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    if content_length(headers).is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(bytes) = next(body).await? {
        if (whole.len() + bytes.len()) as u64 > limit {
            return Err(too_large());
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

/// Writes a body into an upload: of exactly `expected` bytes, where that is known.
///
/// The bytes go through a bounded queue to one blocking thread, so a slow disk slows the client down and nothing
/// is heaped up. What arrived before a fault stays in the upload, and the client can go on from there.
pub(super) async fn write(body: &mut Body, expected: Option<u64>, upload: Held) -> Result<Held, Fault> {
    let (pieces, mut waiting) = mpsc::channel::<Bytes>(PIECES_WAITING_MAX);
    let writer = tokio::spawn(blocking(move || {
        let mut upload = upload;
        while let Some(bytes) = waiting.blocking_recv() {
            if let Err(error) = upload.get()?.write(&bytes) {
                // How much of the piece was written is not known: nobody may go on from here.
                drop(upload.take());
                return Err(error.into());
            }
        }
        Ok(upload)
    }));
    let sent = send(body, expected, &pieces).await;
    drop(pieces);
    let written = writer.await.unwrap_or_else(|panic| Err(crate::Error::failed(panic.to_string()).into()));
    // When the writer failed, the sender failed because of it.
    let upload = written?;
    sent.map(|()| upload)
}

async fn send(body: &mut Body, expected: Option<u64>, pieces: &mpsc::Sender<Bytes>) -> Result<(), Fault> {
    let wrong = || Fault::new(Code::SizeInvalid, "the body is not as long as the headers say");
    let mut sent = 0u64;
    while let Some(bytes) = next(body).await? {
        sent += bytes.len() as u64;
        if expected.is_some_and(|expected| sent > expected) {
            return Err(wrong());
        }
        if pieces.send(bytes).await.is_err() {
            return Ok(());
        }
    }
    if expected.is_some_and(|expected| sent != expected) { Err(wrong()) } else { Ok(()) }
}

/// The body of an answer: the pieces of `blob`, handed on one by one.
///
/// A client that takes no piece for `patience` loses the blob. Its producer, which waits in a thread that others need,
/// ends then and `permit` is free, though the connection may stay open for as long as the client likes. What the client
/// has got is cut short, and says so.
pub(super) fn hand_on(mut blob: content::Body, permit: OwnedSemaphorePermit, patience: Duration) -> Body {
    let (sender, handed) = content::Body::channel_of(1);
    tokio::spawn(async move {
        let end = loop {
            match blob.next().await {
                Some(Ok(piece)) => match timeout(patience, sender.send(piece)).await {
                    Ok(Ok(())) => {}
                    // The client has gone, or stands still. A sender that vanishes without a word is an error.
                    Ok(Err(_)) | Err(_) => return,
                },
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            }
        };
        // The producer has ended: what is left waits in this task alone.
        drop(permit);
        let _ = timeout(patience, sender.finish(end)).await;
    });
    Body::from_stream(handed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(300);

    /// A blob without end, the thread that makes it, and what is handed on of it.
    fn endless(permits: &Arc<Semaphore>) -> (tokio::task::JoinHandle<()>, Body) {
        let (sender, blob) = content::Body::channel();
        let producer =
            tokio::task::spawn_blocking(move || while sender.blocking_send(Bytes::from_static(b"x")).is_ok() {});
        let permit = Arc::clone(permits).try_acquire_owned().unwrap();
        (producer, hand_on(blob, permit, PATIENCE))
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_loses_its_blob() {
        let permits = Arc::new(Semaphore::new(1));
        let (producer, body) = endless(&permits);
        assert_eq!(permits.available_permits(), 0);
        timeout(100 * PATIENCE, producer).await.unwrap().unwrap();
        let _free = timeout(100 * PATIENCE, permits.acquire()).await.unwrap().unwrap();
        assert!(body.collect().await.is_err(), "a cut blob looked whole");
    }

    #[tokio::test]
    async fn a_slow_reader_keeps_its_blob() {
        let permits = Arc::new(Semaphore::new(1));
        let (producer, mut body) = endless(&permits);
        for _ in 0..20 {
            tokio::time::sleep(PATIENCE / 10).await;
            assert!(body.frame().await.unwrap().is_ok());
        }
        drop(body);
        timeout(100 * PATIENCE, producer).await.unwrap().unwrap();
    }
}
