//! sealift carries container images across an air gap: chosen platforms only, every signed index unchanged.
//!
//! The modules in the order in which data flows.

pub mod export;
pub mod pull;

pub mod bundle;
pub mod image;
pub mod store;

pub mod catalog;
pub mod content;
pub mod oci;
pub mod registry;

pub mod clock;
pub mod config;
pub mod durable;
pub mod error;
pub mod monitor;

pub use error::{Context, Error, Kind, Result, Side};
