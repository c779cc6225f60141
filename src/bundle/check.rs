//! Checking a bundle: every chunk of every copy of a volume is compared with what was signed.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::compare::hash_range;
use super::plain::open_plain;
use super::reader::{BundleReader, why};
use super::volume_name;
use crate::content::{CHUNK_SIZE, PIECE_SIZE, in_parallel};
use crate::oci::Digest;

/// One piece of a volume that is not what was signed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// The volume.
    pub volume: String,
    /// The file: a volume may lie in several folders.
    pub file: PathBuf,
    /// Whether no other folder has this piece as it must be.
    pub lost: bool,
    /// Which 16 MiB piece of the blob, from 1.
    pub piece: u64,
    /// Where the piece begins in the volume.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// The blob that it belongs to.
    pub blob: Digest,
    /// What is wrong with it.
    pub kind: DamageKind,
}

/// What is wrong with a piece.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DamageKind {
    /// Its bytes have another digest.
    Changed,
    /// It cannot be read: the file is too short, or the drive reports an error.
    Unreadable(String),
}

/// A copy of a volume, and the file where it could be opened.
type OpenCopy = (PathBuf, std::io::Result<File>);

/// The copies of the volume that was read last.
type OpenVolume = Option<(usize, Vec<OpenCopy>)>;

/// One chunk to be checked.
struct Job {
    blob: usize,
    /// Where it begins in the blob.
    at: u64,
    volume: usize,
    /// Where it begins in the volume.
    offset: u64,
    length: u64,
}

impl BundleReader {
    /// Checks every chunk of every volume that is there, but for those of the blobs in `except`, on all cores. Calls
    /// `progress` with bytes read.
    pub fn check_volumes(&self, except: &HashSet<Digest>, progress: &(dyn Fn(u64) + Sync)) -> Vec<Damage> {
        let blobs = self.contents.blobs.iter().enumerate().filter(|(_, blob)| !except.contains(&blob.digest));
        let mut jobs: Vec<Job> = blobs.flat_map(|(at, _)| self.chunk_jobs(at)).collect();
        jobs.sort_by_key(|job| (job.volume, job.offset));
        let damages = in_parallel(
            &jobs,
            || None,
            |open: &mut OpenVolume, job| {
                let copies = self.open_copies(open, job.volume);
                // A volume that is missing is reported as such, not chunk by chunk.
                if !copies.is_empty() {
                    progress(job.length);
                }
                self.check_chunk(job, copies).0
            },
        );
        sorted(damages.into_iter().flatten().collect())
    }

    /// Checks every chunk of one blob in their order, and hands over the bytes of each after it was right in one copy, in
    /// pieces. Also whether all of the blob was handed over: nothing is after a chunk that is right in no copy.
    ///
    /// A chunk is read twice, the second time from the page cache: between comparing and handing over lie 16 MiB.
    pub fn check_blob(
        &self,
        digest: &Digest,
        progress: &(dyn Fn(u64) + Sync),
        take: &mut dyn FnMut(&[u8]),
    ) -> (Vec<Damage>, bool) {
        let Some(&blob) = self.by_digest.get(digest) else { return (Vec::new(), false) };
        let (mut open, mut damages, mut whole) = (None, Vec::new(), true);
        let mut buffer = vec![0; PIECE_SIZE];
        for job in self.chunk_jobs(blob) {
            let copies = self.open_copies(&mut open, job.volume);
            if !copies.is_empty() {
                progress(job.length);
            }
            let (found, good) = self.check_chunk(&job, copies);
            damages.extend(found);
            let Some((path, file)) = good.filter(|_| whole) else {
                whole = false;
                continue;
            };
            // A drive may give back what it gave a moment ago, or nothing.
            if let Err(error) = hand_over(file, &job, &mut buffer, take) {
                damages.push(self.damage(&job, path, true, DamageKind::Unreadable(why(&error))));
                whole = false;
            }
        }
        (damages, whole)
    }

    fn chunk_jobs(&self, blob: usize) -> Vec<Job> {
        let (mut jobs, mut start) = (Vec::new(), 0);
        for extent in self.contents.blobs.get(blob).into_iter().flat_map(|entry| &entry.extents) {
            for in_extent in (0..extent.length).step_by(usize::try_from(CHUNK_SIZE).unwrap_or(1)) {
                let length = CHUNK_SIZE.min(extent.length - in_extent);
                let (at, offset) = (start + in_extent, extent.offset + in_extent);
                jobs.push(Job { blob, at, volume: extent.volume, offset, length });
            }
            start += extent.length;
        }
        jobs
    }

    fn open_copies<'o>(&self, open: &'o mut OpenVolume, volume: usize) -> &'o [OpenCopy] {
        if open.as_ref().is_none_or(|(opened, _)| *opened != volume) {
            let copies = self.copies(volume).into_iter().map(|path| (open_plain(&path), path));
            *open = Some((volume, copies.map(|(file, path)| (path, file)).collect()));
        }
        open.as_ref().map(|(_, copies)| copies.as_slice()).unwrap_or_default()
    }

    /// What is wrong with a chunk in each copy, and a copy in which it is right.
    fn check_chunk<'o>(&self, job: &Job, copies: &'o [OpenCopy]) -> (Vec<Damage>, Option<(&'o Path, &'o File)>) {
        let expected = self.chunk_digest(job.blob, job.at);
        let (mut bad, mut good) = (Vec::new(), None);
        for (path, file) in copies {
            match damage_of(file, job, expected) {
                None => good = good.or(file.as_ref().ok().map(|file| (path.as_path(), file))),
                Some(kind) => bad.push((path, kind)),
            }
        }
        let lost = bad.len() == copies.len();
        (bad.into_iter().map(|(path, kind)| self.damage(job, path, lost, kind)).collect(), good)
    }

    fn damage(&self, job: &Job, file: &Path, lost: bool, kind: DamageKind) -> Damage {
        Damage {
            volume: volume_name(job.volume),
            file: file.to_owned(),
            lost,
            piece: job.at / CHUNK_SIZE + 1,
            offset: job.offset,
            length: job.length,
            blob: self.contents.blobs.get(job.blob).map_or(Digest::Sha256([0; 32]), |blob| blob.digest),
            kind,
        }
    }
}

/// Damages in the order in which they lie in the volumes, each once.
pub fn sorted(mut damages: Vec<Damage>) -> Vec<Damage> {
    damages.sort_by(|a, b| (&a.volume, a.offset, &a.file).cmp(&(&b.volume, b.offset, &b.file)));
    damages.dedup();
    damages
}

/// What is wrong with a chunk in one file; `None` for nothing.
fn damage_of(file: &std::io::Result<File>, job: &Job, expected: Option<Digest>) -> Option<DamageKind> {
    match file.as_ref().map(|file| hash_range(file, job.offset, job.length)) {
        Ok(Ok(found)) if Some(found) == expected => None,
        Ok(Ok(_)) => Some(DamageKind::Changed),
        Ok(Err(error)) => Some(DamageKind::Unreadable(why(&error))),
        Err(error) => Some(DamageKind::Unreadable(why(error))),
    }
}

/// Reads a chunk that was right.
fn hand_over(file: &File, job: &Job, buffer: &mut [u8], take: &mut dyn FnMut(&[u8])) -> std::io::Result<()> {
    let mut done = 0;
    while done < job.length {
        let now = usize::try_from(job.length - done).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..now];
        file.read_exact_at(piece, job.offset + done)?;
        take(piece);
        done += now as u64;
    }
    Ok(())
}
