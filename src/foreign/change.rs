//! Making an image of which some layers are foreign, or none, and pushing it.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::decide::{Candidate, Decision, Document, Wish, decide};
use super::place::{config_of, name_of};
use super::tree::Tree;
use super::urls;
use crate::content::{Limits, Role, Work, copy};
use crate::error::{Error, Kind, Result, Side};
use crate::monitor::Monitor;
use crate::oci::manifest::{Content, config_platform};
use crate::oci::{Descriptor, Digest, MediaType, Name, Platform, PlatformPattern, Reference, Tag};
use crate::registry::{Answer, Client, Pull, Put, Remote};
use crate::target::{Known, RegistryTarget};

/// What was made of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeReport {
    /// What it was made of, as it was named.
    pub source: String,
    /// Where it is now: the repository.
    pub target: String,
    /// The tag that points to it there; absent where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The digest that it had.
    pub old: Digest,
    /// The digest that it has now.
    pub new: Digest,
    /// The images whose manifests changed: one, or children of the index.
    pub images: Vec<ChangedImage>,
    /// The layers that changed.
    pub layers: Vec<ChangedLayer>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// A manifest that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ChangedImage {
    /// Its platform, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The digest that it had.
    pub old: Digest,
    /// The digest that it has now.
    pub new: Digest,
    /// Its config, which stayed what it was: the ID of the image for docker and podman.
    pub config: Digest,
}

/// A layer that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedLayer {
    /// The manifest that lists it now.
    pub manifest: Digest,
    /// The platform of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Which of its layers it is, from 1.
    pub number: u64,
    /// Its name, which stayed.
    pub digest: Digest,
    /// Its length, which stayed.
    pub size: u64,
    /// The media type that it had.
    pub was: MediaType,
    /// The media type that it has now.
    pub is: MediaType,
    /// Where it is to be had now. Queries are not shown: they may be secrets.
    pub urls: Vec<String>,
    /// Whether it was pushed to the target.
    pub pushed: bool,
}

/// What is to be changed, and where to.
pub struct Order<'a> {
    /// The image.
    pub source: &'a Reference,
    /// The repository, and the tag where one is to point to it.
    pub target: &'a Reference,
    /// What is to be done.
    pub wish: &'a Wish,
    /// Only to images for this platform.
    pub platform: Option<&'a PlatformPattern>,
    /// Whether foreign layers are pushed too, as far as the source has them.
    pub push_foreign: bool,
    /// How much is moved at once.
    pub limits: Limits,
}

/// Makes the image, and pushes it: blobs first, then manifests, the root and its tag last.
pub async fn change(
    order: &Order<'_>,
    source: &Client,
    target: &Client,
    monitor: &dyn Monitor,
) -> Result<ChangeReport> {
    let from = source.repository(&order.source.repository);
    let tree = Tree::read(&from, &name_of(order.source)?).await?;
    let candidates = candidates(&tree, &from).await?;
    let decision = decide(&tree, &candidates, order.platform, order.wish)?;
    let blobs = to_push(order, &decision, &from).await?;
    let known = Known::default();
    // Within one registry nothing has to be moved.
    if order.source.repository.registry() == order.target.repository.registry() {
        blobs.iter().for_each(|blob| known.put(blob.digest, &order.source.repository));
    }
    let remote = target.repository(&order.target.repository);
    let pushing = Pushing { order, source, target: RegistryTarget::new(remote, known) };
    monitor.begin("push", blobs.len() as u64, blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add));
    pushing.blobs(&blobs, monitor).await?;
    for document in &decision.documents {
        pushing.put(document, &Name::from(document.descriptor.digest)).await?;
    }
    monitor.end();
    let root = decision.documents.last().ok_or_else(|| Error::failed("the image has no manifest"))?;
    if let Some(tag) = &order.target.tag {
        pushing.tag(root, tag).await?;
    }
    Ok(report(order, &decision, root, &blobs))
}

/// The images among the manifests, with the platform that index or config names.
async fn candidates(tree: &Tree, from: &Remote) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for (at, node) in tree.nodes.iter().enumerate() {
        let Some(config) = node.image_config().filter(|_| node.descriptor.attests().is_none()) else { continue };
        let platform = match &node.descriptor.platform {
            Some(platform) => Some((**platform).clone()),
            None => config_platform(&config_of(from, config).await?),
        };
        // An attestation that does not say of what.
        if platform.as_ref().is_some_and(Platform::is_unknown) {
            continue;
        }
        candidates.push(Candidate { node: at, platform });
    }
    Ok(candidates)
}

/// Everything that the new manifests need. Foreign layers only where that is asked for; a layer that is to be foreign no more
/// has to be at the source.
async fn to_push(order: &Order<'_>, decision: &Decision, from: &Remote) -> Result<Vec<Descriptor>> {
    let changed: HashSet<Digest> = decision.changes.iter().map(|change| change.before.digest).collect();
    let (mut blobs, mut seen) = (Vec::new(), HashSet::new());
    for document in &decision.documents {
        let Content::Image { .. } = document.manifest.content else { continue };
        for blob in document.manifest.successors() {
            let foreign = blob.media_type.is_foreign_layer();
            if (foreign && !order.push_foreign) || seen.contains(&blob.digest) {
                continue;
            }
            let to_be_sure_of = foreign || changed.contains(&blob.digest);
            if to_be_sure_of && from.blob_exists(&blob.digest).await? != Some(blob.size) {
                if foreign && !changed.contains(&blob.digest) {
                    // One that was foreign before, and that nobody has asked about.
                    continue;
                }
                return Err(not_at_source(order, blob));
            }
            seen.insert(blob.digest);
            blobs.push(Descriptor::new(blob.media_type.clone(), blob.digest, blob.size));
        }
    }
    Ok(blobs)
}

fn not_at_source(order: &Order<'_>, blob: &Descriptor) -> Error {
    Error::failed(format!("layer {} is not in {}", blob.digest, order.source.repository)).on(Side::Source).help(
        "its bytes have to be in that repository: push the layer there first, or name a registry that has it. \
         Nothing is fetched from urls here",
    )
}

struct Pushing<'a> {
    order: &'a Order<'a>,
    source: &'a Client,
    target: RegistryTarget,
}

impl Pushing<'_> {
    async fn blobs(&self, blobs: &[Descriptor], monitor: &dyn Monitor) -> Result<()> {
        let from = &self.order.source.repository;
        let work: Vec<Work> =
            blobs.iter().map(|blob| Work::whole(blob.clone(), vec![from.clone()], Role::Blob)).collect();
        let pull = Pull::new(self.source.clone());
        let failures = copy(&work, &pull, &self.target, self.order.limits, monitor).await;
        failures.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    async fn put(&self, document: &Document, name: &Name) -> Result<()> {
        let remote = self.target.remote();
        let Document { descriptor, bytes, .. } = document;
        match remote.put_manifest(name, &descriptor.media_type, bytes.clone()).await? {
            Put::Accepted { .. } => Ok(()),
            Put::Refused(answer) => Err(self.refused(document, &answer)),
        }
    }

    /// Points the tag to the root, and reads it again.
    async fn tag(&self, root: &Document, tag: &Tag) -> Result<()> {
        let name = Name::from(tag.clone());
        self.put(root, &name).await?;
        let found = self.target.remote().head_manifest(&name).await?.map(|found| found.digest);
        match found == Some(root.descriptor.digest) {
            true => Ok(()),
            false => {
                let instead = found.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
                Err(Error::failed(format!("the tag {tag} points to {instead} after it was set"))
                    .while_(self.target.remote().repository())
                    .on(Side::Target))
            }
        }
    }

    fn refused(&self, document: &Document, answer: &Answer) -> Error {
        let digest = document.descriptor.digest;
        let error = Error::new(Kind::Refused, format!("it does not take manifest {digest}: {answer}"))
            .while_(self.target.remote().repository())
            .on(Side::Target);
        match foreign_urls(document) {
            urls if urls.is_empty() => error,
            urls => error.help_first(remedy(&urls)),
        }
    }
}

fn foreign_urls(document: &Document) -> Vec<&str> {
    let layers = document.manifest.successors().filter(|blob| blob.media_type.is_foreign_layer());
    layers.flat_map(|layer| &layer.urls).map(String::as_str).collect()
}

/// What the registry has to be told, so that it takes these addresses.
fn remedy(urls: &[&str]) -> String {
    let scheme = |url: &str| url.split_once("://").map_or("https", |(scheme, _)| scheme).to_owned();
    let patterns: BTreeSet<String> = urls
        .iter()
        .filter_map(|url| Some(format!("\"^{}://{}/\"", scheme(url), urls::host(url)?.replace('.', "\\\\."))))
        .collect();
    let patterns: Vec<String> = patterns.into_iter().collect();
    format!(
        "the manifest has a foreign layer, and this registry wants something else of its urls or its bytes. distribution: \
         validation: {{manifests: {{urls: {{allow: [{}]}}}}}}. zot, Pulp and others want the layer itself: --push-layers. \
         `sealift probe` shows what a registry takes",
        patterns.join(", ")
    )
}

fn report(order: &Order<'_>, decision: &Decision, root: &Document, blobs: &[Descriptor]) -> ChangeReport {
    let pushed: HashSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
    let made: HashMap<Digest, Digest> =
        decision.documents.iter().map(|document| (document.old, document.descriptor.digest)).collect();
    let layers = decision.changes.iter().map(|change| ChangedLayer {
        manifest: made.get(&change.of).copied().unwrap_or(change.of),
        platform: change.platform.clone(),
        number: change.number,
        digest: change.before.digest,
        size: change.before.size,
        was: change.before.media_type.clone(),
        is: MediaType::new(change.media_type),
        urls: change.urls.iter().map(|url| urls::shown(url)).collect(),
        pushed: pushed.contains(&change.before.digest),
    });
    ChangeReport {
        source: order.source.to_string(),
        target: order.target.repository.to_string(),
        tag: order.target.tag.clone(),
        old: root.old,
        new: root.descriptor.digest,
        images: changed_images(decision),
        layers: layers.collect(),
        notes: notes(order, decision, root),
    }
}

fn changed_images(decision: &Decision) -> Vec<ChangedImage> {
    let platforms: HashMap<Digest, &Option<String>> =
        decision.changes.iter().map(|change| (change.of, &change.platform)).collect();
    let of = |document: &Document| match &document.manifest.content {
        Content::Image { config, .. } if document.old != document.descriptor.digest => Some(ChangedImage {
            platform: platforms.get(&document.old).copied().cloned().flatten(),
            old: document.old,
            new: document.descriptor.digest,
            config: config.digest,
        }),
        _ => None,
    };
    decision.documents.iter().filter_map(of).collect()
}

fn notes(order: &Order<'_>, decision: &Decision, root: &Document) -> Vec<String> {
    let mut notes = vec![format!(
        "signatures, attestations and other referrers of {} do not cover {}: sign it, and whatever of its children is signed, anew",
        root.old, root.descriptor.digest
    )];
    if matches!(order.wish, Wish::Mark(_)) {
        notes.push(
            "the OCI image specification has deprecated foreign (non-distributable) layers since version 1.1: clients still have to take them, and builders should make none"
                .to_owned(),
        );
        notes.push(
            "nobody has asked the urls: each has to answer a client without a login, with exactly the bytes of its layer. containerd and podman ask there first, and may ask nobody else"
                .to_owned(),
        );
    }
    let made: HashSet<Digest> =
        decision.documents.iter().filter(|one| one.old != one.descriptor.digest).map(|one| one.old).collect();
    let stale = decision.documents.iter().flat_map(|document| document.manifest.children());
    let stale = stale.filter(|child| child.attests().is_some_and(|of| made.contains(&of))).count();
    if stale > 0 {
        let what = if stale == 1 {
            "its attestation as it is".to_owned()
        } else {
            format!("its {stale} attestations as they are")
        };
        notes.push(format!("the index keeps {what}: they speak of the old manifests, and not of the new ones"));
    }
    notes
}
