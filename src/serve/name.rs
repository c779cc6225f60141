//! [`Name`]: how a manifest is asked for.

use std::fmt;

use crate::oci::{Digest, Tag};

/// The name of a manifest within its repository: what the distribution specification calls `<reference>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// A tag, which may be moved.
    Tag(Tag),
    /// A digest, which always means the same bytes.
    Digest(Digest),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Tag(tag) => tag.fmt(f),
            Name::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Name {
    fn from(tag: Tag) -> Self {
        Name::Tag(tag)
    }
}

impl From<Digest> for Name {
    fn from(digest: Digest) -> Self {
        Name::Digest(digest)
    }
}
