//! Reading a small body whole, within a limit.

use bytes::{Bytes, BytesMut};

use super::Body;
use crate::error::{Error, Result};

/// Reads all of `body`, which may have `limit` bytes at the most.
pub async fn read_limited(mut body: Body, limit: u64) -> Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        if (whole.len() + piece.len()) as u64 > limit {
            return Err(Error::verification(format!("more than the {limit} bytes that were announced or are allowed")));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}
