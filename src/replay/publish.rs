//! Publishing one image: blobs, children, the root, signatures, then tags.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::recount::recount;
use super::{Destination, ReplayedForeign, ReplayedImage, SignatureCount};
use crate::bundle::{BundleReader, TagsByImage};
use crate::content::{Role, Work, copy};
use crate::error::{Context, Error, Kind, Problem, Result, Side};
use crate::image::{BundleName, Image, Part, SignatureForm};
use crate::monitor::Monitor;
use crate::oci::{Descriptor, Name, Repository, Tag};
use crate::site::state::{State, Tags, Verdict};
use crate::target::{Listed, RegistryTarget, Rung, list_referrer, put_index};

/// After how many images in a row that the target failed (not: refused) it is asked whether it is there at all. Each has
/// been tried again and again by then; hundreds more would take the night.
const FAILURES_IN_A_ROW_MAX: u32 = 3;

/// Publishes the images of one bundle.
pub(super) struct Publisher<'a> {
    reader: &'a Arc<BundleReader>,
    destination: &'a Destination,
    state: &'a State,
    monitor: &'a dyn Monitor,
    name: BundleName,
    tags: TagsByImage,
    /// Names on the target that more than one source would get.
    shared: HashSet<Repository>,
    failures_in_a_row: u32,
    down: bool,
}

impl<'a> Publisher<'a> {
    pub fn new(
        reader: &'a Arc<BundleReader>,
        destination: &'a Destination,
        state: &'a State,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let contents = reader.contents();
        Publisher {
            reader,
            destination,
            state,
            monitor,
            name: contents.name(),
            tags: contents.tags(),
            shared: shared_names(&contents.images, destination),
            failures_in_a_row: 0,
            down: false,
        }
    }

    /// Publishes one image. What goes wrong is in the report of that image.
    pub async fn publish(&mut self, image: &Image) -> ReplayedImage {
        let mut replayed = ReplayedImage {
            source: image.repository.clone(),
            target: String::new(),
            root: image.root.digest,
            tags: Vec::new(),
            tags_kept: Vec::new(),
            rung: None,
            signatures: SignatureCount { expected: image.signatures.len() as u64, present: 0 },
            foreign: image.foreign.iter().map(ReplayedForeign::from).collect(),
            shortfalls: Vec::new(),
            problem: None,
        };
        if let Err(error) = self.try_publish(image, &mut replayed).await {
            self.monitor.problem(&error);
            replayed.problem = Some(Problem::from(&error));
        }
        self.monitor.item(&format!("{}@{}", replayed.target, replayed.root.short()));
        replayed
    }

    async fn try_publish(&mut self, image: &Image, replayed: &mut ReplayedImage) -> Result<()> {
        let repository = (self.destination.name)(&image.repository()?)?;
        replayed.target = repository.to_string();
        if self.shared.contains(&repository) {
            return Err(Error::usage(format!("{repository} is the name of more than one source on the target"))
                .help("change prefix or rewrite of the site, so that each source gets a name of its own"));
        }
        if self.down {
            return Err(Error::failed("not tried: the target is down")
                .on(Side::Target)
                .help("look at what the first image met, and run the same command again"));
        }
        let remote = self.destination.client.repository(&repository);
        let one = OneImage { of: self, image, target: RegistryTarget::new(remote, self.destination.known.clone()) };
        let outcome = one.publish(replayed).await;
        let failed =
            outcome.as_ref().is_err_and(|error| error.kind() == Kind::Failed && error.side() == Some(Side::Target));
        let gone = failed
            && self.failures_in_a_row + 1 >= FAILURES_IN_A_ROW_MAX
            && one.target.remote().blob_exists(&image.root.digest).await.is_err();
        self.failures_in_a_row = if failed { self.failures_in_a_row + 1 } else { 0 };
        self.down = gone;
        outcome
    }
}

/// Names that the destination gives to more than one source: their tags would overwrite each other.
fn shared_names(images: &[Image], destination: &Destination) -> HashSet<Repository> {
    let mut sources: HashMap<Repository, &str> = HashMap::new();
    let mut shared = HashSet::new();
    for image in images {
        // A name that cannot be made is reported with its image.
        let Ok(name) = image.repository().and_then(|source| (destination.name)(&source)) else { continue };
        if *sources.entry(name.clone()).or_insert(&image.repository) != image.repository {
            shared.insert(name);
        }
    }
    shared
}

/// One image on its way to its repository.
struct OneImage<'a> {
    of: &'a Publisher<'a>,
    image: &'a Image,
    target: RegistryTarget,
}

impl OneImage<'_> {
    async fn publish(&self, replayed: &mut ReplayedImage) -> Result<()> {
        let image = self.image;
        let needed = image.needed(|descriptor| self.of.reader.manifest(descriptor)).while_(|| &image.repository)?;
        self.refuse_incomplete(&needed)?;
        let work: Vec<Work> = needed.into_iter().map(|blob| whole(&blob, Role::Blob)).collect();
        self.carry(&work).await?;
        for (descriptor, part) in image.manifests() {
            if matches!(part, Part::Child | Part::Root) {
                replayed.rung = replayed.rung.max(self.put_manifest(descriptor).await?);
            }
        }
        let mut remembered = self.of.state.tags(self.target.remote().repository())?;
        self.put_signatures(&mut remembered).await?;
        self.keep_untagged().await?;
        self.count_signatures(&remembered, replayed).await;
        let tags = self.of.tags.get(&(image.repository.clone(), image.root.digest));
        for tag in tags.into_iter().flatten() {
            if !self.move_tag(&mut remembered, tag, &image.root).await? {
                replayed.tags_kept.push(tag.clone());
                continue;
            }
            match self.elsewhere(tag, &image.root).await? {
                None => replayed.tags.push(tag.clone()),
                Some(text) => replayed.shortfalls.push(text),
            }
        }
        Ok(())
    }

    /// A bundle without a baseline carries everything that its images need; one that does not is not published in part.
    fn refuse_incomplete(&self, needed: &[Descriptor]) -> Result<()> {
        match needed.iter().find(|blob| self.of.reader.size_of(&blob.digest) != Some(blob.size)) {
            None => Ok(()),
            Some(blob) => Err(Error::new(Kind::Missing, format!("the bundle does not carry blob {}", blob.digest))
                .while_(&self.image.repository)
                .on(Side::Bundle)
                .help("the bundle was made without it: pull and export the stream again")),
        }
    }

    async fn carry(&self, work: &[Work]) -> Result<()> {
        let Publisher { reader, destination, monitor, .. } = self.of;
        let failures = copy(work, *reader, &self.target, destination.limits, *monitor).await;
        match failures.into_iter().next() {
            None => Ok(()),
            Some((_, error)) => Err(error.while_(&self.image.repository)),
        }
    }

    /// Puts a manifest by its digest: by the ladder where it is an index of which children were left out.
    async fn put_manifest(&self, descriptor: &Descriptor) -> Result<Option<Rung>> {
        let mut left_out = self.image.left_out.iter().filter(|child| child.parent == descriptor.digest).peekable();
        if left_out.peek().is_none() {
            self.carry(&[whole(descriptor, Role::Manifest)]).await?;
            return Ok(None);
        }
        let stubs: Vec<Work> =
            left_out.filter(|child| child.stub).map(|child| whole(&child.descriptor, Role::Blob)).collect();
        let stubs = self.of.destination.stubs.then_some(stubs.as_slice());
        let bytes = self.of.reader.read(descriptor)?;
        put_index(&self.target, descriptor, bytes, stubs, self.of.reader).await.map(Some)
    }

    /// Puts each signature by its digest, then makes it findable: by the referrers API, its fallback tag, or the tag
    /// that cosign made of its subject. Whether it is found is counted afterwards.
    async fn put_signatures(&self, remembered: &mut Tags) -> Result<()> {
        for signature in &self.image.signatures {
            let descriptor = &signature.descriptor;
            self.carry(&[whole(descriptor, Role::Manifest)]).await?;
            match (&signature.form, &signature.tag) {
                (SignatureForm::CosignTag, Some(tag)) => _ = self.move_tag(remembered, tag, descriptor).await?,
                _ => {
                    let manifest = self.of.reader.manifest(descriptor)?;
                    let listed = list_referrer(self.target.remote(), &signature.subject, descriptor, &manifest).await?;
                    if let Listed::Occupied(kind) = listed {
                        let tag = Tag::referrers_fallback(&signature.subject);
                        self.of.monitor.note(&format!("the tag {tag} holds a {kind} and is left alone"));
                    }
                }
            }
        }
        Ok(())
    }

    /// What is there of the signatures, as the target itself says.
    async fn count_signatures(&self, remembered: &Tags, replayed: &mut ReplayedImage) {
        for missing in recount(self.target.remote(), &self.image.signatures, remembered).await {
            match missing {
                None => replayed.signatures.present += 1,
                Some(text) => replayed.shortfalls.push(text),
            }
        }
    }

    /// Tags what has no tag: it is the same for every bundle and every order of them, so nothing has to be remembered.
    async fn keep_untagged(&self) -> Result<()> {
        if !self.of.destination.tag_children {
            return Ok(());
        }
        let children = self.image.manifests().into_iter().filter(|(_, part)| *part == Part::Child);
        let referrers = self.image.signatures.iter().filter(|signature| signature.tag.is_none());
        let untagged = children.map(|(child, _)| child).chain(referrers.map(|signature| &signature.descriptor));
        let work: Vec<Work> =
            untagged.map(|manifest| whole(manifest, Role::Tagged(Tag::keeping(&manifest.digest)))).collect();
        self.carry(&work).await
    }

    /// Moves a tag to a manifest that is on the target; `false` where a newer bundle has moved it, and it is left there.
    async fn move_tag(&self, remembered: &mut Tags, tag: &Tag, to: &Descriptor) -> Result<bool> {
        let repository = self.target.remote().repository();
        let rollback = self.of.destination.rollback.as_deref();
        if remembered.verdict(tag, &self.of.name, &to.digest) != Verdict::Set && rollback.is_none() {
            self.of.monitor.note(&format!("{repository}:{tag} stays where a newer bundle has put it"));
            return Ok(false);
        }
        // Remembered before it is moved: whatever happens then, no older bundle moves it back.
        remembered.set(tag, &self.of.name, &to.digest, rollback);
        self.of.state.put_tags(repository, remembered)?;
        self.carry(&[whole(to, Role::Tagged(tag.clone()))]).await?;
        Ok(true)
    }

    /// Where a tag that was moved to `to` points when it is read again, in words; `None` where it is as it should be.
    async fn elsewhere(&self, tag: &Tag, to: &Descriptor) -> Result<Option<String>> {
        let remote = self.target.remote();
        let found = remote.head_manifest(&Name::from(tag.clone())).await?;
        if found.as_ref().map(|found| found.digest) == Some(to.digest) {
            return Ok(None);
        }
        let text = found.map_or_else(|| "nothing".to_owned(), |found| found.digest.to_string());
        Ok(Some(format!("{}:{tag} points to {text} after it was set", remote.repository())))
    }
}

fn whole(descriptor: &Descriptor, role: Role) -> Work {
    Work::whole(descriptor.clone(), Vec::new(), role)
}
