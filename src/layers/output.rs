//! [`Output`]: where unpacked bytes go. They are hashed and counted, and nothing else.

use std::io::{Error, Result, Write};

use crate::oci::{Digest, Hasher};

/// Takes unpacked bytes up to a limit.
pub(super) struct Output {
    hashers: Vec<Hasher>,
    written: u64,
    limit: u64,
    over: bool,
}

impl Output {
    /// Hashes with the algorithm of each of `like`, and takes `limit` bytes.
    pub fn new(like: &[Digest], limit: u64) -> Self {
        Output { hashers: like.iter().map(Digest::hasher).collect(), written: 0, limit, over: false }
    }

    /// How many bytes came.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The limit, when more bytes came or were announced.
    pub fn exceeded(&self) -> Option<u64> {
        self.over.then_some(self.limit)
    }

    /// Refuses at once what is announced to be more than may come.
    pub fn announce(&mut self, bytes: u64) -> Result<()> {
        self.over |= self.written.saturating_add(bytes) > self.limit;
        if self.over { Err(Error::other("too much comes out of it")) } else { Ok(()) }
    }

    /// The digests of all bytes, one for each algorithm that was asked for.
    pub fn finish(self) -> Vec<Digest> {
        self.hashers.into_iter().map(Hasher::finish).collect()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.announce(bytes.len() as u64)?;
        self.hashers.iter_mut().for_each(|hasher| hasher.update(bytes));
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
