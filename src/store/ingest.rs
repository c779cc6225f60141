//! The door by which large content comes in: a partial file, hashed while it is written, renamed when it is right.
//!
//! Beside `ingest/<hex>.partial` lies `<hex>.chunks`: the digest of each chunk that was synced. After a kill or a power
//! loss the partial file is read once, its chunks are compared with that list, and both are cut before the first one that
//! is not as the list says, or cannot be read.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{MODE_FINAL, Store};
use crate::content::{Body, CHUNK_SIZE, PIECE_SIZE, Rejected, each_piece};
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

/// What a blob is called until it is whole.
const PARTIAL_EXTENSION: &str = "partial";

/// What the list of its chunks is called.
const LIST_EXTENSION: &str = "chunks";

fn partial_paths(root: &Path, digest: &Digest) -> (PathBuf, PathBuf) {
    let stem = root.join("ingest").join(digest.hex());
    (stem.with_extension(PARTIAL_EXTENSION), stem.with_extension(LIST_EXTENSION))
}

/// Whether the file at `path`, below `ingest/`, is of a blob that is in the store, or is a list whose partial file is gone: what
/// a kill leaves between giving a blob its name and removing the list, and a power loss may bring back.
pub(super) fn is_over(root: &Path, path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let Some(hex) = path.file_stem().and_then(|stem| stem.to_str()) else { return false };
    let is_there =
        || ["sha256", "sha512"].iter().any(|algorithm| root.join("blobs").join(algorithm).join(hex).exists());
    match extension {
        Some(LIST_EXTENSION) => !path.with_extension(PARTIAL_EXTENSION).exists() || is_there(),
        Some(PARTIAL_EXTENSION) => is_there(),
        _ => false,
    }
}

/// Where a blob is written until it is whole.
pub(super) fn partial_path(root: &Path, digest: &Digest) -> PathBuf {
    partial_paths(root, digest).0
}

/// How many bytes of an earlier attempt may be kept: whole chunks that are listed. [`take`] looks at what is in them; where
/// not all is good, it leaves less. Nothing is changed.
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
        let good = rehash(&partial, &list, offset, &mut hashes)?;
        if good < offset {
            cut(&partial, &list, good)?;
            let what = format!("what was fetched earlier is damaged after byte {good}");
            return Err(Rejected::Resumed(Error::failed(what).on(Side::Store)));
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

    /// Chunk by chunk: a digest goes to the list only when the chunk's bytes are on the device, and follows them there at
    /// once, so that a power loss costs the chunk that was on its way and no other.
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
                    list.write(digest)?;
                    list.sync()
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
        let path = self.store.path_of(&digest);
        match size > CHUNK_SIZE {
            true => self.writer.finish(&path, MODE_FINAL),
            // Its name is synced with those of all others, before a record says that they are there: a power loss costs at
            // most fetching this one chunk again.
            false => self.writer.finish_unsynced(&path, MODE_FINAL),
        }
        .on(Side::Store)?;
        durable::remove(&list).on(Side::Store)?;
        self.store.catalog.put_blob(&digest, size, &table)?;
        Ok(())
    }
}

/// Reads the first `offset` bytes of the partial file into `hashes`, up to the first chunk that is not the one on the list
/// or cannot be read; how many bytes are good. Drives lose sectors: a read error is damage like any other.
fn rehash(partial: &Path, list: &Path, offset: u64, hashes: &mut Hashes) -> Result<u64> {
    let (Ok(file), listed) = (File::open(partial), listed(list, offset)) else { return Ok(0) };
    let (mut file, mut expected) = (file.take(offset), listed.chunks_exact(32));
    let (mut good, mut damaged) = (0, false);
    let mut buffer = vec![0; PIECE_SIZE];
    while good < offset && !damaged {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        hashes.update(&buffer[..read], |digest| {
            damaged |= expected.next() != Some(digest);
            good += if damaged { 0 } else { CHUNK_SIZE };
            Ok(())
        })?;
    }
    Ok(good)
}

/// The digests on the list for the first `offset` bytes; as many as can be read.
fn listed(list: &Path, offset: u64) -> Vec<u8> {
    let mut digests = Vec::new();
    // What was read before an error is in the vector, and each digest on it is compared.
    let _ = File::open(list).and_then(|file| file.take(offset / CHUNK_SIZE * 32).read_to_end(&mut digests));
    digests
}

/// Leaves of an earlier attempt its first `good` bytes, which are whole chunks.
fn cut(partial: &Path, list: &Path, good: u64) -> Result<()> {
    if good == 0 {
        return discard(partial, list);
    }
    Writer::open(list, good / CHUNK_SIZE * 32).on(Side::Store)?;
    Writer::open(partial, good).map(drop).on(Side::Store)
}

/// The digest of what `file` holds, in the algorithm of `algorithm_of`, and those of its chunks.
pub(super) fn hash_file(file: File, algorithm_of: &Digest) -> Result<(Digest, Vec<u8>)> {
    let mut hashes = Hashes::new(algorithm_of);
    each_piece(file, |piece| hashes.update(piece, |_| Ok(())))?;
    Ok(hashes.finish())
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
            // Nothing said while it was written that this would be asked for.
            Digest::Sha512(_) => {
                File::open(self.writer.path())
                    .map_err(Error::from)
                    .and_then(|file| hash_file(file, expected))
                    .on(Side::Store)?
                    .0
            }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;

    use super::super::{Access, chunk_digests};
    use super::*;
    use crate::content::{Limits, Role, Source, Work, copy};
    use crate::monitor::Silent;
    use crate::oci::MediaType;

    const CHUNK: usize = CHUNK_SIZE as usize;

    /// Sends these bytes, and remembers from where on it was asked for them.
    struct Bytewise {
        bytes: Bytes,
        asked: Mutex<Vec<u64>>,
    }

    impl Source for Bytewise {
        async fn open(&self, _: &Work, offset: u64) -> Result<Body> {
            self.asked.lock().unwrap().push(offset);
            Ok(Body::full(self.bytes.slice(usize::try_from(offset).unwrap()..)))
        }
    }

    /// 40 MiB: two chunks and a half, each of another byte.
    fn content() -> Vec<u8> {
        [vec![1; CHUNK], vec![2; CHUNK], vec![3; CHUNK / 2]].concat()
    }

    /// Puts a partial file of 34 MiB and its list of two digests into a store, changes them, and copies `sent` into it.
    /// The offsets, in chunks, from which it was fetched, and whether it is there in the end.
    async fn resume(sent: Vec<u8>, change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> (Vec<u64>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), Access::Writer).unwrap());
        let content = content();
        let descriptor = Descriptor::new(MediaType::OCTET_STREAM, Digest::of(&content), content.len() as u64);
        let mut earlier = content[..2 * CHUNK + CHUNK / 8].to_vec();
        let mut digests = chunk_digests(&content[..2 * CHUNK]);
        change(&mut earlier, &mut digests);
        let (partial, list) = partial_paths(&store.root, &descriptor.digest);
        std::fs::write(&partial, earlier).unwrap();
        std::fs::write(&list, digests).unwrap();
        let source = Bytewise { bytes: sent.into(), asked: Mutex::default() };
        let work = [Work::whole(descriptor.clone(), Vec::new(), Role::Blob)];
        let failed = copy(&work, &source, &store, Limits::default(), &Silent).await;
        let path = store.path_of(&descriptor.digest);
        let there = path.exists();
        assert_eq!(there, failed.is_empty(), "{failed:?}");
        assert!(!there || std::fs::read(path).unwrap() == content);
        assert_eq!(std::fs::read_dir(folder.path().join("ingest")).unwrap().count(), 0);
        let asked = source.asked.into_inner().unwrap();
        (asked.iter().map(|offset| offset / CHUNK_SIZE).collect(), there)
    }

    #[tokio::test]
    async fn what_is_good_is_kept() {
        assert_eq!(resume(content(), |_, _| ()).await, (vec![2], true));
    }

    #[tokio::test]
    async fn a_damaged_chunk_or_entry_costs_no_good_chunk_before_it() {
        assert_eq!(resume(content(), |_, list| list[40] ^= 1).await, (vec![2, 1], true));
        assert_eq!(resume(content(), |partial, _| partial[CHUNK + 5] ^= 1).await, (vec![2, 1], true));
        assert_eq!(resume(content(), |partial, _| partial[5] ^= 1).await, (vec![2, 0], true));
    }

    #[tokio::test]
    async fn a_list_that_a_power_loss_has_cut_or_filled_with_zeros_is_no_harm() {
        assert_eq!(resume(content(), |_, list| list.truncate(40)).await, (vec![1], true));
        assert_eq!(resume(content(), |_, list| list.clear()).await, (vec![0], true));
        assert_eq!(resume(content(), |_, list| list.fill(0)).await, (vec![2, 0], true));
        assert_eq!(resume(content(), |_, list| list[32..].fill(0)).await, (vec![2, 1], true));
    }

    #[tokio::test]
    async fn wrong_bytes_that_the_list_agrees_with_are_fetched_once_from_the_start() {
        let agreed = |partial: &mut Vec<u8>, list: &mut Vec<u8>| {
            partial[5] ^= 1;
            *list = chunk_digests(&partial[..2 * CHUNK]);
        };
        assert_eq!(resume(content(), agreed).await, (vec![2, 0], true));
    }

    #[tokio::test]
    async fn a_source_that_lies_is_asked_no_more_than_there_are_chunks() {
        let mut lies = content();
        lies[2 * CHUNK + 5] ^= 1;
        assert_eq!(resume(lies.clone(), |_, _| ()).await, (vec![2, 0], false));
        assert_eq!(resume(lies, |_, list| list[40] ^= 1).await, (vec![2, 1, 0], false));
    }

    #[test]
    fn a_read_error_ends_what_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        std::fs::write(&list, [0; 64]).unwrap();
        let mut hashes = Hashes::new(&Digest::Sha256([0; 32]));
        // A folder can be opened, and each read of it fails.
        assert_eq!(rehash(folder.path(), &list, 2 * CHUNK_SIZE, &mut hashes).unwrap(), 0);
        assert_eq!(rehash(&list, folder.path(), 2 * CHUNK_SIZE, &mut hashes).unwrap(), 0);
    }
}
