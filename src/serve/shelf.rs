//! [`Shelf`]: what is served. The protocol is in the rest of `serve`; a shelf knows nothing of HTTP.

use bytes::Bytes;

use crate::content::Body;
use crate::error::Result;
use crate::image::Addresses;
use crate::oci::Name;
use crate::oci::{Descriptor, Digest, Tag};

/// Content that is served, by repository.
///
/// Every method may block: it is called on a blocking thread, inside of a tokio runtime. Repository names
/// are legal ([`crate::oci::reference`]) before they get here. An error means that the shelf could not
/// find out; the client sees status 500, and the text goes to the log alone.
pub trait Shelf: Send + Sync + 'static {
    /// The names of all repositories, in any order.
    fn repositories(&self) -> Result<Vec<String>>;

    /// The tags of a repository, in any order; `None` when there is no such repository.
    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>>;

    /// The manifest of that name in that repository; `None` when it is not there. A stub is not there.
    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>>;

    /// The bytes of a manifest that [`Shelf::resolve`] found, verified.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes>;

    /// The manifests of the repository whose `subject` is `subject`, in any order. Each descriptor carries
    /// the `artifact_type` ([`crate::oci::Manifest::referrer_type`]) and the annotations of its manifest
    /// (distribution specification, "Listing Referrers"). Empty when there are none, also in a repository
    /// or for a subject that is not there.
    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>>;

    /// The size of a blob; `None` when the repository does not have it.
    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>>;

    /// Opens `length` bytes of a blob that [`Shelf::blob`] found, from byte `offset` on. The range lies
    /// within the blob. Returns at once: what produces the bytes is a task or thread of its own.
    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body>;

    /// The size of content that it can open, in whatever repository that is; `None` when it does not have it, or does not know.
    fn size_of(&self, digest: &Digest) -> Option<u64> {
        let _ = digest;
        None
    }

    /// The `urls` of everything that it shows, for `serve --foreign`. None where it does not look.
    fn addresses(&self) -> Result<Addresses> {
        Ok(Addresses::default())
    }

    /// The way to put content in; `None` when the shelf is read-only.
    fn writer(&self) -> Option<&dyn ShelfWriter> {
        None
    }
}

/// A shelf that takes content. Its methods may block, as those of [`Shelf`] may.
pub trait ShelfWriter: Send + Sync {
    /// Begins to take a blob into a repository.
    fn begin_upload(&self, repository: &str) -> Result<Box<dyn Upload>>;

    /// Makes a blob of the repository `from` (of any repository, when `from` is `None`) a blob of `repository`
    /// too. `false` when it is not there: the client uploads it then.
    fn mount(&self, repository: &str, digest: &Digest, from: Option<&str>) -> Result<bool>;

    /// Keeps a manifest, and moves `tag` to it. Digest, size and shape of the bytes, and that its blobs are there,
    /// have been checked.
    fn put_manifest(&self, repository: &str, tag: Option<&Tag>, descriptor: &Descriptor, bytes: &[u8]) -> Result<()>;

    /// Removes a tag; or a manifest with every tag of it. `false` when it was not there.
    fn delete_manifest(&self, repository: &str, name: &Name) -> Result<bool>;

    /// Removes a blob from a repository.
    fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<Removal>;
}

/// A blob on its way in. Dropped without [`Upload::commit`], it leaves nothing behind.
pub trait Upload: Send {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// How many bytes have been taken.
    fn written(&self) -> u64;

    /// Keeps what was taken, when its digest is `expected`.
    fn commit(self: Box<Self>, expected: &Digest) -> Result<Committed>;
}

/// What came of the wish to remove a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// It was not there.
    NotThere,
    /// It is there, and this shelf removes no blobs.
    Never,
}

/// How an upload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The blob is kept; its size.
    Kept(u64),
    /// Nothing is kept: the bytes have this digest.
    Mismatch(Digest),
}
