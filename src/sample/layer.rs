//! Layers: true archives, always the same bytes for the same content.

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};

use crate::error::{Context, Result};
use crate::oci::{Descriptor, Digest, MediaType};

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

/// What a layer is to be made of.
#[derive(Clone, Debug)]
pub(super) struct LayerPlan {
    /// The archive before packing.
    pub archive: Vec<u8>,
    /// How it is packed.
    pub packing: Packing,
    /// Where a foreign layer is had from.
    pub url: Option<String>,
}

/// A layer that was made.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub descriptor: Descriptor,
    pub bytes: Bytes,
    /// The digest of the archive before packing (OCI image specification, "Layer DiffID").
    pub diff_id: Digest,
}

impl LayerPlan {
    /// Packs the archive, and names it as Docker or as the OCI specification does.
    pub fn make(&self, docker: bool) -> Result<Layer> {
        let bytes = Bytes::from(pack(&self.archive, self.packing)?);
        let mut descriptor = Descriptor::of(self.media_type(docker), &bytes);
        descriptor.urls.extend(self.url.clone());
        Ok(Layer { descriptor, bytes, diff_id: Digest::of(&self.archive) })
    }

    fn media_type(&self, docker: bool) -> MediaType {
        let foreign = self.url.is_some();
        match (self.packing, docker, foreign) {
            (Packing::Zstd, false, false) => MediaType::OCI_LAYER_ZSTD,
            // Docker never wrote one; this is the name that containerd and podman read.
            (Packing::Zstd, true, false) => MediaType::new("application/vnd.docker.image.rootfs.diff.tar.zstd"),
            (Packing::Zstd, _, true) => MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
            (Packing::Gzip, false, false) => MediaType::OCI_LAYER_GZIP,
            (Packing::Gzip, true, false) => MediaType::new("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            (Packing::Gzip, false, true) => {
                MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
            }
            (Packing::Gzip, true, true) => MediaType::new("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        }
    }
}

fn pack(archive: &[u8], packing: Packing) -> Result<Vec<u8>> {
    match packing {
        Packing::Gzip => {
            let mut packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
            packer.write_all(archive)?;
            Ok(packer.finish()?)
        }
        Packing::Zstd => Ok(zstd::stream::encode_all(archive, zstd::DEFAULT_COMPRESSION_LEVEL)?),
    }
}

/// An archive of files, with the folders above them: no clock, no owner. Files below a `bin` folder can be run.
pub(super) fn archive(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for (path, bytes) in files {
        for (end, _) in path.match_indices('/') {
            let folder = path.get(..=end).unwrap_or_default();
            if folders.insert(folder.to_owned()) {
                append(&mut archive, folder, tar::EntryType::Directory, &[])?;
            }
        }
        append(&mut archive, path, tar::EntryType::Regular, bytes)?;
    }
    Ok(archive.into_inner()?)
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, bytes: &[u8]) -> Result<()> {
    let executable = kind == tar::EntryType::Directory || path.starts_with("bin/") || path.contains("/bin/");
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).while_(|| format!("put {path} into a layer"))
}

/// Bytes that look random, cannot be compressed, and are always the same for a seed.
pub fn pseudo_random(size: usize, seed: u64) -> Vec<u8> {
    // xorshift64* (Vigna 2016). Its state must not be zero; the constant also spreads small seeds apart.
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
