//! What a store has written down: the images of the latest run of each stream, and what was pushed. Read as files: the
//! catalog is not needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::folder::{read_small, unreadable};
use super::{DamagedFile, Root, RootContent, index};
use crate::error::{Context, Result, Side};
use crate::image::Image;
use crate::oci::{Descriptor, Digest, Tag, json};

/// The largest record that is read.
const RECORD_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// A run, as far as it is read.
#[derive(Deserialize)]
struct Run {
    images: Vec<RunImage>,
}

#[derive(Deserialize)]
struct RunImage {
    repository: String,
    tags: Vec<Tag>,
    image: Digest,
}

/// What was pushed: a manifest of a repository, or a tag.
#[derive(Deserialize)]
struct Name {
    repository: String,
    tag: Option<Tag>,
    descriptor: Descriptor,
}

/// Everything that the records of a store name, and records that cannot be read; `None` where there are no records.
pub(super) fn roots(root: &Path) -> Result<Option<(Vec<Root>, Vec<DamagedFile>)>> {
    let records = root.join("records");
    if !records.is_dir() {
        return Ok(None);
    }
    let mut found = Found { images: records.join("images"), roots: Vec::new(), damaged: Vec::new() };
    found.bundles(&records.join("bundles"))?;
    for path in latest(files(&records.join("runs"))?, &mut found.damaged) {
        let images = found.read::<Run>(&path).map(|run| run.images).unwrap_or_default();
        images.iter().for_each(|entry| found.image(entry));
    }
    let names = files(&records.join("names"))?;
    let names: Vec<Name> = names.iter().filter_map(|path| found.read(path)).collect();
    let entries = names.into_iter().map(|name| {
        let text = match &name.tag {
            Some(tag) => format!("{}:{tag}", name.repository),
            None => format!("{}@{}", name.repository, name.descriptor.digest),
        };
        (Some(text), name.descriptor)
    });
    found.damaged.extend(index::damaged(root));
    found.without_run(&files(&found.images)?, &records);
    found.roots.extend(index::named(entries));
    Ok(Some((found.roots, found.damaged)))
}

struct Found {
    images: PathBuf,
    roots: Vec<Root>,
    damaged: Vec<DamagedFile>,
}

impl Found {
    fn read<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        let read = || json::parse(&read_small(path, RECORD_SIZE_MAX)?).map_err(|why| unreadable(path, &why));
        let note = |error: crate::Error| DamagedFile { file: path.to_owned(), problem: error.to_string() };
        read().map_err(|error| self.damaged.push(note(error))).ok()
    }

    /// What was exported is written down as it was signed. No key is named here: it has to be a document, and its signature
    /// has to be there. Without `bundle.json`, which is written last, nothing was recorded.
    fn bundles(&mut self, bundles: &Path) -> Result<()> {
        for folder in folders(bundles)? {
            let (contents, signature) = (folder.join("bundle.json"), folder.join("bundle.json.sig"));
            if !contents.exists() {
                continue;
            }
            let _: Option<IgnoredAny> = self.read(&contents);
            if !signature.is_file() {
                self.damaged.push(DamagedFile { file: signature, problem: "it is missing".into() });
            }
        }
        Ok(())
    }

    /// The record of an image is named by its content.
    fn image(&mut self, entry: &RunImage) {
        let path = self.images.join(format!("{}.json", entry.image.hex()));
        let bytes = read_small(&path, RECORD_SIZE_MAX);
        let changed = bytes.as_ref().is_ok_and(|bytes| Digest::of(bytes) != entry.image);
        if changed {
            let problem = "its bytes have another digest than its name".to_owned();
            return self.damaged.push(DamagedFile { file: path, problem });
        }
        let Some(image) = self.read::<Image>(&path) else { return };
        let names = entry.tags.iter().map(|tag| format!("{}:{tag}", entry.repository)).collect();
        self.roots.push(Root { names, content: RootContent::Recorded(image), problem: None });
    }

    /// Images are recorded before the run that names them, and a first pull may have been interrupted; but where runs are
    /// there is one that names an image.
    fn without_run(&mut self, images: &[PathBuf], records: &Path) {
        if self.roots.is_empty() && self.damaged.is_empty() && !images.is_empty() {
            let problem = format!("no run names any of the {} images that are recorded", images.len());
            self.damaged.push(DamagedFile { file: records.join("runs"), problem });
        }
    }
}

/// The records of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(folder)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    Ok(paths)
}

/// The folders of a folder.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = entries(folder)?;
    paths.retain(|path| path.is_dir());
    Ok(paths)
}

/// What a folder holds; nothing where there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list =
        || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    match list() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => {
            let mut paths = listed.on(Side::Store).while_(|| format!("list {}", folder.display()))?;
            paths.sort();
            Ok(paths)
        }
    }
}

/// The stream and number of a run, where its name is spelt as a store does: another spelling is another file.
fn run_name(path: &Path) -> Option<(String, u64)> {
    let (stream, text) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    let number = text.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == text)?;
    Some((stream.to_owned(), number))
}

/// Of runs, which are named `<stream>-<number>.json`, the last of each stream.
fn latest(paths: Vec<PathBuf>, damaged: &mut Vec<DamagedFile>) -> Vec<PathBuf> {
    let mut last: BTreeMap<String, (u64, PathBuf)> = BTreeMap::new();
    for path in paths {
        let Some((stream, number)) = run_name(&path) else {
            let problem = "it is not named as the record of a run is, and is not read".to_owned();
            damaged.push(DamagedFile { file: path, problem });
            continue;
        };
        let known = last.entry(stream).or_insert_with(|| (number, path.clone()));
        if known.0 <= number {
            *known = (number, path);
        }
    }
    last.into_values().map(|(_, path)| path).collect()
}
