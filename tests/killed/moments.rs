//! [`Storm`]: one command, killed again and again at random moments, then let to its end.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support::Said;

/// How often a command is killed in a row before it may end, at the most.
const IN_A_ROW_MAX: u64 = 10;

/// How many runs may end before their moment comes, for each one that is hit. Only a machine that stands still for
/// most of the time gets there.
const MISSES_MAX: usize = 30;

/// Numbers that are the same in every run of the test (splitmix64).
pub struct Seeded(pub u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound`, without it.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From nothing to `whole`.
    pub fn part_of(&mut self, whole: Duration) -> Duration {
        whole.mul_f64(self.below(10_000) as f64 / 10_000.0)
    }
}

/// How a run ended that was to be killed.
pub enum Ended {
    Hit,
    /// The end came before the moment.
    ByItself,
}

/// What is done to one command.
pub trait Storm {
    /// Everything is as before the command, once more.
    fn begin(&mut self);

    /// The command.
    fn command(&self) -> Command;

    /// What must hold right after it was killed.
    fn check(&self);

    /// What must hold when it has ended by itself.
    fn finished(&self, said: &Said);

    /// Kills the command after `moment`.
    fn kill(&self, moment: Duration) -> Ended {
        let mut child = self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        kill(&mut child)
    }

    /// Lets the command end.
    fn complete(&self) -> Said {
        self.command().output().unwrap().into()
    }
}

/// SIGKILL. One that ended before must have ended well.
pub fn kill(child: &mut Child) -> Ended {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    match status.code() {
        None => Ended::Hit,
        Some(0) => Ended::ByItself,
        Some(code) => panic!("it ended with {code} before it was killed"),
    }
}

/// Kills the command at `hits` moments, which are spread evenly over the time that it takes undisturbed.
pub fn rage(storm: &mut impl Storm, hits: usize, seed: u64) {
    let mut random = Seeded(seed);
    let whole = undisturbed(storm);
    let (mut hit, mut missed) = (0, 0);
    while hit < hits {
        storm.begin();
        for _ in 0..=random.below(IN_A_ROW_MAX) {
            match storm.kill(random.part_of(whole)) {
                Ended::Hit => hit += 1,
                Ended::ByItself => {
                    missed += 1;
                    break;
                }
            }
            storm.check();
        }
        let said = storm.complete();
        storm.finished(&said);
        assert!(missed < hits * MISSES_MAX, "{hit} of {hits} were hit");
    }
}

/// How long it takes: the second longest of three times.
fn undisturbed(storm: &mut impl Storm) -> Duration {
    let mut times: Vec<Duration> = (0..3)
        .map(|_| {
            storm.begin();
            let begun = Instant::now();
            let said = storm.complete();
            let time = begun.elapsed();
            storm.finished(&said);
            time
        })
        .collect();
    times.sort();
    times[1]
}
