//! Pull, export and replay, killed at random moments.

use std::process::Command;
use std::sync::Arc;

use sealift::serve::{MemoryShelf, Running};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::moments::{Storm, rage};
use super::state::{Fixture, assert_nothing_is_left_over, contents, timeless};
use super::support::Said;
use super::support::sound::{assert_sound, snapshot};

/// Moments of each command in `tests/run`: with small blobs, and with a large one too.
const MANY: (usize, usize) = (460, 40);

/// Moments in the inner loop.
pub const FEW: usize = 20;

/// Rages over small blobs, then with a large one among them.
pub async fn rage_500<S: Storm>(storm: impl Fn(Fixture) -> S, seed: u64) {
    rage(&mut storm(Fixture::small().await), MANY.0, seed);
    rage(&mut storm(Fixture::large().await), MANY.1, seed + 1);
}

pub struct PullStorm(pub Fixture);

impl Storm for PullStorm {
    fn begin(&mut self) {
        self.0.world.remove("store");
    }

    fn command(&self) -> Command {
        self.0.world.command(&["pull", "world.yaml"])
    }

    fn check(&self) {
        assert_sound(&self.0.world.path("store"));
    }

    fn finished(&self, said: &Said) {
        said.ok();
        self.0.assert_store_is_as_undisturbed("store");
    }
}

pub struct ExportStorm(pub Fixture);

impl ExportStorm {
    const BUNDLE: &'static str = "world-1-1";
}

impl Storm for ExportStorm {
    fn begin(&mut self) {
        ["store", "to", "copy"].iter().for_each(|folder| self.0.world.remove(folder));
        self.0.world.copy("whole", "store");
    }

    fn command(&self) -> Command {
        self.0.world.command(&self.0.export_arguments("store", "to"))
    }

    fn check(&self) {
        let world = &self.0.world;
        assert_sound(&world.path("store"));
        let (bundle, expected) = (world.path("to").join(Self::BUNDLE), world.path("drive").join(Self::BUNDLE));
        let expected = timeless(&expected);
        for (name, digest) in timeless(&bundle) {
            assert_eq!(Some(&digest), expected.get(&name), "{name} is there, and not what it must be");
        }
        if bundle.join("bundle.json").exists() {
            world.run(&["verify", bundle.to_str().unwrap(), "--key", "exporter.pub"]).ok();
        }
    }

    fn finished(&self, said: &Said) {
        assert_eq!(said.ok()["bundle"], Self::BUNDLE, "no number is burnt");
        let world = &self.0.world;
        let (bundle, expected) = (world.path("to").join(Self::BUNDLE), world.path("drive").join(Self::BUNDLE));
        assert_eq!(timeless(&bundle), timeless(&expected));
        assert_eq!(contents(&bundle), contents(&expected));
        let record = world.path("store/records/bundles").join(Self::BUNDLE);
        assert_eq!(
            std::fs::read(bundle.join("bundle.json")).unwrap(),
            std::fs::read(record.join("bundle.json")).unwrap()
        );
        assert_nothing_is_left_over(&world.path("to"));
        self.0.assert_store_is_as_undisturbed("store");
        self.0.export("store", "copy").ok();
        assert_eq!(snapshot(&world.path("copy")), snapshot(&world.path("to")), "one that nobody disturbed");
    }
}

pub struct ReplayStorm {
    fixture: Fixture,
    shelf: MemoryShelf,
    running: Option<Running>,
}

impl ReplayStorm {
    pub fn new(fixture: Fixture) -> Self {
        ReplayStorm { fixture, shelf: MemoryShelf::default(), running: None }
    }

    fn place(&self) -> impl Fn(&str) -> String {
        let host = self.fixture.world.source_host().replace(':', "_");
        move |name| format!("m/{host}/{name}")
    }
}

impl Storm for ReplayStorm {
    fn begin(&mut self) {
        self.fixture.world.remove("state");
        self.shelf = MemoryShelf::default();
        let shelf = Arc::new(self.shelf.clone());
        self.running = Some(block_in_place(|| Handle::current().block_on(Running::start(shelf))).unwrap());
    }

    fn command(&self) -> Command {
        let to = format!("{}/m", self.running.as_ref().unwrap().address());
        self.fixture.world.command(&["replay", "drive/world-1-1", "--key", "exporter.pub", "--to", &to])
    }

    fn check(&self) {
        self.fixture.assert_tags_are_whole(&self.shelf, self.place());
    }

    fn finished(&self, said: &Said) {
        said.ok();
        self.fixture.assert_all_is_published(&self.shelf, self.place());
        assert_nothing_is_left_over(&self.fixture.world.path("state"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_killed_ends_as_if_it_had_not_been() {
    rage(&mut PullStorm(Fixture::small().await), FEW, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_killed_ends_as_if_it_had_not_been() {
    rage(&mut ExportStorm(Fixture::small().await), FEW, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_ends_as_if_it_had_not_been() {
    rage(&mut ReplayStorm::new(Fixture::small().await), FEW, 3);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills 500 times"]
async fn a_pull_is_killed_500_times() {
    rage_500(PullStorm, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills 500 times"]
async fn an_export_is_killed_500_times() {
    rage_500(ExportStorm, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills 500 times"]
async fn a_replay_is_killed_500_times() {
    rage_500(ReplayStorm::new, 30).await;
}
