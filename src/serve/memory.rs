//! [`MemoryShelf`]: a writable shelf in memory, for tests and the demo, and as the shortest reading of what a
//! [`Shelf`] has to do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::shelf::{Committed, Removal, Shelf, ShelfWriter, Upload};
use crate::content::Body;
use crate::error::{Error, Result};
use crate::image::Addresses;
use crate::oci::Name;
use crate::oci::{Descriptor, Digest, Manifest, Tag};

/// Content in memory. Clones share it. Without bound: it holds what tests and a demo put in.
#[derive(Clone, Default)]
pub struct MemoryShelf(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    bytes: HashMap<Digest, Bytes>,
    repositories: BTreeMap<String, Repository>,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, Kept>,
    tags: BTreeMap<Tag, Digest>,
}

/// A manifest: as a referrer of its subject it is listed, otherwise found by name.
struct Kept {
    descriptor: Descriptor,
    subject: Option<Digest>,
    referrer: Descriptor,
}

impl MemoryShelf {
    /// An empty shelf.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn bytes(&self, digest: &Digest) -> Result<Bytes> {
        self.bytes.get(digest).cloned().ok_or_else(|| Error::failed(format!("{digest} is not on the shelf")))
    }
}

impl Shelf for MemoryShelf {
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.lock().repositories.keys().cloned().collect())
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        let content = self.lock();
        let tags = |repository: &Repository| repository.tags.keys().map(Tag::to_string).collect();
        Ok(content.repositories.get(repository).map(tags))
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        let content = self.lock();
        let found = content.repositories.get(repository).and_then(|repository| {
            let digest = match name {
                Name::Tag(tag) => repository.tags.get(tag)?,
                Name::Digest(digest) => digest,
            };
            repository.manifests.get(digest)
        });
        Ok(found.map(|kept| kept.descriptor.clone()))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.lock().bytes(&descriptor.digest)
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        let content = self.lock();
        let manifests = content.repositories.get(repository).into_iter().flat_map(|found| found.manifests.values());
        Ok(manifests.filter(|kept| kept.subject == Some(*subject)).map(|kept| kept.referrer.clone()).collect())
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        let content = self.lock();
        let there = content.repositories.get(repository).is_some_and(|found| found.blobs.contains(digest));
        Ok(content.bytes.get(digest).filter(|_| there).map(|bytes| bytes.len() as u64))
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        let bytes = self.lock().bytes(digest)?;
        let range = (|| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            (end <= bytes.len()).then_some(start..end)
        })();
        let range = range.ok_or_else(|| Error::failed(format!("{digest} has no {length} bytes from {offset} on")))?;
        Ok(Body::full(bytes.slice(range)))
    }

    fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.lock().bytes.get(digest).map(|bytes| bytes.len() as u64)
    }

    fn addresses(&self) -> Result<Addresses> {
        let content = self.lock();
        let mut found = Addresses::default();
        for (name, repository) in &content.repositories {
            for kept in repository.manifests.values() {
                let bytes = content.bytes(&kept.descriptor.digest)?;
                let manifest = Manifest::parse(&kept.descriptor.media_type, &bytes);
                let manifest = manifest.map_err(|error| Error::failed(error.to_string()))?;
                found.add_manifest(name, &manifest, |blob| content.bytes.contains_key(&blob.digest));
            }
        }
        Ok(found)
    }

    fn writer(&self) -> Option<&dyn ShelfWriter> {
        Some(self)
    }
}

impl ShelfWriter for MemoryShelf {
    fn begin_upload(&self, repository: &str) -> Result<Box<dyn Upload>> {
        let (shelf, repository) = (self.clone(), repository.to_owned());
        Ok(Box::new(MemoryUpload { shelf, repository, bytes: Vec::new() }))
    }

    fn mount(&self, repository: &str, digest: &Digest, from: Option<&str>) -> Result<bool> {
        let mut content = self.lock();
        let there = content
            .repositories
            .iter()
            .any(|(name, found)| from.is_none_or(|from| from == name) && found.blobs.contains(digest));
        if there {
            content.repositories.entry(repository.to_owned()).or_default().blobs.insert(*digest);
        }
        Ok(there)
    }

    fn put_manifest(&self, repository: &str, tag: Option<&Tag>, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        let manifest = Manifest::parse(&descriptor.media_type, bytes).map_err(|e| Error::failed(e.to_string()))?;
        let mut referrer = descriptor.clone();
        referrer.artifact_type = manifest.referrer_type();
        referrer.annotations = manifest.annotations;
        let subject = manifest.subject.map(|subject| subject.digest);
        let mut content = self.lock();
        content.bytes.insert(descriptor.digest, Bytes::copy_from_slice(bytes));
        let found = content.repositories.entry(repository.to_owned()).or_default();
        found.manifests.insert(descriptor.digest, Kept { descriptor: descriptor.clone(), subject, referrer });
        if let Some(tag) = tag {
            found.tags.insert(tag.clone(), descriptor.digest);
        }
        Ok(())
    }

    fn delete_manifest(&self, repository: &str, name: &Name) -> Result<bool> {
        let mut content = self.lock();
        let Some(found) = content.repositories.get_mut(repository) else { return Ok(false) };
        Ok(match name {
            Name::Tag(tag) => found.tags.remove(tag).is_some(),
            Name::Digest(digest) => {
                found.tags.retain(|_, tagged| tagged != digest);
                found.manifests.remove(digest).is_some()
            }
        })
    }

    fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<Removal> {
        let mut content = self.lock();
        let removed = content.repositories.get_mut(repository).is_some_and(|found| found.blobs.remove(digest));
        Ok(if removed { Removal::Done } else { Removal::NotThere })
    }
}

struct MemoryUpload {
    shelf: MemoryShelf,
    repository: String,
    bytes: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn written(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn commit(self: Box<Self>, expected: &Digest) -> Result<Committed> {
        let actual = expected.same_algorithm_of(&self.bytes);
        if actual != *expected {
            return Ok(Committed::Mismatch(actual));
        }
        let size = self.written();
        let mut content = self.shelf.lock();
        content.bytes.insert(actual, Bytes::from(self.bytes));
        content.repositories.entry(self.repository).or_default().blobs.insert(actual);
        Ok(Committed::Kept(size))
    }
}
