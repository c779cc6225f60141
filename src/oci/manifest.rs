//! Manifests as sealift reads them: a lenient view of bytes that are only carried.
//!
//! One odd field must not fail an image, so unknown members and odd annotations are passed over. What
//! decides where bytes go (digests, sizes, media types, the shape of the document) is checked strictly.
//! [`Manifest::successors`] is the one place that knows which documents have children.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::json::INTEGER_MAX;
use super::{Descriptor, Digest, MediaType, Platform};

/// The largest manifest that is read, in bytes: what registries accept (OCI distribution
/// specification, "Pushing Manifests": at least 4 MiB).
pub const MANIFEST_SIZE_MAX: u64 = 4 * 1024 * 1024;

/// The largest config of an image that is read, in bytes.
pub const CONFIG_SIZE_MAX: u64 = 8 * 1024 * 1024;

/// The most children of one index, or layers of one manifest.
pub const CHILDREN_MAX: usize = 10_000;

/// How deep indexes may be nested in each other. Real images nest once at the most.
pub const INDEX_DEPTH_MAX: usize = 4;

/// A parsed manifest. The bytes that it was parsed from are the document; this is a view of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The document's own media type, or else the one that it was served with.
    pub media_type: MediaType,
    /// What it refers to as its content.
    pub content: Content,
    /// The manifest that this one is about (OCI 1.1 referrers).
    pub subject: Option<Descriptor>,
    /// The type of an artifact.
    pub artifact_type: Option<String>,
    /// Annotations whose values are texts.
    pub annotations: BTreeMap<String, String>,
}

/// The two shapes of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An image or an artifact.
    Image {
        /// The configuration.
        config: Box<Descriptor>,
        /// The layers, in their order.
        layers: Vec<Descriptor>,
    },
    /// An index or a Docker manifest list.
    Index {
        /// The children, in their order.
        manifests: Vec<Descriptor>,
    },
}

/// Why bytes are no manifest that sealift carries.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Larger than [`MANIFEST_SIZE_MAX`].
    #[error("the manifest has {0} bytes, more than the {MANIFEST_SIZE_MAX} that registries take")]
    TooLarge(u64),
    /// No JSON, JSON nested too deep, or a member that decides where bytes go is not what it must be.
    #[error("the manifest is not readable: {0}")]
    Json(String),
    /// More children or layers than [`CHILDREN_MAX`].
    #[error("the manifest lists {0} children, more than {CHILDREN_MAX}")]
    TooManyChildren(usize),
    /// Docker's schema 1.
    #[error(
        "it is a Docker manifest of schema 1, which has no stable digest and is not carried; push the image again with a current client"
    )]
    Schema1,
    /// The document says it is something else than what it was served or listed as.
    #[error("the document says {document}, but it was announced as {announced}")]
    MediaTypeMismatch {
        /// The document's own `mediaType`.
        document: MediaType,
        /// The type in the header or in the parent's descriptor.
        announced: MediaType,
    },
    /// Neither a manifest nor an index, or both at once.
    #[error("{0}")]
    Shape(&'static str),
}

impl Manifest {
    /// Parses `bytes`, which were announced (by a header or a parent's descriptor) as `announced`.
    ///
    /// The digest of the bytes has been verified by the caller. Size, depth and number of
    /// children are bounded.
    pub fn parse(announced: &MediaType, bytes: &[u8]) -> Result<Self, InvalidManifest> {
        if bytes.len() as u64 > MANIFEST_SIZE_MAX {
            return Err(InvalidManifest::TooLarge(bytes.len() as u64));
        }
        if announced.is_schema1() {
            return Err(InvalidManifest::Schema1);
        }
        let raw: RawManifest = super::json::parse(bytes).map_err(InvalidManifest::Json)?;
        if raw.schema_version == Some(1) {
            return Err(InvalidManifest::Schema1);
        }
        let document = raw.media_type.as_deref().map(MediaType::new);
        let media_type = match document {
            Some(document) if announced.is_manifest() && document != *announced => {
                return Err(InvalidManifest::MediaTypeMismatch { document, announced: announced.clone() });
            }
            Some(document) => document,
            None => announced.clone(),
        };
        let content = raw.content(&media_type)?;
        Ok(Manifest {
            media_type,
            content,
            subject: raw.subject.map(RawDescriptor::lower),
            artifact_type: raw.artifact_type,
            annotations: texts(raw.annotations),
        })
    }

    /// The descriptors of everything that the document needs in order to be whole: children of an
    /// index; config, then layers, of an image. Not its subject.
    pub fn successors(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, rest) = match &self.content {
            Content::Image { config, layers } => (Some(&**config), layers),
            Content::Index { manifests } => (None, manifests),
        };
        config.into_iter().chain(rest)
    }

    /// The children of an index; none for an image.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index { manifests } => manifests,
            Content::Image { .. } => &[],
        }
    }

    /// The type by which the referrers API lists this manifest: its `artifactType`, or where that is missing or empty the
    /// media type of its config (OCI distribution specification, "Listing Referrers").
    pub fn referrer_type(&self) -> Option<String> {
        match (&self.artifact_type, &self.content) {
            (Some(kind), _) if !kind.is_empty() => Some(kind.clone()),
            (_, Content::Image { config, .. }) => Some(config.media_type.as_str().to_owned()),
            (_, Content::Index { .. }) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    annotations: Option<BTreeMap<String, serde_json::Value>>,
}

impl RawManifest {
    fn content(&self, media_type: &MediaType) -> Result<Content, InvalidManifest> {
        let list = |list: &Option<Vec<RawDescriptor>>| {
            let list = list.as_deref().unwrap_or_default();
            if list.len() > CHILDREN_MAX {
                return Err(InvalidManifest::TooManyChildren(list.len()));
            }
            Ok(list.iter().cloned().map(RawDescriptor::lower).collect::<Vec<_>>())
        };
        // A document that is both can be read in two ways (CVE-2021-41190).
        if self.manifests.is_some() && (self.config.is_some() || self.layers.is_some()) {
            return Err(InvalidManifest::Shape("the document is an index and an image manifest at once"));
        }
        if media_type.is_index() {
            return Ok(Content::Index { manifests: list(&self.manifests)? });
        }
        if !media_type.is_image_manifest() {
            return Err(InvalidManifest::Shape("the media type is neither of an index nor of an image manifest"));
        }
        match &self.config {
            Some(config) => {
                Ok(Content::Image { config: Box::new(config.clone().lower()), layers: list(&self.layers)? })
            }
            None => Err(InvalidManifest::Shape("the image manifest has no config")),
        }
    }
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: Digest,
    #[serde(deserialize_with = "size")]
    size: u64,
    platform: Option<RawPlatform>,
    urls: Option<Vec<String>>,
    annotations: Option<BTreeMap<String, serde_json::Value>>,
    artifact_type: Option<String>,
}

impl RawDescriptor {
    fn lower(self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.as_deref().map_or(MediaType::OCTET_STREAM, MediaType::new),
            digest: self.digest,
            size: self.size,
            platform: self.platform.and_then(RawPlatform::lower).map(Box::new),
            urls: self.urls.unwrap_or_default(),
            annotations: texts(self.annotations),
            artifact_type: self.artifact_type,
        }
    }
}

/// A size beyond what any blob has would only bring sums to overflow.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    match size <= INTEGER_MAX {
        true => Ok(size),
        false => Err(serde::de::Error::custom(format_args!("{size} is no size: more than {INTEGER_MAX}"))),
    }
}

#[derive(Clone, Deserialize)]
struct RawPlatform {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
    #[serde(rename = "os.features")]
    os_features: Option<Vec<String>>,
}

impl RawPlatform {
    /// A platform that names neither system nor architecture is none.
    fn lower(self) -> Option<Platform> {
        let os = self.os.unwrap_or_default();
        let architecture = self.architecture.unwrap_or_default();
        if os.is_empty() && architecture.is_empty() {
            return None;
        }
        let mut platform = Platform::new(&os, &architecture, &self.variant.unwrap_or_default());
        platform.os_version = self.os_version.unwrap_or_default();
        platform.os_features = self.os_features.unwrap_or_default();
        Some(platform)
    }
}

fn texts(annotations: Option<BTreeMap<String, serde_json::Value>>) -> BTreeMap<String, String> {
    annotations
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, value)| match value {
            serde_json::Value::String(text) => Some((key, text)),
            _ => None,
        })
        .collect()
}

/// The platform that the config of an image names; `None` where it names none.
pub fn config_platform(config: &[u8]) -> Option<Platform> {
    serde_json::from_slice::<RawPlatform>(config).ok().and_then(RawPlatform::lower)
}

/// The digests of the unpacked layers that the config of an image names, in their order (OCI image specification,
/// "Layer DiffID"). None where it names none.
pub fn config_diff_ids(config: &[u8]) -> Result<Vec<Digest>, String> {
    #[derive(Deserialize)]
    struct RawConfig {
        rootfs: Option<RawRootFs>,
    }
    #[derive(Deserialize)]
    struct RawRootFs {
        diff_ids: Option<Vec<Digest>>,
    }
    let config: RawConfig = super::json::parse(config)?;
    Ok(config.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(children: &str) -> String {
        format!(r#"{{"schemaVersion":2,"manifests":[{children}]}}"#)
    }

    #[test]
    fn odd_fields_are_passed_over() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","extra":[1],
               "config":{{"mediaType":"x/y","digest":"sha256:{HEX}","size":2,"platform":{{}}}},
               "layers":null,"annotations":{{"a":1,"b":"two"}}}}"#
        );
        let manifest = Manifest::parse(&MediaType::OCI_MANIFEST, text.as_bytes()).unwrap();
        assert_eq!(manifest.successors().count(), 1);
        assert_eq!(manifest.annotations.get("b").map(String::as_str), Some("two"));
        assert_eq!(manifest.annotations.len(), 1);
    }

    #[test]
    fn hostile_documents_are_refused() {
        let child = format!(r#"{{"mediaType":"x/y","digest":"sha256:{HEX}","size":1}}"#);
        let many =
            index(&vec![r#"{"digest":"sha256:"#.to_owned() + HEX + r#"","size":1}"#; CHILDREN_MAX + 1].join(","));
        let nested = "[".repeat(10_000) + &"]".repeat(10_000);
        let both = format!(r#"{{"manifests":[{child}],"config":{child},"layers":[]}}"#);
        let rows: Vec<(&str, MediaType, String)> = vec![
            ("path in digest", MediaType::OCI_INDEX, index(r#"{"digest":"sha256:../../etc/passwd","size":1}"#)),
            ("negative size", MediaType::OCI_INDEX, index(&child.replace("\"size\":1", "\"size\":-1"))),
            ("impossible size", MediaType::OCI_INDEX, index(&child.replace("\"size\":1", "\"size\":9007199254740992"))),
            ("too many children", MediaType::OCI_INDEX, many),
            ("nested", MediaType::OCI_INDEX, format!(r#"{{"x":{nested}}}"#)),
            ("both shapes", MediaType::OCI_INDEX, both),
            ("no config", MediaType::OCI_MANIFEST, index("")),
            ("schema 1", MediaType::OCI_MANIFEST, r#"{"schemaVersion":1}"#.into()),
            ("mismatch", MediaType::OCI_INDEX, r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#.into()),
            ("duplicate member", MediaType::OCI_INDEX, format!(r#"{{"manifests":[],"manifests":[{child}]}}"#)),
            ("no JSON", MediaType::OCI_INDEX, "<html>".into()),
        ];
        for (name, announced, text) in rows {
            assert!(Manifest::parse(&announced, text.as_bytes()).is_err(), "{name} was taken");
        }
        let large = vec![b' '; MANIFEST_SIZE_MAX as usize + 1];
        assert!(matches!(Manifest::parse(&MediaType::OCI_INDEX, &large), Err(InvalidManifest::TooLarge(_))));
    }

    #[test]
    fn a_platform_without_names_is_none() {
        let text = index(&format!(r#"{{"digest":"sha256:{HEX}","size":1,"platform":{{}}}}"#));
        let manifest = Manifest::parse(&MediaType::OCI_INDEX, text.as_bytes()).unwrap();
        assert_eq!(manifest.children()[0].platform, None);
    }
}
