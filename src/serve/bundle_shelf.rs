//! A bundle as a [`Shelf`]: served straight from the drive, nothing unpacked. Read-only.

use std::sync::Arc;

use bytes::Bytes;

use super::Shelf;
use super::shown::Shown;
use crate::bundle::BundleReader;
use crate::content::Body;
use crate::error::Result;
use crate::image::Addresses;
use crate::oci::{Descriptor, Digest, Name, Tag};

/// A signed bundle whose key is trusted. A chunk that is damaged breaks the transfer that needs it, and no other.
pub struct BundleShelf {
    reader: Arc<BundleReader>,
    shown: Shown,
}

impl BundleShelf {
    /// Reads the manifests of the bundle's signatures; nothing else is read yet. One that is missing or damaged is not listed.
    pub fn new(reader: Arc<BundleReader>) -> Result<Self> {
        let mut shown = Shown::default();
        let contents = reader.contents();
        let tags = contents.tags();
        for image in &contents.images {
            let of_image = tags.get(&(image.repository.clone(), image.root.digest));
            let of_image: &[Tag] = of_image.map(Vec::as_slice).unwrap_or_default();
            shown.add_image(image, of_image, |descriptor| reader.manifest(descriptor))?;
        }
        Ok(BundleShelf { reader, shown })
    }
}

impl Shelf for BundleShelf {
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.shown.repositories())
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        Ok(self.shown.tags(repository))
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        Ok(self.shown.resolve(repository, name))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.reader.read(descriptor)
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.shown.referrers(repository, subject))
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.reader.size_of(digest).filter(|_| self.shown.knows(repository)))
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        self.reader.body(digest, offset, offset.saturating_add(length))
    }

    fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.reader.size_of(digest)
    }

    fn addresses(&self) -> Result<Addresses> {
        Ok(self.reader.addresses())
    }
}
