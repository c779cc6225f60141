//! Replay: what a bundle carries is published on a target, image by image, tags last.

mod publish;
mod recount;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::bundle::BundleReader;
use crate::content::Limits;
use crate::error::{Kind, Problem, Result};
use crate::image::{ForeignDecision, ForeignLayer, Image};
use crate::monitor::Monitor;
use crate::oci::elsewhere::hosts_of;
use crate::oci::{Digest, Repository, Tag};
use crate::registry::Client;
use crate::site::state::State;
use crate::target::{Known, Rung};

use publish::Publisher;

/// How many hosts a note names: a line, and not a page.
const NOTED_MAX: usize = 20;

/// From a source repository to its repository on a target.
pub type Naming = Box<dyn Fn(&Repository) -> Result<Repository> + Send + Sync>;

/// Where and how a bundle is published.
pub struct Destination {
    /// The client of the target's registry.
    pub client: Client,
    /// The name that a source repository gets on the target.
    pub name: Naming,
    /// Where on the target blobs are known to be: shared by all bundles of one call, so that what one brought is mounted for
    /// the next.
    pub known: Known,
    /// Whether the manifests of left-out children may be pushed as blobs where the registry wants them.
    pub stubs: bool,
    /// Whether kept children and referrers get tags of their own, so that a registry's garbage collector leaves them alone.
    pub tag_children: bool,
    /// Why tags may be moved back to what an older bundle says; `None`: they may not.
    pub rollback: Option<String>,
    /// How much is moved at once.
    pub limits: Limits,
}

/// What a replay did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayReport {
    /// `<stream>-<epoch>-<sequence>`.
    pub bundle: String,
    /// The digest of `bundle.json`.
    pub digest: Digest,
    /// Why tags were allowed to be moved back, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
    /// The images, in the order of the bundle.
    pub images: Vec<ReplayedImage>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What became of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedImage {
    /// The repository with its source host.
    pub source: String,
    /// The repository on the target.
    pub target: String,
    /// The digest of the root: the same on both sides.
    pub root: Digest,
    /// Tags that point to it now.
    pub tags: Vec<Tag>,
    /// Tags that a newer bundle has set to something else, and that were left there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags_kept: Vec<Tag>,
    /// How the target took the index, where children were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
    /// Signatures of it.
    pub signatures: SignatureCount,
    /// Foreign layers of it, and what was decided about them on the connected side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<ReplayedForeign>,
    /// What was published but is not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortfalls: Vec<String>,
    /// Why it was not published; absent when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A foreign layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedForeign {
    /// The layer.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What was decided about it.
    pub decision: ForeignDecision,
    /// It was to come along, and could not be had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unavailable: bool,
    /// The text that allows carrying it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge: Option<String>,
    /// The hosts of its `urls`: those whom containerd and podman ask first.
    pub hosts: Vec<String>,
}

impl From<&ForeignLayer> for ReplayedForeign {
    fn from(layer: &ForeignLayer) -> Self {
        ReplayedForeign {
            digest: layer.descriptor.digest,
            size: layer.descriptor.size,
            decision: layer.decision,
            unavailable: layer.unavailable,
            acknowledge: layer.acknowledge.clone(),
            hosts: hosts_of(&layer.descriptor.urls),
        }
    }
}

/// Signatures of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SignatureCount {
    /// How many the bundle has.
    pub expected: u64,
    /// How many were found when the target was asked again, each as whoever verifies the image looks for it: in the list of
    /// referrers of its subject, or under its tag. Nobody has looked where the image was not published.
    pub present: u64,
}

impl ReplayReport {
    /// What went wrong, as the kind that decides the exit status; `None` for nothing.
    pub fn verdict(&self) -> Option<Kind> {
        let problems = self.images.iter().filter_map(|image| image.problem.as_ref().map(|problem| problem.kind));
        let shortfalls = self.images.iter().any(|image| !image.shortfalls.is_empty()).then_some(Kind::Incomplete);
        Kind::first_of(problems.chain(shortfalls))
    }
}

/// Publishes the bundle of `reader`. Each image stands for itself; an error means that nothing more could be done.
///
/// After any interruption the same call goes on: blobs that arrived are found, manifests are put again.
pub async fn replay(
    reader: &Arc<BundleReader>,
    destination: &Destination,
    state: &mut State,
    monitor: &dyn Monitor,
) -> Result<ReplayReport> {
    let contents = reader.contents();
    let name = contents.name();
    state.check(&name, &reader.digest())?;
    state.accept(&name, &reader.digest())?;
    let bytes = contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    monitor.begin("replay", contents.images.len() as u64, bytes);
    let mut publisher = Publisher::new(reader, destination, state, monitor);
    let mut images = Vec::with_capacity(contents.images.len());
    for image in &contents.images {
        images.push(publisher.publish(image).await);
    }
    monitor.end();
    Ok(ReplayReport {
        bundle: name.to_string(),
        digest: reader.digest(),
        rollback: destination.rollback.clone(),
        notes: notes(&images, destination.tag_children).into_iter().chain(trimmed_note(&contents.images)).collect(),
        images,
    })
}

fn notes(images: &[ReplayedImage], tag_children: bool) -> Vec<String> {
    let stubs = images.iter().any(|image| image.rung == Some(Rung::Stubs));
    let mut notes = Vec::new();
    if images.iter().any(|image| image.problem.is_none() && image.signatures.present < image.signatures.expected) {
        notes.push(
            "signatures were pushed and are not found: whoever verifies these images on this registry will refuse them. Replay the bundle once more; where it stays like this, the registry loses or does not list what it takes: ask its operator".to_owned(),
        );
    }
    if stubs {
        notes.push(
            "this registry took sparse indexes with stubs beside them: it answers 200 for the manifest of a left-out platform, and a client that asks for one fails a step later".to_owned(),
        );
    }
    if stubs && !tag_children {
        notes.push(
            "never run `garbage-collect --delete-untagged` of distribution 2.x on this registry: it removes the kept children of a tagged index, unless the site says `tagChildren: true`".to_owned(),
        );
    }
    notes.extend(foreign_note(images));
    notes
}

/// What is to be known of indexes that nobody signed as they are.
fn trimmed_note(images: &[Image]) -> Option<String> {
    let trimmed = images.iter().filter(|image| image.trimmed.is_some()).count();
    (trimmed > 0).then(|| {
        let of = images.len();
        format!(
            "{trimmed} of {of} images have a trimmed index, which their publishers did not sign: `sealift inspect` at the target shows the originals, and checks the signatures of those"
        )
    })
}

/// Who pulls such images meets the addresses first: that is for the hosts, and nothing that a replay could do.
fn foreign_note(images: &[ReplayedImage]) -> Option<String> {
    let published = images.iter().filter(|image| image.problem.is_none());
    let hosts: BTreeSet<&str> = published
        .flat_map(|image| &image.foreign)
        .flat_map(|layer| &layer.hosts)
        .map(String::as_str)
        .take(NOTED_MAX)
        .collect();
    let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
    (!hosts.is_empty()).then(|| {
        format!(
            "some layers have urls at {hosts}: containerd and podman ask there before they ask this registry, and fail where nobody answers (docs/foreign-layers.md)"
        )
    })
}

/// Orders bundles so that the newest of a stream comes last.
pub fn in_order(readers: Vec<BundleReader>) -> Vec<Arc<BundleReader>> {
    let mut readers: Vec<Arc<BundleReader>> = readers.into_iter().map(Arc::new).collect();
    readers.sort_by_key(|reader| reader.contents().name());
    readers
}
