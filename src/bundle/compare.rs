//! Comparing pieces of a volume with their digests, on several cores: hashing takes longer than anything else that is done
//! with a volume.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::contents::BlobEntry;
use super::plain::open_plain;
use crate::content::{CHUNK_SIZE, PIECE_SIZE, in_parallel, workers};
use crate::oci::{Digest, Hasher};

/// How many pieces may wait behind a writer. What was just written is still in memory when it is read again.
const WAITING_MAX: usize = 4;

/// A part of a volume, and the digest that it must have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Where it begins in the volume.
    pub offset: u64,
    /// How long it is: a chunk at the most, where it is of a blob.
    pub length: u64,
    /// What it must be; `None` where nothing would be right.
    pub expected: Option<Digest>,
}

impl Piece {
    fn is_right(&self, file: &File) -> bool {
        self.check(file).is_ok_and(|right| right)
    }

    /// Whether it is right; an error when it cannot be read.
    fn check(&self, file: &File) -> std::io::Result<bool> {
        let found = hash_range(file, self.offset, self.length)?;
        Ok(self.expected == Some(found))
    }
}

/// The first piece that was found wrong behind a writer.
pub(super) struct Wrong {
    /// Where it begins in the volume.
    pub offset: u64,
    /// Why it could not be read; `None` where its bytes are others.
    pub unreadable: Option<std::io::Error>,
}

/// Where the first piece begins that is not right in the file at `path`, or cannot be read; `None` when all are right.
pub(super) fn first_bad(path: &Path, pieces: &[Piece]) -> Option<u64> {
    // Opened by each thread: the kernel reads ahead for each open file by itself.
    let wrong = |file: &mut std::io::Result<File>, piece: &Piece| {
        (!file.as_ref().is_ok_and(|file| piece.is_right(file))).then_some(piece.offset)
    };
    in_parallel(pieces, || open_plain(path), wrong).into_iter().flatten().min()
}

/// Compares what a writer has written, behind it.
pub(super) struct Behind {
    pieces: Option<SyncSender<Piece>>,
    threads: Vec<JoinHandle<()>>,
    bad: Arc<Mutex<Option<Wrong>>>,
}

impl Behind {
    /// Begins behind the writer of the file at `path`.
    pub fn begin(path: &Path) -> Self {
        let (pieces, waiting) = sync_channel(WAITING_MAX);
        let (waiting, bad) = (Arc::new(Mutex::new(waiting)), Arc::<Mutex<Option<Wrong>>>::default());
        let compare = || {
            let (path, waiting, bad) = (path.to_owned(), Arc::clone(&waiting), Arc::clone(&bad));
            std::thread::spawn(move || compare_all(&path, &waiting, &bad))
        };
        Behind { pieces: Some(pieces), threads: (0..workers()).map(|_| compare()).collect(), bad }
    }

    /// Has a piece compared that was written; waits while too many are waiting. `false` when an earlier one was wrong.
    pub fn compare(&self, piece: Piece) -> bool {
        let taken = self.pieces.as_ref().is_some_and(|pieces| pieces.send(piece).is_ok());
        taken && lock(&self.bad).is_none()
    }

    /// Waits until all are compared. The first wrong one; `None` when all are right.
    pub fn finish(mut self) -> Option<Wrong> {
        self.pieces = None;
        for thread in std::mem::take(&mut self.threads) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        lock(&self.bad).take()
    }
}

fn compare_all(path: &Path, waiting: &Mutex<Receiver<Piece>>, bad: &Mutex<Option<Wrong>>) {
    let file = open_plain(path);
    loop {
        // Taken under the lock, compared without it.
        let Ok(piece) = lock(waiting).recv() else { return };
        let found = match &file {
            Ok(file) => piece.check(file),
            Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
        };
        let unreadable = match found {
            Ok(true) => continue,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let mut bad = lock(bad);
        if bad.as_ref().is_none_or(|first| piece.offset < first.offset) {
            *bad = Some(Wrong { offset: piece.offset, unreadable });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The expected digest of the chunk that holds byte `offset` of blob number `at`. That of a blob's only chunk is the blob's own:
/// there the table is not asked.
pub(super) fn chunk_digest(blobs: &[BlobEntry], table: &[u8], first: &[u64], at: usize, offset: u64) -> Option<Digest> {
    let blob = blobs.get(at)?;
    if is_one_chunk(&blob.digest, blob.size) {
        return Some(blob.digest);
    }
    let number = usize::try_from(first.get(at)? + offset / CHUNK_SIZE).ok()?;
    let raw = table.get(number.checked_mul(32)?..)?.get(..32)?;
    Some(Digest::Sha256(raw.try_into().ok()?))
}

/// Whether the digest of a blob is that of its only chunk.
pub(super) fn is_one_chunk(digest: &Digest, size: u64) -> bool {
    matches!(digest, Digest::Sha256(_)) && (1..=CHUNK_SIZE).contains(&size)
}

/// The SHA-256 digest of a range of a file.
pub(super) fn hash_range(file: &File, offset: u64, length: u64) -> std::io::Result<Digest> {
    let mut hasher = Hasher::sha256();
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(PIECE_SIZE)];
    let mut done = 0;
    while done < length {
        let now = usize::try_from(length - done).unwrap_or(usize::MAX).min(PIECE_SIZE);
        let piece = &mut buffer[..now];
        file.read_exact_at(piece, offset + done)?;
        hasher.update(piece);
        done += now as u64;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_behind_a_writer_is_found_where_it_begins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut pieces: Vec<Piece> = Vec::new();
        for (at, piece) in content.chunks(30_000).enumerate() {
            let (offset, length) = (at as u64 * 30_000, piece.len() as u64);
            pieces.push(Piece { offset, length, expected: Some(Digest::of(piece)) });
        }
        let written = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            let behind = Behind::begin(&path);
            for piece in &pieces {
                behind.compare(*piece);
            }
            let found = behind.finish().map(|wrong| wrong.offset);
            assert_eq!(found, first_bad(&path, &pieces));
            found
        };
        assert_eq!(written(&content), None);
        let mut changed = content.clone();
        changed[200_000] ^= 1;
        changed[300_000] ^= 1;
        assert_eq!(written(&changed), Some(180_000));
        assert_eq!(written(&content[..399_999]), Some(390_000), "too short is not right");
        pieces[2].expected = None;
        assert_eq!(first_bad(&path, &pieces), Some(60_000), "nothing is expected, so nothing is right");
    }
}
