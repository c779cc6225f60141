//! Records: small canonical JSON files that say what cannot be read off the blobs. With the blobs they are the truth.
//!
//! ```text
//! records/images/<hex>.json                    an Image as it was decided and found complete; named by its content
//! records/runs/<stream>-<number>.json          one pull: which tag was which image, and what failed
//! records/bundles/<stream>-<epoch>-<sequence>/ bundle.json, its signature and its texts, as they were written to drives
//! records/names/<hex>.json                     what was pushed into a writable store
//! ```

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{MODE_FINAL, Store};
use crate::durable;
use crate::error::{Context, Error, Kind, Problem, REBUILD, Result, Side};
use crate::image::{BundleName, Image};
use crate::oci::{Descriptor, Digest, Tag, json};

/// The largest record that is read.
const RECORD_SIZE_MAX: u64 = 256 * 1024 * 1024;

/// What to do about a damaged record of a run or of an image.
const PULL_AGAIN: &str = "pull the stream again";

/// One pull of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The name of the stream.
    pub stream: String,
    /// Its number within the stream, from 1. Given by [`Store::put_run`].
    pub number: u64,
    /// When it began, in UTC.
    pub started: String,
    /// Where the spec says that bundles go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_to: Option<PathBuf>,
    /// The volume size that the spec says, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<u64>,
    /// What became of each image, in the order of the plan.
    pub images: Vec<RunImage>,
    /// What could not even be planned.
    pub failed: Vec<Failure>,
}

/// One image of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunImage {
    /// The repository with its source host.
    pub repository: String,
    /// The tags that point to it.
    pub tags: Vec<Tag>,
    /// The record of the image.
    pub image: Digest,
    /// When its signatures were looked up, in UTC.
    pub signatures_checked: String,
    /// Why it is not whole; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Something that failed, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failure {
    /// What: a reference or a repository.
    pub subject: String,
    /// Why.
    pub problem: Problem,
}

impl Failure {
    /// What `error` did to `subject`.
    pub fn new(subject: impl Into<String>, error: &Error) -> Self {
        Failure { subject: subject.into(), problem: Problem::from(error) }
    }

    /// The kind that decides the exit status of a run in which these failed: that some images did not come makes a run
    /// incomplete when others did, and failed when none did.
    pub fn verdict(failed: &[Failure], some_complete: bool) -> Option<Kind> {
        Kind::first_of(failed.iter().map(|failure| match failure.problem.kind {
            Kind::Failed if some_complete => Kind::Incomplete,
            kind => kind,
        }))
    }
}

/// What a client pushed into a writable store: a manifest of a repository, or a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    /// The repository, as the client called it.
    pub repository: String,
    /// The tag; absent for the manifest as such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// The manifest.
    pub descriptor: Descriptor,
}

impl Name {
    fn file(repository: &str, tag: Option<&Tag>, digest: Option<&Digest>) -> String {
        let key = match (tag, digest) {
            (Some(tag), _) => format!("{repository}:{tag}"),
            (None, Some(digest)) => format!("{repository}@{digest}"),
            (None, None) => repository.to_owned(),
        };
        format!("records/names/{}.json", Digest::of(key.as_bytes()).hex())
    }
}

impl Store {
    fn record_path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn read_record<T: DeserializeOwned>(&self, path: &Path) -> Result<(T, Digest)> {
        let bytes = read_bounded(path, RECORD_SIZE_MAX)?;
        let record = json::parse(&bytes).map_err(|error| {
            Error::verification(format!("record {} is damaged: {error}", path.display())).on(Side::Store)
        })?;
        Ok((record, Digest::of(&bytes)))
    }

    fn write_record(&self, path: &Path, record: &impl Serialize) -> Result<Digest> {
        let bytes = json::canonical(record).map_err(|error| Error::failed(error.to_string()).on(Side::Store))?;
        self.write_whole(path, &bytes, 0o644)?;
        Ok(Digest::of(&bytes))
    }

    /// Keeps `image`; the same image again is the same record.
    pub fn put_image(&self, image: &Image) -> Result<Digest> {
        let bytes = json::canonical(image).map_err(|error| Error::failed(error.to_string()).on(Side::Store))?;
        let digest = Digest::of(&bytes);
        let path = self.record_path(&format!("records/images/{}.json", digest.hex()));
        // One that is damaged is made again.
        if read_bounded(&path, bytes.len() as u64).ok().as_deref() != Some(&bytes[..]) {
            self.write_whole(&path, &bytes, MODE_FINAL)?;
        }
        Ok(digest)
    }

    /// Reads the record of an image.
    pub fn image(&self, record: &Digest) -> Result<Image> {
        let path = self.record_path(&format!("records/images/{}.json", record.hex()));
        let (image, found) = self.read_record(&path).map_err(|error| error.help(PULL_AGAIN))?;
        if found != *record {
            return Err(Error::verification(format!("record {} is damaged", path.display()))
                .on(Side::Store)
                .help(PULL_AGAIN));
        }
        Ok(image)
    }

    /// Keeps a run under the next number of its stream, whose lock the caller holds; then tells the catalog.
    pub fn put_run(&self, run: &mut Run) -> Result<()> {
        run.number = self.latest_run_number(&run.stream)?.unwrap_or(0) + 1;
        let bytes = json::canonical(run).map_err(|error| Error::failed(error.to_string()).on(Side::Store))?;
        self.sync_names()?;
        self.write_whole(&self.run_path(&run.stream, run.number), &bytes, MODE_FINAL)?;
        self.catalog.put_run(&run.stream, run.number)
    }

    /// The catalog may lag one behind, where a process was killed between record and row since this one opened the store.
    fn latest_run_number(&self, stream: &str) -> Result<Option<u64>> {
        let mut number = self.catalog.latest_run(stream)?.unwrap_or(0);
        while self.run_path(stream, number + 1).exists() {
            number += 1;
        }
        Ok((number > 0).then_some(number))
    }

    fn run_path(&self, stream: &str, number: u64) -> PathBuf {
        self.record_path(&format!("records/runs/{stream}-{number}.json"))
    }

    /// The latest run of `stream`.
    pub fn latest_run(&self, stream: &str) -> Result<Option<Run>> {
        let Some(number) = self.latest_run_number(stream)? else { return Ok(None) };
        let (run, _) = self.read_record(&self.run_path(stream, number)).map_err(|error| error.help(PULL_AGAIN))?;
        Ok(Some(run))
    }

    /// Keeps a bundle's contents and signature before any of it is written to a drive: from then on its number is
    /// used, and its volumes can be made again.
    pub fn put_bundle(
        &self,
        name: &BundleName,
        contents: &[u8],
        signature: &[u8],
        files: &[(&str, &[u8])],
    ) -> Result<()> {
        let folder = self.record_path("records/bundles").join(name.to_string());
        durable::create_folder(&folder).on(Side::Store)?;
        for (file, bytes) in files.iter().chain([&("bundle.json.sig", signature)]) {
            self.write_whole(&folder.join(file), bytes, MODE_FINAL)?;
        }
        self.write_whole(&folder.join("bundle.json"), contents, MODE_FINAL)?;
        self.catalog.put_bundle(name)
    }

    /// Makes sure that what is recorded of a bundle stays: the process that recorded it may have been killed before it had
    /// synced the names.
    pub fn sync_bundle(&self, name: &BundleName) -> Result<()> {
        durable::sync_folder(&self.record_path("records/bundles").join(name.to_string())).on(Side::Store)?;
        durable::sync_folder(&self.record_path("records/bundles")).on(Side::Store)
    }

    /// The recorded contents and signature of a bundle.
    pub fn bundle(&self, name: &BundleName) -> Result<Option<(Bytes, Bytes)>> {
        let folder = self.record_path("records/bundles").join(name.to_string());
        if !folder.join("bundle.json").exists() {
            return Ok(None);
        }
        let read = |file| read_bounded(&folder.join(file), RECORD_SIZE_MAX);
        Ok(Some((read("bundle.json")?, read("bundle.json.sig")?)))
    }

    /// Another recorded file of a bundle.
    pub fn bundle_file(&self, name: &BundleName, file: &str) -> Result<Bytes> {
        read_bounded(&self.record_path("records/bundles").join(name.to_string()).join(file), RECORD_SIZE_MAX)
    }

    /// The highest number of `stream` that has a record: epoch and sequence. The catalog may lag one behind, where a
    /// process was killed between the two.
    pub fn latest_bundle(&self, stream: &str) -> Result<Option<(u64, u64)>> {
        let known = self.catalog.latest_bundle(stream)?;
        let (epoch, mut sequence) = known.unwrap_or((1, 0));
        let name = |sequence| BundleName { stream: stream.to_owned(), epoch, sequence };
        while self.bundle(&name(sequence + 1))?.is_some() {
            sequence += 1;
        }
        Ok((sequence > 0).then_some((epoch, sequence)))
    }

    /// Keeps what was pushed.
    pub fn put_name(&self, name: &Name) -> Result<()> {
        let file = Name::file(&name.repository, name.tag.as_ref(), Some(&name.descriptor.digest));
        self.write_record(&self.record_path(&file), name).map(|_| ())
    }

    /// Forgets a tag, or a manifest with `tag` absent.
    pub fn remove_name(&self, repository: &str, tag: Option<&Tag>, digest: Option<&Digest>) -> Result<()> {
        durable::remove(&self.record_path(&Name::file(repository, tag, digest))).on(Side::Store)
    }

    /// Everything that was pushed and not removed; an error for each record that cannot be read.
    pub fn names(&self) -> Result<Vec<Result<Name>>> {
        let read = |path: PathBuf| Ok(self.read_record(&path)?.0);
        Ok(self.record_files("records/names")?.into_iter().map(read).collect())
    }

    /// Brings a catalog up to what the records say, and refuses one that says more. Rows are missing where the catalog is new,
    /// where a process was killed between record and row, or where SQLite's log was lost.
    ///
    /// A row without a record is damage of the one or of the other. Numbers that were used may be known to it alone, so it
    /// is not taken back without being told to. Only names are read: this is done whenever a store is opened.
    pub(super) fn agree(&self) -> Result<()> {
        // Rows first: a record is there before its row.
        let (mut runs, mut bundles) = (self.catalog.runs()?, self.catalog.bundles()?);
        let recorded_runs = self.names_in("records/runs", run_name)?;
        let recorded_bundles = self.names_in("records/bundles", bundle_name)?;
        let new_runs: Vec<_> = recorded_runs.into_iter().filter(|run| !runs.remove(run)).collect();
        let mut new_bundles = Vec::new();
        for name in recorded_bundles {
            if self.record_path(&format!("records/bundles/{name}/bundle.json")).is_file() && !bundles.remove(&name) {
                new_bundles.push(name);
            }
        }
        let run = runs.first().map(|(stream, number)| format!("run {stream}-{number}"));
        let bundle = bundles.first().map(|name| format!("bundle {name}"));
        if let Some(unknown) = bundle.or(run) {
            return Err(Error::failed(format!("the catalog knows of {unknown}, and there is no record of it")).help(
                format!("restore records/ from a backup if records were lost; if it is the catalog that is damaged, or the record was removed on purpose, {REBUILD}"),
            ));
        }
        if new_runs.is_empty() && new_bundles.is_empty() {
            return Ok(());
        }
        self.catalog.put_all(&new_runs, &new_bundles)
    }

    fn names_in<T>(&self, folder: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
        let entries = self.entries(folder)?;
        Ok(entries.iter().filter_map(|path| parse(path.file_name()?.to_str()?)).collect())
    }

    fn record_files(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let entries = self.entries(folder)?;
        Ok(entries.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect())
    }

    fn entries(&self, folder: &str) -> Result<Vec<PathBuf>> {
        let folder = self.record_path(folder);
        let list = || -> std::io::Result<Vec<PathBuf>> {
            std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect()
        };
        let mut paths = list().on(Side::Store).while_(|| format!("list {}", folder.display()))?;
        paths.sort();
        Ok(paths)
    }
}

/// The stream and number of `<stream>-<number>.json`, where it is spelt as this program does.
fn run_name(file: &str) -> Option<(String, u64)> {
    let (stream, number) = file.strip_suffix(".json")?.rsplit_once('-')?;
    let number = number.parse().ok().filter(|&n| in_catalog(n) && file == format!("{stream}-{n}.json"))?;
    Some((stream.to_owned(), number))
}

fn bundle_name(folder: &str) -> Option<BundleName> {
    folder.parse().ok().filter(|name: &BundleName| in_catalog(name.epoch) && in_catalog(name.sequence))
}

/// Whether the catalog can hold this number: those of SQLite have a sign.
fn in_catalog(number: u64) -> bool {
    number > 0 && i64::try_from(number).is_ok()
}

fn read_bounded(path: &Path, limit: u64) -> Result<Bytes> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A pipe would be waited for.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("it is no file"));
        }
        std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().on(Side::Store).while_(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > limit {
        return Err(Error::verification(format!("{} is larger than any record", path.display())).on(Side::Store));
    }
    Ok(bytes.into())
}
