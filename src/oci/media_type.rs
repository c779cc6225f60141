//! Media types: what a descriptor says its content is.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A media type as written in a descriptor or a header. Unknown ones are carried as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

impl MediaType {
    /// The index of the OCI image specification.
    pub const OCI_INDEX: MediaType = MediaType::constant("application/vnd.oci.image.index.v1+json");
    /// The manifest of the OCI image specification.
    pub const OCI_MANIFEST: MediaType = MediaType::constant("application/vnd.oci.image.manifest.v1+json");
    /// Docker's "manifest list".
    pub const DOCKER_LIST: MediaType = MediaType::constant("application/vnd.docker.distribution.manifest.list.v2+json");
    /// Docker's manifest, version 2, schema 2.
    pub const DOCKER_MANIFEST: MediaType = MediaType::constant("application/vnd.docker.distribution.manifest.v2+json");
    /// The configuration of an OCI image.
    pub const OCI_CONFIG: MediaType = MediaType::constant("application/vnd.oci.image.config.v1+json");
    /// The configuration of a Docker image.
    pub const DOCKER_CONFIG: MediaType = MediaType::constant("application/vnd.docker.container.image.v1+json");
    /// A gzip layer of an OCI image.
    pub const OCI_LAYER_GZIP: MediaType = MediaType::constant("application/vnd.oci.image.layer.v1.tar+gzip");
    /// A zstd layer of an OCI image.
    pub const OCI_LAYER_ZSTD: MediaType = MediaType::constant("application/vnd.oci.image.layer.v1.tar+zstd");
    /// The empty JSON object that artifacts use as their configuration.
    pub const OCI_EMPTY: MediaType = MediaType::constant("application/vnd.oci.empty.v1+json");
    /// What is not known better.
    pub const OCTET_STREAM: MediaType = MediaType::constant("application/octet-stream");

    /// Every manifest type that sealift carries; all are always offered in `Accept`, because
    /// registries convert or refuse when one is missing.
    pub const MANIFESTS: [MediaType; 4] =
        [Self::OCI_INDEX, Self::OCI_MANIFEST, Self::DOCKER_LIST, Self::DOCKER_MANIFEST];

    const fn constant(text: &'static str) -> Self {
        MediaType(Cow::Borrowed(text))
    }

    /// A media type from a descriptor or a header; parameters (`; charset=…`) are cut off.
    pub fn new(text: &str) -> Self {
        let essence = text.split(';').next().unwrap_or_default().trim();
        MediaType(Cow::Owned(essence.to_ascii_lowercase()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An index or a Docker manifest list.
    pub fn is_index(&self) -> bool {
        *self == Self::OCI_INDEX || *self == Self::DOCKER_LIST
    }

    /// A manifest of one image or artifact.
    pub fn is_image_manifest(&self) -> bool {
        *self == Self::OCI_MANIFEST || *self == Self::DOCKER_MANIFEST
    }

    /// Anything that a registry takes at its manifest endpoint.
    pub fn is_manifest(&self) -> bool {
        self.is_index() || self.is_image_manifest()
    }

    /// A manifest of Docker's schema 1, which sealift refuses by name.
    pub fn is_schema1(&self) -> bool {
        self.0.starts_with("application/vnd.docker.distribution.manifest.v1+")
    }

    /// A layer that its image says must not be distributed: foreign by media type alone, never by the
    /// presence of `urls` (OCI image specification, `layer.md`).
    pub fn is_foreign_layer(&self) -> bool {
        self.0.starts_with("application/vnd.docker.image.rootfs.foreign.")
            || self.0.starts_with("application/vnd.oci.image.layer.nondistributable.")
    }

    /// The configuration of a runnable image, which names its platform.
    pub fn is_image_config(&self) -> bool {
        *self == Self::OCI_CONFIG || *self == Self::DOCKER_CONFIG
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert!(MediaType::new("application/vnd.oci.image.index.v1+json; charset=utf-8").is_index());
        assert!(MediaType::DOCKER_MANIFEST.is_image_manifest());
        assert!(MediaType::new("application/vnd.docker.distribution.manifest.v1+prettyjws").is_schema1());
        assert!(MediaType::new("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip").is_foreign_layer());
        assert!(MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd").is_foreign_layer());
        assert!(!MediaType::OCI_LAYER_GZIP.is_foreign_layer());
    }
}
