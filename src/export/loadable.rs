//! What goes into `manifest.json` of a layout: for each image one platform that `docker load` and `podman load` can take.
//!
//! Both stop at the first entry that they cannot load, and leave out what comes after it. So what cannot be loaded is
//! not named, and stands in the report with its reason; `index.json` has it all the same.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::Chosen;
use crate::error::{Error, Result, Side};
use crate::image::{ForeignDecision, Image, Part};
use crate::layout::Entry;
use crate::oci::manifest::Content;
use crate::oci::{CONFIG_SIZE_MAX, Descriptor, Digest, MediaType, Platform, PlatformPattern, Tag, json};
use crate::store::Store;

/// An image that `manifest.json` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Loadable {
    /// The repository with its source host.
    pub repository: String,
    /// The tags that it gets when it is loaded.
    pub tags: Vec<Tag>,
    /// The platform that is named.
    pub platform: String,
    /// The manifest of that platform.
    pub manifest: Digest,
    /// Its configuration: the image ID that docker and podman show.
    pub config: Digest,
    /// Platforms of it that are in the layout too, and not in `manifest.json`.
    pub other_platforms: Vec<String>,
}

/// An image that `manifest.json` does not name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct NotLoadable {
    /// The repository with its source host.
    pub repository: String,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Why, for each of its kept manifests.
    pub reasons: Vec<String>,
}

/// What was decided about `manifest.json`.
#[derive(Default)]
pub(super) struct Decided {
    pub(super) entries: Vec<Entry>,
    /// What comes after the others: see [`Decided::add`].
    with_zstd: Vec<Entry>,
    pub(super) loadable: Vec<Loadable>,
    pub(super) not_loadable: Vec<NotLoadable>,
    pub(super) notes: Vec<String>,
}

/// An image with what could be named of it.
struct Named<'a> {
    image: &'a Image,
    tags: Vec<Tag>,
    candidates: Vec<Candidate>,
    /// Why other manifests cannot be named.
    reasons: Vec<String>,
}

/// A manifest that could be loaded.
struct Candidate {
    manifest: Digest,
    platform: Platform,
    config: Digest,
    layers: Vec<Digest>,
    /// Whether a layer is compressed with zstd, which docker reads from version 23 on.
    zstd: bool,
}

/// Decides what `manifest.json` names of `chosen`.
pub(super) fn decide(chosen: &Chosen, store: &Store, wanted: Option<&PlatformPattern>) -> Result<Decided> {
    let mut named = Vec::new();
    let mut seen = HashSet::new();
    for image in &chosen.images {
        let tags: Vec<Tag> = chosen
            .references
            .iter()
            .filter(|reference| reference.descriptor.digest == image.root.digest)
            .filter(|reference| reference.name.to_string() == image.repository)
            .map(|reference| reference.tag.clone())
            .collect();
        // A root that was decided about twice has its tags once.
        if seen.insert((&image.repository, image.root.digest)) {
            named.push(look_at(image, tags, store)?);
        }
    }
    let os = os_of(&named, wanted);
    let mut decided = Decided::default();
    for image in named {
        decided.add(image, wanted, os.as_deref());
    }
    if let Some(pattern) = wanted.filter(|_| decided.loadable.is_empty()) {
        return Err(Error::usage(format!("--platform {pattern}: no image has such a platform that could be loaded"))
            .on(Side::Store)
            .help("name a platform that was pulled, or leave --platform out; nothing was written"));
    }
    Ok(decided.finish())
}

/// The operating system that `manifest.json` is for: docker refuses all of it when one image is for another one.
fn os_of(named: &[Named<'_>], wanted: Option<&PlatformPattern>) -> Option<String> {
    let candidates = named.iter().flat_map(|image| &image.candidates);
    let all: Vec<&Platform> = candidates.map(|candidate| &candidate.platform).filter(|p| selected(p, wanted)).collect();
    let own = Platform::of_this_machine().os;
    let found = all.iter().find(|platform| platform.os == own).or(all.first());
    found.map(|platform| platform.os.clone())
}

fn selected(platform: &Platform, wanted: Option<&PlatformPattern>) -> bool {
    wanted.is_none_or(|pattern| pattern.matches(platform))
}

fn look_at<'a>(image: &'a Image, tags: Vec<Tag>, store: &Store) -> Result<Named<'a>> {
    let attestations: HashSet<Digest> =
        image.kept.iter().filter(|child| child.attests.is_some()).map(|child| child.descriptor.digest).collect();
    let mut named = Named { image, tags, candidates: Vec::new(), reasons: Vec::new() };
    for (descriptor, part) in image.manifests() {
        // Signatures and attestations speak about images; nobody expects to load them.
        if matches!(part, Part::Stub | Part::Signature) || attestations.contains(&descriptor.digest) {
            continue;
        }
        let Content::Image { config, layers } = store.manifest(descriptor)?.content else { continue };
        match candidate(image, descriptor, &config, &layers, store)? {
            Ok(candidate) => named.candidates.push(candidate),
            Err(reason) => named.reasons.push(reason),
        }
    }
    Ok(named)
}

/// What a manifest is to `docker load`, or why it is nothing.
fn candidate(
    image: &Image,
    manifest: &Descriptor,
    config: &Descriptor,
    layers: &[Descriptor],
    store: &Store,
) -> Result<Result<Candidate, String>> {
    let name = manifest.platform.as_ref().map_or_else(|| manifest.digest.short(), ToString::to_string);
    if !config.media_type.is_image_config() {
        return Ok(Err(format!("{name} is no image that can be run: its configuration is {}", config.media_type)));
    }
    let left_behind = |layer: &crate::image::ForeignLayer| {
        layer.manifest == manifest.digest && layer.decision == ForeignDecision::Skip
    };
    if image.foreign.iter().any(left_behind) {
        return Ok(Err(format!("{name} has foreign layers that stay behind")));
    }
    if let Some(layer) = layers.iter().find(|layer| !is_archive(&layer.media_type)) {
        return Ok(Err(format!("{name} has a layer that is no archive of files: {}", layer.media_type)));
    }
    if config.size > CONFIG_SIZE_MAX {
        return Ok(Err(format!("{name} has a configuration of {} bytes", config.size)));
    }
    let Ok(parsed) = json::parse::<Config>(&store.read(config)?) else {
        return Ok(Err(format!("{name} has a configuration that cannot be read")));
    };
    let unpacked = parsed.rootfs.diff_ids.len();
    if unpacked != layers.len() {
        return Ok(Err(format!("{name} has {} layers, and its configuration names {unpacked}", layers.len())));
    }
    Ok(Ok(Candidate {
        manifest: manifest.digest,
        platform: parsed.platform(manifest),
        config: config.digest,
        layers: layers.iter().map(|layer| layer.digest).collect(),
        zstd: layers.iter().any(|layer| layer.media_type.as_str().ends_with("zstd")),
    }))
}

/// Whether a layer of that type is a tar archive that docker and podman unpack.
fn is_archive(media_type: &MediaType) -> bool {
    const ARCHIVES: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let text = media_type.as_str();
    let rest = ARCHIVES.iter().find_map(|known| text.strip_prefix(known));
    rest.is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
}

/// What docker reads of a configuration before it takes an image.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl Config {
    /// The platform that the index names, as far as the configuration agrees: docker believes this one.
    fn platform(&self, manifest: &Descriptor) -> Platform {
        let own = Platform::new(&self.os, &self.architecture, &self.variant);
        let agrees = |listed: &&Platform| self.os.is_empty() || listed.os == own.os;
        manifest.platform.as_deref().filter(agrees).cloned().unwrap_or(own)
    }
}

impl Decided {
    fn add(&mut self, image: Named<'_>, wanted: Option<&PlatformPattern>, os: Option<&str>) {
        let Named { image, tags, candidates, mut reasons } = image;
        let repository = image.repository.clone();
        let possible = |candidate: &&Candidate| {
            selected(&candidate.platform, wanted) && Some(candidate.platform.os.as_str()) == os
        };
        let Some(chosen) = pick(candidates.iter().filter(possible)) else {
            reasons.extend(candidates.iter().map(|candidate| match selected(&candidate.platform, wanted) {
                true => format!("docker refuses {} among images of another system", candidate.platform),
                false => format!("{} is not what --platform says", candidate.platform),
            }));
            self.not_loadable.push(NotLoadable { repository, tags, reasons });
            return;
        };
        let others = candidates.iter().filter(|other| other.manifest != chosen.manifest);
        self.loadable.push(Loadable {
            repository: repository.clone(),
            tags: tags.clone(),
            platform: chosen.platform.to_string(),
            manifest: chosen.manifest,
            config: chosen.config,
            other_platforms: others.map(|other| other.platform.to_string()).collect(),
        });
        let entry = Entry {
            config: chosen.config,
            names: tags.iter().map(|tag| format!("{repository}:{tag}")).collect(),
            layers: chosen.layers.clone(),
        };
        // Docker before 23 stops at the first image with zstd layers: those that it can load come first.
        match chosen.zstd {
            true => self.with_zstd.push(entry),
            false => self.entries.push(entry),
        }
        let own = Platform::of_this_machine();
        if candidates.len() > 1 && wanted.is_none() && chosen.platform != own {
            self.notes.push(format!("{repository}: {own} is not in it, so manifest.json names {}", chosen.platform));
        }
    }

    /// Ends the list, and says in notes what `manifest.json` does not name.
    fn finish(mut self) -> Self {
        let mut others: BTreeMap<&String, u64> = BTreeMap::new();
        for platform in self.loadable.iter().flat_map(|image| &image.other_platforms) {
            *others.entry(platform).or_default() += 1;
        }
        if !others.is_empty() {
            let listed: Vec<String> = others.iter().map(|(platform, count)| format!("{platform} ({count})")).collect();
            self.notes.push(format!(
                "manifest.json, which docker load reads, names one platform of each image; besides there are {}",
                listed.join(", ")
            ));
        }
        for image in &self.not_loadable {
            let tags: Vec<String> = image.tags.iter().map(|tag| format!(":{tag}")).collect();
            let reasons = image.reasons.join("; ");
            self.notes.push(format!("{}{}: not in manifest.json: {reasons}", image.repository, tags.join(",")));
        }
        if !self.with_zstd.is_empty() {
            let count = self.with_zstd.len();
            self.notes
                .push(format!("docker load before version 23 stops at images with zstd layers: the last {count}"));
        }
        self.entries.append(&mut self.with_zstd);
        self
    }
}

/// The platform of this machine where it is there, else one for its architecture, else the first.
fn pick<'a>(mut possible: impl Iterator<Item = &'a Candidate> + Clone) -> Option<&'a Candidate> {
    let own = Platform::of_this_machine();
    let exact = possible.clone().find(|candidate| candidate.platform == own);
    let near = || possible.clone().find(|candidate| candidate.platform.architecture == own.architecture);
    exact.or_else(near).or_else(|| possible.next())
}
