//! `export --layout`: the same content in every form, the same bytes each time, nothing of somebody else's overwritten,
//! and a `manifest.json` that names only what docker can load.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealift::oci::{Digest, Platform};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running};
use sealift::spec;
use sealift::store::{Access, Store};
use serde_json::{Value, json};
use support::journey::fetch;
use support::{Clients, Machine, Ran, have};

/// Every form, as the name says it.
const FORMS: [&str; 4] = ["layout", "layout.tar", "layout.tar.gz", "layout.tar.zst"];

/// The platform of this machine, and one that is none's that tests run on.
const OWN: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
const OTHER: &str = "s390x";

/// How long a process may take until it has begun to write.
const BEGINNING_MAX: Duration = Duration::from_secs(60);

/// Files by their paths.
type Files = BTreeMap<String, Vec<u8>>;

/// A stream `test` that was pulled, and the machine that exports it.
struct World {
    machine: Machine,
    host: String,
    _source: Running,
}

impl World {
    /// Pulls `images` (repository, platforms, image), each as tag `1`.
    async fn new(images: &[(&str, &str, &SampleImage)]) -> Self {
        let shelf = MemoryShelf::new();
        for (repository, _, image) in images {
            seed(&shelf, repository, Some(&"1".parse().unwrap()), image).unwrap();
        }
        let source = Running::start(Arc::new(shelf)).await.unwrap();
        let host = source.address().to_string();
        let mut text = "apiVersion: sealift/v1\nkind: MirrorSpec\nname: test\nimages:\n".to_owned();
        for (repository, platforms, _) in images {
            text += &format!(
                "  - {{source: {host}/{repository}, tags: {{exact: ['1']}}, platforms: [{platforms}], \
                 foreignLayers: {{policy: skip}}}}\n"
            );
        }
        let spec = spec::parse(Path::new("test.yaml"), text.as_bytes()).unwrap();
        let machine = Machine::new();
        let store = Arc::new(Store::open(&machine.path("store"), Access::Shared).unwrap());
        let fetched = fetch(&spec, &store).await;
        assert_eq!(fetched.report.failed, [], "{:?}", fetched.complaints);
        World { machine, host, _source: source }
    }

    /// One image of three platforms, of which two are kept, with attestations and a signature.
    async fn usual() -> (Self, SampleImage) {
        let image = usual_image();
        (World::new(&[("team/web", &format!("linux/{OWN}, linux/{OTHER}"), &image)]).await, image)
    }

    async fn export_to(&self, status: i32, layout: &str, more: &[&str]) -> Ran {
        let arguments = ["export", "test", "--store", "store", "--layout", layout];
        self.machine.run_to(status, &[&arguments[..], more].concat()).await
    }

    async fn export(&self, layout: &str, more: &[&str]) -> Value {
        let arguments = ["export", "test", "--store", "store", "--layout", layout];
        self.machine.json(&[&arguments[..], more].concat()).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.machine.path(name)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path("store").join(digest.layout_path())
    }
}

fn usual_image() -> SampleImage {
    let mut image = ImageBuilder::new().layer_files(&[("shared", b"by all")]);
    for architecture in [OWN, "riscv64", OTHER] {
        image = image.platform("linux", architecture, "").random_layer(50_000, architecture.len() as u64).attestation();
    }
    image.referrer("application/x.test", b"a bill").cosign_tag("a", |payload| payload.to_vec()).build().unwrap()
}

/// What lies below a folder.
fn folder(root: &Path) -> Files {
    fn add(root: &Path, below: &str, files: &mut Files) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let path = Path::new(below).join(entry.file_name()).to_str().unwrap().to_owned();
            match entry.file_type().unwrap().is_dir() {
                true => add(root, &path, files),
                false => drop(files.insert(path, fs::read(entry.path()).unwrap())),
            }
        }
    }
    let mut files = Files::new();
    add(root, "", &mut files);
    files
}

/// What an archive holds, in its order; every header is without clock and owner.
fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = File::open(path).unwrap();
    let reader: Box<dyn Read> = match path.extension().unwrap().to_str().unwrap() {
        "gz" => Box::new(flate2::read::GzDecoder::new(file)),
        "zst" => Box::new(zstd::Decoder::new(file).unwrap()),
        _ => Box::new(file),
    };
    let mut archive = tar::Archive::new(reader);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert!(header.as_ustar().is_some() && header.entry_type().is_file());
        let said = (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap());
        assert_eq!(said, (0, 0, 0, 0o644));
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        found.push((entry.path().unwrap().to_str().unwrap().to_owned(), bytes));
    }
    found
}

fn content(path: &Path) -> Files {
    if path.is_dir() { folder(path) } else { members(path).into_iter().collect() }
}

fn bytes_of(path: &Path) -> Vec<u8> {
    if path.is_dir() { serde_json::to_vec(&folder(path)).unwrap() } else { fs::read(path).unwrap() }
}

fn parsed(files: &Files, name: &str) -> Value {
    serde_json::from_slice(&files[name]).unwrap()
}

/// The digests below `blobs/`, of which each is that of its bytes.
fn blobs(files: &Files) -> BTreeSet<Digest> {
    let named =
        files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix("blobs/")?.replacen('/', ":", 1), bytes)));
    let checked = named.map(|(name, bytes)| {
        let digest: Digest = name.parse().unwrap();
        assert_eq!(digest.same_algorithm_of(bytes), digest);
        digest
    });
    checked.collect()
}

#[tokio::test]
async fn every_form_has_the_same_content_and_it_is_all_that_was_kept() {
    let (world, image) = World::usual().await;
    for form in FORMS {
        let report = world.export(form, &[]).await;
        assert_eq!((&report["again"], &report["images"], &report["failed"]), (&json!(false), &json!(1), &json!([])));
    }
    let files = content(&world.path("layout"));
    for form in FORMS {
        assert_eq!(content(&world.path(form)), files, "{form}");
        assert!(!world.path(&format!("{form}.partial")).exists());
    }
    let members = members(&world.path("layout.tar"));
    let order: Vec<&str> = members.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(order[..3], ["oci-layout", "index.json", "manifest.json"]);
    assert!(order[3..].is_sorted() && order.len() == files.len(), "{order:?}");
    let padded = files.values().map(|bytes| 512 + bytes.len().next_multiple_of(512)).sum::<usize>() + 1024;
    let lengths = FORMS[1..].iter().map(|form| fs::read(world.path(form)).unwrap().len()).collect::<Vec<_>>();
    assert_eq!(lengths[0], padded);
    assert!(lengths.iter().all(|length| *length <= padded + padded / 1000), "compression makes it longer: {lengths:?}");
    assert_eq!(files["oci-layout"], b"{\"imageLayoutVersion\":\"1.0.0\"}\n");
    let [entry] = parsed(&files, "index.json")["manifests"].as_array().unwrap().clone().try_into().unwrap();
    assert_eq!(entry["digest"], image.root.digest.to_string());
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], format!("{}/team/web:1", world.host));

    // All that the store has: the index as it was signed, two platforms whole, the third as stubs, and signatures.
    let mut all = BTreeSet::new();
    for blob in folder(&world.path("store/blobs")).into_keys() {
        all.insert(blob.replacen('/', ":", 1).parse::<Digest>().unwrap());
    }
    let there = blobs(&files);
    assert_eq!(there, all);
    let left_out = image.child("linux", "riscv64", "").unwrap();
    assert!(there.contains(&left_out.digest), "a stub");
    let of_left_out = image.parsed(&left_out).unwrap().successors().map(|blob| blob.digest).last().unwrap();
    assert!(!there.contains(&of_left_out));
}

#[tokio::test]
async fn the_same_store_gives_the_same_bytes() {
    let (world, _) = World::usual().await;
    for form in FORMS {
        world.export(form, &[]).await;
        let again = format!("again/{form}");
        // Neither the catalog nor the time has a say in it.
        for file in ["catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm"] {
            let _ = fs::remove_file(world.path("store").join(file));
        }
        world.export(&again, &[]).await;
        assert!(bytes_of(&world.path(form)) == bytes_of(&world.path(&again)), "{form}");
    }
}

#[tokio::test]
async fn manifest_json_names_one_platform_of_each_image() {
    let (world, image) = World::usual().await;
    let tag = format!("{}/team/web:1", world.host);
    for (more, architecture, other) in [(&[][..], OWN, OTHER), (&["--platform", "linux/s390x"][..], OTHER, OWN)] {
        let layout = format!("{architecture}.tar");
        let report = world.export(&layout, more).await;
        let child = image.child("linux", architecture, "").unwrap();
        let mut blobs = image.parsed(&child).unwrap().successors().map(|b| b.digest).collect::<Vec<_>>().into_iter();
        let config = blobs.next().unwrap();
        let expected = json!([{
            "Config": config.layout_path(),
            "RepoTags": [tag],
            "Layers": blobs.map(|layer| layer.layout_path()).collect::<Vec<_>>(),
        }]);
        assert_eq!(parsed(&content(&world.path(&layout)), "manifest.json"), expected);
        let [loadable] = report["loadable"].as_array().unwrap().clone().try_into().unwrap();
        assert_eq!(loadable["platform"], format!("linux/{architecture}"));
        assert_eq!(loadable["config"], config.to_string());
        assert_eq!(loadable["otherPlatforms"], json!([format!("linux/{other}")]), "attestations are no platform");
        assert!(report["notes"][0].as_str().unwrap().contains(&format!("besides there are linux/{other} (1)")));
    }
    let refused = world.export_to(2, "none.tar", &["--platform", "linux/mips"]).await;
    assert!(refused.err.contains("no image has such a platform"), "{}", refused.err);
    assert!(!world.path("none.tar").exists());
}

#[tokio::test]
async fn what_docker_cannot_load_is_not_in_manifest_json_and_is_told() {
    let plain = |os: &str, seed| ImageBuilder::new().platform(os, OWN, "").random_layer(1000, seed);
    let good = plain("linux", 1).build().unwrap();
    let zstd = ImageBuilder::new().platform("linux", OWN, "").layer_files_zstd(&[("z", b"std")]).build().unwrap();
    let windows = plain("windows", 2).build().unwrap();
    let foreign = plain("linux", 3).foreign_layer("https://example.invalid/layer", 1000, 4).build().unwrap();
    let nowhere = ImageBuilder::new().platform("linux", OTHER, "").random_layer(1000, 5);
    let nowhere = nowhere.platform("linux", "riscv64", "").random_layer(1000, 6).build().unwrap();
    let world = World::new(&[
        ("a/zstd", "all", &zstd),
        ("b/windows", "all", &windows),
        ("c/foreign", "all", &foreign),
        ("d/elsewhere", "all", &nowhere),
        ("e/good", "all", &good),
    ])
    .await;
    let report = world.export("layout.tar", &[]).await;
    let files = content(&world.path("layout.tar"));
    let names = |manifest: &Value| -> Vec<String> {
        let entries = manifest.as_array().unwrap().iter();
        entries.map(|entry| entry["RepoTags"][0].as_str().unwrap().split_once('/').unwrap().1.to_owned()).collect()
    };
    // Docker before 23 stops at zstd: such images come last.
    assert_eq!(names(&parsed(&files, "manifest.json")), ["d/elsewhere:1", "e/good:1", "a/zstd:1"]);
    assert_eq!(parsed(&files, "index.json")["manifests"].as_array().unwrap().len(), 5);
    let why: Vec<(&str, &str)> = report["notLoadable"].as_array().unwrap().iter().map(why).collect();
    let reasons = [("b/windows", "docker refuses windows"), ("c/foreign", "foreign layers that stay behind")];
    assert_eq!(why.len(), reasons.len(), "{why:?}");
    for ((repository, reason), (expected, said)) in why.iter().zip(reasons) {
        assert!(repository.ends_with(expected) && reason.contains(said), "{repository}: {reason}");
    }
    let notes = report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect::<Vec<_>>();
    let own = Platform::of_this_machine();
    for part in [
        &format!("d/elsewhere: {own} is not in it, so manifest.json names linux/s390x"),
        "linux/riscv64 (1)",
        "zstd",
        "c/foreign:1: not in",
    ] {
        assert!(notes.iter().any(|note| note.contains(part)), "{part}: {notes:?}");
    }
    // For Windows the same stream is chosen by its platform, and then linux is what is refused.
    let report = world.export("windows.tar", &["--platform", "windows/*"]).await;
    assert_eq!(names(&parsed(&content(&world.path("windows.tar")), "manifest.json")), ["b/windows:1"]);
    assert_eq!(report["notLoadable"].as_array().unwrap().len(), 4);
}

fn why(image: &Value) -> (&str, &str) {
    (image["repository"].as_str().unwrap(), image["reasons"][0].as_str().unwrap())
}

#[tokio::test]
async fn a_damaged_blob_fails_the_export_and_nothing_gets_a_name() {
    let (world, image) = World::usual().await;
    let child = image.child("linux", OTHER, "").unwrap();
    let layer = image.parsed(&child).unwrap().successors().last().unwrap().clone();
    let path = world.blob(&layer.digest);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bad).unwrap();
    for form in FORMS {
        let failed = world.export_to(5, form, &[]).await;
        assert!(failed.err.contains(&layer.digest.to_string()) && failed.err.contains("store: "), "{}", failed.err);
        assert!(!world.path(form).exists(), "{form}");
    }
    assert!(!world.path("layout.tar.partial").exists(), "an archive begins again");
    assert!(!world.path("layout.partial").join(layer.digest.layout_path()).exists());
    fs::write(&path, &good).unwrap();
    for form in FORMS {
        world.export(form, &[]).await;
    }
    assert!(content(&world.path("layout")).contains_key(&layer.digest.layout_path()));
    assert!(!world.path("layout.partial").exists());
    // What was exported is compared in the same way.
    fs::write(&path, &bad).unwrap();
    world.export_to(5, "layout.tar.gz", &[]).await;
}

#[tokio::test]
async fn what_a_killed_export_left_is_gone_on_with() {
    let (world, _) = World::usual().await;
    for form in FORMS {
        world.export(form, &[]).await;
    }
    let files = content(&world.path("layout"));
    // Of an archive: anything at all under the temporary name.
    for form in &FORMS[1..] {
        fs::write(world.path(&format!("later-{form}.partial")), vec![7; 3_000_000]).unwrap();
        world.export(&format!("later-{form}"), &[]).await;
        assert_eq!(bytes_of(&world.path(form)), bytes_of(&world.path(&format!("later-{form}"))));
    }
    // Of a folder: whole blobs, a cut one, one that a bad disk changed, and what another content had.
    let mut blobs = files.iter().filter(|(path, _)| path.starts_with("blobs/"));
    let partial = world.path("later.partial");
    fs::create_dir_all(partial.join("blobs/sha256")).unwrap();
    let put = |path: &str, bytes: &[u8]| fs::write(partial.join(path), bytes).unwrap();
    let (whole, cut, changed) = (blobs.next().unwrap(), blobs.next().unwrap(), blobs.next().unwrap());
    put(whole.0, whole.1);
    put(&format!("{}.partial", cut.0), &cut.1[..cut.1.len() / 2]);
    put(changed.0, &changed.1.iter().map(|byte| byte ^ 1).collect::<Vec<_>>());
    put(&Digest::of(b"of another content").layout_path(), b"of another content");
    put("index.json", b"{}");
    put("oci-layout.partial", b"{");
    let before = fs::metadata(partial.join(whole.0)).unwrap().modified().unwrap();
    world.export("later", &[]).await;
    assert_eq!(content(&world.path("later")), files);
    assert_eq!(fs::metadata(world.path("later").join(whole.0)).unwrap().modified().unwrap(), before, "written again");
    assert!(!partial.exists());
}

#[tokio::test]
async fn killed_at_any_moment_and_run_again_it_ends_the_same() {
    let image = ImageBuilder::new().platform("linux", OWN, "").random_layer(3_000_000, 1).random_layer(3_000_000, 2);
    let world = World::new(&[("team/large", "all", &image.build().unwrap())]).await;
    for form in FORMS {
        world.export(form, &[]).await;
        let killed = format!("killed-{form}");
        let partial = world.path(&format!("{killed}.partial"));
        let mut command = world.machine.command(env!("CARGO_BIN_EXE_sealift"));
        command.args(["export", "test", "--store", "store", "--layout", &killed]).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        while !partial.exists() && !world.path(&killed).exists() {
            assert!(begun.elapsed() < BEGINNING_MAX);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().await.unwrap();
        world.export(&killed, &[]).await;
        assert!(bytes_of(&world.path(form)) == bytes_of(&world.path(&killed)), "{form}");
        assert!(!partial.exists(), "{form}");
    }
}

#[tokio::test]
async fn what_is_there_is_compared_and_never_touched() {
    let (world, _) = World::usual().await;
    for form in FORMS {
        world.export(form, &[]).await;
        let (path, bytes) = (world.path(form), bytes_of(&world.path(form)));
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(world.export(form, &[]).await["again"], true, "{form}");
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert!(bytes_of(&path) == bytes);
    }
    let refused = async |form: &str, why: &str| {
        let before = bytes_of(&world.path(form));
        let failed = world.export_to(1, form, &[]).await;
        assert!(failed.err.contains("is there already, with other contents"), "{form}, {why}: {}", failed.err);
        assert!(bytes_of(&world.path(form)) == before, "{form}, {why}");
        assert!(!world.path(&format!("{form}.partial")).exists(), "{form}, {why}");
    };
    for form in &FORMS[1..] {
        let whole = fs::read(world.path(form)).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        for (why, bytes) in [
            ("changed", changed),
            ("cut", whole[..whole.len() - 1].to_vec()),
            ("longer", [&whole[..], b"x"].concat()),
            ("empty", vec![]),
        ] {
            fs::write(world.path(form), bytes).unwrap();
            refused(form, why).await;
        }
    }
    let files = folder(&world.path("layout"));
    let blob = files.keys().find(|path| path.starts_with("blobs/")).unwrap();
    for (path, why) in [(blob.as_str(), "a blob"), ("index.json", "a table of contents")] {
        fs::write(world.path("layout").join(path), "other").unwrap();
        refused("layout", why).await;
        fs::remove_file(world.path("layout").join(path)).unwrap();
        refused("layout", &format!("{why} is missing")).await;
        fs::write(world.path("layout").join(path), &files[path]).unwrap();
    }
    fs::write(world.path("layout/notes.txt"), "mine").unwrap();
    refused("layout", "a file of somebody's").await;
    fs::remove_file(world.path("layout/notes.txt")).unwrap();
    assert_eq!(world.export("layout", &[]).await["again"], true);
}

#[tokio::test]
async fn an_empty_folder_is_taken_and_a_partial_one_of_somebody_else_is_not() {
    let (world, _) = World::usual().await;
    fs::create_dir(world.path("empty")).unwrap();
    assert_eq!(world.export("empty/", &[]).await["again"], false);
    assert!(world.path("empty/oci-layout").exists());

    fs::create_dir_all(world.path("x.partial/blobs/sha256")).unwrap();
    fs::write(world.path("x.partial/blobs/sha256/thesis.odt"), "mine").unwrap();
    let failed = world.export_to(1, "x", &[]).await;
    assert!(failed.err.contains("thesis.odt is not what an interrupted export leaves"), "{}", failed.err);
    assert!(world.path("x.partial/blobs/sha256/thesis.odt").exists() && !world.path("x").exists());

    for (layout, said) in [("x.tgz", "no layout can be written as"), ("..", "no name of its own")] {
        let failed = world.export_to(2, layout, &[]).await;
        assert!(failed.err.contains(said), "{}", failed.err);
    }
}

#[tokio::test]
async fn two_exports_do_not_write_one_layout_at_once() {
    let (world, _) = World::usual().await;
    let file = File::create(world.path("x.tar.partial")).unwrap();
    fs::create_dir(world.path("x.partial")).unwrap();
    let folder = File::open(world.path("x.partial")).unwrap();
    file.lock().unwrap();
    folder.lock().unwrap();
    fs::write(world.path("x.tar.partial"), "of another process").unwrap();
    for layout in ["x.tar", "x"] {
        let failed = world.export_to(1, layout, &[]).await;
        assert!(failed.err.contains("another sealift process writes"), "{}", failed.err);
    }
    assert_eq!(fs::read(world.path("x.tar.partial")).unwrap(), b"of another process");
    drop((file, folder));
    for layout in ["x.tar", "x"] {
        world.export(layout, &[]).await;
    }
}

#[tokio::test]
async fn a_layout_and_a_bundle_are_asked_for_apart() {
    let machine = Machine::new();
    let options: [&[&str]; 6] = [
        &["--to", "drive"],
        &["--sign-key", "x.key"],
        &["--volume-size", "1MiB"],
        &["--bundle", "test-1-1"],
        &["--epoch", "2"],
        &["--verify-write", "none"],
    ];
    for option in options {
        let arguments = ["export", "test", "--layout", "x.tar"];
        let refused = machine.run_to(2, &[&arguments[..], option].concat()).await;
        assert!(refused.err.contains("cannot be used with") && refused.err.contains(option[0]), "{}", refused.err);
    }
    let refused = machine.run_to(2, &["export", "test", "--to", "drive"]).await;
    assert!(refused.err.contains("--sign-key"), "{}", refused.err);
    let refused = machine.run_to(2, &["export", "test", "--sign-key", "k", "--platform", "linux/amd64"]).await;
    assert!(refused.err.contains("cannot be used with") && refused.err.contains("--platform"), "{}", refused.err);
    let refused = machine.run_to(2, &["export", "test", "--platform", "linux/amd64"]).await;
    assert!(refused.err.contains("--layout"), "{}", refused.err);
}

#[tokio::test]
async fn an_image_that_is_not_whole_is_named_and_the_others_are_exported() {
    let make = |seed| ImageBuilder::new().platform("linux", OWN, "").random_layer(1000, seed).build().unwrap();
    let (one, two) = (make(1), make(2));
    let world = World::new(&[("team/one", "all", &one), ("team/two", "all", &two)]).await;
    let layer = one.parsed(&one.child("linux", OWN, "").unwrap()).unwrap().successors().last().unwrap().digest;
    fs::remove_file(world.blob(&layer)).unwrap();
    let ran = world.export_to(3, "layout.tar", &[]).await;
    assert!(ran.out.contains("not in it: ") && ran.out.contains("team/one"), "{}", ran.out);
    let files = content(&world.path("layout.tar"));
    assert_eq!(parsed(&files, "index.json")["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(parsed(&files, "manifest.json").as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn skopeo_reads_every_form_by_both_tables_of_contents() {
    let (world, image) = World::usual().await;
    if !have(&["skopeo"]) {
        return;
    }
    let (clients, name) = (Clients::new(), format!("{}/team/web:1", world.host));
    for form in FORMS {
        world.export(form, &[]).await;
        let transport = if form == "layout" { "oci" } else { "oci-archive" };
        let layout = format!("{transport}:{}:{name}", world.path(form).display());
        let raw = clients.skopeo_ok(&["inspect", "--raw", &layout]).await;
        assert_eq!(raw.as_bytes(), image.bytes(&image.root.digest).unwrap(), "{form}: the index as it was signed");
        for architecture in [OWN, OTHER] {
            let choice = ["--override-os", "linux", "--override-arch", architecture];
            let to = format!("dir:{}", clients.folder().join(format!("{form}-{architecture}")).display());
            clients.skopeo_ok(&[&choice[..], &["copy", &layout, &to]].concat()).await;
        }
    }
    let archive = format!("docker-archive:{}:{name}", world.path("layout.tar").display());
    let config = clients.skopeo_ok(&["inspect", "--config", "--raw", &archive]).await;
    let child = image.child("linux", OWN, "").unwrap();
    let expected = image.parsed(&child).unwrap().successors().next().unwrap().digest;
    assert_eq!(Digest::of(config.as_bytes()), expected);
}
