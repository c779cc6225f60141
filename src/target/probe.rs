//! Probing: what a registry takes is found out before anything is carried, with small documents of random content in a
//! scratch repository.
//!
//! Everything is pushed by digest, no tag is set, and what the registry allows to be deleted is deleted. Each probe makes
//! content of its own: what an earlier one left behind decides nothing.

use bytes::Bytes;
use serde_json::{Value, json};

use super::profile::{Finding, Profile, TYPE, VERSION};
use crate::clock;
use crate::content::Body;
use crate::error::{Error, Kind, Result, Side};
use crate::monitor::Monitor;
use crate::oci::json::canonical;
use crate::oci::{Descriptor, Digest, MANIFEST_SIZE_MAX, MediaType, Name, Repository};
use crate::registry::{Client, Put, Remote};

/// The repository in which is tried out what a registry takes, below the prefix.
const SCRATCH: &str = "sealift-probe";

/// What a longer name has behind that: five parts more than `host/mirror`, as deep as real sources go.
const NESTED: &str = "a/b/c/d";

/// The address of a layer that nobody has: `.invalid` is no domain (RFC 2606).
const NOWHERE: &str = "https://layers.invalid/layer.tar.gz";

/// Sizes of manifests that are tried, the largest first. Registries should take 4 MiB (OCI distribution specification,
/// "Pushing Manifests"); a few bytes less, for what counts the request around it.
const SIZES: [u64; 3] = [MANIFEST_SIZE_MAX - 1024, 1024 * 1024, 256 * 1024];

/// Docker's type of a layer, and that of a foreign one.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";

/// Finds out what the registry takes whose repositories begin with `place` (a registry and a prefix, which may be empty).
///
/// # Errors
///
/// Where not even a blob and a manifest can be pushed, there is no profile: [`Kind::Refused`] or what the registry
/// answered. Anything after that is a [`Finding`].
pub async fn probe(client: &Client, scratch: &Repository, monitor: &dyn Monitor) -> Result<Profile> {
    monitor.begin(&format!("probe {scratch}"), 0, 0);
    let mut probe = Probe::new(client, scratch)?;
    let profile = probe.run(client).await;
    let left_behind = probe.clean_up().await;
    monitor.end();
    let (mut profile, deletion) = (profile?, left_behind);
    (profile.deletion, profile.left_behind) = deletion;
    Ok(profile)
}

/// The scratch repository below a prefix of a registry.
pub fn scratch(registry: &crate::oci::Registry, prefix: &str) -> Result<Repository> {
    let path = if prefix.is_empty() { SCRATCH.to_owned() } else { format!("{prefix}/{SCRATCH}") };
    Repository::new(registry.clone(), &path).map_err(|error| Error::usage(error.to_string()))
}

struct Probe {
    remote: Remote,
    /// Random, and in every document.
    nonce: String,
    /// What was put, in that order.
    put: Vec<(Remote, Digest)>,
}

/// The family of media types that a document uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Oci,
    Docker,
}

impl Family {
    fn index(self) -> MediaType {
        if self == Family::Docker { MediaType::DOCKER_LIST } else { MediaType::OCI_INDEX }
    }

    fn manifest(self) -> MediaType {
        if self == Family::Docker { MediaType::DOCKER_MANIFEST } else { MediaType::OCI_MANIFEST }
    }

    fn config(self) -> MediaType {
        if self == Family::Docker { MediaType::DOCKER_CONFIG } else { MediaType::OCI_CONFIG }
    }

    fn foreign(self) -> MediaType {
        MediaType::new(if self == Family::Docker { DOCKER_FOREIGN } else { OCI_FOREIGN })
    }

    fn layer(self) -> MediaType {
        if self == Family::Docker { MediaType::new(DOCKER_LAYER) } else { MediaType::OCI_LAYER_GZIP }
    }
}

impl Probe {
    fn new(client: &Client, scratch: &Repository) -> Result<Self> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::failed("no random numbers are to be had"))?;
        let nonce = Digest::of(&random).hex();
        Ok(Probe { remote: client.repository(scratch), nonce, put: Vec::new() })
    }

    async fn run(&mut self, client: &Client) -> Result<Profile> {
        let here = self.remote.clone();
        let kept = self.image(&here, Family::Oci, "kept").await?;
        let kept = self.expect(&here, &kept).await?;
        let (sparse_index, stubs) = self.sparse(&kept).await?;
        let docker_media_types = self.docker().await;
        let foreign = |family| self.foreign(family);
        let foreign_documents = (foreign(Family::Oci)?, foreign(Family::Docker)?);
        let foreign_layers = self.finding(&here, &foreign_documents.0).await;
        let docker_foreign_layers = self.finding(&here, &foreign_documents.1).await;
        let artifact = self.artifact(&kept)?;
        let artifacts = self.finding(&here, &artifact).await;
        let (nested_names, mounts) = self.nested(client).await;
        Ok(Profile {
            kind: TYPE.to_owned(),
            version: VERSION.to_owned(),
            registry: here.repository().registry().to_string(),
            repository: here.repository().to_string(),
            created: clock::text(jiff::Timestamp::now()),
            sparse_index,
            stubs,
            foreign_layers,
            docker_foreign_layers,
            docker_media_types,
            artifacts,
            referrers_api: referrers_api(&here).await,
            mounts,
            nested_names,
            deletion: Finding::unknown("not tried"),
            manifest_size: self.manifest_size(&here).await?,
            left_behind: Vec::new(),
        })
    }

    /// A config and a layer, which are pushed, and the manifest of them, which is not.
    async fn image(&self, remote: &Remote, family: Family, what: &str) -> Result<Document> {
        let (config, layer) = (self.config(what)?, self.layer(what));
        push(remote, &config).await?;
        push(remote, &layer).await?;
        self.manifest(family, what, &config, vec![json!(described(family.layer(), &layer))])
    }

    fn config(&self, what: &str) -> Result<Bytes> {
        bytes_of(&json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"probe": self.text(what)}},
            "rootfs": {"type": "layers", "diff_ids": []}}))
    }

    fn layer(&self, what: &str) -> Bytes {
        Bytes::from(self.text(what))
    }

    fn text(&self, what: &str) -> String {
        format!("{} {what}", self.nonce)
    }

    fn manifest(&self, family: Family, what: &str, config: &Bytes, layers: Vec<Value>) -> Result<Document> {
        let config = described(family.config(), config);
        let mut value = json!({"schemaVersion": 2, "mediaType": family.manifest(), "config": config, "layers": layers});
        // Docker's manifests have no annotations; config and layers hold what makes them unlike others.
        if family == Family::Oci {
            value["annotations"] = json!({"probe": self.text(what)});
        }
        Document::new(family.manifest(), &value)
    }

    /// An index of a child that is there and one that is not: put alone, then with the other's manifest as a blob.
    async fn sparse(&mut self, kept: &Descriptor) -> Result<(Finding, Finding)> {
        let here = self.remote.clone();
        let config = self.config("left out")?;
        let layer = json!(described(Family::Oci.layer(), &self.layer("left out")));
        let left_out = self.manifest(Family::Oci, "left out", &config, vec![layer])?;
        let index = self.index(Family::Oci, &[(kept, "amd64"), (&left_out.descriptor, "s390x")])?;
        let alone = self.finding(&here, &index).await;
        if !alone.is_no() {
            return Ok((alone, Finding::unknown("not tried: it was not needed")));
        }
        let stubs = match push(&here, &left_out.bytes).await {
            Ok(()) => self.finding(&here, &index).await,
            Err(error) => Finding::unknown(error),
        };
        Ok((alone, stubs))
    }

    fn index(&self, family: Family, children: &[(&Descriptor, &str)]) -> Result<Document> {
        let children: Vec<Value> = children
            .iter()
            .map(|(child, architecture)| {
                json!({"mediaType": child.media_type, "digest": child.digest, "size": child.size,
                    "platform": {"os": "linux", "architecture": architecture}})
            })
            .collect();
        let value = json!({"schemaVersion": 2, "mediaType": family.index(), "manifests": children});
        Document::new(family.index(), &value)
    }

    async fn docker(&mut self) -> Finding {
        let here = self.remote.clone();
        let image = match self.image(&here, Family::Docker, "docker").await {
            Ok(image) => image,
            Err(error) => return Finding::unknown(error),
        };
        let found = self.finding(&here, &image).await;
        if !found.is_yes() {
            return found;
        }
        match self.index(Family::Docker, &[(&image.descriptor, "amd64")]) {
            Ok(list) => self.finding(&here, &list).await,
            Err(error) => Finding::unknown(error),
        }
    }

    /// A manifest whose layer is nowhere but at its address. Its config is that of the kept image, which is there.
    fn foreign(&self, family: Family) -> Result<Document> {
        let layer = described(family.foreign(), &self.layer("foreign"));
        let layer =
            json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size, "urls": [NOWHERE]});
        self.manifest(family, "foreign", &self.config("kept")?, vec![layer])
    }

    fn artifact(&self, about: &Descriptor) -> Result<Document> {
        let layer = json!(described(MediaType::new("application/vnd.sealift.probe"), &self.layer("kept")));
        let value = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
            "artifactType": "application/vnd.sealift.probe",
            "config": described(MediaType::new("application/vnd.sealift.probe"), &self.config("kept")?),
            "layers": [layer],
            "subject": {"mediaType": about.media_type, "digest": about.digest, "size": about.size}});
        Document::new(MediaType::OCI_MANIFEST, &value)
    }

    /// A repository of a longer name, into which the blobs of the scratch repository are mounted.
    async fn nested(&mut self, client: &Client) -> (Finding, Finding) {
        let here = self.remote.repository().clone();
        let nested = match Repository::new(here.registry().clone(), &format!("{}/{NESTED}", here.path())) {
            Ok(name) => client.repository(&name),
            Err(error) => return (Finding::unknown(&error), Finding::unknown(error)),
        };
        let mount = async {
            let config = self.config("kept")?;
            nested.mount(&Digest::of(&config), &here).await
        };
        let mounts = match mount.await {
            Ok(true) => Finding::yes(),
            Ok(false) => Finding::no("it opened an upload instead"),
            Err(error) => Finding::unknown(error),
        };
        let names = match self.image(&nested, Family::Oci, "nested").await {
            Ok(image) => self.finding(&nested, &image).await,
            Err(error) if error.kind() == Kind::Refused => Finding::no(error),
            Err(error) => Finding::unknown(error),
        };
        (names, mounts)
    }

    /// The largest of [`SIZES`] that is taken.
    async fn manifest_size(&mut self, remote: &Remote) -> Result<u64> {
        let config = self.config("kept")?;
        for size in SIZES {
            let fitting = self.padded(&config, 0)?.bytes.len() as u64;
            let padding = usize::try_from(size.saturating_sub(fitting)).unwrap_or_default();
            if self.finding(remote, &self.padded(&config, padding)?).await.is_yes() {
                return Ok(size);
            }
        }
        Ok(0)
    }

    fn padded(&self, config: &Bytes, padding: usize) -> Result<Document> {
        let value = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
            "config": described(MediaType::OCI_CONFIG, config), "layers": [],
            "annotations": {"probe": self.text("size"), "padding": "x".repeat(padding)}});
        Document::new(MediaType::OCI_MANIFEST, &value)
    }

    /// Puts what has to be taken: without it nothing can be found out.
    async fn expect(&mut self, remote: &Remote, document: &Document) -> Result<Descriptor> {
        match self.put(remote, document).await? {
            None => Ok(document.descriptor.clone()),
            Some(answer) => Err(Error::new(Kind::Refused, format!("it takes no manifest: {answer}"))
                .while_(remote.repository())
                .on(Side::Target)),
        }
    }

    async fn finding(&mut self, remote: &Remote, document: &Document) -> Finding {
        match self.put(remote, document).await {
            Ok(None) => Finding::yes(),
            Ok(Some(answer)) => Finding::no(answer),
            // Trouble says nothing about what it would take.
            Err(error) if error.kind() == Kind::Refused => Finding::no(error),
            Err(error) => Finding::unknown(error),
        }
    }

    /// Puts a document; what the registry said, where it refuses.
    async fn put(&mut self, remote: &Remote, document: &Document) -> Result<Option<String>> {
        let Document { descriptor, bytes } = document;
        let (digest, media_type, bytes) = (&descriptor.digest, &descriptor.media_type, bytes.clone());
        // Of an index, a 500 that knows no such blob is an answer: the same that a replay would get.
        let answer = match media_type.is_index() {
            true => remote.put_sparse_index(digest, media_type, bytes).await?,
            false => remote.put_manifest(&Name::from(*digest), media_type, bytes).await?,
        };
        match answer {
            Put::Accepted { .. } => {
                self.put.push((remote.clone(), descriptor.digest));
                Ok(None)
            }
            Put::Refused(answer) => Ok(Some(answer.to_string())),
        }
    }

    /// Deletes what was put, what refers to others first; whether that is allowed, and what stays.
    async fn clean_up(&mut self) -> (Finding, Vec<String>) {
        let (mut deletion, mut left) = (Finding::unknown("not tried"), Vec::new());
        for (remote, digest) in std::mem::take(&mut self.put).into_iter().rev() {
            // Where one cannot be deleted, none can.
            if deletion.is_no() {
                left.push(format!("{}@{digest}", remote.repository()));
                continue;
            }
            match remote.delete_manifest(&Name::from(digest)).await {
                Ok(_) => deletion = Finding::yes(),
                Err(error) => {
                    deletion = Finding::no(error);
                    left.push(format!("{}@{digest}", remote.repository()));
                }
            }
        }
        (deletion, left)
    }
}

/// A manifest of the probe's own.
struct Document {
    descriptor: Descriptor,
    bytes: Bytes,
}

impl Document {
    fn new(media_type: MediaType, value: &Value) -> Result<Self> {
        let bytes = bytes_of(value)?;
        Ok(Document { descriptor: Descriptor::of(media_type, &bytes), bytes })
    }
}

fn bytes_of(value: &Value) -> Result<Bytes> {
    canonical(value).map(Bytes::from).map_err(|error| Error::failed(error.to_string()))
}

fn described(media_type: MediaType, bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type, bytes)
}

async fn push(remote: &Remote, bytes: &Bytes) -> Result<()> {
    let open = |_| async { Ok(Body::full(bytes.clone())) };
    remote.push_blob(&described(MediaType::OCTET_STREAM, bytes), open).await
}

async fn referrers_api(remote: &Remote) -> Finding {
    match remote.supports_referrers().await {
        Ok(true) => Finding::yes(),
        Ok(false) => Finding::no("there is none: lists are kept under a tag"),
        Err(error) => Finding::unknown(error),
    }
}
