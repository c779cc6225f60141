//! [`Scope`]: what a token is asked for.

use std::collections::{BTreeMap, BTreeSet};

/// A set of actions for each resource, as token servers know them (distribution, "Token Scope Documentation"):
/// `repository:team/app:pull,push`. Equal sets are equal, whichever way they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    /// Reading from the repository at `path`.
    pub fn pull(path: &str) -> Self {
        Scope::default().with(path, &["pull"])
    }

    /// Writing to the repository at `path`, which always needs reading as well.
    pub fn push(path: &str) -> Self {
        Scope::default().with(path, &["pull", "push"])
    }

    /// Deleting in the repository at `path`.
    pub fn delete(path: &str) -> Self {
        Scope::default().with(path, &["delete", "pull"])
    }

    /// The same, and `actions` in the repository at `path`.
    pub fn with(mut self, path: &str, actions: &[&str]) -> Self {
        let entry = self.0.entry(format!("repository:{path}")).or_default();
        entry.extend(actions.iter().map(|&action| action.to_owned()));
        self
    }

    /// The same, and what a challenge asks for. What is no scope is passed over.
    pub fn and(mut self, challenge: &str) -> Self {
        for one in challenge.split_ascii_whitespace() {
            // The name may hold the colon of a port: the last colon begins the actions.
            if let Some((resource, actions)) = one.rsplit_once(':') {
                let entry = self.0.entry(resource.to_owned()).or_default();
                entry.extend(actions.split(',').filter(|a| !a.is_empty()).map(str::to_owned));
            }
        }
        self
    }

    /// Nothing in particular: who one is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each resource with its actions, as one text.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_sets() {
        let scope = Scope::push("a/b").and("repository:a/b:push repository:h:5000/c:pull nonsense");
        let texts: Vec<String> = scope.texts().collect();
        assert_eq!(texts, ["repository:a/b:pull,push", "repository:h:5000/c:pull"]);
        assert_eq!(Scope::push("a"), Scope::pull("a").and("repository:a:push,pull"));
    }
}
