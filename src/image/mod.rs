//! [`Image`]: what is carried of one image. The same value stands in a plan, in the store's records and in
//! `bundle.json`, so what was decided, pulled, exported and replayed can be compared.

mod address;
mod addresses;
mod bundle_name;
mod layout;
mod trim;
mod witness;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX};
use crate::oci::{Descriptor, Digest, Manifest, Platform, Repository, Tag};

pub use address::{ADDRESS_MAX, Address, decoded, host_key};
pub use addresses::{ADDRESSES_MAX, Addresses, Content as AddressContent};
pub use bundle_name::BundleName;
pub use layout::{
    INDEX_JSON_AROUND, INDEX_JSON_BETWEEN, INDEX_JSON_MAX, INDEX_JSON_PATH, Named, OCI_LAYOUT, OCI_LAYOUT_PATH,
    index_entries, index_json, names_of_index,
};
pub use trim::{Compared, Made, Trimmed, TrimmedIndex, compare};
pub use witness::{WITNESS_TYPE, Witness};

/// The most manifests of one image: children, stubs and signatures together.
pub const MANIFESTS_MAX: usize = 10_000;

/// How an index is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IndexMode {
    /// The index's bytes and digest stay; only the selected children come along.
    Sparse,
    /// All children come along.
    Full,
    /// The one selected child is taken instead of the index.
    Child,
    /// A new index is made without the left-out children, and a witness shows what the original was.
    Trim,
}

/// One image of one repository: its root manifest and what was decided about everything below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The repository with its source host; it decides the name on a target.
    pub repository: String,
    /// The manifest that tags point to.
    pub root: Descriptor,
    /// How its index is carried.
    pub mode: IndexMode,
    /// Children that come along, in the order of the index.
    #[serde(default)]
    pub kept: Vec<Kept>,
    /// Children that were left out on purpose.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Signatures, attestations and other referrers that come along.
    #[serde(default)]
    pub signatures: Vec<Signature>,
    /// Forms of signatures that were asked for and not there.
    #[serde(default)]
    pub absent: Vec<Absent>,
    /// Foreign layers of kept manifests and what was decided about them.
    #[serde(default)]
    pub foreign: Vec<ForeignLayer>,
    /// What the root was made from, where it is a trimmed index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trimmed: Option<Box<Trimmed>>,
}

/// A child that comes along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The child's manifest.
    pub descriptor: Descriptor,
    /// The index that lists it.
    pub parent: Digest,
    /// Its platform, for people; absent where the index names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The kept child that it attests to, for a BuildKit attestation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attests: Option<Digest>,
}

/// A child that was left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The child's manifest.
    pub descriptor: Descriptor,
    /// The index that lists it: of a trimmed one, the original.
    pub parent: Digest,
    /// Its platform, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Whether the manifest's bytes come along, for registries that refuse an index otherwise.
    pub stub: bool,
}

/// A manifest that speaks about another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// The manifest.
    pub descriptor: Descriptor,
    /// What it speaks about.
    pub subject: Digest,
    /// How it is found.
    pub form: SignatureForm,
    /// The tag under which it is found, for [`SignatureForm::CosignTag`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
}

/// How a signature is found in a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureForm {
    /// By its `subject`: the referrers API, or the fallback tag where that is missing.
    Referrer,
    /// By a tag made of the subject's digest, as cosign 1 and 2 do.
    CosignTag,
}

/// What was looked for and not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Absent {
    /// About which manifest.
    pub subject: Digest,
    /// `cosign.sig`, `cosign.att`, `cosign.sbom`, `referrers`.
    pub forms: Vec<String>,
}

/// A foreign layer and what was decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForeignLayer {
    /// The layer.
    pub descriptor: Descriptor,
    /// The manifest that lists it.
    pub manifest: Digest,
    /// What was decided.
    pub decision: ForeignDecision,
    /// The text that allows carrying it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge: Option<String>,
    /// It was to come along and could not be had: it stayed behind by accident, not on purpose.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unavailable: bool,
}

/// Members that are nearly always `false` are left out.
fn is_false(value: &bool) -> bool {
    !value
}

/// What happens to a foreign layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForeignDecision {
    /// It stays where its `urls` say.
    Skip,
    /// It comes along.
    Include,
}

/// What a manifest is for within its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The bytes of a left-out child: published as a blob, if at all.
    Stub,
    /// A kept child.
    Child,
    /// The root.
    Root,
    /// A signature or another referrer.
    Signature,
}

impl ForeignLayer {
    /// Whether it comes along.
    pub fn comes_along(&self) -> bool {
        self.decision == ForeignDecision::Include
    }

    /// Whether `other` is about the same layer of the same manifest.
    fn is_of_same(&self, other: &ForeignLayer) -> bool {
        self.manifest == other.manifest && self.descriptor.digest == other.descriptor.digest
    }
}

impl Image {
    /// The image at `root`, of which nothing else was decided yet.
    pub fn new(repository: impl Into<String>, root: Descriptor, mode: IndexMode) -> Self {
        Image {
            repository: repository.into(),
            root,
            mode,
            kept: Vec::new(),
            left_out: Vec::new(),
            signatures: Vec::new(),
            absent: Vec::new(),
            foreign: Vec::new(),
            trimmed: None,
        }
    }

    /// Every manifest whose bytes come along, with what it is for: stubs, then kept children before the
    /// indexes that list them, then the root, then signatures; each after what it needs.
    pub fn manifests(&self) -> Vec<(&Descriptor, Part)> {
        let stubs = self.left_out.iter().filter(|child| child.stub).map(|child| (&child.descriptor, Part::Stub));
        let depths = self.depths();
        let mut children: Vec<&Kept> = self.kept.iter().collect();
        children.sort_by_key(|child| std::cmp::Reverse(depths.get(&child.descriptor.digest)));
        let children = children.into_iter().map(|child| (&child.descriptor, Part::Child));
        let signatures = self.signatures.iter().map(|signature| (&signature.descriptor, Part::Signature));
        let mut seen = HashSet::new();
        stubs
            .chain(children)
            .chain([(&self.root, Part::Root)])
            .chain(signatures)
            .filter(|(descriptor, part)| seen.insert((descriptor.digest, *part == Part::Stub)))
            .collect()
    }

    /// How far below the root each kept child is listed at the deepest: what lies deeper comes first, also where a
    /// manifest is listed by several indexes.
    fn depths(&self) -> HashMap<Digest, usize> {
        let mut depths = HashMap::from([(self.root.digest, 0)]);
        // Each round gets one level deeper; a circle, which no digest can make, would end with the last.
        for _ in 0..=INDEX_DEPTH_MAX {
            for child in &self.kept {
                let depth = depths.get(&child.parent).map_or(0, |above| above + 1);
                let known = depths.entry(child.descriptor.digest).or_default();
                *known = depth.max(*known);
            }
        }
        depths
    }

    /// The configs and layers that `manifest`, which parsed as `parsed`, needs in order to be whole: without foreign
    /// layers that stay behind by decision. What the manifest does not call foreign never stays behind: the same bytes may be
    /// listed as an ordinary layer too, and a record may say anything of a config.
    pub fn blobs_of<'a>(&'a self, manifest: &'a Digest, parsed: &'a Manifest) -> impl Iterator<Item = &'a Descriptor> {
        let blobs = match parsed.content {
            Content::Image { .. } => Some(parsed.successors()),
            Content::Index { .. } => None,
        };
        let skipped = |layer: &&ForeignLayer| layer.decision == ForeignDecision::Skip && layer.manifest == *manifest;
        let skipped: HashSet<Digest> =
            self.foreign.iter().filter(skipped).map(|layer| layer.descriptor.digest).collect();
        blobs
            .into_iter()
            .flatten()
            .filter(move |blob| !(blob.media_type.is_foreign_layer() && skipped.contains(&blob.digest)))
    }

    /// Its repository.
    pub fn repository(&self) -> Result<Repository> {
        self.repository.parse().map_err(|error| Error::usage(format!("{error}")))
    }

    /// `tags` of this image, as they stand in layouts and bundles.
    pub fn named(&self, tags: &[Tag]) -> Result<Vec<Named>> {
        let name = self.repository()?;
        let named = |tag: &Tag| Named { name: name.clone(), tag: tag.clone(), descriptor: self.root.clone() };
        Ok(tags.iter().map(named).collect())
    }

    /// Takes in what `other`, a decision about the same root, keeps too.
    pub fn merge(&mut self, other: Image) {
        fn add<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
            for item in more {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
        }
        add(&mut self.kept, other.kept);
        let kept: HashSet<Digest> = self.kept.iter().map(|child| child.descriptor.digest).collect();
        self.left_out.retain(|child| !kept.contains(&child.descriptor.digest));
        if self.left_out.is_empty() && matches!(self.mode, IndexMode::Sparse | IndexMode::Trim) {
            self.mode = IndexMode::Full;
        }
        add(&mut self.signatures, other.signatures);
        add(&mut self.absent, other.absent);
        self.foreign.retain(|layer| !other.foreign.iter().any(|more| more.is_of_same(layer) && more.comes_along()));
        for layer in other.foreign {
            if !self.foreign.iter().any(|known| known.is_of_same(&layer)) {
                self.foreign.push(layer);
            }
        }
    }

    /// Leaves foreign layers behind that were to come along and could not be had.
    pub fn leave_behind(&mut self, layers: &HashSet<Digest>) {
        let wanted = self.foreign.iter_mut().filter(|layer| layer.comes_along());
        for layer in wanted.filter(|layer| layers.contains(&layer.descriptor.digest)) {
            (layer.decision, layer.unavailable) = (ForeignDecision::Skip, true);
        }
    }

    /// The configs and layers of everything that is kept, each once. `read` gives the manifests.
    ///
    /// # Errors
    ///
    /// Those of `read`, and [`Kind::Verification`](crate::Kind::Verification) where an index lists a child that is neither
    /// kept nor left out: the image would pass for whole without it.
    pub fn needed(&self, read: impl Fn(&Descriptor) -> Result<Manifest>) -> Result<Vec<Descriptor>> {
        let kept = self.kept.iter().map(|child| child.descriptor.digest);
        let decided: HashSet<Digest> = kept.chain(self.left_out.iter().map(|child| child.descriptor.digest)).collect();
        let mut seen = HashSet::new();
        let mut blobs = Vec::new();
        for (descriptor, part) in self.manifests() {
            if part == Part::Stub {
                continue;
            }
            let manifest = read(descriptor)?;
            if let Some(child) = manifest.children().iter().find(|child| !decided.contains(&child.digest)) {
                let (index, child) = (descriptor.digest, child.digest);
                return Err(Error::verification(format!(
                    "index {index} lists {child}, and nothing was decided about that"
                ))
                .help("its record does not belong to its manifests: plan, pull and export it again"));
            }
            blobs.extend(self.blobs_of(&descriptor.digest, &manifest).filter(|blob| seen.insert(blob.digest)).cloned());
        }
        Ok(blobs)
    }

    /// Children that were left out, counted by platform text; for reports.
    pub fn left_out_platforms(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for child in &self.left_out {
            *counts.entry(child.platform.clone().unwrap_or_else(|| "(none)".into())).or_default() += 1;
        }
        counts
    }
}

/// The text of a child's platform: that of its descriptor, or nothing.
pub fn platform_text(platform: Option<&Platform>) -> Option<String> {
    platform.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::MediaType;

    fn image(foreign: &[(&str, ForeignDecision)]) -> Image {
        let of = |text: &str| Descriptor::of(MediaType::new("x"), text.as_bytes());
        let layer = |(text, decision): &(&str, ForeignDecision)| ForeignLayer {
            descriptor: of(text),
            manifest: of("manifest").digest,
            decision: *decision,
            acknowledge: None,
            unavailable: false,
        };
        let foreign = foreign.iter().map(layer).collect();
        Image { foreign, ..Image::new("r.example/a", of("manifest"), IndexMode::Full) }
    }

    /// Two entries of a spec may say different things of one image: what one of them wants comes along.
    #[test]
    fn a_foreign_layer_that_one_entry_wants_comes_along() {
        use ForeignDecision::{Include, Skip};
        let rows =
            [(Skip, Skip, Skip), (Skip, Include, Include), (Include, Skip, Include), (Include, Include, Include)];
        for (one, other, expected) in rows {
            let mut merged = image(&[("a", one), ("b", Skip)]);
            merged.merge(image(&[("a", other), ("c", Include)]));
            let found: HashMap<Digest, ForeignDecision> =
                merged.foreign.iter().map(|layer| (layer.descriptor.digest, layer.decision)).collect();
            let expected = [("a", expected), ("b", Skip), ("c", Include)];
            assert_eq!(found, expected.map(|(text, decision)| (Digest::of(text.as_bytes()), decision)).into());
            assert_eq!(merged.foreign.len(), 3);
        }
    }

    /// Manifests by their digests, as a store has them.
    fn reading(texts: &[(MediaType, &str)]) -> (Vec<Descriptor>, impl Fn(&Descriptor) -> Result<Manifest> + use<>) {
        let of = |(media_type, text): &(MediaType, &str)| Descriptor::of(media_type.clone(), text.as_bytes());
        let parse = |(media_type, text): &(MediaType, &str)| Manifest::parse(media_type, text.as_bytes()).unwrap();
        let known: HashMap<Digest, Manifest> = texts.iter().map(|one| (of(one).digest, parse(one))).collect();
        let read = move |descriptor: &Descriptor| Ok(known[&descriptor.digest].clone());
        (texts.iter().map(of).collect(), read)
    }

    /// Only what the manifest itself calls foreign may stay behind, whatever the record says of its digest.
    #[test]
    fn nothing_but_foreign_layers_is_skipped() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let entry =
            |kind: &str, text: &str| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":1}}"#, digest(text));
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let ordinary = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        // One digest is listed as a foreign layer and as an ordinary one.
        let layers = [entry(foreign, "a"), entry(foreign, "both"), entry(ordinary, "both"), entry(ordinary, "c")];
        let text = format!(r#"{{"config":{},"layers":[{}]}}"#, entry("x/config", "config"), layers.join(","));
        let (descriptors, read) = reading(&[(MediaType::DOCKER_MANIFEST, &text)]);
        let skipped = ["a", "both", "c", "config"].map(|text| (text, ForeignDecision::Skip));
        let mut image = image(&skipped);
        image.root = descriptors[0].clone();
        image.foreign.iter_mut().for_each(|layer| layer.manifest = image.root.digest);
        let needed: Vec<Digest> = image.needed(read).unwrap().iter().map(|blob| blob.digest).collect();
        assert_eq!(needed, ["config", "both", "c"].map(digest));
    }

    /// An image is whole when all is there that its indexes list, but for what was left out on purpose.
    #[test]
    fn children_of_which_nothing_was_decided_are_refused() {
        let child = r#"{"config":{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}}"#;
        let of = Descriptor::of(MediaType::OCI_MANIFEST, child.as_bytes());
        let index = format!(
            r#"{{"manifests":[{{"mediaType":"{}","digest":"{}","size":{}}}]}}"#,
            of.media_type, of.digest, of.size
        );
        let (descriptors, read) = reading(&[(MediaType::OCI_INDEX, &index), (MediaType::OCI_MANIFEST, child)]);
        let mut image = image(&[]);
        image.root = descriptors[0].clone();
        let parent = image.root.digest;
        let problem = image.needed(&read).unwrap_err().to_string();
        assert!(problem.contains("nothing was decided"), "{problem}");
        let left_out = LeftOut { descriptor: of.clone(), parent, platform: None, stub: false };
        let sparse = Image { left_out: vec![left_out], ..image.clone() };
        assert_eq!(sparse.needed(&read).unwrap(), []);
        image.kept.push(Kept { descriptor: of, parent, platform: None, attests: None });
        assert_eq!(image.needed(&read).unwrap().len(), 1);
    }

    #[test]
    fn what_could_not_be_had_is_told_from_what_was_skipped() {
        use ForeignDecision::{Include, Skip};
        let mut image = image(&[("a", Include), ("b", Include), ("c", Skip)]);
        image.leave_behind(&["a", "c"].map(|text| Digest::of(text.as_bytes())).into());
        let found: Vec<_> = image.foreign.iter().map(|layer| (layer.decision, layer.unavailable)).collect();
        assert_eq!(found, [(Skip, true), (Include, false), (Skip, false)]);
    }
}
