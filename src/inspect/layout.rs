//! [`Layout`]: an OCI image layout that anybody may have made, read with nothing but the file system.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::place::Found;
use crate::bundle::read_plain;
use crate::error::{Context, Error, Result, Side};
use crate::image::{INDEX_JSON_MAX, INDEX_JSON_PATH, OCI_LAYOUT_PATH, Signature, SignatureForm, names_of_index};
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Reference, Tag};

/// Files of more bytes are not looked into for what they refer to: manifests of referrers have some kilobytes.
const REFERRER_SIZE_MAX: u64 = 256 * 1024;

/// How many files, and how many bytes of them, are looked into.
const FILES_MAX: usize = 100_000;
const FILES_SIZE_MAX: u64 = 1 << 30;

/// An OCI image layout.
pub struct Layout {
    root: PathBuf,
    named: Vec<(Option<String>, Descriptor)>,
    referrers: HashMap<Digest, Vec<Descriptor>>,
}

impl Layout {
    /// Whether a folder is one.
    pub fn is(root: &Path) -> bool {
        root.join(OCI_LAYOUT_PATH).is_file()
    }

    /// Reads what it names, and looks into its small files for manifests that refer to others: a layout has no list of those.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(INDEX_JSON_PATH);
        let attempt = || format!("read {}", path.display());
        let bytes = read_file(&path, INDEX_JSON_MAX).while_(attempt).on(Side::Layout)?;
        let named =
            names_of_index(&bytes).map_err(|why| Error::verification(why).while_(attempt()).on(Side::Layout))?;
        let mut layout = Layout { root: root.to_owned(), named, referrers: HashMap::new() };
        layout.find_referrers().on(Side::Layout).while_(|| format!("look into {}", root.join("blobs").display()))?;
        Ok(layout)
    }

    fn find_referrers(&mut self) -> Result<()> {
        let (mut files, mut size) = (0, 0u64);
        for algorithm in ["sha256", "sha512"] {
            let folder = self.root.join("blobs").join(algorithm);
            if !folder.is_dir() {
                continue;
            }
            let mut names: Vec<_> =
                std::fs::read_dir(folder)?.map(|file| file.map(|file| file.path())).collect::<Result<_, _>>()?;
            names.sort();
            for path in names {
                let length = path.symlink_metadata()?.len();
                if length > REFERRER_SIZE_MAX {
                    continue;
                }
                (files, size) = (files + 1, size.saturating_add(length));
                if files > FILES_MAX || size > FILES_SIZE_MAX {
                    tracing::warn!("not all files of the layout were looked into for signatures: there are too many");
                    return Ok(());
                }
                self.look_into(&path, algorithm);
            }
        }
        Ok(())
    }

    /// What cannot be read is found when its image is looked at.
    fn look_into(&mut self, path: &Path, algorithm: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { return };
        let Ok(bytes) = read_file(path, REFERRER_SIZE_MAX) else { return };
        let Ok(manifest) = Manifest::parse(&MediaType::OCI_MANIFEST, &bytes) else { return };
        if let Some(subject) = manifest.subject.filter(|_| digest.same_algorithm_of(&bytes) == digest) {
            let descriptor = Descriptor::new(MediaType::OCI_MANIFEST, digest, bytes.len() as u64);
            self.referrers.entry(subject.digest).or_default().push(descriptor);
        }
    }

    pub(super) fn found(&self) -> Vec<Found> {
        let (mut found, mut places): (Vec<Found>, HashMap<_, usize>) = (Vec::new(), HashMap::new());
        for (name, descriptor) in &self.named {
            let (repository, tag) = split(name.as_deref());
            let root = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
            let place = *places.entry((repository.clone(), root.digest)).or_insert(found.len());
            match found.get_mut(place) {
                Some(known) => known.tags.extend(tag),
                None => found.push(Found { repository, tags: tag.into_iter().collect(), root, decided: None }),
            }
        }
        found
    }

    pub(super) fn signatures(&self, subject: &Digest) -> Vec<Signature> {
        let referrers = self.referrers.get(subject).into_iter().flatten().map(|descriptor| Signature {
            descriptor: descriptor.clone(),
            subject: *subject,
            form: SignatureForm::Referrer,
            tag: None,
        });
        let tags = Tag::COSIGN_SUFFIXES.map(|suffix| Tag::cosign(subject, suffix));
        let tagged = self.named.iter().filter_map(|(name, descriptor)| {
            let (_, named) = split(name.as_deref());
            let tag = tags.iter().find(|tag| named.as_deref() == Some(tag.as_str()))?;
            let descriptor = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
            Some(Signature { descriptor, subject: *subject, form: SignatureForm::CosignTag, tag: Some(tag.clone()) })
        });
        tagged.chain(referrers).collect()
    }

    pub(super) fn has(&self, blob: &Descriptor) -> bool {
        let found = self.path_of(&blob.digest).symlink_metadata();
        found.is_ok_and(|found| found.is_file() && found.len() == blob.size)
    }

    pub(super) fn read(&self, blob: &Descriptor, limit: u64) -> Result<Bytes> {
        read_file(&self.path_of(&blob.digest), limit.min(blob.size))
            .on(Side::Layout)
            .while_(|| format!("read blob {}", blob.digest))
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.layout_path())
    }
}

/// Repository and tag of a name in `index.json`, which may be a tag alone, or anything.
fn split(name: Option<&str>) -> (Option<String>, Option<String>) {
    let Some(name) = name else { return (None, None) };
    match name.parse::<Reference>() {
        Ok(Reference { repository, tag: Some(tag), .. }) => (Some(repository.to_string()), Some(tag.to_string())),
        _ => (None, Some(name.to_owned())),
    }
}

/// Reads a regular file whole, at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Bytes> {
    let bytes = read_plain(path, limit)?;
    match bytes.len() as u64 > limit {
        true => Err(Error::verification(format!("it has more than {limit} bytes"))),
        false => Ok(bytes.into()),
    }
}
