//! The world of [`super::super::faults`] does what it says: a test of a test.

use std::path::Path;

use rustix::io::Errno;

use super::super::faults::{Fault, LOSSES, World};
use super::super::*;

fn bytes_of(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

/// What each loss leaves of `name`.
fn left(world: &World, folder: &Path, name: &str) -> [Option<Vec<u8>>; 5] {
    LOSSES.map(|loss| {
        let into = folder.join(format!("after-{loss:?}"));
        world.after(loss, &into);
        let found = bytes_of(&into.join(name));
        fs::remove_dir_all(into).unwrap();
        found
    })
}

#[test]
fn bytes_and_names_are_lost_apart_from_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("old"), "old").unwrap();
    let world = World::watch(&root, Fault::None);
    let mut writer = Writer::open(&root.join("new.partial"), 0).unwrap();
    writer.write(b"syn").unwrap();
    writer.sync().unwrap();
    writer.write(b"ced").unwrap();
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    // Nobody has synced the folder: without names nothing is there.
    let partial = left(&world, folder.path(), "new.partial");
    assert_eq!(partial, [some(b"synced"), some(b"syn\0\0\0"), some(b"syn"), None, None]);
    sync_folder(&root).unwrap();
    writer.cut(2).unwrap();
    writer.write(b"?").unwrap();
    let cut = left(&world, folder.path(), "new.partial");
    assert_eq!(cut, [some(b"sy?"), some(b"sy\0"), some(b"syn"), some(b"sy?"), some(b"syn")]);
    writer.finish(&root.join("new"), 0o444).unwrap();
    assert_eq!(left(&world, folder.path(), "new"), [(); 5].map(|()| some(b"sy?")));
    assert_eq!(left(&world, folder.path(), "new.partial"), [(); 5].map(|()| None));
}

#[test]
fn what_was_removed_or_renamed_over_without_a_sync_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "a").unwrap();
    fs::write(root.join("b"), "b").unwrap();
    let world = World::watch(&root, Fault::None);
    disk::rename(&root.join("a"), &root.join("b")).unwrap();
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    assert_eq!(left(&world, folder.path(), "a"), [None, None, None, some(b"a"), some(b"a")]);
    assert_eq!(left(&world, folder.path(), "b"), [some(b"a"), some(b"a"), some(b"a"), some(b"b"), some(b"b")]);
    disk::remove(&root.join("b")).unwrap();
    assert_eq!(left(&world, folder.path(), "b"), [None, None, None, some(b"b"), some(b"b")]);
    sync_folder(&root).unwrap();
    assert_eq!(left(&world, folder.path(), "b"), [(); 5].map(|()| None));
}

#[test]
fn a_fault_comes_at_its_operation_and_a_stop_ends_everything() {
    let folder = tempfile::tempdir().unwrap();
    let write = |root: &Path| write_file(&root.join("x"), b"four", 0o644);
    let mut operations = 0;
    for (name, fault) in [
        ("none", Fault::None),
        ("stop", Fault::Stop(2)),
        ("once", Fault::Once(2, Errno::IO.raw_os_error())),
        ("full", Fault::Full(2)),
        ("forever", Fault::Forever(2, Errno::ROFS.raw_os_error())),
    ] {
        let root = folder.path().join(name);
        fs::create_dir(&root).unwrap();
        let world = World::watch(&root, fault);
        assert_eq!(write(&root).is_ok(), fault == Fault::None, "{fault:?}");
        assert_eq!(world.met(), fault != Fault::None, "{fault:?}");
        // The second operation is the write, of which half is done.
        let partial = bytes_of(&root.join("x.partial"));
        assert_eq!(partial, (fault != Fault::None).then(|| b"fo".to_vec()), "{fault:?}");
        operations = operations.max(world.operations());
        let again = write(&root).is_ok();
        assert_eq!(again, matches!(fault, Fault::None | Fault::Once(..)), "{fault:?}");
    }
    assert_eq!(operations, 6, "create, write, sync, rename, sync of the folder, mode");
}

#[test]
fn a_sync_that_fails_loses_what_it_was_to_keep() {
    let folder = tempfile::tempdir().unwrap();
    let _world = World::watch(folder.path(), Fault::Once(3, Errno::IO.raw_os_error()));
    let path = folder.path().join("x");
    let file = disk::open(&path).unwrap();
    disk::write(&path, &file, b"lost").unwrap();
    disk::sync_data(&path, &file).unwrap_err();
    assert_eq!(bytes_of(&path).unwrap(), [0; 4]);
}
