//! The full pull: plan and pull, from behind the proxy into an empty store.

use std::collections::BTreeMap;

use sealift::Side;
use sealift::oci::{Descriptor, Digest};
use sealift::registry::Client;
use sealift::spec::MirrorSpec;
use sealift::store::{Access, Store};
use tempfile::TempDir;

use super::Which::{Layer, Of, Rest};
use super::support::faults::{Passed, any, blob, head, manifest};
use super::support::journey::{fetch_with, impatient_client, quick_client, spec_of};
use super::support::sound::snapshot;
use super::support::{push_sample, quick_folder};
use super::*;

/// An image behind a proxy, and what a store holds after an undisturbed pull of it.
pub struct Pulls {
    _behind: Behind,
    pub faults: Faults,
    /// The one large blob.
    pub layer: Descriptor,
    spec: MirrorSpec,
    expected: BTreeMap<String, Digest>,
    /// Makes the client for the proxy.
    client: fn(Side, &str) -> Client,
}

impl Pulls {
    pub async fn new(behind: Behind, size: usize) -> Self {
        let image = image(size);
        push_sample(&behind.url(), REPOSITORY, Some("1"), &image).await;
        let faults = Faults::with_tokens(&behind.host()).await;
        let spec = spec_of(&faults.host(), &[(REPOSITORY, "1")]);
        let layer = layer_of(&image);
        let mut pulls = Pulls {
            _behind: behind,
            faults,
            layer,
            spec,
            expected: BTreeMap::new(),
            client: |side, _| quick_client(side),
        };
        let (expected, passed) = pulls.pull("undisturbed", &[]).await;
        assert!(expected.len() >= 10, "{expected:?}");
        assert_eq!(passed.iter().filter(|passed| passed.down == pulls.layer.size).count(), 1);
        pulls.faults.heal();
        pulls.expected = expected;
        pulls
    }

    /// Pulls into a new store until that ends well, after runs that end as `before` says. What is in the store, and what
    /// has passed.
    async fn pull(&self, name: &str, before: &[Kind]) -> (BTreeMap<String, Digest>, Vec<Passed>) {
        let folder: TempDir = quick_folder();
        let store = Arc::new(Store::open(&folder.path().join("store"), Access::Writer).unwrap());
        for kind in before {
            let fetched = fetch_with((self.client)(Side::Source, &self.faults.host()), &self.spec, &store).await;
            let found: Vec<Kind> = fetched.complaints.iter().map(|complaint| complaint.kind).collect();
            assert_eq!(found, [*kind], "{name}: {:?}", fetched.complaints);
        }
        let fetched = fetch_with((self.client)(Side::Source, &self.faults.host()), &self.spec, &store).await;
        assert!(fetched.complaints.is_empty(), "{name}: {:?}", fetched.complaints);
        assert!(fetched.report.failed.is_empty(), "{name}: {:?}", fetched.report.failed);
        (snapshot(&folder.path().join("store/blobs")), self.faults.passed())
    }

    /// The same with what the proxy was told to do, which has to come to pass and to leave no trace.
    pub async fn disturbed(&self, name: &str, before: &[Kind]) -> Vec<Passed> {
        let (found, passed) = self.pull(name, before).await;
        assert!(self.faults.heal(), "{name}: it did not happen: {passed:?}");
        assert_eq!(found, self.expected, "{name}");
        passed
    }
}

const ROWS: &[Row] = &[
    Row { name: "heads are cut", faults: &[(Of(any), 4, Fault::CutHead)], before: &[] },
    Row { name: "answers are lost", faults: &[(Of(any), 4, Fault::LoseAnswer)], before: &[] },
    Row { name: "blobs end at once", faults: &[(Layer, 4, Fault::Cut(0))], before: &[] },
    Row { name: "blobs end early", faults: &[(Layer, 4, Fault::Cut(100))], before: &[] },
    Row { name: "blobs are reset", faults: &[(Layer, 4, Fault::Reset(100))], before: &[] },
    Row { name: "manifests end early", faults: &[(Of(manifest), 4, Fault::Cut(100))], before: &[] },
    Row { name: "manifests are reset", faults: &[(Of(manifest), 4, Fault::Reset(100))], before: &[] },
    Row { name: "blobs pause", faults: &[(Layer, 1, Fault::Pause(100))], before: &[] },
    Row { name: "10 KiB a second", faults: &[(Layer, 1, Fault::Slow)], before: &[] },
    Row { name: "429", faults: &[(Of(any), 4, Fault::Answer(429, None))], before: &[] },
    Row { name: "429 of blobs", faults: &[(Of(blob), 4, Fault::Answer(429, Some(0)))], before: &[] },
    Row { name: "429, in a second", faults: &[(Of(blob), 1, Fault::Answer(429, Some(1)))], before: &[] },
    Row { name: "500", faults: &[(Of(any), 4, Fault::Answer(500, None))], before: &[] },
    Row { name: "502 of manifests", faults: &[(Of(manifest), 4, Fault::Answer(502, None))], before: &[] },
    Row { name: "503", faults: &[(Of(any), 4, Fault::Answer(503, Some(0)))], before: &[] },
    Row { name: "503 of blobs", faults: &[(Of(blob), 4, Fault::Answer(503, None))], before: &[] },
    Row {
        name: "503 of the rest",
        faults: &[(Layer, 1, Fault::Cut(5_000)), (Rest, 3, Fault::Answer(503, None))],
        before: &[],
    },
    Row {
        name: "`Range` is dropped",
        faults: &[(Layer, 1, Fault::Cut(5_000)), (Rest, 1, Fault::DropRange)],
        before: &[],
    },
    Row {
        name: "416 for the rest",
        faults: &[(Layer, 1, Fault::Cut(5_000)), (Rest, 1, Fault::Answer(416, None))],
        before: &[],
    },
    Row { name: "429, until a date", faults: &[(Of(any), 1, Fault::AnswerUntil(429, 1))], before: &[] },
    Row { name: "503, until a date that is over", faults: &[(Of(blob), 4, Fault::AnswerUntil(503, -60))], before: &[] },
    Row { name: "425", faults: &[(Of(any), 4, Fault::Answer(425, None))], before: &[] },
    Row { name: "520 of blobs", faults: &[(Of(blob), 4, Fault::Answer(520, None))], before: &[] },
    // Once, and not again: a refusal, whatever its status.
    Row {
        name: "DENIED inside of a 500, for manifests",
        faults: &[(Of(head), 1, Fault::Refuse(500, DENIED)), (Of(manifest), 1, Fault::Refuse(500, DENIED))],
        before: &[Kind::Failed],
    },
    Row {
        name: "DENIED inside of a 500, for blobs",
        faults: &[(Layer, 1, Fault::Refuse(500, DENIED))],
        before: &[Kind::Failed],
    },
    Row { name: "the token expires", faults: &[(Of(any), 1, Fault::Expire)], before: &[] },
    Row { name: "the token expires before a manifest", faults: &[(Of(manifest), 1, Fault::Expire)], before: &[] },
    Row { name: "the token expires before a blob", faults: &[(Of(blob), 1, Fault::Expire)], before: &[] },
    Row {
        name: "the token expires in the middle of a blob",
        faults: &[(Layer, 1, Fault::Cut(5_000)), (Rest, 1, Fault::Expire)],
        before: &[],
    },
    Row { name: "a byte of a blob is another", faults: &[(Layer, 1, Fault::Flip(50))], before: &[Kind::Verification] },
    Row {
        name: "a byte of the rest of a blob is another",
        faults: &[(Layer, 1, Fault::Cut(5_000)), (Rest, 1, Fault::Flip(50))],
        before: &[Kind::Verification],
    },
    Row {
        name: "a byte of a manifest is another",
        faults: &[(Of(manifest), 1, Fault::Flip(50))],
        before: &[Kind::Verification],
    },
    Row { name: "HEAD names another digest", faults: &[(Of(head), 1, Fault::LieDigest)], before: &[Kind::Failed] },
    Row {
        name: "HEAD names another length",
        faults: &[(Of(head), 1, Fault::LieLength)],
        before: &[Kind::Verification],
    },
    Row {
        name: "one thing after the other",
        faults: &[
            (Of(head), 1, Fault::Answer(503, None)),
            (Of(head), 1, Fault::Expire),
            (Of(manifest), 1, Fault::Reset(10)),
            (Of(manifest), 1, Fault::Answer(429, Some(0))),
            (Of(blob), 1, Fault::Expire),
            (Layer, 1, Fault::Cut(70)),
            (Rest, 1, Fault::Reset(20)),
            (Rest, 1, Fault::DropRange),
        ],
        before: &[],
    },
];

/// Lines that stand still for ever, for a client to which a second is that.
const STALLS: &[Row] = &[
    Row { name: "blobs stand still for ever", faults: &[(Layer, 2, Fault::Stall(5_000))], before: &[] },
    Row { name: "manifests stand still for ever", faults: &[(Of(manifest), 1, Fault::Stall(100))], before: &[] },
    Row {
        name: "answers never come",
        faults: &[(Of(head), 1, Fault::Silence), (Layer, 1, Fault::Silence)],
        before: &[],
    },
];

async fn all(behind: Behind) {
    let pulls = Pulls::new(behind, LAYER).await;
    for row in ROWS {
        row.tell(&pulls.faults, &pulls.layer);
        pulls.disturbed(row.name, row.before).await;
    }
}

async fn stalls(behind: Behind) {
    let mut pulls = Pulls::new(behind, LAYER).await;
    pulls.client = impatient_client;
    for row in STALLS {
        row.tell(&pulls.faults, &pulls.layer);
        pulls.disturbed(row.name, row.before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_stands_still_is_given_up_after_the_configured_time() {
    stalls(Behind::embedded().await).await;
    if let Some(behind) = Behind::distribution().await {
        stalls(behind).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_embedded_registry_is_behind() {
    all(Behind::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_distribution_is_behind() {
    if let Some(behind) = Behind::distribution().await {
        all(behind).await;
    }
}
