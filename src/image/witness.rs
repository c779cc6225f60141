//! The witness of a trimmed index: an OCI artifact that refers to it, and holds what its publisher signed.
//!
//! Its layers are the original indexes, the manifests of their signatures, and the configs and layers of those. So what was
//! signed can still be shown and checked, with nothing but the target.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use serde_json::{Value, json};

use super::trim::{Made, TrimmedIndex};
use super::{Signature, SignatureForm};
use crate::error::{Context, Error, Result};
use crate::oci::json::canonical;
use crate::oci::manifest::Content;
use crate::oci::{Descriptor, Digest, MANIFEST_SIZE_MAX, Manifest, MediaType, Tag};

/// The artifact type of every witness.
pub const WITNESS_TYPE: &str = "application/vnd.sealift.witness.v1";

/// The type of its layers: a registry that knows their own types would look for what they refer to.
const LAYER_TYPE: &str = "application/vnd.sealift.witness.content.v1";

/// What a layer is: [`INDEX`], [`SIGNATURE`] or [`PAYLOAD`].
const ROLE: &str = "vnd.sealift.witness.role";
/// The media type that the layer had where it came from.
const MEDIA_TYPE: &str = "vnd.sealift.witness.media-type";
/// On the witness: the digest of the root as it was. The layer of that digest is the original.
const ORIGINAL: &str = "vnd.sealift.witness.original";
/// Of an index: the digest of what it became.
const TRIMMED: &str = "vnd.sealift.witness.trimmed";
/// Of a signature: the digest of what it speaks about.
const SUBJECT: &str = "vnd.sealift.witness.subject";
/// Of a signature: the tag under which it was found.
const TAG: &str = "vnd.sealift.witness.tag";

const INDEX: &str = "index";
const SIGNATURE: &str = "signature";
const PAYLOAD: &str = "payload";

/// The config of every artifact that has none (OCI image specification, "Guidance for an Empty Descriptor").
pub(super) const EMPTY: &[u8] = b"{}";

/// The most layers of a witness: some two megabytes of manifest.
const LAYERS_MAX: usize = 4_000;

/// Makes the witness of `root`, canonical and without a clock.
pub(super) fn make(
    root: &Descriptor,
    indexes: &[TrimmedIndex],
    signatures: &[Signature],
    read: &impl Fn(&Descriptor) -> Result<Bytes>,
) -> Result<Made> {
    let mut layers = Layers::default();
    for TrimmedIndex { original, trimmed } in indexes {
        layers.add(original, INDEX, [(TRIMMED, trimmed.digest.to_string())]);
    }
    let mut payloads = Vec::new();
    for signature in signatures {
        let descriptor = &signature.descriptor;
        let subject = (SUBJECT, signature.subject.to_string());
        let tag = signature.tag.iter().map(|tag| (TAG, tag.to_string()));
        layers.add(descriptor, SIGNATURE, [subject].into_iter().chain(tag));
        let attempt = || format!("signature {}", descriptor.digest);
        let manifest = Manifest::parse(&descriptor.media_type, &read(descriptor).while_(attempt)?)
            .map_err(|error| Error::verification(error.to_string()))
            .while_(attempt)?;
        if let Content::Image { .. } = manifest.content {
            payloads.extend(manifest.successors().cloned());
        }
    }
    for payload in &payloads {
        layers.add(payload, PAYLOAD, []);
    }
    document(root, indexes, layers.entries)
}

fn document(root: &Descriptor, indexes: &[TrimmedIndex], layers: Vec<Value>) -> Result<Made> {
    let original = indexes.first().map(|index| index.original.digest.to_string());
    let count = layers.len();
    let witness = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "artifactType": WITNESS_TYPE,
        "config": described(&Descriptor::of(MediaType::OCI_EMPTY, EMPTY)),
        "layers": layers,
        "subject": described(root),
        "annotations": {ORIGINAL: original},
    });
    let bytes = canonical(&witness).map_err(|error| Error::failed(error.to_string()))?;
    if count > LAYERS_MAX || bytes.len() as u64 > MANIFEST_SIZE_MAX {
        let what =
            format!("the witness of the original index would have {count} layers, and at most {LAYERS_MAX} are made");
        return Err(Error::failed(what).help(
            "set signatures: {carry: none} for this image, or `index: sparse`: then its signatures travel as they are",
        ));
    }
    Ok(Made::new(MediaType::OCI_MANIFEST, bytes))
}

fn described(content: &Descriptor) -> Value {
    json!({"mediaType": content.media_type, "digest": content.digest, "size": content.size})
}

/// Each content once, in the order in which it was first named.
#[derive(Default)]
struct Layers {
    seen: HashSet<Digest>,
    entries: Vec<Value>,
}

impl Layers {
    fn add(&mut self, content: &Descriptor, role: &str, more: impl IntoIterator<Item = (&'static str, String)>) {
        if !self.seen.insert(content.digest) {
            return;
        }
        let mut annotations = BTreeMap::from([(ROLE, role.to_owned())]);
        annotations.insert(MEDIA_TYPE, content.media_type.to_string());
        annotations.extend(more);
        self.entries.push(json!({
            "mediaType": LAYER_TYPE,
            "digest": content.digest,
            "size": content.size,
            "annotations": annotations,
        }));
    }
}

/// A witness as it is read: claims, until they are compared with the bytes of its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// What it says was the root; the layer of that digest.
    pub original: Descriptor,
    /// The original of each index, by the digest of what it became.
    pub indexes: HashMap<Digest, Descriptor>,
    /// Signatures, with their own media types.
    pub signatures: Vec<Signature>,
    /// Every layer, by its digest.
    pub layers: HashMap<Digest, Descriptor>,
}

impl Witness {
    /// Whether a manifest says that it is a witness.
    pub fn is(manifest: &Manifest) -> bool {
        manifest.artifact_type.as_deref() == Some(WITNESS_TYPE)
    }

    /// Reads the manifest of a witness.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(manifest: &Manifest) -> Result<Self, String> {
        let Content::Image { layers, .. } = &manifest.content else { return Err("it is an index".into()) };
        let mut found = Found::default();
        for layer in layers {
            found.add(layer)?;
        }
        let original = manifest.annotations.get(ORIGINAL).and_then(|text| text.parse::<Digest>().ok());
        let original = original.ok_or("it does not name the original index")?;
        let original = found.indexes.values().find(|index| index.digest == original).cloned();
        let original = original.ok_or("the original index is not among its layers")?;
        let Found { indexes, signatures, layers } = found;
        Ok(Witness { original, indexes, signatures, layers })
    }
}

#[derive(Default)]
struct Found {
    indexes: HashMap<Digest, Descriptor>,
    signatures: Vec<Signature>,
    layers: HashMap<Digest, Descriptor>,
}

impl Found {
    fn add(&mut self, layer: &Descriptor) -> Result<(), String> {
        let text = |name: &str| layer.annotations.get(name).map(String::as_str);
        let digest = |name: &str| text(name).and_then(|text| text.parse::<Digest>().ok());
        let wrong = || format!("layer {} does not say what it is", layer.digest);
        let media_type = MediaType::new(text(MEDIA_TYPE).ok_or_else(wrong)?);
        let content = Descriptor::new(media_type, layer.digest, layer.size);
        match text(ROLE) {
            Some(INDEX) => {
                let trimmed = digest(TRIMMED).ok_or_else(wrong)?;
                if self.indexes.insert(trimmed, content.clone()).is_some() {
                    return Err(format!("it has two originals of {trimmed}"));
                }
            }
            Some(SIGNATURE) => {
                let subject = digest(SUBJECT).ok_or_else(wrong)?;
                let tag: Option<Tag> = text(TAG).and_then(|tag| tag.parse().ok());
                let form = if tag.is_some() { SignatureForm::CosignTag } else { SignatureForm::Referrer };
                self.signatures.push(Signature { descriptor: content.clone(), subject, form, tag });
            }
            Some(PAYLOAD) => {}
            _ => return Err(wrong()),
        }
        self.layers.insert(layer.digest, content);
        Ok(())
    }
}
