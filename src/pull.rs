//! Pull: what a plan decided comes from the registries into the store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;

use crate::content::{Limits, Role, Source, Work, copy};
use crate::error::{Error, Result, Side};
use crate::image::index_json;
use crate::monitor::Monitor;
use crate::oci::{Descriptor, Digest, Repository};
use crate::plan::{Plan, PlannedImage};
use crate::store::Store;
use crate::store::records::{Failure, Run, RunImage};

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
    let mut problems: HashMap<usize, String> = HashMap::new();
    let blobs = fetch_manifests(plan, source, store, limits, &mut problems, monitor).await?;
    let wanted: u64 = blobs.iter().map(|blob| blob.work.descriptor.size).fold(0, u64::saturating_add);
    refuse_when_full(store, wanted)?;
    monitor.begin("pull", blobs.len() as u64, wanted);
    let work: Vec<Work> = blobs.iter().map(|blob| blob.work.clone()).collect();
    let failures = copy(&work, source, store, limits, monitor).await;
    monitor.end();
    let failed_blobs: HashSet<usize> = failures.iter().map(|(at, _)| *at).collect();
    for (at, error) in &failures {
        for image in blobs.get(*at).into_iter().flat_map(|blob| &blob.images) {
            problems.entry(*image).or_insert_with(|| error.to_string());
        }
        monitor.problem(error);
    }
    let fetched = blobs.iter().enumerate().filter(|(at, _)| !failed_blobs.contains(at)).map(|(_, blob)| blob);
    let (fetched_blobs, fetched_bytes) =
        fetched.fold((0, 0), |(count, bytes), blob| (count + 1, bytes + blob.work.descriptor.size));
    let run = record(plan, store, &problems)?;
    let mut failed = plan.failed.clone();
    failed.extend(run.images.iter().filter_map(|image| {
        let problem = image.problem.clone()?;
        Some(Failure { subject: subject(image), problem })
    }));
    let complete = run.images.iter().filter(|image| image.problem.is_none()).count() as u64;
    Ok(PullReport { stream: plan.stream.clone(), complete, fetched_blobs, fetched_bytes, failed })
}

fn subject(image: &RunImage) -> String {
    image.tags.iter().map(|tag| format!("{}:{tag}", image.repository)).collect::<Vec<_>>().join(", ")
}

/// A blob that is not in the store, and the images (by place) that need it.
struct Needed {
    work: Work,
    images: BTreeSet<usize>,
}

/// Makes sure that every manifest is in the store, and lists the blobs that are not: largest first, so that the longest
/// transfer does not begin last.
async fn fetch_manifests<S: Source>(
    plan: &Plan,
    source: &S,
    store: &Arc<Store>,
    limits: Limits,
    problems: &mut HashMap<usize, String>,
    monitor: &dyn Monitor,
) -> Result<Vec<Needed>> {
    let mut needed: HashMap<Digest, Needed> = HashMap::new();
    for (at, planned) in plan.images.iter().enumerate() {
        let found = fetch_manifests_of(planned, source, store, limits).await;
        match found {
            Ok(blobs) => {
                let from = planned.image.repository()?;
                for blob in blobs {
                    add(&mut needed, blob, &from, at);
                }
            }
            Err(error) => {
                monitor.problem(&error);
                problems.insert(at, error.to_string());
            }
        }
    }
    let mut needed: Vec<Needed> = needed.into_values().collect();
    needed.sort_by_key(|blob| (std::cmp::Reverse(blob.work.descriptor.size), blob.work.descriptor.digest));
    Ok(needed)
}

fn add(needed: &mut HashMap<Digest, Needed>, blob: Descriptor, from: &Repository, image: usize) {
    let entry = needed
        .entry(blob.digest)
        .or_insert_with(|| Needed { work: Work::whole(blob, Vec::new(), Role::Blob), images: BTreeSet::new() });
    entry.images.insert(image);
    if !entry.work.from.contains(from) {
        entry.work.from.push(from.clone());
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
    let missing: Vec<Work> = image
        .manifests()
        .into_iter()
        .filter(|(descriptor, _)| !store.has(descriptor))
        .map(|(descriptor, _)| Work::whole(descriptor.clone(), from.clone(), Role::Manifest))
        .collect();
    if let Some((_, error)) = copy(&missing, source, store, limits, &crate::monitor::Silent).await.into_iter().next() {
        return Err(error);
    }
    store.needed(image).map(|blobs| blobs.into_iter().filter(|blob| !store.has(blob)).collect())
}

/// Refuses before anything is fetched when the disk cannot hold it.
fn refuse_when_full(store: &Store, wanted: u64) -> Result<()> {
    let Ok(found) = rustix::fs::statvfs(store.root()) else { return Ok(()) };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if wanted <= free {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{wanted} bytes are to be fetched, and {free} are free below {}",
        store.root().display()
    ))
    .on(Side::Store)
    .help("free space, or choose fewer images or platforms; nothing was fetched"))
}

/// Writes the records of the images and of the run, then `index.json`.
fn record(plan: &Plan, store: &Store, problems: &HashMap<usize, String>) -> Result<Run> {
    let mut images = Vec::with_capacity(plan.images.len());
    for (at, planned) in plan.images.iter().enumerate() {
        images.push(RunImage {
            repository: planned.image.repository.clone(),
            tags: planned.tags.clone(),
            image: store.put_image(&planned.image)?,
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
    write_index(store)?;
    Ok(run)
}

/// `index.json` of the store: every tag of the latest run of every stream.
fn write_index(store: &Store) -> Result<()> {
    let mut references = Vec::new();
    for stream in store.catalog().streams()? {
        let Some(run) = store.latest_run(&stream)? else { continue };
        for entry in run.images.iter().filter(|entry| entry.problem.is_none()) {
            references.extend(store.image(&entry.image)?.named(&entry.tags)?);
        }
    }
    store.write_index(&index_json(&references)?)
}
