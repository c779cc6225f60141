//! The field's vocabulary as types that cannot be wrong. Data only, no I/O.

mod descriptor;
pub mod digest;
pub mod elsewhere;
pub mod json;
pub mod manifest;
mod media_type;
mod name;
mod platform;
pub mod reference;

pub use descriptor::Descriptor;
pub use digest::{Digest, Hasher};
pub use elsewhere::{Elsewhere, LayerUrl, UrlHost};
pub use manifest::{CONFIG_SIZE_MAX, MANIFEST_SIZE_MAX, Manifest};
pub use media_type::MediaType;
pub use name::Name;
pub use platform::{Platform, PlatformPattern};
pub use reference::{Reference, Registry, Repository, Tag};
