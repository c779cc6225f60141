//! Plan: a spec and what the registries and the store hold become a list of decisions. It moves no layer.
//!
//! Manifests that had to be read in order to decide are kept in the store as blobs: Docker Hub counts each read of a
//! manifest as a pull, so none is read twice.

mod bytes;
mod far;
mod fetch;
mod pulls;
mod signatures;
mod trim;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Context, Error, Result, Side};
use crate::image::{Absent, Image, IndexMode, Kept, Signature};
use crate::monitor::Monitor;
use crate::oci::{Descriptor, Digest, Name, Tag};
use crate::registry::Client;
use crate::spec::{CarrySignatures, ImageSpec, MirrorSpec, Selection};
use crate::store::Store;
use crate::store::records::{Failure, Run};

pub use bytes::{ImageBytes, PlatformBytes, Totals};
use far::Far;
use fetch::Fetcher;
pub use pulls::CountedPulls;

/// Tags of one entry that are looked up at the same time: no more than a registry is asked at once by default.
const TAGS_AT_ONCE: usize = 16;

/// Entries of a spec that are planned at the same time.
const ENTRIES_AT_ONCE: usize = 16;

/// Images of one entry that are planned at the same time.
const ROOTS_AT_ONCE: usize = 4;

/// What is to be done for one stream, and why. A value: it can be shown, kept in a file, and handed to `pull`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The name of the stream.
    pub stream: String,
    /// When it was planned, in UTC.
    pub created: String,
    /// Where the spec says that bundles go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_to: Option<PathBuf>,
    /// The volume size that the spec says, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<u64>,
    /// The images, in the order of the spec.
    pub images: Vec<PlannedImage>,
    /// What could not be planned. The others can be pulled all the same.
    pub failed: Vec<Failure>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// The sums over all images.
    pub totals: Totals,
    /// The registries that count pulls, with what they allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pulls: Vec<CountedPulls>,
}

/// One image of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedImage {
    /// The tags that point to it.
    pub tags: Vec<Tag>,
    /// What is kept of it, what is left out, and everything else that was decided.
    pub image: Image,
    /// When its signatures were looked up, in UTC.
    pub signatures_checked: String,
    /// The bytes of each platform.
    pub platforms: Vec<PlatformBytes>,
    /// The bytes of the image.
    pub bytes: ImageBytes,
}

/// Plans `spec`.
///
/// Failures of single images are in [`Plan::failed`]; an error means that nothing could be planned.
pub async fn plan(spec: &MirrorSpec, client: &Client, store: &Arc<Store>, monitor: &dyn Monitor) -> Result<Plan> {
    let now = jiff::Timestamp::now();
    let before = client.budgets();
    monitor.begin(&format!("plan {}", spec.name), 0, 0);
    let mut draft = draft(spec, client, store, now, monitor).await?;
    monitor.end();
    refuse_collisions(&draft.images)?;
    trim::trim(&mut draft, store);
    let (images, totals) = bytes::sum(&mut draft, store, spec.export.volume_size);
    let pulls = pulls::count(&before, client.budgets(), &images, store);
    draft.notes.extend(pulls.iter().filter_map(CountedPulls::warning));
    Ok(Plan {
        stream: spec.name.to_string(),
        created: clock::text(now),
        export_to: spec.export.to.clone(),
        volume_size: spec.export.volume_size,
        images,
        failed: draft.failed,
        notes: draft.notes,
        totals,
        pulls,
    })
}

/// Asks the registries about all entries of `spec`. What the last run found is dropped with the return: it is as large as
/// what comes of it.
async fn draft(
    spec: &MirrorSpec,
    client: &Client,
    store: &Arc<Store>,
    now: jiff::Timestamp,
    monitor: &dyn Monitor,
) -> Result<Draft> {
    let far = Far::load(&spec.target)?;
    let mut draft = Draft { notes: spec.notes.clone(), ..Draft::default() };
    let previous = Previous::load(store, spec.name.as_str()).unwrap_or_else(|error| {
        // What was found before spares looking it up again; the next pull writes a new record.
        draft.notes.push(format!("{error}; signatures are looked up again"));
        Previous::default()
    });
    let planners: Vec<ImagePlanner> = spec
        .images
        .iter()
        .map(|entry| {
            let fetcher = Fetcher::new(client, store, &entry.source);
            ImagePlanner { entry, far: &far, fetcher, previous: &previous, now }
        })
        .collect();
    let mut planned = stream::iter(&planners).map(|planner| planner.plan(monitor)).buffered(ENTRIES_AT_ONCE);
    while let Some(entry) = planned.next().await {
        draft.extend(entry);
    }
    Ok(draft)
}

/// What the plan of one entry, or of all, is made of.
#[derive(Default)]
struct Draft {
    /// Their bytes are counted when all are there.
    images: Vec<PlannedImage>,
    /// Where in `images` a root of a repository is, and whether it is to be trimmed.
    places: HashMap<(String, Digest, bool), usize>,
    failed: Vec<Failure>,
    notes: Vec<String>,
    manifest_pulls: u64,
}

impl Draft {
    /// Adds what another entry of the spec brings.
    fn extend(&mut self, other: Draft) {
        other.images.into_iter().for_each(|image| self.add(image));
        self.failed.extend(other.failed);
        self.notes.extend(other.notes);
        self.manifest_pulls += other.manifest_pulls;
    }

    /// Adds an image. Two entries of a spec may want other platforms of one image: then it is one image with both, so that
    /// no tag of it appears before all of them are there.
    fn add(&mut self, planned: PlannedImage) {
        let trimmed = planned.image.mode == IndexMode::Trim;
        let key = (planned.image.repository.clone(), planned.image.root.digest, trimmed);
        let place = *self.places.entry(key).or_insert(self.images.len());
        match self.images.get_mut(place) {
            Some(there) => {
                there.tags.extend(planned.tags);
                there.image.merge(planned.image);
            }
            None => self.images.push(planned),
        }
    }
}

/// What the latest run of the stream found, by repository and root.
#[derive(Default)]
struct Previous(HashMap<(String, Digest), Found>);

/// What is known about the signatures of an image: of ten thousand images, so no more than that.
struct Found {
    kept: Vec<Kept>,
    signatures: Vec<Signature>,
    absent: Vec<Absent>,
    checked: jiff::Timestamp,
}

impl Previous {
    fn load(store: &Store, stream: &str) -> Result<Self> {
        let Some(run) = store.latest_run(stream)? else { return Ok(Self::default()) };
        let Run { images, .. } = run;
        let mut found = HashMap::new();
        for entry in images {
            let Ok(checked) = entry.signatures_checked.parse() else { continue };
            // A record that cannot be read costs a look-up, not the plan.
            let image = store.image(&entry.image).map(Image::before_trim);
            if let Ok(Image { repository, root, kept, signatures, absent, .. }) = image {
                found.insert((repository, root.digest), Found { kept, signatures, absent, checked });
            }
        }
        Ok(Previous(found))
    }
}

/// Plans one entry of a spec.
struct ImagePlanner<'a> {
    entry: &'a ImageSpec,
    far: &'a Far,
    fetcher: Fetcher,
    previous: &'a Previous,
    now: jiff::Timestamp,
}

impl ImagePlanner<'_> {
    async fn plan(&self, monitor: &dyn Monitor) -> Draft {
        let mut draft = Draft::default();
        match self.resolve(&mut draft, monitor).await {
            Ok(roots) => self.plan_roots(roots, &mut draft, monitor).await,
            Err(error) => {
                monitor.problem(&error);
                draft.failed.push(Failure::new(self.entry.source.to_string(), &error));
            }
        }
        draft.manifest_pulls = self.fetcher.manifest_pulls();
        draft
    }

    async fn plan_roots(&self, roots: Vec<(Descriptor, Vec<Tag>)>, draft: &mut Draft, monitor: &dyn Monitor) {
        let planned = stream::iter(roots).map(|(root, tags)| async {
            let mut notes = Vec::new();
            let planned = self.plan_root(root, &mut notes).await;
            (tags, planned, notes)
        });
        let mut planned = std::pin::pin!(planned.buffered(ROOTS_AT_ONCE));
        while let Some((tags, planned, notes)) = planned.next().await {
            let subject = tags.iter().map(|tag| format!("{}:{tag}", self.entry.source)).collect::<Vec<_>>().join(", ");
            draft.notes.extend(notes);
            match planned {
                Ok(Some((image, signatures_checked))) => {
                    monitor.item(&subject);
                    let (platforms, bytes) = (Vec::new(), ImageBytes::default());
                    draft.add(PlannedImage { tags, image, signatures_checked, platforms, bytes });
                }
                Ok(None) => {}
                Err(error) => {
                    monitor.problem(&error);
                    draft.failed.push(Failure::new(subject, &error));
                }
            }
        }
    }

    /// The roots and the tags that point to each, in the order of the tags. Tags that fail are noted and passed over.
    async fn resolve(&self, draft: &mut Draft, monitor: &dyn Monitor) -> Result<Vec<(Descriptor, Vec<Tag>)>> {
        let wanted: Vec<(Tag, Name)> = match &self.entry.selection {
            Selection::Digest { digest, tag } => vec![(tag.clone(), Name::from(*digest))],
            Selection::Tags(selection) => {
                let all = if selection.needs_list() { self.fetcher.tags().await? } else { Vec::new() };
                let tags = selection.select(&all);
                if tags.is_empty() {
                    let what = format!("{}: no tag of {} is selected", self.entry.place, all.len());
                    return Err(Error::failed(what)
                        .on(Side::Source)
                        .help("compare tags of the entry with those of the repository: a range, or its variants, may miss them all"));
                }
                tags.into_iter().map(|tag| (tag.clone(), Name::from(tag))).collect()
            }
        };
        let asked = stream::iter(wanted).map(|(tag, name)| async move { (tag, self.fetcher.resolve(&name).await) });
        let answers: Vec<(Tag, Result<Descriptor>)> = asked.buffered(TAGS_AT_ONCE).collect().await;
        let mut roots: Vec<(Descriptor, Vec<Tag>)> = Vec::new();
        let mut places: HashMap<Digest, usize> = HashMap::new();
        for (tag, answer) in answers {
            match answer {
                Ok(root) => {
                    let place = *places.entry(root.digest).or_insert(roots.len());
                    match roots.get_mut(place) {
                        Some((_, tags)) => tags.push(tag),
                        None => roots.push((root, vec![tag])),
                    }
                }
                Err(error) => {
                    monitor.problem(&error);
                    let subject = format!("{}:{tag}", self.entry.source);
                    draft.failed.push(Failure::new(subject, &error));
                }
            }
        }
        Ok(roots)
    }

    /// Decides everything about one root; `None` when the spec says to skip it.
    async fn plan_root(&self, root: Descriptor, notes: &mut Vec<String>) -> Result<Option<(Image, String)>> {
        let label = format!("{}@{}", self.entry.source, root.digest.short());
        let walked = walk::walk(self.entry, self.far, &self.fetcher, root, notes);
        let Some(mut image) = walked.await.while_(|| &label)? else { return Ok(None) };
        notes.extend(self.far.notes(&image));
        let checked = self.add_signatures(&mut image, notes).await.while_(|| label)?;
        Ok(Some((image, checked)))
    }

    /// Signatures of a known digest are looked up again only when the last look is older than `recheck`.
    async fn add_signatures(&self, image: &mut Image, notes: &mut Vec<String>) -> Result<String> {
        if self.entry.signatures.carry == CarrySignatures::None {
            return Ok(clock::text(self.now));
        }
        let key = (image.repository.clone(), image.root.digest);
        // An image that was asked about lacks at least one form, or has all of them.
        let asked = |before: &Found| !(before.absent.is_empty() && before.signatures.is_empty());
        if let Some(before) = self.previous.0.get(&key)
            && before.kept == image.kept
            && before.signatures.iter().all(|signature| self.fetcher.has(&signature.descriptor))
            && asked(before)
            && self.now.duration_since(before.checked).unsigned_abs() < self.entry.signatures.recheck
        {
            image.signatures = before.signatures.clone();
            image.absent = before.absent.clone();
            return Ok(clock::text(before.checked));
        }
        signatures::collect(&self.fetcher, image, notes).await?;
        Ok(clock::text(self.now))
    }
}

/// Two sources that would get one name on a target are an error of the plan, and so is a name that no target takes.
fn refuse_collisions(images: &[PlannedImage]) -> Result<()> {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for planned in images {
        let repository = planned.image.repository()?;
        let name = repository.target_path("").map_err(|error| Error::usage(error.to_string()))?;
        match names.insert(name.clone(), &planned.image.repository) {
            Some(other) if other != planned.image.repository => {
                return Err(Error::usage(format!("{other} and {repository} would both be called {name} on a target"))
                    .help("take one of them out of the spec, or mirror it in a stream and a prefix of its own"));
            }
            _ => {}
        }
    }
    refuse_two_meanings(images)
}

/// A tag cannot point to an index and to what is made of it by trimming.
fn refuse_two_meanings(images: &[PlannedImage]) -> Result<()> {
    let mut modes: HashMap<(&str, Digest, &Tag), bool> = HashMap::new();
    for PlannedImage { tags, image, .. } in images {
        let trimmed = image.mode == IndexMode::Trim;
        for tag in tags {
            let key = (image.repository.as_str(), image.root.digest, tag);
            if modes.insert(key, trimmed).is_some_and(|other| other != trimmed) {
                let name = format!("{}:{tag}", image.repository);
                return Err(Error::usage(format!(
                    "two entries of the spec choose {name}, and one of them trims its index"
                ))
                .help("give both the same `index`, or choose the tag in one of them"));
            }
        }
    }
    Ok(())
}
