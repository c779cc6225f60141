//! [`Name`]: how a manifest is asked for.

use std::fmt;

use super::{Digest, Repository, Tag};

/// The name of a manifest in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// What the registry says it is now.
    Tag(Tag),
    /// These very bytes.
    Digest(Digest),
}

impl Name {
    /// `repository:tag` or `repository@digest`, as people and tools write it.
    pub fn within(&self, repository: &Repository) -> String {
        match self {
            Name::Tag(tag) => format!("{repository}:{tag}"),
            Name::Digest(digest) => format!("{repository}@{digest}"),
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

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Tag(tag) => tag.fmt(f),
            Name::Digest(digest) => digest.fmt(f),
        }
    }
}
