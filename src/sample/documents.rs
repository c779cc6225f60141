//! The JSON documents of an image.
//!
//! Configurations are made with `oci-spec`. Manifests and indexes are not: its `Platform` of a descriptor writes
//! `os_version` where the specification says `os.version`.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci_spec::image::{Arch, ConfigBuilder, HistoryBuilder, ImageConfigurationBuilder, Os, RootFsBuilder};
use serde_json::{Value, json};

use super::layer::Layer;
use crate::error::{Error, Result};
use crate::oci::json::canonical;
use crate::oci::{Descriptor, MediaType};

/// A platform as it is written, before anybody normalises it.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub os: String,
    pub architecture: String,
    pub variant: String,
    pub os_version: String,
    pub os_features: Vec<String>,
}

impl Written {
    /// What attestations have in place of a platform.
    pub fn unknown() -> Self {
        Written { os: "unknown".into(), architecture: "unknown".into(), ..Written::default() }
    }

    fn json(&self) -> Value {
        let mut platform = json!({ "os": self.os, "architecture": self.architecture });
        for (member, text) in [("variant", &self.variant), ("os.version", &self.os_version)] {
            if !text.is_empty() {
                platform[member] = json!(text);
            }
        }
        if !self.os_features.is_empty() {
            platform["os.features"] = json!(self.os_features);
        }
        platform
    }
}

/// A child of an index: what it is, and the platform that the index writes beside it.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub descriptor: Descriptor,
    pub platform: Option<Written>,
}

/// Which of the two families of media types a document uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Oci,
    Docker,
}

impl Format {
    pub fn index(self) -> MediaType {
        if self == Format::Docker { MediaType::DOCKER_LIST } else { MediaType::OCI_INDEX }
    }

    pub fn manifest(self) -> MediaType {
        if self == Format::Docker { MediaType::DOCKER_MANIFEST } else { MediaType::OCI_MANIFEST }
    }

    pub fn config(self) -> MediaType {
        if self == Format::Docker { MediaType::DOCKER_CONFIG } else { MediaType::OCI_CONFIG }
    }
}

/// A document of our own with its descriptor.
pub(super) fn document(media_type: MediaType, value: &impl serde::Serialize) -> Result<(Descriptor, Bytes)> {
    let bytes = canonical(value).map_err(|error| Error::failed(error.to_string()))?;
    Ok((Descriptor::of(media_type, &bytes), Bytes::from(bytes)))
}

/// The configuration of an image.
pub(super) fn config(
    format: Format,
    platform: &Written,
    layers: &[Layer],
    command: &[String],
) -> Result<(Descriptor, Bytes)> {
    /// No image of ours knows what day it is.
    const CREATED: &str = "1970-01-01T00:00:00Z";
    let history =
        layers.iter().map(|_| HistoryBuilder::default().created(CREATED).created_by("sealift sample").build());
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let mut config = ImageConfigurationBuilder::default()
        .created(CREATED)
        .os(Os::from(platform.os.as_str()))
        .architecture(Arch::from(platform.architecture.as_str()))
        .rootfs(RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build().map_err(unbuilt)?)
        .history(history.collect::<Result<Vec<_>, _>>().map_err(unbuilt)?)
        .config(ConfigBuilder::default().cmd(command.to_vec()).build().map_err(unbuilt)?);
    if !platform.variant.is_empty() {
        config = config.variant(platform.variant.as_str());
    }
    if !platform.os_version.is_empty() {
        config = config.os_version(platform.os_version.as_str());
    }
    if !platform.os_features.is_empty() {
        config = config.os_features(platform.os_features.clone());
    }
    document(format.config(), &config.build().map_err(unbuilt)?)
}

fn unbuilt(error: oci_spec::OciSpecError) -> Error {
    Error::failed(error.to_string())
}

/// What a manifest says.
pub(super) struct ManifestPlan<'a> {
    pub media_type: MediaType,
    pub config: &'a Descriptor,
    pub layers: &'a [Descriptor],
    pub artifact_type: Option<&'a str>,
    pub subject: Option<&'a Descriptor>,
}

impl ManifestPlan<'_> {
    /// The manifest.
    pub fn make(&self) -> Result<(Descriptor, Bytes)> {
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config,
            "layers": self.layers,
        });
        if let Some(kind) = self.artifact_type {
            manifest["artifactType"] = json!(kind);
        }
        if let Some(subject) = self.subject {
            // A subject is named by nothing but type, digest and size.
            manifest["subject"] = json!(Descriptor::new(subject.media_type.clone(), subject.digest, subject.size));
        }
        document(self.media_type.clone(), &manifest)
    }
}

/// An index, or Docker's manifest list.
pub(super) fn index(
    format: Format,
    children: &[Child],
    annotations: &BTreeMap<String, String>,
) -> Result<(Descriptor, Bytes)> {
    let entries: Vec<Value> = children
        .iter()
        .map(|child| {
            let mut entry = json!(child.descriptor);
            if let Some(platform) = &child.platform {
                entry["platform"] = platform.json();
            }
            entry
        })
        .collect();
    let mut index = json!({ "schemaVersion": 2, "mediaType": format.index(), "manifests": entries });
    if !annotations.is_empty() {
        index["annotations"] = json!(annotations);
    }
    document(format.index(), &index)
}
