//! The one door by which bytes, names and removals reach a file system.
//!
//! Every file that sealift writes is written under another name, synced, renamed, and its folder synced: it is
//! there whole, or not at all. Nothing outside of this module writes, renames or removes, but for what
//! `docs/ARCHITECTURE.md` lists.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::error::{Context, Error, Result};

/// How many bytes may be written before they are handed to the device, while the next ones are written. Without it a large
/// file sits in memory until the end, and the last sync takes minutes on a slow drive. At most twice as many wait in memory.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;

/// What the names of files made by [`Writer::unique`] end in.
pub const UNIQUE_EXTENSION: &str = "whole";

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
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(path)?;
            file.set_len(keep)?;
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
    pub fn unique(folder: &Path) -> Result<Self> {
        let mut name = [0; 16];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| Error::failed("no random numbers are to be had"))?;
        let path = folder.join(format!("{:032x}.{UNIQUE_EXTENSION}", u128::from_be_bytes(name)));
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = created.while_(|| format!("write {}", path.display()))?;
        Ok(Writer { file, path, position: 0, unsynced: 0, syncing: None, unique: true })
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
        self.file.write_all(bytes).while_(|| format!("write {}", self.path.display()))?;
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
        self.syncing = Some(std::thread::spawn(move || file.sync_data()));
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
        self.trusted(self.file.sync_data())?;
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
            file.set_len(keep)?;
            file.seek(SeekFrom::Start(keep))
        };
        cut(&mut self.file).while_(|| format!("cut {}", self.path.display()))?;
        self.position = keep;
        Ok(())
    }

    /// Syncs the file, gives it its final name, syncs the folder, and sets the mode. A file that is already there under
    /// that name is replaced as a whole.
    ///
    /// The mode comes last: a partial file that may only be read could not be gone on with after a kill.
    pub fn finish(mut self, name: &Path, mode: u32) -> Result<()> {
        self.end_sync()?;
        self.trusted(self.file.sync_all())?;
        rename(&self.path, name)?;
        self.unique = false;
        // vfat knows no modes; what it cannot keep is no reason to fail.
        let _ = self.file.set_permissions(fs::Permissions::from_mode(mode));
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.unique {
            // What cannot be removed now has a name by which it is known as left over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Lets the owner write to a file that may only be read, as a kill could leave a partial one behind; whether it did.
fn make_writable(path: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return false };
    let mode = found.permissions().mode() | 0o200;
    found.is_file() && fs::set_permissions(path, fs::Permissions::from_mode(mode)).is_ok()
}

/// Renames within a file system, and syncs the folder that gets the name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).while_(|| format!("rename {} to {}", from.display(), to.display()))?;
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
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().while_(|| format!("write {}", path.display()))?;
    sync_folder(parent(path))
}

/// Removes a file; that it is not there is no error.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(parent(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::from(error).while_(format!("remove {}", path.display()))),
    }
}

/// Creates a folder and its missing parents, and syncs what got a new name in it.
pub fn create_folder(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    fs::create_dir_all(path).while_(|| format!("create folder {}", path.display()))?;
    missing.iter().rev().try_for_each(|folder| sync_folder(parent(folder)))
}

/// How many bytes may still be written to the file system of `path`; `None` where it does not say.
pub fn free_space(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Makes the names in a folder durable. File systems that cannot sync a folder (some network and FUSE ones) say
/// so with EINVAL or ENOTSUP, and have no other way: that is no error.
pub fn sync_folder(path: &Path) -> Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Err(Error::from(error).while_(format!("sync folder {}", path.display())))
        }
        _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut writer = Writer::open(&with_suffix(&path, ".partial"), 0).unwrap();
        writer.write(b"half").unwrap();
        drop(writer);
        assert!(!path.exists());
        let mut writer = Writer::open(&with_suffix(&path, ".partial"), 2).unwrap();
        writer.write(b"nd").unwrap();
        writer.finish(&path, 0o444).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hand");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_unique_file_is_one_of_its_own_and_goes_when_it_is_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (Writer::unique(folder.path()).unwrap(), Writer::unique(folder.path()).unwrap());
        one.write(b"one").unwrap();
        other.write(b"other").unwrap();
        let path = folder.path().join("x");
        one.finish(&path, 0o444).unwrap();
        drop(other);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// Says something only where the tests do not run as root, who may write to everything.
    #[test]
    fn a_partial_file_that_may_only_be_read_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let (path, partial) = (folder.path().join("x"), folder.path().join("x.partial"));
        fs::write(&partial, b"half").unwrap();
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o444)).unwrap();
        let mut writer = Writer::open(&partial, 2).unwrap();
        writer.write(b"nd").unwrap();
        writer.finish(&path, 0o444).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"hand");
    }

    #[test]
    fn the_mode_is_set_only_under_the_final_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, partial) = (folder.path().join("x"), folder.path().join("x.partial"));
        // A folder cannot be replaced by a file: the rename fails.
        fs::create_dir(&path).unwrap();
        assert!(Writer::open(&partial, 0).unwrap().finish(&path, 0o444).is_err());
        assert_ne!(fs::metadata(&partial).unwrap().permissions().mode() & 0o200, 0);
    }

    #[test]
    fn after_a_failed_sync_there_is_nothing_to_resume_from() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("x.partial");
        let unsyncable = || {
            fs::write(&partial, b"half").unwrap();
            // This device knows no sync, and says so.
            let file = OpenOptions::new().write(true).open("/dev/null").unwrap();
            Writer { file, path: partial.clone(), position: 4, unsynced: 4, syncing: None, unique: false }
        };
        assert!(unsyncable().sync().is_err());
        assert!(!partial.exists());
        assert!(unsyncable().finish(&folder.path().join("x"), 0o444).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_secret_is_for_its_owner_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("name.key");
        write_secret(&path, b"k").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write_secret(&path, b"other").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"k");
    }
}
