//! Referrers on a registry without the referrers API: an index under a tag made of the subject's digest, which clients keep
//! up to date (OCI distribution specification, "Pushing Manifests with Subject").

use bytes::Bytes;

use crate::error::{Error, Kind, Result, Side};
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Name, Tag, json};
use crate::registry::{Put, Remote};

/// What came of listing a referrer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// The registry lists referrers by itself.
    ByApi,
    /// It stands in the index under the fallback tag.
    ByTag,
    /// Something that is no OCI index stands under that tag, and is left alone.
    Occupied(MediaType),
}

/// Makes sure that `referrer`, which was pushed, is found from `subject`. What is listed already stays: merged, never
/// overwritten.
pub async fn list_referrer(
    remote: &Remote,
    subject: &Digest,
    referrer: &Descriptor,
    manifest: &Manifest,
) -> Result<Listed> {
    if remote.supports_referrers().await? {
        return Ok(Listed::ByApi);
    }
    let name = Name::from(Tag::referrers_fallback(subject));
    let mut index = match remote.get_manifest(&name, None).await? {
        None => serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": []}),
        Some((found, _)) if found.media_type != MediaType::OCI_INDEX => return Ok(Listed::Occupied(found.media_type)),
        Some((_, bytes)) => json::parse(&bytes).map_err(|error| Error::failed(error).while_(&name).on(Side::Target))?,
    };
    if !add(&mut index, &entry(referrer, manifest)) {
        return Ok(Listed::ByTag);
    }
    let bytes = json::canonical_compact(&index).map_err(|error| Error::failed(error.to_string()))?;
    match remote.put_manifest(&name, &MediaType::OCI_INDEX, Bytes::from(bytes)).await? {
        Put::Accepted { .. } => Ok(Listed::ByTag),
        Put::Refused(answer) => {
            Err(Error::new(Kind::Refused, format!("it does not take the list of referrers {name}: {answer}"))
                .while_(remote.repository())
                .on(Side::Target))
        }
    }
}

/// The entry of a referrer: its descriptor with its artifact type and all its annotations.
fn entry(referrer: &Descriptor, manifest: &Manifest) -> Descriptor {
    let mut entry = Descriptor::new(referrer.media_type.clone(), referrer.digest, referrer.size);
    entry.artifact_type = manifest.referrer_type();
    entry.annotations = manifest.annotations.clone();
    entry
}

/// Appends `entry` to an index unless its digest is listed; whether it was not.
fn add(index: &mut serde_json::Value, entry: &Descriptor) -> bool {
    let digest = entry.digest.to_string();
    let Some(index) = index.as_object_mut() else { return false };
    let manifests = index.entry("manifests").or_insert_with(|| serde_json::json!([]));
    if manifests.is_null() {
        *manifests = serde_json::json!([]);
    }
    let Some(manifests) = manifests.as_array_mut() else { return false };
    if manifests.iter().any(|there| there.get("digest").and_then(serde_json::Value::as_str) == Some(&digest)) {
        return false;
    }
    manifests.extend(serde_json::to_value(entry));
    true
}
