//! Platforms: which children of an index a spec takes, in whichever way both are written; what has no platform; and that a
//! platform which is added later costs what is missing of it, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod later;
mod selection;
#[path = "../support/mod.rs"]
mod support;
mod whole;
