//! Blobs and records are the truth: whatever happens to the catalog, a command gives an error or the right result, and with
//! `--rebuild` the right one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use sealift::oci::Digest;
use sealift::sample::{ImageBuilder, SampleImage};
use serde_json::Value;
use support::sound::{assert_sound, recorded, snapshot};
use support::{Said, World};

const CATALOG: &str = "catalog.sqlite3";
const LOG: &str = "catalog.sqlite3-wal";

/// Seeded places at which one bit is flipped, each in the catalog and in its log: in the inner loop, and in `tests/run`.
const FEW_FLIPS: usize = 3;
const MANY_FLIPS: usize = 60;

/// A layer of one chunk, and one of two.
const SMALL: usize = 100_000;
const LARGE: usize = 17_000_000;

/// What is done to a store's folder.
struct Accident {
    name: String,
    happen: Box<dyn Fn(&Path)>,
}

fn accident(name: impl Into<String>, happen: impl Fn(&Path) + 'static) -> Accident {
    Accident { name: name.into(), happen: Box::new(happen) }
}

/// Numbers that are the same in every run.
fn seeded(number: usize, below: usize) -> usize {
    let digest = Digest::of(&number.to_le_bytes());
    usize::try_from(u64::from_le_bytes(digest.bytes()[..8].try_into().unwrap()) % below as u64).unwrap()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| seeded(at, 256) as u8).collect()
}

/// A database that SQLite has nothing against.
fn other_database(path: &Path, sql: &str) {
    let _ = std::fs::remove_file(path);
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn sql(store: &Path, sql: &str) {
    Connection::open(store.join(CATALOG)).unwrap().execute_batch(sql).unwrap();
}

fn accidents(size: usize, log_size: usize, flips: usize) -> Vec<Accident> {
    let mut all = vec![
        accident("all of it deleted", |store| {
            for name in [CATALOG, LOG, "catalog.sqlite3-shm"] {
                let _ = std::fs::remove_file(store.join(name));
            }
        }),
        accident("deleted, its log left", |store| std::fs::remove_file(store.join(CATALOG)).unwrap()),
        accident("its log lost", |store| std::fs::remove_file(store.join(LOG)).unwrap()),
        accident("noise", |store| change(&store.join(CATALOG), |bytes| *bytes = noise(bytes.len()))),
        accident("noise behind the header", |store| {
            change(&store.join(CATALOG), |bytes| *bytes = [&bytes[..100], &noise(bytes.len() - 100)].concat());
        }),
        accident("a log of noise", |store| change(&store.join(LOG), |bytes| *bytes = noise(bytes.len()))),
        accident("a log of zeros", |store| change(&store.join(LOG), |bytes| bytes.fill(0))),
        accident("an empty log", |store| change(&store.join(LOG), Vec::clear)),
        accident("index noise", |store| change(&store.join("catalog.sqlite3-shm"), |bytes| *bytes = noise(32768))),
        accident("of another program", |store| {
            let _ = std::fs::remove_file(store.join(LOG));
            other_database(&store.join(CATALOG), "PRAGMA application_id = 7; CREATE TABLE t (x);");
        }),
        accident("with a table of another kind", |store| {
            let _ = std::fs::remove_file(store.join(LOG));
            let text = "PRAGMA application_id = 1936024940; PRAGMA user_version = 2; CREATE TABLE runs (x);";
            other_database(&store.join(CATALOG), text);
        }),
        accident("a run of which there is no record", |store| sql(store, "INSERT INTO runs VALUES ('world', 9)")),
        accident("a bundle of which there is no record", |store| {
            sql(store, "INSERT INTO bundles VALUES ('world', 9, 1)")
        }),
        accident("a stream of another name", |store| sql(store, "UPDATE runs SET stream = 'vorld'")),
        accident("no rows", |store| sql(store, "DELETE FROM runs; DELETE FROM bundles; DELETE FROM blobs")),
        accident("wrong digests of chunks", |store| sql(store, "UPDATE blobs SET chunks = zeroblob(length(chunks))")),
    ];
    for length in [0, 1, 15, 99, 100, 512, 4095, 4096, size / 2, size - 4096, size - 1] {
        all.push(accident(format!("cut to {length}"), move |store| {
            change(&store.join(CATALOG), |bytes| bytes.truncate(length));
        }));
    }
    for length in [0, 1, 31, 32, 33, log_size / 2, log_size - 1] {
        all.push(accident(format!("its log cut to {length}"), move |store| {
            change(&store.join(LOG), |bytes| bytes.truncate(length));
        }));
    }
    for number in 0..flips {
        // Half of them where most bytes mean something: at the beginning of pages.
        let at = if number % 2 == 0 { seeded(number, size) } else { seeded(number, size / 4096) * 4096 + number };
        all.push(accident(format!("bit {number} of byte {at} flipped, without a log"), move |store| {
            sql(store, "PRAGMA journal_mode = DELETE; PRAGMA journal_mode = WAL");
            change(&store.join(CATALOG), |bytes| {
                let at = at % bytes.len();
                bytes[at] ^= 1 << (number % 8);
            });
        }));
        let at = seeded(number + flips, log_size);
        all.push(accident(format!("bit {number} of byte {at} of its log flipped"), move |store| {
            change(&store.join(LOG), |bytes| bytes[at] ^= 1 << (number % 8));
        }));
    }
    all
}

/// A store with three runs and two bundles, of two epochs, whose catalog has a log beside it.
async fn world(layer: usize) -> World {
    let image = |number: u64, size: usize| {
        ImageBuilder::new().platform("linux", "amd64", "").random_layer(size, number).build().unwrap()
    };
    let (one, two) = (image(1, layer), image(2, 1000));
    let images: [(&str, &SampleImage); 2] = [("one", &one), ("two", &two)];
    let world = World::new(&images).await;
    let host = world.source_host();
    // As long as somebody else has the catalog open, nobody takes what is in the log over and removes it.
    world.write_spec("world", &host, &["one"]);
    world.run(&["pull", "world.yaml"]).ok();
    let held = Connection::open(world.path("store").join(CATALOG)).unwrap();
    held.query_row("SELECT count(*) FROM runs", [], |row| row.get::<_, i64>(0)).unwrap();
    export(&world, "store", "drive", &[]).ok();
    world.write_spec("world", &host, &["one", "two"]);
    world.run(&["pull", "world.yaml"]).ok();
    assert_eq!(export(&world, "store", "drive", &["--epoch", "4"]).ok()["bundle"], "world-4-1");
    world.run(&["pull", "world.yaml"]).ok();
    world.copy("store", "before");
    drop(held);
    assert!(world.path("before").join(LOG).metadata().unwrap().len() > 0);
    world
}

fn export(world: &World, store: &str, drive: &str, more: &[&str]) -> Said {
    let arguments = ["export", "world", "--store", store, "--to", drive, "--sign-key", "exporter.key"];
    world.run(&[&arguments[..], &["--volume-size", "20MiB", "--output", "json"], more].concat())
}

fn plan(world: &World, store: &str, more: &[&str]) -> Said {
    world.run(&[&["plan", "world.yaml", "--store", store, "--output", "json"], more].concat())
}

/// A plan without the time at which it was made.
fn timeless(said: &Said) -> Value {
    let mut plan = said.ok();
    plan["plans"][0].as_object_mut().unwrap().remove("created");
    plan
}

/// What must come out.
struct Expected {
    plan: Value,
    /// The latest bundle, file by file.
    drive: BTreeMap<String, Digest>,
}

/// An error that says what to do, or the right result.
fn error_or<T: PartialEq + std::fmt::Debug>(said: &Said, name: &str, found: impl Fn() -> T, expected: &T) -> bool {
    if said.status == Some(0) {
        assert_eq!(&found(), expected, "{name}");
        return true;
    }
    assert!(matches!(said.status, Some(1 | 5)), "{name}: {said:?}");
    assert!(said.err.contains("--rebuild") && !said.err.contains("panicked"), "{name}: {}", said.err);
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_catalog_it_can_be_made_again() {
    all_accidents(SMALL, FEW_FLIPS).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "goes through many accidents"]
async fn whatever_happens_to_the_catalog_it_can_be_made_again_with_many_accidents() {
    all_accidents(LARGE, MANY_FLIPS).await;
}

async fn all_accidents(layer: usize, flips: usize) {
    let world = world(layer).await;
    world.copy("before", "untouched");
    let before = timeless(&plan(&world, "untouched", &[]));
    assert_eq!(export(&world, "untouched", "expected", &[]).ok()["bundle"], "world-4-1");
    let expected = Expected { plan: before, drive: snapshot(&world.path("expected")) };
    let size = |name: &str| usize::try_from(world.path("before").join(name).metadata().unwrap().len()).unwrap();
    let (mut right, mut errors) = (0, 0);
    for Accident { name, happen } in accidents(size(CATALOG), size(LOG), flips) {
        ["store", "to", "copy"].iter().for_each(|folder| world.remove(folder));
        world.copy("before", "store");
        happen(&world.path("store"));
        world.copy("store", "copy");
        let said = plan(&world, "copy", &[]);
        let planned = error_or(&said, &name, || timeless(&said), &expected.plan);
        let said = export(&world, "copy", "to", &[]);
        let exported = error_or(&said, &name, || snapshot(&world.path("to")), &expected.drive);
        if planned && exported {
            right += 1
        } else {
            errors += 1
        }
        world.remove("to");
        assert_eq!(timeless(&plan(&world, "store", &["--rebuild"])), expected.plan, "{name}");
        assert_sound_and_whole(&world, &name);
        assert_eq!(export(&world, "store", "to", &[]).ok()["again"], true, "{name}");
        assert_eq!(snapshot(&world.path("to")), expected.drive, "{name}");
    }
    assert!(right > 0 && errors > 0, "the table has accidents of both kinds: {right} and {errors}");
}

fn assert_sound_and_whole(world: &World, name: &str) {
    let store = world.path("store");
    assert_eq!(assert_sound(&store), recorded(&store), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rebuild_numbers_go_on() {
    let world = world(SMALL).await;
    std::fs::write(world.path("before").join(CATALOG), noise(9000)).unwrap();
    std::fs::remove_file(world.path("before").join(LOG)).unwrap();
    world.copy("before", "store2");
    let said = world.run(&["pull", "world.yaml", "--store", "store2"]);
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.err.contains("help: ") && said.err.contains("--rebuild"), "{}", said.err);
    world.run(&["pull", "world.yaml", "--store", "store2", "--rebuild"]).ok();
    assert!(world.path("store2/records/runs/world-4.json").exists());
    world.write_spec("world", &world.source_host(), &["two"]);
    world.run(&["pull", "world.yaml", "--store", "store2"]).ok();
    assert_eq!(export(&world, "store2", "to", &["--rebuild"]).ok()["bundle"], "world-4-2");
    assert_eq!(export(&world, "store2", "to", &["--epoch", "7"]).ok()["bundle"], "world-7-1");
    std::fs::remove_file(world.path("store2").join(CATALOG)).unwrap();
    assert_eq!(export(&world, "store2", "to", &[]).ok()["bundle"], "world-7-1");
}

/// A record that is damaged costs its stream a pull. Nothing of it is used, and no other stream suffers.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_a_run_costs_a_pull() {
    let world = world(SMALL).await;
    world.copy("before", "store2");
    world.write_spec("other", &world.source_host(), &["two"]);
    world.run(&["pull", "other.yaml", "--store", "store2"]).ok();
    let record = world.path("store2/records/runs/world-3.json");
    std::fs::remove_file(&record).unwrap();
    std::fs::write(&record, noise(500)).unwrap();
    for more in [&[][..], &["--rebuild"]] {
        let said = export(&world, "store2", "to", more);
        assert_eq!(said.status, Some(5), "{said:?}");
        assert!(
            said.err.contains("world-3.json is damaged") && said.err.contains("help: pull the stream again"),
            "{said:?}"
        );
    }
    let notes = plan(&world, "store2", &[]).ok()["plans"][0]["notes"].to_string();
    assert!(notes.contains("world-3.json is damaged"), "{notes}");
    let said = world.run(&["pull", "other.yaml", "--store", "store2"]);
    said.ok();
    assert!(said.err.contains("world-3.json is damaged"), "{}", said.err);
    world.run(&["pull", "world.yaml", "--store", "store2"]).ok();
    assert_eq!(export(&world, "store2", "to", &[]).ok()["bundle"], "world-4-1");
}

/// So does one of an image, and it is made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_an_image_costs_a_pull() {
    let world = world(SMALL).await;
    let images = world.path("before/records/images");
    for entry in std::fs::read_dir(&images).unwrap() {
        ["store2", "to"].iter().for_each(|folder| world.remove(folder));
        world.copy("before", "store2");
        let record = world.path("store2/records/images").join(entry.unwrap().file_name());
        std::fs::remove_file(&record).unwrap();
        std::fs::write(&record, noise(500)).unwrap();
        let said = export(&world, "store2", "to", &[]);
        assert_eq!(said.status, Some(5), "{said:?}");
        assert!(said.out.contains("is damaged") && said.out.contains("pull the stream again"), "{said:?}");
        world.run(&["pull", "world.yaml", "--store", "store2"]).ok();
        let digest = Digest::of(&std::fs::read(&record).unwrap());
        assert_eq!(record.file_stem().unwrap().to_str().unwrap(), digest.hex());
        let bundle = export(&world, "store2", "to", &[]).ok();
        assert_eq!(bundle["images"], 2, "{bundle}");
    }
}

/// One that is gone is told by the catalog: numbers may have gone with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_is_not_passed_over() {
    let world = world(SMALL).await;
    for (lost, named) in [("runs/world-3.json", "run world-3"), ("bundles/world-4-1", "bundle world-4-1")] {
        ["store2", "to"].iter().for_each(|folder| world.remove(folder));
        world.copy("before", "store2");
        let record = world.path("store2/records").join(lost);
        if record.is_dir() { std::fs::remove_dir_all(&record) } else { std::fs::remove_file(&record) }.unwrap();
        let said = export(&world, "store2", "to", &[]);
        assert_eq!(said.status, Some(1), "{said:?}");
        let told = format!("the catalog knows of {named}, and there is no record of it");
        assert!(said.err.contains(&told) && said.err.contains("restore records/"), "{said:?}");
        assert_eq!(export(&world, "store2", "to", &["--rebuild", "--epoch", "5"]).ok()["bundle"], "world-5-1");
    }
}

/// A number is used though its record is damaged: the same content gets the next one, and what nobody accepts is not written.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_a_bundle_burns_its_number() {
    let world = world(SMALL).await;
    for file in ["bundle.json", "bundle.json.sig", "README.txt", "SHA256SUMS", "index.json"] {
        ["store2", "to"].iter().for_each(|folder| world.remove(folder));
        world.copy("before", "store2");
        let record = world.path("store2/records/bundles/world-4-1").join(file);
        std::fs::remove_file(&record).unwrap();
        std::fs::write(&record, noise(300)).unwrap();
        let said = export(&world, "store2", "to", &["--rebuild"]);
        assert_eq!(said.ok()["bundle"], "world-4-2", "{file}");
        world.run(&["verify", "to/world-4-2", "--key", "exporter.pub"]).ok();
        let arguments = ["export", "world", "--store", "store2", "--to", "to", "--sign-key", "exporter.key"];
        let said = world.run(&[&arguments[..], &["--bundle", "world-4-1"]].concat());
        assert_eq!(said.status, Some(5), "{file}: {said:?}");
        assert!(said.err.contains("the record of world-4-1 is damaged"), "{file}: {}", said.err);
        assert!(!world.path("to/world-4-1").exists(), "{file}");
    }
}
