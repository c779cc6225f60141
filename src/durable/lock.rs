//! Locks between processes: `flock` on files into which nothing is written.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::open_lock;
use crate::error::{Context, Error, Result};

/// The most of the kernel's table of locks that is read.
const TABLE_SIZE_MAX: u64 = 1024 * 1024;

/// The most holders that an error names.
const HOLDERS_MAX: usize = 5;

/// Takes a lock, for as long as the file is open. Nothing waits: where another process excludes it, the error says which,
/// and calls it `other`.
pub fn take(path: &Path, exclusive: bool, other: &str) -> Result<File> {
    let file = open_lock(path)?;
    let outcome = if exclusive { file.try_lock() } else { file.try_lock_shared() };
    outcome.map_err(|why| refused(why, &file, path, other))?;
    Ok(file)
}

/// Makes an exclusive lock a shared one. `flock` gives the one up before it takes the other: the caller sees to it that
/// nobody comes between.
pub fn share(file: &File, path: &Path) -> Result<()> {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockShared)
        .map_err(std::io::Error::from)
        .while_(|| format!("share {}", path.display()))
}

fn refused(why: TryLockError, file: &File, path: &Path, other: &str) -> Error {
    let error = match why {
        TryLockError::Error(error) => return Error::from(error).while_(format!("lock {}", path.display())),
        TryLockError::WouldBlock => Error::failed(format!("{other} holds {}{}", path.display(), holders(file))),
    };
    error.help("wait until it has finished, then run the same command again")
}

/// Who holds a lock on `file`, in words; nothing where the kernel does not tell, as across containers.
fn holders(file: &File) -> String {
    let Ok(found) = file.metadata() else { return String::new() };
    let mut table = String::new();
    // What was read before an error is good for as much.
    let _ = File::open("/proc/locks").and_then(|file| file.take(TABLE_SIZE_MAX).read_to_string(&mut table));
    let processes: Vec<&str> = table.lines().filter_map(|line| holder(line, found.ino())).take(HOLDERS_MAX).collect();
    match processes.as_slice() {
        [] => String::new(),
        [one] => format!(" (process {one})"),
        several => format!(" (processes {})", several.join(", ")),
    }
}

/// The process of a line such as `1: FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF`, when it is a lock on `inode`. The device
/// is not compared: file systems of several layers tell another one than `stat`.
fn holder(line: &str, inode: u64) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, process, place, ..] = words.as_slice() else { return None };
    let told = place.rsplit(':').next()?.parse::<u64>().ok()?;
    // A process of another namespace has the number 0 or -1.
    (told == inode && process.parse::<u32>().is_ok_and(|number| number > 0)).then_some(*process)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "another sealift process";

    #[test]
    fn an_error_names_the_lock_and_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = take(&path, true, OTHER).unwrap();
        let error = take(&path, false, OTHER).unwrap_err().to_string();
        assert!(error.starts_with(&format!("another sealift process holds {}", path.display())), "{error}");
        // Not told everywhere; where it is, it is this one.
        let told = error.split_once(" (process ").map(|(_, told)| told.trim_end_matches(')'));
        assert!(told.is_none_or(|told| told == std::process::id().to_string()), "{error}");
        share(&held, &path).unwrap();
        take(&path, false, OTHER).unwrap();
        assert!(take(&path, true, OTHER).is_err());
    }

    #[test]
    fn lines_of_the_table() {
        let line = "1: FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF";
        assert_eq!(holder(line, 1234), Some("4711"));
        assert_eq!(holder(line, 123), None);
        for line in
            ["1: POSIX  ADVISORY  WRITE 4711 fd:00:1234 0 EOF", "1: FLOCK ADVISORY READ 0 fd:00:1234 0 EOF", "1:", ""]
        {
            assert_eq!(holder(line, 1234), None, "{line}");
        }
        assert_eq!(holder("1: -> FLOCK  ADVISORY  WRITE 4711 fd:00:1234 0 EOF", 1234), None, "it waits");
    }
}
