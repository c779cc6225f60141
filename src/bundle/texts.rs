//! The parts of a bundle that people read: `SHA256SUMS` and `README.txt`. Both are functions of the table of contents.

use std::fmt::Write;

use super::contents::{BlobEntry, Contents, VolumeEntry};
use super::frame;
use crate::oci::Digest;

/// `SHA256SUMS`, for the folder into which all volumes were unpacked.
pub fn sums(blobs: &[BlobEntry], inner_files: &[(&str, &[u8])], volumes: &[VolumeEntry]) -> String {
    let mut text =
        String::from("# In the folder into which all volumes were unpacked: sha256sum --quiet -c ../SHA256SUMS\n");
    for (path, bytes) in inner_files {
        let _ = writeln!(text, "{}  {path}", Digest::of(bytes).hex());
    }
    let mut shown = usize::MAX;
    for blob in blobs {
        let volume = blob.extents.first().map_or(0, |extent| extent.volume);
        if volume != shown {
            let name = volumes.get(volume).map_or("", |volume| volume.name.as_str());
            let _ = writeln!(text, "# {name}");
            shown = volume;
        }
        if let Digest::Sha256(_) = blob.digest {
            let _ = writeln!(text, "{}  {}", blob.digest.hex(), blob.digest.layout_path());
        }
    }
    text
}

/// `README.txt`: what this is, and how to check and unpack it with coreutils, tar and openssl alone.
pub fn readme(contents: &Contents) -> String {
    let mut text = format!(
        "This folder is bundle {} of the stream \"{}\": container images on their way across an air gap.\n\
         It has {} tags, {} images and {} volumes besides meta.tar.\n\n\
         With sealift:\n\n\
         \x20   sealift verify THIS-FOLDER --key exporter.pub\n\
         \x20   sealift replay THIS-FOLDER --key exporter.pub --to registry.example/mirror\n\n\
         Without it, with coreutils, tar and openssl. First, is it what the exporter signed? (\"Verified OK\", then \"1\".)\n\
         Take exporter.pub from a place that you trust, never from this drive.\n\n\
         \x20   openssl base64 -d -A -in bundle.json.sig -out ~/bundle.sig\n\
         \x20   openssl dgst -sha256 -verify exporter.pub -signature ~/bundle.sig bundle.json\n\
         \x20   grep -c \"$(sha256sum SHA256SUMS | cut -d ' ' -f 1)\" bundle.json\n\n\
         Then unpack and check; the result is an OCI image layout:\n\n\
         \x20   mkdir layout\n\
         \x20   for volume in meta.tar vol-*.tar; do tar -xf \"$volume\" -C layout; done\n\
         \x20   cd layout\n",
        contents.name(),
        contents.stream,
        contents.references.len(),
        contents.images.len(),
        contents.volumes.len().saturating_sub(1),
    );
    text.push_str(&joins(contents));
    text.push_str("    sha256sum --quiet -c ../SHA256SUMS\n\nThe images:\n\n");
    for reference in &contents.references {
        let _ = writeln!(text, "    {}:{}  {}", reference.name, reference.tag, reference.descriptor.digest);
    }
    text
}

/// One line for each blob that was split: how its parts become it again.
fn joins(contents: &Contents) -> String {
    let mut text = String::new();
    for blob in &contents.blobs {
        let parts = blob.extents.len();
        let first = frame::member_path(&blob.digest, 0, parts);
        let path = blob.digest.layout_path();
        if first != path {
            let parts_folder = first.rsplit_once('/').map_or("", |(folder, _)| folder);
            let folder = format!("blobs/{}", blob.digest.algorithm());
            let _ = writeln!(text, "    mkdir -p {folder}; cat {parts_folder}/* > {path}");
        }
    }
    text
}
