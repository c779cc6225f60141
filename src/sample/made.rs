//! [`Made`]: what an [`super::ImageBuilder`] has made of its plan so far.

use std::collections::HashSet;

use base64::Engine;
use bytes::Bytes;
use serde_json::json;

use super::SampleImage;
use super::documents::{Child, Format, ManifestPlan, Written, config, document};
use super::layer::{Layer, LayerPlan};
use crate::error::Result;
use crate::oci::{Descriptor, Digest, MediaType, Tag};

/// Makes the raw signature of cosign's payload.
pub(super) type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

/// What a child of the index is to be.
#[derive(Default)]
pub(super) struct ChildPlan {
    pub platform: Option<Written>,
    pub layers: Vec<LayerPlan>,
    pub attestation: bool,
    pub referrers: Vec<(String, Bytes)>,
}

/// What has been made so far.
#[derive(Default)]
pub(super) struct Made {
    blobs: Vec<(Descriptor, Bytes)>,
    manifests: Vec<(Descriptor, Bytes)>,
    /// Referrers and signatures with their blobs, in the order in which they are uploaded.
    after: Vec<(Descriptor, Bytes)>,
    foreign: Vec<(Descriptor, Bytes)>,
    pub children: Vec<Child>,
    /// Referrers of children: subject, type, payload.
    pub waiting: Vec<(Descriptor, String, Bytes)>,
    tags: Vec<(Tag, Descriptor)>,
}

impl Made {
    fn blob(&mut self, (descriptor, bytes): (Descriptor, Bytes)) -> Descriptor {
        self.blobs.push((descriptor.clone(), bytes));
        descriptor
    }

    /// Keeps a manifest.
    pub fn manifest(&mut self, (descriptor, bytes): (Descriptor, Bytes)) -> Descriptor {
        self.manifests.push((descriptor.clone(), bytes));
        descriptor
    }

    fn late(&mut self, (descriptor, bytes): (Descriptor, Bytes)) -> Descriptor {
        self.after.push((descriptor.clone(), bytes));
        descriptor
    }

    /// Makes a child: layers, config, manifest, and its attestation.
    pub fn child(&mut self, format: Format, shared: &[LayerPlan], plan: &ChildPlan, command: &[String]) -> Result<()> {
        let docker = format == Format::Docker;
        let layers: Result<Vec<Layer>> = shared.iter().chain(&plan.layers).map(|layer| layer.make(docker)).collect();
        let layers = layers?;
        for layer in &layers {
            let foreign = layer.descriptor.media_type.is_foreign_layer();
            let kept = if foreign { &mut self.foreign } else { &mut self.blobs };
            kept.push((layer.descriptor.clone(), layer.bytes.clone()));
        }
        // Also the config of a child without a platform names one: something runs it.
        let platform = plan.platform.clone().unwrap_or_else(|| Written {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..Written::default()
        });
        let config = self.blob(config(format, &platform, &layers, command)?);
        let layers: Vec<Descriptor> = layers.into_iter().map(|layer| layer.descriptor).collect();
        let manifest = ManifestPlan {
            media_type: format.manifest(),
            config: &config,
            layers: &layers,
            artifact_type: None,
            subject: None,
        };
        let descriptor = self.manifest(manifest.make()?);
        self.children.push(Child { descriptor: descriptor.clone(), platform: plan.platform.clone() });
        if plan.attestation {
            self.attestation(&descriptor)?;
        }
        let waiting = plan.referrers.iter().map(|(kind, payload)| (descriptor.clone(), kind.clone(), payload.clone()));
        self.waiting.extend(waiting);
        Ok(())
    }

    /// An attestation child (BuildKit, "Attestation storage").
    fn attestation(&mut self, of: &Descriptor) -> Result<()> {
        const PREDICATE: &str = "https://slsa.dev/provenance/v0.2";
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": PREDICATE,
            "subject": [{ "name": "_", "digest": { of.digest.algorithm(): of.digest.hex() } }],
            "predicate": { "buildType": "sealift sample" },
        });
        let (mut layer, bytes) = document(MediaType::new("application/vnd.in-toto+json"), &statement)?;
        layer.annotations.insert("in-toto.io/predicate-type".into(), PREDICATE.into());
        let layer = Layer { diff_id: layer.digest, descriptor: layer, bytes };
        self.blob((layer.descriptor.clone(), layer.bytes.clone()));
        let config = self.blob(config(Format::Oci, &Written::unknown(), std::slice::from_ref(&layer), &[])?);
        let manifest = ManifestPlan {
            media_type: MediaType::OCI_MANIFEST,
            config: &config,
            layers: &[layer.descriptor],
            artifact_type: None,
            subject: None,
        };
        let mut child = self.manifest(manifest.make()?);
        child.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        child.annotations.insert("vnd.docker.reference.digest".into(), of.digest.to_string());
        self.children.push(Child { descriptor: child, platform: Some(Written::unknown()) });
        Ok(())
    }

    /// An artifact manifest with a subject (OCI image specification, "Guidelines for Artifact Usage").
    pub fn referrer(&mut self, subject: &Descriptor, artifact_type: &str, payload: Bytes) -> Result<()> {
        let empty = Bytes::from_static(b"{}");
        let config = self.late((Descriptor::of(MediaType::OCI_EMPTY, &empty), empty));
        let layer = self.late((Descriptor::of(MediaType::new(artifact_type), &payload), payload));
        let manifest = ManifestPlan {
            media_type: MediaType::OCI_MANIFEST,
            config: &config,
            layers: &[layer],
            artifact_type: Some(artifact_type),
            subject: Some(subject),
        };
        self.late(manifest.make()?);
        Ok(())
    }

    /// The image under cosign's `.sig` tag (cosign, `specs/SIGNATURE_SPEC.md`): one layer for each signature.
    pub fn signatures(&mut self, root: &Descriptor, signatures: &[(String, Sign)]) -> Result<()> {
        let mut layers = Vec::new();
        for (reference, sign) in signatures {
            let payload = json!({
                "critical": {
                    "identity": { "docker-reference": reference },
                    "image": { "docker-manifest-digest": root.digest.to_string() },
                    "type": "cosign container image signature",
                },
                "optional": null,
            });
            let media_type = MediaType::new("application/vnd.dev.cosign.simplesigning.v1+json");
            let (mut layer, bytes) = document(media_type, &payload)?;
            let signature = base64::engine::general_purpose::STANDARD.encode(sign(&bytes));
            layer.annotations.insert("dev.cosignproject.cosign/signature".into(), signature);
            let diff_id = layer.digest;
            self.late((layer.clone(), bytes.clone()));
            layers.push(Layer { descriptor: layer, bytes, diff_id });
        }
        let config = self.late(config(Format::Oci, &Written::default(), &layers, &[])?);
        let layers: Vec<Descriptor> = layers.into_iter().map(|layer| layer.descriptor).collect();
        let manifest = ManifestPlan {
            media_type: MediaType::OCI_MANIFEST,
            config: &config,
            layers: &layers,
            artifact_type: None,
            subject: None,
        };
        let manifest = self.late(manifest.make()?);
        self.tags.push((Tag::cosign(&root.digest, "sig"), manifest));
        Ok(())
    }

    /// Everything in the order of uploading, each thing once.
    pub fn into_image(self, root: Descriptor) -> SampleImage {
        let mut seen: HashSet<Digest> = HashSet::new();
        let all = self.blobs.into_iter().chain(self.manifests).chain(self.after);
        let contents = all.filter(|(descriptor, _)| seen.insert(descriptor.digest)).collect();
        let foreign = self.foreign.into_iter().filter(|(descriptor, _)| seen.insert(descriptor.digest)).collect();
        SampleImage { root, contents, foreign, tags: self.tags }
    }
}
