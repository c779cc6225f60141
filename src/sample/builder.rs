//! [`ImageBuilder`]: says what a sample image is to be, and makes it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::SampleImage;
use super::documents::{Format, Written, index};
use super::layer::{LayerPlan, Packing, archive, pseudo_random};
use super::made::{ChildPlan, Made, Sign};
use crate::error::{Error, Result};

/// Says what an image is to be. Layers named before the first platform belong to every platform; what is
/// named after one belongs to that one.
#[derive(Default)]
pub struct ImageBuilder {
    docker: bool,
    single: bool,
    shared: Vec<LayerPlan>,
    children: Vec<ChildPlan>,
    annotations: BTreeMap<String, String>,
    command: Vec<String>,
    referrers: Vec<(String, Bytes)>,
    signatures: Vec<(String, Sign)>,
    /// The first thing that went wrong; [`ImageBuilder::build`] tells.
    failed: Option<Error>,
}

impl ImageBuilder {
    /// An image of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the next child of the index, written as it is given here: nothing is normalised.
    #[must_use]
    pub fn platform(mut self, os: &str, architecture: &str, variant: &str) -> Self {
        let platform = Written {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..Written::default()
        };
        self.children.push(ChildPlan { platform: Some(platform), ..ChildPlan::default() });
        self
    }

    /// Begins the next child of the index, one that has no `platform` there.
    #[must_use]
    pub fn platformless(mut self) -> Self {
        self.children.push(ChildPlan::default());
        self
    }

    /// The `os.version` of the current platform.
    #[must_use]
    pub fn os_version(mut self, version: &str) -> Self {
        if let Some(platform) = self.children.last_mut().and_then(|child| child.platform.as_mut()) {
            platform.os_version = version.to_owned();
        }
        self
    }

    /// One of the `os.features` of the current platform.
    #[must_use]
    pub fn os_feature(mut self, feature: &str) -> Self {
        if let Some(platform) = self.children.last_mut().and_then(|child| child.platform.as_mut()) {
            platform.os_features.push(feature.to_owned());
        }
        self
    }

    fn layer(mut self, archive: Result<Vec<u8>>, packing: Packing, url: Option<&str>) -> Self {
        match archive {
            Ok(archive) => {
                let layers = self.children.last_mut().map_or(&mut self.shared, |child| &mut child.layers);
                layers.push(LayerPlan { archive, packing, url: url.map(str::to_owned) });
            }
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
        self
    }

    /// A gzip layer of these files: path and content.
    #[must_use]
    pub fn layer_files(self, files: &[(&str, &[u8])]) -> Self {
        self.layer(archive(files), Packing::Gzip, None)
    }

    /// A zstd layer of these files.
    #[must_use]
    pub fn layer_files_zstd(self, files: &[(&str, &[u8])]) -> Self {
        self.layer(archive(files), Packing::Zstd, None)
    }

    /// A gzip layer of an archive that was made elsewhere.
    #[must_use]
    pub fn layer_archive(self, archive: Vec<u8>) -> Self {
        self.layer(Ok(archive), Packing::Gzip, None)
    }

    /// A gzip layer with one file of `size` bytes that cannot be compressed.
    #[must_use]
    pub fn random_layer(self, size: usize, seed: u64) -> Self {
        self.layer(random_archive(size, seed), Packing::Gzip, None)
    }

    /// A foreign layer of `size` bytes and a little more, which is had from `url`.
    #[must_use]
    pub fn foreign_layer(self, url: &str, size: usize, seed: u64) -> Self {
        self.layer(random_archive(size, seed), Packing::Gzip, Some(url))
    }

    /// Gives the current platform an attestation child, as BuildKit does.
    #[must_use]
    pub fn attestation(mut self) -> Self {
        if let Some(child) = self.children.last_mut() {
            child.attestation = true;
        }
        self
    }

    /// An annotation of the index.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The command of the image.
    #[must_use]
    pub fn command(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// An artifact whose subject is the root: a bill of materials, a signature bundle, …
    #[must_use]
    pub fn referrer(mut self, artifact_type: &str, payload: &[u8]) -> Self {
        self.referrers.push((artifact_type.to_owned(), Bytes::copy_from_slice(payload)));
        self
    }

    /// An artifact whose subject is the current platform's manifest.
    #[must_use]
    pub fn child_referrer(mut self, artifact_type: &str, payload: &[u8]) -> Self {
        if let Some(child) = self.children.last_mut() {
            child.referrers.push((artifact_type.to_owned(), Bytes::copy_from_slice(payload)));
        }
        self
    }

    /// A signature of the root under cosign's `.sig` tag. `reference` is the name that is signed along, and `sign`
    /// makes the raw signature of the payload.
    #[must_use]
    pub fn cosign_tag(mut self, reference: &str, sign: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        self.signatures.push((reference.to_owned(), Box::new(sign)));
        self
    }

    /// Docker's media types (schema 2 and manifest list) in place of those of the OCI specification.
    #[must_use]
    pub fn docker_format(mut self) -> Self {
        self.docker = true;
        self
    }

    /// No index: the root is the manifest of the one platform.
    #[must_use]
    pub fn single(mut self) -> Self {
        self.single = true;
        self
    }

    /// Makes the image.
    ///
    /// Fails when a file could not be packed, when [`ImageBuilder::single`] was asked for an image that has not
    /// exactly one platform, and for an attestation in Docker's format: BuildKit goes over to the OCI format then,
    /// because clients refuse the types of attestations in the other one.
    pub fn build(self) -> Result<SampleImage> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.single && self.children.len() != 1 {
            return Err(Error::usage("an image without an index has exactly one platform"));
        }
        if self.docker && self.children.iter().any(|child| child.attestation) {
            return Err(Error::usage("an image in Docker's format has no attestations"));
        }
        let format = if self.docker { Format::Docker } else { Format::Oci };
        let mut made = Made::default();
        for plan in &self.children {
            made.child(format, &self.shared, plan, &self.command)?;
        }
        let root = match made.children.first() {
            Some(child) if self.single => child.descriptor.clone(),
            _ => made.manifest(index(format, &made.children, &self.annotations)?),
        };
        for (child, artifact_type, payload) in std::mem::take(&mut made.waiting) {
            made.referrer(&child, &artifact_type, payload)?;
        }
        for (artifact_type, payload) in self.referrers {
            made.referrer(&root, &artifact_type, payload)?;
        }
        if !self.signatures.is_empty() {
            made.signatures(&root, &self.signatures)?;
        }
        Ok(made.into_image(root))
    }
}

fn random_archive(size: usize, seed: u64) -> Result<Vec<u8>> {
    archive(&[(&format!("data/{seed}.bin"), &pseudo_random(size, seed))])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Read;

    use serde_json::json;

    use super::*;
    use crate::oci::manifest::{Content, config_platform};
    use crate::oci::{Descriptor, Digest, Manifest, MediaType, Tag};

    fn everything(docker: bool) -> ImageBuilder {
        let begun = ImageBuilder::new()
            .layer_files(&[("etc/motd", b"hello\n"), ("usr/bin/app", b"#!/bin/sh\n")])
            .platform("linux", "amd64", "")
            .random_layer(10_000, 1);
        // Docker's format has no attestations.
        let begun = if docker { begun.docker_format() } else { begun.attestation() };
        begun
            .child_referrer("application/spdx+json", b"{}")
            .platform("linux", "arm64", "v8")
            .layer_files_zstd(&[("a", b"b")])
            .platform("windows", "amd64", "")
            .os_version("10.0.17763.1")
            .os_feature("win32k")
            .foreign_layer("https://example.com/layer", 1000, 2)
            .platformless()
            .annotation("org.example.key", "value")
            .command(&["/usr/bin/app"])
            .referrer("application/vnd.dev.sigstore.bundle.v0.3+json", b"{\"bundle\":1}")
            .cosign_tag("registry.example/app", |payload| Digest::of(payload).bytes().to_vec())
    }

    fn unpack(layer: &Descriptor, bytes: &[u8]) -> Vec<u8> {
        let mut archive = Vec::new();
        if layer.media_type.as_str().ends_with("zstd") {
            zstd::stream::copy_decode(bytes, &mut archive).unwrap();
        } else if layer.media_type.as_str().ends_with("json") {
            archive.extend_from_slice(bytes);
        } else {
            flate2::read::GzDecoder::new(bytes).read_to_end(&mut archive).unwrap();
        }
        archive
    }

    fn check(image: &SampleImage) {
        let mut seen = HashSet::new();
        for (descriptor, bytes) in &image.contents {
            assert_eq!(descriptor.digest, Digest::of(bytes));
            assert_eq!(descriptor.size, bytes.len() as u64);
            if descriptor.media_type.is_manifest() {
                let manifest = Manifest::parse(&descriptor.media_type, bytes).unwrap();
                for needed in manifest.successors() {
                    let there = seen.contains(&needed.digest) || needed.media_type.is_foreign_layer();
                    assert!(there, "{descriptor:?} comes before {needed:?}");
                    assert_eq!(needed.size, image.bytes(&needed.digest).unwrap().len() as u64);
                }
                check_diff_ids(image, &manifest);
            }
            assert!(seen.insert(descriptor.digest), "{descriptor:?} comes twice");
        }
        assert!(seen.contains(&image.root.digest));
    }

    fn check_diff_ids(image: &SampleImage, manifest: &Manifest) {
        let Content::Image { config, layers } = &manifest.content else { return };
        if !config.media_type.is_image_config() {
            return;
        }
        let config: serde_json::Value = serde_json::from_slice(image.bytes(&config.digest).unwrap()).unwrap();
        let diff_ids = layers.iter().map(|layer| Digest::of(&unpack(layer, image.bytes(&layer.digest).unwrap())));
        assert_eq!(config["rootfs"]["diff_ids"], json!(diff_ids.collect::<Vec<_>>()));
        assert_eq!(config["history"].as_array().unwrap().len(), layers.len());
    }

    #[test]
    fn every_image_is_true_in_both_formats() {
        for docker in [false, true] {
            let image = everything(docker).build().unwrap();
            check(&image);
            assert_eq!(image.children().len(), if docker { 4 } else { 5 });
            assert_eq!(image.foreign.len(), 1);
            assert_eq!(image.referrers(&image.root.digest).len(), 1);
        }
        let docker = everything(true).build().unwrap();
        assert_eq!(docker.root.media_type, MediaType::DOCKER_LIST);
        assert!(docker.children().iter().all(|child| child.media_type == MediaType::DOCKER_MANIFEST));
    }

    #[test]
    fn the_same_calls_make_the_same_bytes() {
        let (one, other) = (everything(false).build().unwrap(), everything(false).build().unwrap());
        assert_eq!(one.contents, other.contents);
        assert_ne!(pseudo_random(100, 1), pseudo_random(100, 2));
        assert_eq!(pseudo_random(9, 7), pseudo_random(100, 7)[..9]);
    }

    #[test]
    fn children_are_what_was_said() {
        let image = everything(false).build().unwrap();
        let amd64 = image.child("linux", "amd64", "").unwrap();
        assert!(image.child("linux", "arm64", "").is_some(), "arm64/v8 is arm64");
        let children = image.children();
        assert_eq!(children.iter().filter_map(Descriptor::attests).collect::<Vec<_>>(), [amd64.digest]);
        assert_eq!(children.iter().filter(|child| child.platform.is_none()).count(), 1);
        let windows = image.child("windows", "amd64", "").unwrap();
        let platform = windows.platform.clone().unwrap();
        assert_eq!((platform.os_version.as_str(), &platform.os_features[..]), ("10.0.17763.1", &["win32k".into()][..]));
        let config = image.parsed(&windows).unwrap().successors().next().unwrap().digest;
        assert_eq!(config_platform(image.bytes(&config).unwrap()), windows.platform.as_deref().cloned());
        assert_eq!(image.referrers(&amd64.digest).len(), 1);
        let manifest = image.parsed(&amd64).unwrap();
        let config = manifest.successors().next().unwrap().digest;
        assert_eq!(config_platform(image.bytes(&config).unwrap()), amd64.platform.as_deref().cloned());
        let (tag, signature) = &image.tags[0];
        assert_eq!(*tag, Tag::cosign(&image.root.digest, "sig"));
        assert!(image.parsed(signature).is_some());
    }

    #[test]
    fn an_image_without_an_index() {
        let image = ImageBuilder::new().platform("linux", "s390x", "").random_layer(10, 1).single().build().unwrap();
        check(&image);
        assert_eq!(image.root.media_type, MediaType::OCI_MANIFEST);
        assert!(ImageBuilder::new().single().build().is_err());
        assert!(everything(false).docker_format().build().is_err());
    }
}
