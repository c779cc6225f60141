//! Layers, unpacked: does what comes out of a layer have the digest (`diff_id`) that the config of its image names?
//!
//! [`Claims`] gathers what images say of their layers; [`check`] unpacks each layer once, on all cores, and compares. It
//! does not know where layers come from. Whatever a layer holds, the work is bounded: in what may come out ([`LIMITS`])
//! and in memory ([`WINDOWS_MAX`]).

mod check;
mod claims;
mod compression;
mod frames;
mod limits;
mod output;
mod report;
mod unpack;
mod windows;

pub use check::{Reading, check};
pub use claims::{Claims, FAILURES_MAX, Place, cut};
pub use compression::Compression;
pub use limits::{LIMITS, Limits, WINDOW_MAX, WINDOWS_MAX};
pub use report::{DeepReport, LayerFailure, NotChecked, Why};
pub use unpack::{Unpacked, Unpacker};
pub use windows::Windows;
