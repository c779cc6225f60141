//! sealift carries container images across an air gap: chosen platforms only, every signed index unchanged.
//!
//! The modules in the order in which data flows: the stages, named as the subcommands; then what they work on; then
//! what everything may use.
//!
//! ```text
//! plan   (MirrorSpec, registries, Store)  -> Plan           decides, moves no layer
//! pull   (Plan, registries)               -> Store
//! export (stream of a Store, key)         -> bundle         signed, on a drive; or a layout for other tools
//! verify (bundle, trusted keys; or Store) -> VerifyReport   no network
//! replay (bundle, Destination)            -> registry       tags last
//! foreign (image of a registry)           -> registry       layers that are had from elsewhere, or no longer
//! inspect (registry, store, bundle, ...)  -> InspectReport  changes no image
//! client_config (urls of a bundle)        -> texts          for machines whose clients ask these urls first
//! ```

pub mod cli;

pub mod plan;

pub mod pull;

pub mod export;

pub mod verify;

pub mod replay;

pub mod foreign;

pub mod inspect;

pub mod client_config;

pub mod sample;
pub mod serve;
pub mod site;
pub mod spec;
pub mod target;
pub mod trust;
pub mod yaml;

pub mod bundle;
pub mod catalog;
pub mod layout;
pub mod registry;
pub mod store;

pub mod content;
pub mod image;
pub mod layers;
pub mod oci;

pub mod clock;
pub mod config;
pub mod durable;
pub mod error;
pub mod monitor;

pub use error::{Context, Error, Kind, Problem, Result, Side};
