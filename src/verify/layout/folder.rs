//! [`Folder`]: an OCI image layout on disk, read with nothing but the file system.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Deserialize;

use super::Bad;
use crate::bundle::open_plain;
use crate::content::each_piece;
use crate::error::{Context, Error, Kind, Result, Side};
use crate::image::OCI_LAYOUT_PATH;
use crate::oci::{Descriptor, Digest, MANIFEST_SIZE_MAX, Manifest, json};

/// The largest `oci-layout` that is read.
const OCI_LAYOUT_MAX: u64 = 4 * 1024;
/// The most files below `blobs/`; their names are in memory.
const FILES_MAX: usize = 2_000_000;
/// The most bytes of documents that are read: what many images share is read for each of them, and a few files could ask
/// for days of that. It is a few minutes of work, and thousands of times what large stores need.
const DOCUMENTS_MAX: u64 = 16 << 30;

/// A layout that was opened: its files are listed, and not read yet.
pub struct Folder {
    /// The folder.
    pub root: PathBuf,
    /// Every blob, with its length.
    pub blobs: BTreeMap<Digest, u64>,
    /// What has the name of a blob and is no file.
    pub irregular: Bad,
    /// What else lies below `blobs/`.
    pub oddities: Vec<String>,
    /// How many bytes of documents were asked for.
    documents: AtomicU64,
}

impl Folder {
    /// Checks that `root` is a layout of a version that is known, and lists its blobs.
    pub fn open(root: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let path = root.join(OCI_LAYOUT_PATH);
        let marker: Marker = json::parse(&read_small(&path, OCI_LAYOUT_MAX)?).map_err(|why| unreadable(&path, &why))?;
        if marker.image_layout_version.split('.').next() != Some("1") {
            return Err(unreadable(&path, &format!("version {:?} is not known", marker.image_layout_version)));
        }
        let (blobs, irregular) = Default::default();
        let mut folder =
            Folder { root: root.to_owned(), blobs, irregular, oddities: Vec::new(), documents: AtomicU64::new(0) };
        folder.list().on(Side::Store).while_(|| format!("list {}", root.join("blobs").display()))?;
        Ok(folder)
    }

    fn list(&mut self) -> Result<()> {
        for algorithm in std::fs::read_dir(self.root.join("blobs"))? {
            let folder = algorithm?;
            if !folder.file_type()?.is_dir() {
                self.odd(&folder.path());
                continue;
            }
            for file in std::fs::read_dir(folder.path())? {
                let file = file?;
                let name = [folder.file_name(), file.file_name()].map(|name| name.to_string_lossy().into_owned());
                match name.join(":").parse::<Digest>() {
                    Err(_) => self.odd(&file.path()),
                    Ok(digest) if file.file_type()?.is_file() => {
                        self.blobs.insert(digest, file.metadata()?.len());
                    }
                    Ok(digest) => {
                        self.irregular.insert(digest, "it is no regular file".into());
                    }
                }
                if self.blobs.len() + self.irregular.len() + self.oddities.len() > FILES_MAX {
                    return Err(Error::failed(format!("there are more than {FILES_MAX} files")));
                }
            }
        }
        self.oddities.sort();
        Ok(())
    }

    fn odd(&mut self, path: &Path) {
        self.oddities.push(format!("{} is not named as a blob is, and is not read", path.display()));
    }

    /// The file of a blob.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.layout_path())
    }

    /// Reads a document of at most `limit` bytes, and compares it with its digest.
    pub fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        let bytes = read_small(&self.path_of(&descriptor.digest), limit.min(descriptor.size))?;
        self.documents.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if bytes.len() as u64 != descriptor.size {
            let wrong = format!("blob {} has {} bytes instead of {}", descriptor.digest, bytes.len(), descriptor.size);
            return Err(Error::verification(wrong).on(Side::Store));
        }
        match descriptor.digest.same_algorithm_of(&bytes) {
            found if found == descriptor.digest => Ok(bytes),
            found => Err(Error::verification(other(&found)).on(Side::Store)),
        }
    }

    /// Ends what would read the same documents again and again.
    pub fn bounded(&self) -> Result<()> {
        if self.documents.load(Ordering::Relaxed) <= DOCUMENTS_MAX {
            return Ok(());
        }
        Err(Error::failed(format!("the images ask for more than {} GiB of manifests and configs", DOCUMENTS_MAX >> 30))
            .on(Side::Store)
            .help(
                "no store that sealift pulled does: check fewer images at once, and ask where this layout comes from",
            ))
    }

    /// Reads a manifest, compares it with its digest, and parses it.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let parsed = Manifest::parse(&descriptor.media_type, &self.read(descriptor, MANIFEST_SIZE_MAX)?);
        parsed
            .map_err(|error| Error::verification(error.to_string()))
            .on(Side::Store)
            .while_(|| format!("manifest {}", descriptor.digest))
    }

    /// Reads a blob from its beginning to its end, hands over its pieces, and says what is wrong with it.
    pub fn read_whole(
        &self,
        digest: &Digest,
        progress: &dyn Fn(u64),
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
        let file = open_plain(&self.path_of(digest)).map_err(unreadable)?;
        let mut hasher = digest.hasher();
        let hand_over = |piece: &[u8]| {
            hasher.update(piece);
            progress(piece.len() as u64);
            take(piece);
            Ok(())
        };
        each_piece(file, hand_over).map_err(unreadable)?;
        match hasher.finish() {
            found if found == *digest => Ok(()),
            found => Err(other(&found)),
        }
    }
}

fn other(found: &Digest) -> String {
    format!("its bytes have the digest {found}")
}

/// What a file holds is not what it must be.
pub(super) fn unreadable(path: &Path, why: &str) -> Error {
    Error::verification(format!("{}: {why}", path.display()))
        .on(Side::Store)
        .help("in a store, move that file away and pull again, which writes it anew")
}

/// Reads a regular file whole, at most `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Bytes> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open_plain(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(Kind::Missing, format!("{} is missing", path.display()))
            .help("a store gets it from its first pull; any other layout has to be copied again"),
        _ => Error::from(error).while_(format!("read {}", path.display())),
    });
    let bytes = bytes.on(Side::Store)?;
    if bytes.len() as u64 > limit {
        return Err(unreadable(path, &format!("it has more than {limit} bytes")));
    }
    Ok(bytes.into())
}
