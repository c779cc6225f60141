//! What `index.json`, or a push, names: manifests of which nobody has written down what is kept of them.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::Root;
use super::folder::{Folder, read_small, unreadable};
use crate::error::Result;
use crate::image::{ForeignDecision, ForeignLayer, Image, IndexMode, Kept, LeftOut, platform_text};
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX};
use crate::oci::{Descriptor, Digest, Manifest, json};

/// The entry points of a layout.
const INDEX_JSON: &str = "index.json";

/// The largest `index.json` that is read: some hundred thousand tags.
const INDEX_JSON_MAX: u64 = 64 * 1024 * 1024;

/// Annotations under which names stand in `index.json`, the fullest first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// What `index.json` names.
pub(super) fn roots(folder: &Folder) -> Result<Vec<Root>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    let path = folder.root.join(INDEX_JSON);
    let index: Index = json::parse(&read_small(&path, INDEX_JSON_MAX)?).map_err(|why| unreadable(&path, &why))?;
    let name = |entry: &Descriptor| NAMES.iter().find_map(|name| entry.annotations.get(*name)).cloned();
    Ok(walked(folder, index.manifests.into_iter().map(|entry| (name(&entry), entry))))
}

/// Follows every entry. What several entries name is one image.
pub(super) fn walked(folder: &Folder, entries: impl Iterator<Item = (Option<String>, Descriptor)>) -> Vec<Root> {
    let (mut roots, mut places) = (Vec::new(), HashMap::new());
    for (name, root) in entries {
        let at = *places.entry(root.digest).or_insert(roots.len());
        if at == roots.len() {
            roots.push(Root { names: Vec::new(), image: image(folder, root) });
        }
        roots.get_mut(at).into_iter().for_each(|root: &mut Root| root.names.extend(name.clone()));
    }
    roots
}

/// What is here of an image. A child whose manifest or config is not here is taken for one that was left out: indexes are
/// sparse, and the manifests of left-out children may be here for registries that want them.
fn image(folder: &Folder, root: Descriptor) -> Image {
    let mut image = Image {
        repository: String::new(),
        mode: IndexMode::Sparse,
        kept: Vec::new(),
        left_out: Vec::new(),
        signatures: Vec::new(),
        absent: Vec::new(),
        foreign: Vec::new(),
        root: root.clone(),
    };
    let (mut open, mut seen) = (vec![(root, 0)], HashSet::new());
    while let Some((next, depth)) = open.pop() {
        // What cannot be read is the problem of its image, and found when that is looked at.
        let Ok(manifest) = folder.manifest(&next) else { continue };
        image.foreign.extend(left_behind(folder, &next.digest, &manifest));
        let children = manifest.children().iter().filter(|_| depth < INDEX_DEPTH_MAX);
        for child in children.filter(|child| seen.insert(child.digest)) {
            let (descriptor, parent) = (child.clone(), next.digest);
            let platform = platform_text(child.platform.as_ref());
            if is_kept(folder, child) {
                image.kept.push(Kept { descriptor, parent, platform, attests: None });
                open.push((child.clone(), depth + 1));
            } else {
                image.left_out.push(LeftOut { descriptor, parent, platform, stub: false });
            }
        }
    }
    image
}

fn is_kept(folder: &Folder, child: &Descriptor) -> bool {
    let is_here = |digest: &Digest| folder.blobs.contains_key(digest) || folder.irregular.contains_key(digest);
    let stub = || match folder.manifest(child).map(|manifest| manifest.content) {
        Ok(Content::Image { config, .. }) => !is_here(&config.digest),
        _ => false,
    };
    is_here(&child.digest) && !stub()
}

/// Foreign layers that stay where their urls say.
fn left_behind(folder: &Folder, of: &Digest, manifest: &Manifest) -> Vec<ForeignLayer> {
    let foreign = manifest.successors().filter(|blob| blob.media_type.is_foreign_layer());
    foreign
        .filter(|layer| !folder.blobs.contains_key(&layer.digest))
        .map(|layer| ForeignLayer {
            descriptor: layer.clone(),
            manifest: *of,
            decision: ForeignDecision::Skip,
            acknowledge: None,
        })
        .collect()
}
