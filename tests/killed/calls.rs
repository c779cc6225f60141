//! Killed at a chosen call: the moments between two of them are too short for a random one to find.

use std::process::{Command, Stdio};

use super::commands::{ExportStorm, PullStorm, ReplayStorm};
use super::moments::{Ended, Storm, kill};
use super::state::Fixture;
use super::support::have;

/// What is called to change files; with each, how many of its calls are passed over after one that was chosen. Each thread
/// counts its own.
const CALLS: [(&str, usize); 7] =
    [("rename", 1), ("unlink", 1), ("fsync", 1), ("fdatasync", 3), ("ftruncate", 1), ("write", 5), ("pwrite64", 7)];

/// The same command, to be killed when one of its threads enters this call for the `number`th time.
fn at_call(command: &Command, call: &str, number: usize) -> Command {
    let mut traced = Command::new("strace");
    let inject = format!("inject={call}:signal=KILL:when={number}");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
    traced.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    traced.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    traced
}

/// Kills the command at each call in turn, each time from the beginning, then lets it end. How often it was killed.
fn everywhere(storm: &mut impl Storm) -> usize {
    let mut hits = 0;
    for (call, step) in CALLS {
        for number in (1..).step_by(step) {
            storm.begin();
            let mut child = at_call(&storm.command(), call, number).spawn().unwrap();
            child.wait().unwrap();
            if matches!(kill(&mut child), Ended::ByItself) {
                break;
            }
            hits += 1;
            storm.check();
            let said = storm.complete();
            storm.finished(&said);
        }
    }
    hits
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills at hundreds of calls"]
async fn a_pull_is_killed_at_every_call() {
    if have(&["strace"]) {
        assert!(everywhere(&mut PullStorm(Fixture::small().await)) > 50);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills at hundreds of calls"]
async fn an_export_is_killed_at_every_call() {
    if have(&["strace"]) {
        assert!(everywhere(&mut ExportStorm(Fixture::small().await)) > 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "kills at hundreds of calls"]
async fn a_replay_is_killed_at_every_call() {
    if have(&["strace"]) {
        assert!(everywhere(&mut ReplayStorm::new(Fixture::small().await)) > 20);
    }
}
