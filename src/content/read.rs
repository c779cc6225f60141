//! Reading: a small body whole, within a limit; a file piece by piece, or one piece of it.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Read};

use bytes::{Bytes, BytesMut};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::{Body, PIECE_SIZE};
use crate::error::{Error, Result};

/// Reads `source` to its end, and hands over its pieces, until one is not taken.
pub fn each_piece<E: From<IoError>>(
    mut source: impl Read,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; PIECE_SIZE];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => take(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads `length` bytes of `file` from `offset` on; a file that ends before is an error. The memory is not zeroed first:
/// that costs a tenth of what reading from the page cache does.
pub fn read_piece(file: &File, offset: u64, length: usize) -> std::io::Result<Bytes> {
    let mut piece = Vec::with_capacity(length);
    while piece.len() < length {
        let at = offset + piece.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut piece), at) {
            Ok(0) => return Err(IoError::from(ErrorKind::UnexpectedEof)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    piece.truncate(length);
    Ok(piece.into())
}

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
