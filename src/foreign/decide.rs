//! Deciding what becomes of an image: which layers change, which documents that makes, and what has to be pushed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::text::{LayerEdit, edit_children, edit_layers};
use super::tree::{Node, Tree};
use super::types;
use crate::error::{Error, Result, Side};
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX};
use crate::oci::{Descriptor, Digest, Manifest, MediaType, Platform, PlatformPattern};

/// A layer, as it is named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerName {
    /// Which of the layers of the one image it is, from 1.
    Number(usize),
    /// The layer itself, wherever it is.
    Digest(Digest),
}

/// A layer that is to be foreign, and where it is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The layer.
    pub layer: LayerName,
    /// Where it is to be had, checked by [`super::parse_url`]: several are alternatives.
    pub urls: Vec<String>,
}

/// What is to be done to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Make these layers foreign.
    Mark(Vec<Mark>),
    /// Make these layers, or without any named all that are foreign, layers like others.
    Unmark(Vec<LayerName>),
}

impl FromStr for LayerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<usize>() {
            return if number > 0 {
                Ok(LayerName::Number(number))
            } else {
                Err("layers are counted from 1".to_owned())
            };
        }
        text.parse().map(LayerName::Digest).map_err(|_| "neither a number, from 1, nor a digest".to_owned())
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayerName::Number(number) => write!(f, "layer {number}"),
            LayerName::Digest(digest) => write!(f, "layer {digest}"),
        }
    }
}

/// An image of a tree: a manifest that is no attestation, with its platform.
pub(super) struct Candidate {
    pub node: usize,
    pub platform: Option<Platform>,
}

/// What is done.
pub(super) struct Decision {
    /// All manifests, each after what it lists; the root comes last.
    pub documents: Vec<Document>,
    /// The layers that change.
    pub changes: Vec<LayerChange>,
}

/// A manifest as it is pushed.
pub(super) struct Document {
    pub old: Digest,
    pub descriptor: Descriptor,
    pub bytes: Bytes,
    pub manifest: Manifest,
}

/// A layer that changes.
pub(super) struct LayerChange {
    /// The old manifest that lists it.
    pub of: Digest,
    pub platform: Option<String>,
    /// Which of its layers it is, from 1.
    pub number: u64,
    pub before: Descriptor,
    pub media_type: &'static str,
    pub urls: Vec<String>,
}

/// Decides about the image of `tree`, whose images are `candidates`; `wanted` leaves only those of a platform.
pub(super) fn decide(
    tree: &Tree,
    candidates: &[Candidate],
    wanted: Option<&PlatformPattern>,
    wish: &Wish,
) -> Result<Decision> {
    let chosen = chosen(candidates, wanted)?;
    let changes = match wish {
        Wish::Mark(marks) => marked(tree, &chosen, marks)?,
        Wish::Unmark(layers) => unmarked(tree, &chosen, layers)?,
    };
    let mut edits: HashMap<Digest, BTreeMap<usize, LayerEdit>> = HashMap::new();
    for change in &changes {
        let edit = LayerEdit { media_type: change.media_type.to_owned(), urls: change.urls.clone() };
        let place = usize::try_from(change.number).unwrap_or_default().saturating_sub(1);
        edits.entry(change.of).or_default().insert(place, edit);
    }
    let mut rebuild = Rebuild { tree, edits, documents: Vec::new(), made: HashMap::new() };
    if let Some(root) = tree.nodes.first() {
        rebuild.node(root, 0)?;
    }
    Ok(Decision { documents: rebuild.documents, changes })
}

fn chosen<'a>(candidates: &'a [Candidate], wanted: Option<&PlatformPattern>) -> Result<Vec<&'a Candidate>> {
    let matches = |candidate: &&Candidate| {
        wanted.is_none_or(|wanted| candidate.platform.as_ref().is_some_and(|platform| wanted.matches(platform)))
    };
    let chosen: Vec<&Candidate> = candidates.iter().filter(matches).collect();
    match (chosen.is_empty(), wanted) {
        (false, _) => Ok(chosen),
        (true, Some(wanted)) => {
            Err(Error::usage(format!("it has no image for {wanted}; it has {}", platforms(candidates)))
                .on(Side::Source))
        }
        (true, None) => {
            Err(Error::usage("it holds no image: no manifest in it has layers of a file system").on(Side::Source))
        }
    }
}

/// How many platforms are named in an error.
const PLATFORMS_MAX: usize = 40;

fn platforms<'a>(candidates: impl IntoIterator<Item = &'a Candidate>) -> String {
    let named =
        candidates.into_iter().map(|one| one.platform.as_ref().map_or("none named".into(), Platform::to_string));
    named.take(PLATFORMS_MAX).collect::<Vec<_>>().join(", ")
}

/// The places of a layer: in which images, and at which place in each.
fn places<'a>(tree: &'a Tree, chosen: &[&'a Candidate], name: LayerName) -> Result<Vec<(&'a Candidate, usize)>> {
    let digest = match (name, chosen) {
        (LayerName::Digest(digest), _) => digest,
        (LayerName::Number(number), [one]) => {
            let layers = tree.nodes.get(one.node).map_or(&[][..], Node::layers);
            let layer = number.checked_sub(1).and_then(|at| layers.get(at));
            layer.map(|layer| layer.digest).ok_or_else(|| {
                Error::usage(format!("there is no layer {number}: the image has {}", layers.len())).on(Side::Source)
            })?
        }
        (LayerName::Number(number), several) => {
            let platforms = platforms(several.iter().copied());
            return Err(Error::usage(format!("layer {number} of which image? There are several: {platforms}"))
                .help("choose one with --platform, or name the layer by its digest: `sealift foreign list` and `docker manifest inspect` show it"));
        }
    };
    let mut found = Vec::new();
    for candidate in chosen {
        let layers = tree.nodes.get(candidate.node).map_or(&[][..], Node::layers);
        let here = layers.iter().enumerate().filter(|(_, layer)| layer.digest == digest);
        found.extend(here.map(|(at, _)| (*candidate, at)));
    }
    match found.is_empty() {
        true => Err(Error::usage(format!("no image in it has the layer {digest}")).on(Side::Source)),
        false => Ok(found),
    }
}

fn marked(tree: &Tree, chosen: &[&Candidate], marks: &[Mark]) -> Result<Vec<LayerChange>> {
    let (mut changes, mut seen) = (Vec::new(), HashSet::new());
    for mark in marks {
        for (candidate, at) in places(tree, chosen, mark.layer)? {
            if !seen.insert((candidate.node, at)) {
                return Err(Error::usage(format!("{} is named twice", mark.layer))
                    .help("name it once, with all its --url behind it"));
            }
            changes.extend(change(tree, candidate, at, types::foreign, &mark.urls)?);
        }
    }
    Ok(changes)
}

fn unmarked(tree: &Tree, chosen: &[&Candidate], layers: &[LayerName]) -> Result<Vec<LayerChange>> {
    let mut at_places: Vec<(&Candidate, usize)> = Vec::new();
    for name in layers {
        at_places.extend(places(tree, chosen, *name)?);
    }
    if layers.is_empty() {
        for candidate in chosen {
            let all = tree.nodes.get(candidate.node).map_or(&[][..], Node::layers).iter().enumerate();
            let foreign = all.filter(|(_, layer)| layer.media_type.is_foreign_layer());
            at_places.extend(foreign.map(|(at, _)| (*candidate, at)));
        }
    }
    let (mut changes, mut seen) = (Vec::new(), HashSet::new());
    for (candidate, at) in at_places.into_iter().filter(|(candidate, at)| seen.insert((candidate.node, *at))) {
        changes.extend(change(tree, candidate, at, types::ordinary, &[])?);
    }
    match changes.is_empty() {
        true => Err(Error::usage("nothing is to be changed: none of these layers is foreign or has urls")
            .on(Side::Source)
            .help("`sealift foreign list` shows which layers are")),
        false => Ok(changes),
    }
}

/// A change of a layer; `None` where it is what it is to be.
fn change(
    tree: &Tree,
    candidate: &Candidate,
    at: usize,
    as_type: fn(&MediaType, &MediaType) -> Option<&'static str>,
    urls: &[String],
) -> Result<Option<LayerChange>> {
    let Some(node) = tree.nodes.get(candidate.node) else { return Ok(None) };
    let Some(layer) = node.layers().get(at) else { return Ok(None) };
    let (manifest, number) = (&node.manifest.media_type, at as u64 + 1);
    let Some(media_type) = as_type(manifest, &layer.media_type) else {
        return Err(Error::usage(format!(
            "layer {number} of {} is a {}, which cannot be foreign, or not foreign, in a {manifest}",
            node.descriptor.digest, layer.media_type
        ))
        .on(Side::Source)
        .help(
            "layers of file systems can: those of Docker's types in Docker's manifests, those of OCI's types in OCI's",
        ));
    };
    if layer.media_type.as_str() == media_type && layer.urls == urls {
        return Ok(None);
    }
    Ok(Some(LayerChange {
        of: node.descriptor.digest,
        platform: candidate.platform.as_ref().map(Platform::to_string),
        number,
        before: layer.clone(),
        media_type,
        urls: urls.to_vec(),
    }))
}

/// Makes all documents anew, from below.
struct Rebuild<'a> {
    tree: &'a Tree,
    edits: HashMap<Digest, BTreeMap<usize, LayerEdit>>,
    documents: Vec<Document>,
    /// What became of each manifest.
    made: HashMap<Digest, (Digest, u64)>,
}

impl Rebuild<'_> {
    /// What becomes of a manifest, once everything below it was made.
    fn node(&mut self, node: &Node, depth: usize) -> Result<(Digest, u64)> {
        let old = node.descriptor.digest;
        if let Some(made) = self.made.get(&old) {
            return Ok(*made);
        }
        // Also where a manifest is listed at several depths, of which the tree has seen the first.
        if depth > INDEX_DEPTH_MAX {
            let text = format!("its indexes are nested more than {INDEX_DEPTH_MAX} levels deep");
            return Err(Error::verification(text).on(Side::Source));
        }
        let mut children = BTreeMap::new();
        for (at, child) in node.manifest.children().iter().enumerate() {
            let Some((_, below)) = self.tree.get(&child.digest) else { continue };
            let made = self.node(below, depth + 1)?;
            if made.0 != child.digest {
                children.insert(at, made);
            }
        }
        let layers = self.edits.remove(&old).unwrap_or_default();
        let edited = match (layers.is_empty(), children.is_empty()) {
            (true, true) => Some(node.bytes.to_vec()),
            (false, _) => edit_layers(&node.bytes, &layers),
            (true, false) => edit_children(&node.bytes, &children),
        };
        let document = edited.and_then(|bytes| document(node, bytes, &layers, &children)).ok_or_else(|| {
            Error::failed(format!("the text of manifest {old} cannot be changed in place"))
                .on(Side::Source)
                .help("it is written in a way that no known tool writes: make the image again, or its manifest")
        })?;
        let made = (document.descriptor.digest, document.descriptor.size);
        self.made.insert(old, made);
        self.documents.push(document);
        Ok(made)
    }
}

/// The changed text as a document; `None` unless it says what was meant, and nothing else than before beside that.
fn document(
    node: &Node,
    bytes: Vec<u8>,
    layers: &BTreeMap<usize, LayerEdit>,
    children: &BTreeMap<usize, (Digest, u64)>,
) -> Option<Document> {
    let manifest = Manifest::parse(&node.manifest.media_type, &bytes).ok()?;
    let mut expected = node.manifest.clone();
    match &mut expected.content {
        Content::Image { layers: list, .. } => {
            for (at, edit) in layers {
                let layer = list.get_mut(*at)?;
                layer.media_type = MediaType::new(&edit.media_type);
                layer.urls = edit.urls.clone();
            }
        }
        Content::Index { manifests } => {
            for (at, (digest, size)) in children {
                let child = manifests.get_mut(*at)?;
                (child.digest, child.size) = (*digest, *size);
            }
        }
    }
    if manifest != expected {
        return None;
    }
    let unchanged = layers.is_empty() && children.is_empty();
    // What nothing was done to keeps its name, of whichever algorithm.
    let digest = if unchanged { node.descriptor.digest } else { Digest::of(&bytes) };
    let descriptor = Descriptor::new(manifest.media_type.clone(), digest, bytes.len() as u64);
    Some(Document { old: node.descriptor.digest, descriptor, bytes: bytes.into(), manifest })
}
