//! A layout as one archive: a tar file, compressed or not, written from its beginning to its end.

use std::sync::{Arc, Mutex, PoisonError};

use super::check::{Checked, unwrapped};
use super::place::Place;
use super::sink::{Packer, Sink};
use super::{LayoutContents, MODE, blocking};
use crate::content::{Body, Work};
use crate::durable;
use crate::error::{Context, Error, Result, Side};

/// What is said to whoever ran out of room, in place of what is true of everything else.
const BEGINS_AGAIN: &str = "look at what came back, and run the same command again: an archive begins again";

/// A layout that is being written as an archive.
pub struct ArchiveWriter {
    place: Place,
    /// `None` once something has failed: what follows would lie behind a hole.
    tar: Arc<Mutex<Option<tar::Builder<Packer>>>>,
}

impl ArchiveWriter {
    pub(super) fn create(place: Place, contents: &LayoutContents) -> Result<Self> {
        let sink = Sink::open(&place).on(Side::Layout)?;
        let writer = ArchiveWriter { place, tar: Arc::default() };
        match begin(&writer.place, sink, contents) {
            Ok(tar) => {
                *writer.lock() = Some(tar);
                Ok(writer)
            }
            Err(error) => {
                // What went wrong is what is told; what is left is written over by the next attempt.
                let _ = writer.give_up();
                Err(error)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<tar::Builder<Packer>>> {
        self.tar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn take(&self, work: &Work, body: Body) -> Result<()> {
        let (tar, blob) = (Arc::clone(&self.tar), work.descriptor.clone());
        blocking(move || {
            let mut slot = tar.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(mut tar) = slot.take() else { return Err(broken()) };
            let path = blob.digest.layout_path();
            tar.append_data(&mut header(blob.size), path, Checked::new(body, &blob)).map_err(told)?;
            *slot = Some(tar);
            Ok(())
        })
        .await
    }

    pub(super) fn finish(self) -> Result<()> {
        let tar = self.lock().take().ok_or_else(broken)?;
        let ended = tar.into_inner().and_then(Packer::finish).map_err(told);
        let finished = ended.and_then(|sink| sink.finish(&self.place).on(Side::Layout));
        if finished.is_err() {
            let _ = self.give_up();
        }
        finished
    }

    pub(super) fn give_up(self) -> Result<()> {
        drop(self.lock().take());
        match self.place.there {
            true => Ok(()),
            false => durable::remove(&self.place.partial()).on(Side::Layout),
        }
    }
}

/// The small files come first: a reader of a stream learns from them what follows.
fn begin(place: &Place, sink: Sink, contents: &LayoutContents) -> Result<tar::Builder<Packer>> {
    let mut tar = tar::Builder::new(Packer::new(place.form, sink).map_err(told)?);
    for (path, bytes) in &contents.files {
        tar.append_data(&mut header(bytes.len() as u64), path, bytes.as_slice()).map_err(told)?;
    }
    Ok(tar)
}

/// A header without clock and owner. It is ustar, but for two things that ustar cannot say and every reader of the day
/// knows from GNU tar: a length from 8 GiB on stands in base 256, and a path of more than 100 bytes (sha512) in an
/// entry of its own before.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    let _ = header.set_device_major(0);
    let _ = header.set_device_minor(0);
    header
}

fn told(error: std::io::Error) -> Error {
    let error = unwrapped(error);
    match error.side() {
        // The store's own words say how to mend it.
        Some(_) => error,
        None => error.on(Side::Layout).help_first(BEGINS_AGAIN),
    }
}

fn broken() -> Error {
    Error::failed("not written, because something before it failed").on(Side::Layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    #[test]
    fn what_ustar_cannot_say_is_read_back_by_tar() {
        let long = Digest::Sha512([0xab; 64]).layout_path();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header(3), &long, &b"abc"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str().unwrap(), long);
        const LARGE: u64 = 9 * 1024 * 1024 * 1024;
        assert_eq!(header(LARGE).entry_size().unwrap(), LARGE);
    }

    #[test]
    fn a_usual_member_is_pure_ustar() {
        let mut usual = header(5);
        usual.set_path(Digest::of(b"x").layout_path()).unwrap();
        usual.set_cksum();
        assert_eq!(&usual.as_bytes()[257..265], b"ustar\x0000");
        assert_eq!(&usual.as_bytes()[136..148], b"00000000000\0");
    }
}
