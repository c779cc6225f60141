//! A target in memory at which a replay is stopped: at the Nth thing that is asked of it, done or not done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::super::faults::World;
use super::end_state::EndState;
use super::fixture::PLATFORMS;
use crate::content::Body;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Manifest, Name, Tag};
use crate::serve::{Committed, MemoryShelf, Removal, Shelf, ShelfWriter, Upload};

/// When a replay is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    Never,
    /// Before the Nth thing is done.
    Before(u64),
    /// When the Nth thing is done and nobody has heard of it.
    After(u64),
}

/// Counts what is asked of a shelf, and stops a world with it.
#[derive(Clone)]
pub struct Stopping {
    pub shelf: MemoryShelf,
    stop: Stop,
    asked: Arc<AtomicU64>,
    /// What stops along: the process has one end.
    world: Arc<Mutex<Option<Arc<World>>>>,
}

impl Stopping {
    pub fn new(shelf: MemoryShelf, stop: Stop) -> Self {
        Stopping { shelf, stop, asked: Arc::default(), world: Arc::default() }
    }

    pub fn stops(&self, world: &Arc<World>) {
        *self.world.lock().unwrap() = Some(Arc::clone(world));
    }

    /// Whether it came to the end that was set.
    pub fn met(&self) -> bool {
        let asked = self.asked.load(Ordering::SeqCst);
        match self.stop {
            Stop::Never => false,
            Stop::Before(at) | Stop::After(at) => asked >= at,
        }
    }

    fn step<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let now = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let (gone, last) = match self.stop {
            Stop::Never => (false, false),
            Stop::Before(at) => (now >= at, false),
            Stop::After(at) => (now > at, now == at),
        };
        if (gone || last)
            && let Some(world) = &*self.world.lock().unwrap()
        {
            world.stop();
        }
        if gone {
            return Err(Error::failed("nobody is there any more"));
        }
        let done = act()?;
        if last { Err(Error::failed("nobody hears it any more")) } else { Ok(done) }
    }
}

impl Shelf for Stopping {
    fn repositories(&self) -> Result<Vec<String>> {
        self.shelf.repositories()
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        self.shelf.tags(repository)
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        self.step(|| self.shelf.resolve(repository, name))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.shelf.manifest(descriptor)
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.step(|| self.shelf.referrers(repository, subject))
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        self.step(|| self.shelf.blob(repository, digest))
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        self.shelf.open(digest, offset, length)
    }

    fn writer(&self) -> Option<&dyn ShelfWriter> {
        Some(self)
    }
}

impl ShelfWriter for Stopping {
    fn begin_upload(&self, repository: &str) -> Result<Box<dyn Upload>> {
        let upload = self.step(|| self.shelf.begin_upload(repository))?;
        Ok(Box::new(StoppingUpload { of: self.clone(), upload }))
    }

    fn mount(&self, repository: &str, digest: &Digest, from: Option<&str>) -> Result<bool> {
        self.step(|| self.shelf.mount(repository, digest, from))
    }

    fn put_manifest(&self, repository: &str, tag: Option<&Tag>, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        self.step(|| self.shelf.put_manifest(repository, tag, descriptor, bytes))
    }

    fn delete_manifest(&self, repository: &str, name: &Name) -> Result<bool> {
        self.step(|| self.shelf.delete_manifest(repository, name))
    }

    fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<Removal> {
        self.step(|| self.shelf.delete_blob(repository, digest))
    }
}

struct StoppingUpload {
    of: Stopping,
    upload: Box<dyn Upload>,
}

impl Upload for StoppingUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let StoppingUpload { of, upload } = self;
        of.step(|| upload.write(bytes))
    }

    fn written(&self) -> u64 {
        self.upload.written()
    }

    fn commit(self: Box<Self>, expected: &Digest) -> Result<Committed> {
        let StoppingUpload { of, upload } = *self;
        of.step(|| upload.commit(expected))
    }
}

/// Everything that is found on `shelf` from its tags on: manifests, referrers, blobs, by repository.
pub fn published(shelf: &MemoryShelf) -> EndState {
    let mut found = BTreeMap::new();
    for repository in shelf.repositories().unwrap() {
        for tag in shelf.tags(&repository).unwrap().into_iter().flatten() {
            let root = shelf.resolve(&repository, &Name::Tag(tag.parse().unwrap())).unwrap().unwrap();
            found.insert(format!("target/{repository}:{tag}"), root.digest.to_string());
            walk(shelf, &repository, &root, &mut found);
        }
    }
    found
}

fn walk(shelf: &MemoryShelf, repository: &str, at: &Descriptor, found: &mut EndState) {
    let place = format!("target/{repository}@{}", at.digest);
    let Some(there) = shelf.resolve(repository, &Name::Digest(at.digest)).unwrap() else {
        let blob = shelf.blob(repository, &at.digest).unwrap();
        found.insert(place, format!("no manifest; blob {blob:?}"));
        return;
    };
    found.insert(place, there.media_type.to_string());
    let manifest = Manifest::parse(&there.media_type, &shelf.manifest(&there).unwrap()).unwrap();
    for child in manifest.children() {
        walk(shelf, repository, child, found);
    }
    for blob in manifest.successors().filter(|_| manifest.children().is_empty()) {
        let size = shelf.blob(repository, &blob.digest).unwrap();
        found.insert(format!("target/{repository}/{}", blob.digest), format!("{size:?} of {}", blob.size));
    }
    for referrer in shelf.referrers(repository, &at.digest).unwrap() {
        walk(shelf, repository, &referrer, found);
    }
}

/// Whatever has a tag has all kept children with their blobs, and the signatures that belong to it.
pub fn check_tags(shelf: &MemoryShelf, expected: &EndState, what: &Path) {
    for (place, found) in published(shelf) {
        // Of what a tag leads to, nothing is half there; and what it leads to is what it leads to in the end.
        assert_eq!(Some(&found), expected.get(&place), "{}: {place}", what.display());
    }
    for repository in shelf.repositories().unwrap() {
        for tag in shelf.tags(&repository).unwrap().into_iter().flatten() {
            let root = shelf.resolve(&repository, &Name::Tag(tag.parse().unwrap())).unwrap().unwrap();
            assert!(
                !shelf.referrers(&repository, &root.digest).unwrap().is_empty(),
                "{repository}:{tag} is not signed"
            );
            let manifest = Manifest::parse(&root.media_type, &shelf.manifest(&root).unwrap()).unwrap();
            let kept = manifest.children().iter().filter(|child| {
                child.platform.as_ref().is_some_and(|named| PLATFORMS.contains(&named.architecture.as_str()))
            });
            assert_eq!(kept.count(), PLATFORMS.len());
        }
    }
}
