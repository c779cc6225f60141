//! A layout as a folder. It grows below `PATH.partial`, blob by blob, and gets its name when it is whole.

use std::collections::{BTreeSet, HashSet};
use std::fs::{DirEntry, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{Check, holds};
use super::place::{Place, other_contents};
use super::sink::exclusive;
use super::{LayoutContents, MODE, blocking};
use crate::content::{Body, Status, Work};
use crate::durable::{self, Writer};
use crate::error::{Context, Error, Result, Side};
use crate::oci::{Descriptor, Digest};

/// What files are called until they are whole.
const PARTIAL: &str = ".partial";

/// A layout that is being written as a folder.
pub struct FolderWriter {
    place: Place,
    /// Where the files are: under the final name when something is there already.
    root: PathBuf,
    contents: Arc<LayoutContents>,
    /// Kept for its lock, which ends with the file.
    _lock: Option<File>,
}

impl FolderWriter {
    pub(super) fn create(place: Place, contents: Arc<LayoutContents>) -> Result<Self> {
        let (root, lock) = match place.there {
            true => (place.path.clone(), None),
            false => (place.partial(), Some(begin(&place.partial(), &contents).on(Side::Layout)?)),
        };
        let files = contents.files.iter().map(|(path, _)| (*path).to_owned());
        let expected = files.chain(contents.blobs.iter().map(|blob| blob.digest.layout_path())).collect();
        let writer = FolderWriter { place, root, contents, _lock: lock };
        writer.sweep(&writer.root, "", &expected)?;
        Ok(writer)
    }

    /// Looks at every file below `folder`. What an interrupted export of other content left is removed; what no export of a
    /// layout leaves is an error, and so is anything unexpected under the final name.
    fn sweep(&self, folder: &Path, prefix: &str, expected: &HashSet<String>) -> Result<()> {
        let look = || format!("look at {}", folder.display());
        for entry in std::fs::read_dir(folder).on(Side::Layout).while_(look)? {
            let entry = entry.on(Side::Layout).while_(look)?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().on(Side::Layout).while_(look)?;
            if kind.is_dir() && is_own_folder(&path) {
                self.sweep(&entry.path(), &format!("{path}/"), expected)?;
            } else if !(kind.is_file() && expected.contains(&path)) {
                self.unexpected(&entry, &path, kind.is_file())?;
            }
        }
        Ok(())
    }

    fn unexpected(&self, entry: &DirEntry, path: &str, is_file: bool) -> Result<()> {
        if self.place.there {
            return Err(other_contents(&self.place.path).while_(format!("compare with {path}")));
        }
        match is_file && is_own_file(path) {
            true => durable::remove(&entry.path()).on(Side::Layout),
            false => Err(not_ours(&entry.path())),
        }
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.layout_path())
    }

    /// What is there of a blob; what is there and not right is removed, and written again.
    pub(super) async fn status(&self, work: &Work) -> Result<Status> {
        let (path, blob) = (self.path_of(&work.descriptor.digest), work.descriptor.clone());
        let (there, name) = (self.place.there, self.place.path.clone());
        blocking(move || match is_right(&path, &blob)? {
            true => Ok(Status::Present),
            false if there => Err(other_contents(&name).while_(format!("compare blob {}", blob.digest))),
            false => durable::remove(&path).on(Side::Layout).map(|()| Status::From(0)),
        })
        .await
    }

    pub(super) async fn take(&self, work: &Work, body: Body) -> Result<()> {
        let (path, blob) = (self.path_of(&work.descriptor.digest), work.descriptor.clone());
        blocking(move || write_blob(&path, &blob, body)).await
    }

    pub(super) fn finish(self) -> Result<()> {
        // The marker comes last: without it nothing takes the folder for a layout.
        for (name, bytes) in self.contents.files.iter().rev() {
            let path = self.root.join(name);
            if !self.place.there {
                durable::write_file(&path, bytes, MODE).on(Side::Layout)?;
            } else if !is_right(&path, &Descriptor::of(crate::oci::MediaType::OCTET_STREAM, bytes))? {
                return Err(other_contents(&self.place.path).while_(format!("compare {name}")));
            }
        }
        match self.place.there {
            true => Ok(()),
            // A folder that has come to hold something in the meantime refuses this.
            false => durable::rename(&self.root, &self.place.path).on(Side::Layout),
        }
    }
}

/// Makes the folders of a layout below `root`, and makes sure that no other process writes there.
fn begin(root: &Path, contents: &LayoutContents) -> Result<File> {
    let algorithms: BTreeSet<&str> = contents.blobs.iter().map(|blob| blob.digest.algorithm()).collect();
    let below = algorithms.into_iter().map(|algorithm| root.join("blobs").join(algorithm));
    for folder in [root.to_owned(), root.join("blobs")].into_iter().chain(below) {
        if folder.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            return Err(not_ours(&folder));
        }
        durable::create_folder(&folder)?;
    }
    let lock = File::open(root).while_(|| format!("open {}", root.display()))?;
    exclusive(&lock, root)?;
    Ok(lock)
}

/// Whether the file is there and holds exactly what it must.
fn is_right(path: &Path, expected: &Descriptor) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() && found.len() == expected.size => File::open(path)
            .map_err(Error::from)
            .and_then(|file| holds(file, expected))
            .on(Side::Layout)
            .while_(|| format!("read {}", path.display())),
        _ => Ok(false),
    }
}

fn write_blob(path: &Path, blob: &Descriptor, mut body: Body) -> Result<()> {
    let mut writer = Writer::open(&durable::with_suffix(path, PARTIAL), 0).on(Side::Layout)?;
    let mut check = Check::new(blob);
    while let Some(piece) = body.blocking_next() {
        let piece = piece?;
        check.take(&piece)?;
        writer.write(&piece).on(Side::Layout)?;
    }
    check.end()?;
    writer.finish(path, MODE).on(Side::Layout)
}

fn is_own_folder(path: &str) -> bool {
    matches!(path, "blobs" | "blobs/sha256" | "blobs/sha512")
}

/// Whether an export of a layout leaves files of that name.
fn is_own_file(path: &str) -> bool {
    let path = path.strip_suffix(PARTIAL).unwrap_or(path);
    let named = [super::OCI_LAYOUT_PATH, super::INDEX_JSON_PATH, super::MANIFEST_JSON_PATH].contains(&path);
    let blob = || path.strip_prefix("blobs/")?.replacen('/', ":", 1).parse::<Digest>().ok();
    named || blob().is_some()
}

fn not_ours(path: &Path) -> Error {
    Error::failed(format!("{} is not what an interrupted export leaves", path.display()))
        .on(Side::Layout)
        .help("remove it, or choose another name for the layout")
}
