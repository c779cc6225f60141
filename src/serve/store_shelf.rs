//! A store as a [`Shelf`]: what the latest run of each stream found whole, and what was pushed.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::shown::Shown;
use super::{Committed, Shelf, ShelfWriter, Upload};
use crate::content::Body;
use crate::error::{Error, Result, Side};
use crate::oci::{Descriptor, Digest, Manifest, Name, Tag};
use crate::store::records::Name as Pushed;
use crate::store::{self, Store};

/// A store that is served; with `writable`, it takes pushes too.
pub struct StoreShelf {
    store: Arc<Store>,
    shown: RwLock<Shown>,
    writable: bool,
}

impl StoreShelf {
    /// Shows what the store holds now; a later pull is shown after the next start.
    pub fn new(store: Arc<Store>, writable: bool) -> Result<Self> {
        let mut shown = Shown::default();
        for stream in store.catalog().streams()? {
            let Some(run) = store.latest_run(&stream)? else { continue };
            for entry in run.images.iter().filter(|entry| entry.problem.is_none()) {
                let image = store.image(&entry.image)?;
                shown.add_image(&image, &entry.tags, |descriptor| store.manifest(descriptor))?;
            }
        }
        for Pushed { repository, tag, descriptor } in store.names()? {
            let manifest = store.manifest(&descriptor)?;
            shown.add(&repository, tag.as_ref(), &descriptor, &manifest);
        }
        Ok(StoreShelf { store, shown: RwLock::new(shown), writable })
    }

    fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown_mut(&self) -> RwLockWriteGuard<'_, Shown> {
        self.shown.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for StoreShelf {
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.shown().repositories())
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        Ok(self.shown().tags(repository))
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        Ok(self.shown().resolve(repository, name))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.store.read(descriptor)
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(self.shown().referrers(repository, subject))
    }

    /// One copy of everything: a blob is in every repository that is served, and where pushes are taken also in one that
    /// gets its first manifest later.
    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        let served = self.writable || self.shown().knows(repository);
        Ok(self.store.size_of(digest).filter(|_| served))
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        self.store.body(digest, offset, offset.saturating_add(length))
    }

    fn writer(&self) -> Option<&dyn ShelfWriter> {
        self.writable.then_some(self)
    }
}

impl ShelfWriter for StoreShelf {
    fn begin_upload(&self, _repository: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(store::Upload::begin(Arc::clone(&self.store))?))
    }

    fn mount(&self, _repository: &str, digest: &Digest, _from: Option<&str>) -> Result<bool> {
        Ok(self.store.size_of(digest).is_some())
    }

    fn put_manifest(&self, repository: &str, tag: Option<&Tag>, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        let manifest = Manifest::parse(&descriptor.media_type, bytes)
            .map_err(|error| Error::verification(error.to_string()).on(Side::Store))?;
        self.store.put(&descriptor.digest, bytes)?;
        let name = |tag: Option<Tag>| Pushed { repository: repository.to_owned(), tag, descriptor: descriptor.clone() };
        self.store.put_name(&name(None))?;
        if let Some(tag) = tag {
            self.store.put_name(&name(Some(tag.clone())))?;
        }
        self.shown_mut().add(repository, tag, descriptor, &manifest);
        Ok(())
    }

    fn delete_manifest(&self, repository: &str, name: &Name) -> Result<bool> {
        let Some(tags) = self.shown_mut().remove(repository, name) else { return Ok(false) };
        for tag in tags {
            self.store.remove_name(repository, Some(&tag), None)?;
        }
        if let Name::Digest(digest) = name {
            self.store.remove_name(repository, None, Some(digest))?;
        }
        Ok(true)
    }

    /// Blobs are shared by all repositories and streams: none is removed at a client's word.
    fn delete_blob(&self, _repository: &str, _digest: &Digest) -> Result<bool> {
        Ok(false)
    }
}

impl Upload for store::Upload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    fn written(&self) -> u64 {
        self.length()
    }

    fn commit(self: Box<Self>, expected: &Digest) -> Result<Committed> {
        Ok(match self.keep(expected)? {
            Ok(size) => Committed::Kept(size),
            Err(found) => Committed::Mismatch(found),
        })
    }
}
