//! A repository of a target as a [`Target`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::foreign::refused_urls;
use crate::content::{Rejected, Role, Source, Status, Target, Work, read_limited};
use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Digest, MANIFEST_SIZE_MAX, Name, Repository};
use crate::registry::{Put, Remote};

/// One repository of a target. Blobs are looked up in it; what another repository of the target is known to have is
/// mounted. Manifests are always put: a registry may say that one exists and still refuse the index that lists it.
pub struct RegistryTarget {
    remote: Remote,
    known: Known,
}

/// Where on a target blobs are known to be, shared by all repositories of a replay.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<HashMap<Digest, Repository>>>);

impl Known {
    fn get(&self, digest: &Digest) -> Option<Repository> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Notes that `repository` has a blob: others get it from there.
    pub fn put(&self, digest: Digest, repository: &Repository) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_insert_with(|| repository.clone());
    }
}

impl RegistryTarget {
    /// The repository that `remote` speaks to.
    pub fn new(remote: Remote, known: Known) -> Self {
        RegistryTarget { remote, known }
    }

    /// The repository.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }
}

impl Target for RegistryTarget {
    async fn status(&self, work: &Work) -> Result<Status> {
        if work.role != Role::Blob {
            return Ok(Status::From(0));
        }
        let digest = work.descriptor.digest;
        let here = self.remote.repository();
        let size = self.remote.blob_exists(&digest).await?;
        if size.is_some_and(|size| size == work.descriptor.size) {
            self.known.put(digest, here);
            return Ok(Status::Present);
        }
        match self.known.get(&digest) {
            Some(from) if from != *here && self.remote.mount(&digest, &from).await? => Ok(Status::Present),
            _ => Ok(Status::From(0)),
        }
    }

    async fn take<S: Source>(&self, work: &Work, _offset: u64, source: &S) -> Result<(), Rejected> {
        match &work.role {
            Role::Blob => {
                let open = |offset| source.open(work, offset);
                match source.is_checked(work) {
                    true => self.remote.push_checked_blob(&work.descriptor, open).await?,
                    false => self.remote.push_blob(&work.descriptor, open).await?,
                }
                self.known.put(work.descriptor.digest, self.remote.repository());
            }
            Role::Manifest => self.put(work, source, Name::from(work.descriptor.digest)).await?,
            Role::Tagged(tag) => self.put(work, source, Name::from(tag.clone())).await?,
        }
        Ok(())
    }
}

impl RegistryTarget {
    async fn put<S: Source>(&self, work: &Work, source: &S, name: Name) -> Result<()> {
        let body = source.open(work, 0).await?;
        let bytes = read_limited(body, work.descriptor.size.min(MANIFEST_SIZE_MAX)).await?;
        let media_type = &work.descriptor.media_type;
        match self.remote.put_manifest(&name, media_type, bytes.clone()).await? {
            Put::Accepted { .. } => Ok(()),
            Put::Refused(answer) => {
                let error = refused_urls(&answer, &bytes, media_type).unwrap_or_else(|| {
                    Error::new(Kind::Refused, format!("it does not take manifest {name}: {answer}")).on(Side::Target)
                });
                Err(error.while_(self.remote.repository()))
            }
        }
    }
}
