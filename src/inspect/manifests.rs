//! The manifests of an image: which are listed, and what of each is here.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::place::{Found, Look, parse};
use crate::error::{Error, Kind, Result};
use crate::image::ForeignDecision;
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX, config_platform};
use crate::oci::{Descriptor, Digest, Manifest};

/// The most manifests of one image that are looked at.
const MANIFESTS_MAX: usize = 10_000;

/// Manifests that are looked at at the same time.
const AT_ONCE: usize = 8;

/// The most hosts of a foreign layer that are shown.
const HOSTS_MAX: usize = 8;

/// A manifest of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedManifest {
    /// Its name.
    pub digest: Digest,
    /// What it is.
    pub media_type: String,
    /// Its platform: that of its index, or of its config where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The index that lists it; absent for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// The child that it attests to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attests: Option<Digest>,
    /// What was decided about it, where that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What of it is here.
    pub state: State,
    /// How many configs and layers it has, but for foreign ones.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them are not here.
    pub missing: u64,
    /// Its foreign layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<InspectedForeign>,
}

/// What was decided about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// It comes along.
    Kept,
    /// It was left out on purpose.
    LeftOut,
}

/// What of a manifest is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// The manifest, its config and its layers; of an index, the document.
    Complete,
    /// The manifest, and some of config and layers.
    Incomplete,
    /// The manifest alone: a stub, or an image that never arrived.
    ManifestOnly,
    /// Nothing.
    Absent,
    /// Its bytes are not what they must be.
    Damaged,
}

/// A foreign layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedForeign {
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// The hosts that have it, says the manifest.
    pub hosts: Vec<String>,
    /// Whether it is here.
    pub here: bool,
}

/// The root, with its bytes.
pub(super) struct Root {
    pub descriptor: Descriptor,
    pub bytes: Bytes,
}

pub(super) struct Walked {
    pub root: Root,
    pub artifact_type: Option<String>,
    pub manifests: Vec<InspectedManifest>,
    /// The root, and children whose manifests and configs are here: what can have signatures of use.
    pub present: Vec<Digest>,
}

/// A manifest that is listed.
struct Listed {
    descriptor: Descriptor,
    parent: Option<Digest>,
}

pub(super) async fn walk(place: &Look<'_>, found: &Found, problems: &mut Vec<String>) -> Result<Walked> {
    let bytes = place.manifest(&found.root).await?.ok_or_else(|| {
        Error::new(Kind::Failed, format!("manifest {} is not there", found.root.digest)).help("pull or copy it again")
    })?;
    let manifest = parse(&found.root, &bytes)?;
    let root = Descriptor { media_type: manifest.media_type.clone(), ..found.root.clone() };
    let listed = match manifest.content {
        Content::Image { .. } => vec![Listed { descriptor: root.clone(), parent: None }],
        Content::Index { .. } => list(place, &root, &manifest, problems).await?,
    };
    let foreign = foreign_decisions(found);
    let looked = listed.iter().map(|listed| look_at(place, found, listed, &foreign));
    let mut looked = stream::iter(looked.collect::<Vec<_>>()).buffered(AT_ONCE);
    let mut manifests = Vec::with_capacity(listed.len());
    while let Some(next) = looked.next().await {
        let (manifest, problem) = next?;
        problems.extend(problem);
        manifests.push(manifest);
    }
    let here = |manifest: &&InspectedManifest| matches!(manifest.state, State::Complete | State::Incomplete);
    let mut present = vec![root.digest];
    present
        .extend(manifests.iter().filter(here).map(|manifest| manifest.digest).filter(|digest| *digest != root.digest));
    let mut seen = HashSet::new();
    present.retain(|digest| seen.insert(*digest));
    let artifact_type = manifest.artifact_type;
    Ok(Walked { root: Root { descriptor: root, bytes }, artifact_type, manifests, present })
}

/// All children, those of nested indexes too.
async fn list(
    place: &Look<'_>,
    root: &Descriptor,
    index: &Manifest,
    problems: &mut Vec<String>,
) -> Result<Vec<Listed>> {
    let (mut listed, mut opened) = (Vec::new(), HashSet::from([root.digest]));
    let mut open = vec![(root.digest, index.clone(), 1)];
    while let Some((parent, index, depth)) = open.pop() {
        for child in index.children() {
            listed.push(Listed { descriptor: child.clone(), parent: Some(parent) });
            if listed.len() > MANIFESTS_MAX {
                return Err(Error::verification(format!("the image lists more than {MANIFESTS_MAX} manifests")));
            }
            if !child.media_type.is_index() || !opened.insert(child.digest) {
                continue;
            }
            if depth >= INDEX_DEPTH_MAX {
                problems.push(format!(
                    "indexes are nested more than {INDEX_DEPTH_MAX} deep; {} is not followed",
                    child.digest
                ));
                continue;
            }
            // What is wrong with one is said where it is looked at.
            let bytes = damaged_is_absent(place.manifest(child).await)?;
            if let Some(nested) = bytes.and_then(|bytes| parse(child, &bytes).ok()) {
                open.push((child.digest, nested, depth + 1));
            }
        }
    }
    Ok(listed)
}

fn damaged_is_absent(read: Result<Option<Bytes>>) -> Result<Option<Bytes>> {
    match read {
        Err(error) if error.kind() == Kind::Verification => Ok(None),
        other => other,
    }
}

/// What was decided about foreign layers, by manifest and layer.
fn foreign_decisions(found: &Found) -> HashMap<(Digest, Digest), ForeignDecision> {
    let foreign = found.decided.iter().flat_map(|image| &image.foreign);
    foreign.map(|layer| ((layer.manifest, layer.descriptor.digest), layer.decision)).collect()
}

/// What is here of one manifest, and what is wrong with it.
async fn look_at(
    place: &Look<'_>,
    found: &Found,
    listed: &Listed,
    foreign: &HashMap<(Digest, Digest), ForeignDecision>,
) -> Result<(InspectedManifest, Option<String>)> {
    let Listed { descriptor, parent } = listed;
    let mut looked = InspectedManifest {
        digest: descriptor.digest,
        media_type: descriptor.media_type.to_string(),
        platform: descriptor.platform.as_ref().map(ToString::to_string),
        parent: *parent,
        attests: descriptor.attests(),
        decision: decision(found, descriptor, *parent),
        state: State::Absent,
        blobs: 0,
        bytes: 0,
        missing: 0,
        foreign: Vec::new(),
    };
    let read = match place.manifest(descriptor).await {
        Ok(Some(bytes)) => parse(descriptor, &bytes),
        Ok(None) => return Ok((looked, None)),
        Err(error) => Err(error),
    };
    match read {
        Ok(manifest) => {
            look_at_blobs(place, &manifest, foreign, &mut looked).await?;
            Ok((looked, None))
        }
        Err(error) if error.kind() == Kind::Verification => {
            looked.state = State::Damaged;
            Ok((looked, Some(error.to_string())))
        }
        Err(error) => Err(error),
    }
}

fn decision(found: &Found, descriptor: &Descriptor, parent: Option<Digest>) -> Option<Decision> {
    let image = found.decided.as_ref()?;
    let kept = image.kept.iter().any(|child| Some(child.parent) == parent && child.descriptor == *descriptor);
    let left_out = || image.left_out.iter().any(|child| child.descriptor.digest == descriptor.digest);
    match (parent, kept) {
        (None, _) | (_, true) => Some(Decision::Kept),
        _ => left_out().then_some(Decision::LeftOut),
    }
}

async fn look_at_blobs(
    place: &Look<'_>,
    manifest: &Manifest,
    decisions: &HashMap<(Digest, Digest), ForeignDecision>,
    looked: &mut InspectedManifest,
) -> Result<()> {
    let Content::Image { config, .. } = &manifest.content else {
        looked.state = State::Complete;
        return Ok(());
    };
    let mut config_here = false;
    for blob in manifest.successors() {
        let here = place.has(blob).await?;
        config_here |= here && blob.digest == config.digest;
        if blob.media_type.is_foreign_layer() {
            let hosts = hosts(&blob.urls);
            looked.foreign.push(InspectedForeign { digest: blob.digest, size: blob.size, hosts, here });
            if decisions.get(&(looked.digest, blob.digest)) != Some(&ForeignDecision::Include) {
                continue;
            }
        }
        looked.blobs += 1;
        looked.bytes = looked.bytes.saturating_add(blob.size);
        looked.missing += u64::from(!here);
    }
    looked.state = match (config_here, looked.missing) {
        (true, 0) => State::Complete,
        (true, _) => State::Incomplete,
        (false, _) => State::ManifestOnly,
    };
    // Only the config of an image without an index says what it is for.
    if looked.parent.is_none() && config_here && config.media_type.is_image_config() {
        let bytes = place.blob(config).await?;
        looked.platform = bytes.and_then(|bytes| config_platform(&bytes)).map(|platform| platform.to_string());
    }
    Ok(())
}

/// The hosts of addresses that a manifest may have made up.
fn hosts(urls: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for url in urls.iter().filter_map(|url| url::Url::parse(url).ok()) {
        let host = url.host_str().unwrap_or_default().to_owned();
        if !host.is_empty() && !hosts.contains(&host) && hosts.len() < HOSTS_MAX {
            hosts.push(host);
        }
    }
    hosts
}
