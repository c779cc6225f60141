//! What integration tests share: real registries, real clients, sample images, and the rule for skipping.
//!
//! A test that needs a tool which is not installed prints why it was skipped and passes; with
//! `SEALIFT_REQUIRE_REAL=1` it fails. `tests/run` installs the tools and sets that.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests fail loudly"
)]

mod bad_line;
mod certificates;
mod clients;
mod confined;
mod containerd;
mod counterparts;
mod debian;
mod docker;
mod docker_registry;
mod enclave;
pub mod faults;
pub mod journey;
mod machine;
mod matrix;
mod nginx;
mod proxy;
mod push;
mod registry;
mod slow_line;
pub mod sound;
mod strict;
mod token_server;
mod tunnel;
mod world;

pub use bad_line::{BadLine, patterned};
pub use certificates::{Authority, Certificate, KeyForm};
pub use clients::Clients;
pub use containerd::Containerd;
pub use counterparts::{Counterparts, counterpart};
pub use debian::debian_busybox_image;
pub use docker::Docker;
pub use docker_registry::{Access, DockerRegistry, Settings};
pub use enclave::Enclave;
pub use machine::{Machine, Ran, Serving};
pub use matrix::Matrix;
pub use nginx::Nginx;
pub use proxy::{Asked, Proxy};
pub use push::{push_sample, push_sample_as, push_sample_through, push_sample_with};
pub use registry::Reader;
pub use slow_line::SlowLine;
pub use strict::StrictRegistry;
pub use token_server::{AskedToken, TokenRules, TokenServer, TokenUser};
pub use tunnel::Tunnel;
pub use world::{Said, World, quick_folder};

/// Whether every one of these tools is installed. Where not, says so, or fails when real parts are required.
pub fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |tool: &&&str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    match tools.iter().find(|tool| !installed(tool)) {
        Some(tool) => skip(&format!("{tool} is not installed")),
        None => true,
    }
}

/// Says why a test is skipped; fails when real parts are required. Always `false`.
pub fn skip(why: &str) -> bool {
    let required = std::env::var_os("SEALIFT_REQUIRE_REAL").is_some_and(|value| value == "1");
    assert!(!required, "SEALIFT_REQUIRE_REAL is set, but {why}");
    eprintln!("skipped: {why}");
    false
}
