//! What speaks about an image, and which of it a key has signed.

use std::collections::HashSet;

use serde::Serialize;

use super::place::{Found, Look, parse};
use super::witness::Read as ReadWitness;
use crate::bundle::PublicKey;
use crate::error::{Error, Kind, Result};
use crate::image::SignatureForm;
use crate::oci::manifest::Content;
use crate::oci::{Descriptor, Digest, Manifest, Tag};
use crate::trust::{self, Form, Verdict};

/// How far signatures of signatures are followed.
const DEPTH_MAX: usize = 3;

/// The most signatures and referrers of one image that are looked at.
const SIGNATURES_MAX: usize = 1_000;

/// Something that speaks about a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedSignature {
    /// Its manifest.
    pub digest: Digest,
    /// What it speaks about.
    pub subject: Digest,
    /// How it is found.
    pub form: SignatureForm,
    /// The tag under which it is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// What it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Whether its manifest, config and layers are here.
    pub here: bool,
}

/// What a key has signed of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// The digest of the key's SubjectPublicKeyInfo.
    pub key: Digest,
    /// The digest that has to be signed: of a trimmed index, that of the original.
    pub signed: Digest,
    /// The witness that the signatures come from, for a trimmed index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Digest>,
    /// Whether this key signed that digest.
    pub good: bool,
    /// Each signature of a form that is known.
    pub signatures: Vec<CheckedSignature>,
}

/// A signature that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckedSignature {
    /// Its manifest.
    pub manifest: Digest,
    /// How it is written.
    pub form: Form,
    /// What came of it.
    pub result: Outcome,
    /// Why it is not taken, or what else it states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What came of checking a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// This key signed this digest.
    Signed,
    /// This key signed a statement about this digest, which is not that it signed the image.
    Statement,
    /// Not this key, or not this digest.
    Not,
}

impl Verification {
    /// What is wrong, where no signature is good.
    pub(super) fn problem(&self) -> Option<String> {
        let why = match self.signatures.len() {
            0 => "it has no signature in a form of cosign".to_owned(),
            1 => "its signature is not a good one".to_owned(),
            count => format!("none of its {count} signatures is a good one"),
        };
        (!self.good).then(|| format!("{} is not signed by key {}: {why}", self.signed, self.key.short()))
    }
}

/// A signature whose manifest was read.
pub(super) struct Read {
    pub shown: InspectedSignature,
    pub descriptor: Descriptor,
    pub manifest: Option<Manifest>,
}

/// Everything that speaks about `subjects`, or about what speaks about them.
pub(super) async fn find(
    place: &Look<'_>,
    found: &Found,
    subjects: &[Digest],
    problems: &mut Vec<String>,
) -> Result<Vec<Read>> {
    let (mut read, mut open) = (Vec::new(), subjects.to_vec());
    let mut asked: HashSet<Digest> = open.iter().copied().collect();
    let mut known = HashSet::new();
    for _ in 0..DEPTH_MAX {
        let mut next = Vec::new();
        for subject in &open {
            for signature in place.signatures(found, subject).await? {
                if !known.insert((signature.descriptor.digest, signature.subject, signature.tag.clone())) {
                    continue;
                }
                if known.len() > SIGNATURES_MAX {
                    return Err(Error::verification(format!(
                        "there are more than {SIGNATURES_MAX} signatures and referrers"
                    )));
                }
                if asked.insert(signature.descriptor.digest) {
                    next.push(signature.descriptor.digest);
                }
                let (manifest, here) = look_at(place, &signature.descriptor, problems).await?;
                read.push(Read {
                    shown: InspectedSignature {
                        digest: signature.descriptor.digest,
                        subject: signature.subject,
                        form: signature.form,
                        tag: signature.tag,
                        artifact_type: manifest.as_ref().and_then(Manifest::referrer_type),
                        here,
                    },
                    descriptor: signature.descriptor,
                    manifest,
                });
            }
        }
        if next.is_empty() {
            break;
        }
        open = next;
    }
    Ok(read)
}

/// The manifest of a signature, and whether all of it is here.
async fn look_at(
    place: &Look<'_>,
    signature: &Descriptor,
    problems: &mut Vec<String>,
) -> Result<(Option<Manifest>, bool)> {
    let read = match place.manifest(signature).await {
        Ok(Some(bytes)) => parse(signature, &bytes),
        Ok(None) => return Ok((None, false)),
        Err(error) => Err(error),
    };
    let manifest = match read {
        Ok(manifest) => manifest,
        Err(error) if error.kind() == Kind::Verification => {
            problems.push(error.to_string());
            return Ok((None, false));
        }
        Err(error) => return Err(error),
    };
    let mut here = true;
    if let Content::Image { .. } = manifest.content {
        for blob in manifest.successors().take(trust::LAYERS_MAX) {
            here = here && place.has(blob).await?;
        }
    }
    Ok((Some(manifest), here))
}

/// Checks with `key` what has to be signed: the root, or of a trimmed index the original, through a witness whose link is
/// good.
pub(super) async fn verify(
    place: &Look<'_>,
    root: &Digest,
    signatures: &[Read],
    witnesses: &[ReadWitness],
    key: &PublicKey,
) -> Result<Verification> {
    let of_root = signatures.iter().filter(|read| read.shown.subject == *root);
    let manifests = of_root.filter_map(|read| Some((read.descriptor.digest, read.manifest.as_ref()?)));
    let own = check_all(place, root, manifests, key).await?;
    let mut best = Verification { key: key.id(), signed: *root, witness: None, good: own.0, signatures: own.1 };
    for (witness, original) in witnesses.iter().filter_map(|witness| Some((witness, witness.original()?))) {
        if best.good {
            break;
        }
        let manifests = witness.signatures.iter().map(|(digest, manifest)| (*digest, manifest));
        let (good, checked) = check_all(place, &original, manifests, key).await?;
        if good || best.witness.is_none() {
            let witness = Some(witness.shown.digest);
            best = Verification { key: key.id(), signed: original, witness, good, signatures: checked };
        }
    }
    Ok(best)
}

async fn check_all(
    place: &Look<'_>,
    signed: &Digest,
    manifests: impl Iterator<Item = (Digest, &Manifest)>,
    key: &PublicKey,
) -> Result<(bool, Vec<CheckedSignature>)> {
    let mut checked = Vec::new();
    let mut seen = HashSet::new();
    for (manifest, parsed) in manifests {
        if !seen.insert(manifest) {
            continue;
        }
        for layer in parsed.successors() {
            let Some(form) = trust::form_of(layer) else { continue };
            if checked.len() >= trust::LAYERS_MAX {
                break;
            }
            let verdict = match place.blob(layer).await {
                Ok(Some(payload)) => trust::check(form, layer, &payload, signed, key),
                Ok(None) => Verdict::Not("its payload is not here".into()),
                Err(error) if error.kind() == Kind::Verification => Verdict::Not(error.to_string()),
                Err(error) => return Err(error),
            };
            let (result, detail) = match verdict {
                Verdict::Signed => (Outcome::Signed, None),
                Verdict::Statement(kind) => (Outcome::Statement, Some(kind)),
                Verdict::Not(why) => (Outcome::Not, Some(why)),
            };
            checked.push(CheckedSignature { manifest, form, result, detail });
        }
    }
    Ok((checked.iter().any(|checked| checked.result == Outcome::Signed), checked))
}
