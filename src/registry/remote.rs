//! [`Remote`]: one repository, as the stages see it.
//!
//! Everything that only reads asks the mirrors first, in order, and then the registry itself; a mirror that
//! cannot be reached, does not have it, or answers nonsense is passed over. Writing goes to the registry, and so
//! does everything on the side of a target: what a cache of it has says nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::endpoint::{Call, Endpoint, Outcome};
use super::retry::{Patience, Retry, Trouble};
use super::transport::read_body;
use super::{Answer, MISSING_CHILD_CODES, Put, Referrers, ReferrersForm};
use crate::content::Body;
use crate::error::{Context, Error, Result, Side};
use crate::oci::Name;
use crate::oci::{Descriptor, Digest, MediaType, Repository, Tag};

/// One repository of a registry. Cheap to clone; holds no connection.
///
/// The errors of its methods name the side, the operation, the repository, the host and what it answered, with
/// help where there is some. Trouble that may pass has been tried again before it becomes an error.
#[derive(Clone)]
pub struct Remote {
    repository: Repository,
    pub(super) side: Side,
    pub(super) mirrors: Vec<Door>,
    pub(super) own: Door,
}

/// A repository at one base address: what the protocol is spoken through.
#[derive(Clone)]
pub(super) struct Door {
    pub endpoint: Arc<Endpoint>,
    pub path: Arc<str>,
    pub retry: Retry,
}

/// An answer that was read whole.
pub(super) struct Read {
    pub headers: reqwest::header::HeaderMap,
    pub body: Bytes,
}

impl Remote {
    pub(super) fn new(repository: Repository, side: Side, mirrors: Vec<Door>, own: Door) -> Self {
        Remote { repository, side, mirrors, own }
    }

    /// Its name.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What the registry says `name` is; `None` when repository or manifest are unknown. Docker Hub does not count
    /// this as a pull, unless the digest is missing in the answer and the manifest has to be fetched.
    pub async fn head_manifest(&self, name: &Name) -> Result<Option<Descriptor>> {
        let asked = self.first(|door| async move { door.head_manifest(name).await }).await;
        self.tell(asked, || format!("look up {}", name.within(&self.repository)))
    }

    /// The bytes of a manifest, at most [`MANIFEST_SIZE_MAX`](crate::oci::MANIFEST_SIZE_MAX) of them, with their
    /// descriptor; `None` when repository or manifest are unknown. `announced` is what a parent says of it.
    ///
    /// # Errors
    ///
    /// [`Kind::Verification`](crate::Kind::Verification), naming both digests, when the bytes are not those of a name
    /// that is a digest, of `announced`, or of the registry's own `Docker-Content-Digest`.
    pub async fn get_manifest(
        &self,
        name: &Name,
        announced: Option<&Descriptor>,
    ) -> Result<Option<(Descriptor, Bytes)>> {
        let asked = self.first(|door| async move { door.get_manifest(name, announced).await }).await;
        self.tell(asked, || format!("get manifest {}", name.within(&self.repository)))
    }

    /// Puts a manifest. A refusal is a value here, for what it means depends on what was meant to be left out.
    pub async fn put_manifest(&self, name: &Name, media_type: &MediaType, bytes: Bytes) -> Result<Put> {
        let asked = self.own.put_manifest(name, media_type, bytes, &[]).await;
        self.tell(asked, || format!("put manifest {}", name.within(&self.repository)))
    }

    /// Puts an index of which children are missing on purpose. What is otherwise taken for a store behind the registry that
    /// has trouble, a 500 that knows no such blob, is a refusal then.
    pub async fn put_sparse_index(&self, digest: &Digest, media_type: &MediaType, bytes: Bytes) -> Result<Put> {
        let name = Name::from(*digest);
        let asked = self.own.put_manifest(&name, media_type, bytes, MISSING_CHILD_CODES).await;
        self.tell(asked, || format!("put index {}", name.within(&self.repository)))
    }

    /// Deletes a manifest, or a tag where the registry knows how; `false` when it was not there.
    pub async fn delete_manifest(&self, name: &Name) -> Result<bool> {
        let asked = self.own.delete_manifest(name).await;
        self.tell(asked, || format!("delete manifest {}", name.within(&self.repository)))
    }

    /// All tags, sorted, at most [`TAGS_MAX`](super::TAGS_MAX); `None` when the repository is unknown.
    pub async fn tags(&self) -> Result<Option<Vec<Tag>>> {
        let asked = self.first(|door| async move { door.tags().await }).await;
        self.tell(asked, || format!("list tags of {}", self.repository))
    }

    /// What refers to `subject`, never filtered, at most [`REFERRERS_MAX`](super::REFERRERS_MAX).
    ///
    /// A mirror is believed only when it has some: caches often do not carry them, and a signature that is there
    /// must not be taken for missing.
    pub async fn referrers(&self, subject: &Digest) -> Result<Referrers> {
        let some = |found: Referrers| Some(found).filter(|found| !found.descriptors.is_empty());
        let asked = self.first_of_mirrors(|door| async move { door.referrers(subject).await.map(some) }).await;
        let asked = match asked {
            Some(found) => Ok(found),
            None => self.own.referrers(subject).await,
        };
        self.tell(asked, || format!("list referrers of {}@{subject}", self.repository))
    }

    /// Whether the registry has the referrers API. Found out once for each registry, where its answer is clear.
    pub async fn supports_referrers(&self) -> Result<bool> {
        let asked = self.own.supports_referrers().await;
        self.tell(asked, || format!("ask {} for the referrers API", self.repository))
    }

    /// The size of a blob; `None` when it is not there, or when the registry does not say how long it is.
    pub async fn blob_exists(&self, digest: &Digest) -> Result<Option<u64>> {
        let asked = self.first(|door| async move { door.blob_exists(digest).await }).await;
        self.tell(asked, || format!("look up blob {}@{digest}", self.repository))
    }

    /// The bytes of a blob from `offset` on, as a stream that repairs cuts and stalls by itself (`Range` where the
    /// registry knows it). They are counted, not hashed: whoever takes them does that.
    ///
    /// # Errors
    ///
    /// That the blob is not there. In the stream: [`Kind::Verification`](crate::Kind::Verification) when the registry
    /// has another number of bytes than the descriptor says, anything else once the attempts are used up.
    pub async fn open_blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Body> {
        let opened = self.try_open_blob(descriptor, offset).await?;
        let missing = || Error::failed("404: the registry does not have this blob");
        self.tell(opened.ok_or_else(missing), || format!("fetch blob {}@{}", self.repository, descriptor.digest))
    }

    /// Has the registry take a blob over from another of its repositories. `false` when it does not: the blob has
    /// to be pushed then.
    pub async fn mount(&self, digest: &Digest, from: &Repository) -> Result<bool> {
        if from.registry() != self.repository.registry() {
            return Ok(false);
        }
        let asked = self.own.mount(digest, from.path()).await;
        self.tell(asked, || format!("mount blob {}@{digest} from {from}", self.repository))
    }

    /// Uploads a blob in one piece. `open` gives its bytes from an offset on; it is called again (with 0) when an
    /// upload has to begin anew. The bytes are hashed on the way, and wrong ones never complete an upload.
    ///
    /// # Errors
    ///
    /// What `open` or its body failed with, as it is; [`Kind::Verification`](crate::Kind::Verification) when the
    /// bytes are not those of `descriptor`; otherwise what the registry answered.
    pub async fn push_blob<F, Fut>(&self, descriptor: &Descriptor, open: F) -> Result<()>
    where
        F: Fn(u64) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Body>> + Send,
    {
        let asked = self.own.push_blob(descriptor, &open, true).await;
        self.tell(asked, || format!("push blob {}@{}", self.repository, descriptor.digest))
    }

    /// The same for bytes that were checked where they come from: they are counted and not hashed, for the registry
    /// compares the digest. Where it refuses them, they are sent once more and hashed, to know on which side they are wrong.
    pub async fn push_checked_blob<F, Fut>(&self, descriptor: &Descriptor, open: F) -> Result<()>
    where
        F: Fn(u64) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Body>> + Send,
    {
        let asked = self.own.push_blob(descriptor, &open, false).await;
        self.tell(asked, || format!("push blob {}@{}", self.repository, descriptor.digest))
    }

    /// Asks the mirrors, then the registry itself.
    async fn first<T, F, Fut>(&self, ask: F) -> Result<Option<T>>
    where
        F: Fn(Door) -> Fut,
        Fut: Future<Output = Result<Option<T>>>,
    {
        match self.first_of_mirrors(&ask).await {
            Some(found) => Ok(Some(found)),
            None => ask(self.own.clone()).await,
        }
    }

    async fn first_of_mirrors<T, F, Fut>(&self, ask: F) -> Option<T>
    where
        F: Fn(Door) -> Fut,
        Fut: Future<Output = Result<Option<T>>>,
    {
        for mirror in self.mirrors.iter().filter(|mirror| !mirror.endpoint.health.rests()) {
            let host = mirror.endpoint.host();
            match ask(mirror.clone()).await {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {
                    tracing::debug!(mirror = host, repository = %self.repository, "the mirror does not have it")
                }
                Err(error) => {
                    tracing::warn!(mirror = host, repository = %self.repository, %error, "passing over the mirror")
                }
            }
        }
        None
    }

    pub(super) fn tell<T>(&self, result: Result<T>, operation: impl FnOnce() -> String) -> Result<T> {
        result.while_(operation).on(self.side)
    }
}

impl Door {
    /// The attempts of one undertaking.
    pub fn patience(&self) -> Patience {
        self.retry.patience(&self.endpoint.health)
    }

    /// Asks until there is an answer.
    pub async fn ask(&self, call: &Call) -> Result<Outcome> {
        self.retry.run(&self.endpoint.health, || self.endpoint.attempt(call)).await
    }

    /// Asks until there is an answer whose body came whole; one of more than `limit` bytes is an error.
    pub async fn read(&self, call: &Call, limit: usize) -> Result<Result<Read, Answer>> {
        self.retry.run(&self.endpoint.health, || self.read_once(call, limit)).await
    }

    async fn read_once(&self, call: &Call, limit: usize) -> Result<Result<Read, Answer>, Trouble> {
        let mut response = match self.endpoint.attempt(call).await? {
            Outcome::Good(response) => response,
            Outcome::Bad(answer) => return Ok(Err(answer)),
        };
        let headers = std::mem::take(response.headers_mut());
        match read_body(&mut response, limit).await? {
            Some(body) => Ok(Ok(Read { headers, body })),
            None => {
                let error = self.error(format_args!("answered with more than {limit} bytes"));
                Err(error
                    .help("that is no answer of a registry: see what it has there, and what is between it and here")
                    .into())
            }
        }
    }

    /// An error that begins with the host.
    pub fn error(&self, what: std::fmt::Arguments<'_>) -> Error {
        Error::failed(format!("{} {what}", self.endpoint.host()))
    }
}

impl Referrers {
    /// Nothing refers to it, in no form.
    pub(super) fn absent() -> Self {
        Referrers { form: ReferrersForm::Absent, descriptors: Vec::new() }
    }
}
