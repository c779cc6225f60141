//! The full replay: a bundle, through the proxy onto a registry, into a prefix of its own each time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealift::bundle::{BundleReader, PublicKey, ReadBack, SigningKey, generate_key};
use sealift::content::Limits;
use sealift::export::{ExportOptions, export};
use sealift::monitor::Silent;
use sealift::oci::{Digest, Repository};
use sealift::registry::Client;
use sealift::replay::{Destination, replay};
use sealift::sample::seed;
use sealift::serve::ShelfWriter;
use sealift::site::state::State;
use sealift::store::{Access, Store};
use sealift::target::Known;
use sealift::{Error, Side};
use tempfile::TempDir;

use super::Which::{Layer, Of};
use super::support::faults::{Passed, any, head, put, session, upload};
use super::support::journey::{fetch, impatient_client, quick_client, spec_of};
use super::support::{Reader, quick_folder};
use super::*;

/// A bundle, a registry behind a proxy, and what an undisturbed replay leaves there.
pub struct Replays {
    behind: Behind,
    pub faults: Faults,
    /// The one large blob.
    pub layer: Descriptor,
    image: SampleImage,
    bundle: PathBuf,
    key: PublicKey,
    expected: BTreeMap<String, bool>,
    /// Blobs on their way at the same time.
    at_once: usize,
    /// Makes the client for the proxy.
    client: fn(Side, &str) -> Client,
    /// How many replays there were: each has a prefix.
    number: AtomicUsize,
    folder: TempDir,
}

impl Replays {
    pub async fn new(behind: Behind, size: usize) -> Self {
        let (image, folder) = (image(size), quick_folder());
        let (bundle, key) = bundle(&image, folder.path()).await;
        let faults = Faults::with_tokens(&behind.host()).await;
        let (layer, expected, number) = (layer_of(&image), BTreeMap::new(), AtomicUsize::new(0));
        let at_once = Limits::default().concurrent_blobs;
        let client: fn(Side, &str) -> Client = |side, _| quick_client(side);
        let mut replays =
            Replays { behind, faults, layer, image, bundle, key, expected, at_once, client, number, folder };
        let (expected, passed) = replays.replay("undisturbed", &[]).await;
        assert!(expected.values().filter(|there| **there).count() >= 10, "{expected:?}");
        assert_eq!(passed.iter().filter(|passed| passed.up == replays.layer.size).count(), 1);
        replays.faults.heal();
        replays.expected = expected;
        replays
    }

    /// Replays into a new place until that ends well, after runs that end as `before` says. What is there, and what has
    /// passed.
    async fn replay(&self, name: &str, before: &[Kind]) -> (BTreeMap<String, bool>, Vec<Passed>) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let ends: Vec<Option<Kind>> = before.iter().copied().map(Some).chain([None]).collect();
        for expected in ends {
            let reader = Arc::new(
                BundleReader::open(std::slice::from_ref(&self.bundle), std::slice::from_ref(&self.key)).unwrap(),
            );
            let host = self.faults.host();
            let destination = Destination {
                client: (self.client)(Side::Target, &self.faults.host()),
                name: Box::new(move |source| {
                    let name: Result<Repository, _> = format!("{host}/n{number}/{}", source.path()).parse();
                    name.map_err(|error| Error::failed(error.to_string()))
                }),
                known: Known::default(),
                stubs: true,
                tag_children: false,
                rollback: None,
                limits: Limits { concurrent_blobs: self.at_once, ..Limits::default() },
            };
            let state = self.folder.path().join(format!("state-{number}"));
            let mut state = State::lock(&state, "test", &self.key.id()).unwrap();
            let report = replay(&reader, &destination, &mut state, &Silent).await.unwrap();
            assert_eq!(report.verdict(), expected, "{name}: {report:?}");
        }
        (self.published(number).await, self.faults.passed())
    }

    /// The same with what the proxy was told to do, which has to come to pass and to leave no trace.
    pub async fn disturbed(&self, name: &str, before: &[Kind]) -> Vec<Passed> {
        let (found, passed) = self.replay(name, before).await;
        assert!(self.faults.heal(), "{name}: it did not happen: {passed:?}");
        assert_eq!(found, self.expected, "{name}");
        passed
    }

    /// Everything of the image, and whether it is there; tags. Seen without the proxy, and without sealift's client.
    async fn published(&self, number: usize) -> BTreeMap<String, bool> {
        let reader = Reader::new(&self.behind.url(), &format!("n{number}/{REPOSITORY}"));
        let mut found: BTreeMap<String, bool> =
            reader.tags().await.into_iter().map(|tag| (format!("tag {tag}"), true)).collect();
        for (descriptor, bytes) in &self.image.contents {
            let there = if descriptor.media_type.is_manifest() {
                let served = reader.manifest(descriptor.digest).await;
                served.inspect(|served| assert_eq!(served, bytes)).is_some()
            } else {
                reader.has_blob(&descriptor.digest).await
            };
            found.insert(format!("{descriptor:?}"), there);
        }
        assert_eq!(reader.manifest("1").await.map(|bytes| Digest::of(&bytes)), Some(self.image.root.digest));
        found
    }
}

/// A bundle of the image, and the key that it is signed with.
async fn bundle(image: &SampleImage, folder: &std::path::Path) -> (PathBuf, PublicKey) {
    let shelf = MemoryShelf::new();
    seed(&shelf as &dyn ShelfWriter, REPOSITORY, Some(&"1".parse().unwrap()), image).unwrap();
    let source = Running::start(Arc::new(shelf)).await.unwrap();
    let store = Arc::new(Store::open(&folder.join("store"), Access::Writer).unwrap());
    let fetched = fetch(&spec_of(&source.address().to_string(), &[(REPOSITORY, "1")]), &store).await;
    assert!(fetched.complaints.is_empty(), "{:?}", fetched.complaints);
    generate_key(&folder.join("exporter")).unwrap();
    let key = SigningKey::load(&folder.join("exporter.key")).unwrap();
    let options = ExportOptions { recorded: None, volume_size: 1 << 30, epoch: None, read_back: ReadBack::None };
    let report = export("test", &store, &folder.join("drive"), &key, options, &Silent).await.unwrap();
    (report.folder, key.public().clone())
}

const ROWS: &[Row] = &[
    Row { name: "heads are cut", faults: &[(Of(any), 4, Fault::CutHead)], before: &[] },
    Row { name: "answers are lost", faults: &[(Of(any), 4, Fault::LoseAnswer)], before: &[] },
    Row { name: "answers to sessions are lost", faults: &[(Of(session), 4, Fault::LoseAnswer)], before: &[] },
    Row { name: "answers to uploads are lost", faults: &[(Of(upload), 4, Fault::LoseAnswer)], before: &[] },
    Row { name: "answers to manifests are lost", faults: &[(Of(put), 4, Fault::LoseAnswer)], before: &[] },
    Row { name: "uploads end at once", faults: &[(Layer, 4, Fault::CutUpload(0))], before: &[] },
    Row { name: "uploads end early", faults: &[(Layer, 4, Fault::CutUpload(100))], before: &[] },
    Row { name: "uploads are reset", faults: &[(Layer, 4, Fault::ResetUpload(100))], before: &[] },
    Row { name: "manifests end early", faults: &[(Of(put), 4, Fault::CutUpload(100))], before: &[] },
    Row { name: "a byte of an upload is another", faults: &[(Layer, 1, Fault::FlipUpload(50))], before: &[] },
    Row { name: "an upload comes twice as one", faults: &[(Layer, 1, Fault::DoubleUpload)], before: &[] },
    Row { name: "uploads come twice", faults: &[(Of(upload), 2, Fault::Repeat)], before: &[] },
    Row { name: "manifests come twice", faults: &[(Of(put), 2, Fault::Repeat)], before: &[] },
    Row { name: "sessions come twice", faults: &[(Of(session), 2, Fault::Repeat)], before: &[] },
    Row { name: "429", faults: &[(Of(any), 4, Fault::Answer(429, None))], before: &[] },
    Row { name: "429, in a second", faults: &[(Of(session), 1, Fault::Answer(429, Some(1)))], before: &[] },
    Row { name: "429, until a date", faults: &[(Of(session), 1, Fault::AnswerUntil(429, 1))], before: &[] },
    Row { name: "503, until a date that is over", faults: &[(Of(put), 4, Fault::AnswerUntil(503, -60))], before: &[] },
    Row { name: "425 of uploads", faults: &[(Layer, 4, Fault::Answer(425, None))], before: &[] },
    Row { name: "520 of manifests", faults: &[(Of(put), 4, Fault::Answer(520, None))], before: &[] },
    // Once, and not again: a refusal, whatever its status.
    Row {
        name: "DENIED inside of a 500, for manifests",
        faults: &[(Of(put), 1, Fault::Refuse(500, DENIED))],
        before: &[Kind::Refused],
    },
    Row {
        name: "DENIED inside of a 500, for sessions",
        faults: &[(Of(session), 1, Fault::Refuse(500, DENIED))],
        before: &[Kind::Failed],
    },
    Row { name: "500 of uploads", faults: &[(Layer, 4, Fault::Answer(500, None))], before: &[] },
    Row { name: "502 of manifests", faults: &[(Of(put), 4, Fault::Answer(502, None))], before: &[] },
    Row { name: "503 of sessions", faults: &[(Of(session), 4, Fault::Answer(503, Some(0)))], before: &[] },
    Row { name: "the token expires before a session", faults: &[(Of(session), 1, Fault::Expire)], before: &[] },
    Row { name: "the token expires before an upload", faults: &[(Layer, 1, Fault::Expire)], before: &[] },
    Row { name: "the token expires before a manifest", faults: &[(Of(put), 1, Fault::Expire)], before: &[] },
    Row { name: "HEAD names another digest", faults: &[(Of(head), 1, Fault::LieDigest)], before: &[Kind::Incomplete] },
    Row {
        name: "one thing after the other",
        faults: &[
            (Of(session), 1, Fault::Answer(503, None)),
            (Of(session), 1, Fault::Expire),
            (Layer, 1, Fault::ResetUpload(4_000)),
            (Layer, 1, Fault::Answer(429, Some(0))),
            (Layer, 1, Fault::LoseAnswer),
            (Of(put), 1, Fault::Expire),
            (Of(put), 1, Fault::CutHead),
            (Of(put), 1, Fault::Repeat),
        ],
        before: &[],
    },
];

/// Lines that stand still for ever, for a client to which a second is that.
const STALLS: &[Row] = &[
    Row { name: "answers to sessions never come", faults: &[(Of(session), 1, Fault::Silence)], before: &[] },
    Row { name: "answers to manifests never come", faults: &[(Of(put), 1, Fault::Silence)], before: &[] },
];

async fn all(behind: Behind) {
    let mut replays = Replays::new(behind, LAYER).await;
    // A request that has just learnt which token is wanted meets no token that has expired since: it tries only once more.
    replays.at_once = 1;
    for row in ROWS {
        row.tell(&replays.faults, &replays.layer);
        replays.disturbed(row.name, row.before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_before_the_embedded_registry() {
    all(Behind::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_before_distribution() {
    if let Some(behind) = Behind::distribution().await {
        all(behind).await;
    }
}

async fn stalls(behind: Behind) {
    let mut replays = Replays::new(behind, LAYER).await;
    (replays.at_once, replays.client) = (1, impatient_client);
    for row in STALLS {
        row.tell(&replays.faults, &replays.layer);
        replays.disturbed(row.name, row.before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_is_given_up_after_the_configured_time() {
    stalls(Behind::embedded().await).await;
    if let Some(behind) = Behind::distribution().await {
        stalls(behind).await;
    }
}
