//! Inspect: what an image is, what is here of it, and whether what is said about it is true. It changes no image.
//!
//! A child is here when its config and its layers are, never because its manifest is known. Of a trimmed index, the link to
//! its original is followed through the witness, byte for byte; signatures are checked with a key where one is named.

mod layout;
mod manifests;
mod place;
mod signatures;
mod witness;

use serde::Serialize;

use crate::bundle::PublicKey;
use crate::error::{Error, Kind, Result};
use crate::image::IndexMode;
use crate::oci::{Descriptor, Digest};

pub use layout::Layout;
pub use manifests::{Decision, InspectedForeign, InspectedManifest, State};
pub use place::{BundlePlace, Place, StorePlace};
pub use signatures::{CheckedSignature, InspectedSignature, Outcome, Verification};
pub use witness::{InspectedWitness, RemovedChild};

use place::{Found, Look};

/// What is to be looked at, and with what.
#[derive(Default)]
pub struct Wanted<'a> {
    /// Only this image: `REPOSITORY`, `REPOSITORY:TAG`, or the digest of a root. All of them where it is absent.
    pub image: Option<&'a str>,
    /// The key that must have signed each image.
    pub key: Option<&'a PublicKey>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectReport {
    /// What was looked at, as it was named.
    pub what: String,
    /// What kind of thing that is.
    pub medium: Medium,
    /// The key that signed the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<Digest>,
    /// The images.
    pub images: Vec<InspectedImage>,
}

/// Where images are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Medium {
    /// A registry.
    Registry,
    /// A store.
    Store,
    /// A bundle, whose signature was checked first.
    Bundle,
    /// An OCI image layout.
    Layout,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedImage {
    /// The repository, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The tags that point to it.
    pub tags: Vec<String>,
    /// The manifest that tags point to.
    pub root: Descriptor,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// How its index is carried, where that was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<IndexMode>,
    /// The children, in the order of the documents; of an image without an index, the root.
    pub manifests: Vec<InspectedManifest>,
    /// What speaks about the root, a child that is here, or another signature.
    pub signatures: Vec<InspectedSignature>,
    /// What shows the original of a trimmed index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<InspectedWitness>,
    /// What the key has signed, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Checks that failed.
    pub problems: Vec<String>,
}

impl InspectReport {
    /// Verification, where a check failed.
    pub fn verdict(&self) -> Option<Kind> {
        self.images.iter().any(|image| !image.problems.is_empty()).then_some(Kind::Verification)
    }
}

/// Looks at what is wanted of the images of `place`.
///
/// # Errors
///
/// Where nothing can be said: the place does not answer, or has no such image. What is wrong with an image is in the report.
pub async fn inspect(place: &Place, what: &str, wanted: &Wanted<'_>) -> Result<InspectReport> {
    let mut images = Vec::new();
    for found in chosen(place, wanted).await? {
        images.push(image(place, found, wanted).await?);
    }
    let (medium, signed_by) = match place {
        Place::Registry(..) => (Medium::Registry, None),
        Place::Store(_) => (Medium::Store, None),
        Place::Bundle(bundle) => (Medium::Bundle, Some(bundle.signed_by())),
        Place::Layout(_) => (Medium::Layout, None),
    };
    Ok(InspectReport { what: what.to_owned(), medium, signed_by, images })
}

async fn chosen(place: &Place, wanted: &Wanted<'_>) -> Result<Vec<Found>> {
    let all = place.images().await?;
    let Some(name) = wanted.image else { return Ok(all) };
    let known: Vec<String> = all.iter().take(5).map(|found| names(found).join(", ")).collect();
    let chosen: Vec<Found> = all.into_iter().filter(|found| is_named(found, name)).collect();
    if chosen.is_empty() {
        let known = known.join("; ");
        return Err(
            Error::usage(format!("there is no image {name:?}")).help(format!("the first that are here: {known}"))
        );
    }
    Ok(chosen)
}

fn names(found: &Found) -> Vec<String> {
    match (&found.repository, found.tags.is_empty()) {
        (Some(repository), false) => found.tags.iter().map(|tag| format!("{repository}:{tag}")).collect(),
        (Some(repository), true) => vec![format!("{repository}@{}", found.root.digest)],
        (None, false) => found.tags.clone(),
        (None, true) => vec![found.root.digest.to_string()],
    }
}

fn is_named(found: &Found, name: &str) -> bool {
    found.repository.as_deref() == Some(name)
        || found.root.digest.to_string() == name
        || names(found).iter().any(|known| known == name)
}

async fn image(place: &Place, found: Found, wanted: &Wanted<'_>) -> Result<InspectedImage> {
    let place = &Look::at(place);
    let mut problems = Vec::new();
    let manifests::Walked { root, artifact_type, manifests, present } =
        manifests::walk(place, &found, &mut problems).await?;
    let signatures = signatures::find(place, &found, &present, &mut problems).await?;
    let witnesses = witness::check(place, &found, &root, &signatures, &mut problems).await?;
    let verification = match wanted.key {
        Some(key) => {
            let made = signatures::verify(place, &found.root.digest, &signatures, &witnesses, key).await?;
            problems.extend(made.problem());
            Some(made)
        }
        None => None,
    };
    Ok(InspectedImage {
        repository: found.repository,
        tags: found.tags,
        root: root.descriptor,
        artifact_type,
        mode: found.decided.map(|image| image.mode),
        manifests,
        signatures: signatures.into_iter().map(|read| read.shown).collect(),
        witnesses: witnesses.into_iter().map(|read| read.shown).collect(),
        verification,
        problems,
    })
}
