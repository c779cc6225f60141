//! A registry that images go to: what it takes, what it has, how it takes an index of which children are missing, and how
//! referrers are listed where it has no API for them.

mod fallback;
mod foreign;
mod ladder;
mod medium;
mod probe;
mod product;
pub mod profile;

pub use fallback::{Listed, list_referrer};
pub use foreign::allow_line;
pub use ladder::{Rung, put_index};
pub use medium::{Known, RegistryTarget};
pub use probe::{probe, scratch};
pub use product::Product;
pub use profile::{Profile, TakesSparse};
