//! The layers of a bundle, unpacked.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bundle::{BundleReader, Damage};
use crate::error::Result;
use crate::image::{Image, Part};
use crate::layers::{Claims, DeepReport, Place, Reading, check as check_layers, cut};
use crate::oci::{Digest, Tag};

/// What the images of a bundle say of their layers. A manifest that cannot be read is the problem of its image, and stands
/// there.
pub(super) fn claims_of(reader: &BundleReader) -> Result<Claims> {
    let (mut claims, tags) = (Claims::default(), reader.contents().tags());
    for image in &reader.contents().images {
        let tags = tags.get(&(image.repository.clone(), image.root.digest)).map(Vec::as_slice).unwrap_or_default();
        let name: Arc<str> = cut(&name_of(image, tags)).into();
        let kept = image.manifests().into_iter().filter(|(_, part)| *part != Part::Stub);
        for (descriptor, _) in kept {
            let Ok(manifest) = reader.manifest(descriptor) else { continue };
            let place = Place { image: Arc::clone(&name), manifest: descriptor.digest };
            claims.add(place, &manifest, |config| reader.read_config(config), |digest| reader.size_of(digest))?;
        }
    }
    Ok(claims)
}

/// Unpacks and compares; what is found to be damaged on the way is added to `damages`.
pub(super) fn check(
    reader: &BundleReader,
    claims: Claims,
    progress: &(dyn Fn(u64) + Sync),
    damages: &mut Vec<Damage>,
) -> DeepReport {
    let found = Mutex::new(Vec::new());
    let report = check_layers(claims, &|digest, take| {
        let mut hasher = digest.hasher();
        let (damages, whole) = reader.check_blob(digest, progress, &mut |piece| {
            hasher.update(piece);
            take(piece);
        });
        found.lock().unwrap_or_else(PoisonError::into_inner).extend(damages);
        if whole { reading(digest, hasher.finish()) } else { Reading::Lost }
    });
    damages.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
    report
}

fn reading(digest: &Digest, found: Digest) -> Reading {
    if found == *digest { Reading::Whole } else { Reading::Other(found) }
}

fn name_of(image: &Image, tags: &[Tag]) -> String {
    if tags.is_empty() {
        return format!("{}@{}", image.repository, image.root.digest);
    }
    let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
    format!("{}:{}", image.repository, tags.join(","))
}
