//! Putting a sample image on a shelf without a registry in between.

use super::SampleImage;
use crate::error::{Error, Result};
use crate::oci::Tag;
use crate::serve::{Committed, ShelfWriter};

/// Puts everything of `image` into `repository`, and tags its root with `tag`. May block, as the methods of a shelf
/// do.
pub fn seed(shelf: &dyn ShelfWriter, repository: &str, tag: Option<&Tag>, image: &SampleImage) -> Result<()> {
    for (descriptor, bytes) in &image.contents {
        if descriptor.media_type.is_manifest() {
            let tag = if descriptor.digest == image.root.digest { tag } else { image.tag_of(&descriptor.digest) };
            shelf.put_manifest(repository, tag, descriptor, bytes)?;
            continue;
        }
        let mut upload = shelf.begin_upload(repository)?;
        upload.write(bytes)?;
        if let Committed::Mismatch(actual) = upload.commit(&descriptor.digest)? {
            return Err(Error::verification(format!("{} has the digest {actual}", descriptor.digest)));
        }
    }
    Ok(())
}
