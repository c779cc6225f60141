//! Export: what the store holds of a stream becomes a signed bundle on a drive.
//!
//! Choose, number, sign, record, then write. What was recorded can be written again: the same content is the same
//! bundle with the same number, whichever drive it goes to, and after any interruption.

mod layout;
mod loadable;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::bundle::{
    self, BUNDLE_CHUNKS, BUNDLE_JSON, BUNDLE_JSON_MAX, Baseline, BlobEntry, BundleWriter, Contents, FileEntry,
    INDEX_JSON_PATH, InVolume, META_BLOB_MAX, OCI_LAYOUT_PATH, Placed, Producer, README, ReadBack, SUMS, SideFiles,
    SigningKey, TYPE, VERSION, VolumeEntry, pack, volume_name,
};
use crate::content::{Limits, Role, Work, copy};
use crate::durable;
use crate::error::{Error, Kind, Result, Side};
use crate::image::{BundleName, Image, Named, OCI_LAYOUT, Part, index_json};
use crate::monitor::Monitor;
use crate::oci::{Descriptor, Digest, MediaType, json};
use crate::store::Store;
use crate::store::records::{Failure, Run, RunImage};

pub use layout::{LayoutReport, export_layout};
pub use loadable::{Loadable, NotLoadable};

/// How an export is made.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// A recorded bundle that is to be written again as it was, instead of the latest content.
    pub recorded: Option<BundleName>,
    /// The largest a volume may be, in bytes.
    pub volume_size: u64,
    /// The epoch to number in, where the operator began a new one.
    pub epoch: Option<u64>,
    /// Whether what was written is read back.
    pub read_back: ReadBack,
}

/// What an export did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportReport {
    /// `<stream>-<epoch>-<sequence>`.
    pub bundle: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// The digest of `bundle.json`.
    pub digest: Digest,
    /// Whether this content had its number already: it went to another drive, or the last export was cut short.
    pub again: bool,
    /// Images in it.
    pub images: u64,
    /// Tags in it.
    pub tags: u64,
    /// Volumes, `meta.tar` included.
    pub volumes: u64,
    /// Bytes of all volumes.
    pub bytes: u64,
    /// What is in the stream and not in the bundle, and why.
    pub failed: Vec<Failure>,
}

/// Exports the latest state of `stream` to a folder below `drive`.
pub async fn export(
    stream: &str,
    store: &Arc<Store>,
    drive: &Path,
    key: &SigningKey,
    options: ExportOptions,
    monitor: &dyn Monitor,
) -> Result<ExportReport> {
    let _lock = store.lock_stream(stream)?;
    let (signed, again, failed) = match &options.recorded {
        Some(name) => (recorded(name, store, key)?, true, Vec::new()),
        None => {
            let (chosen, failed) = choose(stream, store)?;
            let draft = lay_out(chosen, store, key, &options)?;
            let (signed, again) = number_and_record(draft, store, key, &options)?;
            (signed, again, failed)
        }
    };
    let bytes = signed.contents.volumes.iter().map(|volume| volume.size).sum();
    refuse_when_full(drive, &signed.contents)?;
    let contents = Arc::new(signed.contents);
    let work = work_list(&contents);
    let report = ExportReport {
        bundle: contents.name().to_string(),
        folder: drive.join(contents.name().to_string()),
        digest: Digest::of(&signed.json),
        again,
        images: contents.images.len() as u64,
        tags: contents.references.len() as u64,
        volumes: contents.volumes.len() as u64,
        bytes,
        failed,
    };
    let (json, signature, chunks, side) = (signed.json, signed.signature, signed.chunks, signed.side);
    let writer = BundleWriter::create(drive, contents, json, signature, chunks, side, options.read_back)?;
    monitor.begin("export", work.len() as u64, work.iter().map(|item| item.span.end - item.span.start).sum());
    // One after the other: a volume is written from its beginning to its end.
    let failures = copy(&work, store, &writer, Limits { concurrent_blobs: 1, keep_going: false }, monitor).await;
    monitor.end();
    if let Some((_, error)) = failures.into_iter().next() {
        return Err(error);
    }
    writer.finish().await?;
    Ok(report)
}

/// What goes into a bundle.
struct Chosen {
    stream: String,
    references: Vec<Named>,
    images: Vec<Image>,
    /// What travels in `meta.tar` first, then layers in the order of the images.
    blobs: Vec<Placed>,
    /// Files inside `meta.tar`.
    inner: Vec<(String, Vec<u8>)>,
}

/// What goes into a bundle of the latest run, and what of it does not, and why.
fn choose(stream: &str, store: &Store) -> Result<(Chosen, Vec<Failure>)> {
    let Some(run) = store.latest_run(stream)? else {
        let known = store.catalog().streams()?.join(", ");
        return Err(Error::usage(format!("the store has no stream {stream:?}; it has: {known}"))
            .on(Side::Store)
            .help("pull its spec first"));
    };
    let Run { images: entries, mut failed, .. } = run;
    let mut chosen = Chosen {
        stream: stream.to_owned(),
        references: Vec::new(),
        images: Vec::new(),
        blobs: Vec::new(),
        inner: Vec::new(),
    };
    let (mut meta, mut layers) = (Collected::new(true), Collected::new(false));
    let mut seen = HashSet::new();
    for entry in entries {
        match whole_image(&entry, store) {
            Ok(image) => {
                collect(&image, store, &mut meta, &mut layers)?;
                chosen.references.extend(image.named(&entry.tags)?);
                // Two entries of a spec may name one image with other platforms; a bundle has one entry for each decision.
                if seen.insert(entry.image) {
                    chosen.images.push(image);
                }
            }
            Err(error) => {
                let subject = format!("{}@{}", entry.repository, entry.image.short());
                failed.push(Failure::new(subject, &error));
            }
        }
    }
    if chosen.images.is_empty() {
        return Err(Error::failed(format!("no image of {stream:?} is whole in the store"))
            .on(Side::Store)
            .help("an export takes what the latest pull found, and none of that is whole: pull again, or write an earlier bundle with --bundle"));
    }
    layers.blobs.retain(|blob| !meta.seen.contains(&blob.digest));
    chosen.blobs = meta.blobs;
    chosen.blobs.append(&mut layers.blobs);
    chosen.references.sort_by(|a, b| (&a.name, &a.tag).cmp(&(&b.name, &b.tag)));
    chosen.references.dedup_by(|a, b| (&a.name, &a.tag) == (&b.name, &b.tag));
    let index = index_json(&chosen.references)?;
    chosen.inner = vec![(OCI_LAYOUT_PATH.to_owned(), OCI_LAYOUT.to_vec()), (INDEX_JSON_PATH.to_owned(), index)];
    Ok((chosen, failed))
}

/// The image of a run's entry, when all of it is in the store.
fn whole_image(entry: &RunImage, store: &Store) -> Result<Image> {
    if let Some(problem) = &entry.problem {
        return Err(Error::new(problem.kind, format!("the last pull could not complete it: {problem}")));
    }
    let image = store.image(&entry.image)?;
    match store.first_missing(&image)? {
        Some(missing) => {
            Err(Error::failed(format!("{missing} is no longer in the store")).on(Side::Store).help("pull again"))
        }
        None => Ok(image),
    }
}

/// Blobs in the order in which they were first needed.
struct Collected {
    in_meta: bool,
    seen: HashSet<Digest>,
    blobs: Vec<Placed>,
}

impl Collected {
    fn new(in_meta: bool) -> Self {
        Collected { in_meta, seen: HashSet::new(), blobs: Vec::new() }
    }

    fn add(&mut self, blob: &Descriptor) {
        if self.seen.insert(blob.digest) {
            self.blobs.push(Placed { digest: blob.digest, size: blob.size, in_meta: self.in_meta });
        }
    }
}

/// Sorts the content of `image` into what always travels and what a lost volume may cost.
fn collect(image: &Image, store: &Store, meta: &mut Collected, layers: &mut Collected) -> Result<()> {
    for (descriptor, part) in image.manifests() {
        meta.add(descriptor);
        if part == Part::Stub {
            continue;
        }
        let manifest = store.manifest(descriptor)?;
        let config = manifest.successors().next().map(|config| config.digest);
        for blob in image.blobs_of(&descriptor.digest, &manifest) {
            let always = part == Part::Signature || Some(blob.digest) == config;
            if always && blob.size <= META_BLOB_MAX { meta.add(blob) } else { layers.add(blob) }
        }
    }
    Ok(())
}

/// A table of contents without its number.
struct Draft {
    contents: Contents,
    chunks: Vec<u8>,
    /// Files inside `meta.tar`.
    inner: Vec<(String, Vec<u8>)>,
    sums: String,
}

fn lay_out(chosen: Chosen, store: &Store, key: &SigningKey, options: &ExportOptions) -> Result<Draft> {
    let inner_sizes: Vec<u64> = chosen.inner.iter().map(|(_, bytes)| bytes.len() as u64).collect();
    let packing = pack(&inner_sizes, &chosen.blobs, options.volume_size)?;
    let mut chunks = Vec::new();
    let mut blobs = Vec::with_capacity(packing.blobs.len());
    for (at, extents) in &packing.blobs {
        let Some(blob) = chosen.blobs.get(*at) else { continue };
        chunks.extend(store.chunks(&Descriptor::new(MediaType::OCTET_STREAM, blob.digest, blob.size))?);
        blobs.push(BlobEntry {
            digest: blob.digest,
            size: blob.size,
            encoding: "identity".into(),
            extents: extents.clone(),
        });
    }
    let volumes: Vec<VolumeEntry> = packing
        .volumes
        .iter()
        .enumerate()
        .map(|(number, &size)| VolumeEntry { name: volume_name(number), size })
        .collect();
    let inner: Vec<(&str, &[u8])> =
        chosen.inner.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let sums = bundle::sums(&blobs, &inner, &volumes);
    let mut files: Vec<FileEntry> = inner
        .iter()
        .zip(&packing.files)
        .map(|((path, bytes), &offset)| file_entry(path, bytes, Some(InVolume { volume: 0, offset })))
        .collect();
    files.push(file_entry(BUNDLE_CHUNKS, &chunks, None));
    files.push(file_entry(SUMS, sums.as_bytes(), None));
    let contents = Contents {
        kind: TYPE.into(),
        version: VERSION.into(),
        critical: Contents::critical_for(&chosen.images),
        stream: chosen.stream,
        epoch: 0,
        sequence: 0,
        created: String::new(),
        producer: Producer {
            tool: "sealift".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            key: key.public().id(),
        },
        baseline: Baseline { kind: "none".into() },
        references: chosen.references,
        removed_references: Vec::new(),
        images: chosen.images,
        blobs,
        files,
        volumes,
    };
    Ok(Draft { contents, chunks, inner: chosen.inner, sums })
}

fn file_entry(path: &str, bytes: &[u8], extent: Option<InVolume>) -> FileEntry {
    FileEntry { path: path.to_owned(), size: bytes.len() as u64, digest: Digest::of(bytes), extent }
}

/// A table of contents with its number and signature, as it stands in the records.
struct Signed {
    contents: Contents,
    json: Vec<u8>,
    signature: Vec<u8>,
    chunks: Vec<u8>,
    side: SideFiles,
}

/// Gives the draft its number: the latest one when the content is the same, else the next.
fn number_and_record(draft: Draft, store: &Store, key: &SigningKey, options: &ExportOptions) -> Result<(Signed, bool)> {
    let Draft { mut contents, chunks, inner, sums } = draft;
    let latest = store.latest_bundle(&contents.stream)?;
    if let Some((epoch, sequence)) = latest {
        let name = BundleName { stream: contents.stream.clone(), epoch, sequence };
        let same_epoch = options.epoch.is_none_or(|wanted| wanted == epoch);
        if let Some((json, signature)) = store.bundle(&name)?.filter(|_| same_epoch)
            && let Ok(recorded) = Contents::parse(&json)
            && same_content(&recorded, &contents)
            // Where its record is damaged the number is used all the same, and the content gets the next one.
            && refuse_damaged(&name, &json, &signature, key).is_ok()
            && let Ok(side) = recorded_side(&name, &recorded, store)
        {
            let (json, signature) = (json.to_vec(), signature.to_vec());
            return Ok((Signed { contents: recorded, json, signature, chunks, side }, true));
        }
    }
    (contents.epoch, contents.sequence) = next_number(latest, options.epoch)?;
    contents.created = crate::clock::text(jiff::Timestamp::now());
    let readme = bundle::readme(&contents);
    contents.files.push(file_entry(README, readme.as_bytes(), None));
    let json = json::canonical_compact(&contents).map_err(|error| Error::failed(error.to_string()))?;
    if json.len() as u64 > BUNDLE_JSON_MAX {
        return Err(Error::usage(format!("bundle.json would have {} bytes, more than {BUNDLE_JSON_MAX}", json.len()))
            .help("divide the stream: several specs with fewer images each"));
    }
    // What this writes, it must also be able to read.
    Contents::parse(&json)?;
    let signature = key.sign(&json)?.into_bytes();
    let side = SideFiles { inner, readme, sums };
    store.put_bundle(&contents.name(), &json, &signature, &side_files(&side))?;
    Ok((Signed { contents, json, signature, chunks, side }, false))
}

/// The texts of a bundle as they are recorded: another version of sealift may word them in another way.
fn side_files(side: &SideFiles) -> Vec<(&str, &[u8])> {
    let inner = side.inner.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
    inner.chain([(README, side.readme.as_bytes()), (SUMS, side.sums.as_bytes())]).collect()
}

/// The recorded texts of a bundle, as they were signed.
fn recorded_side(name: &BundleName, contents: &Contents, store: &Store) -> Result<SideFiles> {
    let read = |file: &str| {
        let bytes = store.bundle_file(name, file)?.to_vec();
        let signed = contents.files.iter().any(|entry| entry.path == file && entry.digest == Digest::of(&bytes));
        signed.then_some(bytes).ok_or_else(|| damaged_record(name, file))
    };
    let text = |file: &str| Ok::<_, Error>(String::from_utf8_lossy(&read(file)?).into_owned());
    store.sync_bundle(name)?;
    let inner = [OCI_LAYOUT_PATH, INDEX_JSON_PATH].map(|path| read(path).map(|bytes| (path.to_owned(), bytes)));
    Ok(SideFiles { inner: inner.into_iter().collect::<Result<_>>()?, readme: text(README)?, sums: text(SUMS)? })
}

/// What is written to a drive must be what was signed: a bundle that nobody accepts is no bundle.
fn refuse_damaged(name: &BundleName, json: &[u8], signature: &[u8], key: &SigningKey) -> Result<()> {
    let signed = std::str::from_utf8(signature).is_ok_and(|text| key.public().verifies(json, text));
    if signed { Ok(()) } else { Err(damaged_record(name, "bundle.json or its signature")) }
}

fn damaged_record(name: &BundleName, what: &str) -> Error {
    Error::verification(format!("the record of {name} is damaged: {what} is not what was signed"))
        .on(Side::Store)
        .help("restore records/ from a backup, or leave --bundle out: then the latest content gets the next number")
}

/// A bundle as it was recorded, whatever the stream holds now.
fn recorded(name: &BundleName, store: &Store, key: &SigningKey) -> Result<Signed> {
    let Some((json, signature)) = store.bundle(name)? else {
        return Err(Error::usage(format!("the store has no record of bundle {name}"))
            .on(Side::Store)
            .help("the names of all recorded bundles are those of the folders in records/bundles"));
    };
    let contents = Contents::parse(&json).map_err(|_| damaged_record(name, BUNDLE_JSON))?;
    if contents.producer.key != key.public().id() {
        return Err(Error::usage(format!("{name} was signed by another key: {}", contents.producer.key))
            .on(Side::Store)
            .help("a recorded bundle keeps its signature: name the key that made it, or export the latest content with the new one"));
    }
    refuse_damaged(name, &json, &signature, key)?;
    let mut chunks = Vec::new();
    for blob in &contents.blobs {
        let descriptor = Descriptor::new(MediaType::OCTET_STREAM, blob.digest, blob.size);
        if !store.has(&descriptor) {
            return Err(Error::failed(format!("blob {} is no longer in the store", blob.digest))
                .on(Side::Store)
                .help("pull again; what no spec wants any more cannot be brought back, and then only the latest content can be exported: leave --bundle out"));
        }
        chunks.extend(store.chunks(&descriptor)?);
    }
    let side = recorded_side(name, &contents, store)?;
    Ok(Signed { contents, json: json.to_vec(), signature: signature.to_vec(), chunks, side })
}

/// Whether a recorded bundle says the same as a draft, which has no number, time and README yet.
fn same_content(recorded: &Contents, draft: &Contents) -> bool {
    let mut bare = recorded.clone();
    (bare.epoch, bare.sequence) = (draft.epoch, draft.sequence);
    bare.created.clone_from(&draft.created);
    bare.producer.version.clone_from(&draft.producer.version);
    bare.files.retain(|file| file.path != README);
    bare == *draft
}

fn next_number(latest: Option<(u64, u64)>, wanted: Option<u64>) -> Result<(u64, u64)> {
    match (latest, wanted) {
        (None, epoch) => Ok((epoch.unwrap_or(1).max(1), 1)),
        (Some((epoch, _)), Some(wanted)) if wanted < epoch => {
            Err(Error::usage(format!("epoch {wanted} is over: the last bundle has epoch {epoch}"))
                .help("epochs only grow"))
        }
        (Some((epoch, _)), Some(wanted)) if wanted > epoch => Ok((wanted, 1)),
        (Some((epoch, sequence)), _) => Ok((epoch, sequence + 1)),
    }
}

/// Every extent, in the order in which it lies in the volumes.
fn work_list(contents: &Contents) -> Vec<Work> {
    let mut parts = Vec::new();
    for (at, blob) in contents.blobs.iter().enumerate() {
        let mut start = 0;
        for extent in &blob.extents {
            parts.push((extent.volume, extent.offset, at, start..start + extent.length));
            start += extent.length;
        }
    }
    parts.sort_by_key(|(volume, offset, ..)| (*volume, *offset));
    let mut work = Vec::with_capacity(parts.len());
    work.extend(parts.into_iter().filter_map(|(_, _, at, span)| {
        let blob = contents.blobs.get(at)?;
        let descriptor = Descriptor::new(MediaType::OCTET_STREAM, blob.digest, blob.size);
        Some(Work { descriptor, span, from: Vec::new(), role: Role::Blob })
    }));
    work
}

/// Refuses before anything is written when the drive cannot hold it. What lies there already of the same bundle counts.
fn refuse_when_full(drive: &Path, contents: &Contents) -> Result<()> {
    durable::create_folder(drive)?;
    let folder = drive.join(contents.name().to_string());
    let there = |volume: &VolumeEntry| {
        let partial = folder.join(format!("{}.partial", volume.name));
        [folder.join(&volume.name), partial].iter().find_map(|path| path.metadata().ok()).map_or(0, |found| found.len())
    };
    let wanted: u64 = contents.volumes.iter().map(|volume| volume.size.saturating_sub(there(volume))).sum();
    let Some(free) = durable::free_space(drive).filter(|&free| wanted > free) else { return Ok(()) };
    Err(Error::new(
        Kind::Failed,
        format!("the bundle needs {wanted} bytes more, and {free} are free on {}", drive.display()),
    )
    .on(Side::Bundle)
    .help("use a larger drive; nothing was written"))
}
