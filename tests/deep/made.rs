//! Layers and images as nobody honest would make them, and as many honest ones do.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sealift::oci::{Descriptor, Digest, MediaType};
use sealift::sample::{SampleImage, pseudo_random};
use serde_json::{Value, json};
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder;

use crate::MIB;

pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
pub const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// Half random and half the same, so that it is packed and unpacked in earnest.
pub fn archive(seed: u64, size: usize) -> Vec<u8> {
    // What repeats after a megabyte is random for gzip, and quicker to make.
    let random = pseudo_random(MIB.min(size), seed);
    let mut bytes: Vec<u8> = random.iter().copied().cycle().take(size / 2).collect();
    bytes.resize(size, 7);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_at(Compression::fast(), bytes)
}

pub fn gzip_at(level: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd_with(bytes, &[CParameter::ChecksumFlag(true)])
}

/// One frame of a stream whose length was not known when it began.
pub fn zstd_with(bytes: &[u8], parameters: &[CParameter]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), 1).unwrap();
    parameters.iter().for_each(|parameter| encoder.set_parameter(*parameter).unwrap());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A skippable frame, as pzstd writes before and zstd:chunked behind the others.
pub fn skippable(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&0x184D_2A50_u32.to_le_bytes(), &length.to_le_bytes(), payload].concat()
}

/// A frame of `blocks` times 128 KiB of zeros, in four bytes each: it says nothing of its length, and its window has
/// 2^`window_log` bytes.
pub fn zeros_frame(window_log: u8, blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3];
    for block in 0..blocks {
        let header: u32 = u32::from(block + 1 == blocks) | 1 << 1 | (128 * 1024) << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// A frame of which nothing is there but a header that announces `content` bytes.
pub fn announcing_frame(content: u64) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, (23 - 10) << 3];
    frame.extend_from_slice(&content.to_le_bytes());
    frame.extend_from_slice(&[1, 0, 0]);
    frame
}

/// A layer and what its image says of it.
#[derive(Clone)]
pub struct Layer {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
    pub diff_id: String,
}

impl Layer {
    /// A layer out of which comes `content`.
    pub fn new(media_type: &'static str, bytes: Vec<u8>, content: &[u8]) -> Self {
        Layer { media_type, bytes, diff_id: Digest::of(content).to_string() }
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor::of(MediaType::new(self.media_type), &self.bytes)
    }
}

/// An image without an index, whose config names the `diff_ids` of its layers.
pub fn image(layers: &[Layer]) -> SampleImage {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    image_with(layers, &json!({ "type": "layers", "diff_ids": diff_ids }))
}

/// The same with another `rootfs` in its config.
pub fn image_with(layers: &[Layer], rootfs: &Value) -> SampleImage {
    image_of(layers, &MediaType::OCI_CONFIG, rootfs)
}

pub fn image_of(layers: &[Layer], config_type: &MediaType, rootfs: &Value) -> SampleImage {
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs, "config": {} });
    let config = Bytes::from(serde_json::to_vec(&config).unwrap());
    let config = (Descriptor::of(config_type.clone(), &config), config);
    let descriptors: Vec<Descriptor> = layers.iter().map(Layer::descriptor).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": config.0,
        "layers": descriptors,
    });
    let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let root = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
    let mut contents: Vec<(Descriptor, Bytes)> = vec![config];
    for layer in layers.iter().filter(|layer| layer.media_type != FOREIGN) {
        contents.push((layer.descriptor(), layer.bytes.clone().into()));
    }
    contents.push((root.clone(), manifest));
    SampleImage { root, contents, foreign: Vec::new(), tags: Vec::new() }
}
