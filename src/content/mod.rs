//! Moving content: all movement is [`copy`], an ordered list of work from a [`Source`] to a [`Target`].

mod body;
mod copy;
mod parallel;
mod read;

use std::future::Future;
use std::ops::Range;

pub use body::{Body, Gone, PIECE_SIZE, Sender};
pub use copy::{Limits, copy};
pub use parallel::{in_parallel, workers};
pub use read::{each_piece, read_limited, read_piece};

use crate::error::Result;
use crate::oci::{Descriptor, LayerUrl, Repository, Tag};

/// The size of a chunk: the unit of checking, of resuming, and of saying where damage is.
pub const CHUNK_SIZE: u64 = 16 * 1024 * 1024;

/// One thing to move, decided by a stage. Everything that it needs comes before it in its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// What is moved.
    pub descriptor: Descriptor,
    /// Which of its bytes: all of them, but for a blob that is split across volumes.
    pub span: Range<u64>,
    /// Repositories, by preference, where a source that has repositories finds it.
    pub from: Vec<Repository>,
    /// The address outside of registries where it is fetched, instead of from a repository.
    pub address: Option<Box<LayerUrl>>,
    /// How a target takes it.
    pub role: Role,
}

impl Work {
    /// All bytes of `descriptor`.
    pub fn whole(descriptor: Descriptor, from: Vec<Repository>, role: Role) -> Self {
        let span = 0..descriptor.size;
        Work { descriptor, span, from, address: None, role }
    }

    /// The blob `descriptor`, from an address outside of registries.
    pub fn at(address: LayerUrl, descriptor: Descriptor) -> Self {
        Work { address: Some(Box::new(address)), ..Work::whole(descriptor, Vec::new(), Role::Blob) }
    }
}

/// How a target takes a piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A blob: config, layer, or the bytes of a left-out child's manifest.
    Blob,
    /// A manifest, known by its digest.
    Manifest,
    /// A manifest that gets a tag.
    Tagged(Tag),
}

/// Where content comes from.
pub trait Source: Send + Sync {
    /// Opens the content of `work` from byte `offset` of the blob on, to the end of the work's span.
    ///
    /// May be called again for the same work. The bytes need not be verified: the target does that.
    /// A source repairs what it can by itself (a cut connection); an error that reaches the body is final.
    fn open(&self, work: &Work, offset: u64) -> impl Future<Output = Result<Body>> + Send;

    /// Whether what it hands out of `work` has been compared with the digest of the whole. Then a target need not do so too.
    fn is_checked(&self, _work: &Work) -> bool {
        false
    }
}

/// Where content goes to.
pub trait Target: Send + Sync {
    /// What the target has of `work` already.
    fn status(&self, work: &Work) -> impl Future<Output = Result<Status>> + Send;

    /// Takes the content of `work` from `source`, from the offset on that [`Target::status`] named. A target that
    /// cannot resume opens it again from the start when its own side failed on the way.
    ///
    /// When it returns `Ok`, size and digest have been verified and the content is there as durably as
    /// this medium can; a store syncs the names of small blobs together, before it records that they are there. On an error
    /// nothing is there under its final name.
    fn take<S: Source>(
        &self,
        work: &Work,
        offset: u64,
        source: &S,
    ) -> impl Future<Output = Result<(), Rejected>> + Send;
}

/// What a target has of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All of it: nothing is to be moved.
    Present,
    /// The bytes of the span before this offset of the blob, checked; the span's start for none.
    From(u64),
}

/// Why a target did not take a body.
#[derive(Debug)]
pub enum Rejected {
    /// The bytes are not what the descriptor says, or what was there of them is damaged. What was there has been discarded,
    /// or cut to what is good: once more from an earlier byte, before the source is blamed.
    Resumed(crate::Error),
    /// Anything else.
    Final(crate::Error),
}

impl From<crate::Error> for Rejected {
    fn from(error: crate::Error) -> Self {
        Rejected::Final(error)
    }
}
