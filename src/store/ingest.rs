//! The door by which large content comes in: a partial file, hashed while it is written, renamed when it is right.
//!
//! Beside `ingest/<hex>.partial` lies `<hex>.chunks`: the digest of each chunk that was synced. After a kill or a power
//! loss the partial file is read once, its chunks are compared with that list, and it is cut after the last good one.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{MODE_FINAL, Store};
use crate::content::{Body, CHUNK_SIZE, PIECE_SIZE, Rejected};
use crate::durable::{self, Writer};
use crate::error::{Context, Error, Result, Side};
use crate::oci::{Descriptor, Digest, Hasher};

/// The digest of a whole blob and of its chunks, in one pass.
///
/// The first chunk of a sha256 blob needs no hasher of its own: up to its end the blob's says the same. So a blob of
/// one chunk, which most are, is hashed once.
pub(super) struct Hashes {
    whole: Hasher,
    /// The hasher of the current chunk; `None` while `whole` stands in for it.
    chunk: Option<Hasher>,
    in_chunk: u64,
    table: Vec<u8>,
}

impl Hashes {
    pub(super) fn new(of: &Digest) -> Self {
        let chunk = match of {
            Digest::Sha256(_) => None,
            Digest::Sha512(_) => Some(Hasher::sha256()),
        };
        Hashes { whole: of.hasher(), chunk, in_chunk: 0, table: Vec::new() }
    }

    /// Takes the next bytes; calls `full` with the chunk's digest at the end of each whole chunk.
    pub(super) fn update(&mut self, mut bytes: &[u8], mut full: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while !bytes.is_empty() {
            let room = usize::try_from(CHUNK_SIZE - self.in_chunk).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.whole.update(now);
            if let Some(chunk) = &mut self.chunk {
                chunk.update(now);
            }
            self.in_chunk += now.len() as u64;
            bytes = later;
            if self.in_chunk == CHUNK_SIZE {
                let digest = self.end_chunk();
                full(digest.bytes())?;
            }
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Digest {
        let digest = match self.chunk.replace(Hasher::sha256()) {
            Some(chunk) => chunk.finish(),
            None => self.whole.clone().finish(),
        };
        self.in_chunk = 0;
        self.table.extend_from_slice(digest.bytes());
        digest
    }

    pub(super) fn finish(mut self) -> (Digest, Vec<u8>) {
        if self.in_chunk > 0 {
            self.end_chunk();
        }
        (self.whole.finish(), self.table)
    }
}

fn partial_paths(root: &Path, digest: &Digest) -> (PathBuf, PathBuf) {
    let stem = root.join("ingest").join(digest.hex());
    (durable::with_suffix(&stem, ".partial"), durable::with_suffix(&stem, ".chunks"))
}

/// How many bytes of an earlier attempt may be kept: whole chunks that were synced. Nothing is changed.
pub(super) fn resumable(store: &Store, descriptor: &Descriptor) -> u64 {
    let (partial, list) = partial_paths(&store.root, &descriptor.digest);
    let length = std::fs::metadata(partial).map_or(0, |found| found.len());
    let listed = std::fs::metadata(list).map_or(0, |found| found.len()) / 32;
    // A whole file whose rename did not happen is fetched again from its last chunk border.
    (length / CHUNK_SIZE).min(listed).min(descriptor.size.saturating_sub(1) / CHUNK_SIZE) * CHUNK_SIZE
}

/// Writes `body`, which begins at `offset`, behind what is there; checks; gives the file its name.
pub(super) fn take(store: &Store, descriptor: &Descriptor, offset: u64, body: Body) -> Result<(), Rejected> {
    let mut ingest = Ingest::open(store, descriptor, offset)?;
    ingest.append(body)?;
    ingest.finish(offset > 0)
}

struct Ingest<'a> {
    store: &'a Store,
    descriptor: &'a Descriptor,
    writer: Writer,
    list: Option<Writer>,
    hashes: Hashes,
}

impl<'a> Ingest<'a> {
    fn open(store: &'a Store, descriptor: &'a Descriptor, offset: u64) -> Result<Self, Rejected> {
        let (partial, list) = partial_paths(&store.root, &descriptor.digest);
        let mut hashes = Hashes::new(&descriptor.digest);
        if offset > 0 && !rehash(&partial, &list, offset, &mut hashes)? {
            discard(&partial, &list)?;
            return Err(Rejected::Resumed(Error::failed("what was fetched earlier is damaged").on(Side::Store)));
        }
        let writer = Writer::open(&partial, offset).on(Side::Store)?;
        // A blob of one chunk is never resumed, and needs no list.
        let list = (descriptor.size > CHUNK_SIZE).then(|| Writer::open(&list, offset / CHUNK_SIZE * 32)).transpose();
        Ok(Ingest { store, descriptor, writer, list: list.on(Side::Store)?, hashes })
    }

    fn append(&mut self, mut body: Body) -> Result<()> {
        while let Some(piece) = body.blocking_next() {
            let piece = piece?;
            if self.writer.position() + piece.len() as u64 > self.descriptor.size {
                return Err(Error::verification(format!(
                    "more than the {} bytes that were announced",
                    self.descriptor.size
                ))
                .on(Side::Source));
            }
            self.write(&piece)?;
        }
        Ok(())
    }

    /// Chunk by chunk: a digest goes to the list only when the chunk's bytes are on the device.
    fn write(&mut self, piece: &[u8]) -> Result<()> {
        let (writer, list) = (&mut self.writer, &mut self.list);
        let mut rest = piece;
        while !rest.is_empty() {
            let room = CHUNK_SIZE - writer.position() % CHUNK_SIZE;
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            writer.write(now).on(Side::Store)?;
            self.hashes.update(now, |digest| match list {
                Some(list) => {
                    writer.sync()?;
                    list.write(digest)
                }
                None => Ok(()),
            })?;
            rest = later;
        }
        Ok(())
    }

    fn finish(self, resumed: bool) -> Result<(), Rejected> {
        let (partial, list) = partial_paths(&self.store.root, &self.descriptor.digest);
        let (size, expected) = (self.writer.position(), &self.descriptor);
        let (digest, table) = self.hashes.finish();
        drop(self.list);
        if size != expected.size || digest != expected.digest {
            discard(&partial, &list)?;
            let error = Error::verification(if size == expected.size {
                format!("the bytes have digest {digest} instead of {}", expected.digest)
            } else {
                format!(
                    "{size} bytes came instead of the {} that were announced for {}",
                    expected.size, expected.digest
                )
            })
            .on(Side::Source)
            .help("nothing of it was kept; the source, or something between it and here, sends wrong bytes");
            return Err(if resumed { Rejected::Resumed(error) } else { Rejected::Final(error) });
        }
        self.store.create_algorithm_folder(&digest)?;
        self.writer.finish(&self.store.path_of(&digest), MODE_FINAL).on(Side::Store)?;
        durable::remove(&list).on(Side::Store)?;
        self.store.catalog.put_blob(&digest, size, &table)?;
        Ok(())
    }
}

/// Reads the first `offset` bytes of the partial file into `hashes`; whether every chunk is the one on the list.
fn rehash(partial: &Path, list: &Path, offset: u64, hashes: &mut Hashes) -> Result<bool> {
    let listed = std::fs::read(list).on(Side::Store)?;
    let mut expected = listed.chunks_exact(32);
    let mut good = true;
    let mut file = File::open(partial).on(Side::Store)?.take(offset);
    let mut buffer = vec![0; PIECE_SIZE];
    loop {
        match file.read(&mut buffer).on(Side::Store)? {
            0 => return Ok(good && file.limit() == 0),
            read => hashes.update(&buffer[..read], |digest| {
                good &= expected.next() == Some(digest);
                Ok(())
            })?,
        }
    }
}

/// Reads a file for a digest that was not computed while it was written, because nothing said that it would be asked for.
fn hash_file(path: &Path, algorithm_of: &Digest) -> Result<Digest> {
    let (mut file, mut hasher) = (File::open(path)?, algorithm_of.hasher());
    let mut buffer = vec![0; PIECE_SIZE];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn discard(partial: &Path, list: &Path) -> Result<()> {
    durable::remove(partial).on(Side::Store)?;
    durable::remove(list).on(Side::Store)
}

/// Content whose digest is known at its end only: what a client pushes. Removed when it is dropped unfinished.
pub struct Upload {
    store: std::sync::Arc<Store>,
    writer: Writer,
    written: u64,
    hashes: Hashes,
}

impl Upload {
    /// Begins an upload into `store`.
    pub fn begin(store: std::sync::Arc<Store>) -> Result<Self> {
        let writer = store.scratch()?;
        let hashes = Hashes::new(&Digest::Sha256([0; 32]));
        Ok(Upload { store, writer, written: 0, hashes })
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes).on(Side::Store)?;
        self.written += bytes.len() as u64;
        self.hashes.update(bytes, |_| Ok(()))
    }

    /// How many bytes were written.
    pub fn length(&self) -> u64 {
        self.written
    }

    /// Gives the content its name when it has digest `expected`; otherwise returns the digest that it has, and
    /// nothing stays.
    pub fn keep(mut self, expected: &Digest) -> Result<Result<u64, Digest>> {
        let hashes = std::mem::replace(&mut self.hashes, Hashes::new(&Digest::Sha256([0; 32])));
        let (sha256, table) = hashes.finish();
        let found = match expected {
            Digest::Sha256(_) => sha256,
            Digest::Sha512(_) => hash_file(self.writer.path(), expected).on(Side::Store)?,
        };
        if found != *expected {
            return Ok(Err(found));
        }
        self.store.create_algorithm_folder(expected)?;
        self.writer.finish(&self.store.path_of(expected), MODE_FINAL).on(Side::Store)?;
        self.store.catalog.put_blob(expected, self.written, &table)?;
        Ok(Ok(self.written))
    }
}
