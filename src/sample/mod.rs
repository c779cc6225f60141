//! Sample images: small, but true images, for the demo and for tests.
//!
//! An [`ImageBuilder`] makes them: layers are real archives with right `diff_ids`, and every digest and size is
//! right. The same calls make the same bytes, on every machine and every day.

mod builder;
mod documents;
mod image;
mod layer;
mod made;
mod seed;

pub use builder::ImageBuilder;
pub use image::SampleImage;
pub use layer::pseudo_random;
pub use seed::seed;
