//! `bundle.json`: the table of contents, as written and as checked.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    BLOBS_MAX, BUNDLE_CHUNKS, IMAGES_MAX, INDEX_JSON_PATH, INTEGER_MAX, OCI_LAYOUT_PATH, README, REFERENCES_MAX,
    SIDE_FILE_MAX, SUMS, VOLUMES_MAX, frame, volume_name,
};
use crate::content::CHUNK_SIZE;
use crate::error::{Error, Result, Side};
use crate::image::{BundleName, Image, MANIFESTS_MAX, Named};
use crate::oci::{Digest, Tag, json};

/// The `type` of every bundle.
pub const TYPE: &str = "sealift/bundle";
/// What can be done about what a trusted key signed, and is wrong all the same.
pub(super) const ASK_MAKER: &str = "the bundle was signed like this: ask its maker, whose sealift is newer or broken";

/// Members that this sealift knows, and that others must know where they occur.
const KNOWN: [&str; 1] = [TRIMMED];

/// The member of an image whose root the publisher never made.
const TRIMMED: &str = "trimmed";

/// The version that this sealift writes.
pub const VERSION: &str = "1.0";

/// The table of contents of a bundle: `docs/bundle-format.md`, sections 3 to 5.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// `sealift/bundle`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `major.minor`.
    pub version: String,
    /// Members that a reader must know.
    #[serde(default)]
    pub critical: Vec<String>,
    /// The stream.
    pub stream: String,
    /// The epoch, from 1.
    pub epoch: u64,
    /// The number within the epoch, from 1.
    pub sequence: u64,
    /// When the number was given, in UTC: a claim, for people.
    pub created: String,
    /// Who made it: a claim, but for the key that the signature proves.
    pub producer: Producer,
    /// What the target must have already.
    pub baseline: Baseline,
    /// The tags.
    pub references: Vec<Named>,
    /// Reserved.
    #[serde(default)]
    pub removed_references: Vec<serde_json::Value>,
    /// The images.
    pub images: Vec<Image>,
    /// All content, in the order in which it lies in the volumes.
    pub blobs: Vec<BlobEntry>,
    /// Files that are no blobs.
    pub files: Vec<FileEntry>,
    /// `meta.tar`, then the volumes of layers.
    pub volumes: Vec<VolumeEntry>,
}

/// Tags by repository and root.
pub type TagsByImage = HashMap<(String, Digest), Vec<Tag>>;

/// Who made a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Producer {
    /// `sealift`.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// The digest of the signer's public key.
    pub key: Digest,
}

/// What a bundle builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Baseline {
    /// `none`: the bundle is complete in itself.
    pub kind: String,
}

/// A blob and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BlobEntry {
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// `identity`.
    pub encoding: String,
    /// Where its bytes lie, one after the other.
    pub extents: Vec<Extent>,
}

/// A run of bytes in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Extent {
    /// Which volume.
    pub volume: usize,
    /// Where the payload begins in that file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// A file that is no blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FileEntry {
    /// Its name.
    pub path: String,
    /// Its length.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
    /// Where it lies, for a file inside `meta.tar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<InVolume>,
}

/// A place in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InVolume {
    /// Which volume.
    pub volume: usize,
    /// Where the payload begins in that file.
    pub offset: u64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VolumeEntry {
    /// Its file name.
    pub name: String,
    /// The length of the file.
    pub size: u64,
}

/// A member of a volume: a tar header, a payload, padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name in the tar file.
    pub path: String,
    /// Where the payload begins.
    pub offset: u64,
    /// How long the payload is.
    pub length: u64,
    /// What it is.
    pub payload: Payload,
}

/// What a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// The file at this place of `files`.
    File(usize),
    /// Part of the blob at this place of `blobs`, from this byte of it on.
    Blob(usize, u64),
}

impl Contents {
    /// Parses and checks the bytes of a `bundle.json` whose signature was verified.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::verification(format!("bundle.json: {why}")).on(Side::Bundle).help(ASK_MAKER);
        let header: Header = json::parse(bytes).map_err(bad)?;
        header.check().map_err(bad)?;
        let contents: Contents = json::parse(bytes).map_err(bad)?;
        contents.check().map_err(bad)?;
        Ok(contents)
    }

    /// What `critical` has to be for these images.
    pub fn critical_for(images: &[Image]) -> Vec<String> {
        let trimmed = images.iter().any(|image| image.trimmed.is_some());
        trimmed.then(|| TRIMMED.to_owned()).into_iter().collect()
    }

    /// The name of the bundle and of its folder.
    pub fn name(&self) -> BundleName {
        BundleName { stream: self.stream.clone(), epoch: self.epoch, sequence: self.sequence }
    }

    /// The tags of all images, by repository and root.
    pub fn tags(&self) -> TagsByImage {
        let mut tags: TagsByImage = HashMap::new();
        for named in &self.references {
            tags.entry((named.name.to_string(), named.descriptor.digest)).or_default().push(named.tag.clone());
        }
        tags
    }

    /// For each blob, the place of its first chunk in the chunk table; at the end the number of all chunks.
    pub fn first_chunks(&self) -> Vec<u64> {
        let mut first = Vec::with_capacity(self.blobs.len() + 1);
        let mut next = 0;
        for blob in &self.blobs {
            first.push(next);
            next += blob.size.div_ceil(CHUNK_SIZE);
        }
        first.push(next);
        first
    }

    /// The members of each volume, in the order in which they lie there.
    pub(super) fn members(&self) -> Vec<Vec<Member>> {
        let mut volumes: Vec<Vec<Member>> = vec![Vec::new(); self.volumes.len()];
        for (at, file) in self.files.iter().enumerate() {
            let Some(place) = file.extent else { continue };
            let member =
                Member { path: file.path.clone(), offset: place.offset, length: file.size, payload: Payload::File(at) };
            volumes.get_mut(place.volume).into_iter().for_each(|volume| volume.push(member.clone()));
        }
        for (at, blob) in self.blobs.iter().enumerate() {
            let mut start = 0;
            for (part, extent) in blob.extents.iter().enumerate() {
                let path = frame::member_path(&blob.digest, part, blob.extents.len());
                let payload = Payload::Blob(at, start);
                let member = Member { path, offset: extent.offset, length: extent.length, payload };
                volumes.get_mut(extent.volume).into_iter().for_each(|volume| volume.push(member.clone()));
                start += extent.length;
            }
        }
        volumes.iter_mut().for_each(|members| members.sort_by_key(|member| member.offset));
        volumes
    }

    /// Everything that `docs/bundle-format.md` says a reader must refuse.
    fn check(&self) -> Result<(), String> {
        self.check_counts()?;
        self.check_images()?;
        self.check_files()?;
        for (number, volume) in self.volumes.iter().enumerate() {
            if volume.name != volume_name(number) {
                return Err(format!("volume {number} is called {:?} instead of {}", volume.name, volume_name(number)));
            }
            if volume.size > INTEGER_MAX {
                return Err(format!("{} has an impossible size", volume.name));
            }
        }
        let mut seen = std::collections::HashSet::with_capacity(self.blobs.len());
        for blob in &self.blobs {
            if !seen.insert(blob.digest) {
                return Err(format!("blob {} is listed twice", blob.digest));
            }
            self.check_blob(blob)?;
        }
        self.check_overlaps()
    }

    fn check_counts(&self) -> Result<(), String> {
        let counts = [
            ("blobs", self.blobs.len(), BLOBS_MAX),
            ("references", self.references.len(), REFERENCES_MAX),
            ("images", self.images.len(), IMAGES_MAX),
            ("volumes", self.volumes.len(), VOLUMES_MAX),
        ];
        for (what, count, most) in counts {
            if count > most {
                return Err(format!("{count} {what}, more than {most}"));
            }
        }
        if self
            .images
            .iter()
            .any(|image| image.kept.len() + image.left_out.len() + image.signatures.len() > MANIFESTS_MAX)
        {
            return Err(format!("an image has more than {MANIFESTS_MAX} manifests"));
        }
        if self.epoch == 0 || self.sequence == 0 || self.epoch > INTEGER_MAX || self.sequence > INTEGER_MAX {
            return Err("epoch and sequence are no numbers from 1".into());
        }
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.stream.is_empty() || self.stream.len() > 63 || !self.stream.chars().all(legal) {
            return Err(format!("{:?} is no name of a stream", self.stream));
        }
        match self.baseline.kind.as_str() {
            "none" => Ok(()),
            other => Err(format!("a baseline of kind {other:?} is not known to this version")),
        }
    }

    /// Every image has a name, and every tag an image: one that has none would be passed over without a word.
    fn check_images(&self) -> Result<(), String> {
        let mut images = std::collections::HashSet::with_capacity(self.images.len());
        for image in &self.images {
            let repository = image.repository().map_err(|error| error.to_string())?;
            image.check_trimmed().map_err(|why| format!("{repository}@{}: {why}", image.root.digest))?;
            images.insert((repository.to_string(), image.root.digest));
        }
        match self.references.iter().find(|tag| !images.contains(&(tag.name.to_string(), tag.descriptor.digest))) {
            Some(Named { name, tag, descriptor }) => {
                Err(format!("the tag {name}:{tag} is for {}, of which there is no image", descriptor.digest))
            }
            None => Ok(()),
        }
    }

    fn check_files(&self) -> Result<(), String> {
        let known =
            [(BUNDLE_CHUNKS, false), (SUMS, false), (README, false), (OCI_LAYOUT_PATH, true), (INDEX_JSON_PATH, true)];
        let mut expected: Vec<_> = known.to_vec();
        for file in &self.files {
            let at = expected.iter().position(|known| *known == (file.path.as_str(), file.extent.is_some()));
            match at {
                Some(at) => drop(expected.swap_remove(at)),
                None => return Err(format!("the file {:?} is not one of a bundle's, or is listed twice", file.path)),
            }
            if file.size > SIDE_FILE_MAX {
                return Err(format!("{} has an impossible size", file.path));
            }
        }
        match expected.first() {
            Some((path, _)) => Err(format!("the file {path} is not listed")),
            None => Ok(()),
        }
    }

    fn check_blob(&self, blob: &BlobEntry) -> Result<(), String> {
        let digest = &blob.digest;
        if blob.encoding != "identity" {
            return Err(format!("blob {digest} has encoding {:?}, which this version does not know", blob.encoding));
        }
        let mut total: u64 = 0;
        for (part, extent) in blob.extents.iter().enumerate() {
            let last = part + 1 == blob.extents.len();
            if !last && (extent.length == 0 || extent.length % CHUNK_SIZE != 0) {
                return Err(format!("blob {digest} is split elsewhere than at a chunk border"));
            }
            total = total.checked_add(extent.length).ok_or_else(|| format!("blob {digest} has an impossible size"))?;
        }
        if total != blob.size || blob.extents.is_empty() {
            return Err(format!("the extents of blob {digest} do not add up to its {} bytes", blob.size));
        }
        Ok(())
    }

    /// Each payload lies within its volume, with its header before it, and touches no other.
    fn check_overlaps(&self) -> Result<(), String> {
        let blobs = self.blobs.iter().flat_map(|blob| blob.extents.iter().map(move |e| (e.volume, e.offset, e.length)));
        let files =
            self.files.iter().filter_map(|file| file.extent.map(|place| (place.volume, place.offset, file.size)));
        let mut all: Vec<(usize, u64, u64)> = blobs.chain(files).collect();
        all.sort_unstable();
        let mut end_before = (usize::MAX, 0);
        for (volume, offset, length) in all {
            let size =
                self.volumes.get(volume).map(|v| v.size).ok_or_else(|| format!("there is no volume {volume}"))?;
            let name = volume_name(volume);
            if offset % frame::BLOCK != 0 || offset < frame::BLOCK {
                return Err(format!("an extent in {name} begins at {offset}, which is no place for a payload"));
            }
            let end = offset.checked_add(length).filter(|&end| end <= size);
            let end =
                end.ok_or_else(|| format!("an extent at {offset} lies outside of {name}, which has {size} bytes"))?;
            let free_from = if end_before.0 == volume { end_before.1 } else { 0 };
            if offset - frame::BLOCK < free_from {
                return Err(format!("two extents overlap in {name} at {offset}"));
            }
            end_before = (volume, end.next_multiple_of(frame::BLOCK));
        }
        Ok(())
    }
}

/// What is read first: whether the rest may be read at all.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "type")]
    kind: String,
    version: String,
    #[serde(default)]
    critical: Vec<String>,
}

impl Header {
    fn check(&self) -> Result<(), String> {
        if self.kind != TYPE {
            return Err(format!("the type is {:?} instead of {TYPE:?}", self.kind));
        }
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major != Some(1) {
            return Err(format!("version {:?} is not known; this sealift reads version 1", self.version));
        }
        match self.critical.iter().find(|name| !KNOWN.contains(&name.as_str())) {
            Some(name) => Err(format!("{name:?} must be understood, and this version does not know it")),
            None => Ok(()),
        }
    }
}
