//! A store of 100,000 images and 1,000,000 blobs: planning, pulling with nothing new, and a catalog made anew.
//!
//! Manifests, configs and records are true; layers are sparse files of their size. The store lies below target/bench, or in
//! the folder of `SCALE_DATA`, and stays there for the next time. Commands are measured with time(1). Prints rows of a
//! table, and fails when a limit is not kept.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a bench")]

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use sealift::content::Body;
use sealift::image::{Absent, Image, IndexMode, Kept};
use sealift::oci::{Descriptor, Digest, MediaType, Name, Platform, json};
use sealift::serve::{Running, Shelf};
use sealift::store::records::{Run, RunImage};
use sealift::store::{Access, Store};
use sealift::{Error, Result};
use serde_json::json;

const STREAMS: usize = 100;
const REPOSITORIES: usize = 10;
const TAGS: usize = 100;
/// With index, manifest and config, ten blobs for each image.
const LAYERS: usize = 7;
/// A name that no resolver knows: all requests go to the mirror on this machine.
const HOST: &str = "scale.invalid";
/// The stream of everything.
const ALL: &str = "all";

fn main() {
    let data = std::env::var_os("SCALE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/scale"), PathBuf::from);
    let (small, large) = (data.join("small"), data.join("large"));
    make(&small, 1);
    make(&large, STREAMS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = runtime.block_on(Running::start(Arc::new(Synthetic::new()))).unwrap();
    let config = format!(
        "apiVersion: sealift/v1\nkind: Config\nregistries:\n  {HOST}:\n    mirrors: [\"{}\"]\n",
        registry.url()
    );
    std::fs::write(data.join("config.yaml"), config).unwrap();
    let bench = Bench { data };
    let mut kept = true;
    let mut row = |what: &str, found: String, limit: &str, met: bool| {
        let verdict = if limit.is_empty() {
            ""
        } else if met {
            "met"
        } else {
            "not met"
        };
        println!("| {what} | {found} | {limit} | {verdict} |");
        kept &= met;
    };
    println!("| figure | | limit | |\n|---|---:|---:|---|");
    let one_small = bench.sealift("plan", &small, "stream-0");
    row("plan 1,000 tags, store of 1,000 images", one_small.text(), "", true);
    let one = bench.sealift("plan", &large, "stream-0");
    row("plan 1,000 tags, store of 100,000 images", one.text(), "10 s", one.seconds < 10.0);
    let growth = one.mib / one_small.mib;
    row("its memory to that with the small store", format!("{growth:.2}"), "1.2", growth < 1.2);
    bench.sealift("pull", &large, "stream-0");
    let pull = bench.sealift("pull", &large, "stream-0");
    row("pull 1,000 tags with nothing new", pull.text(), "10 s", pull.seconds < 10.0);
    let growth = pull.mib / bench.sealift("pull", &small, "stream-0").mib;
    row("its memory to that with the small store", format!("{growth:.2}"), "1.2", growth < 1.2);
    let all = bench.sealift("plan", &large, ALL);
    row("plan all 100,000 tags", all.text(), "", true);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(large.join(format!("catalog.sqlite3{suffix}")));
    }
    let rebuilt = bench.sealift("plan", &large, "stream-0");
    row("plan 1,000 tags without a catalog, which is made anew", rebuilt.text(), "60 s", rebuilt.seconds < 60.0);
    let listed = bench.sealift("pull", &large, "stream-0");
    row("pull after that, which lists all streams anew", listed.text(), "60 s", listed.seconds < 60.0);
    std::process::exit(if kept { 0 } else { 1 });
}

struct Bench {
    data: PathBuf,
}

struct Cost {
    seconds: f64,
    cpu: f64,
    mib: f64,
}

impl Cost {
    fn text(&self) -> String {
        format!("{:.1} s, {:.1} CPU s, {:.0} MiB", self.seconds, self.cpu, self.mib)
    }
}

impl Bench {
    /// Runs `sealift <verb>` for one stream.
    fn sealift(&self, verb: &str, store: &Path, stream: &str) -> Cost {
        let (spec, costs) = (self.data.join(format!("{stream}.yaml")), self.data.join("costs"));
        std::fs::write(&spec, spec_of(stream)).unwrap();
        let mut command = Command::new("time");
        command.args(["-f", "%e %U %S %M", "-o"]).arg(&costs).arg(env!("CARGO_BIN_EXE_sealift")).arg(verb).arg(&spec);
        command.arg("--store").arg(store).arg("--config").arg(self.data.join("config.yaml"));
        let output = command.env("HOME", &self.data).output().expect("time(1) runs (Debian: time)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "sealift {verb} {stream}: {said}");
        let text = std::fs::read_to_string(&costs).unwrap();
        let found: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
        Cost { seconds: found[0], cpu: found[1] + found[2], mib: found[3] / 1024.0 }
    }
}

fn spec_of(stream: &str) -> String {
    let numbers: Vec<usize> = match stream.strip_prefix("stream-") {
        Some(number) => vec![number.parse().unwrap()],
        None => (0..STREAMS).collect(),
    };
    let repositories = numbers.into_iter().flat_map(|number| (0..REPOSITORIES).map(move |at| repository(number, at)));
    let entries: String =
        repositories.map(|name| format!("  - {{source: {HOST}/{name}, tags: {{glob: ['*']}}}}\n")).collect();
    format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: {stream}\ndefaults:\n  platforms: [linux/amd64]\n  signatures: {{recheck: 87600h}}\nimages:\n{entries}"
    )
}

fn repository(stream: usize, at: usize) -> String {
    format!("team-{stream}/app-{at}")
}

/// One image: what is in its blobs, and what the store records of it.
struct Synthesised {
    documents: Vec<(Descriptor, Vec<u8>)>,
    layers: Vec<Descriptor>,
    record: Image,
}

fn synthesise(stream: usize, at: usize, tag: usize) -> Synthesised {
    let seed = format!("{stream} {at} {tag}");
    let layer = |number: usize| {
        let digest = Digest::of(format!("{seed} {number}").as_bytes());
        let size = 1_000_000 * (number as u64 + 1) + u64::from(digest.bytes()[0]);
        Descriptor::new(MediaType::OCI_LAYER_GZIP, digest, size)
    };
    let layers: Vec<Descriptor> = (0..LAYERS).map(layer).collect();
    let document = |media_type: MediaType, value: serde_json::Value| {
        let bytes = serde_json::to_vec(&value).unwrap();
        (Descriptor::of(media_type, &bytes), bytes)
    };
    let diffs: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let config = document(
        MediaType::OCI_CONFIG,
        json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diffs}}),
    );
    let manifest = document(
        MediaType::OCI_MANIFEST,
        json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config.0, "layers": layers}),
    );
    let platform: Platform = serde_json::from_value(json!({"os": "linux", "architecture": "amd64"})).unwrap();
    let child = Descriptor { platform: Some(Box::new(platform)), ..manifest.0.clone() };
    let index = document(
        MediaType::OCI_INDEX,
        json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [child]}),
    );
    let forms = ["cosign.sig", "cosign.att", "cosign.sbom", "referrers"].map(str::to_owned).to_vec();
    let absent = [index.0.digest, child.digest].map(|subject| Absent { subject, forms: forms.clone() });
    let record = Image {
        repository: format!("{HOST}/{}", repository(stream, at)),
        root: index.0.clone(),
        mode: IndexMode::Full,
        kept: vec![Kept {
            descriptor: child,
            parent: index.0.digest,
            platform: Some("linux/amd64".to_owned()),
            attests: None,
        }],
        left_out: Vec::new(),
        signatures: Vec::new(),
        absent: absent.to_vec(),
        foreign: Vec::new(),
        trimmed: None,
    };
    Synthesised { documents: vec![config, manifest, index], layers, record }
}

/// Makes a store of that many streams, where there is none.
fn make(root: &Path, streams: usize) {
    let whole = root.join("whole");
    if whole.exists() {
        return;
    }
    eprintln!("making a store of {} images in {}", streams * REPOSITORIES * TAGS, root.display());
    let _ = std::fs::remove_dir_all(root);
    let store = Store::open(root, Access::Writer).unwrap();
    let mut all = Vec::new();
    for stream in 0..streams {
        let mut images = Vec::new();
        for at in 0..REPOSITORIES {
            for tag in 0..TAGS {
                images.push(put(&store, synthesise(stream, at, tag), tag).unwrap());
            }
        }
        put_run(&store, &format!("stream-{stream}"), images.clone());
        all.extend(images);
    }
    put_run(&store, ALL, all);
    drop(store);
    File::create(whole).unwrap();
}

fn put(store: &Store, made: Synthesised, tag: usize) -> Result<RunImage> {
    for (descriptor, bytes) in &made.documents {
        std::fs::write(store.path_of(&descriptor.digest), bytes)?;
        store.catalog().put_blob(&descriptor.digest, descriptor.size, descriptor.digest.bytes())?;
    }
    for layer in &made.layers {
        File::create(store.path_of(&layer.digest))?.set_len(layer.size)?;
        store.catalog().put_blob(&layer.digest, layer.size, layer.digest.bytes())?;
    }
    // Not by the store itself, which syncs each.
    let bytes = json::canonical(&made.record).map_err(|error| Error::failed(error.to_string()))?;
    let image = Digest::of(&bytes);
    std::fs::write(store.root().join(format!("records/images/{}.json", image.hex())), bytes)?;
    Ok(RunImage {
        repository: made.record.repository,
        tags: vec![format!("1.{tag}").parse().unwrap()],
        image,
        signatures_checked: sealift::clock::text(jiff::Timestamp::now()),
        problem: None,
    })
}

fn put_run(store: &Store, stream: &str, images: Vec<RunImage>) {
    let started = sealift::clock::text(jiff::Timestamp::now());
    let stream = stream.to_owned();
    let mut run = Run { stream, number: 0, started, export_to: None, volume_size: None, images, failed: Vec::new() };
    store.put_run(&mut run).unwrap();
}

/// A registry of all images that answers what a tag is. Nothing else is asked of it when nothing is new.
struct Synthetic {
    repositories: HashMap<String, HashMap<String, Descriptor>>,
}

impl Synthetic {
    fn new() -> Self {
        let mut repositories = HashMap::new();
        for (stream, at) in (0..STREAMS).flat_map(|stream| (0..REPOSITORIES).map(move |at| (stream, at))) {
            let root = |tag| (format!("1.{tag}"), synthesise(stream, at, tag).record.root);
            repositories.insert(repository(stream, at), (0..TAGS).map(root).collect());
        }
        Synthetic { repositories }
    }
}

impl Shelf for Synthetic {
    fn repositories(&self) -> Result<Vec<String>> {
        Ok(self.repositories.keys().cloned().collect())
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        Ok(self.repositories.get(repository).map(|tags| tags.keys().cloned().collect()))
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        let Name::Tag(tag) = name else { return Ok(None) };
        Ok(self.repositories.get(repository).and_then(|tags| tags.get(tag.as_str())).cloned())
    }

    /// Of a HEAD, only the headers are looked at.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        Err(Error::failed(format!("{} was to be in the store", descriptor.digest)))
    }

    fn referrers(&self, _: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        Err(Error::failed(format!("signatures of {subject} were not due")))
    }

    fn blob(&self, _: &str, digest: &Digest) -> Result<Option<u64>> {
        Err(Error::failed(format!("{digest} was to be in the store")))
    }

    fn open(&self, digest: &Digest, _: u64, _: u64) -> Result<Body> {
        Err(Error::failed(format!("{digest} was to be in the store")))
    }
}
