//! Foreign layers: what is decided about each, and what can be known beforehand of where it will come from.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::image::{ForeignDecision, ForeignLayer, Image};
use crate::oci::elsewhere::{URLS_MAX, hosts_of};
use crate::oci::manifest::Content;
use crate::oci::{Descriptor, Digest, Elsewhere, Manifest};
use crate::spec::{ForeignLayers, ForeignPolicy};

/// How many hosts a note names.
const HOSTS_MAX: usize = 20;

/// Where the layers of an image may be fetched that its registry does not have, and which of them it must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlAccess {
    /// The hosts.
    #[serde(flatten)]
    pub elsewhere: Elsewhere,
    /// Foreign layers without which the image fails.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub required: BTreeSet<Digest>,
}

impl UrlAccess {
    /// What the spec says for `image`.
    pub(super) fn of(layers: &ForeignLayers, image: &Image) -> Self {
        let required = match layers.policy {
            ForeignPolicy::Require => image.foreign.iter().map(|layer| layer.descriptor.digest).collect(),
            ForeignPolicy::Skip | ForeignPolicy::Include => BTreeSet::new(),
        };
        UrlAccess { elsewhere: layers.elsewhere.clone(), required }
    }

    /// Takes in what another entry of the spec says for the same image.
    pub(super) fn merge(&mut self, other: UrlAccess) {
        self.elsewhere.merge(other.elsewhere);
        self.required.extend(other.required);
    }

    /// Whether nothing is said: what most images have.
    pub fn is_empty(&self) -> bool {
        *self == UrlAccess::default()
    }
}

/// What becomes of each foreign layer of a manifest. Foreign by media type alone: an ordinary layer with `urls` comes
/// along as any other.
pub(super) fn decide(layers: &ForeignLayers, descriptor: &Descriptor, manifest: &Manifest) -> Vec<ForeignLayer> {
    let Content::Image { layers: listed, .. } = &manifest.content else { return Vec::new() };
    let decision = match layers.policy {
        ForeignPolicy::Skip => ForeignDecision::Skip,
        ForeignPolicy::Include | ForeignPolicy::Require => ForeignDecision::Include,
    };
    let acknowledge = layers.acknowledge.clone().filter(|_| decision == ForeignDecision::Include);
    let foreign = listed.iter().filter(|layer| layer.media_type.is_foreign_layer());
    foreign
        .map(|layer| ForeignLayer {
            descriptor: layer.clone(),
            manifest: descriptor.digest,
            decision,
            acknowledge: acknowledge.clone(),
            unavailable: false,
        })
        .collect()
}

/// What the operator should know of foreign layers that are to come along: those which only the registry can give.
pub(super) fn notes(image: &Image, access: &UrlAccess, has: impl Fn(&Descriptor) -> bool) -> Vec<String> {
    let rules = Arc::new(access.elsewhere.clone());
    let unreachable = image.foreign.iter().filter(|layer| {
        let urls = layer.descriptor.urls.iter().take(URLS_MAX);
        layer.comes_along() && !has(&layer.descriptor) && urls.map(|url| rules.address(url)).all(|one| one.is_err())
    });
    let (mut count, mut hosts) = (0, BTreeSet::new());
    for layer in unreachable {
        count += 1;
        hosts.extend(hosts_of(&layer.descriptor.urls));
    }
    if count == 0 {
        return Vec::new();
    }
    let named = match hosts.is_empty() {
        true => "they have no urls".to_owned(),
        false => {
            let hosts: Vec<String> = hosts.into_iter().take(HOSTS_MAX).collect();
            format!(
                "their urls are at {}; add that to `hosts` of foreignLayers if the registry does not have them",
                hosts.join(", ")
            )
        }
    };
    vec![format!(
        "{}: foreign layers that are to come along, and of which no url may be asked: {count}; {named}",
        image.repository
    )]
}
