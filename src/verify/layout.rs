//! A store, or any other OCI image layout: is every blob what its name says, and is every image that it names all there?

mod folder;
mod index;
mod records;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::Depth;
use crate::content::in_parallel;
use crate::error::{Context, Error, Kind, Result, Side};
use crate::image::{INDEX_JSON_PATH, Image, OCI_LAYOUT_PATH};
use crate::layers::{DeepReport, Reading, check as check_layers};
use crate::monitor::Monitor;
use crate::oci::{Descriptor, Digest};
use folder::Folder;

/// What a verification of a store found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayoutReport {
    /// The folder.
    pub folder: PathBuf,
    /// The files below `blobs/` that were read and compared with their names.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files below `blobs/` that are not what their names say, and records that cannot be read.
    pub damaged: Vec<DamagedFile>,
    /// What is odd and harmless for sealift.
    pub oddities: Vec<String>,
    /// In a store, the images of the latest runs and what was pushed; in another layout, what `index.json` names.
    pub images: Vec<LayoutImage>,
    /// Children of their indexes that were left out, or of which nothing but the manifest is here.
    pub left_out: u64,
    /// What came out of the layers; absent where that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep: Option<DeepReport>,
}

/// A file that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DamagedFile {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// An image that the layout has under some name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayoutImage {
    /// Its names.
    pub names: Vec<String>,
    /// Its root.
    pub root: Digest,
    /// Why it is not whole; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl LayoutReport {
    /// What is wrong, as the kind that decides the exit status; `None` for nothing.
    pub fn verdict(&self) -> Option<Kind> {
        let failed = self.deep.as_ref().is_some_and(|deep| !deep.failures.is_empty());
        let damaged = (failed || !self.damaged.is_empty()).then_some(Kind::Verification);
        // What names no image is not good: it may be what is left of one that did.
        let incomplete = self.images.is_empty() || self.images.iter().any(|image| image.problem.is_some());
        let incomplete = incomplete.then_some(Kind::Incomplete);
        Kind::first_of(damaged.into_iter().chain(incomplete))
    }
}

/// Whether a folder is an OCI image layout, as every store is, and no bundle.
pub fn is_layout(folder: &Path) -> bool {
    folder.join(OCI_LAYOUT_PATH).is_file() && !folder.join(crate::bundle::BUNDLE_JSON).exists()
}

/// Checks the store, or other OCI image layout, in `folder`. No key has signed it: this finds damage, not malice.
///
/// An error means that it is no layout that can be read; everything else is in the report.
pub fn verify_layout(depth: Depth, folder: &Path, monitor: &dyn Monitor) -> Result<LayoutReport> {
    no_bundle(folder)?;
    // What is named first, then what is there: a pull that ends in between leaves more than is asked for.
    let recorded = records::roots(folder)?;
    // Another layout that was served once has the folders of records, and nothing in them.
    let says_nothing = |(roots, damaged): &(Vec<Root>, Vec<DamagedFile>)| roots.is_empty() && damaged.is_empty();
    let (roots, damaged) = match recorded.filter(|found| !says_nothing(found) || !folder.join(INDEX_JSON_PATH).exists())
    {
        Some(found) => found,
        None => (index::roots(folder)?, Vec::new()),
    };
    let folder = Folder::open(folder)?;
    let walk::Walked { mut images, claims, left_out } = walk::walk(&folder, roots, depth)?;
    let layers: HashSet<Digest> = claims.iter().flat_map(|claims| claims.blobs()).collect();
    let bytes = folder.blobs.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
    monitor.begin("verify", folder.blobs.len() as u64, bytes);
    let bad = Mutex::new(folder.irregular.clone());
    let read = |digest: &Digest, take: &mut dyn FnMut(&[u8])| {
        let read = folder.read_whole(digest, &|count| monitor.advance(count), take);
        let note = |problem| bad.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, problem);
        read.map_err(note).map_or(Reading::Lost, |()| Reading::Whole)
    };
    let mut others: Vec<(&u64, &Digest)> = folder.blobs.iter().map(|(digest, size)| (size, digest)).collect();
    others.retain(|(_, digest)| !layers.contains(digest));
    others.sort_by(|a, b| b.cmp(a));
    in_parallel(&others, || (), |(), (_, digest)| read(digest, &mut |_| {}));
    let deep = claims.map(|claims| check_layers(claims, &read));
    monitor.end();
    let bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    images.iter_mut().for_each(|image| image.blame(&bad));
    Ok(LayoutReport {
        blobs: folder.blobs.len() as u64,
        bytes,
        images: images.into_iter().map(|image| image.found).collect(),
        left_out,
        deep,
        damaged: damaged
            .into_iter()
            .chain(bad.into_iter().map(|(digest, problem)| DamagedFile { file: folder.path_of(&digest), problem }))
            .collect(),
        oddities: folder.oddities,
        folder: folder.root,
    })
}

/// A bundle that lost its `bundle.json` is no store, whatever was put beside it: what was signed is asked of a key.
fn no_bundle(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).on(Side::Store).while_(|| format!("list {}", folder.display()))?;
    let of_bundle = |name: &str| BUNDLE_FILES.contains(&name) || name.starts_with("vol-");
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    match names.find(|name| of_bundle(name)) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!(
            "{} holds {name}, which is a part of a bundle, and its bundle.json is missing",
            folder.display()
        ))
        .help("name the exporter's public key with --key; a store holds no such file")),
    }
}

/// An image under its names, before anything is known of its blobs.
struct Root {
    names: Vec<String>,
    content: RootContent,
    /// What its names contradict each other in.
    problem: Option<String>,
}

/// What is known of an image.
enum RootContent {
    /// Everything: it was written down.
    Recorded(Image),
    /// Its manifest; what that needs is looked for when it is its turn.
    Named(Descriptor),
}

impl RootContent {
    fn contradicted_by(&self, other: &Descriptor) -> Option<String> {
        let (Self::Recorded(Image { root, .. }) | Self::Named(root)) = self;
        index::contradiction(root, other)
    }
}

impl Root {
    /// Its names, the image, and what is wrong with it already.
    fn image(self, folder: &Folder) -> Result<(Vec<String>, Image, Option<String>)> {
        let (image, problem) = match self.content {
            RootContent::Recorded(image) => (image, None),
            RootContent::Named(root) => index::image(folder, root)?,
        };
        Ok((self.names, image, self.problem.or(problem)))
    }
}

/// What lies in the folder of a bundle, and in no store. Volumes have numbers.
const BUNDLE_FILES: [&str; 3] = ["bundle.json.sig", "bundle.chunks", "meta.tar"];

/// What is wrong with blobs.
type Bad = BTreeMap<Digest, String>;
