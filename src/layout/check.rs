//! [`Check`]: whether bytes are those of a descriptor, while they pass; and errors inside of those of I/O.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;

use crate::content::{Body, each_piece};
use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Descriptor, Hasher};

/// Compares bytes with the descriptor that they must have.
pub(super) struct Check {
    expected: Descriptor,
    hasher: Hasher,
    seen: u64,
}

impl Check {
    pub(super) fn new(expected: &Descriptor) -> Self {
        Check { expected: expected.clone(), hasher: expected.digest.hasher(), seen: 0 }
    }

    /// Takes the next bytes; fails as soon as there are too many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.seen += bytes.len() as u64;
        if self.seen > self.expected.size {
            return Err(self.damaged("it is longer than it must be"));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Says whether that was all, and right.
    pub(super) fn end(&self) -> Result<()> {
        if self.seen < self.expected.size {
            return Err(self.damaged("it is shorter than it must be"));
        }
        match self.hasher.clone().finish() == self.expected.digest {
            true => Ok(()),
            false => Err(self.damaged("its bytes have another digest")),
        }
    }

    fn damaged(&self, how: &str) -> Error {
        Error::verification(format!("blob {}: {how}", self.expected.digest))
            .on(Side::Store)
            .help("delete that file below blobs/ of the store, pull again, and run the export again")
    }
}

/// Whether `file` holds exactly what `expected` says.
pub(super) fn holds(file: File, expected: &Descriptor) -> Result<bool> {
    let mut check = Check::new(expected);
    match each_piece(file, |piece| check.take(piece)).and_then(|()| check.end()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == Kind::Verification => Ok(false),
        Err(error) => Err(error),
    }
}

/// A body as a reader that ends well only when all of it was right.
pub(super) struct Checked {
    body: Body,
    piece: Bytes,
    check: Check,
}

impl Checked {
    pub(super) fn new(body: Body, expected: &Descriptor) -> Self {
        Checked { body, piece: Bytes::new(), check: Check::new(expected) }
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.body.blocking_next() {
                None => return self.check.end().map(|()| 0).map_err(io::Error::other),
                Some(piece) => {
                    self.piece = piece.map_err(io::Error::other)?;
                    self.check.take(&self.piece).map_err(io::Error::other)?;
                }
            }
        }
        let length = self.piece.len().min(buffer.len());
        let now = self.piece.split_to(length);
        buffer.get_mut(..length).unwrap_or_default().copy_from_slice(&now);
        Ok(length)
    }
}

/// The error of this crate that travelled through I/O as one of its; or one made of what I/O says.
pub(super) fn unwrapped(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    fn read(bytes: &'static [u8], expected: &Descriptor) -> Result<Vec<u8>> {
        let mut read = Vec::new();
        Checked::new(Body::full(bytes), expected).read_to_end(&mut read).map_err(unwrapped)?;
        Ok(read)
    }

    #[test]
    fn only_the_right_bytes_end_well() {
        let expected = Descriptor::of(MediaType::OCTET_STREAM, b"abc");
        assert_eq!(read(b"abc", &expected).unwrap(), b"abc");
        for wrong in [&b"abd"[..], b"ab", b"abcd"] {
            assert_eq!(read(wrong, &expected).unwrap_err().kind(), Kind::Verification);
        }
        let (sender, body) = Body::channel();
        drop(sender);
        let cut = Checked::new(body, &expected).read_to_end(&mut Vec::new()).map_err(unwrapped);
        assert_eq!(cut.unwrap_err().kind(), Kind::Failed);
    }
}
