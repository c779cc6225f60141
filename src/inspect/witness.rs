//! The witness of a trimmed index: whether what it shows is the original of what is here.

use std::collections::HashMap;

use serde::Serialize;

use super::manifests::Root;
use super::place::{Found, Look, parse};
use super::signatures::Read as ReadSignature;
use crate::error::{Error, Kind, Result};
use crate::image::{Compared, IndexMode, TrimmedIndex, Witness, compare};
use crate::oci::manifest::INDEX_DEPTH_MAX;
use crate::oci::{Descriptor, Digest, Manifest};

/// The most witnesses of one index that are looked at. A new one is made only when a signature of the original was added.
const WITNESSES_MAX: usize = 20;

/// A witness, and what its layers show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedWitness {
    /// Its manifest.
    pub digest: Digest,
    /// The index that it says was trimmed, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Digest>,
    /// Whether the original's bytes are there, list every child that is here with the same digest and platform, and differ
    /// in nothing but removed members.
    pub linked: bool,
    /// How many members both list.
    pub kept: u64,
    /// The members that were removed.
    pub removed: Vec<RemovedChild>,
    /// How many signatures of the original it holds.
    pub signatures: u64,
}

/// A member that the original lists and the trimmed index does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemovedChild {
    /// Its name.
    pub digest: Digest,
    /// Its platform, where the original names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// A witness that was read.
pub(super) struct Read {
    pub shown: InspectedWitness,
    /// Signatures of the original.
    pub signatures: Vec<(Digest, Manifest)>,
}

impl Read {
    /// The original, where the link to it is good.
    pub fn original(&self) -> Option<Digest> {
        self.shown.original.filter(|_| self.shown.linked)
    }
}

/// Reads the witnesses of `root`, and compares each with what is here.
pub(super) async fn check(
    place: &Look<'_>,
    found: &Found,
    root: &Root,
    signatures: &[ReadSignature],
    problems: &mut Vec<String>,
) -> Result<Vec<Read>> {
    let mut witnesses = Vec::new();
    let of_root = signatures.iter().filter(|read| read.shown.subject == root.descriptor.digest);
    let candidates = of_root.filter_map(|read| Some((read.shown.digest, read.manifest.as_ref()?)));
    for (digest, manifest) in candidates.filter(|(_, manifest)| Witness::is(manifest)).take(WITNESSES_MAX) {
        witnesses.push(read_one(place, root, digest, manifest, problems).await?);
    }
    problems.extend(missing(found, &witnesses));
    Ok(witnesses)
}

/// What was written down about the witness, and is not so.
fn missing(found: &Found, witnesses: &[Read]) -> Option<String> {
    let image = found.decided.as_ref().filter(|image| image.mode == IndexMode::Trim)?;
    let Some(trimmed) = &image.trimmed else {
        return Some("its index is trimmed, and nothing says from which original".into());
    };
    let expected = trimmed.witness.digest;
    let original = trimmed.indexes.first().map(|index| index.original.digest);
    match witnesses.iter().find(|witness| witness.shown.digest == expected) {
        None => Some(format!("the witness {expected} of the original index is not here")),
        Some(witness) if witness.shown.original != original => {
            Some(format!("the witness {expected} shows another original than was written down"))
        }
        Some(_) => None,
    }
}

async fn read_one(
    place: &Look<'_>,
    root: &Root,
    digest: Digest,
    manifest: &Manifest,
    problems: &mut Vec<String>,
) -> Result<Read> {
    let shown = InspectedWitness { digest, original: None, linked: false, kept: 0, removed: Vec::new(), signatures: 0 };
    let mut read = Read { shown, signatures: Vec::new() };
    if let Err(error) = follow(place, root, manifest, &mut read).await {
        match error.kind() {
            Kind::Verification => problems.push(format!("witness {digest}: {error}")),
            _ => return Err(error),
        }
    }
    Ok(read)
}

async fn follow(place: &Look<'_>, root: &Root, manifest: &Manifest, read: &mut Read) -> Result<()> {
    if manifest.subject.as_ref().is_none_or(|subject| subject.digest != root.descriptor.digest) {
        return Err(Error::verification("it refers to another manifest"));
    }
    let witness = Witness::parse(manifest).map_err(Error::verification)?;
    read.shown.original = Some(witness.original.digest);
    if witness.indexes.get(&root.descriptor.digest) != Some(&witness.original) {
        return Err(Error::verification("it does not say that the root was made from the original"));
    }
    for signature in witness.signatures.iter().filter(|signature| signature.subject == witness.original.digest) {
        let bytes = layer(place, &signature.descriptor).await?;
        read.signatures.push((signature.descriptor.digest, parse(&signature.descriptor, &bytes)?));
    }
    read.shown.signatures = read.signatures.len() as u64;
    compare_all(place, root, &witness, read).await?;
    read.shown.linked = true;
    Ok(())
}

/// Compares the root with its original, and trimmed indexes in it with theirs.
async fn compare_all(place: &Look<'_>, root: &Root, witness: &Witness, read: &mut Read) -> Result<()> {
    let mut open = vec![(TrimmedIndex { original: witness.original.clone(), trimmed: root.descriptor.clone() }, 1)];
    let mut done: HashMap<Digest, Digest> = HashMap::new();
    while let Some((TrimmedIndex { original, trimmed }, depth)) = open.pop() {
        if done.insert(trimmed.digest, original.digest).is_some() {
            continue;
        }
        if depth > INDEX_DEPTH_MAX {
            return Err(Error::verification(format!("indexes are nested more than {INDEX_DEPTH_MAX} deep")));
        }
        let before = layer(place, &original).await?;
        let after = match trimmed.digest == root.descriptor.digest {
            true => root.bytes.clone(),
            false => place
                .manifest(&trimmed)
                .await?
                .ok_or_else(|| Error::verification(format!("the trimmed index {} is not here", trimmed.digest)))?,
        };
        let Compared { kept, removed, nested } =
            compare((&original, &before), (&trimmed, &after), &witness.indexes).map_err(Error::verification)?;
        read.shown.kept += kept.len() as u64;
        read.shown.removed.extend(removed.into_iter().map(|child| RemovedChild {
            digest: child.digest,
            platform: child.platform.map(|platform| platform.to_string()),
        }));
        open.extend(nested.into_iter().map(|index| (index, depth + 1)));
    }
    Ok(())
}

/// The bytes of a layer of the witness.
async fn layer(place: &Look<'_>, content: &Descriptor) -> Result<bytes::Bytes> {
    let bytes = place.blob(content).await?;
    bytes.ok_or_else(|| Error::verification(format!("its layer {} is not here", content.digest)))
}
