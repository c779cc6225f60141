//! What `index.json`, or a push, names: manifests of which nobody has written down what is kept of them.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::folder::{Folder, read_small, unreadable};
use super::{DamagedFile, Root, RootContent};
use crate::error::{Kind, Result};
use crate::image::{ForeignDecision, ForeignLayer, INDEX_JSON_PATH, Image, IndexMode, Kept, LeftOut, MANIFESTS_MAX};
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX};
use crate::oci::{Descriptor, Digest, Manifest, json};

/// The largest `index.json` that is read: some hundred thousand tags.
const INDEX_JSON_MAX: u64 = 64 * 1024 * 1024;

/// Annotations under which names stand in `index.json`, the fullest first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// The entries of `index.json`, as far as they are read.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// What `index.json` names.
pub(super) fn roots(root: &Path) -> Result<Vec<Root>> {
    let path = root.join(INDEX_JSON_PATH);
    let index: Index = json::parse(&read_small(&path, INDEX_JSON_MAX)?).map_err(|why| unreadable(&path, &why))?;
    let name = |entry: &Descriptor| NAMES.iter().find_map(|name| entry.annotations.get(*name)).cloned();
    Ok(named(index.manifests.into_iter().map(|entry| (name(&entry), entry))))
}

/// What is wrong with the `index.json` of a store, which needs none of its own.
pub(super) fn damaged(root: &Path) -> Option<DamagedFile> {
    let file = root.join(INDEX_JSON_PATH);
    match roots(root) {
        Err(error) if error.kind() != Kind::Missing => Some(DamagedFile { file, problem: error.to_string() }),
        _ => None,
    }
}

/// What several entries name is one image.
pub(super) fn named(entries: impl Iterator<Item = (Option<String>, Descriptor)>) -> Vec<Root> {
    let (mut roots, mut places): (Vec<Root>, _) = (Vec::new(), HashMap::new());
    for (name, root) in entries {
        let at = *places.entry(root.digest).or_insert(roots.len());
        match roots.get_mut(at) {
            Some(known) => {
                known.problem = known.problem.take().or_else(|| known.content.contradicted_by(&root));
                known.names.extend(name);
            }
            None => {
                let content = RootContent::Named(bare(&root));
                roots.push(Root { names: name.into_iter().collect(), content, problem: None });
            }
        }
    }
    roots
}

/// A descriptor without what a hostile document may make large.
fn bare(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size)
}

/// What two descriptors of one digest contradict each other in.
pub(super) fn contradiction(one: &Descriptor, other: &Descriptor) -> Option<String> {
    let same = one.size == other.size && one.media_type == other.media_type;
    (!same).then(|| {
        let say = |descriptor: &Descriptor| format!("{} of {} bytes", descriptor.media_type, descriptor.size);
        format!("manifest {} is listed as {} and as {}", one.digest, say(one), say(other))
    })
}

/// What is here of an image, and why that cannot be all that it needs.
///
/// A child whose manifest or config is not here is taken for one that was left out: indexes are sparse, and the manifests
/// of left-out children may be here for registries that want them.
pub(super) fn image(folder: &Folder, root: Descriptor) -> Result<(Image, Option<String>)> {
    let mut image = Image::new("", root.clone(), IndexMode::Sparse);
    let (mut seen, mut problem) = (HashMap::from([(root.digest, root.clone())]), None);
    let mut open = vec![(root, 0)];
    while let Some((next, depth)) = open.pop() {
        folder.bounded()?;
        // What cannot be read is the problem of its image, and found when that is looked at.
        let Ok(manifest) = folder.manifest(&next) else { continue };
        image.foreign.extend(left_behind(folder, &next.digest, &manifest));
        if depth >= INDEX_DEPTH_MAX && !manifest.children().is_empty() {
            let text = format!(
                "indexes are nested more than {INDEX_DEPTH_MAX} deep, and index {} is not followed",
                next.digest
            );
            problem.get_or_insert(text);
            continue;
        }
        for child in manifest.children() {
            if let Some(known) = seen.get(&child.digest) {
                problem = problem.or_else(|| contradiction(known, child));
                continue;
            }
            if seen.len() > MANIFESTS_MAX || image.foreign.len() > MANIFESTS_MAX {
                let text = format!(
                    "it lists more than {MANIFESTS_MAX} manifests, or foreign layers, and not all are looked at"
                );
                return Ok((image, Some(problem.unwrap_or(text))));
            }
            let (descriptor, parent) = (bare(child), next.digest);
            seen.insert(child.digest, descriptor.clone());
            if is_kept(folder, child) {
                open.push((descriptor.clone(), depth + 1));
                image.kept.push(Kept { descriptor, parent, platform: None, attests: None });
            } else {
                image.left_out.push(LeftOut { descriptor, parent, platform: None, stub: false });
            }
            folder.bounded()?;
        }
    }
    Ok((image, problem))
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
            descriptor: bare(layer),
            manifest: *of,
            decision: ForeignDecision::Skip,
            acknowledge: None,
            unavailable: false,
        })
        .collect()
}
