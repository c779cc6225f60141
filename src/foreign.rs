//! Foreign layers, seen from the vendor's side: which layers of an image are had from elsewhere, and making an image of which
//! some are, or none.
//!
//! `list` only looks. `change` makes new documents from the text of those that are there, with other media types and `urls` of
//! some layers, and puts them, with everything else that they need, in another place. Digests and sizes of layers, and the
//! config, stay what they were: what a client runs is the same image.

mod change;
mod decide;
mod list;
mod place;
mod text;
mod tree;
mod types;
mod urls;

pub use change::{ChangeReport, ChangedImage, ChangedLayer, Order, change};
pub use decide::{LayerName, Mark, Wish};
pub use list::{ListReport, ListedImage, ListedLayer, list};
pub use place::{Medium, Place};
pub use urls::parse_url;
