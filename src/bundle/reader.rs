//! Reading a bundle: signature first, then the table of contents, then payloads by their signed places. Tar headers are
//! never interpreted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::compare::{chunk_digest, hash_range, is_one_chunk};
use super::contents::{ASK_MAKER, Contents, Member};
use super::plain::{WRITE_AGAIN, open_plain, read_file};
use super::signature::untrusted;
use super::{BUNDLE_CHUNKS, BUNDLE_JSON, BUNDLE_JSON_MAX, BUNDLE_SIG, PublicKey, frame};
use crate::content::{Body, CHUNK_SIZE, PIECE_SIZE, Source, Work, read_piece};
use crate::error::{Context, Error, Kind, Result, Side};
use crate::oci::{CONFIG_SIZE_MAX, Descriptor, Digest, Hasher, MANIFEST_SIZE_MAX, Manifest};

/// The largest signature file that is read.
const SIGNATURE_MAX: u64 = 16 * 1024;

/// An open bundle: its signature was checked with a trusted key, its table of contents and chunk table are right. Its
/// volumes may be missing or damaged; that shows when they are read.
pub struct BundleReader {
    /// The folders that hold parts of it: one for each drive.
    folders: Vec<PathBuf>,
    pub(super) contents: Contents,
    digest: Digest,
    key: PublicKey,
    pub(super) chunks: Vec<u8>,
    pub(super) first_chunks: Vec<u64>,
    pub(super) by_digest: std::collections::HashMap<Digest, usize>,
}

impl BundleReader {
    /// Opens the bundle in `folders` (the same bundle on several drives), signed by one of `keys`.
    pub fn open(folders: &[PathBuf], keys: &[PublicKey]) -> Result<Self> {
        let Some(first) = folders.first() else {
            return Err(Error::usage("no bundle was named"));
        };
        if !first.join(BUNDLE_JSON).exists() {
            return Err(Error::new(Kind::Missing, format!("{} has no {BUNDLE_JSON}", first.display()))
                .on(Side::Bundle)
                .help("name the folder of a bundle, <stream>-<epoch>-<sequence>; without bundle.json its export was not finished: run the export again"));
        }
        let (bytes, key) = read_signed(first, keys)?;
        for other in &folders[1..] {
            if read_signed(other, keys)?.0 != bytes {
                return Err(Error::usage(format!(
                    "{} and {} hold different bundles",
                    first.display(),
                    other.display()
                ))
                .on(Side::Bundle));
            }
        }
        let contents = Contents::parse(&bytes).while_(|| first.display().to_string())?;
        let chunks = read_chunk_table(folders, &contents)?;
        let first_chunks = contents.first_chunks();
        let by_digest = contents.blobs.iter().enumerate().map(|(at, blob)| (blob.digest, at)).collect();
        Ok(BundleReader {
            folders: folders.to_vec(),
            digest: Digest::of(&bytes),
            contents,
            key,
            chunks,
            first_chunks,
            by_digest,
        })
    }

    /// The table of contents.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The digest of `bundle.json`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The key that signed it.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The length of a blob; `None` when the bundle does not carry it.
    pub fn size_of(&self, digest: &Digest) -> Option<u64> {
        self.by_digest.get(digest).and_then(|&at| self.contents.blobs.get(at)).map(|blob| blob.size)
    }

    /// The digest that the chunk with byte `offset` of a blob must have.
    pub(super) fn chunk_digest(&self, blob: usize, offset: u64) -> Option<Digest> {
        chunk_digest(&self.contents.blobs, &self.chunks, &self.first_chunks, blob, offset)
    }

    /// Names of volumes that none of the folders has.
    pub fn missing_volumes(&self) -> Vec<&str> {
        let volumes = self.contents.volumes.iter().enumerate();
        volumes.filter(|(at, _)| self.copies(*at).is_empty()).map(|(_, volume)| volume.name.as_str()).collect()
    }

    /// The files that hold a volume: one in most bundles, one for each drive of `meta.tar`.
    pub(super) fn copies(&self, volume: usize) -> Vec<PathBuf> {
        let name = super::volume_name(volume);
        // A link leads elsewhere than to the drive: it is no volume, and neither is a folder or a pipe.
        let is_volume = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_file());
        self.folders.iter().map(|folder| folder.join(&name)).filter(is_volume).collect()
    }

    /// Opens the copy of a volume in which a chunk is as it must be. Where there is only one, it is not read for that.
    fn open_volume(&self, volume: usize, offset: u64, length: u64, expected: Option<Digest>) -> Result<File> {
        let copies = self.copies(volume);
        let good = |path: &&PathBuf| {
            let found = open_plain(path).and_then(|file| hash_range(&file, offset, length));
            found.ok().is_some_and(|found| Some(found) == expected)
        };
        let chosen = if copies.len() > 1 { copies.iter().find(good).or(copies.first()) } else { copies.first() };
        let Some(path) = chosen else {
            return Err(Error::new(Kind::Missing, format!("{} is not here", super::volume_name(volume)))
                .on(Side::Bundle)
                .help("bring the drive that holds it, and name both folders; or export to this drive again, which writes only what is missing"));
        };
        open_plain(path).on(Side::Bundle).while_(|| format!("open {}", path.display()))
    }

    /// Reads the bytes of a manifest and checks them against its digest.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.read_within(descriptor, MANIFEST_SIZE_MAX, "a manifest")
    }

    /// Reads the bytes of a config and checks them against its digest.
    pub fn read_config(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.read_within(descriptor, CONFIG_SIZE_MAX, "a config")
    }

    fn read_within(&self, descriptor: &Descriptor, limit: u64, what: &str) -> Result<Bytes> {
        let at = self.place(&descriptor.digest)?;
        if self.size_of(&descriptor.digest) != Some(descriptor.size) || descriptor.size > limit {
            return Err(Error::verification(format!(
                "blob {} has not the {} bytes of {what}",
                descriptor.digest, descriptor.size
            ))
            .on(Side::Bundle)
            .help(ASK_MAKER));
        }
        let mut whole = BytesMut::new();
        self.stream(at, 0, descriptor.size, &mut |piece| {
            whole.extend_from_slice(&piece);
            true
        })?;
        if descriptor.digest.same_algorithm_of(&whole) != descriptor.digest {
            return Err(Error::verification(format!("blob {} was signed with other bytes", descriptor.digest))
                .on(Side::Bundle)
                .help(ASK_MAKER));
        }
        Ok(whole.freeze())
    }

    /// Reads a manifest and parses it.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let bytes = self.read(descriptor)?;
        Manifest::parse(&descriptor.media_type, &bytes)
            .map_err(|error| Error::verification(error.to_string()).on(Side::Bundle))
            .while_(|| format!("manifest {}", descriptor.digest))
    }

    fn place(&self, digest: &Digest) -> Result<usize> {
        self.by_digest.get(digest).copied().ok_or_else(|| not_carried(digest))
    }

    /// The bytes of a blob from `offset` to `end`. Each chunk is checked; its last piece is handed over only when the
    /// whole chunk was right, so nobody ever gets a whole chunk, let alone a blob, that is not what was signed.
    pub fn body(self: &Arc<Self>, digest: &Digest, offset: u64, end: u64) -> Result<Body> {
        let at = self.place(digest)?;
        let (sender, body) = Body::channel();
        let reader = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut send = |piece: Bytes| sender.blocking_send(piece).is_ok();
            let end = reader.stream(at, offset, end, &mut send);
            sender.blocking_finish(end);
        });
        Ok(body)
    }

    fn stream(&self, blob: usize, offset: u64, end: u64, send: &mut dyn FnMut(Bytes) -> bool) -> Result<()> {
        let Some(entry) = self.contents.blobs.get(blob) else { return Ok(()) };
        let mut start = 0;
        for extent in &entry.extents {
            let extent_end = start + extent.length;
            if extent_end > offset && start < end {
                let mut chunk = start + offset.saturating_sub(start) / CHUNK_SIZE * CHUNK_SIZE;
                while chunk < extent_end.min(end) {
                    let length = CHUNK_SIZE.min(extent_end - chunk);
                    let place = extent.offset + (chunk - start);
                    let expected = self.chunk_digest(blob, chunk);
                    let file = self.open_volume(extent.volume, place, length, expected)?;
                    let wanted = offset.max(chunk) - chunk..end.min(chunk + length) - chunk;
                    let right = stream_chunk(&file, place, length, wanted, expected, send)
                        .map_err(|error| unreadable(extent.volume, place, &error))?;
                    match right {
                        Streamed::Right => chunk += length,
                        Streamed::Gone => return Ok(()),
                        Streamed::Changed => return Err(changed(extent.volume, place, &entry.digest)),
                    }
                }
            }
            start = extent_end;
        }
        Ok(())
    }

    /// What is odd and no damage: volumes of another length, and tar headers that are not as they were written.
    pub fn oddities(&self) -> Vec<String> {
        let mut odd = Vec::new();
        for (volume, members) in self.contents.members().iter().enumerate() {
            let name = super::volume_name(volume);
            let copies = self.copies(volume);
            if copies.is_empty() && self.folders.iter().any(|folder| folder.join(&name).symlink_metadata().is_ok()) {
                odd.push(format!("{name} is a link, a folder or a device, and is not read"));
            }
            for path in copies {
                let Ok(file) = open_plain(&path) else { continue };
                let name = path.display().to_string();
                let size = self.contents.volumes.get(volume).map_or(0, |entry| entry.size);
                let found = file.metadata().map_or(0, |found| found.len());
                if found != size {
                    odd.push(format!("{name} has {found} bytes instead of {size}"));
                }
                odd.extend(members.iter().filter_map(|member| Self::odd_member(&file, &name, member)));
            }
        }
        odd
    }

    /// Files that are no blobs and are missing or not what was signed, in any of the folders. A replay does not need them,
    /// but people and other tools go by what they say.
    pub fn changed_files(&self) -> Vec<String> {
        let mut changed = Vec::new();
        for entry in &self.contents.files {
            match entry.extent {
                None => {
                    let beside = self.folders.iter().map(|folder| folder.join(&entry.path));
                    let bad = beside.filter(|path| {
                        read_file(path, entry.size).map_or(true, |bytes| Digest::of(&bytes) != entry.digest)
                    });
                    changed.extend(bad.map(|path| path.display().to_string()));
                }
                Some(place) => {
                    let bad = self.copies(place.volume).into_iter().filter(|path| {
                        let found = open_plain(path).and_then(|file| hash_range(&file, place.offset, entry.size));
                        found.ok() != Some(entry.digest)
                    });
                    changed.extend(bad.map(|path| format!("{} in {}", entry.path, path.display())));
                }
            }
        }
        changed
    }

    fn odd_member(file: &File, name: &str, member: &Member) -> Option<String> {
        let mut header = [0; frame::BLOCK as usize];
        let read = file.read_exact_at(&mut header, member.offset - frame::BLOCK);
        let odd = read.is_err() || header != frame::header(&member.path, member.length);
        odd.then(|| format!("{name}: the tar header of {} is damaged; sealift does not need it, tar does", member.path))
    }
}

impl Source for Arc<BundleReader> {
    async fn open(&self, work: &Work, offset: u64) -> Result<Body> {
        self.body(&work.descriptor.digest, offset, work.span.end)
    }

    fn is_checked(&self, work: &Work) -> bool {
        is_one_chunk(&work.descriptor.digest, work.descriptor.size)
    }
}

enum Streamed {
    Right,
    Changed,
    Gone,
}

/// Reads one chunk, sends the wanted part of it, and holds the last piece back until the digest is known to be right.
fn stream_chunk(
    file: &File,
    place: u64,
    length: u64,
    wanted: std::ops::Range<u64>,
    expected: Option<Digest>,
    send: &mut dyn FnMut(Bytes) -> bool,
) -> std::io::Result<Streamed> {
    let mut hasher = Hasher::sha256();
    let mut held: Option<Bytes> = None;
    let mut at = 0;
    while at < length {
        let now = usize::try_from(length - at).unwrap_or(usize::MAX).min(PIECE_SIZE);
        let piece = read_piece(file, place + at, now)?;
        hasher.update(&piece);
        let from = wanted.start.saturating_sub(at).min(now as u64);
        let to = wanted.end.saturating_sub(at).min(now as u64);
        at += now as u64;
        if from < to {
            let part = piece.slice(usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0));
            if held.replace(part).is_some_and(|before| !send(before)) {
                return Ok(Streamed::Gone);
            }
        }
    }
    if Some(hasher.finish()) != expected {
        return Ok(Streamed::Changed);
    }
    Ok(if held.is_none_or(send) { Streamed::Right } else { Streamed::Gone })
}

fn changed(volume: usize, offset: u64, blob: &Digest) -> Error {
    damaged(volume, offset, &format!("blob {blob} is not what was signed"))
}

/// A medium that cannot give a byte back is as damaged as one that gives another one.
fn unreadable(volume: usize, offset: u64, error: &std::io::Error) -> Error {
    damaged(volume, offset, &format!("it cannot be read: {}", why(error)))
}

fn damaged(volume: usize, offset: u64, how: &str) -> Error {
    Error::verification(format!("{} is damaged at {offset}: {how}", super::volume_name(volume)))
        .on(Side::Bundle)
        .help("remove that volume and export to this drive again, which writes only what is missing; every image that does not need it can still be replayed")
}

pub(super) fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the file ends too early".to_owned(),
        _ => error.to_string(),
    }
}

fn not_carried(digest: &Digest) -> Error {
    Error::new(Kind::Missing, format!("the bundle does not carry {digest}")).on(Side::Bundle)
}

/// Groups folders by the bundle that they hold: parts of one bundle on several drives are one. Nothing is checked here.
pub fn group_folders(folders: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut groups: Vec<(Option<Vec<u8>>, Vec<PathBuf>)> = Vec::new();
    for folder in folders {
        // What cannot be read stands alone, and is reported when it is opened.
        let signature = read_file(&folder.join(BUNDLE_SIG), SIGNATURE_MAX).ok();
        match groups.iter_mut().find(|(there, _)| there.is_some() && *there == signature) {
            Some((_, group)) => group.push(folder.clone()),
            None => groups.push((signature, vec![folder.clone()])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// The exact bytes of `bundle.json` and the trusted key that signed them.
fn read_signed(folder: &Path, keys: &[PublicKey]) -> Result<(Vec<u8>, PublicKey)> {
    let bytes = read_file(&folder.join(BUNDLE_JSON), BUNDLE_JSON_MAX)?;
    let signature =
        String::from_utf8(read_file(&folder.join(BUNDLE_SIG), SIGNATURE_MAX)?).map_err(|_| untrusted(folder))?;
    let key = keys.iter().find(|key| key.verifies(&bytes, &signature)).ok_or_else(|| untrusted(folder))?;
    Ok((bytes, key.clone()))
}

/// The chunk table from the first folder in which it is right.
fn read_chunk_table(folders: &[PathBuf], contents: &Contents) -> Result<Vec<u8>> {
    let chunks = contents.first_chunks().last().copied().unwrap_or(0);
    let entry = contents.files.iter().find(|file| file.path == BUNDLE_CHUNKS);
    let entry = entry.filter(|entry| Some(entry.size) == chunks.checked_mul(32));
    let entry = entry.ok_or_else(|| {
        Error::verification("bundle.json: the chunk table has not one entry for each chunk")
            .on(Side::Bundle)
            .help(ASK_MAKER)
    })?;
    let mut last = None;
    for folder in folders {
        match read_file(&folder.join(BUNDLE_CHUNKS), entry.size) {
            Ok(table) if Digest::of(&table) == entry.digest => return Ok(table),
            Ok(_) => {
                let what = format!("{} is damaged", folder.join(BUNDLE_CHUNKS).display());
                last = Some(Error::verification(what).on(Side::Bundle).help(WRITE_AGAIN));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::failed("no folder")))
}
