//! A rule for names: `docker.io/library/*` becomes `hub/*`.

use crate::oci::reference::InvalidName;
use crate::oci::{Registry, Repository};

/// A rule for names, on whole path parts. A `*` at the end takes one or more parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What it matches: a source repository, or what lies below one.
    pub from: String,
    /// The name below the prefix.
    pub to: String,
    registry: Registry,
    /// The path of `from` without the star; empty where the star follows the host.
    path: String,
    /// `to` without the star, and without the slash before it.
    base: String,
    below: bool,
}

/// Why two texts are no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// About `from`.
    From(String),
    /// About `to`.
    To(String),
}

impl Rewrite {
    /// The rule of two texts.
    pub(super) fn new(from: &str, to: &str) -> Result<Self, Wrong> {
        let (source, below) = without_star(from).ok_or_else(|| Wrong::From(star_elsewhere(from)))?;
        let (base, to_below) = without_star(to).ok_or_else(|| Wrong::To(star_elsewhere(to)))?;
        if below != to_below {
            return Err(Wrong::To(format!("{to:?}: `from` and `to` must both end with /* or neither")));
        }
        let (registry, path) = parse_from(source, below).map_err(|error| Wrong::From(error.to_string()))?;
        // Only the form counts here; the registry stands in for the site's.
        let probe = if base.is_empty() { "x" } else { base };
        if let Err(error) = Repository::new(registry.clone(), probe) {
            return Err(Wrong::To(error.to_string()));
        }
        if base.is_empty() && !below {
            return Err(Wrong::To("the name is empty".into()));
        }
        Ok(Rewrite { from: from.to_owned(), to: to.to_owned(), registry, path, base: base.to_owned(), below })
    }

    /// The name that `source` gets by this rule; `None` when it does not match.
    pub fn apply(&self, source: &Repository) -> Option<String> {
        if *source.registry() != self.registry {
            return None;
        }
        if !self.below {
            return (source.path() == self.path).then(|| self.base.clone());
        }
        let rest = match self.path.as_str() {
            "" => source.path(),
            path => source.path().strip_prefix(path)?.strip_prefix('/')?,
        };
        Some(if self.base.is_empty() { rest.to_owned() } else { format!("{}/{rest}", self.base) })
    }
}

/// The text before a `/*` at its end, and whether it has one. `None`: a star elsewhere.
fn without_star(text: &str) -> Option<(&str, bool)> {
    let (rest, below) = match text.strip_suffix("/*") {
        Some(rest) => (rest, true),
        None if text == "*" => ("", true),
        None => (text, false),
    };
    (!rest.contains('*')).then_some((rest, below))
}

fn star_elsewhere(text: &str) -> String {
    format!("{text:?}: a * stands only as the last part, after a slash")
}

fn parse_from(source: &str, below: bool) -> Result<(Registry, String), InvalidName> {
    if below && !source.contains('/') {
        return Ok((source.parse()?, String::new()));
    }
    let repository: Repository = source.parse()?;
    let written = source.split_once('/').map_or("", |(_, path)| path);
    // docker.io/library/* must not become docker.io/library/library/*.
    let path = if below { written } else { repository.path() };
    Ok((repository.registry().clone(), path.to_owned()))
}
