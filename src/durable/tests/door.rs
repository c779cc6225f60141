//! What the door does by itself.

use std::fs::OpenOptions;

use super::super::*;

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
