//! The one door by which bytes, names and removals reach a file system.
//!
//! Every file that sealift writes is written under another name, synced, renamed, and its folder synced: it is
//! there whole, or not at all. Nothing outside of this module writes, renames or removes, but for what
//! `docs/ARCHITECTURE.md` lists; inside of it, only [`disk`] asks the system for it.

mod disk;
#[cfg(test)]
mod faults;
pub mod lock;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::error::{Context, Error, Result};

/// How many bytes may be written before they are handed to the device, while the next ones are written. Without it a large
/// file sits in memory until the end, and the last sync takes minutes on a slow drive. At most twice as many wait in memory.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;

/// What the names of files made by [`Writer::unique`] end in.
pub const UNIQUE_EXTENSION: &str = "whole";

/// How often another name is tried for a file that somebody took for left over in the moment in which it was made.
const UNIQUE_ATTEMPTS: usize = 8;

/// A file under its temporary name. Dropped without [`Writer::finish`], what was written stays for resuming where the
/// name was given, and is removed where the name is unique: nobody would find it again.
pub struct Writer {
    file: File,
    path: PathBuf,
    position: u64,
    unsynced: u64,
    /// A sync that goes on while more is written.
    syncing: Option<JoinHandle<std::io::Result<()>>>,
    unique: bool,
}

impl Writer {
    /// Creates `path`, or opens what is there and cuts it to `keep` bytes, the part that the caller has checked.
    pub fn open(path: &Path, keep: u64) -> Result<Self> {
        let open = || -> std::io::Result<File> {
            let mut file = disk::open(path)?;
            if file.metadata()?.len() != keep {
                disk::set_len(path, &file, keep)?;
            }
            file.seek(SeekFrom::Start(keep))?;
            Ok(file)
        };
        let opened = match open() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && make_writable(path) => open(),
            outcome => outcome,
        };
        let file = opened.while_(|| format!("write {}", path.display()))?;
        Ok(Writer { file, path: path.to_owned(), position: keep, unsynced: 0, syncing: None, unique: false })
    }

    /// Creates a file in `folder` under a name that nobody else has. It is random, because a process id is the same in
    /// two containers, and a counter in two stores of one process; and a name that is taken is an error.
    ///
    /// It is locked as long as it is written: what [`remove_unused`] can lock belongs to nobody any more.
    pub fn unique(folder: &Path) -> Result<Self> {
        for _ in 0..UNIQUE_ATTEMPTS {
            let mut name = [0; 16];
            aws_lc_rs::rand::fill(&mut name).map_err(|_| Error::failed("no random numbers are to be had"))?;
            let path = folder.join(format!("{:032x}.{UNIQUE_EXTENSION}", u128::from_be_bytes(name)));
            let file = disk::create_new(&path, 0o666).while_(|| format!("write {}", path.display()))?;
            // Between the two lines it looked like left over, and may have been removed.
            let ours = file.try_lock().is_ok() && file.metadata().is_ok_and(|found| found.nlink() > 0);
            if ours {
                return Ok(Writer { file, path, position: 0, unsynced: 0, syncing: None, unique: true });
            }
        }
        Err(Error::failed(format!("temporary files in {} cannot be locked", folder.display()))
            .help("something else removes files there, or its file system has no locks"))
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes the file has.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The file, for locks and for reading back.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        disk::write(&self.path, &self.file, bytes).while_(|| format!("write {}", self.path.display()))?;
        self.position += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.begin_sync()?;
        }
        Ok(())
    }

    /// Hands everything written to the device while the caller goes on. The one before has to be over first.
    fn begin_sync(&mut self) -> Result<()> {
        self.end_sync()?;
        let file = self.file.try_clone().while_(|| format!("sync {}", self.path.display()))?;
        let path = self.path.clone();
        self.syncing = Some(std::thread::spawn(move || disk::sync_data(&path, &file)));
        self.unsynced = 0;
        Ok(())
    }

    /// Waits for a sync that goes on. Its error is told to nobody else: the kernel reports one once for an open file.
    fn end_sync(&mut self) -> Result<()> {
        let Some(thread) = self.syncing.take() else { return Ok(()) };
        self.trusted(thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the sync was broken off"))))
    }

    /// Hands everything written to the device. After an error the file is gone, see [`Writer::trusted`].
    pub fn sync(&mut self) -> Result<()> {
        self.end_sync()?;
        self.trusted(disk::sync_data(&self.path, &self.file))?;
        self.unsynced = 0;
        Ok(())
    }

    /// Removes the file when a sync of it failed: the kernel may have dropped pages that a second sync, and everybody who
    /// reads them until the next start, would call clean. Nobody may resume from it.
    fn trusted(&self, synced: std::io::Result<()>) -> Result<()> {
        if synced.is_err() {
            // The failed sync is what is told; a drive that fails may refuse this too.
            let _ = remove(&self.path);
        }
        synced.while_(|| format!("sync {}", self.path.display()))
    }

    /// Cuts the file back to `keep` bytes.
    pub fn cut(&mut self, keep: u64) -> Result<()> {
        let cut = |file: &mut File| {
            disk::set_len(&self.path, file, keep)?;
            file.seek(SeekFrom::Start(keep))
        };
        cut(&mut self.file).while_(|| format!("cut {}", self.path.display()))?;
        self.position = keep;
        Ok(())
    }

    /// Syncs the file, gives it its final name, syncs the folder, and sets the mode. A file that is already there under
    /// that name is replaced as a whole.
    pub fn finish(self, name: &Path, mode: u32) -> Result<()> {
        self.finish_unsynced(name, mode)?;
        sync_folder(parent(name))
    }

    /// The same without syncing the folder, for many files of which none counts before the folder was synced for all: a power
    /// loss may take the name back, and never leaves one without its bytes.
    ///
    /// The mode comes last: a partial file that may only be read could not be gone on with after a kill.
    pub fn finish_unsynced(mut self, name: &Path, mode: u32) -> Result<()> {
        self.end_sync()?;
        self.trusted(disk::sync_all(&self.path, &self.file))?;
        disk::rename(&self.path, name).while_(|| format!("rename {} to {}", self.path.display(), name.display()))?;
        self.unique = false;
        // vfat knows no modes; what it cannot keep is no reason to fail.
        let _ = disk::set_mode(name, mode);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The kernel tells a failed sync once. Nobody may resume from such a file.
        let _ = self.end_sync();
        if self.unique {
            // What cannot be removed now has a name by which it is known as left over.
            let _ = disk::remove(&self.path);
        }
    }
}

/// Lets the owner write to a file that may only be read, as a kill could leave a partial one behind; whether it did.
fn make_writable(path: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let mode = found.permissions().mode() | 0o200;
    found.is_file() && disk::set_mode(path, mode).is_ok()
}

/// Renames within a file system, and syncs the folder that gets the name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    disk::rename(from, to).while_(|| format!("rename {} to {}", from.display(), to.display()))?;
    sync_folder(parent(to))
}

/// Writes a small file whole: `bytes` under another name, synced, renamed, folder synced.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut writer = Writer::open(&with_suffix(path, ".partial"), 0)?;
    writer.write(bytes)?;
    writer.finish(path, mode)
}

/// Writes a secret: mode 0600 from the first byte on, and never over a file that is there.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = disk::create_new(path, 0o600).while_(|| format!("write {}", path.display()))?;
    let written = disk::write(path, &file, bytes).and_then(|()| disk::sync_all(path, &file));
    if written.is_err() {
        // Half a secret is none, and would be in the way of the next attempt.
        let _ = disk::remove(path);
    }
    written.while_(|| format!("write {}", path.display()))?;
    sync_folder(parent(path))
}

/// Removes a file; that it is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    match disk::remove(path) {
        Ok(()) => sync_folder(parent(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::from(error).while_(format!("remove {}", path.display()))),
    }
}

/// Creates a folder and its missing parents, one after the other, each synced in the folder that holds it. So is the name of
/// what is there already: a process that was killed may have made it a moment before.
pub fn create_folder(path: &Path) -> Result<()> {
    let exists = |folder: &Path| folder.as_os_str().is_empty() || folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !exists(folder)).collect();
    if let Some(there) = path.ancestors().nth(missing.len()).filter(|there| !there.as_os_str().is_empty()) {
        match sync_names(parent(there)) {
            // Where nobody may look, this process has made nothing.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            synced => synced.while_(|| format!("sync folder {}", parent(there).display()))?,
        }
    }
    for folder in missing.iter().rev() {
        match disk::create_folder(folder) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made.while_(|| format!("create folder {}", folder.display()))?,
        }
        sync_folder(parent(folder))?;
    }
    Ok(())
}

/// Opens a file for locks, made where it is not there. Nothing is ever written into it.
pub fn open_lock(path: &Path) -> Result<File> {
    disk::open(path).while_(|| format!("open {}", path.display()))
}

/// Removes a file that [`Writer::unique`] made, when its process has gone without finishing it; whether it did.
pub fn remove_unused(path: &Path) -> Result<bool> {
    // Only files are made under such names; a pipe would be waited for.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(false);
    }
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened.while_(|| format!("open {}", path.display()))?,
    };
    // It goes while it is locked: whoever made it a moment ago, and locks it now, sees that it has no name any more.
    if file.try_lock().is_err() {
        return Ok(false);
    }
    remove(path).map(|()| true)
}

/// Says that a database at `path` is about to make changes durable, which it does by its own means. Nothing is done here; an
/// error comes in tests only.
pub fn before_commit(path: &Path) -> Result<()> {
    disk::commit(path).while_(|| format!("write {}", path.display()))
}

/// How many bytes may still be written to the file system of `path`; `None` where it does not say.
pub fn free_space(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Makes the names in a folder durable. File systems that cannot sync a folder (some network and FUSE ones) say
/// so with EINVAL or ENOTSUP, and have no other way: that is no error.
pub fn sync_folder(path: &Path) -> Result<()> {
    sync_names(path).while_(|| format!("sync folder {}", path.display()))
}

fn sync_names(path: &Path) -> std::io::Result<()> {
    match disk::sync_folder(path) {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// `path` with `suffix` behind its last part.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
