//! The `urls` of everything that a bundle carries.

use super::BundleReader;
use crate::image::Addresses;
use crate::oci::Descriptor;

impl BundleReader {
    /// The `urls` in all manifests that came along. What lies in a volume that is not here is not carried.
    pub fn addresses(&self) -> Addresses {
        let volumes = self.contents.volumes.len();
        let here: Vec<bool> = (0..volumes).map(|volume| !self.copies(volume).is_empty()).collect();
        let is_here = |content: &Descriptor| {
            let entry = self.by_digest.get(&content.digest).and_then(|&at| self.contents.blobs.get(at));
            entry.is_some_and(|entry| {
                let extents = entry.extents.iter();
                entry.size == content.size
                    && extents.map(|extent| here.get(extent.volume)).all(|here| here == Some(&true))
            })
        };
        let mut found = Addresses::default();
        for image in &self.contents.images {
            found.add_image(image, |descriptor| self.manifest(descriptor), is_here);
        }
        found
    }
}
