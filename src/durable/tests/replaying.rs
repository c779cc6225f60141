//! A replay, stopped at every single operation on the site's memory and at everything that is asked of its target, and then
//! run again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::super::faults::{Fault, LOSSES, Loss, World};
use super::end_state::{EndState, differences};
use super::fixture::{Fixture, Stage, copy_tree, files};
use super::target::{Stop, Stopping, check_tags, published};
use crate::serve::{MemoryShelf, Running};

/// How many operations further the next stop comes, in the test that everybody runs all the time.
const STRIDE: usize = 11;

/// A bundle, and what an undisturbed replay of it leaves on the target and in the site's memory.
struct Replays {
    fixture: Fixture,
    start: PathBuf,
    end: EndState,
}

impl Replays {
    async fn new() -> Replays {
        let fixture = Fixture::small().await;
        let start = fixture.place("start");
        fs::create_dir(&start).unwrap();
        for stage in [Stage::Pull, Stage::Export] {
            assert!(fixture.run(stage, &start, None).await.unwrap());
        }
        // What a site has: the drive.
        fs::remove_dir_all(start.join("store")).unwrap();
        let undisturbed = fixture.place("undisturbed");
        copy_tree(&start, &undisturbed);
        let shelf = MemoryShelf::new();
        let target = Running::start(Arc::new(shelf.clone())).await.unwrap();
        assert!(fixture.run(Stage::Replay, &undisturbed, Some(&target)).await.unwrap());
        let mut replays = Replays { fixture, start, end: published(&shelf) };
        replays.end.extend(memory(&undisturbed, &target));
        assert!(replays.end.len() > 40, "{:?}", replays.end);
        replays
    }

    /// A replay that is disturbed by `fault` and `stop`, then by a power loss, then run again; whether it was disturbed.
    async fn one(&self, fault: Fault, stop: Stop, loss: Loss) -> bool {
        let (root, after, shelf) = (self.fixture.place("root"), self.fixture.place("after"), MemoryShelf::new());
        for folder in [&root, &after] {
            let _ = fs::remove_dir_all(folder);
        }
        copy_tree(&self.start, &root);
        let stopping = Stopping::new(shelf.clone(), stop);
        let target = Running::start(Arc::new(stopping.clone())).await.unwrap();
        let world = World::watch(&root, fault);
        stopping.stops(&world);
        let said = self.fixture.run(Stage::Replay, &root, Some(&target)).await;
        let met = world.met() || stopping.met();
        assert!(met || matches!(said, Ok(true)), "{said:?}");
        let what = PathBuf::from(format!("{fault:?}, {stop:?}, then {loss:?} lost"));
        check_tags(&shelf, &self.end, &what);
        // After a kill the same disk goes on, with what is not synced on it.
        let killed = loss == Loss::Nothing;
        let after = if killed { root } else { after };
        if killed {
            world.revive();
        } else {
            world.after(loss, &after);
        }
        let address = target.address();
        target.stop().await.unwrap();
        let target = Running::start_at(address, Arc::new(shelf.clone())).await.unwrap();
        let said = self.fixture.run(Stage::Replay, &after, Some(&target)).await;
        assert!(matches!(said, Ok(true)), "{}: {said:?}", what.display());
        let mut found = published(&shelf);
        found.extend(memory(&after, &target));
        let differ = differences(&found, &self.end);
        assert!(differ.is_empty(), "{}:\n{}", what.display(), differ.join("\n"));
        if killed {
            let dark = self.fixture.place("dark");
            let _ = fs::remove_dir_all(&dark);
            world.after(Loss::All, &dark);
            let differ = differences(&memory(&dark, &target), &memory(&after, &target));
            assert!(differ.is_empty(), "{}, and then power:\n{}", what.display(), differ.join("\n"));
        }
        met
    }

    async fn all(&self, stride: usize) {
        for loss in LOSSES {
            self.faults(Fault::Stop, loss, stride).await;
        }
        self.faults(Fault::Full, Loss::Nothing, stride).await;
        for number in [Errno::IO, Errno::ROFS] {
            self.faults(|at| Fault::Once(at, number.raw_os_error()), Loss::Nothing, stride).await;
            self.faults(|at| Fault::Forever(at, number.raw_os_error()), Loss::Nothing, stride).await;
        }
        self.stops(Stop::Before, stride).await;
        self.stops(Stop::After, stride).await;
    }

    async fn faults(&self, fault: impl Fn(u64) -> Fault, loss: Loss, stride: usize) {
        for at in (1..).step_by(stride) {
            if !self.one(fault(at), Stop::Never, loss).await {
                assert!(at > 20, "only {at} operations on files");
                return;
            }
        }
    }

    async fn stops(&self, stop: impl Fn(u64) -> Stop, stride: usize) {
        for at in (1..).step_by(stride) {
            if !self.one(Fault::None, stop(at), Loss::All).await {
                assert!(at > 100, "only {at} things are asked of a target");
                return;
            }
        }
    }
}

/// The site's memory. Each target has another port, and so another name in it.
fn memory(root: &Path, target: &Running) -> EndState {
    let mut found = EndState::new();
    for (path, bytes) in files(&root.join("state")) {
        let text = String::from_utf8(bytes).unwrap().replace(&target.address().to_string(), "target");
        let place = if path.contains("/tags/") { format!("memory of tags: {text}") } else { format!("memory/{path}") };
        found.insert(place, text);
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replay_run_again_ends_as_an_undisturbed_one() {
    Replays::new().await.all(STRIDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: every operation"]
async fn a_replay_stopped_at_every_operation() {
    Replays::new().await.all(1).await;
}
