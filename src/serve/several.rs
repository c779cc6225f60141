//! Several shelves as one: bundles that came one after the other, or a store and a bundle. Read-only.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Shelf;
use crate::content::Body;
use crate::error::{Error, Result};
use crate::image::Addresses;
use crate::oci::{Descriptor, Digest, Name};

/// Shelves in the order in which they are asked: of a tag that several have, the first is shown.
pub struct Several(Vec<Arc<dyn Shelf>>);

impl Several {
    /// These shelves as one.
    pub fn new(shelves: Vec<Arc<dyn Shelf>>) -> Self {
        Several(shelves)
    }

    /// The first answer that is one.
    fn first<T>(&self, ask: impl Fn(&dyn Shelf) -> Result<Option<T>>) -> Result<Option<T>> {
        for shelf in &self.0 {
            if let Some(found) = ask(shelf.as_ref())? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What the first shelf that has `digest`, and can give it, gives. Damage on one drive is no damage on another.
    fn of_one<T>(&self, digest: &Digest, ask: impl Fn(&dyn Shelf) -> Result<T>) -> Result<T> {
        let mut failed = None;
        for shelf in self.0.iter().filter(|shelf| shelf.size_of(digest).is_some()) {
            match ask(shelf.as_ref()) {
                Ok(found) => return Ok(found),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::failed(format!("{digest} is on none of the shelves"))))
    }
}

impl Shelf for Several {
    fn repositories(&self) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for shelf in &self.0 {
            names.extend(shelf.repositories()?);
        }
        Ok(names.into_iter().collect())
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        let mut tags: Option<BTreeSet<String>> = None;
        for shelf in &self.0 {
            if let Some(more) = shelf.tags(repository)? {
                tags.get_or_insert_default().extend(more);
            }
        }
        Ok(tags.map(|tags| tags.into_iter().collect()))
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        self.first(|shelf| shelf.resolve(repository, name))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.of_one(&descriptor.digest, |shelf| shelf.manifest(descriptor))
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        let mut found: Vec<Descriptor> = Vec::new();
        for shelf in &self.0 {
            for referrer in shelf.referrers(repository, subject)? {
                if found.iter().all(|there| there.digest != referrer.digest) {
                    found.push(referrer);
                }
            }
        }
        Ok(found)
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        self.first(|shelf| shelf.blob(repository, digest))
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        self.of_one(digest, |shelf| shelf.open(digest, offset, length))
    }

    fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.0.iter().find_map(|shelf| shelf.size_of(digest))
    }

    fn addresses(&self) -> Result<Addresses> {
        let mut found = Addresses::default();
        for shelf in &self.0 {
            found.merge(shelf.addresses()?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryShelf;
    use super::*;
    use crate::oci::Tag;
    use crate::sample::{ImageBuilder, SampleImage, seed};

    fn shelf(repository: &str, tag: &str, image: &SampleImage) -> Arc<dyn Shelf> {
        let shelf = MemoryShelf::new();
        seed(&shelf, repository, Some(&tag.parse::<Tag>().unwrap()), image).unwrap();
        Arc::new(shelf)
    }

    #[tokio::test]
    async fn what_one_does_not_have_another_gives() {
        let image = |seed| ImageBuilder::new().platform("linux", "amd64", "").random_layer(50, seed).build().unwrap();
        let (old, new) = (image(1), image(2));
        let shelves = Several::new(vec![shelf("a", "1", &new), shelf("a", "1", &old), shelf("b", "2", &old)]);
        assert_eq!(shelves.repositories().unwrap(), ["a", "b"]);
        assert_eq!(shelves.tags("a").unwrap().unwrap(), ["1"]);
        assert_eq!(shelves.tags("c").unwrap(), None);
        let tag = Name::Tag("1".parse().unwrap());
        let found = shelves.resolve("a", &tag).unwrap().unwrap();
        assert_eq!(found.digest, new.root.digest, "the first that was named");
        for image in [&old, &new] {
            let root = shelves.resolve("a", &image.root.digest.into()).unwrap().unwrap();
            assert_eq!(&shelves.manifest(&root).unwrap(), image.bytes(&root.digest).unwrap());
            let (layer, bytes) = &image.contents[0];
            assert_eq!(shelves.blob("a", &layer.digest).unwrap(), Some(layer.size));
            let body = shelves.open(&layer.digest, 1, layer.size - 1).unwrap();
            assert_eq!(crate::content::read_limited(body, 1 << 20).await.unwrap(), bytes.slice(1..));
        }
        assert!(shelves.open(&Digest::of(b"nowhere"), 0, 1).is_err());
        assert!(shelves.writer().is_none());
    }
}
