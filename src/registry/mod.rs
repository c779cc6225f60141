//! Medium 1: registries, spoken to by the OCI distribution specification.
//!
//! A [`Client`] serves all registries of one side; [`Client::repository`] gives the [`Remote`] that the stages
//! work with. Below it, one idea for each file:
//!
//! ```text
//! remote      a repository: mirrors first where only reading, then the registry itself
//! manifests tags referrers blobs download upload    what is asked, and how answers are judged
//! endpoint    one base address: authorisation, redirects, telling success, refusal and passing trouble apart
//! limits budget health    how much of a registry is used, how many pulls it allows, whether it was found down
//! elsewhere   blobs at addresses that no registry has: the urls of layers
//! auth        challenge, credentials, token: what goes into the Authorization header
//! login       whether a login works
//! transport   connections, time-outs, TLS, proxies; where a registry may send sealift
//! retry       the one policy of trying again
//! ```
//!
//! Facts about how registries really behave are stated where they matter. No text that is shown ever holds
//! a URL with a query: presigned addresses are secrets.

mod answer;
mod appearance;
mod auth;
mod blobs;
mod budget;
mod challenge;
mod client;
mod credentials;
mod download;
mod elsewhere;
mod endpoint;
mod health;
mod limits;
mod link;
mod login;
mod manifests;
mod pull;
mod referrers;
mod remote;
mod retry;
mod scope;
mod secret;
mod tags;
mod token;
mod transport;
mod upload;

pub use answer::{Answer, Entry};
pub use appearance::Appearance;
pub use budget::Budget;
pub use client::Client;
pub use credentials::{Credentials, Origin, Place};
pub use login::{LoginCheck, LoginForm, LoginUsed};
pub use manifests::{MISSING_CHILD_CODES, Put};
pub use pull::Pull;
pub use referrers::{REFERRERS_MAX, Referrers, ReferrersForm};
pub use remote::Remote;
pub use retry::Retry;
pub use tags::TAGS_MAX;

#[cfg(test)]
mod tests;
