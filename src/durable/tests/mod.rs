//! The door to file systems, and every stage behind it while disks fill up, fail and lose power.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod door;
mod end_state;
mod fixture;
mod replaying;
mod sweep;
mod target;
mod world;
