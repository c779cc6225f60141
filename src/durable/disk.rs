//! The operations that change a file system, one function for each. Nothing else in this crate calls the system for them.
//!
//! Each is announced as an [`Op`] first. In a build for tests that is where a disk fills up, fails, or loses power; in any
//! other build nothing comes between.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Result, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

#[cfg(test)]
use super::faults::step;

/// What is about to happen, and to what.
#[cfg_attr(not(test), allow(dead_code, reason = "what is announced is heard by tests"))]
pub(super) enum Op<'a> {
    /// A file is opened for writing, and made where it is not there.
    Open(&'a Path),
    /// Bytes are appended.
    Write(&'a Path, &'a File, &'a [u8]),
    /// A file gets this length.
    SetLen(&'a Path, u64),
    /// The bytes of a file go to the device.
    Sync(&'a Path, &'a File),
    /// A file or folder gets another name.
    Rename(&'a Path, &'a Path),
    /// A name goes, and with it the file.
    Remove(&'a Path),
    /// A folder is made.
    CreateFolder(&'a Path),
    /// The names in a folder go to the device.
    SyncFolder(&'a Path),
    /// A file gets another mode.
    Mode(&'a Path),
    /// A database makes its changes durable, by its own means.
    Commit(&'a Path),
}

#[cfg(not(test))]
fn step<T>(_: Op<'_>, act: impl FnOnce() -> Result<T>) -> Result<T> {
    act()
}

/// Opens a file for reading and writing at its beginning, and makes it where it is not there; never through a link.
pub(super) fn open(path: &Path) -> Result<File> {
    step(Op::Open(path), || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(path)
    })
}

/// Makes a file that must not be there yet.
pub(super) fn create_new(path: &Path, mode: u32) -> Result<File> {
    step(Op::Open(path), || OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path))
}

/// Writes all of `bytes` at the file's position, which is its end.
pub(super) fn write(path: &Path, mut file: &File, bytes: &[u8]) -> Result<()> {
    step(Op::Write(path, file, bytes), || file.write_all(bytes))
}

/// Cuts or lengthens a file.
pub(super) fn set_len(path: &Path, file: &File, length: u64) -> Result<()> {
    step(Op::SetLen(path, length), || file.set_len(length))
}

/// Hands the bytes of a file to the device, and its length.
pub(super) fn sync_data(path: &Path, file: &File) -> Result<()> {
    step(Op::Sync(path, file), || file.sync_data())
}

/// The same, with everything else that is known about the file.
pub(super) fn sync_all(path: &Path, file: &File) -> Result<()> {
    step(Op::Sync(path, file), || file.sync_all())
}

/// Renames within a file system; what bears the new name is replaced.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    step(Op::Rename(from, to), || fs::rename(from, to))
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> Result<()> {
    step(Op::Remove(path), || fs::remove_file(path))
}

/// Makes one folder.
pub(super) fn create_folder(path: &Path) -> Result<()> {
    step(Op::CreateFolder(path), || fs::create_dir(path))
}

/// Hands the names in a folder to the device.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    step(Op::SyncFolder(path), || File::open(path)?.sync_all())
}

/// Gives a file a mode.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    step(Op::Mode(path), || fs::set_permissions(path, Permissions::from_mode(mode)))
}

/// Announces that a database will make changes durable.
pub(super) fn commit(path: &Path) -> Result<()> {
    step(Op::Commit(path), || Ok(()))
}
