//! [`Descriptor`]: the only way in which the parts of sealift name content to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, MediaType, Platform};

/// What a document says of content that it refers to (OCI image specification, `descriptor.md`).
///
/// This is a view for reading and for sealift's own documents. A document that has a digest is never
/// written again from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The platform of an index's child, normalised; absent where the index names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Box<Platform>>,
    /// Where else the content may be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations whose values are texts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The type of an artifact, in indexes of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor of nothing but type, name and length.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            artifact_type: None,
        }
    }

    /// The descriptor of these very bytes.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The image that a BuildKit attestation child speaks of; `None` for any other child.
    ///
    /// Source: BuildKit, "Attestation storage": annotations `vnd.docker.reference.type` and
    /// `vnd.docker.reference.digest` on the child's descriptor.
    pub fn attests(&self) -> Option<Digest> {
        let kind = self.annotations.get("vnd.docker.reference.type")?;
        (kind == "attestation-manifest")
            .then(|| self.annotations.get("vnd.docker.reference.digest"))
            .flatten()
            .and_then(|text| text.parse().ok())
    }
}
