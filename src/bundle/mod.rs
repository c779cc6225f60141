//! Medium 3: what travels. `docs/bundle-format.md` is the contract; this module is one implementation of it.

mod addresses;
mod check;
mod compare;
mod contents;
mod frame;
mod layout;
mod plain;
mod reader;
mod signature;
mod texts;
mod writer;

pub use check::{Damage, DamageKind, sorted};
pub use contents::{
    Baseline, BlobEntry, Contents, Extent, FileEntry, InVolume, Producer, TYPE, TagsByImage, VERSION, VolumeEntry,
};
pub use layout::{Packing, Placed, VOLUME_SIZE_DEFAULT, VOLUME_SIZE_MIN, pack};
pub(crate) use plain::{open_plain, read_plain};
pub use reader::{BundleReader, group_folders};
pub use signature::{PublicKey, SigningKey, generate_key};
pub use texts::{readme, sums};
pub use writer::{BundleWriter, ReadBack, SideFiles};

/// In `meta.tar`, which makes an unpacked bundle a layout.
pub use crate::image::{INDEX_JSON_PATH, OCI_LAYOUT_PATH};
pub use crate::oci::json::INTEGER_MAX;

/// The table of contents; the last file to be written.
pub const BUNDLE_JSON: &str = "bundle.json";
/// Its signature.
pub const BUNDLE_SIG: &str = "bundle.json.sig";
/// The digests of all chunks.
pub const BUNDLE_CHUNKS: &str = "bundle.chunks";
/// The volume that every drive has.
pub const META_TAR: &str = "meta.tar";
/// For sha256sum(1).
pub const SUMS: &str = "SHA256SUMS";
/// For people.
pub const README: &str = "README.txt";

/// The largest `bundle.json` that is read or written.
pub const BUNDLE_JSON_MAX: u64 = 64 * 1024 * 1024;
/// The largest blob that goes to `meta.tar`.
pub const META_BLOB_MAX: u64 = 8 * 1024 * 1024;
/// The largest other file of a bundle's folder: a chunk table for 1 000 000 blobs or 500 TB.
pub const SIDE_FILE_MAX: u64 = 1024 * 1024 * 1024;
/// The most blobs of a bundle.
pub const BLOBS_MAX: usize = 1_000_000;
/// The most tags of a bundle.
pub const REFERENCES_MAX: usize = 100_000;
/// The most images of a bundle.
pub const IMAGES_MAX: usize = 100_000;
/// The most volumes of a bundle: their names have four digits.
pub const VOLUMES_MAX: usize = 10_000;

/// The name of volume `number`; 0 is `meta.tar`.
pub fn volume_name(number: usize) -> String {
    if number == 0 { META_TAR.to_owned() } else { format!("vol-{number:04}.tar") }
}
