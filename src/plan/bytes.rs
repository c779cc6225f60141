//! Summing what a plan would move, so that it can be refused before it begins.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Draft, PlannedImage};
use crate::bundle::{Placed, VOLUME_SIZE_DEFAULT, pack};
use crate::error::Result;
use crate::image::Part;
use crate::oci::{Descriptor, Digest};
use crate::store::Store;
use crate::store::records::Failure;

/// What a plan moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Images.
    pub images: u64,
    /// Tags.
    pub tags: u64,
    /// Bytes that have to be fetched.
    pub new: u64,
    /// Bytes that are in the store already.
    pub in_store: u64,
    /// Bytes of foreign layers that stay where their urls say.
    pub foreign_skipped: u64,
    /// Bytes of foreign layers that come along; they are among those to be fetched or in the store too.
    #[serde(default)]
    pub foreign_included: u64,
    /// Bytes of left-out children, as far as their manifests are known.
    pub left_out: u64,
    /// Volumes that an export of everything needs, besides `meta.tar`; absent where they are too small for a layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<u64>,
    /// Manifests that were read from registries for this plan.
    pub manifest_pulls: u64,
}

/// The bytes of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageBytes {
    /// To be fetched, and needed by no image before it in the plan.
    pub new: u64,
    /// To be fetched, but for an image before it.
    pub shared: u64,
    /// In the store already.
    pub in_store: u64,
    /// Foreign layers that stay behind.
    pub foreign_skipped: u64,
    /// Foreign layers that come along; they are among those to be fetched or in the store too.
    #[serde(default)]
    pub foreign_included: u64,
    /// Left-out children.
    pub left_out: u64,
}

/// The bytes of one platform of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformBytes {
    /// The platform; `(none)` for children without one, `signatures` for those.
    pub platform: String,
    /// Whether it is kept.
    pub kept: bool,
    /// Config and layers.
    pub bytes: u64,
    /// How much of that is not in the store.
    pub missing: u64,
}

/// Sums over the images of `draft`. One whose manifests cannot be read again is one of the draft's failures from then on.
pub(super) fn sum(draft: &mut Draft, store: &Store, volume_size: Option<u64>) -> (Vec<PlannedImage>, Totals) {
    let mut sums = Sums { store, seen: HashSet::new(), layers: Vec::new() };
    let mut totals = Totals { manifest_pulls: draft.manifest_pulls, ..Totals::default() };
    let mut images = std::mem::take(&mut draft.images);
    images.retain_mut(|planned| {
        let image = &planned.image;
        match sums.image(image) {
            Ok(summed) => (planned.bytes, planned.platforms) = summed,
            Err(error) => {
                draft.failed.push(Failure::new(format!("{}@{}", image.repository, image.root.digest.short()), &error));
                return false;
            }
        }
        totals.images += 1;
        totals.tags += planned.tags.len() as u64;
        add(&mut totals.new, planned.bytes.new);
        add(&mut totals.in_store, planned.bytes.in_store);
        add(&mut totals.foreign_skipped, planned.bytes.foreign_skipped);
        add(&mut totals.foreign_included, planned.bytes.foreign_included);
        add(&mut totals.left_out, planned.bytes.left_out);
        true
    });
    let packing = pack(&[], &sums.layers, volume_size.unwrap_or(VOLUME_SIZE_DEFAULT));
    totals.volumes = packing.ok().map(|packing| packing.volumes.len() as u64 - 1);
    (images, totals)
}

struct Sums<'a> {
    store: &'a Store,
    seen: HashSet<Digest>,
    layers: Vec<Placed>,
}

impl Sums<'_> {
    fn image(&mut self, image: &crate::image::Image) -> Result<(ImageBytes, Vec<PlatformBytes>)> {
        let mut bytes = ImageBytes::default();
        let mut rows: BTreeMap<(usize, String), PlatformBytes> = BTreeMap::new();
        for (descriptor, part) in image.manifests() {
            if part == Part::Stub {
                continue;
            }
            let manifest = self.store.manifest(descriptor)?;
            let (order, platform) = place(image, descriptor, part);
            for blob in image.blobs_of(&descriptor.digest, &manifest) {
                let missing = self.count(blob, &mut bytes);
                let row = rows.entry((order, platform.clone())).or_insert_with(|| empty_row(&platform, true));
                add(&mut row.bytes, blob.size);
                add(&mut row.missing, missing);
            }
        }
        for (at, child) in image.left_out.iter().enumerate() {
            let platform = child.platform.clone().unwrap_or_else(|| "(none)".into());
            let size = if child.stub { self.blobs_size(&child.descriptor)? } else { 0 };
            add(&mut bytes.left_out, size);
            let order = image.kept.len() + 1 + at;
            let row = rows.entry((order, platform.clone())).or_insert_with(|| empty_row(&platform, false));
            add(&mut row.bytes, size);
        }
        (bytes.foreign_skipped, bytes.foreign_included) = foreign(image);
        Ok((bytes, rows.into_values().collect()))
    }

    /// Counts a blob once for the plan; how many of its bytes are not in the store.
    fn count(&mut self, blob: &Descriptor, bytes: &mut ImageBytes) -> u64 {
        let here = self.store.has(blob);
        let first = self.seen.insert(blob.digest);
        if first {
            self.layers.push(Placed { digest: blob.digest, size: blob.size, in_meta: false });
        }
        match (here, first) {
            (true, true) => add(&mut bytes.in_store, blob.size),
            (false, true) => add(&mut bytes.new, blob.size),
            (_, false) => add(&mut bytes.shared, blob.size),
        }
        if here { 0 } else { blob.size }
    }

    fn blobs_size(&self, descriptor: &Descriptor) -> Result<u64> {
        let manifest = self.store.manifest(descriptor)?;
        let sizes = manifest.successors().filter(|_| manifest.children().is_empty()).map(|blob| blob.size);
        Ok(sizes.fold(0, u64::saturating_add))
    }
}

/// Sizes are what manifests claim, and together they may claim more than there is.
fn add(sum: &mut u64, bytes: u64) {
    *sum = sum.saturating_add(bytes);
}

/// The bytes of foreign layers that stay behind, and of those that come along; each once, whichever manifests list it.
fn foreign(image: &crate::image::Image) -> (u64, u64) {
    let (mut seen, mut skipped, mut included) = (HashSet::new(), 0, 0);
    for layer in &image.foreign {
        if seen.insert((layer.descriptor.digest, layer.comes_along())) {
            add(if layer.comes_along() { &mut included } else { &mut skipped }, layer.descriptor.size);
        }
    }
    (skipped, included)
}

fn empty_row(platform: &str, kept: bool) -> PlatformBytes {
    PlatformBytes { platform: platform.to_owned(), kept, bytes: 0, missing: 0 }
}

/// Under which row of an image a manifest's bytes are shown.
fn place(image: &crate::image::Image, descriptor: &Descriptor, part: Part) -> (usize, String) {
    if part == Part::Signature {
        return (usize::MAX, "signatures".into());
    }
    let kept = image.kept.iter().enumerate().find(|(_, child)| child.descriptor.digest == descriptor.digest);
    match kept {
        Some((at, child)) => match child.attests {
            Some(_) => (image.kept.len(), "attestations".into()),
            None => (at, child.platform.clone().unwrap_or_else(|| "(none)".into())),
        },
        None => (0, descriptor.platform.as_ref().map_or_else(|| "(single)".into(), ToString::to_string)),
    }
}
