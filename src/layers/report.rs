//! What came of unpacking.

use serde::Serialize;

use crate::oci::{Digest, MediaType};

/// What `--deep` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeepReport {
    /// Layers that were unpacked and hold what every image that lists them says; each counts once.
    pub layers: u64,
    /// The bytes that came out of them.
    pub unpacked_bytes: u64,
    /// What was not unpacked.
    pub not_checked: Vec<NotChecked>,
    /// What is not as an image says it is, as far as it is told one by one.
    pub failures: Vec<LayerFailure>,
    /// How many more there are.
    pub more_failures: u64,
}

/// Layers of one media type that were not unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotChecked {
    /// The media type.
    pub media_type: MediaType,
    /// Why not.
    pub why: Why,
    /// How many; each counts once.
    pub layers: u64,
}

/// Why a layer was not unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// It is no layer of a file system: an attestation, a chart, a module.
    NoLayer,
    /// It is foreign, and stays where its `urls` say.
    Foreign,
    /// It, or the config that says what it holds, is missing or damaged; the report says so elsewhere.
    Lost,
}

/// One layer that is not as one image says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerFailure {
    /// The image: repository and tags, or its digest where it has none.
    pub image: String,
    /// The manifest that lists the layer.
    pub manifest: Digest,
    /// Which of its layers, from 1; absent when the manifest and its config contradict each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// The layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<Digest>,
    /// The digest that the config says of what comes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Digest>,
    /// The digest of what came out, where it could be unpacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Digest>,
    /// What is wrong, in one line.
    pub problem: String,
}
