//! Medium 2: the connected side's OCI image layout, with one copy of everything, and the records beside it.
//!
//! ```text
//! store/  oci-layout  index.json  blobs/sha256/…  ingest/…  records/…  catalog.sqlite3  lock  writer.lock  opening.lock
//! ```
//!
//! A path below `blobs/` never holds bytes of another digest: [`ingest`] and [`Store::put`] are the only doors, and
//! they rename a file there after its digest was checked. What is in the store is what lies there; the catalog only remembers more.

mod ingest;
mod latest;
mod listing;
mod medium;
pub mod records;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::content::CHUNK_SIZE;
use crate::durable::{self, lock};
use crate::error::{Context, Error, Result, Side};
use crate::image::{Image, OCI_LAYOUT, OCI_LAYOUT_PATH};
use crate::oci::{Descriptor, Digest, Hasher, Manifest};

pub use ingest::Upload;

/// Blobs and records get this mode: they are never modified.
const MODE_FINAL: u32 = 0o444;

/// Who holds a lock of a store.
const OTHER: &str = "another sealift process";

/// The folders of a store.
const FOLDERS: [&str; 6] =
    ["blobs/sha256", "ingest", "records/images", "records/runs", "records/bundles", "records/names"];

/// The catalog's file and those that SQLite keeps beside it, in the order in which they are removed. SQLite removes a log
/// that it finds beside an empty database; the other way round, a kill would leave a database without its latest rows.
const CATALOG_FILES: [&str; 3] = [CATALOG, "catalog.sqlite3-wal", "catalog.sqlite3-shm"];
const CATALOG: &str = "catalog.sqlite3";

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
        Self::open_inner(root, access, false).on(Side::Store)
    }

    /// The same, but throws the catalog away and makes it again from blobs and records. Fails when any other process has the
    /// store open.
    pub fn rebuild(root: &Path, access: Access) -> Result<Self> {
        Self::open_inner(root, access, true).on(Side::Store)
    }

    /// Opens a store that must be there already.
    pub fn open_existing(root: &Path, access: Access) -> Result<Self> {
        must_exist(root)?;
        Self::open(root, access)
    }

    /// [`Store::rebuild`] for a store that must be there already.
    pub fn rebuild_existing(root: &Path, access: Access) -> Result<Self> {
        must_exist(root)?;
        Self::rebuild(root, access)
    }

    fn open_inner(root: &Path, access: Access, rebuild: bool) -> Result<Self> {
        for folder in FOLDERS {
            durable::create_folder(&root.join(folder))?;
        }
        // One at a time, since SQLite does not wait when two processes make a database at once. It is taken before the
        // others, so nobody can come between when the lock of a rebuild is given back. Waited for: it is held for moments,
        // or while a catalog is made again.
        let opening = durable::open_lock(&root.join("opening.lock"))?;
        opening.lock().while_(|| format!("lock {}", root.join("opening.lock").display()))?;
        let mut locks = vec![lock::take(&root.join("lock"), rebuild, OTHER)?];
        if access == Access::Writer {
            locks.push(lock::take(&root.join("writer.lock"), true, OTHER)?);
        }
        remove_left_over(root, access)?;
        if rebuild {
            CATALOG_FILES.iter().try_for_each(|name| durable::remove(&root.join(name)))?;
        }
        let layout = root.join(OCI_LAYOUT_PATH);
        if !layout.exists() {
            let mut writer = durable::Writer::unique(&root.join("ingest"))?;
            writer.write(OCI_LAYOUT)?;
            writer.finish(&layout, MODE_FINAL)?;
        }
        let catalog = Catalog::open(&root.join(CATALOG))?;
        let store = Store { root: root.to_owned(), catalog, _locks: locks };
        store.agree()?;
        if rebuild {
            // From here on beside others again.
            store._locks.iter().take(1).try_for_each(|file| lock::share(file, &root.join("lock")))?;
        }
        Ok(store)
    }

    /// Makes sure that no other process works on `stream` until the returned lock is dropped.
    pub fn lock_stream(&self, stream: &str) -> Result<StreamLock> {
        let path = self.root.join("records").join(format!("{stream}.lock"));
        Ok(StreamLock { _file: lock::take(&path, true, OTHER).on(Side::Store)? })
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

    /// Reads the bytes of a manifest and checks them against its digest.
    pub fn manifest_bytes(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let bounded = Descriptor { size: descriptor.size.min(crate::oci::MANIFEST_SIZE_MAX), ..descriptor.clone() };
        self.read(&bounded)
    }

    /// Reads a manifest and parses it.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let bytes = self.manifest_bytes(descriptor)?;
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

    /// Writes a small file whole, through `ingest/`, where the next writer removes what a killed process leaves.
    fn write_whole(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let mut writer = self.scratch()?;
        writer.write(bytes).on(Side::Store)?;
        writer.finish(path, mode).on(Side::Store)
    }

    /// Makes durable the names of all blobs and records of images, also of those that another process, or one that was killed,
    /// has just brought in. Before a record says that they are there.
    fn sync_names(&self) -> Result<()> {
        for folder in ["blobs/sha256", "blobs/sha512", "records/images"] {
            let folder = self.root.join(folder);
            if folder.is_dir() {
                durable::sync_folder(&folder).on(Side::Store)?;
            }
        }
        Ok(())
    }
}

/// Held while a process works on one stream.
pub struct StreamLock {
    _file: File,
}

/// Removes what killed processes left in `ingest`, but for partial files with their lists, which are gone on with. What cannot
/// be removed takes room and nothing else: that is no reason to refuse the store.
fn remove_left_over(root: &Path, access: Access) -> Result<()> {
    let ingest = root.join("ingest");
    for entry in std::fs::read_dir(&ingest).while_(|| format!("list {}", ingest.display()))? {
        let path = entry.while_(|| format!("list {}", ingest.display()))?.path();
        let unique = path.extension().is_some_and(|extension| extension == durable::UNIQUE_EXTENSION);
        let removed = match unique {
            true => durable::remove_unused(&path).map(drop),
            // Only the one writer knows that nobody is at it.
            false if access == Access::Writer && ingest::is_over(root, &path) => durable::remove(&path),
            false => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "a temporary file stays");
        }
    }
    Ok(())
}

fn must_exist(root: &Path) -> Result<()> {
    if root.join(OCI_LAYOUT_PATH).is_file() {
        return Ok(());
    }
    Err(Error::usage(format!("{} is no store", root.display()))
        .on(Side::Store)
        .help("name the folder that `sealift pull --store` filled"))
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
    fn what_no_process_is_writing_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Shared).unwrap();
        let being_written = store.scratch().unwrap();
        store.put(&Digest::of(b"here"), b"here").unwrap();
        let make = |name: &str| {
            let path = folder.path().join("ingest").join(name);
            File::create(&path).unwrap();
            path
        };
        let (here, missing) = (Digest::of(b"here").hex(), Digest::of(b"missing").hex());
        let left = make("left.whole");
        let over = [make(&format!("{here}.partial")), make(&format!("{here}.chunks")), make("0123.chunks")];
        let kept = [
            being_written.path().to_owned(),
            make(&format!("{missing}.partial")),
            make(&format!("{missing}.chunks")),
            make("of somebody else"),
        ];
        drop(Store::open(folder.path(), Access::Shared).unwrap());
        assert!(!left.exists());
        assert!(over.iter().all(|path| path.exists()), "another process may be at them");
        drop(Store::open(folder.path(), Access::Writer).unwrap());
        assert!(over.iter().all(|path| !path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
        being_written.finish(&folder.path().join("whole"), MODE_FINAL).unwrap();
    }
}
