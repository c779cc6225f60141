//! Bundles that are not what was signed: verify says what is wrong and where, replay publishes what is whole and
//! nothing else. Bundles that come twice, in any order, or half: the same state in the end.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::{Router, response::Response};
use sealift::bundle::{BundleReader, Contents, PublicKey, ReadBack, SigningKey, generate_key};
use sealift::content::Limits;
use sealift::export::{ExportOptions, ExportReport, export};
use sealift::monitor::Silent;
use sealift::oci::manifest::Content;
use sealift::oci::{Digest, Registry, Repository};
use sealift::replay::{Destination, ReplayReport, replay};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf, router};
use sealift::site::state::State;
use sealift::store::{Access, Store};
use sealift::verify::{VerifyReport, verify};
use sealift::{Error, Kind, Result, Side};
use serde_json::{Value, json};
use support::journey::{fetch, quick_client, spec_of, tagged};

const MIB: usize = 1024 * 1024;

/// Each layer of 100 kB gets a volume of its own.
const VOLUME_SIZE: u64 = 128 * 1024;

/// The repositories of the usual bundle; each has the tag `1`, and its layer is in the volume of its number.
const REPOSITORIES: [&str; 3] = ["team/one", "team/two", "team/three"];

fn image(seed: u64, size: usize) -> SampleImage {
    let builder = ImageBuilder::new().platform("linux", "amd64", "").random_layer(size, seed);
    builder.platform("linux", "arm64", "").random_layer(100, seed + 1_000).build().unwrap()
}

/// A stream with its source, store and key, below a temporary folder.
struct Maker {
    folder: tempfile::TempDir,
    shelf: MemoryShelf,
    source: Running,
    store: Arc<Store>,
    key: SigningKey,
}

impl Maker {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        generate_key(&folder.path().join("exporter")).unwrap();
        let key = SigningKey::load(&folder.path().join("exporter.key")).unwrap();
        let shelf = MemoryShelf::new();
        let source = Running::start(Arc::new(shelf.clone())).await.unwrap();
        let store = Arc::new(Store::open(&folder.path().join("store"), Access::Writer).unwrap());
        Maker { folder, shelf, source, store, key }
    }

    /// A stream of the usual three images, pulled.
    async fn usual() -> Self {
        let maker = Self::new().await;
        for (number, repository) in REPOSITORIES.into_iter().enumerate() {
            maker.put(repository, "1", &image(number as u64, 100_000));
        }
        maker.pull(&REPOSITORIES.map(|repository| (repository, "1"))).await;
        maker
    }

    fn put(&self, repository: &str, tag: &str, image: &SampleImage) {
        seed(&self.shelf, repository, Some(&tag.parse().unwrap()), image).unwrap();
    }

    async fn pull(&self, references: &[(&str, &str)]) {
        let fetched = fetch(&spec_of(&self.source.address().to_string(), references), &self.store).await;
        assert!(fetched.report.failed.is_empty(), "{:?}", fetched.report.failed);
    }

    fn drive(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn export_in(&self, drive: &str, volume_size: u64) -> Result<ExportReport> {
        let options = ExportOptions { recorded: None, volume_size, epoch: None, read_back: ReadBack::None };
        export("test", &self.store, &self.drive(drive), &self.key, options, &Silent).await
    }

    async fn export(&self, drive: &str) -> PathBuf {
        self.export_in(drive, VOLUME_SIZE).await.unwrap().folder
    }

    /// A bundle folder like `folder`, to do harm to.
    fn copy(&self, folder: &Path) -> (tempfile::TempDir, PathBuf) {
        let held = tempfile::tempdir_in(self.folder.path()).unwrap();
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            fs::write(held.path().join(path.file_name().unwrap()), fs::read(&path).unwrap()).unwrap();
        }
        let path = held.path().to_owned();
        (held, path)
    }

    fn keys(&self) -> [PublicKey; 1] {
        [self.key.public().clone()]
    }

    fn verify(&self, folder: &Path) -> Result<VerifyReport> {
        verify(&[folder.to_owned()], &self.keys(), &Silent)
    }

    fn contents(&self, folder: &Path) -> Contents {
        Contents::parse(&fs::read(folder.join("bundle.json")).unwrap()).unwrap()
    }

    /// Signs an edited `bundle.json` with the trusted key.
    fn sign(&self, folder: &Path, json: &Value) {
        let bytes = serde_json::to_vec(json).unwrap();
        put_file(&folder.join("bundle.json.sig"), self.key.sign(&bytes).unwrap().as_bytes());
        put_file(&folder.join("bundle.json"), &bytes);
    }
}

/// A registry of a site, and what the site remembers.
struct Site {
    shelf: MemoryShelf,
    registry: Registry,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        Self::behind(|service| service).await
    }

    /// A site whose registry has something before it.
    async fn behind(layer: impl FnOnce(Router) -> Router) -> Self {
        let shelf = MemoryShelf::new();
        let service = layer(router(Arc::new(shelf.clone())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async { axum::serve(listener, service).await });
        Site { shelf, registry, folder: tempfile::tempdir().unwrap() }
    }

    async fn replay(&self, folder: &Path, keys: &[PublicKey]) -> Result<ReplayReport> {
        let reader = Arc::new(BundleReader::open(&[folder.to_owned()], keys)?);
        let registry = self.registry.clone();
        let destination = Destination {
            known: sealift::target::Known::default(),
            client: quick_client(Side::Target),
            stubs: true,
            tag_children: false,
            rollback: None,
            limits: Limits::default(),
            name: Box::new(move |source| Ok(Repository::new(registry.clone(), source.path()).unwrap())),
        };
        let mut state = State::lock(self.folder.path(), "test", &reader.key().id())?;
        replay(&reader, &destination, &mut state, &Silent).await
    }

    /// All tags; each has all of its image.
    fn tags(&self) -> BTreeMap<String, Digest> {
        let mut tags = BTreeMap::new();
        for repository in self.shelf.repositories().unwrap() {
            for tag in self.shelf.tags(&repository).unwrap().unwrap() {
                tags.insert(format!("{repository}:{tag}"), tagged(&self.shelf, &repository, &tag).unwrap());
            }
        }
        tags
    }
}

fn put_file(path: &Path, bytes: &[u8]) {
    // What a bundle holds is read-only.
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    put_file(path, &bytes);
}

fn flip(path: &Path, at: u64) {
    change(path, |bytes| bytes[usize::try_from(at).unwrap()] ^= 1);
}

fn cut(path: &Path, length: u64) {
    change(path, |bytes| bytes.truncate(usize::try_from(length).unwrap()));
}

/// The error of a bundle of which nothing may be used: of this kind, in one line that says this, with help.
fn assert_refused<T>(name: &str, outcome: Result<T>, kind: Kind, says: &str) {
    let Err(error) = outcome else { panic!("{name} was taken") };
    assert_error(name, &error, kind, says);
}

fn assert_error(name: &str, error: &Error, kind: Kind, says: &str) {
    let text = error.to_string();
    assert!(text.contains(says) && !text.contains('\n') && text.len() < 1_000, "{name}: {error:?}");
    assert_eq!(error.kind(), kind, "{name}: {error:?}");
    assert!(error.help_text().is_some(), "{name}: no help in {error:?}");
}

type Harm = fn(&Maker, &Path);
type Damage = fn(&Path);

/// Harm after which nothing of the bundle is used: what is done, the kind of the error, and what it says.
const UNTRUSTED: &[(&str, Harm, Kind, &str)] = &[
    (
        "a signature of other bytes",
        |maker, folder| put_file(&folder.join("bundle.json.sig"), maker.key.sign(b"other").unwrap().as_bytes()),
        Kind::Verification,
        "no trusted key signed this bundle",
    ),
    (
        "a signature by another key",
        |maker, folder| {
            let out = folder.join("other");
            generate_key(&out).unwrap();
            let other = SigningKey::load(&out.with_extension("key")).unwrap();
            assert_ne!(other.public(), maker.key.public());
            let signature = other.sign(&fs::read(folder.join("bundle.json")).unwrap()).unwrap();
            put_file(&folder.join("bundle.json.sig"), signature.as_bytes());
        },
        Kind::Verification,
        "no trusted key signed this bundle",
    ),
    (
        "a signature that is no text",
        |_, folder| put_file(&folder.join("bundle.json.sig"), &[0xff; 100]),
        Kind::Verification,
        "no trusted key signed this bundle",
    ),
    (
        "a signature that is empty",
        |_, folder| put_file(&folder.join("bundle.json.sig"), b""),
        Kind::Verification,
        "no trusted key signed this bundle",
    ),
    (
        "no signature",
        |_, folder| fs::remove_file(folder.join("bundle.json.sig")).unwrap(),
        Kind::Missing,
        "bundle.json.sig is missing",
    ),
    (
        "no bundle.json",
        |_, folder| fs::remove_file(folder.join("bundle.json")).unwrap(),
        Kind::Missing,
        "has no bundle.json",
    ),
    (
        "a bundle.json that is a pipe",
        |_, folder| pipe(&folder.join("bundle.json")),
        Kind::Verification,
        "bundle.json is no regular file",
    ),
    (
        "a signature that is a link",
        |_, folder| {
            let path = folder.join("bundle.json.sig");
            fs::rename(&path, folder.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        },
        Kind::Verification,
        "bundle.json.sig is no regular file",
    ),
    (
        "a bundle.json that never ends",
        |_, folder| {
            let path = folder.join("bundle.json");
            fs::remove_file(&path).unwrap();
            File::create(path).unwrap().set_len(65 * MIB as u64).unwrap();
        },
        Kind::Verification,
        "bundle.json has more than 67108864 bytes",
    ),
    (
        "a chunk table with a flipped bit",
        |_, folder| flip(&folder.join("bundle.chunks"), 40),
        Kind::Verification,
        "bundle.chunks is damaged",
    ),
    (
        "a chunk table that was cut",
        |_, folder| cut(&folder.join("bundle.chunks"), 40),
        Kind::Verification,
        "bundle.chunks is damaged",
    ),
    (
        "a chunk table that is too long",
        |_, folder| change(&folder.join("bundle.chunks"), |bytes| bytes.push(0)),
        Kind::Verification,
        "bundle.chunks has more than",
    ),
    (
        "no chunk table",
        |_, folder| fs::remove_file(folder.join("bundle.chunks")).unwrap(),
        Kind::Missing,
        "bundle.chunks is missing",
    ),
];

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_not_trusted_nothing_is_used() {
    let maker = Maker::usual().await;
    let folder = maker.export("drive").await;
    let site = Site::new().await;
    for (name, harm, kind, says) in UNTRUSTED {
        let (_held, folder) = maker.copy(&folder);
        harm(&maker, &folder);
        assert_refused(name, maker.verify(&folder), *kind, says);
        assert_refused(name, site.replay(&folder, &maker.keys()).await, *kind, says);
        assert!(site.shelf.repositories().unwrap().is_empty(), "{name}");
        assert_eq!(fs::read_dir(site.folder.path()).unwrap().count(), 0, "{name}: the site remembers nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_the_contents_can_be_changed() {
    let maker = Maker::new().await;
    maker.put("a/b", "1", &image(1, 10));
    maker.pull(&[("a/b", "1")]).await;
    let (_held, folder) = maker.copy(&maker.export("drive").await);
    let path = folder.join("bundle.json");
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(&path, changed).unwrap();
        let error = BundleReader::open(slice::from_ref(&folder), &maker.keys()).err();
        assert_eq!(error.map(|error| error.kind()), Some(Kind::Verification), "byte {at}");
    }
}

type Edit = fn(&mut Value);

/// What a trusted key signed and is refused all the same: the edit, and what the error says.
const SIGNED_NONSENSE: &[(&str, Edit, &str)] = &[
    ("another type", |json| json["type"] = json!("sealift/receipt"), "the type is"),
    ("a higher major version", |json| json["version"] = json!("2.0"), "version \"2.0\" is not known"),
    ("no version", |json| json["version"] = json!("one"), "version \"one\" is not known"),
    ("an unknown critical member", |json| json["critical"] = json!(["parity"]), "\"parity\" must be understood"),
    ("an unknown kind of baseline", |json| json["baseline"] = json!({"kind": "site"}), "a baseline of kind \"site\""),
    ("epoch 0", |json| json["epoch"] = json!(0), "no numbers from 1"),
    ("sequence 0", |json| json["sequence"] = json!(0), "no numbers from 1"),
    ("a number beyond 2^53", |json| json["sequence"] = json!(1_u64 << 53), "no numbers from 1"),
    ("a stream that is a path", |json| json["stream"] = json!("../x"), "is no name of a stream"),
    ("a repository that is a path", |json| json["images"][0]["repository"] = json!("../x"), "bundle.json: "),
    (
        "a tag of no image",
        |json| json["references"][0]["descriptor"]["digest"] = json!(Digest::of(b"").to_string()),
        "of which there is no image",
    ),
    ("an unknown encoding", |json| json["blobs"][0]["encoding"] = json!("zstd"), "has encoding \"zstd\""),
    ("a blob that is listed twice", |json| again(&mut json["blobs"]), "is listed twice"),
    ("a digest that is a path", |json| json["blobs"][0]["digest"] = json!("sha256:../../x"), "is no digest"),
    ("a blob in no extent", |json| json["blobs"][0]["extents"] = json!([]), "do not add up"),
    ("a size that is not that of its extents", |json| add(&mut json["blobs"][0]["size"], 1), "do not add up"),
    (
        "lengths that overflow",
        |json| {
            let extent = json!({"volume": 1, "offset": 512, "length": u64::MAX / CHUNK * CHUNK});
            json["blobs"][0]["extents"] = json!([extent, extent]);
        },
        "impossible size",
    ),
    (
        "a part that ends within a chunk",
        |json| {
            let extent = layer_extent(json).clone();
            let length = extent["length"].as_u64().unwrap();
            let rest = json!({"volume": 1, "offset": extent["offset"], "length": length - 512});
            let at = layer_at(json);
            json["blobs"][at]["extents"] = json!([{"volume": 1, "offset": 512, "length": 512}, rest]);
        },
        "split elsewhere than at a chunk border",
    ),
    ("an offset behind the end", |json| layer_extent(json)["offset"] = json!(1 << 30), "lies outside of vol-0001.tar"),
    ("an offset that overflows", |json| layer_extent(json)["offset"] = json!(u64::MAX - 511), "lies outside of"),
    ("an offset within a block", |json| add(&mut layer_extent(json)["offset"], 8), "no place for a payload"),
    ("an offset without room for a header", |json| layer_extent(json)["offset"] = json!(0), "no place for a payload"),
    (
        "extents that overlap",
        |json| json["blobs"][1]["extents"] = one_extent(&json["blobs"][0], &json["blobs"][1]),
        "two extents overlap in meta.tar",
    ),
    (
        "an extent in the header of another",
        |json| {
            let end =
                json["blobs"][0]["extents"][0]["offset"].as_u64().unwrap() + json["blobs"][0]["size"].as_u64().unwrap();
            json["blobs"][1]["extents"][0]["offset"] = json!(end.next_multiple_of(512));
        },
        "two extents overlap in meta.tar",
    ),
    ("a volume that is not listed", |json| layer_extent(json)["volume"] = json!(9), "there is no volume 9"),
    ("a negative volume", |json| layer_extent(json)["volume"] = json!(-1), "invalid value"),
    ("a volume that is a path", |json| json["volumes"][1]["name"] = json!("../../x"), "instead of vol-0001.tar"),
    ("a volume beyond 2^53", |json| json["volumes"][1]["size"] = json!(1_u64 << 53), "impossible size"),
    ("a file that is a path", |json| json["files"][0]["path"] = json!("../x"), "\"../x\" is not one of a bundle's"),
    ("a file that is listed twice", |json| again(&mut json["files"]), "listed twice"),
    ("a file that is not listed", |json| drop(json["files"].as_array_mut().unwrap().pop()), "is not listed"),
    (
        "a chunk table of another length",
        |json| add(&mut file(json, "bundle.chunks")["size"], 32),
        "not one entry for each chunk",
    ),
    (
        "too many volumes",
        |json| {
            let volume = |number| json!({"name": format!("vol-{number:04}.tar"), "size": 1024});
            json["volumes"] = (0..10_001).map(volume).collect();
        },
        "10001 volumes, more than 10000",
    ),
    (
        "too many manifests in an image",
        |json| {
            let kept = json["images"][0]["kept"][0].clone();
            json["images"][0]["kept"] = vec![kept; 10_001].into();
        },
        "more than 10000 manifests",
    ),
    (
        "brackets, 10 000 deep",
        |json| {
            let mut deep = json!([]);
            for _ in 0..100 {
                deep = json!([deep]);
            }
            json["unknown"] = deep;
        },
        "nested more than 32 levels deep",
    ),
    ("no object", |json| *json = json!([]), "bundle.json: "),
];

const CHUNK: u64 = sealift::content::CHUNK_SIZE;

fn again(list: &mut Value) {
    let first = list[0].clone();
    list.as_array_mut().unwrap().push(first);
}

fn add(number: &mut Value, more: u64) {
    *number = json!(number.as_u64().unwrap() + more);
}

/// The place of the first blob in the first volume of layers.
fn layer_at(json: &Value) -> usize {
    let blobs = json["blobs"].as_array().unwrap();
    blobs.iter().position(|blob| blob["extents"][0]["volume"] == json!(1)).unwrap()
}

fn layer_extent(json: &mut Value) -> &mut Value {
    let at = layer_at(json);
    &mut json["blobs"][at]["extents"][0]
}

/// An extent where `there` lies, as long as `blob` is.
fn one_extent(there: &Value, blob: &Value) -> Value {
    let mut extent = there["extents"][0].clone();
    extent["length"] = blob["size"].clone();
    json!([extent])
}

fn file<'a>(json: &'a mut Value, path: &str) -> &'a mut Value {
    json["files"].as_array_mut().unwrap().iter_mut().find(|file| file["path"] == json!(path)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_does_not_make_nonsense_true() {
    let maker = Maker::usual().await;
    let (_held, folder) = maker.copy(&maker.export("drive").await);
    let honest: Value = serde_json::from_slice(&fs::read(folder.join("bundle.json")).unwrap()).unwrap();
    for (name, edit, says) in SIGNED_NONSENSE {
        let mut json = honest.clone();
        edit(&mut json);
        maker.sign(&folder, &json);
        assert_refused(name, maker.verify(&folder), Kind::Verification, says);
    }
    let mut newer = honest;
    newer["version"] = json!("1.7");
    newer["unknown"] = json!({"a": [1]});
    maker.sign(&folder, &newer);
    let report = maker.verify(&folder).unwrap();
    assert_eq!(report.verdict(), None, "a higher minor version is read");
}

/// Harm to the volumes: what is done, the verdict of verify, the images (by number) that are whole all the same, and what
/// the report says.
type VolumeHarm = (&'static str, fn(&Path, &Contents), Option<Kind>, &'static [usize], &'static str);

const VOLUME_HARM: &[VolumeHarm] = &[
    ("none", |_, _| (), None, &[0, 1, 2], ""),
    (
        "a flipped bit in a layer",
        |folder, of| flip(&volume(folder, 1), layer(of, 1) + 5),
        VERIFICATION,
        &[1, 2],
        "vol-0001.tar 512 piece 1: changed",
    ),
    (
        "a flipped bit in the last layer",
        |folder, of| flip(&volume(folder, 3), layer(of, 3) + 99_999),
        VERIFICATION,
        &[0, 1],
        "vol-0003.tar 512 piece 1: changed",
    ),
    (
        "a sector of zeros",
        |folder, _| change(&volume(folder, 2), |bytes| bytes[8_192..12_288].fill(0)),
        VERIFICATION,
        &[0, 2],
        "vol-0002.tar 512 piece 1: changed",
    ),
    (
        "a flipped bit in a tar header",
        |folder, _| flip(&volume(folder, 1), 0),
        None,
        &[0, 1, 2],
        "vol-0001.tar: the tar header",
    ),
    (
        "a flipped bit in the padding",
        |folder, of| {
            let end = of.blobs.iter().find(|blob| blob.extents[0].volume == 1).unwrap().size + 512;
            assert_ne!(end % 512, 0);
            flip(&volume(folder, 1), end);
        },
        None,
        &[0, 1, 2],
        "",
    ),
    (
        "a flipped bit in the trailer",
        |folder, of| flip(&volume(folder, 1), of.volumes[1].size - 1),
        None,
        &[0, 1, 2],
        "",
    ),
    (
        "a volume without its trailer",
        |folder, of| cut(&volume(folder, 1), of.volumes[1].size - 1_024),
        None,
        &[0, 1, 2],
        "vol-0001.tar has",
    ),
    (
        "a volume that was cut in a layer",
        |folder, _| cut(&volume(folder, 1), 50_000),
        VERIFICATION,
        &[1, 2],
        "vol-0001.tar 512 piece 1: the file ends too early",
    ),
    (
        "volumes that were cut in their headers",
        |folder, _| {
            (1..=3).for_each(|number| cut(&volume(folder, number), 100));
        },
        VERIFICATION,
        &[],
        "vol-0003.tar 512 piece 1: the file ends too early",
    ),
    (
        "an empty volume",
        |folder, _| cut(&volume(folder, 1), 0),
        VERIFICATION,
        &[1, 2],
        "vol-0001.tar 512 piece 1: the file ends too early",
    ),
    (
        "a volume with a longer tail",
        |folder, _| change(&volume(folder, 1), |bytes| bytes.push(1)),
        None,
        &[0, 1, 2],
        "vol-0001.tar has",
    ),
    (
        "a volume that is missing",
        |folder, _| fs::remove_file(volume(folder, 2)).unwrap(),
        Some(Kind::Missing),
        &[0, 2],
        "missing: vol-0002.tar",
    ),
    (
        "volumes that were swapped",
        |folder, _| {
            fs::rename(volume(folder, 1), folder.join("x")).unwrap();
            fs::rename(volume(folder, 2), volume(folder, 1)).unwrap();
            fs::rename(folder.join("x"), volume(folder, 2)).unwrap();
        },
        VERIFICATION,
        &[2],
        "vol-0002.tar 512 piece 1: changed",
    ),
    (
        "a volume that is a link",
        |folder, _| {
            fs::rename(volume(folder, 1), folder.join("x")).unwrap();
            std::os::unix::fs::symlink("x", volume(folder, 1)).unwrap();
        },
        Some(Kind::Missing),
        &[1, 2],
        "odd: vol-0001.tar is a link",
    ),
    (
        "a volume that is a folder",
        |folder, _| {
            fs::remove_file(volume(folder, 1)).unwrap();
            fs::create_dir(volume(folder, 1)).unwrap();
        },
        Some(Kind::Missing),
        &[1, 2],
        "missing: vol-0001.tar",
    ),
    (
        "a volume that is a pipe",
        |folder, _| pipe(&volume(folder, 1)),
        Some(Kind::Missing),
        &[1, 2],
        "missing: vol-0001.tar",
    ),
    (
        "no metadata",
        |folder, _| fs::remove_file(folder.join("meta.tar")).unwrap(),
        Some(Kind::Missing),
        &[],
        "missing: meta.tar",
    ),
    (
        "a flipped bit in a manifest",
        |folder, of| flip(&folder.join("meta.tar"), place(of, &of.images[1].root.digest)),
        VERIFICATION,
        &[0, 2],
        "meta.tar",
    ),
    (
        "a flipped bit in index.json",
        |folder, of| {
            let place = of.files.iter().find(|file| file.path == "index.json").unwrap().extent.unwrap();
            flip(&folder.join("meta.tar"), place.offset);
        },
        VERIFICATION,
        &[0, 1, 2],
        "changed: index.json in ",
    ),
    (
        "a flipped bit in SHA256SUMS",
        |folder, _| flip(&folder.join("SHA256SUMS"), 70),
        VERIFICATION,
        &[0, 1, 2],
        "SHA256SUMS",
    ),
    (
        "no README.txt",
        |folder, _| fs::remove_file(folder.join("README.txt")).unwrap(),
        VERIFICATION,
        &[0, 1, 2],
        "README.txt",
    ),
];

const VERIFICATION: Option<Kind> = Some(Kind::Verification);

fn volume(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("vol-{number:04}.tar"))
}

/// Where the payload of the first blob in a volume begins.
fn layer(contents: &Contents, volume: usize) -> u64 {
    contents.blobs.iter().find(|blob| blob.extents[0].volume == volume).unwrap().extents[0].offset
}

fn place(contents: &Contents, digest: &Digest) -> u64 {
    contents.blobs.iter().find(|blob| blob.digest == *digest).unwrap().extents[0].offset
}

/// What a report says, one line for each thing.
fn lines(report: &VerifyReport) -> String {
    let mut lines: Vec<String> = report.oddities.iter().map(|odd| format!("odd: {odd}")).collect();
    lines.extend(report.changed_files.iter().map(|file| format!("changed: {file}")));
    lines.extend(
        report.volumes.iter().filter(|volume| !volume.present).map(|volume| format!("missing: {}", volume.name)),
    );
    for damage in &report.damages {
        let how = match &damage.kind {
            sealift::bundle::DamageKind::Changed => "changed",
            sealift::bundle::DamageKind::Unreadable(why) => why,
        };
        lines.push(format!("{} {} piece {}: {how}", damage.volume, damage.offset, damage.piece));
    }
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_what_needs_the_piece() {
    let maker = Maker::usual().await;
    let bundle = maker.export("drive").await;
    let contents = maker.contents(&bundle);
    assert_eq!(contents.volumes.len(), 4);
    let mut wrong = Vec::new();
    for (name, harm, verdict, whole, says) in VOLUME_HARM {
        let (_held, folder) = maker.copy(&bundle);
        harm(&folder, &contents);
        let report = maker.verify(&folder).unwrap();
        let expected: BTreeSet<&str> = whole.iter().map(|&number| REPOSITORIES[number]).collect();
        let good = |repository: &str| repository.split_once('/').unwrap().1.to_owned();
        let found: BTreeSet<String> =
            report.images.iter().filter(|image| image.problem.is_none()).map(|image| good(&image.repository)).collect();
        let site = Site::new().await;
        let replayed = site.replay(&folder, &maker.keys()).await.unwrap();
        let tags: BTreeSet<String> = site.tags().keys().map(|tag| tag.trim_end_matches(":1").to_owned()).collect();
        let problems: Vec<_> = replayed.images.iter().filter_map(|image| image.problem.as_ref()).collect();
        let checks = [
            (report.verdict() == *verdict, "verify has another verdict"),
            (lines(&report).contains(says), "verify says something else"),
            (found.iter().map(String::as_str).eq(expected.iter().copied()), "verify finds other images whole"),
            (tags.iter().map(String::as_str).eq(expected.iter().copied()), "replay publishes other images"),
            (problems.iter().all(|problem| Some(problem.kind) == *verdict), "replay has another verdict"),
            (problems.iter().all(|problem| problem.help.is_some()), "replay has no help"),
            (problems.len() == 3 - whole.len(), "replay has another number of problems"),
        ];
        for (_, what) in checks.iter().filter(|(good, _)| !good) {
            wrong.push(format!("{name}: {what}: {:?} {:?} {problems:?}", report.verdict(), lines(&report)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Harm to a blob on two volumes: what is done, the verdict, which images are whole, and what the report says.
type SplitRow = (&'static str, Damage, Option<Kind>, &'static [bool], &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_on_two_volumes_needs_both() {
    let maker = Maker::new().await;
    maker.put("team/large", "1", &image(1, 20 * MIB));
    maker.put("team/small", "1", &image(2, 1_000));
    maker.pull(&[("team/large", "1"), ("team/small", "1")]).await;
    let folder = maker.export_in("drive", 18 * MIB as u64).await.unwrap().folder;
    assert_eq!(maker.contents(&folder).volumes.len(), 3);
    let whole = |report: &VerifyReport| report.images.iter().map(|image| image.problem.is_none()).collect::<Vec<_>>();
    let rows: [SplitRow; 4] = [
        ("none", |_| (), None, &[true, true], ""),
        (
            "second part",
            |folder| flip(&volume(folder, 2), 600),
            VERIFICATION,
            &[false, true],
            "vol-0002.tar 512 piece 2: changed",
        ),
        (
            "first part",
            |folder| flip(&volume(folder, 1), 16 * MIB as u64),
            VERIFICATION,
            &[false, true],
            "vol-0001.tar 512 piece 1: changed",
        ),
        (
            "no second part",
            |folder| fs::remove_file(volume(folder, 2)).unwrap(),
            Some(Kind::Missing),
            &[false, true],
            "missing: vol-0002.tar",
        ),
    ];
    for (name, harm, verdict, images, says) in rows {
        let (_held, folder) = maker.copy(&folder);
        harm(&folder);
        let report = maker.verify(&folder).unwrap();
        assert_eq!((report.verdict(), &whole(&report)[..]), (verdict, images), "{name}: {report:?}");
        assert!(lines(&report).contains(says), "{name}: {}", lines(&report));
        let site = Site::new().await;
        site.replay(&folder, &maker.keys()).await.unwrap();
        assert_eq!(site.tags().len(), images.iter().filter(|whole| **whole).count(), "{name}");
    }
}

/// Three bundles of one stream: tags move, come and go.
async fn three_bundles() -> (Maker, Vec<PathBuf>) {
    let maker = Maker::new().await;
    let steps: [&[(&str, u64)]; 3] = [&[("a/a", 1), ("a/b", 2)], &[("a/a", 3), ("a/c", 4)], &[("a/b", 5), ("a/c", 1)]];
    let mut folders = Vec::new();
    for step in steps {
        for (repository, seed) in step {
            maker.put(repository, "1", &image(*seed, 100));
        }
        maker.pull(&step.iter().map(|(repository, _)| (*repository, "1")).collect::<Vec<_>>()).await;
        folders.push(maker.export("drive").await);
    }
    (maker, folders)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_order_ends_in_the_same_tags() {
    let (maker, folders) = three_bundles().await;
    let expected = BTreeMap::from(
        [("a/a:1", 3), ("a/b:1", 5), ("a/c:1", 1)].map(|(name, seed)| (name.to_owned(), image(seed, 100).root.digest)),
    );
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let site = Site::new().await;
        for at in order.into_iter().chain(order) {
            let report = site.replay(&folders[at], &maker.keys()).await.unwrap();
            assert_eq!(report.verdict(), None, "{order:?}");
        }
        assert_eq!(site.tags(), expected, "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_bundle_moves_no_tag_back() {
    let (maker, folders) = three_bundles().await;
    let site = Site::new().await;
    site.replay(&folders[1], &maker.keys()).await.unwrap();
    let before = site.tags();
    let report = site.replay(&folders[0], &maker.keys()).await.unwrap();
    assert_eq!(site.tags()["a/a:1"], before["a/a:1"]);
    let kept: Vec<_> = report.images.iter().filter(|image| !image.tags_kept.is_empty()).collect();
    assert_eq!(kept.len(), 1, "the report says which tag stayed: {report:?}");
}

/// A registry that takes no tag `2`.
async fn refuse_tag_2(request: Request, next: Next) -> Response {
    match request.method() == Method::PUT && request.uri().path().ends_with("/manifests/2") {
        true => StatusCode::FORBIDDEN.into_response(),
        false => next.run(request).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_bundle_has_set_stays_though_it_failed_later() {
    let maker = Maker::new().await;
    let mut folders = Vec::new();
    for seed in [1, 2] {
        ["1", "2"].iter().for_each(|tag| maker.put("a/a", tag, &image(seed, 100)));
        maker.pull(&[("a/a", "1"), ("a/a", "2")]).await;
        folders.push(maker.export("drive").await);
    }
    let site = Site::behind(|service| service.layer(from_fn(refuse_tag_2))).await;
    for (folder, verdict) in [(&folders[1], Some(Kind::Refused)), (&folders[0], None)] {
        let report = site.replay(folder, &maker.keys()).await.unwrap();
        assert_eq!(report.verdict(), verdict, "{report:?}");
        assert_eq!(site.tags(), BTreeMap::from([("a/a:1".to_owned(), image(2, 100).root.digest)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_number_with_two_contents_is_a_hard_stop() {
    let maker = Maker::usual().await;
    let (first, site) = (maker.export("drive").await, Site::new().await);
    site.replay(&first, &maker.keys()).await.unwrap();
    let before = site.tags();
    let (_held, second) = maker.copy(&first);
    let mut json: Value = serde_json::from_slice(&fs::read(second.join("bundle.json")).unwrap()).unwrap();
    json["created"] = json!("2001-01-01T00:00:00Z");
    maker.sign(&second, &json);
    let outcome = site.replay(&second, &maker.keys()).await;
    assert_refused("another bundle 1", outcome, Kind::Verification, "two different bundles are called test-1-1");
    assert_eq!(site.tags(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_says_what_can_be_done() {
    let maker = Maker::usual().await;
    let bundle = maker.export("drive").await;
    let rows: [(&str, Damage, i32, &str); 4] = [
        ("nothing", |_| (), 0, "good: 3 images can be replayed"),
        ("damage", |folder| flip(&volume(folder, 1), 600), 5, "damaged: vol-0001.tar, bytes 512 to "),
        ("a missing volume", |folder| fs::remove_file(volume(folder, 1)).unwrap(), 6, "missing: vol-0001.tar"),
        (
            "other contents",
            |folder| flip(&folder.join("bundle.json"), 5),
            5,
            "help: either bundle.json or its signature",
        ),
    ];
    for (name, harm, status, says) in rows {
        let (_held, folder) = maker.copy(&bundle);
        harm(&folder);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sealift"));
        command.arg("verify").arg(&folder).arg("--key").arg(maker.drive("exporter.pub"));
        let output = command.arg("--state").arg(maker.drive("state")).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(status), "{name}: {said}");
        assert!(said.contains(says), "{name}: {said}");
    }
}

/// The files of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
    fs::read_dir(folder).unwrap().map(|file| read(file.unwrap().path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_was_cut_short_goes_on_to_the_same_bytes() {
    let maker = Maker::new().await;
    maker.put("team/large", "1", &image(1, 20 * MIB));
    maker.put("team/small", "1", &image(2, 1_000));
    maker.pull(&[("team/large", "1"), ("team/small", "1")]).await;
    let size = 40 * MIB as u64;
    let undisturbed = files(&maker.export_in("undisturbed", size).await.unwrap().folder);
    let chunk = usize::try_from(CHUNK).unwrap();
    // What is left of vol-0001.tar, as far as it was written, and a byte of it that the drive has lost.
    let rows: [(usize, Option<usize>); 10] = [
        (0, None),
        (100, None),
        (512, None),
        (5_000, None),
        (512 + chunk, None),
        (512 + chunk + 1, None),
        (18 * MIB, None),
        (18 * MIB, Some(3)),
        (18 * MIB, Some(1_000)),
        (18 * MIB, Some(512 + chunk + 7)),
    ];
    for (number, (length, lost)) in rows.into_iter().enumerate() {
        let drive = format!("drive{number}");
        let folder = maker.drive(&drive).join("test-1-1");
        fs::create_dir_all(&folder).unwrap();
        put_file(&folder.join("meta.tar"), &undisturbed["meta.tar"]);
        let mut partial = undisturbed["vol-0001.tar"][..length].to_vec();
        lost.into_iter().for_each(|at| partial[at] ^= 1);
        put_file(&folder.join("vol-0001.tar.partial"), &partial);
        let report = maker.export_in(&drive, size).await.unwrap();
        assert!(report.again && report.folder == folder, "{report:?}");
        assert!(files(&folder) == undisturbed, "{length} {lost:?}");
        fs::remove_dir_all(folder).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_volume_is_cut_again() {
    let maker = Maker::usual().await;
    let folder = maker.export("drive").await;
    let undisturbed = files(&folder);
    for name in undisturbed.keys() {
        fs::remove_file(folder.join(name)).unwrap();
        assert_eq!(maker.export("drive").await, folder);
        assert!(files(&folder) == undisturbed, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_lost_is_not_exported() {
    let maker = Maker::usual().await;
    let broken = image(1, 100_000);
    let child = broken.child("linux", "amd64", "").unwrap();
    let Content::Image { layers, .. } = broken.parsed(&child).unwrap().content else { unreachable!() };
    let path = maker.store.path_of(&layers[0].digest);
    let good = fs::read(&path).unwrap();
    flip(&path, 1_000);
    let outcome = maker.export_in("drive", VOLUME_SIZE).await;
    assert_refused("a damaged blob", outcome, Kind::Verification, &layers[0].digest.to_string());
    let left = files(&maker.drive("drive/test-1-1"));
    assert!(left.keys().all(|name| !name.starts_with("bundle") && name != "vol-0002.tar"), "{:?}", left.keys());

    put_file(&path, &good);
    let report = maker.export_in("drive", VOLUME_SIZE).await.unwrap();
    assert_eq!((report.bundle.as_str(), report.again), ("test-1-1", true));
    assert_eq!(maker.verify(&report.folder).unwrap().verdict(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_one_content() {
    let maker = Maker::usual().await;
    let first = maker.export_in("one", VOLUME_SIZE).await.unwrap();
    let copy = maker.export_in("two", VOLUME_SIZE).await.unwrap();
    assert!(!first.again && copy.again);
    assert_eq!((&first.bundle, first.digest), (&copy.bundle, copy.digest));
    assert!(files(&first.folder) == files(&copy.folder));

    maker.put("team/one", "1", &image(9, 1_000));
    maker.pull(&REPOSITORIES.map(|repository| (repository, "1"))).await;
    let next = maker.export_in("one", VOLUME_SIZE).await.unwrap();
    assert_eq!((next.bundle.as_str(), next.again), ("test-1-2", false));
}
