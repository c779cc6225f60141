//! [`SampleImage`]: what an [`super::ImageBuilder`] made.

use bytes::Bytes;

use crate::oci::{Descriptor, Digest, Manifest, Platform, Tag};

/// An image with everything that belongs to it, in memory.
#[derive(Clone, Debug)]
pub struct SampleImage {
    /// The index; or the manifest of an image that was built without one.
    pub root: Descriptor,
    /// Everything there is to upload, each thing once and what it needs before it: blobs, manifests, root, then
    /// referrers and signatures.
    pub contents: Vec<(Descriptor, Bytes)>,
    /// Foreign layers, which are had from their `urls` and are not part of `contents`.
    pub foreign: Vec<(Descriptor, Bytes)>,
    /// Tags that the image brings along (signatures). The tag of the root is chosen by whoever uploads it.
    pub tags: Vec<(Tag, Descriptor)>,
}

impl SampleImage {
    /// The bytes of a digest, foreign layers included.
    pub fn bytes(&self, digest: &Digest) -> Option<&Bytes> {
        self.contents.iter().chain(&self.foreign).find(|(known, _)| known.digest == *digest).map(|(_, bytes)| bytes)
    }

    /// The root, parsed.
    pub fn manifest(&self) -> Option<Manifest> {
        self.parsed(&self.root)
    }

    /// The manifest that a descriptor names, parsed.
    pub fn parsed(&self, descriptor: &Descriptor) -> Option<Manifest> {
        Manifest::parse(&descriptor.media_type, self.bytes(&descriptor.digest)?).ok()
    }

    /// The children of the root as the index lists them; none for an image without an index.
    pub fn children(&self) -> Vec<Descriptor> {
        self.manifest().map(|manifest| manifest.children().to_vec()).unwrap_or_default()
    }

    /// The child for a platform, whatever version and features it names.
    pub fn child(&self, os: &str, architecture: &str, variant: &str) -> Option<Descriptor> {
        let wanted = Platform::new(os, architecture, variant);
        let named = |platform: &Platform| {
            (&platform.os, &platform.architecture, &platform.variant)
                == (&wanted.os, &wanted.architecture, &wanted.variant)
        };
        self.children().into_iter().find(|child| child.platform.as_deref().is_some_and(named))
    }

    /// The manifests among the contents whose subject is `subject`.
    pub fn referrers(&self, subject: &Digest) -> Vec<Descriptor> {
        let refers = |descriptor: &&Descriptor| {
            descriptor.media_type.is_manifest()
                && self
                    .parsed(descriptor)
                    .and_then(|manifest| manifest.subject)
                    .is_some_and(|found| found.digest == *subject)
        };
        self.contents.iter().map(|(descriptor, _)| descriptor).filter(refers).cloned().collect()
    }

    /// The tag, among those that the image brings along, of something that is uploaded.
    pub fn tag_of(&self, digest: &Digest) -> Option<&Tag> {
        self.tags.iter().find(|(_, tagged)| tagged.digest == *digest).map(|(tag, _)| tag)
    }
}
