//! Where the bytes of an archive go: through a compressor into a new file, or into the comparison with one that is there.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use super::MODE;
use super::check::unwrapped;
use super::place::{Form, Place, other_contents};
use crate::content::PIECE_SIZE;
use crate::durable::Writer;
use crate::error::{Context, Error, Result, Side};

/// gzip's level: the fastest that does not make longer what is compressed already, as layers are. Level 1 of zlib-rs writes
/// random bytes with 5 % more; more work than this would gain nothing.
const GZIP_LEVEL: u32 = 2;

/// zstd's level: its default.
const ZSTD_LEVEL: i32 = 3;

/// How often, and how far apart, the lock of a folder is tried.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// Compresses, or not.
pub(super) enum Packer {
    Plain(BufWriter<Sink>),
    Gzip(GzEncoder<BufWriter<Sink>>),
    Zstd(zstd::Encoder<'static, BufWriter<Sink>>),
}

impl Packer {
    /// Its bytes are a function of what is written to it: no time, no name, fixed levels.
    pub(super) fn new(form: Form, sink: Sink) -> io::Result<Self> {
        let sink = BufWriter::with_capacity(PIECE_SIZE, sink);
        Ok(match form {
            Form::Folder | Form::Tar => Packer::Plain(sink),
            Form::TarGz => Packer::Gzip(GzBuilder::new().mtime(0).write(sink, Compression::new(GZIP_LEVEL))),
            Form::TarZst => {
                let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Packer::Zstd(encoder)
            }
        })
    }

    /// Ends the stream.
    pub(super) fn finish(self) -> io::Result<Sink> {
        let sink = match self {
            Packer::Plain(sink) => sink,
            Packer::Gzip(encoder) => encoder.finish()?,
            Packer::Zstd(encoder) => encoder.finish()?,
        };
        sink.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packer::Plain(sink) => sink.write(bytes),
            Packer::Gzip(encoder) => encoder.write(bytes),
            Packer::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Packer::Plain(sink) => sink.flush(),
            Packer::Gzip(encoder) => encoder.flush(),
            Packer::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// The end of the line.
pub(super) enum Sink {
    /// A file that gets its name when it is whole.
    New(Writer),
    /// A file that is there and must hold the same.
    There(File, PathBuf),
}

impl Sink {
    pub(super) fn open(place: &Place) -> Result<Self> {
        let path = &place.path;
        if place.there {
            let file = File::open(path).while_(|| format!("read {}", path.display()))?;
            return Ok(Sink::There(file, path.clone()));
        }
        let partial = place.partial();
        // While this is held nobody else opens, and so cuts, a partial file in this folder. It is held for moments.
        let folder = File::open(place.parent()).while_(|| format!("open {}", place.parent().display()))?;
        wait_for(&folder, place.parent())?;
        if let Ok(found) = partial.symlink_metadata() {
            if !found.is_file() || found.nlink() > 1 {
                return Err(Error::failed(format!("{} is there, and is no file of its own", partial.display()))
                    .on(Side::Layout)
                    .help("remove it, and run the same command again"));
            }
            exclusive(&File::open(&partial).while_(|| format!("open {}", partial.display()))?, &partial)?;
        }
        let writer = Writer::open(&partial, 0)?;
        exclusive(writer.file(), &partial)?;
        Ok(Sink::New(writer))
    }

    /// Gives a new file its name, and says whether one that was there ends here too.
    pub(super) fn finish(self, place: &Place) -> Result<()> {
        match self {
            Sink::New(_) if place.path.symlink_metadata().is_ok() => Err(other_contents(&place.path)),
            Sink::New(writer) => writer.finish(&place.path, MODE),
            Sink::There(mut file, path) => match file.read(&mut [0])? {
                0 => Ok(()),
                _ => Err(other_contents(&path)),
            },
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Sink::New(writer) => writer.write(bytes),
            Sink::There(file, path) => compare(file, path, bytes),
        };
        written.map(|()| bytes.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compares `bytes` with what comes next in the file.
fn compare(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut found = [0; 8192];
    for piece in bytes.chunks(found.len()) {
        let found = found.get_mut(..piece.len()).unwrap_or_default();
        match file.read_exact(found) {
            Ok(()) if found == piece => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(unwrapped(error).while_(format!("read {}", path.display())));
            }
            _ => return Err(other_contents(path)),
        }
    }
    Ok(())
}

/// Takes the lock of a folder, which others hold for moments. A file system without locks is no reason to fail.
fn wait_for(folder: &File, path: &Path) -> Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            _ => return Ok(()),
        }
    }
    Err(Error::failed(format!("another process holds a lock on {}", path.display()))
        .on(Side::Layout)
        .help("wait until it has finished, or choose another folder"))
}

/// Makes sure that no other process writes to `file` while it is open. A file system without locks is no reason to fail.
pub(super) fn exclusive(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Error::failed(format!("another sealift process writes {}", path.display()))
                .on(Side::Layout)
                .help("wait until it has finished, then run the same command again"))
        }
        _ => Ok(()),
    }
}
