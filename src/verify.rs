//! Verify: is a bundle what a trusted key signed, all of it? Is every blob of a store what its name says? And, when asked,
//! does every layer hold what its image says? Opens no socket, needs no catalog, writes nothing.

mod deep;
mod layout;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::bundle::{self, BundleReader, Damage, PublicKey};
use crate::error::{Kind, Result};
use crate::layers::DeepReport;
use crate::monitor::Monitor;
use crate::oci::{Digest, Tag};

pub use layout::{DamagedFile, LayoutImage, LayoutReport, is_layout, verify_layout};

/// How deep a verification goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Bytes are compared with their digests.
    Bytes,
    /// Layers are unpacked too, and compared with what the configs of their images say.
    Layers,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// `<stream>-<epoch>-<sequence>`.
    pub bundle: String,
    /// When its maker says that it was made.
    pub created: String,
    /// The digest of `bundle.json`.
    pub digest: Digest,
    /// The key that signed it.
    pub key: Digest,
    /// The volumes.
    pub volumes: Vec<VolumeState>,
    /// The bytes that were read and compared.
    pub bytes: u64,
    /// Pieces that are not what was signed.
    pub damages: Vec<Damage>,
    /// Files that are no blobs and are missing or not what was signed.
    pub changed_files: Vec<String>,
    /// What is odd and harmless for sealift.
    pub oddities: Vec<String>,
    /// The images, and which of them can be replayed from what is here.
    pub images: Vec<ImageState>,
    /// What came out of the layers; absent where that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep: Option<DeepReport>,
}

/// A volume, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct VolumeState {
    /// Its name.
    pub name: String,
    /// How long it must be.
    pub size: u64,
    /// Whether it is here.
    pub present: bool,
}

/// An image, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ImageState {
    /// The repository with its source host.
    pub repository: String,
    /// The tags.
    pub tags: Vec<Tag>,
    /// Its root.
    pub root: Digest,
    /// Why it cannot be replayed; absent when it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl VerifyReport {
    /// What is wrong with the bundle, as the kind that decides the exit status; `None` for nothing.
    pub fn verdict(&self) -> Option<Kind> {
        let damaged = !self.damages.is_empty() || !self.changed_files.is_empty();
        let failed = self.deep.as_ref().is_some_and(|deep| !deep.failures.is_empty());
        let damaged = (damaged || failed).then_some(Kind::Verification);
        let missing = self.volumes.iter().any(|volume| !volume.present).then_some(Kind::Missing);
        let incomplete = self.images.iter().any(|image| image.problem.is_some()).then_some(Kind::Incomplete);
        Kind::first_of(damaged.into_iter().chain(missing).chain(incomplete))
    }
}

/// Checks the bundle in `folders` (one for each drive that holds a part of it).
///
/// An error means that its table of contents cannot be trusted; everything else is in the report.
pub fn verify(folders: &[PathBuf], keys: &[PublicKey], monitor: &dyn Monitor) -> Result<VerifyReport> {
    verify_to(Depth::Bytes, folders, keys, monitor)
}

/// The same to a chosen depth. Each byte is read once from its drive, however deep.
pub fn verify_to(depth: Depth, folders: &[PathBuf], keys: &[PublicKey], monitor: &dyn Monitor) -> Result<VerifyReport> {
    let reader = BundleReader::open(folders, keys)?;
    let contents = reader.contents();
    let missing: HashSet<&str> = reader.missing_volumes().into_iter().collect();
    let claims = (depth == Depth::Layers).then(|| deep::claims_of(&reader)).transpose()?;
    let layers: HashSet<Digest> = claims.iter().flat_map(|claims| claims.blobs()).collect();
    let bytes: u64 = contents.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    monitor.begin("verify", contents.blobs.len() as u64, bytes);
    let read = AtomicU64::new(0);
    let progress = |count| {
        read.fetch_add(count, Ordering::Relaxed);
        monitor.advance(count);
    };
    let mut damages = reader.check_volumes(&layers, &progress);
    let deep = claims.map(|claims| deep::check(&reader, claims, &progress, &mut damages));
    let damages = bundle::sorted(damages);
    monitor.end();
    let lost = lost_blobs(&reader, &damages);
    let mut tags = contents.tags();
    let images = contents.images.iter().map(|image| {
        let problem = match image.needed(|descriptor| reader.manifest(descriptor)) {
            Err(error) => Some(error.to_string()),
            Ok(needed) => needed.iter().find_map(|blob| problem_of(&reader, &lost, &blob.digest)),
        };
        ImageState {
            repository: image.repository.clone(),
            tags: tags.remove(&(image.repository.clone(), image.root.digest)).unwrap_or_default(),
            root: image.root.digest,
            problem,
        }
    });
    Ok(VerifyReport {
        bundle: contents.name().to_string(),
        created: contents.created.clone(),
        digest: reader.digest(),
        key: reader.key().id(),
        images: images.collect(),
        volumes: contents
            .volumes
            .iter()
            .map(|volume| VolumeState {
                name: volume.name.clone(),
                size: volume.size,
                present: !missing.contains(volume.name.as_str()),
            })
            .collect(),
        bytes: read.into_inner(),
        damages,
        changed_files: reader.changed_files(),
        oddities: reader.oddities(),
        deep,
    })
}

/// Blobs of which a piece is damaged in every copy, or in a volume that is missing.
fn lost_blobs(reader: &BundleReader, damages: &[Damage]) -> HashSet<Digest> {
    let mut lost: HashSet<Digest> = damages.iter().filter(|damage| damage.lost).map(|damage| damage.blob).collect();
    let contents = reader.contents();
    let missing: HashSet<&str> = reader.missing_volumes().into_iter().collect();
    let gone: HashSet<usize> = contents
        .volumes
        .iter()
        .enumerate()
        .filter(|(_, v)| missing.contains(v.name.as_str()))
        .map(|(at, _)| at)
        .collect();
    let without = contents.blobs.iter().filter(|blob| blob.extents.iter().any(|extent| gone.contains(&extent.volume)));
    lost.extend(without.map(|blob| blob.digest));
    lost
}

fn problem_of(reader: &BundleReader, lost: &HashSet<Digest>, blob: &Digest) -> Option<String> {
    if reader.size_of(blob).is_none() {
        return Some(format!("the bundle does not carry blob {blob}"));
    }
    lost.contains(blob).then(|| format!("blob {blob} is in a damaged or missing part"))
}
