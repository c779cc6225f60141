//! Reading manifests while planning: from the store where they are, else from the registry and into the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::content::{Role, Work, read_limited};
use crate::error::{Context, Error, Result, Side};
use crate::oci::{CONFIG_SIZE_MAX, Descriptor, Digest, Manifest, Name, Repository, Tag};
use crate::registry::{Client, Referrers, Remote};
use crate::store::Store;

/// What can be done about a document that is what its digest says, and still cannot be carried.
pub(super) const UNUSABLE: &str =
    "no client can use such an image: ask its publisher for a sound one, or take it out of the spec";

/// One repository, with the store as its memory.
pub(super) struct Fetcher {
    remote: Remote,
    store: Arc<Store>,
    manifest_pulls: AtomicU64,
}

impl Fetcher {
    pub(super) fn new(client: &Client, store: &Arc<Store>, repository: &Repository) -> Self {
        let (remote, store) = (client.repository(repository), Arc::clone(store));
        Fetcher { remote, store, manifest_pulls: AtomicU64::new(0) }
    }

    /// All tags.
    pub(super) async fn tags(&self) -> Result<Vec<Tag>> {
        self.remote.tags().await?.ok_or_else(|| {
            Error::failed(format!("{} is not known there", self.remote.repository()))
                .on(Side::Source)
                .help("check the name in the spec; a private repository also looks like this without credentials")
        })
    }

    /// What `name` is now; `None` when it is not there.
    pub(super) async fn head(&self, name: &Name) -> Result<Option<Descriptor>> {
        self.remote.head_manifest(name).await
    }

    /// What refers to `subject`.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<Referrers> {
        self.remote.referrers(subject).await
    }

    /// Whether the store has it already.
    pub(super) fn has(&self, descriptor: &Descriptor) -> bool {
        self.store.has(descriptor)
    }

    /// How many manifests were read from the registry.
    pub(super) fn manifest_pulls(&self) -> u64 {
        self.manifest_pulls.load(Ordering::Relaxed)
    }

    /// What `name` is now.
    pub(super) async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        self.head(name).await?.ok_or_else(|| {
            Error::failed(format!("{}: {name} is not there", self.remote.repository()))
                .on(Side::Source)
                .help("check tag or digest in the spec; a private repository also looks like this without credentials")
        })
    }

    /// A manifest that something refers to; `None` when the source does not have it.
    pub(super) async fn manifest(&self, descriptor: &Descriptor) -> Result<Option<Manifest>> {
        if self.store.has(descriptor) {
            return self.store.manifest(descriptor).map(Some);
        }
        let name = Name::from(descriptor.digest);
        self.manifest_pulls.fetch_add(1, Ordering::Relaxed);
        let Some((found, bytes)) = self.remote.get_manifest(&name, Some(descriptor)).await? else { return Ok(None) };
        let manifest = Manifest::parse(&found.media_type, &bytes)
            .map_err(|error| Error::verification(error.to_string()).on(Side::Source).help(UNUSABLE))
            .while_(|| format!("manifest {}", descriptor.digest))?;
        self.keep(descriptor, bytes).await?;
        Ok(Some(manifest))
    }

    /// A manifest that has to be there.
    pub(super) async fn required(&self, descriptor: &Descriptor) -> Result<Manifest> {
        self.manifest(descriptor).await?.ok_or_else(|| {
            Error::failed(format!("manifest {} is listed, but not there", descriptor.digest))
                .on(Side::Source)
                .help("the source is incomplete: ask its operator, or leave that platform out")
        })
    }

    /// A config, which is small.
    pub(super) async fn config(&self, descriptor: &Descriptor) -> Result<Bytes> {
        if descriptor.size > CONFIG_SIZE_MAX {
            return Err(Error::verification(format!("the config {} has {} bytes", descriptor.digest, descriptor.size))
                .on(Side::Source)
                .help(UNUSABLE));
        }
        if self.store.has(descriptor) {
            return self.store.read(descriptor);
        }
        let work = Work::whole(descriptor.clone(), vec![self.remote.repository().clone()], Role::Blob);
        let body = self.remote.open_blob(&work.descriptor, 0).await?;
        let bytes = read_limited(body, descriptor.size).await.on(Side::Source)?;
        self.keep(descriptor, bytes.clone()).await?;
        Ok(bytes)
    }

    async fn keep(&self, descriptor: &Descriptor, bytes: Bytes) -> Result<()> {
        let (store, digest) = (Arc::clone(&self.store), descriptor.digest);
        tokio::task::spawn_blocking(move || store.put(&digest, &bytes))
            .await
            .unwrap_or_else(|error| Err(Error::failed(error.to_string()).on(Side::Store)))
    }
}
