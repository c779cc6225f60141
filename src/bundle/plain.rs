//! Opening files of a drive, which may hold anything under the names of a bundle's files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Kind, Result, Side};

/// What can be done about a file of a bundle that is missing or damaged.
pub(super) const WRITE_AGAIN: &str = "remove it and export to this drive again, which writes only what is missing";

/// Opens a regular file; never a link, a device or a pipe that a drive may hold under that name.
pub(crate) fn open_plain(path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Reads a regular file whole; of one that is longer than `limit`, one byte more than that, by which it is known.
pub(crate) fn read_plain(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of a bundle whole, at most `limit` bytes.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let bad = |what: String| Error::verification(what).on(Side::Bundle).help(WRITE_AGAIN);
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return Err(bad(format!("{} is no regular file", path.display())));
    }
    let bytes = read_plain(path, limit)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(Kind::Missing, format!("{} is missing", path.display())).help(
                "copy the whole folder again from the drive that it came on, or have it exported to this drive again",
            ),
            _ => Error::from(error).while_(format!("read {}", path.display())),
        })
        .map_err(|error| error.on(Side::Bundle).help(WRITE_AGAIN))?;
    if bytes.len() as u64 > limit {
        return Err(bad(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
