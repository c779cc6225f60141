//! From images to everything that they need.

use std::collections::HashSet;
use std::sync::Arc;

use super::folder::Folder;
use super::{Bad, LayoutImage, Root};
use crate::error::{Error, Result, Side};
use crate::image::{Image, Part};
use crate::layers::{Claims, Place, cut};
use crate::oci::{CONFIG_SIZE_MAX, Descriptor, Digest};
use crate::verify::Depth;

/// The most manifests and blobs that images list, each image counted by itself; their digests are in memory. A thousand
/// images of ten platforms with a hundred layers each.
const NEEDS_MAX: usize = 1_000_000;

/// What was found.
pub(super) struct Walked {
    pub images: Vec<WalkedImage>,
    /// What is said of layers, where that was asked for.
    pub claims: Option<Claims>,
    /// How many children of indexes were left out.
    pub left_out: u64,
}

/// An image, and the blobs that it needs.
pub(super) struct WalkedImage {
    pub found: LayoutImage,
    needs: HashSet<Digest>,
}

impl WalkedImage {
    /// An image that needs a bad blob is not whole.
    pub fn blame(&mut self, bad: &Bad) {
        let needed = bad.iter().find(|(digest, _)| self.needs.contains(digest));
        let problem = needed.map(|(digest, problem)| format!("blob {digest}: {problem}"));
        self.found.problem = self.found.problem.take().or(problem);
    }
}

/// Looks at every image.
pub(super) fn walk(folder: &Folder, roots: Vec<Root>, depth: Depth) -> Result<Walked> {
    let mut claims = (depth == Depth::Layers).then(Claims::default);
    let (mut images, mut left_out) = (Vec::with_capacity(roots.len()), HashSet::new());
    let mut listed = 0_usize;
    for root in roots {
        let (names, image, mut problem) = root.image(folder)?;
        let name = cut(&if names.is_empty() { image.root.digest.to_string() } else { names.join(", ") }).into();
        left_out.extend(image.left_out.iter().map(|child| child.descriptor.digest));
        let mut needs = HashSet::new();
        for (descriptor, part) in image.manifests() {
            if part == Part::Stub {
                continue;
            }
            needs.insert(descriptor.digest);
            if let Err(error) = look(folder, &image, &name, descriptor, &mut needs, claims.as_mut())? {
                problem.get_or_insert(error.to_string());
            }
            few(listed.saturating_add(image.left_out.len()).saturating_add(needs.len()))?;
        }
        listed = listed.saturating_add(image.left_out.len()).saturating_add(needs.len()).saturating_add(1);
        few(listed)?;
        images.push(WalkedImage { found: LayoutImage { names, root: image.root.digest, problem }, needs });
    }
    Ok(Walked { images, claims, left_out: left_out.len() as u64 })
}

fn few(listed: usize) -> Result<()> {
    if listed <= NEEDS_MAX {
        return Ok(());
    }
    Err(Error::failed(format!("the images list more than {NEEDS_MAX} manifests and blobs together"))
        .on(Side::Store)
        .help("check fewer images at once, and ask where this layout comes from"))
}

/// Looks at one manifest. The inner error is the problem of its image, the outer one ends everything.
fn look(
    folder: &Folder,
    image: &Image,
    name: &Arc<str>,
    descriptor: &Descriptor,
    needs: &mut HashSet<Digest>,
    claims: Option<&mut Claims>,
) -> Result<Result<()>> {
    folder.bounded()?;
    let manifest = match folder.manifest(descriptor) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(claims) = claims {
        let place = Place { image: Arc::clone(name), manifest: descriptor.digest };
        let config = |config: &Descriptor| folder.read(config, CONFIG_SIZE_MAX);
        claims.add(place, &manifest, config, |digest| folder.blobs.get(digest).copied())?;
    }
    let mut outcome = Ok(());
    for blob in image.blobs_of(&descriptor.digest, &manifest) {
        needs.insert(blob.digest);
        let wrong = match folder.blobs.get(&blob.digest) {
            Some(&size) if size == blob.size => continue,
            Some(size) => format!("has {size} bytes instead of {}", blob.size),
            None => "is missing".to_owned(),
        };
        let error = Error::verification(format!("blob {} {wrong}", blob.digest)).on(Side::Store);
        outcome = outcome.and(Err(error));
    }
    Ok(outcome)
}
