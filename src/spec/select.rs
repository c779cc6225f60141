//! Which of a repository's tags are taken. Pure: a list of tags goes in, a list of tags comes out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use globset::{Glob, GlobMatcher};

use super::TagVersion;
use crate::oci::Tag;

/// The longest pattern; a tag has at most 128 characters.
const GLOB_LENGTH_MAX: usize = 256;

/// Which tags are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TagSelection {
    pub(super) exact: Vec<Tag>,
    pub(super) semver: Option<semver::VersionReq>,
    /// The variants that `semver` takes; the plain one is the empty text.
    pub(super) variants: Vec<String>,
    pub(super) glob: Vec<TagGlob>,
    pub(super) newest: Option<usize>,
    pub(super) exclude: Vec<TagGlob>,
}

impl TagSelection {
    /// The tags that are taken whatever the repository has.
    pub fn exact(&self) -> &[Tag] {
        &self.exact
    }

    /// Whether the list of the repository's tags is needed.
    pub fn needs_list(&self) -> bool {
        self.semver.is_some() || !self.glob.is_empty()
    }

    /// The tags that are taken of a repository that has `all`: sorted, each once, and the exact ones
    /// always (one that is not there is an error of the plan, not silently left out here).
    pub fn select(&self, all: &[Tag]) -> Vec<Tag> {
        let found = all.iter().filter(|tag| self.takes(tag));
        let mut taken: BTreeSet<&Tag> = match self.newest {
            Some(newest) => newest_of(found, newest).collect(),
            None => found.collect(),
        };
        taken.extend(&self.exact);
        taken.into_iter().cloned().collect()
    }

    /// Whether `semver` or `glob` takes the tag, before `newest`.
    fn takes(&self, tag: &Tag) -> bool {
        let text = tag.as_str();
        if is_referrer(text) || tag.is_keeping() || self.exclude.iter().any(|glob| glob.matches(text)) {
            return false;
        }
        let in_range = || {
            let (Some(range), Some(found)) = (&self.semver, TagVersion::of(text)) else { return false };
            range.matches(&found.version) && self.variants.iter().any(|variant| variant == found.variant)
        };
        in_range() || self.glob.iter().any(|glob| glob.matches(text))
    }
}

/// The tags of the `newest` highest versions within each variant. Equal versions (`v1.2` and `1.2.0`)
/// stand or fall together. A tag without a version has nothing to compare and stays.
fn newest_of<'t>(tags: impl Iterator<Item = &'t Tag>, newest: usize) -> impl Iterator<Item = &'t Tag> {
    let mut plain = Vec::new();
    let mut variants: BTreeMap<&str, BTreeMap<Reverse<semver::Version>, Vec<&Tag>>> = BTreeMap::new();
    for tag in tags {
        match TagVersion::of(tag.as_str()) {
            Some(found) => {
                variants.entry(found.variant).or_default().entry(Reverse(found.version)).or_default().push(tag);
            }
            None => plain.push(tag),
        }
    }
    plain
        .into_iter()
        .chain(variants.into_values().flat_map(move |versions| versions.into_values().take(newest)).flatten())
}

/// Whether a tag is one under which signatures and other referrers of a digest are kept. They travel
/// with what they belong to; a pattern like `*` does not mean them as images.
fn is_referrer(tag: &str) -> bool {
    let Some((algorithm @ ("sha256" | "sha512"), rest)) = tag.split_once('-') else { return false };
    let hex = rest.split('.').next().unwrap_or_default();
    // The fallback tag of the distribution specification cuts sha512 to 64 digits.
    let long_enough = hex.len() == 64 || algorithm == "sha512" && hex.len() == 128;
    long_enough && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A pattern for tags: `*`, `?`, `[a-z]` and `{a,b}`.
#[derive(Clone, Debug)]
pub struct TagGlob {
    text: String,
    matcher: GlobMatcher,
}

/// A text that is no pattern for tags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no pattern for tags: {why}")]
pub struct InvalidTagGlob {
    text: String,
    why: String,
}

impl TagGlob {
    /// Whether the whole tag matches.
    pub fn matches(&self, tag: &str) -> bool {
        self.matcher.is_match(tag)
    }
}

impl FromStr for TagGlob {
    type Err = InvalidTagGlob;

    fn from_str(text: &str) -> Result<Self, InvalidTagGlob> {
        let invalid = |why: String| InvalidTagGlob { text: text.chars().take(80).collect(), why };
        if text.is_empty() {
            return Err(invalid("it is empty; * takes every tag".into()));
        }
        if text.len() > GLOB_LENGTH_MAX {
            return Err(invalid(format!("it has more than {GLOB_LENGTH_MAX} characters")));
        }
        if text.contains(['/', ':', '@']) {
            return Err(invalid("tags have no /, : or @".into()));
        }
        let glob = Glob::new(text).map_err(|error| invalid(error.kind().to_string()))?;
        Ok(TagGlob { text: text.to_owned(), matcher: glob.compile_matcher() })
    }
}

impl PartialEq for TagGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TagGlob {}

impl Hash for TagGlob {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for TagGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
