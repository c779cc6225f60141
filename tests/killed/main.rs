//! The spine cannot be killed: the real binary is ended by SIGKILL at random moments, goes on where it was, and keeps
//! other processes off or lets them through.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod calls;
mod commands;
mod moments;
mod pairs;
mod pushed;
mod resume;
mod state;
#[path = "../support/mod.rs"]
mod support;
