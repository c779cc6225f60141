//! What a site remembers: which bundles it accepted, and which bundle each tag was set by.
//!
//! ```text
//! state/<stream>-<key>/bundles.json          numbers that were accepted, with the digests of their bundle.json
//! state/<stream>-<key>/tags/<hash>.json      one repository of the target: its tags, by whom they were set
//! ```
//!
//! Kept for each signing key, so that a lost key that signed the number 2^53 does not lock out its successor.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durable::{self, lock};
use crate::error::{Context, Error, Result};
use crate::image::BundleName;
use crate::oci::{Digest, Repository, Tag, json};

/// The largest state file that is read.
const STATE_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// The state of one stream, signed by one key.
pub struct State {
    folder: PathBuf,
    bundles: Bundles,
    /// Held while a replay changes the state; ends with the file.
    lock: Option<File>,
}

#[derive(Default, Serialize, Deserialize)]
struct Bundles {
    /// `epoch-sequence` to the digest of `bundle.json`.
    accepted: BTreeMap<String, Digest>,
}

/// The tags of one repository of a target.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tags {
    /// The repository, for people.
    #[serde(default)]
    repository: String,
    /// By tag: who set it last.
    #[serde(default)]
    tags: BTreeMap<String, SetBy>,
}

/// The bundle that set a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBy {
    /// Its epoch.
    pub epoch: u64,
    /// Its sequence.
    pub sequence: u64,
    /// What it set the tag to.
    pub digest: Digest,
    /// Why the tag was moved back to it, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<String>,
}

/// Whether a bundle may set a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the newest that spoke about it.
    Set,
    /// A newer bundle has set it to this: it is not moved back.
    Newer(SetBy),
}

impl State {
    /// Opens the state of `stream` below `root`, for bundles signed by `key`.
    pub fn open(root: &Path, stream: &str, key: &Digest) -> Result<Self> {
        let folder = root.join(format!("{stream}-{}", key.short()));
        let bundles = read(&folder.join("bundles.json"))?;
        Ok(State { folder, bundles, lock: None })
    }

    /// Opens the state for a replay: no other process replays the stream until it is dropped.
    pub fn lock(root: &Path, stream: &str, key: &Digest) -> Result<Self> {
        let folder = root.join(format!("{stream}-{}", key.short()));
        durable::create_folder(&folder.join("tags"))?;
        let lock = lock::take(&folder.join("lock"), true, "another replay of this stream")?;
        // What an earlier process renamed and had no time to sync counts from now on.
        durable::sync_folder(&folder)?;
        durable::sync_folder(&folder.join("tags"))?;
        Ok(State { lock: Some(lock), ..Self::open(root, stream, key)? })
    }

    /// Refuses a bundle whose number was used before for other bytes.
    pub fn check(&self, name: &BundleName, digest: &Digest) -> Result<()> {
        match self.bundles.accepted.get(&number(name)) {
            Some(known) if known != digest => Err(Error::verification(format!(
                "two different bundles are called {name}: this one is {digest}, and {known} was accepted before"
            ))
            .help("one of them was made by a store that lost its records, or by somebody else with the same key. Stop, and ask the exporter; a new beginning there needs `sealift export --epoch`")),
            _ => Ok(()),
        }
    }

    /// Notes that a bundle was accepted, durably.
    pub fn accept(&mut self, name: &BundleName, digest: &Digest) -> Result<()> {
        if self.bundles.accepted.insert(number(name), *digest).is_some() {
            return Ok(());
        }
        debug_assert!(self.lock.is_some(), "the state is changed under its lock");
        write(&self.folder.join("bundles.json"), &self.bundles)
    }

    fn tags_path(&self, repository: &Repository) -> PathBuf {
        let hash = Digest::of(repository.to_string().as_bytes()).hex();
        self.folder.join("tags").join(format!("{hash}.json"))
    }

    /// What is remembered about the tags of `repository` on the target.
    pub fn tags(&self, repository: &Repository) -> Result<Tags> {
        let mut tags: Tags = read(&self.tags_path(repository))?;
        tags.repository = repository.to_string();
        Ok(tags)
    }

    /// Keeps what is remembered about the tags of `repository`, durably.
    pub fn put_tags(&self, repository: &Repository, tags: &Tags) -> Result<()> {
        write(&self.tags_path(repository), tags)
    }
}

impl Tags {
    /// Whether the bundle of this number may set `tag` to `digest`.
    pub fn verdict(&self, tag: &Tag, name: &BundleName, digest: &Digest) -> Verdict {
        match self.tags.get(tag.as_str()) {
            Some(set) if (set.epoch, set.sequence) > (name.epoch, name.sequence) && set.digest != *digest => {
                Verdict::Newer(set.clone())
            }
            _ => Verdict::Set,
        }
    }

    /// What `tag` was last set to.
    pub fn set_to(&self, tag: &Tag) -> Option<&Digest> {
        self.tags.get(tag.as_str()).map(|set| &set.digest)
    }

    /// Remembers that the bundle of this number set `tag`: where a newer one had, only with the reason for a rollback, which
    /// is remembered too.
    pub fn set(&mut self, tag: &Tag, name: &BundleName, digest: &Digest, rollback: Option<&str>) {
        let mut by = SetBy { epoch: name.epoch, sequence: name.sequence, digest: *digest, rollback: None };
        let newer = self.tags.get(tag.as_str()).is_some_and(|set| (set.epoch, set.sequence) > (by.epoch, by.sequence));
        if newer {
            by.rollback = rollback.map(str::to_owned);
        }
        if !newer || rollback.is_some() {
            self.tags.insert(tag.as_str().to_owned(), by);
        }
    }
}

fn number(name: &BundleName) -> String {
    format!("{}-{}", name.epoch, name.sequence)
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    let attempt = || format!("read state {}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(Error::from(error).while_(attempt())),
        Ok(found) if found.len() > STATE_SIZE_MAX => return Err(Error::failed("it is too large").while_(attempt())),
        Ok(_) => {}
    }
    let bytes = std::fs::read(path).while_(attempt)?;
    json::parse(&bytes).map_err(|error| Error::failed(format!("it is damaged: {error}")).while_(attempt()).help(
        "restore the state folder from a backup; without it, rollbacks are not noticed: remove the file only if you know which bundle came last",
    ))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = json::canonical(value).map_err(|error| Error::failed(error.to_string()))?;
    durable::write_file(path, &bytes, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(sequence: u64) -> BundleName {
        BundleName { stream: "s".into(), epoch: 1, sequence }
    }

    #[test]
    fn one_number_is_one_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let key = Digest::of(b"key");
        let mut state = State::lock(folder.path(), "s", &key).unwrap();
        assert!(State::lock(folder.path(), "s", &key).is_err(), "one replay at a time");
        state.accept(&name(1), &Digest::of(b"a")).unwrap();
        let state = State::open(folder.path(), "s", &key).unwrap();
        assert!(state.check(&name(1), &Digest::of(b"a")).is_ok());
        let error = state.check(&name(1), &Digest::of(b"b")).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Verification);
        assert!(state.check(&name(2), &Digest::of(b"b")).is_ok());
        let other_key = State::open(folder.path(), "s", &Digest::of(b"other")).unwrap();
        assert!(other_key.check(&name(1), &Digest::of(b"b")).is_ok());
    }

    #[test]
    fn a_tag_ends_the_same_whatever_the_order() {
        let tag: Tag = "1".parse().unwrap();
        let digest = |n: u64| Digest::of(&n.to_le_bytes());
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [3, 1, 2], [1, 3, 2], [2, 1, 3]] {
            let mut tags = Tags::default();
            for number in order.into_iter().chain(order) {
                if tags.verdict(&tag, &name(number), &digest(number)) == Verdict::Set {
                    tags.set(&tag, &name(number), &digest(number), None);
                }
            }
            assert_eq!(tags.tags["1"].digest, digest(3), "{order:?}");
        }
    }
}
