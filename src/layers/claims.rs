//! [`Claims`]: what images say of their layers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::Compression;
use super::report::{DeepReport, LayerFailure, NotChecked, Why};
use crate::error::{Error, Kind, Result};
use crate::oci::manifest::{Content, config_diff_ids};
use crate::oci::{Descriptor, Digest, Manifest, MediaType};

/// The most claims: a thousand images of ten platforms with thirty layers each. They are in memory, some 200 bytes each.
const CLAIMS_MAX: usize = 300_000;

/// The most failures that are told one by one; the others are counted.
pub const FAILURES_MAX: usize = 1_000;

/// The most bytes of a name, or of what is wrong, that are kept: documents choose them.
const TEXT_MAX: usize = 256;

/// `text`, without what is beyond 256 bytes of it.
pub fn cut(text: &str) -> String {
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    let head = (0..=TEXT_MAX).rev().find_map(|end| text.get(..end)).unwrap_or_default();
    format!("{head}…")
}

/// A manifest and the image that it belongs to.
#[derive(Clone, Debug)]
pub struct Place {
    /// The image: repository and tags, or its digest.
    pub image: Arc<str>,
    /// The manifest.
    pub manifest: Digest,
}

/// Everything that images say of their layers, and what can be said without unpacking.
#[derive(Default)]
pub struct Claims {
    places: Vec<Place>,
    pub(super) layers: HashMap<(Digest, Compression), Layer>,
    not_checked: BTreeMap<(MediaType, Why), BTreeSet<Digest>>,
    failures: Vec<LayerFailure>,
    more_failures: u64,
    count: usize,
}

/// A layer, and what is said of it.
pub(super) struct Layer {
    pub size: u64,
    pub media_type: MediaType,
    pub claims: Vec<Claim>,
}

/// What one manifest says of a layer.
pub(super) struct Claim {
    /// Which of the places.
    pub place: usize,
    /// Which of its layers, from 0.
    pub position: usize,
    pub diff_id: Digest,
}

impl Claims {
    /// Takes in what `manifest` says of its layers. `config` reads its config. `size_of` says how long a layer is that can be read.
    pub fn add(
        &mut self,
        place: Place,
        manifest: &Manifest,
        config: impl FnOnce(&Descriptor) -> Result<Bytes>,
        size_of: impl Fn(&Digest) -> Option<u64>,
    ) -> Result<()> {
        let Content::Image { config: wanted, layers } = &manifest.content else { return Ok(()) };
        self.count += layers.len();
        if self.count > CLAIMS_MAX {
            return Err(Error::failed(format!("the images list more than {CLAIMS_MAX} layers together"))
                .help("check fewer at once; without --deep there is no such limit"));
        }
        let layered = layers.iter().any(|layer| Compression::of(&layer.media_type).is_some());
        if !wanted.media_type.is_image_config() || !layered {
            layers.iter().for_each(|layer| self.skip(layer, Why::NoLayer));
            return Ok(());
        }
        let diff_ids = match config(wanted) {
            Ok(bytes) => diff_ids(&bytes, layers.len()),
            Err(error) if error.kind() == Kind::Missing => {
                layers.iter().for_each(|layer| self.skip(layer, Why::Lost));
                return Ok(());
            }
            Err(error) => Err(error.to_string()),
        };
        match diff_ids {
            Ok(diff_ids) => self.add_layers(place, layers, &diff_ids, size_of),
            Err(problem) => self.note(LayerFailure {
                image: place.image.to_string(),
                manifest: place.manifest,
                position: None,
                layer: None,
                expected: None,
                found: None,
                problem: cut(&format!("config {}: {problem}", wanted.digest)),
            }),
        }
        Ok(())
    }

    fn add_layers(
        &mut self,
        place: Place,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        size_of: impl Fn(&Digest) -> Option<u64>,
    ) {
        let at = self.places.len();
        self.places.push(place);
        for (position, (layer, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
            let claim = Claim { place: at, position, diff_id: *diff_id };
            match (Compression::of(&layer.media_type), size_of(&layer.digest)) {
                (None, _) => self.skip(layer, Why::NoLayer),
                (_, None) if layer.media_type.is_foreign_layer() => self.skip(layer, Why::Foreign),
                (_, None) => self.skip(layer, Why::Lost),
                (_, Some(size)) if size != layer.size => {
                    let problem = format!("it has {size} bytes, and its manifest says {}", layer.size);
                    self.fail(&layer.digest, &claim, None, problem);
                }
                (Some(compression), Some(size)) => {
                    let known = self.layers.entry((layer.digest, compression)).or_insert_with(|| Layer {
                        size,
                        media_type: short(&layer.media_type),
                        claims: Vec::new(),
                    });
                    known.claims.push(claim);
                }
            }
        }
    }

    fn skip(&mut self, layer: &Descriptor, why: Why) {
        self.not_checked.entry((short(&layer.media_type), why)).or_default().insert(layer.digest);
    }

    /// Notes that a layer could not be read.
    pub(super) fn lost(&mut self, layer: &Digest, media_type: &MediaType) {
        self.not_checked.entry((media_type.clone(), Why::Lost)).or_default().insert(*layer);
    }

    /// Notes that a layer is not as `claim` says.
    pub(super) fn fail(&mut self, layer: &Digest, claim: &Claim, found: Option<Digest>, problem: String) {
        let Some(place) = self.places.get(claim.place) else { return };
        self.note(LayerFailure {
            image: place.image.to_string(),
            manifest: place.manifest,
            position: Some(claim.position as u64 + 1),
            layer: Some(*layer),
            expected: Some(claim.diff_id),
            found,
            problem: cut(&problem),
        });
    }

    fn note(&mut self, failure: LayerFailure) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failure);
        } else {
            self.more_failures += 1;
        }
    }

    /// The digests of all layers that are to be unpacked.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> {
        self.layers.keys().map(|(digest, _)| *digest)
    }

    /// What was found, in an order that does not depend on threads.
    pub(super) fn report(mut self, layers: u64, unpacked_bytes: u64) -> DeepReport {
        self.failures.sort();
        let not_checked = self.not_checked.into_iter();
        DeepReport {
            layers,
            unpacked_bytes,
            not_checked: not_checked
                .map(|((media_type, why), layers)| NotChecked { media_type, why, layers: layers.len() as u64 })
                .collect(),
            failures: self.failures,
            more_failures: self.more_failures,
        }
    }
}

/// A media type as reports have it.
fn short(media_type: &MediaType) -> MediaType {
    MediaType::new(&cut(media_type.as_str()))
}

/// The digests that a config says of what its `count` layers hold.
fn diff_ids(config: &[u8], count: usize) -> Result<Vec<Digest>, String> {
    let diff_ids = config_diff_ids(config).map_err(|error| format!("it is not readable: {error}"))?;
    match diff_ids.len() {
        found if found == count => Ok(diff_ids),
        found => Err(format!("it names {found} diff_ids, and the manifest lists {count} layers")),
    }
}
