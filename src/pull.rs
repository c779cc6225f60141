//! Pull: what a plan decided comes from the registries into the store.

mod missing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use crate::content::{Limits, Role, Source, Work, copy};
use crate::durable;
use crate::error::{Error, Problem, Result, Side};
use crate::image::Image;
use crate::monitor::Monitor;
use crate::oci::elsewhere::{NotAsked, URLS_MAX};
use crate::oci::{Descriptor, Digest, Elsewhere, LayerUrl, MediaType, Repository};
use crate::plan::{Plan, PlannedImage};
use crate::store::Store;
use crate::store::records::{Failure, Run, RunImage};

use missing::{Missing, fetch, settle};

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullReport {
    /// The stream.
    pub stream: String,
    /// Images that are whole in the store.
    pub complete: u64,
    /// Blobs that were fetched.
    pub fetched_blobs: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// What the plan says that the operator should know.
    pub notes: Vec<String>,
    /// Foreign layers that were to come along and could not be had: their images are whole without them, and the run is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<Failure>,
    /// Everything that is not there, and why: what the plan could not do, then what the pull could not.
    pub failed: Vec<Failure>,
}

/// Fetches everything that `plan` needs and the store does not have, and records the run.
///
/// Each image stands for itself: one that fails does not stop the others. An error means that nothing more could be
/// done (a full disk, a lock that another process holds). After any interruption the same call goes on.
pub async fn pull<S: Source>(
    plan: &Plan,
    source: &S,
    store: &Arc<Store>,
    limits: Limits,
    monitor: &dyn Monitor,
) -> Result<PullReport> {
    let _lock = store.lock_stream(&plan.stream)?;
    let mut problems: HashMap<usize, Problem> = HashMap::new();
    let (blobs, contradicting) = fetch_manifests(plan, source, store, limits, &mut problems, monitor).await?;
    let wanted: u64 = blobs.work.iter().map(|blob| blob.descriptor.size).fold(0, u64::saturating_add);
    refuse_when_full(store, &blobs.work)?;
    monitor.begin("pull", blobs.work.len() as u64, wanted);
    let (mut fetched_blobs, mut fetched_bytes) = (0, 0);
    let mut missing: Vec<Missing> = Vec::new();
    // One blob under two lengths: at least one of the manifests lies, and only that one's image is to fail. They share a
    // partial file, so they come one after the other.
    for needed in [blobs, contradicting] {
        let (blobs, bytes) = needed.sums();
        let failed = fetch(needed, source, store, limits, monitor).await;
        fetched_blobs += blobs - failed.len() as u64;
        fetched_bytes += bytes.saturating_sub(failed.iter().map(|one| one.size).fold(0, u64::saturating_add));
        missing.extend(failed);
    }
    monitor.end();
    let settled = settle(plan, store, missing, &mut problems, monitor);
    // Where a registry was down for all of them, the stream stays what it was, and can be exported.
    let nothing_found = plan.images.is_empty() && !plan.failed.is_empty();
    let images = match nothing_found {
        true => Vec::new(),
        false => record(plan, &settled.images, store, &problems, monitor)?.images,
    };
    let mut failed = plan.failed.clone();
    failed.extend(images.iter().filter_map(|image| {
        let problem = image.problem.clone()?;
        Some(Failure { subject: subject(image), problem })
    }));
    let complete = images.iter().filter(|image| image.problem.is_none()).count() as u64;
    Ok(PullReport {
        stream: plan.stream.clone(),
        complete,
        fetched_blobs,
        fetched_bytes,
        notes: plan.notes.clone(),
        left_behind: settled.left_behind,
        failed,
    })
}

fn subject(image: &RunImage) -> String {
    image.tags.iter().map(|tag| format!("{}:{tag}", image.repository)).collect::<Vec<_>>().join(", ")
}

/// Blobs that are not in the store.
#[derive(Default)]
struct Needed {
    work: Vec<Work>,
    /// For each of them the images, by place in the plan, that need it.
    images: Vec<Vec<usize>>,
    /// For each of them where else it may be, in this order.
    elsewhere: Vec<Vec<Result<LayerUrl, NotAsked>>>,
}

impl Needed {
    /// How many blobs, and of how many bytes together.
    fn sums(&self) -> (u64, u64) {
        let bytes = self.work.iter().map(|item| item.descriptor.size).fold(0, u64::saturating_add);
        (self.work.len() as u64, bytes)
    }
}

/// Makes sure that every manifest is in the store, and lists the blobs that are not: largest first, so that the longest
/// transfer does not begin last. Apart from them, those that another manifest lists with another length.
async fn fetch_manifests<S: Source>(
    plan: &Plan,
    source: &S,
    store: &Arc<Store>,
    limits: Limits,
    problems: &mut HashMap<usize, Problem>,
    monitor: &dyn Monitor,
) -> Result<(Needed, Needed)> {
    let mut needed = Collected::default();
    for (at, planned) in plan.images.iter().enumerate() {
        let found = fetch_manifests_of(planned, source, store, limits).await;
        match found {
            Ok(blobs) => {
                let from = planned.image.repository()?;
                let rules = Arc::new(planned.urls.elsewhere.clone());
                for blob in blobs {
                    needed.add(blob, &from, at, &rules);
                }
            }
            Err(error) => {
                monitor.problem(&error);
                problems.insert(at, Problem::from(&error));
            }
        }
    }
    let mut blobs = needed.blobs;
    blobs.sort_by_key(|blob| (std::cmp::Reverse(blob.size), blob.digest));
    let mut seen = HashSet::new();
    let contradicting: Vec<Found> = blobs.extract_if(.., |blob| !seen.insert(blob.digest)).collect();
    Ok((Needed::from(blobs), Needed::from(contradicting)))
}

/// A blob while all are collected: there may be hundreds of thousands.
struct Found {
    media_type: MediaType,
    digest: Digest,
    size: u64,
    from: Vec<Repository>,
    images: Vec<usize>,
    elsewhere: Vec<Result<LayerUrl, NotAsked>>,
}

#[derive(Default)]
struct Collected {
    places: HashMap<(Digest, u64), usize>,
    blobs: Vec<Found>,
}

impl Collected {
    /// `image` needs `blob`, which its repository `from` has, or else addresses that `rules` allow.
    fn add(&mut self, blob: Descriptor, from: &Repository, image: usize, rules: &Arc<Elsewhere>) {
        let Descriptor { media_type, digest, size, urls, .. } = blob;
        let place = *self.places.entry((digest, size)).or_insert(self.blobs.len());
        if place == self.blobs.len() {
            let (from, images, elsewhere) = (Vec::new(), Vec::new(), Vec::new());
            self.blobs.push(Found { media_type, digest, size, from, images, elsewhere });
        }
        let Some(there) = self.blobs.get_mut(place) else { return };
        if there.images.last() != Some(&image) {
            there.images.push(image);
        }
        if !there.from.contains(from) {
            there.from.push(from.clone());
        }
        for address in urls.iter().take(URLS_MAX).map(|url| rules.address(url)) {
            if there.elsewhere.len() < URLS_MAX && !there.elsewhere.contains(&address) {
                there.elsewhere.push(address);
            }
        }
    }
}

impl From<Vec<Found>> for Needed {
    fn from(blobs: Vec<Found>) -> Self {
        // At once: of twenty thousand, growing step by step would hold them twice.
        let count = blobs.len();
        let mut needed = Needed {
            work: Vec::with_capacity(count),
            images: Vec::with_capacity(count),
            elsewhere: Vec::with_capacity(count),
        };
        for Found { media_type, digest, size, from, images, elsewhere } in blobs {
            needed.work.push(Work::whole(Descriptor::new(media_type, digest, size), from, Role::Blob));
            needed.images.push(images);
            needed.elsewhere.push(elsewhere);
        }
        needed
    }
}

/// The blobs of one image that the store does not have.
async fn fetch_manifests_of<S: Source>(
    planned: &PlannedImage,
    source: &S,
    store: &Arc<Store>,
    limits: Limits,
) -> Result<Vec<Descriptor>> {
    let image = &planned.image;
    let from = vec![image.repository()?];
    // The planner has left them in the store. A plan from a file, or a store that was cleaned since, has not.
    let at_source = image.clone().before_trim();
    let missing: Vec<Work> = at_source
        .manifests()
        .into_iter()
        .filter(|(descriptor, _)| !store.has(descriptor))
        .map(|(descriptor, _)| Work::whole(descriptor.clone(), from.clone(), Role::Manifest))
        .collect();
    if let Some((_, error)) = copy(&missing, source, store, limits, &crate::monitor::Silent).await.into_iter().next() {
        return Err(error);
    }
    for made in image.remade(|descriptor| store.manifest_bytes(descriptor))? {
        store.put(&made.descriptor.digest, &made.bytes)?;
    }
    store.needed(image).map(|blobs| blobs.into_iter().filter(|blob| !store.has(blob)).collect())
}

/// Refuses before anything is fetched when the disk cannot hold it. What is there of a blob already counts.
fn refuse_when_full(store: &Store, blobs: &[Work]) -> Result<()> {
    let rest = |blob: &Work| blob.descriptor.size.saturating_sub(store.partial_size(&blob.descriptor.digest));
    let wanted = blobs.iter().map(rest).fold(0, u64::saturating_add);
    let Some(free) = durable::free_space(store.root()).filter(|&free| wanted > free) else { return Ok(()) };
    let largest = blobs.first().map_or(String::new(), |blob| {
        let from: Vec<String> = blob.from.iter().map(ToString::to_string).collect();
        format!("; the largest blob has {} bytes, of {}", blob.descriptor.size, from.join(" and "))
    });
    let place = store.root().display();
    Err(Error::failed(format!("{wanted} bytes are to be fetched, and {free} are free below {place}{largest}"))
        .on(Side::Store)
        .help("free space, or choose fewer images or platforms; nothing was fetched"))
}

/// Writes the records of the images, as they really came, and of the run, then `index.json` where it changes.
fn record(
    plan: &Plan,
    changed: &HashMap<usize, Image>,
    store: &Store,
    problems: &HashMap<usize, Problem>,
    monitor: &dyn Monitor,
) -> Result<Run> {
    let mut images = Vec::with_capacity(plan.images.len());
    for (at, planned) in plan.images.iter().enumerate() {
        images.push(RunImage {
            repository: planned.image.repository.clone(),
            tags: planned.tags.clone(),
            image: store.put_image(changed.get(&at).unwrap_or(&planned.image))?,
            signatures_checked: planned.signatures_checked.clone(),
            problem: problems.get(&at).cloned(),
        });
    }
    let mut run = Run {
        stream: plan.stream.clone(),
        number: 0,
        started: plan.created.clone(),
        export_to: plan.export_to.clone(),
        volume_size: plan.volume_size,
        images,
        failed: plan.failed.clone(),
    };
    store.put_run(&mut run)?;
    let mut references = Vec::new();
    for (planned, entry) in plan.images.iter().zip(&run.images).filter(|(_, entry)| entry.problem.is_none()) {
        references.extend(planned.image.named(&entry.tags)?);
    }
    for error in store.list(&run, &references)? {
        monitor.problem(&error);
    }
    Ok(run)
}
