//! Trimmed images: once everything is known of an image whose index is to be trimmed, the new index and its witness are
//! made and kept in the store, as all manifests that a plan names.

use super::Draft;
use crate::error::{Context, Result, Side};
use crate::image::{Image, IndexMode};
use crate::store::Store;
use crate::store::records::Failure;

/// Trims the images of `draft` that are to be trimmed. Entries of a spec that want other platforms of one image have been
/// merged before: one image has one index.
pub(super) fn trim(draft: &mut Draft, store: &Store) {
    let (failed, notes) = (&mut draft.failed, &mut draft.notes);
    draft.images.retain_mut(|planned| {
        let image = &planned.image;
        if image.mode != IndexMode::Trim {
            return true;
        }
        let label = format!("{}@{}", image.repository, image.root.digest.short());
        match make(image.clone(), store).while_(|| &label) {
            Ok(image) => {
                notes.extend(note(&image));
                planned.image = image;
                true
            }
            Err(error) => {
                failed.push(Failure::new(label, &error));
                false
            }
        }
    });
}

fn make(image: Image, store: &Store) -> Result<Image> {
    let (image, made) = image.trim(|descriptor| store.manifest_bytes(descriptor)).on(Side::Source)?;
    made.iter().try_for_each(|made| store.put(&made.descriptor.digest, &made.bytes))?;
    Ok(image)
}

/// What it means for those who check signatures.
fn note(image: &Image) -> Option<String> {
    let trimmed = image.trimmed.as_ref()?;
    let original = &trimmed.indexes.first()?.original;
    let (kept, left_out) = (image.kept.len(), image.left_out.len());
    Some(format!(
        "{}@{}: its index is trimmed to {}, with {kept} of {} children: signatures of the original no longer cover it. They \
         travel in a witness ({}); `sealift inspect` shows what was signed, and checks it",
        image.repository,
        original.digest.short(),
        image.root.digest,
        kept + left_out,
        trimmed.witness.digest.short(),
    ))
}
