//! Each stage, stopped or failing at every single operation, and then run again in peace.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use rustix::io::Errno;

use super::super::faults::{Fault, LOSSES, Loss, World};
use super::end_state::{EndState, check_between, differences, end_state, likeness};
use super::fixture::{Fixture, Stage, copy_tree};

/// How many operations further the next fault comes, in the tests that everybody runs all the time. Not a multiple of what
/// a blob takes, so that all kinds are met.
const STRIDE: usize = 23;

/// Whether temporary files may be there, which the next process removes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Litter {
    None,
    Allowed,
}

/// The same for a large layer, whose operations are mostly writes of one kind.
const STRIDE_LARGE: usize = 7;

/// A stage, what it begins with, and what it must end with.
struct Sweep<'a> {
    fixture: &'a Fixture,
    stage: Stage,
    end: EndState,
    /// What was gone on from.
    seen: Mutex<HashSet<BTreeSet<(String, String)>>>,
}

impl<'a> Sweep<'a> {
    /// Prepares the folder `start` by the stages `before`, and finds out what an undisturbed run of `stage` leaves.
    async fn new(fixture: &'a Fixture, before: &[Stage], stage: Stage) -> Sweep<'a> {
        let start = fixture.place("start");
        fs::create_dir(&start).unwrap();
        for earlier in before {
            assert!(fixture.run(*earlier, &start, None).await.unwrap(), "{earlier:?}");
        }
        if stage == Stage::CleanUp {
            leave_litter(&start);
        }
        let undisturbed = fixture.place("undisturbed");
        copy_tree(&start, &undisturbed);
        assert!(fixture.run(stage, &undisturbed, None).await.unwrap());
        check_between(&undisturbed, fixture);
        let end = end_state(&undisturbed);
        assert!(!end.keys().any(|path| path.starts_with("store/ingest/")), "{end:?}");
        Sweep { fixture, stage, end, seen: Mutex::default() }
    }

    /// Lets the faults that `fault` makes come at one operation after the other, until there is none left. `stride` operations
    /// are between them. Returns at how many the fault came.
    async fn all(&self, fault: impl Fn(u64) -> Fault, losses: &[Loss], stride: usize) -> u64 {
        let mut met = 0;
        for at in (1..).step_by(stride) {
            if !self.one(fault(at), losses).await {
                return met;
            }
            met += 1;
        }
        met
    }

    /// One disturbed run with everything that may follow; whether the fault came.
    async fn one(&self, fault: Fault, losses: &[Loss]) -> bool {
        let (start, root) = (self.fixture.place("start"), self.fixture.place("root"));
        let _ = fs::remove_dir_all(&root);
        copy_tree(&start, &root);
        let world = World::watch(&root, fault);
        let said = self.fixture.run(self.stage, &root, None).await;
        let met = world.met();
        let done = matches!(said, Ok(true));
        assert!(met || done, "{said:?}");
        if done && !matches!(fault, Fault::Stop(_)) {
            self.assert_end(&root, Litter::Allowed, &format!("{fault:?} came, and nothing was said"));
        }
        for loss in losses {
            let after = self.fixture.place("after");
            let _ = fs::remove_dir_all(&after);
            world.after(*loss, &after);
            // What goes on from where another one has gone on ends as that did.
            if self.seen.lock().unwrap().insert(likeness(&after)) {
                self.again(&after, &format!("{fault:?}, then {loss:?} lost")).await;
            }
        }
        world.revive();
        self.again(&root, &format!("{fault:?}, then killed")).await;
        // Also what the first process had no time to sync has to be there now.
        let dark = self.fixture.place("dark");
        let _ = fs::remove_dir_all(&dark);
        world.after(Loss::All, &dark);
        self.assert_end(&dark, Litter::Allowed, &format!("{fault:?}, killed, run again, then power was lost"));
        met
    }

    /// What was left is no lie, and run again in peace it becomes what it must be.
    async fn again(&self, root: &Path, what: &str) {
        check_between(root, self.fixture);
        let said = self.fixture.run(self.stage, root, None).await;
        assert!(matches!(said, Ok(true)), "{what}: {said:?}");
        self.assert_end(root, Litter::None, what);
    }

    fn assert_end(&self, root: &Path, litter: Litter, what: &str) {
        let mut found = end_state(root);
        if litter == Litter::Allowed {
            found.retain(|path, _| !path.starts_with("store/ingest/"));
        }
        let differences = differences(&found, &self.end);
        assert!(differences.is_empty(), "{:?}: {what}:\n{}", self.stage, differences.join("\n"));
    }

    async fn faults(&self, stride: usize) {
        let stops = self.all(Fault::Stop, &LOSSES[1..], stride).await;
        assert!(stops >= 3, "{stops} stops");
        self.all(Fault::Full, &[], stride).await;
        self.all(|at| Fault::Once(at, Errno::IO.raw_os_error()), &[Loss::All], stride).await;
        for number in [Errno::IO, Errno::ROFS] {
            self.all(|at| Fault::Forever(at, number.raw_os_error()), &[], stride).await;
        }
    }
}

/// What killed processes and power losses leave in a store.
fn leave_litter(root: &Path) {
    let ingest = root.join("store/ingest");
    for blob in fs::read_dir(root.join("store/blobs/sha256")).unwrap().take(3) {
        let name = blob.unwrap().file_name().into_string().unwrap();
        for extension in ["whole", "partial", "chunks"] {
            fs::write(ingest.join(format!("{name}.{extension}")), [0; 32]).unwrap();
        }
    }
}

async fn sweep(fixture: Fixture, before: &[Stage], stage: Stage, stride: usize) {
    Sweep::new(&fixture, before, stage).await.faults(stride).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disturbed_pull_run_again_ends_as_an_undisturbed_one() {
    sweep(Fixture::small().await, &[], Stage::Pull, STRIDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disturbed_export_run_again_ends_as_an_undisturbed_one() {
    sweep(Fixture::small().await, &[Stage::Pull], Stage::Export, STRIDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disturbed_clean_up_run_again_ends_as_an_undisturbed_one() {
    sweep(Fixture::small().await, &[Stage::Pull], Stage::CleanUp, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: every operation"]
async fn a_pull_disturbed_at_every_operation() {
    sweep(Fixture::small().await, &[], Stage::Pull, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: every operation"]
async fn an_export_disturbed_at_every_operation() {
    sweep(Fixture::small().await, &[Stage::Pull], Stage::Export, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: large files"]
async fn a_stopped_pull_of_a_large_layer_goes_on_from_its_good_chunks() {
    large(&[], Stage::Pull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: large files"]
async fn a_stopped_export_of_a_large_layer_goes_on_from_its_good_chunks() {
    large(&[Stage::Pull], Stage::Export).await;
}

async fn large(before: &[Stage], stage: Stage) {
    let fixture = Fixture::large().await;
    let sweep = Sweep::new(&fixture, before, stage).await;
    assert!(sweep.all(Fault::Stop, &LOSSES[1..], STRIDE_LARGE).await > 20);
}
