//! A store as a [`Shelf`]: what the latest run of each stream found whole, and what was pushed.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::shown::Shown;
use super::{Committed, Removal, Shelf, ShelfWriter, Upload};
use crate::content::Body;
use crate::error::{Error, Result, Side};
use crate::image::Addresses;
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
    /// Shows what the store holds now; a later pull is shown after the next start. What is missing or damaged is passed
    /// over, with a warning: a registry without one image is of more use than none.
    pub fn new(store: Arc<Store>, writable: bool) -> Result<Self> {
        let mut shown = Shown::default();
        let mut damaged =
            store.each_latest(|image, tags| shown.add_image(image, tags, |descriptor| store.manifest(descriptor)))?;
        damaged.extend(store.each_pushed(|name, manifest| {
            shown.add(&name.repository, name.tag.as_ref(), &name.descriptor, manifest);
        })?);
        for error in damaged {
            tracing::warn!(%error, "this is not served");
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

    fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.store.size_of(digest)
    }

    fn addresses(&self) -> Result<Addresses> {
        self.store.addresses()
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
    fn delete_blob(&self, _repository: &str, digest: &Digest) -> Result<Removal> {
        Ok(if self.store.size_of(digest).is_some() { Removal::Never } else { Removal::NotThere })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{ImageBuilder, seed};
    use crate::store::Access;

    #[test]
    fn a_damaged_or_missing_manifest_keeps_no_other_from_being_served() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), Access::Writer).unwrap());
        let shelf = StoreShelf::new(Arc::clone(&store), true).unwrap();
        let tag: Tag = "1".parse().unwrap();
        let mut roots = Vec::new();
        for (number, repository) in ["whole", "damaged", "missing"].into_iter().enumerate() {
            let builder = ImageBuilder::new().platform("linux", "amd64", "").random_layer(10, number as u64);
            let image = builder.single().build().unwrap();
            seed(&shelf, repository, Some(&tag), &image).unwrap();
            roots.push(image.root.digest);
        }
        let damaged = store.path_of(&roots[1]);
        std::fs::remove_file(&damaged).unwrap();
        std::fs::write(&damaged, b"{}").unwrap();
        std::fs::remove_file(store.path_of(&roots[2])).unwrap();
        std::fs::write(folder.path().join("records/names/damaged.json"), b"{").unwrap();
        std::fs::write(folder.path().join("records/runs/damaged-1.json"), b"{").unwrap();
        store.catalog().put_run("damaged", 1).unwrap();
        let shelf = StoreShelf::new(store, true).unwrap();
        let found = shelf.resolve("whole", &Name::Tag(tag)).unwrap();
        assert_eq!(found.map(|descriptor| descriptor.digest), Some(roots[0]));
        assert_eq!(shelf.repositories().unwrap(), ["whole"]);
    }
}
