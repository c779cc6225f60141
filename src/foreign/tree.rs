//! [`Tree`]: all manifests of an image, with their texts.

use std::collections::HashMap;

use bytes::Bytes;

use super::place::absent;
use crate::error::{Context, Error, Result, Side};
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX};
use crate::oci::{Descriptor, Digest, Manifest, Name};
use crate::registry::Remote;

/// The most manifests of one image. Real indexes have some thirty children.
const MANIFESTS_MAX: usize = 10_000;

/// The most bytes of all manifests of one image: their texts are in memory. Real ones have some hundred kilobytes.
const SIZE_MAX: usize = 64 * 1024 * 1024;

/// The most configs and layers of one image.
const BLOBS_MAX: usize = 100_000;

/// The manifests of an image: the root first, each once.
pub(super) struct Tree {
    pub nodes: Vec<Node>,
    places: HashMap<Digest, usize>,
}

/// A manifest.
pub(super) struct Node {
    /// What lists it says of it: of the root, what the registry says.
    pub descriptor: Descriptor,
    pub bytes: Bytes,
    pub manifest: Manifest,
}

impl Tree {
    /// Reads all manifests of the image `name`. One that is listed and not there is an error: what is not known cannot be
    /// kept as it is.
    pub async fn read(remote: &Remote, name: &Name) -> Result<Self> {
        let (descriptor, bytes) = remote.get_manifest(name, None).await?.ok_or_else(|| absent(remote, name))?;
        let mut tree = Tree { nodes: Vec::new(), places: HashMap::new() };
        let (mut size, mut blobs) = (0, 0);
        let mut open = vec![(descriptor, Some(bytes), 0)];
        while let Some((descriptor, bytes, depth)) = open.pop() {
            if tree.places.contains_key(&descriptor.digest) {
                continue;
            }
            let bytes = match bytes {
                Some(bytes) => bytes,
                None => child(remote, &descriptor).await?,
            };
            let node = parse(descriptor, bytes).on(Side::Source)?;
            size += node.bytes.len();
            blobs += node.layers().len() + 1;
            let children = node.manifest.children().to_vec();
            bounded(tree.nodes.len() + open.len() + children.len(), size, blobs)?;
            if depth >= INDEX_DEPTH_MAX && !children.is_empty() {
                let text = format!("its indexes are nested more than {INDEX_DEPTH_MAX} levels deep");
                return Err(Error::verification(text).on(Side::Source));
            }
            tree.places.insert(node.descriptor.digest, tree.nodes.len());
            tree.nodes.push(node);
            // From behind: the first child comes next.
            open.extend(children.into_iter().rev().map(|child| (child, None, depth + 1)));
        }
        Ok(tree)
    }

    /// The manifest of this name.
    pub fn get(&self, digest: &Digest) -> Option<(usize, &Node)> {
        let at = *self.places.get(digest)?;
        self.nodes.get(at).map(|node| (at, node))
    }
}

impl Node {
    /// The layers of an image; none of an index.
    pub fn layers(&self) -> &[Descriptor] {
        match &self.manifest.content {
            Content::Image { layers, .. } => layers,
            Content::Index { .. } => &[],
        }
    }

    /// The config of an image, when it is one that can be run.
    pub fn image_config(&self) -> Option<&Descriptor> {
        match &self.manifest.content {
            Content::Image { config, .. } if config.media_type.is_image_config() => Some(config),
            _ => None,
        }
    }
}

fn bounded(manifests: usize, size: usize, blobs: usize) -> Result<()> {
    match manifests > MANIFESTS_MAX || size > SIZE_MAX || blobs > BLOBS_MAX {
        false => Ok(()),
        true => Err(Error::verification(format!(
            "the image has more than {MANIFESTS_MAX} manifests, {} MiB of them, or {BLOBS_MAX} configs and layers",
            SIZE_MAX >> 20
        ))
        .on(Side::Source)),
    }
}

async fn child(remote: &Remote, descriptor: &Descriptor) -> Result<Bytes> {
    if !descriptor.media_type.is_manifest() {
        let text = format!("the index lists {}, a {}, which is no manifest", descriptor.digest, descriptor.media_type);
        return Err(Error::verification(text).on(Side::Source));
    }
    let found = remote.get_manifest(&Name::from(descriptor.digest), Some(descriptor)).await?;
    found.map(|(_, bytes)| bytes).ok_or_else(|| {
        Error::failed(format!("manifest {} is listed, but not there", descriptor.digest)).on(Side::Source).help(
            "a sparse index cannot be changed: name one of its children by digest, or a registry that has all of them",
        )
    })
}

fn parse(descriptor: Descriptor, bytes: Bytes) -> Result<Node> {
    let manifest = Manifest::parse(&descriptor.media_type, &bytes)
        .map_err(|error| Error::verification(error.to_string()))
        .while_(|| format!("manifest {}", descriptor.digest))?;
    Ok(Node { descriptor: Descriptor { media_type: manifest.media_type.clone(), ..descriptor }, bytes, manifest })
}
