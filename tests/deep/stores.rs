//! Stores: every file below `blobs/` is compared with its name, and what `index.json` names has to be there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealift::layers::Why;
use sealift::monitor::Silent;
use sealift::oci::{Descriptor, Digest, MediaType};
use sealift::sample::{ImageBuilder, seed};
use sealift::serve::{Shelf, StoreShelf};
use sealift::store::{Access, Store};
use sealift::verify::{Depth, LayoutReport, verify_layout};
use sealift::{Kind, Result};
use serde_json::json;

use crate::World;
use crate::made::{FOREIGN, GZIP, Layer, archive, gzip, image};

fn look(folder: &Path) -> Result<LayoutReport> {
    verify_layout(Depth::Layers, folder, &Silent)
}

async fn world() -> World {
    let builder = ImageBuilder::new().platform("linux", "amd64", "").random_layer(100_000, 1).attestation();
    let index = builder.platform("linux", "arm64", "").random_layer(1_000, 2).build().unwrap();
    let content = archive(3, 50_000);
    let single = image(&[Layer::new(GZIP, gzip(&content), &content)]);
    World::of(&[("team/index".into(), index), ("team/single".into(), single)]).await
}

fn write(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

/// The largest blob, a layer of `team/index`.
fn largest(world: &World) -> PathBuf {
    let files = fs::read_dir(world.store.root().join("blobs/sha256")).unwrap().map(|file| file.unwrap().path());
    files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_good_as_pulled() {
    let world = world().await;
    let report = world.verify_store();
    assert_eq!(report.verdict(), None, "{report:#?}");
    let files = fs::read_dir(world.store.root().join("blobs/sha256")).unwrap().count() as u64;
    assert_eq!((report.blobs, report.damaged.len(), report.oddities.len()), (files, 0, 0));
    assert_eq!(report.images.iter().map(|image| image.names.len()).collect::<Vec<_>>(), [1, 1]);
    let deep = report.deep.unwrap();
    assert_eq!(deep.layers, 2);
    assert_eq!(deep.not_checked[0].media_type, MediaType::new("application/vnd.in-toto+json"));
    let shallow = verify_layout(Depth::Bytes, world.store.root(), &Silent).unwrap();
    assert_eq!((shallow.deep, shallow.bytes, shallow.left_out), (None, report.bytes, report.left_out));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_was_served_is_still_judged_by_its_index_and_an_empty_one_is_not_good() {
    let world = world().await;
    let root = world.store.root().to_owned();
    for folder in ["records/runs", "records/images", "records/names"] {
        fs::remove_dir_all(root.join(folder)).unwrap();
        fs::create_dir(root.join(folder)).unwrap();
    }
    let report = look(&root).unwrap();
    assert_eq!((report.images.len(), report.verdict()), (2, None), "{report:#?}");
    fs::remove_file(largest(&world)).unwrap();
    assert_eq!(look(&root).unwrap().verdict(), Some(Kind::Incomplete));
    write(&root.join("index.json"), br#"{"schemaVersion": 2, "manifests": []}"#);
    let report = look(&root).unwrap();
    assert_eq!((report.images.len(), report.verdict()), (0, Some(Kind::Incomplete)));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_store_is_named_with_what_it_costs() {
    let world = world().await;
    let path = largest(&world);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[1_000] ^= 1;
    for (name, bytes) in [("flipped", &flipped[..]), ("cut", &good[..5_000]), ("empty", b"")] {
        write(&path, bytes);
        for depth in [Depth::Bytes, Depth::Layers] {
            let report = verify_layout(depth, world.store.root(), &Silent).unwrap();
            assert_eq!(report.verdict(), Some(Kind::Verification), "{name}");
            assert_eq!(report.damaged.len(), 1, "{name}: {:?}", report.damaged);
            assert_eq!(report.damaged[0].file, path, "{name}");
            let broken: Vec<_> = report.images.iter().filter(|image| image.problem.is_some()).collect();
            assert!(broken.len() == 1 && broken[0].names[0].ends_with("team/index:1"), "{name}: {broken:?}");
            let failures = report.deep.iter().flat_map(|deep| &deep.failures);
            assert!(failures.count() <= usize::from(name != "flipped"), "{name}");
        }
    }
    fs::remove_file(&path).unwrap();
    let report = world.verify_store();
    assert_eq!(report.verdict(), Some(Kind::Incomplete), "{report:#?}");
    assert_eq!(report.deep.unwrap().not_checked.iter().filter(|skipped| skipped.why == Why::Lost).count(), 1);
    fs::create_dir(&path).unwrap();
    assert_eq!(world.verify_store().verdict(), Some(Kind::Verification), "a folder is no blob");
    fs::remove_dir(&path).unwrap();
    write(&path, &good);
    assert_eq!(world.verify_store().verdict(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_costs_its_image() {
    let world = world().await;
    let good = world.verify_store();
    let digest = good.images.iter().find(|image| image.names[0].ends_with("team/index:1")).unwrap().root;
    let path = world.store.path_of(&digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    write(&path, &bytes);
    let report = world.verify_store();
    assert_eq!((report.verdict(), report.damaged.len()), (Some(Kind::Verification), 1));
    let broken: Vec<_> = report.images.iter().filter(|image| image.problem.is_some()).collect();
    assert!(broken.len() == 1 && broken[0].root == digest, "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_are_odd_and_another_layout_is_refused() {
    let world = world().await;
    let root = world.store.root().to_owned();
    for name in ["blobs/sha256/readme.txt", "blobs/sha256/ABCD", "blobs/stray", "blobs/md5/x"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), b"x").unwrap();
    }
    let report = look(&root).unwrap();
    assert_eq!((report.verdict(), report.oddities.len()), (None, 4), "{:?}", report.oddities);

    let rows: [(&str, &[u8], &str); 3] = [
        ("a later version", b"{\"imageLayoutVersion\": \"2.0.0\"}", "\"2.0.0\" is not known"),
        ("no JSON", b"<html>", "oci-layout: "),
        ("no end", &[b' '; 5_000], "more than 4096 bytes"),
    ];
    for (name, bytes, says) in rows {
        write(&root.join("oci-layout"), bytes);
        assert_refused(name, &root, Kind::Verification, says);
    }
}

fn assert_refused(name: &str, folder: &Path, kind: Kind, says: &str) {
    let error = look(folder).unwrap_err();
    let good = error.kind() == kind && error.to_string().contains(says) && error.help_text().is_some();
    assert!(good, "{name}: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_say_what_is_kept() {
    let world = world().await;
    let root = world.store.root().to_owned();
    // For other tools; sealift does not need it.
    fs::remove_file(root.join("index.json")).unwrap();
    assert_eq!(world.verify_store().verdict(), None);
    for folder in ["records/runs", "records/images"] {
        let path = fs::read_dir(root.join(folder)).unwrap().next().unwrap().unwrap().path();
        let good = fs::read(&path).unwrap();
        write(&path, &good[..good.len() / 2]);
        let report = world.verify_store();
        assert_eq!(report.verdict(), Some(Kind::Verification), "{folder}");
        assert_eq!(report.damaged.iter().map(|damaged| &damaged.file).collect::<Vec<_>>(), [&path], "{folder}");
        write(&path, &good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Access::Writer).unwrap());
    let shelf = StoreShelf::new(Arc::clone(&store), true).unwrap();
    let layers = [Layer::new(GZIP, gzip(b"one"), b"one"), Layer::new(GZIP, gzip(b"two"), b"other")];
    seed(shelf.writer().unwrap(), "team/pushed", Some(&"1".parse().unwrap()), &image(&layers)).unwrap();
    let report = look(folder.path()).unwrap();
    assert_eq!(report.images.len(), 1);
    let deep = report.deep.unwrap();
    assert_eq!((deep.layers, deep.failures.len(), deep.failures[0].position), (1, 1, Some(2)), "{deep:#?}");
}

/// A layout that another tool made: no names, a foreign layer that was fetched, and one under two media types.
#[test]
fn any_layout_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = folder.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    let packed = gzip(b"content");
    let layers = [Layer::new(FOREIGN, packed.clone(), b"content"), Layer::new(GZIP, packed.clone(), b"content")];
    let image = image(&layers);
    image.contents.iter().for_each(|(_, bytes)| put(bytes));
    let index = json!({"schemaVersion": 2, "manifests": [Descriptor { platform: None, ..image.root.clone() }]});
    fs::write(folder.path().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(folder.path().join("oci-layout"), br#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let report = look(folder.path()).unwrap();
    assert_eq!(report.verdict(), None, "{report:#?}");
    assert_eq!(report.deep.unwrap().layers, 1);
    // A manifest that lies about the length of a layer.
    fs::write(blobs.join(Digest::of(&packed).hex()), [&packed[..], b"x"].concat()).unwrap();
    let report = look(folder.path()).unwrap();
    assert_eq!(report.verdict(), Some(Kind::Verification));
    assert!(report.images[0].problem.as_ref().unwrap().contains(" bytes instead of "), "{report:#?}");

    let path = folder.path().join("index.json");
    let rows: [(&str, &[u8], &str); 3] = [
        ("no manifests", b"{}", "index.json: "),
        (
            "a digest that is a path",
            br#"{"manifests":[{"mediaType":"a/b","digest":"sha256:../../x","size":1}]}"#,
            "is no digest",
        ),
        ("an impossible depth", &[b'['; 100], "nested more than"),
    ];
    for (name, bytes, says) in rows {
        write(&path, bytes);
        assert_refused(name, folder.path(), Kind::Verification, says);
    }
    fs::remove_file(&path).unwrap();
    assert_refused("no index", folder.path(), Kind::Missing, "index.json is missing");
}
