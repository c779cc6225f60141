//! Layouts that somebody made in order to deceive: nothing that was not looked at is called good, and a small folder asks
//! for no more than its share.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealift::Kind;
use sealift::layers::{Compression, FAILURES_MAX, Unpacker, WINDOWS_MAX, Windows};
use sealift::monitor::Silent;
use sealift::oci::Digest;
use sealift::verify::{Depth, LayoutReport, verify_layout};
use serde_json::{Value, json};

use crate::made::{GZIP, gzip};
use crate::{World, said};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layout on disk.
struct Made(tempfile::TempDir);

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(folder.path().join("oci-layout"), br#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        Made(folder)
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.0.path().join(digest.layout_path()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// A manifest with these layers, of which its config says `diff_id`.
    fn image(&self, layers: &[Value], diff_id: Digest) -> Value {
        let diff_ids = vec![diff_id; layers.len()];
        let config =
            json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.put(CONFIG, config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.put(MANIFEST, manifest.to_string().as_bytes())
    }

    fn good_image(&self) -> Value {
        self.image(&[self.put(GZIP, &gzip(b"content"))], Digest::of(b"content"))
    }

    fn index(&self, children: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
        self.put(INDEX, index.to_string().as_bytes())
    }

    fn look(&self, entries: &[Value]) -> LayoutReport {
        fs::write(self.0.path().join("index.json"), json!({"schemaVersion": 2, "manifests": entries}).to_string())
            .unwrap();
        verify_layout(Depth::Layers, self.0.path(), &Silent).unwrap()
    }
}

fn with(descriptor: &Value, key: &str, value: Value) -> Value {
    let mut changed = descriptor.clone();
    changed[key] = value;
    changed
}

fn nested(made: &Made, innermost: &Value, times: usize) -> Value {
    let mut innermost = innermost.clone();
    for _ in 0..times {
        innermost = made.index(std::slice::from_ref(&innermost));
    }
    innermost
}

#[test]
fn what_was_not_looked_at_is_not_good() {
    let made = Made::new();
    let absent = json!({"mediaType": GZIP, "digest": Digest::of(b"absent"), "size": 6});
    let (good, lacking) = (made.good_image(), made.image(&[absent], Digest::of(b"x")));
    let size = good["size"].as_u64().unwrap();
    let longer = with(&good, "size", json!(size + 9));
    let kids: Vec<Value> = (0..12_000)
        .map(|number| json!({"mediaType": MANIFEST, "digest": Digest::of(format!("{number}").as_bytes()), "size": 7}))
        .collect();
    let (first, second) = kids.split_at(6_000);
    let rows: [(&str, Vec<Value>, &str); 8] = [
        ("too deep", vec![nested(&made, &lacking, 7)], "nested more than"),
        ("far too deep", vec![nested(&made, &lacking, 30)], "nested more than"),
        ("a root of another size", vec![longer.clone()], " bytes instead of "),
        ("a child of another size", vec![made.index(std::slice::from_ref(&longer))], " bytes instead of "),
        ("a second root of another size", vec![good.clone(), with(&good, "size", json!(5))], "is listed as"),
        ("a second root of another type", vec![good.clone(), with(&good, "mediaType", json!(INDEX))], "is listed as"),
        ("a second child of another size", vec![made.index(&[good.clone(), longer])], "is listed as"),
        ("too many children", vec![made.index(&[made.index(first), made.index(second)])], "lists more than"),
    ];
    for (name, entries, says) in rows {
        let report = made.look(&entries);
        assert_eq!(report.verdict(), Some(Kind::Incomplete), "{name}: {:?}", report.images);
        let problem = report.images[0].problem.as_deref().unwrap();
        assert!(problem.contains(says), "{name}: {problem}");
    }
    for entries in [vec![good.clone(), good.clone()], vec![made.index(&[good.clone(), good.clone()])]] {
        let report = made.look(&entries);
        assert_eq!((report.verdict(), report.images.len()), (None, 1), "{:?}", report.images);
    }
    assert_eq!(made.look(&[nested(&made, &good, 2)]).verdict(), None);
}

#[test]
fn failures_cost_no_more_than_their_share() {
    let made = Made::new();
    let layer = made.put(GZIP, &gzip(b"content"));
    let count = FAILURES_MAX + 500;
    let image = made.image(&vec![layer; count], Digest::of(b"other"));
    let name = "n".repeat(1 << 20);
    let image = with(&image, "annotations", json!({"org.opencontainers.image.ref.name": name}));
    let deep = made.look(&[image]).deep.unwrap();
    assert_eq!((deep.failures.len(), deep.more_failures), (FAILURES_MAX, 500));
    let failure = &deep.failures[0];
    assert!(failure.image.len() < 300 && failure.image.ends_with("n…"), "{} bytes", failure.image.len());
}

/// What the command says of a folder.
fn verify(folder: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealift"));
    command.env_clear().env("HOME", folder).env("SEALIFT_STATE", folder.join("state"));
    command.arg("verify").arg(folder).output().unwrap()
}

#[test]
fn a_name_moves_no_cursor() {
    let made = Made::new();
    let image = with(&made.good_image(), "size", json!(3));
    let name = "x\u{1b}[2J\u{9b}Hgood\r";
    made.look(&[with(&image, "annotations", json!({"org.opencontainers.image.ref.name": name}))]);
    let output = verify(made.0.path());
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("not whole: x\u{fffd}[2J\u{fffd}Hgood\u{fffd}\n"), "{}", said(&output));
}

#[test]
fn one_image_is_whole() {
    let made = Made::new();
    made.look(&[made.good_image()]);
    let output = verify(made.0.path());
    assert!(output.status.success() && said(&output).contains("good: 1 image is whole."), "{}", said(&output));
}

#[test]
fn what_is_left_of_a_bundle_is_no_store() {
    for name in ["bundle.json.sig", "bundle.chunks", "meta.tar", "vol-0001.tar"] {
        let made = Made::new();
        made.look(&[made.good_image()]);
        fs::write(made.0.path().join(name), b"x").unwrap();
        let output = verify(made.0.path());
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        assert!(said(&output).contains(name) && said(&output).contains("--key"), "{}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_run_is_not_good() {
    let layer = crate::made::Layer::new(GZIP, gzip(b"content"), b"content");
    let world = World::of(&[("team/app".into(), crate::made::image(&[layer]))]).await;
    let root = world.store.root().to_owned();
    assert_eq!(world.verify_store().verdict(), None);
    let index = root.join("index.json");
    let good = fs::read(&index).unwrap();
    fs::remove_file(&index).unwrap();
    fs::write(&index, b"garbage").unwrap();
    assert_eq!(world.verify_store().verdict(), Some(Kind::Verification));
    fs::remove_file(&index).unwrap();
    fs::write(&index, good).unwrap();
    let run = fs::read_dir(root.join("records/runs")).unwrap().next().unwrap().unwrap().path();
    for name in ["test-+9.json", "test-007.json"] {
        let odd = run.with_file_name(name);
        fs::copy(&run, &odd).unwrap();
        let damaged = world.verify_store().damaged;
        assert!(damaged.len() == 1 && damaged[0].file == odd, "{name}: {damaged:?}");
        fs::remove_file(odd).unwrap();
    }
    world.export(1 << 20).await;
    let bundle = fs::read_dir(root.join("records/bundles")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(world.verify_store().verdict(), None);
    for (name, keep) in [("bundle.json", 100), ("bundle.json.sig", 0)] {
        let (path, good) = (bundle.join(name), fs::read(bundle.join(name)).unwrap());
        fs::remove_file(&path).unwrap();
        if keep > 0 {
            fs::write(&path, &good[..keep]).unwrap();
        }
        let damaged = world.verify_store().damaged;
        assert!(damaged.len() == 1 && damaged[0].file == path, "{name}: {damaged:?}");
        let _ = fs::remove_file(&path);
        fs::write(&path, good).unwrap();
    }
    fs::remove_file(run).unwrap();
    let report = world.verify_store();
    assert_eq!((report.verdict(), report.images.len()), (Some(Kind::Verification), 0));
}

#[test]
fn what_is_free_is_free_once() {
    let (windows, free) = (Windows::new(WINDOWS_MAX), Arc::new(AtomicU64::new(100)));
    let unpack = |bytes: usize| {
        let content = vec![0; bytes];
        let mut unpacker = Unpacker::new(Compression::Gzip, &[Digest::of(b"")], 50, &windows).sharing(&free);
        unpacker.push(&gzip(&content)).and_then(|()| unpacker.finish())
    };
    assert_eq!(unpack(50).unwrap().bytes, 50);
    assert_eq!(free.load(Ordering::Relaxed), 100, "within its own limit");
    assert_eq!(unpack(120).unwrap().digests, [Digest::of(&[0; 120])]);
    assert_eq!(free.load(Ordering::Relaxed), 30);
    assert!(unpack(81).unwrap_err().contains("taken for a bomb"));
    assert_eq!(unpack(80).unwrap().bytes, 80);
    assert!(unpack(51).unwrap_err().contains("more than 50 bytes"));
}
