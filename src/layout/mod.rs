//! Medium 4: a plain OCI image layout for other tools, as a folder or as one archive.
//!
//! ```text
//! oci-layout  index.json  manifest.json  blobs/sha256/…
//! ```
//!
//! Everything is decided before anything is written. What is written lies under `PATH.partial` until it is whole, and
//! every blob is compared with its digest on the way. What is there already under the final name is compared
//! instead: the same content is success, and anything else is never touched.

mod archive;
mod check;
mod folder;
mod manifest_json;
mod place;
mod sink;

use std::sync::Arc;

use crate::content::{Limits, Rejected, Role, Source, Status, Target, Work};
use crate::error::{Error, Result, Side};
use crate::image::{INDEX_JSON_PATH, OCI_LAYOUT, OCI_LAYOUT_PATH};
use crate::oci::Descriptor;

use archive::ArchiveWriter;
use folder::FolderWriter;
pub use manifest_json::{Entry, manifest_json};
pub use place::{Form, Place};

/// What `docker load` reads.
pub const MANIFEST_JSON_PATH: &str = "manifest.json";

/// Files get this mode: they are given away, and other tools add to layouts.
const MODE: u32 = 0o644;

/// What a layout holds.
pub struct LayoutContents {
    /// The small files, by their paths.
    files: Vec<(&'static str, Vec<u8>)>,
    /// Every blob, in the order of their paths.
    blobs: Vec<Descriptor>,
}

impl LayoutContents {
    /// A layout of these blobs, of which each is named once.
    pub fn new(index_json: Vec<u8>, manifest_json: Vec<u8>, mut blobs: Vec<Descriptor>) -> Self {
        blobs.sort_by_key(|blob| blob.digest.layout_path());
        let files = vec![
            (OCI_LAYOUT_PATH, OCI_LAYOUT.to_vec()),
            (INDEX_JSON_PATH, index_json),
            (MANIFEST_JSON_PATH, manifest_json),
        ];
        LayoutContents { files, blobs }
    }

    /// How many bytes all files have together.
    pub fn size(&self) -> u64 {
        let files = self.files.iter().map(|(_, bytes)| bytes.len() as u64);
        files.chain(self.blobs.iter().map(|blob| blob.size)).fold(0, u64::saturating_add)
    }

    /// Its blobs as a list of work, in the order in which an archive takes them.
    pub fn work(&self) -> Vec<Work> {
        self.blobs.iter().map(|blob| Work::whole(blob.clone(), Vec::new(), Role::Blob)).collect()
    }
}

/// A layout that is being written, or compared with what is there.
pub enum LayoutWriter {
    /// A folder: blobs come in any order.
    Folder(FolderWriter),
    /// An archive: blobs come in the order of [`LayoutContents::work`].
    Archive(ArchiveWriter),
}

impl LayoutWriter {
    /// Begins at `place`, or goes on with what an interrupted export left there.
    pub async fn create(place: Place, contents: Arc<LayoutContents>) -> Result<Self> {
        blocking(move || match place.form {
            Form::Folder => FolderWriter::create(place, contents).map(LayoutWriter::Folder),
            _ => ArchiveWriter::create(place, &contents).map(LayoutWriter::Archive),
        })
        .await
    }

    /// How many blobs may be on their way at once.
    pub fn limits(&self) -> Limits {
        let concurrent_blobs = match self {
            LayoutWriter::Folder(_) => Limits::default().concurrent_blobs,
            LayoutWriter::Archive(_) => 1,
        };
        Limits { concurrent_blobs, keep_going: false }
    }

    /// Writes what is left, and gives it all its name. Every blob must have been taken.
    pub async fn finish(self) -> Result<()> {
        blocking(move || match self {
            LayoutWriter::Folder(writer) => writer.finish(),
            LayoutWriter::Archive(writer) => writer.finish(),
        })
        .await
    }

    /// Gives up after a failure. The blobs of a folder stay for the next attempt; an archive begins again, so what was written
    /// of it is removed.
    pub async fn give_up(self) -> Result<()> {
        blocking(move || match self {
            LayoutWriter::Folder(_) => Ok(()),
            LayoutWriter::Archive(writer) => writer.give_up(),
        })
        .await
    }
}

impl Target for LayoutWriter {
    async fn status(&self, work: &Work) -> Result<Status> {
        match self {
            LayoutWriter::Folder(writer) => writer.status(work).await,
            LayoutWriter::Archive(_) => Ok(Status::From(work.span.start)),
        }
    }

    async fn take<S: Source>(&self, work: &Work, offset: u64, source: &S) -> Result<(), Rejected> {
        let body = source.open(work, offset).await?;
        let taken = match self {
            LayoutWriter::Folder(writer) => writer.take(work, body).await,
            LayoutWriter::Archive(writer) => writer.take(work, body).await,
        };
        taken.map_err(Rejected::Final)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::failed(format!("writing stopped: {error}")).on(Side::Layout)))
}
