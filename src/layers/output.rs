//! [`Output`]: where unpacked bytes go. They are hashed and counted, and nothing else.

use std::io::{Error, Result, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::oci::{Digest, Hasher};

/// Takes unpacked bytes up to a limit.
pub(super) struct Output {
    hashers: Vec<Hasher>,
    written: u64,
    limit: u64,
    /// What may come of all layers together beyond their limits; each takes what it needs.
    free: Arc<AtomicU64>,
    over: bool,
}

impl Output {
    /// Hashes with the algorithm of each of `like`, and takes `limit` bytes.
    pub fn new(like: &[Digest], limit: u64) -> Self {
        Output {
            hashers: like.iter().map(Digest::hasher).collect(),
            written: 0,
            limit,
            free: Arc::default(),
            over: false,
        }
    }

    /// Takes what is beyond the limit from `free`, as long as that lasts.
    pub fn share(&mut self, free: &Arc<AtomicU64>) {
        self.free = Arc::clone(free);
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
        let missing = self.written.saturating_add(bytes).saturating_sub(self.limit);
        if missing > 0 {
            let take = |free: u64| free.checked_sub(missing);
            match self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                Ok(_) => self.limit = self.limit.saturating_add(missing),
                Err(_) => self.over = true,
            }
        }
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
