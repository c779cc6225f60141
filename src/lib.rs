//! sealift carries container images across an air gap: chosen platforms only, every signed index unchanged.
//!
//! The modules in the order in which data flows.

pub mod config;
pub mod content;
pub mod error;
pub mod monitor;
pub mod oci;
pub mod site;
pub mod spec;
pub mod yaml;

pub use error::{Context, Error, Kind, Result, Side};
