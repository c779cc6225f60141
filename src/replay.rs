//! Replay: what a bundle carries is published on a target, image by image, tags last.

use std::sync::Arc;

use serde::Serialize;

use crate::bundle::BundleReader;
use crate::content::{Limits, Role, Work, copy};
use crate::error::{Context, Error, Kind, Result, Side};
use crate::image::{BundleName, Image, Part, SignatureForm};
use crate::monitor::Monitor;
use crate::oci::{Descriptor, Digest, Name, Repository, Tag};
use crate::registry::Client;
use crate::site::state::{State, Verdict};
use crate::target::{Known, Listed, RegistryTarget, Rung, list_referrer, put_index};

/// From a source repository to its repository on a target.
pub type Naming = Box<dyn Fn(&Repository) -> Result<Repository> + Send + Sync>;

/// Where and how a bundle is published.
pub struct Destination {
    /// The client of the target's registry.
    pub client: Client,
    /// The name that a source repository gets on the target.
    pub name: Naming,
    /// Whether the manifests of left-out children may be pushed as blobs where the registry wants them.
    pub stubs: bool,
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
    /// Signatures that are on the target, of how many.
    pub signatures: (u64, u64),
    /// What was published but is not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortfalls: Vec<String>,
    /// Why it was not published; absent when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Why an image was not published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Problem {
    /// In words.
    pub text: String,
    /// What can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What that means for the exit status.
    #[serde(skip)]
    pub kind: Kind,
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
    let known = Known::default();
    let bytes = contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    monitor.begin("replay", contents.images.len() as u64, bytes);
    let mut report =
        ReplayReport { bundle: name.to_string(), digest: reader.digest(), images: Vec::new(), notes: Vec::new() };
    let mut failures_in_a_row = 0;
    for image in &contents.images {
        let publisher = Publisher { reader, destination, name: &name, image, monitor };
        let replayed = match failures_in_a_row {
            FAILURES_IN_A_ROW_MAX => publisher.not_tried()?,
            _ => publisher.publish(&known, state).await?,
        };
        let failed = replayed.problem.as_ref().is_some_and(|problem| problem.kind == Kind::Failed);
        failures_in_a_row = if failed { (failures_in_a_row + 1).min(FAILURES_IN_A_ROW_MAX) } else { 0 };
        report.images.push(replayed);
    }
    monitor.end();
    report.notes = notes(&report);
    Ok(report)
}

fn notes(report: &ReplayReport) -> Vec<String> {
    let stubs = report.images.iter().any(|image| image.rung == Some(Rung::Stubs));
    let mut notes = Vec::new();
    if stubs {
        notes.push(
            "this registry took sparse indexes with stubs beside them: it answers 200 for the manifest of a left-out platform, and a client that asks for one fails a step later".to_owned(),
        );
        notes.push(
            "never run `garbage-collect --delete-untagged` of distribution 2.x on this registry: it removes the kept children of a tagged index".to_owned(),
        );
    }
    notes
}

/// After how many images in a row that failed (not: were refused, or are damaged) the target is taken to be down. Each has
/// been tried again and again by then; hundreds more would take the night.
const FAILURES_IN_A_ROW_MAX: u32 = 3;

/// Publishes one image.
struct Publisher<'a> {
    reader: &'a Arc<BundleReader>,
    destination: &'a Destination,
    name: &'a BundleName,
    image: &'a Image,
    monitor: &'a dyn Monitor,
}

impl Publisher<'_> {
    /// The report of an image of which nothing is known yet, and its repository on the target.
    fn begin(&self) -> Result<(ReplayedImage, Repository)> {
        let source = self.image.repository()?;
        let repository = (self.destination.name)(&source)?;
        let replayed = ReplayedImage {
            source: source.to_string(),
            target: repository.to_string(),
            root: self.image.root.digest,
            tags: Vec::new(),
            tags_kept: Vec::new(),
            rung: None,
            signatures: (0, self.image.signatures.len() as u64),
            shortfalls: Vec::new(),
            problem: None,
        };
        Ok((replayed, repository))
    }

    fn not_tried(&self) -> Result<ReplayedImage> {
        let (mut replayed, _) = self.begin()?;
        let text =
            format!("not tried: {FAILURES_IN_A_ROW_MAX} images in a row failed, so the target is taken to be down");
        let help = Some("look at what the first of them met, and run the same command again".to_owned());
        replayed.problem = Some(Problem { text, help, kind: Kind::Failed });
        Ok(replayed)
    }

    async fn publish(&self, known: &Known, state: &State) -> Result<ReplayedImage> {
        let (mut replayed, repository) = self.begin()?;
        let target = RegistryTarget::new(self.destination.client.repository(&repository), known.clone());
        let outcome = self.publish_to(&target, state, &mut replayed).await;
        if let Err(error) = outcome {
            self.monitor.problem(&error);
            replayed.problem = Some(Problem {
                text: error.to_string(),
                help: error.help_text().map(str::to_owned),
                kind: error.kind(),
            });
        }
        self.monitor.item(&format!("{}@{}", replayed.target, replayed.root.short()));
        Ok(replayed)
    }

    async fn publish_to(&self, target: &RegistryTarget, state: &State, replayed: &mut ReplayedImage) -> Result<()> {
        let needed =
            self.image.needed(|descriptor| self.reader.manifest(descriptor)).while_(|| &self.image.repository)?;
        self.refuse_incomplete(&needed)?;
        let work: Vec<Work> = needed.into_iter().map(|blob| whole(&blob, Role::Blob)).collect();
        self.carry(&work, target).await?;
        for (descriptor, _) in
            self.image.manifests().iter().filter(|(_, part)| matches!(part, Part::Child | Part::Root))
        {
            replayed.rung = replayed.rung.max(self.put_manifest(target, descriptor).await?);
        }
        self.put_signatures(target, replayed).await?;
        self.put_tags(target, state, replayed).await
    }

    /// A bundle without a baseline carries everything that its images need; one that does not is not published in part.
    fn refuse_incomplete(&self, needed: &[Descriptor]) -> Result<()> {
        match needed.iter().find(|blob| self.reader.size_of(&blob.digest) != Some(blob.size)) {
            None => Ok(()),
            Some(blob) => Err(Error::new(Kind::Missing, format!("the bundle does not carry blob {}", blob.digest))
                .while_(&self.image.repository)
                .on(Side::Bundle)),
        }
    }

    async fn carry(&self, work: &[Work], target: &RegistryTarget) -> Result<()> {
        let failures = copy(work, self.reader, target, self.destination.limits, self.monitor).await;
        match failures.into_iter().next() {
            None => Ok(()),
            Some((_, error)) => Err(error.while_(&self.image.repository)),
        }
    }

    /// Puts a manifest by its digest: by the ladder where it is an index of which children were left out.
    async fn put_manifest(&self, target: &RegistryTarget, descriptor: &Descriptor) -> Result<Option<Rung>> {
        let mut left_out = self.image.left_out.iter().filter(|child| child.parent == descriptor.digest).peekable();
        if left_out.peek().is_none() {
            self.carry(&[whole(descriptor, Role::Manifest)], target).await?;
            return Ok(None);
        }
        let stubs = left_out.filter(|child| child.stub && self.destination.stubs);
        let stubs: Vec<Work> = stubs.map(|child| whole(&child.descriptor, Role::Blob)).collect();
        put_index(target, descriptor, self.reader.read(descriptor)?, &stubs, self.reader).await.map(Some)
    }

    async fn put_signatures(&self, target: &RegistryTarget, replayed: &mut ReplayedImage) -> Result<()> {
        for signature in &self.image.signatures {
            let descriptor = &signature.descriptor;
            let role = signature.tag.clone().map_or(Role::Manifest, Role::Tagged);
            self.carry(&[whole(descriptor, role)], target).await?;
            if signature.form == SignatureForm::Referrer {
                let manifest = self.reader.manifest(descriptor)?;
                match list_referrer(target.remote(), &signature.subject, descriptor, &manifest).await? {
                    Listed::ByApi | Listed::ByTag => {}
                    Listed::Occupied(kind) => {
                        let tag = Tag::referrers_fallback(&signature.subject);
                        replayed.shortfalls.push(format!(
                            "referrer {} is on the target but not listed: the tag {tag} holds a {kind} and is left alone",
                            descriptor.digest.short()
                        ));
                        continue;
                    }
                }
            }
            replayed.signatures.0 += 1;
        }
        Ok(())
    }

    async fn put_tags(&self, target: &RegistryTarget, state: &State, replayed: &mut ReplayedImage) -> Result<()> {
        let root = &self.image.root;
        let repository = target.remote().repository().clone();
        let mut remembered = state.tags(&repository)?;
        for tag in self.reader.contents().tags_of(self.image) {
            let verdict = remembered.verdict(&tag, self.name, &root.digest);
            if verdict != Verdict::Set && self.destination.rollback.is_none() {
                self.monitor.note(&format!("{repository}:{tag} stays where a newer bundle has put it"));
                replayed.tags_kept.push(tag);
                continue;
            }
            // Remembered before it is moved: whatever happens then, no older bundle moves it back.
            remembered.set(&tag, self.name, &root.digest, self.destination.rollback.is_some());
            state.put_tags(&repository, &remembered)?;
            self.carry(&[whole(root, Role::Tagged(tag.clone()))], target).await?;
            let found = target.remote().head_manifest(&Name::from(tag.clone())).await?;
            if found.as_ref().map(|found| found.digest) != Some(root.digest) {
                let text = found.map_or_else(|| "nothing".to_owned(), |found| found.digest.to_string());
                replayed.shortfalls.push(format!("{repository}:{tag} points to {text} after it was set"));
                continue;
            }
            replayed.tags.push(tag);
        }
        Ok(())
    }
}

fn whole(descriptor: &Descriptor, role: Role) -> Work {
    Work::whole(descriptor.clone(), Vec::new(), role)
}

/// Orders bundles so that the newest of a stream comes last.
pub fn in_order(readers: Vec<BundleReader>) -> Vec<Arc<BundleReader>> {
    let mut readers: Vec<Arc<BundleReader>> = readers.into_iter().map(Arc::new).collect();
    readers.sort_by_key(|reader| reader.contents().name());
    readers
}
