//! [`Place`]: where an image can be looked at, and what is there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::layout::Layout;
use crate::bundle::BundleReader;
use crate::content::read_limited;
use crate::error::{Context, Error, Result, Side};
use crate::image::{Image, Signature, SignatureForm};
use crate::oci::{CONFIG_SIZE_MAX, Descriptor, Digest, MANIFEST_SIZE_MAX, Manifest, Name, Repository, Tag};
use crate::registry::Remote;
use crate::store::Store;

/// Where images are looked at.
pub enum Place {
    /// A repository of a registry, and the name of a manifest in it.
    Registry(Box<Remote>, Name),
    /// A store.
    Store(StorePlace),
    /// A bundle, whose signature was checked when it was opened.
    Bundle(BundlePlace),
    /// An OCI image layout of whatever origin.
    Layout(Layout),
}

/// How many manifests, configs and layers of one image are asked for: real ones have some hundred, and a registry is asked
/// once for each.
const ASKED_MAX: u64 = 100_000;

/// How many bytes of documents of one image are read: thousands of times what real ones have.
const READ_MAX: u64 = 512 * 1024 * 1024;

/// A place while one image is looked at: what a hostile one may cost ends here.
pub(super) struct Look<'a> {
    place: &'a Place,
    asked: AtomicU64,
    read: AtomicU64,
}

impl<'a> Look<'a> {
    pub fn at(place: &'a Place) -> Self {
        Look { place, asked: AtomicU64::new(0), read: AtomicU64::new(0) }
    }

    /// The bytes of a manifest, compared with its digest and length; `None` where it is not here.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Option<Bytes>> {
        self.count(descriptor.size.min(MANIFEST_SIZE_MAX))?;
        self.place.manifest(descriptor).await
    }

    /// Whether a blob is here, by its name and length.
    pub async fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.count(0)?;
        self.place.has(blob).await
    }

    /// The bytes of a small blob, compared with its digest and length; `None` where it is not here.
    pub async fn blob(&self, blob: &Descriptor) -> Result<Option<Bytes>> {
        self.count(blob.size.min(CONFIG_SIZE_MAX))?;
        self.place.blob(blob).await
    }

    /// What speaks about `subject`, a part of the image `of`.
    pub async fn signatures(&self, of: &Found, subject: &Digest) -> Result<Vec<Signature>> {
        self.count(0)?;
        self.place.signatures(of, subject).await
    }

    fn count(&self, bytes: u64) -> Result<()> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let read = self.read.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if asked <= ASKED_MAX && read <= READ_MAX {
            return Ok(());
        }
        let what =
            format!("the image asks for more than {ASKED_MAX} documents and blobs, or {} MiB of them", READ_MAX >> 20);
        Err(Error::failed(what).help("no sound image does: ask where it comes from, or have it removed"))
    }
}

/// An image under its names, before anything of it is looked at.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub repository: Option<String>,
    pub tags: Vec<String>,
    pub root: Descriptor,
    /// What was decided about it, where that was written down.
    pub decided: Option<Image>,
}

/// A store.
pub struct StorePlace {
    store: Arc<Store>,
    found: Vec<Found>,
    /// What was pushed about something else in the same repository.
    pushed: HashMap<(String, Digest), Vec<Signature>>,
}

/// A bundle.
pub struct BundlePlace {
    reader: Arc<BundleReader>,
    /// Blobs that lie in volumes which are not here.
    elsewhere: HashSet<Digest>,
}

impl StorePlace {
    /// What the latest run of each stream found, and what was pushed.
    pub fn new(store: Arc<Store>) -> Result<Self> {
        let mut place = StorePlace { found: Vec::new(), pushed: HashMap::new(), store };
        for stream in place.store.catalog().streams()? {
            let Some(run) = place.store.latest_run(&stream)? else { continue };
            for entry in run.images {
                let image = place.store.image(&entry.image)?;
                place.found.push(Found {
                    repository: Some(image.repository.clone()),
                    tags: texts(&entry.tags),
                    root: image.root.clone(),
                    decided: Some(image),
                });
            }
        }
        place.add_pushed()?;
        Ok(place)
    }

    fn add_pushed(&mut self) -> Result<()> {
        let names: Vec<_> = self.store.names()?.into_iter().collect::<Result<_>>()?;
        let mut tags: HashMap<(String, Digest), (Descriptor, Vec<Tag>)> = HashMap::new();
        for name in names {
            let key = (name.repository.clone(), name.descriptor.digest);
            let entry = tags.entry(key).or_insert_with(|| (name.descriptor.clone(), Vec::new()));
            entry.1.extend(name.tag);
        }
        let mut tags: Vec<_> = tags.into_iter().collect();
        tags.sort_by(|(a, _), (b, _)| a.cmp(b));
        for ((repository, _), (descriptor, tags)) in tags {
            let subject = self.store.manifest(&descriptor).ok().and_then(|manifest| manifest.subject);
            let (derived, tags): (Vec<Tag>, Vec<Tag>) =
                tags.into_iter().partition(|tag| tag.cosign_subject().is_some());
            let by_tag = derived.into_iter().filter_map(|tag| {
                let subject = tag.cosign_subject()?;
                Some(Signature {
                    descriptor: descriptor.clone(),
                    subject,
                    form: SignatureForm::CosignTag,
                    tag: Some(tag),
                })
            });
            let referrer = subject.map(|subject| Signature {
                descriptor: descriptor.clone(),
                subject: subject.digest,
                form: SignatureForm::Referrer,
                tag: None,
            });
            for signature in by_tag.chain(referrer) {
                self.pushed.entry((repository.clone(), signature.subject)).or_default().push(signature);
            }
            if !tags.is_empty() {
                let repository = Some(repository);
                self.found.push(Found { repository, tags: texts(&tags), root: descriptor, decided: None });
            }
        }
        Ok(())
    }
}

fn texts(tags: &[Tag]) -> Vec<String> {
    tags.iter().map(ToString::to_string).collect()
}

impl BundlePlace {
    /// An open bundle.
    pub fn new(reader: Arc<BundleReader>) -> Self {
        let contents = reader.contents();
        let missing: HashSet<&str> = reader.missing_volumes().into_iter().collect();
        let is_missing =
            |volume: usize| contents.volumes.get(volume).is_none_or(|entry| missing.contains(&*entry.name));
        let elsewhere = contents
            .blobs
            .iter()
            .filter(|blob| blob.extents.iter().any(|extent| is_missing(extent.volume)))
            .map(|blob| blob.digest)
            .collect();
        BundlePlace { elsewhere, reader }
    }

    /// The key that signed it.
    pub fn signed_by(&self) -> Digest {
        self.reader.key().id()
    }

    fn found(&self) -> Vec<Found> {
        let (contents, tags) = (self.reader.contents(), self.reader.contents().tags());
        let found = |image: &Image| Found {
            repository: Some(image.repository.clone()),
            tags: tags.get(&(image.repository.clone(), image.root.digest)).map(|tags| texts(tags)).unwrap_or_default(),
            root: image.root.clone(),
            decided: Some(image.clone()),
        };
        contents.images.iter().map(found).collect()
    }

    fn has(&self, blob: &Descriptor) -> bool {
        self.reader.size_of(&blob.digest) == Some(blob.size) && !self.elsewhere.contains(&blob.digest)
    }
}

impl Place {
    /// The images that are to be looked at.
    pub(super) async fn images(&self) -> Result<Vec<Found>> {
        Ok(match self {
            Place::Registry(remote, name) => vec![in_registry(remote, name).await?],
            Place::Store(place) => place.found.clone(),
            Place::Bundle(place) => place.found(),
            Place::Layout(layout) => layout.found(),
        })
    }

    /// The bytes of a manifest, compared with its digest and length; `None` where it is not here.
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Option<Bytes>> {
        match self {
            Place::Registry(remote, _) => {
                let found = remote.get_manifest(&Name::from(descriptor.digest), Some(descriptor)).await?;
                Ok(found.map(|(_, bytes)| bytes))
            }
            _ => self.file(descriptor, MANIFEST_SIZE_MAX),
        }
    }

    /// Whether a blob is here, by its name and length.
    async fn has(&self, blob: &Descriptor) -> Result<bool> {
        match self {
            Place::Registry(remote, _) => {
                Ok(remote.blob_exists(&blob.digest).await?.is_some_and(|size| size == blob.size))
            }
            _ => Ok(self.has_file(blob)),
        }
    }

    /// The bytes of a small blob, compared with its digest and length; `None` where it is not here.
    async fn blob(&self, blob: &Descriptor) -> Result<Option<Bytes>> {
        let Place::Registry(remote, _) = self else { return self.file(blob, CONFIG_SIZE_MAX) };
        if blob.size > CONFIG_SIZE_MAX {
            return Err(too_large(blob, CONFIG_SIZE_MAX));
        }
        if remote.blob_exists(&blob.digest).await?.is_none() {
            return Ok(None);
        }
        let body = remote.open_blob(blob, 0).await?;
        let bytes = read_limited(body, blob.size).await.on(Side::Target)?;
        checked(blob, bytes).map(Some)
    }

    /// What speaks about `subject`, a part of the image `of`.
    async fn signatures(&self, of: &Found, subject: &Digest) -> Result<Vec<Signature>> {
        match (self, &of.decided) {
            (Place::Registry(remote, _), _) => of_registry(remote, subject).await,
            (Place::Layout(layout), _) => Ok(layout.signatures(subject)),
            (_, Some(image)) => {
                Ok(image.signatures.iter().filter(|signature| signature.subject == *subject).cloned().collect())
            }
            (Place::Store(place), None) => {
                let key = (of.repository.clone().unwrap_or_default(), *subject);
                Ok(place.pushed.get(&key).cloned().unwrap_or_default())
            }
            (Place::Bundle(_), None) => Ok(Vec::new()),
        }
    }

    fn has_file(&self, blob: &Descriptor) -> bool {
        match self {
            Place::Registry(..) => false,
            Place::Store(place) => place.store.has(blob),
            Place::Bundle(place) => place.has(blob),
            Place::Layout(layout) => layout.has(blob),
        }
    }

    fn file(&self, blob: &Descriptor, limit: u64) -> Result<Option<Bytes>> {
        if !self.has_file(blob) {
            return Ok(None);
        }
        if blob.size > limit {
            return Err(too_large(blob, limit));
        }
        let bytes = match self {
            Place::Registry(..) => return Ok(None),
            Place::Store(place) => place.store.read(blob)?,
            Place::Bundle(place) => place.reader.read_config(blob)?,
            Place::Layout(layout) => layout.read(blob, limit)?,
        };
        checked(blob, bytes).map(Some)
    }
}

fn too_large(blob: &Descriptor, limit: u64) -> Error {
    Error::verification(format!("blob {} has {} bytes, and at most {limit} are read", blob.digest, blob.size))
}

fn checked(blob: &Descriptor, bytes: Bytes) -> Result<Bytes> {
    match blob.digest.same_algorithm_of(&bytes) == blob.digest && bytes.len() as u64 == blob.size {
        true => Ok(bytes),
        false => Err(Error::verification(format!("blob {} is damaged: its bytes have another digest", blob.digest))),
    }
}

async fn in_registry(remote: &Remote, name: &Name) -> Result<Found> {
    let repository: &Repository = remote.repository();
    let root = remote.head_manifest(name).await?.ok_or_else(|| {
        Error::failed(format!("{} is not there", name.within(repository)))
            .help("check the name; a private repository also looks like this without credentials")
    })?;
    let tags = match name {
        Name::Tag(tag) => vec![tag.to_string()],
        Name::Digest(_) => Vec::new(),
    };
    Ok(Found { repository: Some(repository.to_string()), tags, root, decided: None })
}

async fn of_registry(remote: &Remote, subject: &Digest) -> Result<Vec<Signature>> {
    let mut signatures = Vec::new();
    for suffix in Tag::COSIGN_SUFFIXES {
        let tag = Tag::cosign(subject, suffix);
        let found = remote.head_manifest(&Name::from(tag.clone())).await?;
        signatures.extend(found.filter(|found| found.media_type.is_image_manifest()).map(|descriptor| Signature {
            descriptor,
            subject: *subject,
            form: SignatureForm::CosignTag,
            tag: Some(tag),
        }));
    }
    let referrers = remote.referrers(subject).await?.descriptors;
    signatures.extend(referrers.into_iter().map(|descriptor| Signature {
        descriptor,
        subject: *subject,
        form: SignatureForm::Referrer,
        tag: None,
    }));
    Ok(signatures)
}

/// Parses a manifest that was read.
pub(super) fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest> {
    Manifest::parse(&descriptor.media_type, bytes)
        .map_err(|error| Error::verification(error.to_string()))
        .while_(|| format!("manifest {}", descriptor.digest))
}
