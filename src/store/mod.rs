//! Medium 2: the connected side's OCI image layout, with one copy of everything, and the records beside it.
//!
//! ```text
//! store/  oci-layout  index.json  blobs/sha256/…  ingest/…  records/…  catalog.sqlite3  lock  writer.lock
//! ```
//!
//! A path below `blobs/` never holds bytes of another digest: [`ingest`] and [`Store::put`] are the only doors, and
//! they rename a file there after its digest was checked. What is in the store is what lies there; the catalog only remembers more.

mod ingest;
mod medium;
pub mod records;

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    counter: AtomicU64,
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
        }
        let layout = root.join("oci-layout");
        if !layout.exists() {
            durable::write_file(&layout, OCI_LAYOUT, MODE_FINAL)?;
        }
        let catalog = Catalog::open(&root.join("catalog.sqlite3"))?;
        let store = Store { root: root.to_owned(), catalog, counter: AtomicU64::new(0), _locks: locks };
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
        let mut writer = durable::Writer::open(&self.scratch(), 0).on(Side::Store)?;
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
        let (found, chunks) = self.hash_blob(descriptor).on(Side::Store)?;
        if found != descriptor.digest {
            return Err(damaged_blob(&descriptor.digest));
        }
        self.catalog.put_blob(&descriptor.digest, descriptor.size, &chunks)?;
        Ok(chunks)
    }

    fn hash_blob(&self, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>)> {
        let mut file = self.open_blob(&descriptor.digest)?;
        let mut hashes = ingest::Hashes::new(&descriptor.digest);
        let mut buffer = vec![0; crate::content::PIECE_SIZE];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hashes.finish()),
                read => hashes.update(&buffer[..read], |_| Ok(()))?,
            }
        }
    }

    /// A path below `ingest/` that no other process or thread uses.
    fn scratch(&self) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!("ingest/{}-{number}.whole", std::process::id()))
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

    /// Writes `index.json`, so that other tools can read the layout. Written once at the end of a run.
    pub fn write_index(&self, bytes: &[u8]) -> Result<()> {
        durable::write_file(&self.root.join("index.json"), bytes, 0o644).on(Side::Store)
    }
}

/// Held while a process works on one stream.
pub struct StreamLock {
    _file: File,
}

fn lock(path: &Path, exclusive: bool) -> Result<File> {
    let open = || File::options().create(true).append(true).open(path);
    let file = open().while_(|| format!("open {}", path.display()))?;
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
