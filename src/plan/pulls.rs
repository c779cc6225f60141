//! What a plan costs where registries count pulls.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::PlannedImage;
use crate::registry::Budget;
use crate::store::Store;

/// A registry that counts the manifests that are read from it, as Docker Hub does, and what this plan takes of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountedPulls {
    /// The registry, or the host of a mirror.
    pub registry: String,
    /// How many pulls it allows in a window.
    pub limit: u64,
    /// How many of them were left after the plan.
    pub remaining: u64,
    /// The length of the window in seconds, where the registry says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// How many this plan has made.
    pub made: u64,
    /// How many the pull will make: manifests that are not in the store yet.
    pub to_make: u64,
}

impl CountedPulls {
    /// Where the pull needs more than is left.
    pub(super) fn warning(&self) -> Option<String> {
        (self.to_make > self.remaining).then(|| {
            let CountedPulls { registry, remaining, to_make, .. } = self;
            format!("{registry} allows {remaining} more pulls, and {to_make} are still to be made: the rest fails until it counts anew")
        })
    }
}

/// What the registries said `before` a plan and `after` it.
pub(super) fn count(
    before: &[Budget],
    after: Vec<Budget>,
    images: &[PlannedImage],
    store: &Store,
) -> Vec<CountedPulls> {
    let made_before = |registry: &str| before.iter().find(|one| one.registry == registry).map_or(0, |one| one.made);
    let rows = after.into_iter().map(|budget| CountedPulls {
        made: budget.made.saturating_sub(made_before(&budget.registry)),
        to_make: missing(&budget.registry, images, store),
        registry: budget.registry,
        limit: budget.limit,
        remaining: budget.remaining,
        window: budget.window,
    });
    rows.collect()
}

/// How many manifests of images from `registry` are not in the store.
fn missing(registry: &str, images: &[PlannedImage], store: &Store) -> u64 {
    let mut seen = HashSet::new();
    let of_registry = images
        .iter()
        .map(|planned| &planned.image)
        .filter(|image| image.repository().is_ok_and(|repository| repository.registry().to_string() == registry));
    let manifests = of_registry.flat_map(|image| image.manifests());
    manifests.filter(|(one, _)| !store.has(one) && seen.insert(one.digest)).count() as u64
}
