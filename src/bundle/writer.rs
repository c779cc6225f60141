//! Writing a bundle to a folder, volume by volume, as its table of contents says.
//!
//! Everything was decided before: names, places, lengths, and the digest of every chunk. So a volume that was cut short is
//! checked and continued, a lost one is made again alone, and bytes that are not the decided ones never reach a
//! final name.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::compare::{Behind, Piece, chunk_digest, first_bad, hash_range};
use super::contents::{Contents, Member, Payload};
use super::plain::{open_plain, read_file};
use super::{BUNDLE_CHUNKS, BUNDLE_JSON, BUNDLE_SIG, README, SUMS, frame};
use crate::content::{Body, CHUNK_SIZE, Rejected, Source, Status, Target, Work};
use crate::durable::{self, Writer};
use crate::error::{Context, Error, Result, Side};
use crate::oci::Digest;

/// Files on a drive get this mode, where the file system knows modes.
const MODE: u32 = 0o444;

const REMOVE_IT: &str = "a written file is never modified: remove it, and run the export again";

/// Whether what was written is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Each volume is read again past the page cache, and every chunk compared.
    Direct,
    /// Not at all.
    None,
}

/// The content of the files that are no blobs, by name.
pub struct SideFiles {
    /// What lies inside `meta.tar`, in the order of `files`.
    pub inner: Vec<(String, Vec<u8>)>,
    /// `README.txt`.
    pub readme: String,
    /// `SHA256SUMS`.
    pub sums: String,
}

/// A bundle that is being written to a folder. The volumes are written in their order by [`Target::take`]; then
/// [`BundleWriter::finish`] writes the small files, `bundle.json` last.
pub struct BundleWriter {
    state: Arc<Mutex<State>>,
}

struct State {
    folder: PathBuf,
    contents: Arc<Contents>,
    /// The exact bytes of `bundle.json`, and its signature.
    json: Vec<u8>,
    signature: Vec<u8>,
    chunks: Vec<u8>,
    first_chunks: Vec<u64>,
    members: Vec<Vec<Member>>,
    side: SideFiles,
    read_back: ReadBack,
    /// The volume that is being written, and which of its members is next.
    volume: usize,
    next: usize,
    writer: Option<Writer>,
    /// Compares what the writer has written with what was decided.
    behind: Option<Behind>,
    /// The volume that was found to be there already, and right.
    whole: Option<usize>,
    /// Set by the first failure: what follows would lie behind a hole.
    broken: bool,
}

impl BundleWriter {
    /// Begins (or goes on with) writing below `drive`, into the folder that bears the bundle's name.
    ///
    /// Fails when a complete but different bundle of that name is there.
    pub fn create(
        drive: &Path,
        contents: Arc<Contents>,
        json: Vec<u8>,
        signature: Vec<u8>,
        chunks: Vec<u8>,
        side: SideFiles,
        read_back: ReadBack,
    ) -> Result<Self> {
        let folder = drive.join(contents.name().to_string());
        if folder.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            return Err(Error::failed(format!("{} is no folder", folder.display()))
                .on(Side::Bundle)
                .help("something else bears the bundle's name on this drive: remove it"));
        }
        durable::create_folder(&folder).on(Side::Bundle)?;
        let there = folder.join(BUNDLE_JSON);
        if there.symlink_metadata().is_ok() && read_file(&there, json.len() as u64).ok().as_deref() != Some(&json) {
            return Err(Error::failed(format!("{} is there already, with other contents", there.display()))
                .on(Side::Bundle)
                .help("a written bundle is never modified: remove that folder, or export to another one"));
        }
        let (members, first_chunks) = (contents.members(), contents.first_chunks());
        let state = State {
            folder,
            contents,
            json,
            signature,
            chunks,
            first_chunks,
            members,
            side,
            read_back,
            volume: 0,
            next: 0,
            writer: None,
            behind: None,
            whole: None,
            broken: false,
        };
        Ok(BundleWriter { state: Arc::new(Mutex::new(state)) })
    }

    /// The folder.
    pub fn folder(&self) -> PathBuf {
        self.lock().folder.clone()
    }

    /// Ends the volumes and writes everything else; `bundle.json` last.
    pub async fn finish(self) -> Result<()> {
        let state = Arc::clone(&self.state);
        blocking(move || lock(&state).finish()).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::failed(format!("writing stopped: {error}")).on(Side::Bundle)))
}

impl Target for BundleWriter {
    async fn status(&self, work: &Work) -> Result<Status> {
        let (state, work) = (Arc::clone(&self.state), work.clone());
        blocking(move || lock(&state).status(&work)).await
    }

    async fn take<S: Source>(&self, work: &Work, offset: u64, source: &S) -> Result<(), Rejected> {
        let body = source.open(work, offset).await?;
        let (state, work) = (Arc::clone(&self.state), work.clone());
        Ok(blocking(move || lock(&state).take(&work, offset, body)).await?)
    }
}

impl State {
    /// Advances to the member of `work`, which comes in the order of the volumes, and says what is there of it.
    fn status(&mut self, work: &Work) -> Result<Status> {
        if self.broken {
            return Err(Error::failed("not written, because something before it failed").on(Side::Bundle));
        }
        loop {
            if self.volume >= self.members.len() {
                return Err(Error::failed(format!("{} is in no volume", work.descriptor.digest)).on(Side::Bundle));
            }
            if self.writer.is_none() && self.next == 0 && self.open_volume()? {
                // The whole volume is there; is the work in it, or further on?
                if self.holds(self.volume, work) {
                    return Ok(Status::Present);
                }
                self.volume += 1;
                continue;
            }
            let members = self.members.get(self.volume).map(Vec::as_slice).unwrap_or_default();
            if members.iter().take(self.next).any(|member| self.is(member, work)) {
                return Ok(Status::Present);
            }
            match members.get(self.next).cloned() {
                None => self.end_volume()?,
                Some(member) if self.is(&member, work) => return Ok(Status::From(self.position_in(&member, work))),
                Some(member) => self.write_inner_file(&member)?,
            }
        }
    }

    fn is(&self, member: &Member, work: &Work) -> bool {
        let Payload::Blob(blob, start) = member.payload else { return false };
        start == work.span.start && self.contents.blobs.get(blob).is_some_and(|b| b.digest == work.descriptor.digest)
    }

    fn holds(&self, volume: usize, work: &Work) -> bool {
        self.members.get(volume).is_some_and(|members| members.iter().any(|member| self.is(member, work)))
    }

    /// How far into the blob the current partial file reaches; the start of the span when not even a chunk is there.
    fn position_in(&self, member: &Member, work: &Work) -> u64 {
        let position = self.writer.as_ref().map_or(0, Writer::position);
        work.span.start + position.saturating_sub(member.offset).min(member.length)
    }

    fn path(&self, volume: usize) -> PathBuf {
        self.folder.join(super::volume_name(volume))
    }

    /// Opens the current volume; `true` when it is there under its final name.
    fn open_volume(&mut self) -> Result<bool> {
        let path = self.path(self.volume);
        let size = self.contents.volumes.get(self.volume).map_or(0, |volume| volume.size);
        match path.symlink_metadata() {
            Ok(found) if !found.is_file() => {
                let what = format!("{} is no regular file", path.display());
                return Err(Error::failed(what).on(Side::Bundle).help(REMOVE_IT));
            }
            Ok(found) if found.len() == size => {
                if self.whole != Some(self.volume)
                    && self.read_back == ReadBack::Direct
                    && let Some(offset) = self.first_bad_on_device(&path)?
                {
                    let what = format!("{} is there already, and damaged at {offset}", path.display());
                    return Err(Error::verification(what).on(Side::Bundle).help(REMOVE_IT));
                }
                self.whole = Some(self.volume);
                return Ok(true);
            }
            Ok(found) => {
                return Err(Error::failed(format!("{} has {} bytes instead of {size}", path.display(), found.len()))
                    .on(Side::Bundle)
                    .help(REMOVE_IT));
            }
            Err(_) => {}
        }
        let partial = durable::with_suffix(&path, ".partial");
        let (next, keep) = self.resumable(&partial);
        self.next = next;
        self.writer = Some(Writer::open(&partial, keep).on(Side::Bundle)?);
        self.behind = Some(Behind::begin(&partial));
        Ok(false)
    }

    /// What of a partial volume may be kept: which member is next, and how many bytes are good. It is read from the start,
    /// chunk by chunk, up to the first one that is not as it must be.
    fn resumable(&self, partial: &Path) -> (usize, u64) {
        let Ok(file) = open_plain(partial) else { return (0, 0) };
        let length = file.metadata().map_or(0, |found| found.len());
        let members = self.members.get(self.volume).map(Vec::as_slice).unwrap_or_default();
        for (at, member) in members.iter().enumerate() {
            let begin = member.offset - frame::BLOCK;
            let end = member.offset + member.length.next_multiple_of(frame::BLOCK);
            let mut header = [0; frame::BLOCK as usize];
            let header_good =
                file.read_exact_at(&mut header, begin).is_ok() && header == frame::header(&member.path, member.length);
            if !header_good {
                return (at, begin);
            }
            let good = self.good_prefix(&file, member);
            if good < member.length || end > length {
                // A member without one good chunk begins again with its header.
                let keep = if good == 0 { begin } else { member.offset + good / CHUNK_SIZE * CHUNK_SIZE };
                return (at, if keep == member.offset { begin } else { keep });
            }
        }
        let end = members.last().map_or(0, |last| last.offset + last.length.next_multiple_of(frame::BLOCK));
        (members.len(), end)
    }

    /// How many bytes of a member's payload are right, counted in whole chunks (or all of it).
    fn good_prefix(&self, file: &File, member: &Member) -> u64 {
        match member.payload {
            Payload::File(at) => {
                let mut bytes = vec![0; usize::try_from(member.length).unwrap_or(0)];
                let read = file.read_exact_at(&mut bytes, member.offset).is_ok();
                let right = self.contents.files.get(at).is_some_and(|entry| entry.digest == Digest::of(&bytes));
                if read && right { member.length } else { 0 }
            }
            Payload::Blob(blob, start) => {
                let mut good = 0;
                while good < member.length {
                    let length = (member.length - good).min(CHUNK_SIZE);
                    let found = hash_range(file, member.offset + good, length);
                    if found.as_ref().ok() != self.chunk_digest(blob, start + good).as_ref() {
                        break;
                    }
                    good += length;
                }
                good
            }
        }
    }

    fn chunk_digest(&self, blob: usize, offset: u64) -> Option<Digest> {
        chunk_digest(&self.contents.blobs, &self.chunks, &self.first_chunks, blob, offset)
    }

    fn writer(&mut self) -> Result<&mut Writer> {
        self.writer.as_mut().ok_or_else(|| Error::failed("no volume is open").on(Side::Bundle))
    }

    fn write_header(&mut self, member: &Member) -> Result<()> {
        self.writer()?.write(&frame::header(&member.path, member.length)).on(Side::Bundle)
    }

    fn write_padding(&mut self, length: u64) -> Result<()> {
        let zeros = [0; frame::BLOCK as usize];
        let padding = usize::try_from(frame::padding(length)).unwrap_or(0);
        self.writer()?.write(zeros.get(..padding).unwrap_or_default()).on(Side::Bundle)
    }

    /// Writes a member that is no blob. A blob's turn comes only with its work.
    fn write_inner_file(&mut self, member: &Member) -> Result<()> {
        let Payload::File(_) = member.payload else {
            return Err(Error::failed(format!("{} was left out of the work list", member.path)).on(Side::Bundle));
        };
        let bytes = self.side.inner.iter().find(|(path, _)| *path == member.path).map(|(_, bytes)| bytes.clone());
        let bytes = bytes.ok_or_else(|| Error::failed(format!("{} has no content", member.path)).on(Side::Bundle))?;
        self.write_header(member)?;
        self.writer()?.write(&bytes).on(Side::Bundle)?;
        self.write_padding(member.length)?;
        self.next += 1;
        Ok(())
    }

    fn take(&mut self, work: &Work, offset: u64, body: Body) -> Result<()> {
        let outcome = self.write_blob(work, offset, body);
        if outcome.is_err() {
            self.broken = true;
        }
        outcome
    }

    fn write_blob(&mut self, work: &Work, offset: u64, mut body: Body) -> Result<()> {
        let member = self.members.get(self.volume).and_then(|members| members.get(self.next)).cloned();
        let Some((member, Payload::Blob(blob, _))) = member.map(|member| (member.clone(), member.payload)) else {
            return Err(Error::failed("work came out of order").on(Side::Bundle));
        };
        if offset == work.span.start {
            self.write_header(&member)?;
        }
        let (mut at, mut compared) = (offset, offset);
        while let Some(piece) = body.blocking_next() {
            let piece = piece?;
            at += piece.len() as u64;
            if at > work.span.end {
                return Err(damaged(&work.descriptor.digest, "it is longer than it must be"));
            }
            self.writer()?.write(&piece).on(Side::Bundle)?;
            while compared < at {
                let chunk_end = ((compared / CHUNK_SIZE + 1) * CHUNK_SIZE).min(work.span.end);
                if chunk_end > at {
                    break;
                }
                self.compare_behind(Piece {
                    offset: member.offset + (compared - work.span.start),
                    length: chunk_end - compared,
                    expected: self.chunk_digest(blob, compared),
                })?;
                compared = chunk_end;
            }
        }
        if at != work.span.end {
            return Err(damaged(&work.descriptor.digest, "it is shorter than it must be"));
        }
        self.write_padding(member.length)?;
        self.next += 1;
        Ok(())
    }

    /// Has what was written compared while more is written.
    fn compare_behind(&mut self, piece: Piece) -> Result<()> {
        match self.behind.as_ref().is_some_and(|behind| behind.compare(piece)) {
            true => Ok(()),
            false => self.end_comparing(),
        }
    }

    /// Waits until all that was written is compared. An error names the first blob whose bytes are not those that were
    /// decided.
    fn end_comparing(&mut self) -> Result<()> {
        let Some(bad) = self.behind.take().and_then(Behind::finish) else { return Ok(()) };
        if let Some(error) = bad.unreadable {
            let path = self.path(self.volume);
            return Err(Error::from(error)
                .on(Side::Bundle)
                .while_(format!("read back {} at {}", path.display(), bad.offset))
                .help(
                    "the drive does not give back what it was given: use another one, or run the same command again",
                ));
        }
        let bad = bad.offset;
        let mut members = self.members.get(self.volume).into_iter().flatten();
        let member = members.find(|member| (member.offset..member.offset + member.length).contains(&bad));
        let blob = member.and_then(|member| match member.payload {
            Payload::Blob(blob, _) => self.contents.blobs.get(blob),
            Payload::File(_) => None,
        });
        let digest = blob.map_or(Digest::Sha256([0; 32]), |blob| blob.digest);
        Err(damaged(&digest, "a chunk has another digest than when it was pulled"))
    }

    fn end_volume(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.write(&[0; frame::TRAILER as usize]).on(Side::Bundle)?;
            writer.sync().on(Side::Bundle)?;
            self.end_comparing()?;
            if self.read_back == ReadBack::Direct
                && let Some(offset) = self.first_bad_on_device(writer.path())?
            {
                let path = self.path(self.volume);
                let what = format!("{}: what was read back at {offset} is not what was written", path.display());
                return Err(Error::verification(what)
                    .on(Side::Bundle)
                    .help("the drive does not keep what it is given: use another one"));
            }
            writer.finish(&self.path(self.volume), MODE).on(Side::Bundle)?;
        }
        self.volume += 1;
        self.next = 0;
        Ok(())
    }

    /// Reads the current volume, which lies at `path`, from the device and not from the page cache, and compares everything.
    /// Where the first piece begins that is not right; `None` when all are.
    fn first_bad_on_device(&self, path: &Path) -> Result<Option<u64>> {
        let file = open_plain(path).on(Side::Bundle).while_(|| format!("read {}", path.display()))?;
        // What somebody copied here a moment ago may not be written yet, and the cache does not let go of that.
        file.sync_data().on(Side::Bundle).while_(|| format!("sync {}", path.display()))?;
        // Advice only: where it is not taken, the comparison still is made.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(first_bad(path, &self.pieces()))
    }

    /// All payloads of the current volume, chunk by chunk.
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for member in self.members.get(self.volume).into_iter().flatten() {
            match member.payload {
                Payload::File(at) => {
                    let expected = self.contents.files.get(at).map(|entry| entry.digest);
                    pieces.push(Piece { offset: member.offset, length: member.length, expected });
                }
                Payload::Blob(blob, start) => {
                    let mut done = 0;
                    while done < member.length {
                        let length = (member.length - done).min(CHUNK_SIZE);
                        let expected = self.chunk_digest(blob, start + done);
                        pieces.push(Piece { offset: member.offset + done, length, expected });
                        done += length;
                    }
                }
            }
        }
        pieces
    }

    fn finish(&mut self) -> Result<()> {
        while self.volume < self.members.len() {
            if self.writer.is_none() && self.next == 0 && self.open_volume()? {
                self.volume += 1;
                continue;
            }
            match self.members.get(self.volume).and_then(|members| members.get(self.next)).cloned() {
                None => self.end_volume()?,
                Some(member) => self.write_inner_file(&member)?,
            }
        }
        let files: [(&str, &[u8]); 5] = [
            (BUNDLE_CHUNKS, &self.chunks),
            (SUMS, self.side.sums.as_bytes()),
            (README, self.side.readme.as_bytes()),
            (BUNDLE_SIG, &self.signature),
            (BUNDLE_JSON, &self.json),
        ];
        for (name, bytes) in files {
            let path = self.folder.join(name);
            if read_file(&path, bytes.len() as u64).is_ok_and(|there| there == bytes) {
                continue;
            }
            durable::write_file(&path, bytes, MODE).on(Side::Bundle)?;
        }
        // Also what an earlier attempt renamed and had no time to sync.
        durable::sync_folder(&self.folder).on(Side::Bundle)
    }
}

fn damaged(blob: &Digest, how: &str) -> Error {
    Error::verification(format!("blob {blob}: {how}"))
        .on(Side::Store)
        .help("`sealift verify STORE` says whether the blob is damaged there: then delete that file below blobs/, pull again, and run the export again. If it is not, the drive garbles what it is given: use another one")
}
