//! A source that lies: each lie is one clear error about one image, the other image arrives whole, and nothing wrong is
//! kept, so that the next pull from an honest source has everything.

#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

mod support;

use std::collections::HashMap;
use std::io::Error as IoError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use sealift::monitor::Silent;
use sealift::oci::manifest::Content;
use sealift::oci::{Descriptor, Digest, MediaType};
use sealift::plan::{PlannedImage, plan};
use sealift::pull::pull;
use sealift::registry::Pull;
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, router};
use sealift::store::{Access, Store};
use sealift::{Kind, Side};
use support::journey::{Fetched, assert_store_is_true, fetch, quick_client, spec_of};
use tokio::sync::Notify;

const DIGEST_HEADER: &str = "docker-content-digest";
const MIB: u64 = 1024 * 1024;

/// What is told of the last part of a path below `team/bad`: of a tag or a digest.
enum Lie {
    /// A manifest of this type and these bytes, whatever the name says.
    Manifest(MediaType, Bytes),
    /// Not there.
    Gone,
    /// What is told of HEAD.
    Head(fn(&mut HeaderMap)),
    /// What is told of GET: the honest bytes come in. `Range` is passed over.
    Get(fn(&mut HeaderMap, Bytes) -> Body),
}

/// A registry on a loopback port that lies where it was told to.
#[derive(Clone, Default)]
struct Liar {
    lies: Arc<Mutex<HashMap<String, Lie>>>,
}

impl Liar {
    /// Serves `shelf` with its lies, and returns where.
    async fn start(&self, shelf: &MemoryShelf) -> String {
        let service = router(Arc::new(shelf.clone())).layer(from_fn_with_state(self.clone(), Self::answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async { axum::serve(listener, service).await });
        host
    }

    fn tell(&self, lies: Lies) {
        *self.lies.lock().unwrap() = lies.into_iter().collect();
    }

    async fn answer(State(liar): State<Liar>, mut request: Request, next: Next) -> Response {
        let path = request.uri().path().to_owned();
        let name = path.rsplit('/').next().unwrap().to_owned();
        let is_head = request.method() == Method::HEAD;
        let is_lie = |lie: &&Lie| match lie {
            Lie::Head(_) => is_head,
            Lie::Get(_) => !is_head,
            _ => true,
        };
        if !path.starts_with("/v2/team/bad/") || liar.lies.lock().unwrap().get(&name).filter(is_lie).is_none() {
            return next.run(request).await;
        }
        request.headers_mut().remove(RANGE);
        let (mut parts, body) = next.run(request).await.into_parts();
        let honest = to_bytes(body, usize::MAX).await.unwrap();
        match liar.lies.lock().unwrap().get(&name).unwrap() {
            Lie::Gone => StatusCode::NOT_FOUND.into_response(),
            Lie::Manifest(media_type, bytes) => {
                let headers = [
                    (CONTENT_TYPE.as_str(), media_type.to_string()),
                    (CONTENT_LENGTH.as_str(), bytes.len().to_string()),
                    (DIGEST_HEADER, Digest::of(bytes).to_string()),
                ];
                (headers, if is_head { Bytes::new() } else { bytes.clone() }).into_response()
            }
            Lie::Head(change) => {
                change(&mut parts.headers);
                Response::from_parts(parts, Body::empty())
            }
            Lie::Get(change) => {
                let body = change(&mut parts.headers, honest);
                Response::from_parts(parts, body)
            }
        }
    }
}

type Lies = Vec<(String, Lie)>;

/// One image in `team/bad` that is lied about, one in `team/good` that is not.
struct World {
    bad: SampleImage,
    liar: Liar,
    host: String,
    store: Arc<Store>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let image = |number: u64| {
            let builder = ImageBuilder::new().platform("linux", "amd64", "").random_layer(100_000, number);
            builder.platform("linux", "arm64", "").random_layer(1_000, number + 100).build().unwrap()
        };
        let (shelf, bad) = (MemoryShelf::new(), image(1));
        seed(&shelf, "team/bad", Some(&"1".parse().unwrap()), &bad).unwrap();
        seed(&shelf, "team/good", Some(&"1".parse().unwrap()), &image(2)).unwrap();
        let (liar, folder) = (Liar::default(), tempfile::tempdir().unwrap());
        let host = liar.start(&shelf).await;
        let store = Arc::new(Store::open(&folder.path().join("store"), Access::Writer).unwrap());
        World { bad, liar, host, store, _folder: folder }
    }

    async fn fetch(&self) -> Fetched {
        fetch(&spec_of(&self.host, &[("team/bad", "1"), ("team/good", "1")]), &self.store).await
    }
}

/// Parts of the image that is lied about.
fn child(image: &SampleImage, architecture: &str) -> Descriptor {
    image.child("linux", architecture, "").unwrap()
}

fn config_and_layer(image: &SampleImage) -> (Digest, Digest) {
    match image.parsed(&child(image, "amd64")).unwrap().content {
        Content::Image { config, layers } => (config.digest, layers[0].digest),
        Content::Index { .. } => unreachable!("a child is an image"),
    }
}

fn layer(image: &SampleImage, lie: fn(&mut HeaderMap, Bytes) -> Body) -> Lies {
    vec![(config_and_layer(image).1.to_string(), Lie::Get(lie))]
}

/// A whole document under the tag and under its digest: hostile, but with right digests.
fn document(media_type: MediaType, text: impl Into<Bytes>) -> Lies {
    let bytes: Bytes = text.into();
    let names = ["1".to_owned(), Digest::of(&bytes).to_string()];
    names.into_iter().map(|name| (name, Lie::Manifest(media_type.clone(), bytes.clone()))).collect()
}

fn index(children: &str) -> Lies {
    document(MediaType::OCI_INDEX, format!(r#"{{"schemaVersion":2,"manifests":[{children}]}}"#))
}

fn manifest(config: &str, layers: &str) -> Lies {
    document(MediaType::OCI_MANIFEST, format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#))
}

fn entry(digest: &str, size: &str) -> String {
    format!(r#"{{"mediaType":"application/octet-stream","digest":"{digest}","size":{size}}}"#)
}

fn some_digest(number: u64) -> String {
    Digest::of(&number.to_le_bytes()).to_string()
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    bytes.into()
}

/// A body without a length of its own: sent in chunks unless a header says a length.
fn chunked(bytes: impl Into<Bytes>) -> Body {
    Body::from_stream(stream::iter([Ok::<Bytes, IoError>(bytes.into())]))
}

fn set_length(headers: &mut HeaderMap, length: usize) {
    headers.insert(CONTENT_LENGTH, length.into());
}

/// Half of the bytes and no more, however often it is asked, and the connection is cut.
fn half(_: &mut HeaderMap, honest: Bytes) -> Body {
    // What was sent has to leave before the cut.
    let cut = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(IoError::other("cut"))
    };
    Body::from_stream(stream::iter([Ok(honest.slice(..honest.len() / 2))]).chain(stream::once(cut)))
}

/// An index in an index in an index …
fn nested(depth: u64) -> Lies {
    let leaf = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entry(&some_digest(0), "1"));
    let mut lies = document(MediaType::OCI_INDEX, leaf);
    for _ in 0..depth {
        let Lie::Manifest(media_type, bytes) = &lies[lies.len() - 1].1 else { unreachable!() };
        let below = Descriptor::of(media_type.clone(), bytes);
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": [below] }).to_string();
        lies.extend(document(MediaType::OCI_INDEX, text));
    }
    lies
}

/// An index whose child, an index, is served with the parent's own bytes.
fn circle() -> Lies {
    let inner = some_digest(1);
    let child = format!(r#"{{"mediaType":"{}","digest":"{inner}","size":200}}"#, MediaType::OCI_INDEX);
    let mut lies = index(&child);
    let Lie::Manifest(media_type, bytes) = &lies[0].1 else { unreachable!() };
    lies.push((inner, Lie::Manifest(media_type.clone(), bytes.clone())));
    lies
}

/// A misbehaviour: what it is called, how the source lies, the kind of the error, and what the error says.
type Row = (&'static str, fn(&SampleImage) -> Lies, Kind, &'static [&'static str]);

const ROWS: &[Row] = &[
    // Blobs.
    (
        "wrong bytes of the right size",
        |image| layer(image, |_, honest| flipped(&honest).into()),
        Kind::Verification,
        &["source: ", "the bytes have digest", "instead of sha256:"],
    ),
    (
        "longer than announced",
        |image| {
            layer(image, |headers, honest| {
                set_length(headers, honest.len() + 1);
                [&honest[..], b"x"].concat().into()
            })
        },
        Kind::Verification,
        &["team/bad@sha256:", "though the manifest announces"],
    ),
    (
        "longer, without saying so",
        |image| {
            layer(image, |headers, honest| {
                headers.remove(CONTENT_LENGTH);
                chunked([&honest[..], b"x"].concat())
            })
        },
        Kind::Verification,
        &["team/bad@sha256:", "sends more bytes, though the manifest announces"],
    ),
    (
        "shorter than announced",
        |image| {
            layer(image, |headers, honest| {
                set_length(headers, honest.len() - 1);
                honest.slice(1..).into()
            })
        },
        Kind::Verification,
        &["team/bad@sha256:", "though the manifest announces"],
    ),
    (
        "shorter, without saying so",
        |image| {
            layer(image, |headers, honest| {
                headers.remove(CONTENT_LENGTH);
                chunked(honest.slice(1..))
            })
        },
        Kind::Failed,
        &["team/bad@sha256:", "5 attempts, the last", "ended after"],
    ),
    ("cut off each time", |image| layer(image, half), Kind::Failed, &["team/bad@sha256:", "5 attempts, the last"]),
    (
        "an absurd Content-Length",
        |image| {
            layer(image, |headers, honest| {
                set_length(headers, 1 << 40);
                Body::from_stream(stream::iter([Ok::<Bytes, IoError>(honest)]).chain(stream::pending()))
            })
        },
        Kind::Verification,
        &["team/bad@sha256:", "though the manifest announces"],
    ),
    (
        "a layer that is not there",
        |image| vec![(config_and_layer(image).1.to_string(), Lie::Gone)],
        Kind::Failed,
        &["is in none of its repositories", "team/bad"],
    ),
    (
        "a config that is not there",
        |image| vec![(config_and_layer(image).0.to_string(), Lie::Gone)],
        Kind::Failed,
        &["is in none of its repositories", "team/bad"],
    ),
    // Manifests.
    (
        "a manifest with wrong bytes",
        |image| {
            let lie = Lie::Get(|_, honest| flipped(&honest).into());
            vec![(child(image, "amd64").digest.to_string(), lie)]
        },
        Kind::Verification,
        &["get manifest", "team/bad@sha256:", "answered with bytes of the digest", "expected sha256:"],
    ),
    (
        "a child that is not there",
        |image| vec![(child(image, "amd64").digest.to_string(), Lie::Gone)],
        Kind::Failed,
        &["team/bad@", "is listed, but not there"],
    ),
    (
        "HEAD and GET of a tag are different manifests",
        |image| {
            let other = some_digest(7);
            let head = Lie::Head(|headers| {
                headers.insert(DIGEST_HEADER, some_digest(7).parse().unwrap());
            });
            let root = image.bytes(&image.root.digest).unwrap().clone();
            vec![("1".to_owned(), head), (other, Lie::Manifest(MediaType::OCI_INDEX, root))]
        },
        Kind::Verification,
        &["team/bad@sha256:", "answered with bytes of the digest"],
    ),
    (
        "HEAD and GET of a tag have different lengths",
        |_| vec![("1".to_owned(), Lie::Head(|headers| set_length(headers, 10)))],
        Kind::Verification,
        &["team/bad@sha256:", "announced were 10"],
    ),
    ("a tag that is not there", |_| vec![("1".to_owned(), Lie::Gone)], Kind::Failed, &["team/bad: 1 is not there"]),
    (
        "a manifest of more than 4 MiB",
        |_| document(MediaType::OCI_INDEX, " ".repeat(4 * MIB as usize + 1)),
        Kind::Failed,
        &["team/bad@sha256:", "more than 4194304 bytes"],
    ),
    (
        "brackets, 10 000 deep",
        |_| document(MediaType::OCI_INDEX, "[".repeat(10_000) + &"]".repeat(10_000)),
        Kind::Verification,
        &["team/bad@", "nested more than 32 levels deep"],
    ),
    ("50 nested indexes", |_| nested(50), Kind::Verification, &["team/bad@", "nested more than 4 levels deep"]),
    (
        "an index of 100 000 children",
        |_| index(&vec![entry(&some_digest(1), "1"); 100_000].join(",")),
        Kind::Failed,
        &["team/bad@sha256:", "more than 4194304 bytes"],
    ),
    (
        "an index of 30 000 children",
        |_| index(&vec![entry(&some_digest(1), "1"); 30_000].join(",")),
        Kind::Verification,
        &["team/bad@", "lists 30000 children, more than 10000"],
    ),
    (
        "a path as the digest of a child",
        |_| index(&entry("sha256:../../etc/passwd", "1")),
        Kind::Verification,
        &["team/bad@", "sha256:../../etc/passwd", "is no digest"],
    ),
    (
        "a path as the digest of a layer",
        |_| manifest(&entry(&some_digest(1), "1"), &entry("sha256:../../etc/passwd", "1")),
        Kind::Verification,
        &["team/bad@", "sha256:../../etc/passwd", "is no digest"],
    ),
    (
        "a negative size",
        |_| index(&entry(&some_digest(1), "-1")),
        Kind::Verification,
        &["team/bad@", "invalid value", "-1"],
    ),
    (
        "sizes that no number holds together",
        |_| manifest(&entry(&some_digest(1), "18446744073709551615"), &entry(&some_digest(2), "18446744073709551615")),
        Kind::Verification,
        &["team/bad@", "18446744073709551615"],
    ),
    (
        "an index that is served as a manifest",
        |image| document(MediaType::OCI_MANIFEST, image.bytes(&image.root.digest).unwrap().clone()),
        Kind::Verification,
        &["team/bad@", "image.index.v1+json, but it was announced as", "image.manifest.v1+json"],
    ),
    (
        "an index without a type that is served as a manifest",
        |_| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entry(&some_digest(1), "1"));
            document(MediaType::OCI_MANIFEST, text)
        },
        Kind::Verification,
        &["team/bad@", "has no config"],
    ),
    (
        "index and manifest at once",
        |_| document(MediaType::OCI_INDEX, r#"{"manifests":[],"layers":[]}"#),
        Kind::Verification,
        &["team/bad@", "an index and an image manifest at once"],
    ),
    (
        "schema 1",
        |_| {
            let schema1 = MediaType::new("application/vnd.docker.distribution.manifest.v1+prettyjws");
            document(schema1, r#"{"schemaVersion":1,"name":"team/bad"}"#)
        },
        Kind::Verification,
        &["team/bad@", "schema 1", "push the image again"],
    ),
    (
        "schema 1 that is served as another type",
        |_| document(MediaType::DOCKER_MANIFEST, r#"{"schemaVersion":1,"name":"team/bad"}"#),
        Kind::Verification,
        &["team/bad@", "schema 1", "push the image again"],
    ),
    (
        "an index that is said to hold itself",
        |_| circle(),
        Kind::Verification,
        &["team/bad@sha256:", "answered with bytes of the digest"],
    ),
    ("a page for people", |_| document(MediaType::OCI_INDEX, "<html>"), Kind::Verification, &["not readable"]),
];

/// What is wrong with the way in which a lie was met: nothing, if all is well.
fn faults(fetched: &Fetched, kind: Kind, says: &[&str]) -> Vec<String> {
    let ([complaint], [failure]) = (&fetched.complaints[..], &fetched.report.failed[..]) else {
        return vec![format!("not one error: {:?}, {:?}", fetched.complaints, fetched.report.failed)];
    };
    let text = &complaint.text;
    let checks = [
        (says.iter().all(|says| text.contains(says)), "says something else"),
        (text.len() < 1_000 && !text.contains('\n'), "is not one line"),
        (complaint.kind == kind, "has another kind"),
        (complaint.help.is_some(), "has no help"),
        (failure.subject.contains("team/bad:1") && failure.problem.text == *text, "is not what the report says"),
        (fetched.report.complete == 1, "costs the other image"),
    ];
    checks.iter().filter(|(good, _)| !good).map(|(_, what)| format!("{complaint:?} {what}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_costs_one_image_and_one_pull() {
    let mut wrong = Vec::new();
    for (name, lies, kind, says) in ROWS {
        let world = World::new().await;
        world.liar.tell(lies(&world.bad));
        wrong.extend(faults(&world.fetch().await, *kind, says).into_iter().map(|fault| format!("{name}: {fault}")));

        world.liar.tell(Vec::new());
        let fetched = world.fetch().await;
        let missing = |planned: &PlannedImage| world.store.first_missing(&planned.image).unwrap().is_some();
        let bad = !fetched.complaints.is_empty() || fetched.plan.images.iter().any(missing);
        if bad || fetched.report.complete != 2 {
            wrong.push(format!("{name}: an honest source does not complete it: {:?}", fetched.complaints));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

type MakeLie = fn() -> Lie;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_may_be_broken() {
    let lies: [(&str, MakeLie); 3] = [
        ("not there", || Lie::Gone),
        ("wrong bytes", || Lie::Get(|_, honest| flipped(&honest).into())),
        ("no manifest", || Lie::Manifest(MediaType::OCI_MANIFEST, "<html>".into())),
    ];
    for (name, lie) in lies {
        let world = World::new().await;
        let left_out = child(&world.bad, "arm64").digest;
        world.liar.tell(vec![(left_out.to_string(), lie())]);
        let fetched = world.fetch().await;
        assert!(fetched.complaints.is_empty(), "{name}: {:?}", fetched.complaints);
        assert_eq!(fetched.report.complete, 2, "{name}");
        let noted = |note: &&String| note.contains("linux/arm64") && note.contains(&left_out.short());
        assert_eq!(fetched.plan.notes.iter().filter(noted).count(), 1, "{name}: {:?}", fetched.plan.notes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_repository_is_one_error() {
    let world = World::new().await;
    for (references, says) in [([("team/none", "1"), ("team/good", "1")], "team/none: 1 is not there")] {
        let fetched = fetch(&spec_of(&world.host, &references), &world.store).await;
        let [complaint] = &fetched.complaints[..] else { panic!("{:?}", fetched.complaints) };
        assert!(complaint.text.contains(says), "{complaint:?}");
        assert!(complaint.help.as_ref().is_some_and(|help| help.contains("check tag or digest")), "{complaint:?}");
        assert_eq!(fetched.report.complete, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_pull_of_a_plan_counts() {
    let world = World::new().await;
    let spec = spec_of(&world.host, &[("team/bad", "1"), ("team/good", "1")]);
    let (client, store) = (quick_client(Side::Source), &world.store);
    let plan = plan(&spec, &client, store, &Silent).await.unwrap();
    let source = Pull::new(client);
    // Again and again the same plan: nothing but the order of the pulls tells which of them was the last.
    for (lies, complete) in [(true, 1), (false, 2), (false, 2)] {
        world.liar.tell(if lies { layer(&world.bad, |_, honest| flipped(&honest).into()) } else { Vec::new() });
        let report = pull(&plan, &source, store, Default::default(), &Silent).await.unwrap();
        assert_eq!(report.complete, complete);
        let run = store.latest_run("test").unwrap().unwrap();
        assert_eq!(run.images.iter().filter(|image| image.problem.is_none()).count() as u64, complete);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_no_disk_holds_are_refused_before_anything_is_fetched() {
    let world = World::new().await;
    let layers: Vec<String> = (0..3_000).map(|number| entry(&some_digest(number), "9007199254740991")).collect();
    let config = config_and_layer(&world.bad).0.to_string();
    let size = world.bad.bytes(&config.parse().unwrap()).unwrap().len().to_string();
    world.liar.tell(manifest(&entry(&config, &size), &layers.join(",")));
    let (client, store) = (quick_client(Side::Source), &world.store);
    let spec = spec_of(&world.host, &[("team/bad", "1"), ("team/good", "1")]);
    let plan = plan(&spec, &client, store, &Silent).await.unwrap();
    assert_eq!(plan.totals.new, u64::MAX);
    let error = pull(&plan, &Pull::new(client), store, Default::default(), &Silent).await.unwrap_err();
    assert!(error.to_string().contains("18446744073709551615 bytes are to be fetched"), "{error}");
    assert!(error.help_text().is_some_and(|help| help.contains("nothing was fetched")), "{error:?}");
}

/// A registry that counts what it sends, and stands still after a number of bytes.
#[derive(Clone)]
struct Counter {
    sent: Arc<AtomicU64>,
    /// After how many bytes it stands still.
    still: Arc<AtomicU64>,
    stands: Arc<Notify>,
    ranges: Arc<Mutex<Vec<String>>>,
}

impl Counter {
    async fn answer(State(counter): State<Counter>, request: Request, next: Next) -> Response {
        let range = request.headers().get(RANGE).map(|range| range.to_str().unwrap().to_owned());
        counter.ranges.lock().unwrap().extend(range);
        let (parts, body) = next.run(request).await.into_parts();
        let honest = to_bytes(body, usize::MAX).await.unwrap();
        let pieces: Vec<Bytes> = honest.chunks(64 * 1024).map(Bytes::copy_from_slice).collect();
        let body = stream::iter(pieces).then(move |piece| {
            let counter = counter.clone();
            async move {
                if counter.sent.load(Ordering::SeqCst) >= counter.still.load(Ordering::SeqCst) {
                    counter.stands.notify_one();
                    std::future::pending::<()>().await;
                }
                counter.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                Ok::<_, IoError>(piece)
            }
        });
        Response::from_parts(parts, Body::from_stream(body))
    }
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(40 * MIB as usize, 1);
    let (shelf, folder) = (MemoryShelf::new(), tempfile::tempdir().unwrap());
    let image = image.build().unwrap();
    seed(&shelf, "team/large", Some(&"1".parse().unwrap()), &image).unwrap();
    let counter = Counter {
        sent: Arc::default(),
        still: Arc::new((20 * MIB).into()),
        stands: Arc::default(),
        ranges: Arc::default(),
    };
    let serving = runtime();
    let host = serving.block_on(async {
        let service = router(Arc::new(shelf)).layer(from_fn_with_state(counter.clone(), Counter::answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async { axum::serve(listener, service).await });
        host
    });
    let open = || Arc::new(Store::open(&folder.path().join("store"), Access::Writer).unwrap());
    let spec = spec_of(&host, &[("team/large", "1")]);

    // The end of its runtime takes every task of the pull with it, as the end of a process does.
    let killed = runtime();
    killed.block_on(async {
        let (client, store) = (quick_client(Side::Source), open());
        let plan = plan(&spec, &client, &store, &Silent).await.unwrap();
        let source = Pull::new(client);
        // What was sent may still be on its way: killed is it once the first chunk is on the list of what can be kept.
        let list = folder.path().join(format!("store/ingest/{}.chunks", config_and_layer(&image).1.hex()));
        let first_chunk = async {
            counter.stands.notified().await;
            while !list.metadata().is_ok_and(|found| found.len() == 32) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = pull(&plan, &source, &store, Default::default(), &Silent) => panic!("it ended"),
            () = first_chunk => {}
        }
    });
    drop(killed);
    let store = open();
    assert_store_is_true(&store);
    let layer = config_and_layer(&image).1;
    assert_eq!(store.size_of(&layer), None, "nothing half-written has a final name");

    counter.still.store(u64::MAX, Ordering::SeqCst);
    let fetched = runtime().block_on(fetch(&spec, &store));
    assert_eq!((fetched.report.complete, fetched.complaints.len()), (1, 0));
    assert_eq!(counter.ranges.lock().unwrap()[..], [format!("bytes={}-", 16 * MIB)]);
    let size = store.size_of(&layer).unwrap();
    let (sent, other) = (counter.sent.load(Ordering::SeqCst), 64 * 1024);
    assert!(sent <= size + 16 * MIB + other, "{sent} bytes were sent for a layer of {size}");
}
