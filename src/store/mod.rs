//! Medium 2: the connected side's OCI image layout, with one copy of everything, and the records beside it.
//!
//! ```text
//! store/  oci-layout  index.json  blobs/sha256/…  ingest/…  records/…  catalog.sqlite3  lock  writer.lock  opening.lock
//! ```
//!
//! A path below `blobs/` never holds bytes of another digest: [`ingest`] and [`Store::put`] are the only doors, and
//! they rename a file there after its digest was checked. What is in the store is what lies there; the catalog only remembers more.

mod ingest;
mod listing;
mod medium;
pub mod records;

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::content::CHUNK_SIZE;
use crate::durable;
use crate::error::{Context, Error, Result, Side};
use crate::image::{Image, OCI_LAYOUT};
use crate::oci::{Descriptor, Digest, Hasher, Manifest};

pub use ingest::Upload;

/// Blobs and records get this mode: they are never modified.
const MODE_FINAL: u32 = 0o444;

/// How old a temporary file below `ingest/` must be to be taken for left over. Younger ones may belong to a process
/// that has the store open beside the writer.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How a command uses a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads blobs and records, and may add small content whole. Any number of processes at once.
    Shared,
    /// Pulls or takes uploads: one process at a time.
    Writer,
}

/// An open store.
pub struct Store {
    root: PathBuf,
    catalog: Catalog,
    /// Kept for their locks, which end with the files.
    _locks: Vec<File>,
}

impl Store {
    /// Opens the store at `root`, and makes one where there is none.
    ///
    /// Fails when another process holds a lock that `access` excludes; nothing waits.
    pub fn open(root: &Path, access: Access) -> Result<Self> {
        Self::open_inner(root, access).on(Side::Store)
    }

    /// Opens a store that must be there already.
    pub fn open_existing(root: &Path, access: Access) -> Result<Self> {
        if root.join("oci-layout").is_file() {
            return Self::open(root, access);
        }
        Err(Error::usage(format!("{} is no store", root.display()))
            .on(Side::Store)
            .help("name the folder that `sealift pull --store` filled"))
    }

    fn open_inner(root: &Path, access: Access) -> Result<Self> {
        for folder in ["blobs/sha256", "ingest", "records/images", "records/runs", "records/bundles", "records/names"] {
            durable::create_folder(&root.join(folder))?;
        }
        let mut locks = vec![lock(&root.join("lock"), false)?];
        if access == Access::Writer {
            locks.push(lock(&root.join("writer.lock"), true)?);
            remove_left_over(&root.join("ingest"));
        }
        // One at a time: SQLite does not wait when two processes make a database at once, and the catalog is to be filled
        // once. Held for moments, so this lock is waited for.
        let opening = open_lock(&root.join("opening.lock"))?;
        opening.lock().while_(|| format!("lock {}", root.join("opening.lock").display()))?;
        let layout = root.join("oci-layout");
        if !layout.exists() {
            let mut writer = durable::Writer::unique(&root.join("ingest"))?;
            writer.write(OCI_LAYOUT)?;
            writer.finish(&layout, MODE_FINAL)?;
        }
        let catalog = Catalog::open(&root.join("catalog.sqlite3"))?;
        let store = Store { root: root.to_owned(), catalog, _locks: locks };
        if !store.catalog.is_filled()? {
            store.fill_catalog()?;
        }
        Ok(store)
    }

    /// Makes sure that no other process works on `stream` until the returned lock is dropped.
    pub fn lock_stream(&self, stream: &str) -> Result<StreamLock> {
        let path = self.root.join("records").join(format!("{stream}.lock"));
        Ok(StreamLock { _file: lock(&path, true).on(Side::Store)? })
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Where the blob lies, or would lie.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.layout_path())
    }

    /// Whether exactly this content is here: a file of that name and length.
    pub fn has(&self, descriptor: &Descriptor) -> bool {
        self.size_of(&descriptor.digest) == Some(descriptor.size)
    }

    /// The length of a blob; `None` where it is not here.
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        std::fs::symlink_metadata(self.path_of(digest)).ok().filter(|found| found.is_file()).map(|found| found.len())
    }

    /// How many bytes of a blob are here from an attempt that was cut short.
    pub fn partial_size(&self, digest: &Digest) -> u64 {
        std::fs::metadata(ingest::partial_path(&self.root, digest)).map_or(0, |found| found.len())
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.path_of(digest)).on(Side::Store).while_(|| format!("read blob {digest}"))
    }

    /// Reads small content whole and checks it against its digest. The caller bounds `descriptor.size`.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let mut bytes = Vec::new();
        let file = self.open_blob(&descriptor.digest)?;
        file.take(descriptor.size + 1).read_to_end(&mut bytes).on(Side::Store)?;
        if descriptor.digest.same_algorithm_of(&bytes) != descriptor.digest {
            return Err(damaged_blob(&descriptor.digest));
        }
        Ok(bytes.into())
    }

    /// Reads a manifest and parses it.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let bounded = Descriptor { size: descriptor.size.min(crate::oci::MANIFEST_SIZE_MAX), ..descriptor.clone() };
        let bytes = self.read(&bounded)?;
        Manifest::parse(&descriptor.media_type, &bytes)
            .map_err(|error| Error::verification(error.to_string()).on(Side::Store))
            .while_(|| format!("manifest {}", descriptor.digest))
    }

    /// Adds small content whole, under its digest. Safe beside other processes.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if digest.same_algorithm_of(bytes) != *digest {
            return Err(Error::verification(format!("the bytes are not those of {digest}")).on(Side::Store));
        }
        if self.size_of(digest) == Some(bytes.len() as u64) {
            return Ok(());
        }
        let mut writer = self.scratch()?;
        writer.write(bytes).on(Side::Store)?;
        self.create_algorithm_folder(digest)?;
        writer.finish(&self.path_of(digest), MODE_FINAL).on(Side::Store)?;
        self.catalog.put_blob(digest, bytes.len() as u64, &chunk_digests(bytes))
    }

    /// The digests of the chunks of a blob, 32 bytes each: from the catalog, or by reading the blob.
    pub fn chunks(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let expected = descriptor.size.div_ceil(CHUNK_SIZE) * 32;
        if let Some(chunks) = self.catalog.chunks(&descriptor.digest)?.filter(|c| c.len() as u64 == expected) {
            return Ok(chunks);
        }
        let file = self.open_blob(&descriptor.digest)?;
        let (found, chunks) = ingest::hash_file(file, &descriptor.digest).on(Side::Store)?;
        if found != descriptor.digest {
            return Err(damaged_blob(&descriptor.digest));
        }
        self.catalog.put_blob(&descriptor.digest, descriptor.size, &chunks)?;
        Ok(chunks)
    }

    /// A file below `ingest/` that no other process or thread writes to.
    fn scratch(&self) -> Result<durable::Writer> {
        durable::Writer::unique(&self.root.join("ingest")).on(Side::Store)
    }

    fn create_algorithm_folder(&self, digest: &Digest) -> Result<()> {
        match digest {
            Digest::Sha256(_) => Ok(()),
            Digest::Sha512(_) => durable::create_folder(&self.root.join("blobs/sha512")).on(Side::Store),
        }
    }

    /// The configs and layers of everything that is kept of `image`, whose manifests are here.
    pub fn needed(&self, image: &Image) -> Result<Vec<Descriptor>> {
        image.needed(|descriptor| self.manifest(descriptor))
    }

    /// The first thing that `image` needs and the store does not have; `None` when it is whole.
    pub fn first_missing(&self, image: &Image) -> Result<Option<Digest>> {
        if let Some((missing, _)) = image.manifests().into_iter().find(|(descriptor, _)| !self.has(descriptor)) {
            return Ok(Some(missing.digest));
        }
        Ok(self.needed(image)?.into_iter().find(|blob| !self.has(blob)).map(|blob| blob.digest))
    }
}

/// Held while a process works on one stream.
pub struct StreamLock {
    _file: File,
}

/// Removes what killed processes left in `ingest`, but for partial files, which are gone on with. What cannot be removed
/// takes room and nothing else: that is no reason to refuse the store.
fn remove_left_over(ingest: &Path) {
    let entries = std::fs::read_dir(ingest).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| is_left_over(path)) {
        if let Err(error) = durable::remove(&path) {
            tracing::warn!(%error, "a temporary file stays");
        }
    }
}

fn is_left_over(path: &Path) -> bool {
    let age = || std::fs::symlink_metadata(path).ok()?.modified().ok()?.elapsed().ok();
    path.extension().is_some_and(|extension| extension == durable::UNIQUE_EXTENSION)
        && age().is_some_and(|age| age > LEFT_OVER_AFTER)
}

fn open_lock(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).while_(|| format!("open {}", path.display()))
}

fn lock(path: &Path, exclusive: bool) -> Result<File> {
    let file = open_lock(path)?;
    let outcome = if exclusive { file.try_lock() } else { file.try_lock_shared() };
    match outcome {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::failed(format!("another sealift process holds {}", path.display()))
                .help("wait until it has finished, then run the same command again"))
        }
        Err(TryLockError::Error(error)) => Err(Error::from(error).while_(format!("lock {}", path.display()))),
    }
}

fn damaged_blob(digest: &Digest) -> Error {
    Error::verification(format!("blob {digest} is damaged: its bytes have another digest"))
        .on(Side::Store)
        .help("delete that file below blobs/ and pull again")
}

/// The digests of the chunks of `bytes`, 32 bytes each.
pub fn chunk_digests(bytes: &[u8]) -> Vec<u8> {
    let mut table = Vec::new();
    for chunk in bytes.chunks(CHUNK_SIZE as usize) {
        let mut hasher = Hasher::sha256();
        hasher.update(chunk);
        table.extend_from_slice(hasher.finish().bytes());
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// How much each thread puts.
    const PUTS: u8 = 25;

    fn put_many(store: &Store, thread: u8) {
        for at in 0..PUTS {
            let bytes = [[thread, at]; 5000].concat();
            store.put(&Digest::of(&bytes), &bytes).unwrap();
        }
    }

    #[test]
    fn two_stores_at_one_place_never_mix_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), Access::Shared).unwrap();
        let stores = [open(), open()];
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &stores[usize::from(thread % 2)];
                scope.spawn(move || put_many(store, thread));
            }
        });
        let blobs = std::fs::read_dir(folder.path().join("blobs/sha256")).unwrap();
        let blobs: Vec<PathBuf> = blobs.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(blobs.len(), 4 * usize::from(PUTS));
        for path in blobs {
            assert_eq!(Digest::of(&std::fs::read(&path).unwrap()).hex(), path.file_name().unwrap().to_str().unwrap());
        }
        assert_eq!(std::fs::read_dir(folder.path().join("ingest")).unwrap().count(), 0);
    }

    #[test]
    fn a_store_can_be_opened_for_the_first_time_by_many() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Store::open(folder.path(), Access::Shared).unwrap());
            }
        });
        assert_eq!(std::fs::read(folder.path().join("oci-layout")).unwrap(), OCI_LAYOUT);
    }

    #[test]
    fn a_writer_removes_old_temporary_files_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path(), Access::Shared).unwrap());
        let make = |name: &str, age: Duration| {
            let path = folder.path().join("ingest").join(name);
            File::create(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
            path
        };
        let old = make("old.whole", 2 * LEFT_OVER_AFTER);
        let kept = [make("young.whole", Duration::ZERO), make("old.partial", 2 * LEFT_OVER_AFTER)];
        drop(Store::open(folder.path(), Access::Shared).unwrap());
        assert!(old.exists());
        drop(Store::open(folder.path(), Access::Writer).unwrap());
        assert!(!old.exists());
        assert!(kept.iter().all(|path| path.exists()));
    }
}
