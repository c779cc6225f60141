//! Layers that are split, shared, damaged and missing, on one drive and on several.

use std::fs;
use std::path::{Path, PathBuf};

use sealift::Kind;
use sealift::bundle::Contents;
use sealift::layers::Why;
use sealift::verify::verify;

use crate::made::{GZIP, Layer, ZSTD, archive, gzip, image, zstd};
use crate::{MIB, World};

/// A layer of two chunks and one of one, shared by two images.
const LARGE: usize = 36 * MIB;

async fn world() -> World {
    let large = archive(1, LARGE);
    let small = archive(2, 300_000);
    let layers = [Layer::new(GZIP, gzip(&large), &large), Layer::new(ZSTD, zstd(&small), &small)];
    World::of(&[("team/one".into(), image(&layers)), ("team/two".into(), image(&layers[..1]))]).await
}

fn contents(folder: &Path) -> Contents {
    Contents::parse(&fs::read(folder.join("bundle.json")).unwrap()).unwrap()
}

/// Another drive with a copy of everything but the volumes that `moves` says: those are moved there.
fn second_drive(world: &World, folder: &Path, moves: impl Fn(&str) -> bool) -> PathBuf {
    let other = world.path("second");
    fs::create_dir(&other).unwrap();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        match (name.starts_with("vol-"), moves(name)) {
            (true, false) => {}
            (true, true) => fs::rename(&path, other.join(name)).unwrap(),
            _ => drop(fs::copy(&path, other.join(name)).unwrap()),
        }
    }
    other
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_split_over_drives_is_unpacked_in_order() {
    let world = world().await;
    let folder = world.export(17 * MIB as u64).await;
    let parts = contents(&folder).blobs.iter().map(|blob| blob.extents.len()).max().unwrap();
    assert_eq!(parts, 2);
    let other = second_drive(&world, &folder, |name| name == "vol-0002.tar");

    let drives = [folder, other];
    let report = world.verify(&drives);
    assert_eq!(report.verdict(), None, "{report:#?}");
    let deep = report.deep.clone().unwrap();
    assert_eq!((deep.layers, deep.unpacked_bytes), (2, LARGE as u64 + 300_000));
    let shallow = verify(&drives, &world.keys(), &sealift::monitor::Silent).unwrap();
    assert_eq!(report.bytes, shallow.bytes, "every chunk was read and counted once");

    let alone = world.verify(&drives[..1]);
    assert_eq!(alone.verdict(), Some(Kind::Missing), "{alone:#?}");
    let deep = alone.deep.unwrap();
    assert_eq!((deep.layers, deep.failures.len()), (1, 0));
    assert_eq!(
        deep.not_checked.iter().map(|skipped| (skipped.why, skipped.layers)).collect::<Vec<_>>(),
        [(Why::Lost, 1)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_as_without_unpacking() {
    let world = world().await;
    let folder = world.export(50 * MIB as u64).await;
    let contents = contents(&folder);
    let large = contents.blobs.iter().max_by_key(|blob| blob.size).unwrap();
    let extent = large.extents[0];
    let volume = format!("vol-{:04}.tar", extent.volume);
    // A byte in each of its chunks.
    flip(&folder.join(&volume), extent.offset + MIB as u64);
    flip(&folder.join(&volume), extent.offset + extent.length - 1);
    let folders = [folder];
    let report = world.verify(&folders);
    let shallow = verify(&folders, &world.keys(), &sealift::monitor::Silent).unwrap();
    assert_eq!(report.damages.len(), 2);
    assert_eq!((&report.damages, report.bytes), (&shallow.damages, shallow.bytes));
    assert_eq!(report.images, shallow.images);
    let deep = report.deep.as_ref().unwrap();
    assert_eq!((deep.layers, deep.failures.len()), (1, 0), "what the drive changed is no fault of the image");
    assert_eq!(deep.not_checked.len(), 1);
    assert_eq!(report.verdict(), Some(Kind::Verification));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_copies_a_good_one_is_unpacked() {
    let world = world().await;
    let folder = world.export(50 * MIB as u64).await;
    let other = world.path("copy");
    fs::create_dir(&other).unwrap();
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, other.join(path.file_name().unwrap())).unwrap();
    }
    // Another chunk in each copy.
    flip(&folder.join("vol-0001.tar"), 5 * MIB as u64);
    flip(&other.join("vol-0001.tar"), 17 * MIB as u64);
    let report = world.verify(&[folder, other]);
    assert_eq!(report.damages.iter().map(|damage| damage.lost).collect::<Vec<_>>(), [false, false]);
    let deep = report.deep.unwrap();
    assert_eq!((deep.layers, deep.not_checked.len(), deep.failures.len()), (2, 0, 0));
}
