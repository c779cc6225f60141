//! The stages as tests run them: a source on a loopback port, a store, a drive, a target in memory.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealift::config::{Config, RegistryConfig, Timeouts};
use sealift::content::Limits;
use sealift::monitor::Monitor;
use sealift::oci::{Descriptor, Digest, Manifest, Name};
use sealift::plan::{Plan, plan};
use sealift::pull::{PullReport, pull};
use sealift::registry::{Client, Credentials, Pull, Retry};
use sealift::serve::Shelf;
use sealift::spec::{self, MirrorSpec};
use sealift::store::Store;
use sealift::{Error, Kind, Side};

/// What a stage complained about while it went on.
#[derive(Default)]
pub struct Heard(Mutex<Vec<Complaint>>);

/// One complaint, as the person on duty reads it.
#[derive(Clone, Debug)]
pub struct Complaint {
    pub kind: Kind,
    pub text: String,
    pub help: Option<String>,
}

impl From<&Error> for Complaint {
    fn from(error: &Error) -> Self {
        Complaint { kind: error.kind(), text: error.to_string(), help: error.help_text().map(str::to_owned) }
    }
}

impl Monitor for Heard {
    fn problem(&self, error: &Error) {
        self.0.lock().unwrap().push(error.into());
    }
}

impl Heard {
    pub fn complaints(&self) -> Vec<Complaint> {
        self.0.lock().unwrap().clone()
    }
}

/// A client that does not wait between attempts.
pub fn quick_client(side: Side) -> Client {
    let client = Client::new(&Config::default(), Credentials::anonymous(), side).unwrap();
    client.with_retry(Retry::default().with_base(Duration::ZERO))
}

/// The same, for which a line to `host` that stands still for a second is a broken one.
pub fn impatient_client(side: Side, host: &str) -> Client {
    let timeouts = Timeouts { idle: Duration::from_secs(1), ..Timeouts::default() };
    let mut config = Config::default();
    config.registries.insert(host.parse().unwrap(), RegistryConfig { timeouts, ..RegistryConfig::default() });
    let client = Client::new(&config, Credentials::anonymous(), side).unwrap();
    client.with_retry(Retry::default().with_base(Duration::ZERO))
}

/// A spec of the stream `test` that takes linux/amd64 of each repository and tag at `host`.
pub fn spec_of(host: &str, references: &[(&str, &str)]) -> MirrorSpec {
    let entry = |(repository, tag): &(&str, &str)| {
        format!("  - source: {host}/{repository}\n    tags: {{exact: [\"{tag}\"]}}\n")
    };
    let entries: String = references.iter().map(entry).collect();
    let text = format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: test\ndefaults:\n  platforms: [linux/amd64]\nimages:\n{entries}"
    );
    spec::parse(Path::new("test.yaml"), text.as_bytes()).unwrap()
}

/// What came of planning and pulling.
pub struct Fetched {
    pub plan: Plan,
    pub report: PullReport,
    pub complaints: Vec<Complaint>,
}

/// Plans and pulls `spec` into `store`, and checks that the store holds no wrong byte.
pub async fn fetch(spec: &MirrorSpec, store: &Arc<Store>) -> Fetched {
    fetch_with(quick_client(Side::Source), spec, store).await
}

/// The same with a client of the test's own.
pub async fn fetch_with(client: Client, spec: &MirrorSpec, store: &Arc<Store>) -> Fetched {
    let heard = Heard::default();
    let plan = plan(spec, &client, store, &heard).await.unwrap();
    let report = pull(&plan, &Pull::new(client), store, Limits::default(), &heard).await.unwrap();
    assert_store_is_true(store);
    Fetched { plan, report, complaints: heard.complaints() }
}

/// Every file below `blobs/` has the digest that its name says.
pub fn assert_store_is_true(store: &Store) {
    super::sound::assert_blobs_are_true(store.root());
}

/// What `repository:tag` is on a shelf; `None` where there is no such tag. Where there is, its child for linux/amd64 has
/// to be there with config and layers.
pub fn tagged(shelf: &dyn Shelf, repository: &str, tag: &str) -> Option<Digest> {
    let root = shelf.resolve(repository, &Name::Tag(tag.parse().unwrap())).unwrap()?;
    let parse = |found: &Descriptor| Manifest::parse(&found.media_type, &shelf.manifest(found).unwrap()).unwrap();
    let wanted = |child: &&Descriptor| child.platform.as_ref().is_some_and(|named| named.architecture == "amd64");
    for child in parse(&root).children().iter().filter(wanted) {
        assert!(shelf.resolve(repository, &Name::Digest(child.digest)).unwrap().is_some(), "{child:?} is missing");
        for blob in parse(child).successors() {
            assert_eq!(shelf.blob(repository, &blob.digest).unwrap(), Some(blob.size), "{blob:?} is missing");
        }
    }
    Some(root.digest)
}
