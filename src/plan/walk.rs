//! Walking an image: which children are kept, which are left out, and why.

use std::collections::{HashMap, HashSet};

use super::far::{Far, LeaveOut};
use super::fetch::{Fetcher, UNUSABLE};
use super::foreign;
use super::signatures::SIGNATURES_MAX;
use crate::error::{Error, Kind, Result, Side};
use crate::image::{ForeignLayer, Image, IndexMode, Kept, LeftOut, MANIFESTS_MAX, platform_text};
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX, config_platform};
use crate::oci::{Descriptor, Digest, Manifest, Platform, PlatformPattern};
use crate::spec::{ImageSpec, MissingPlatform};

/// The most left-out children whose manifests are fetched as stubs, for one image. Real indexes have up to about
/// thirty children; each stub costs a pull on Docker Hub.
const STUBS_MAX: usize = 100;

/// How many platforms of an index are named in an error, and how much of each: an index may say anything.
const OFFERED_MAX: usize = 40;
const OFFERED_LENGTH_MAX: usize = 80;

/// The most children of an image, those of nested indexes included: with its signatures they are what a bundle takes.
const CHILDREN_MAX: usize = MANIFESTS_MAX - SIGNATURES_MAX;

/// Decides about the image at `root`. `None`: it has none of the platforms, and the spec says to skip such images.
pub(super) async fn walk(
    entry: &ImageSpec,
    far: &Far,
    fetcher: &Fetcher,
    root: Descriptor,
    notes: &mut Vec<String>,
) -> Result<Option<Image>> {
    let manifest = fetcher.required(&root).await?;
    let root = Descriptor { media_type: manifest.media_type.clone(), ..root };
    let mut walk = Walk { entry, far, fetcher, children: Vec::new(), foreign: Vec::new(), lists: HashSet::new() };
    if manifest.children().is_empty() && matches!(manifest.content, Content::Image { .. }) {
        return walk.single(root, manifest, notes).await;
    }
    walk.flatten(&root, &manifest).await?;
    let selected = walk.select();
    if !walk.complain(&selected, notes)? {
        return Ok(None);
    }
    match entry.index {
        IndexMode::Child => walk.one_child(&selected, notes).await,
        mode => walk.index(root, mode, &selected, notes).await.map(Some),
    }
}

/// A child somewhere below the root.
struct Child {
    descriptor: Descriptor,
    parent: Digest,
    /// Whether it is an index itself.
    is_index: bool,
}

struct Walk<'a> {
    entry: &'a ImageSpec,
    far: &'a Far,
    fetcher: &'a Fetcher,
    children: Vec<Child>,
    foreign: Vec<ForeignLayer>,
    /// Indexes that were opened, so that none is opened twice.
    lists: HashSet<Digest>,
}

impl Walk<'_> {
    /// A manifest without an index: its config says its platform. An artifact that is no image has none, and is
    /// carried whole.
    async fn single(&mut self, root: Descriptor, manifest: Manifest, notes: &mut Vec<String>) -> Result<Option<Image>> {
        if let Content::Image { config, .. } = &manifest.content
            && config.media_type.is_image_config()
        {
            // An attestation or a signature that is carried for itself has the config of an image, for no platform.
            let platform = config_platform(&self.fetcher.config(config).await?).filter(|named| !named.is_unknown());
            let selected = platform.as_ref().is_none_or(|p| self.entry.platforms.iter().any(|want| want.matches(p)));
            if !selected {
                let has = platform.map_or_else(String::new, |p| p.to_string());
                return self.missing(&format!("it is a single image for {has}"), notes).map(|()| None);
            }
        }
        self.note_foreign(&root, &manifest);
        Ok(Some(self.image(root, IndexMode::Full)))
    }

    fn image(&mut self, root: Descriptor, mode: IndexMode) -> Image {
        let root = Descriptor { platform: None, annotations: Default::default(), ..root };
        let foreign = std::mem::take(&mut self.foreign);
        Image { foreign, ..Image::new(self.entry.source.to_string(), root, mode) }
    }

    /// Lists all children, those of nested indexes too, in the order of the documents: an index before its children.
    async fn flatten(&mut self, root: &Descriptor, manifest: &Manifest) -> Result<()> {
        self.lists.insert(root.digest);
        let mut open: Vec<(Descriptor, Manifest, usize)> = vec![(root.clone(), manifest.clone(), 1)];
        while let Some((list, manifest, depth)) = open.pop() {
            for child in manifest.children() {
                let is_index = child.media_type.is_index();
                let place = Child { descriptor: child.clone(), parent: list.digest, is_index };
                self.children.push(place);
                if self.children.len() > CHILDREN_MAX {
                    return Err(Error::verification(format!("it has more than {CHILDREN_MAX} children"))
                        .on(Side::Source)
                        .help(UNUSABLE));
                }
                if is_index && self.lists.insert(child.digest) {
                    if depth >= INDEX_DEPTH_MAX {
                        return Err(Error::verification(format!(
                            "its indexes are nested more than {INDEX_DEPTH_MAX} levels deep"
                        ))
                        .on(Side::Source)
                        .help(UNUSABLE));
                    }
                    // A nested index that the source does not have is like any child that it does not have.
                    if let Some(nested) = self.fetcher.manifest(child).await? {
                        open.push((child.clone(), nested, depth + 1));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether each child is kept, by the rules of the spec reference.
    fn select(&self) -> Vec<bool> {
        let all = self.entry.index == IndexMode::Full;
        let wanted = |platform: &Platform| self.entry.platforms.iter().any(|pattern| pattern.matches(platform));
        let mut kept: Vec<bool> = self
            .children
            .iter()
            .map(|child| {
                let descriptor = &child.descriptor;
                all || match &descriptor.platform {
                    _ if descriptor.attests().is_some() => false,
                    // containerd asks for a child without a platform on every pull.
                    None => true,
                    Some(platform) if platform.is_unknown() => true,
                    Some(platform) => wanted(platform),
                }
            })
            .collect();
        // An attestation is kept exactly when the image that it speaks of is.
        let images: HashSet<Digest> = self
            .children
            .iter()
            .zip(&kept)
            .filter(|(_, kept)| **kept)
            .map(|(child, _)| child.descriptor.digest)
            .collect();
        for (child, kept) in self.children.iter().zip(&mut kept) {
            if let Some(of) = child.descriptor.attests() {
                *kept = all || images.contains(&of);
            }
        }
        self.keep_with_parents(&mut kept);
        kept
    }

    /// An index with a kept child is kept, whatever platform it names itself.
    fn keep_with_parents(&self, kept: &mut [bool]) {
        for at in (0..self.children.len()).rev() {
            let digest = self.children[at].descriptor.digest;
            if self.children[at].is_index && self.children[at].descriptor.platform.is_some() {
                let has_kept =
                    self.children.iter().zip(kept.iter()).any(|(child, kept)| *kept && child.parent == digest);
                kept[at] |= has_kept;
            }
        }
    }

    /// A nested index of which nothing is kept would be trimmed to an index of nothing: it is left out itself. Children come
    /// after the index that lists them.
    fn leave_out_empty(&self, kept: &mut [bool]) {
        let mut listed: HashMap<Digest, bool> = HashMap::new();
        for (child, kept) in self.children.iter().zip(kept.iter_mut()).rev() {
            *kept &= !child.is_index || listed.get(&child.descriptor.digest).is_none_or(|any| *any);
            *listed.entry(child.parent).or_default() |= *kept;
        }
    }

    /// Patterns that matched nothing. `false` when nothing at all is left and the spec says to skip.
    fn complain(&self, selected: &[bool], notes: &mut Vec<String>) -> Result<bool> {
        let has = |pattern: &PlatformPattern| {
            self.children.iter().filter_map(|child| child.descriptor.platform.as_ref()).any(|p| pattern.matches(p))
        };
        let missing: Vec<String> =
            self.entry.platforms.iter().filter(|pattern| !has(pattern)).map(ToString::to_string).collect();
        // The children of an index of artifacts name no platform at all: it is taken whole, and none is missing.
        let nameless = |child: &Child| child.descriptor.platform.as_deref().is_none_or(Platform::is_unknown);
        let artifacts = !self.children.is_empty() && self.children.iter().all(nameless);
        if !missing.is_empty() && !artifacts {
            self.missing(&format!("it has no {}; it has {}", missing.join(", "), self.offered()), notes)?;
        }
        let images = |child: &Child| !child.is_index && child.descriptor.attests().is_none();
        let any = self.children.iter().zip(selected).any(|(child, kept)| *kept && images(child));
        if !any && !self.children.is_empty() && self.entry.missing_platform == MissingPlatform::Fail {
            self.missing("none of its children is selected", notes)?;
        }
        Ok(any || self.children.is_empty())
    }

    /// The platforms that children name, for people.
    fn offered(&self) -> String {
        let platforms = self.children.iter().filter_map(|child| child.descriptor.platform.as_ref());
        let mut texts = platforms.filter(|platform| !platform.is_unknown()).map(|platform| {
            let text = platform.to_string();
            text.chars().take(OFFERED_LENGTH_MAX).collect::<String>()
        });
        let shown: Vec<String> = texts.by_ref().take(OFFERED_MAX).collect();
        let more = match texts.count() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        match shown.is_empty() {
            true => "none".to_owned(),
            false => shown.join(", ") + &more,
        }
    }

    fn missing(&self, what: &str, notes: &mut Vec<String>) -> Result<()> {
        match self.entry.missing_platform {
            MissingPlatform::Skip => {
                notes.push(format!("{}: {what}; skipped, as missingPlatform says", self.entry.source));
                Ok(())
            }
            MissingPlatform::Fail => Err(Error::new(Kind::Failed, what)
                .on(Side::Source)
                .help(format!("change platforms at {}, or set missingPlatform: skip", self.entry.place))),
        }
    }

    async fn one_child(&mut self, selected: &[bool], notes: &mut Vec<String>) -> Result<Option<Image>> {
        let images: Vec<&Child> = self
            .children
            .iter()
            .zip(selected)
            .filter(|(child, kept)| {
                **kept && !child.is_index && child.descriptor.platform.as_ref().is_some_and(|p| !p.is_unknown())
            })
            .map(|(child, _)| child)
            .collect();
        let descriptor = match images[..] {
            [child] => child.descriptor.clone(),
            _ => {
                let count = images.len();
                return self
                    .missing(&format!("index: child needs exactly one child, and {count} are selected"), notes)
                    .map(|()| None);
            }
        };
        let manifest = self.fetcher.required(&descriptor).await?;
        self.note_foreign(&descriptor, &manifest);
        notes.push(format!(
            "{}: index: child: the index and signatures of it stay behind; what is carried is {}",
            self.entry.source, descriptor.digest
        ));
        Ok(Some(self.image(descriptor, IndexMode::Child)))
    }

    async fn index(
        &mut self,
        root: Descriptor,
        mode: IndexMode,
        selected: &[bool],
        notes: &mut Vec<String>,
    ) -> Result<Image> {
        let leave_out = match (selected.iter().all(|kept| *kept), mode) {
            (true, _) => LeaveOut::Nothing,
            (false, IndexMode::Trim) => LeaveOut::Trim,
            (false, _) => self.far.leave_out()?,
        };
        let mut selected = selected.to_vec();
        let mut mode = mode;
        if matches!(leave_out, LeaveOut::Trim) {
            self.leave_out_empty(&mut selected);
            mode = IndexMode::Trim;
        }
        let children = std::mem::take(&mut self.children);
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (child, keep) in children.into_iter().zip(&selected) {
            let platform = platform_text(child.descriptor.platform.as_deref());
            if *keep || matches!(leave_out, LeaveOut::Nothing) {
                let manifest = self.fetcher.required(&child.descriptor).await?;
                refuse_disguised(&child, &manifest)?;
                self.note_foreign(&child.descriptor, &manifest);
                let attests = child.descriptor.attests();
                kept.push(Kept { descriptor: child.descriptor, parent: child.parent, platform, attests });
            } else {
                left_out.push(LeftOut { descriptor: child.descriptor, parent: child.parent, platform, stub: false });
            }
        }
        if matches!(leave_out, LeaveOut::Yes { stubs: true }) {
            self.fetch_stubs(&mut left_out, notes).await?;
        }
        if matches!(leave_out, LeaveOut::Nothing) && selected.contains(&false) {
            notes.push(format!(
                "{}: all platforms are taken: the target refuses an index of which some are missing, says its profile",
                self.entry.source
            ));
        }
        let mut image = self.image(root, if left_out.is_empty() { IndexMode::Full } else { mode });
        image.kept = kept;
        image.left_out = left_out;
        Ok(image)
    }

    /// The manifests of left-out children, for targets that take an index only when they know all its children.
    async fn fetch_stubs(&self, left_out: &mut [LeftOut], notes: &mut Vec<String>) -> Result<()> {
        if left_out.len() > STUBS_MAX {
            notes.push(format!(
                "{}: {} children are left out, more than {STUBS_MAX}: they come without stubs, so a registry that wants every child will refuse the index",
                self.entry.source,
                left_out.len()
            ));
            return Ok(());
        }
        for child in left_out {
            let why = match self.fetcher.manifest(&child.descriptor).await {
                Ok(Some(_)) => {
                    child.stub = true;
                    continue;
                }
                Ok(None) => "does not have it".to_owned(),
                Err(error) if error.kind() == Kind::Verification => format!("has it damaged ({error})"),
                Err(error) => return Err(error),
            };
            notes.push(format!(
                "{}: the source lists {} {} and {why}; it was not wanted anyway",
                self.entry.source,
                child.platform.as_deref().unwrap_or("a child"),
                child.descriptor.digest.short()
            ));
        }
        Ok(())
    }

    fn note_foreign(&mut self, descriptor: &Descriptor, manifest: &Manifest) {
        self.foreign.extend(foreign::decide(&self.entry.foreign, descriptor, manifest));
    }
}

/// An index that is listed as something else was not opened, and would be carried without its children.
fn refuse_disguised(child: &Child, manifest: &Manifest) -> Result<()> {
    if child.is_index || manifest.children().is_empty() {
        return Ok(());
    }
    let Descriptor { digest, media_type, .. } = &child.descriptor;
    let what = format!("child {digest} is an index, and is listed as {media_type}");
    Err(Error::verification(what).on(Side::Source).help(UNUSABLE))
}
