//! What is left in the end, in a form that can be compared; and what must hold at every moment before.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use serde_json::Value;

use super::fixture::{Fixture, files, named};
use crate::bundle::Contents;
use crate::image::Image;
use crate::oci::{Digest, json};
use crate::store::records::Run;
use crate::store::{Access, Store};

/// Path to digest, for everything that a stage leaves behind.
pub type EndState = BTreeMap<String, String>;

/// Members that say when something was done, or how often.
const TIMES: [&str; 4] = ["started", "number", "signaturesChecked", "created"];

/// Files that hold nothing, or what follows from the others.
fn is_passing(path: &str) -> bool {
    path.ends_with("lock") || path.contains("catalog.sqlite3")
}

/// The state below `root`, without times. Of the runs only the latest: one that was stopped behind its record has a number
/// of its own.
pub fn end_state(root: &Path) -> EndState {
    let mut state = EndState::new();
    let mut latest = None;
    for (path, bytes) in files(root) {
        if path.starts_with("store/records/runs/") {
            let run: Value = serde_json::from_slice(&bytes).unwrap();
            latest = latest.max(Some((run["number"].as_u64(), bare(&bytes))));
        } else if path.ends_with("/bundle.json") {
            state.insert(path, bare_contents(&bytes));
        } else if !is_passing(&path) && !follows_from_time(&path) {
            state.insert(path, Digest::of(&bytes).to_string());
        }
    }
    state.extend(latest.map(|(_, run)| ("the latest run".to_owned(), run)));
    state
}

/// Signatures are random, and the text for people says when the bundle was made.
fn follows_from_time(path: &str) -> bool {
    path.ends_with("/bundle.json.sig") || path.ends_with("/README.txt")
}

fn bare(bytes: &[u8]) -> String {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    strip(&mut value);
    value.to_string()
}

fn bare_contents(bytes: &[u8]) -> String {
    let mut contents = Contents::parse(bytes).unwrap();
    contents.created.clear();
    contents.files.retain(|file| file.path != crate::bundle::README);
    Digest::of(&json::canonical(&contents).unwrap()).to_string()
}

/// What a stage that begins at `root` can see, without times and random names: two folders that are alike here go on alike.
pub fn likeness(root: &Path) -> BTreeSet<(String, String)> {
    let mut seen: BTreeSet<(String, String)> = rows(&root.join("store")).into_iter().collect();
    for (path, bytes) in files(root).into_iter().filter(|(path, _)| !is_passing(path)) {
        let what = if path.starts_with("store/records/runs/") {
            bare(&bytes)
        } else if follows_from_time(&path) || path.ends_with(".whole") || path.ends_with(".partial") {
            format!("{} bytes", bytes.len())
        } else if path.ends_with("/bundle.json") {
            bare_contents(&bytes)
        } else {
            Digest::of(&bytes).to_string()
        };
        let random = path.ends_with(".whole");
        seen.insert((if random { "a temporary file".to_owned() } else { path }, what));
    }
    seen
}

/// What the catalog says.
fn rows(store: &Path) -> Vec<(String, String)> {
    let path = store.join("catalog.sqlite3");
    if !path.exists() {
        return Vec::new();
    }
    let catalog = rusqlite::Connection::open(path).unwrap();
    let mut rows = Vec::new();
    for (table, columns) in [("blobs", "hex(digest)"), ("runs", "stream || number"), ("bundles", "stream || sequence")]
    {
        let Ok(mut query) = catalog.prepare(&format!("SELECT {columns} FROM {table}")) else { continue };
        let found = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.extend(found.map(|row| (table.to_owned(), row.unwrap())));
    }
    rows
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !TIMES.contains(&name.as_str()));
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Where two states are not the same, in lines that can be read; empty for nowhere.
pub fn differences(found: &EndState, expected: &EndState) -> Vec<String> {
    let mut lines = Vec::new();
    for path in found.keys().chain(expected.keys().filter(|path| !found.contains_key(*path))) {
        let (found, expected) = (found.get(path), expected.get(path));
        if found != expected {
            lines.push(format!("{path}: {found:?} instead of {expected:?}"));
        }
    }
    lines
}

/// What must hold whatever happened: no wrong byte under a digest; records are whole; what a run calls whole is there with
/// all that it needs; a bundle that has its `bundle.json` is all there.
pub fn check_between(root: &Path, fixture: &Fixture) {
    for (path, bytes) in files(root) {
        if let Some(digest) = named(&path) {
            assert_eq!(digest.same_algorithm_of(&bytes), digest, "{path}");
        }
        if path.starts_with("store/records/images/") && path.ends_with(".json") {
            serde_json::from_slice::<Image>(&bytes).unwrap();
        }
    }
    let store = root.join("store");
    if store.join("oci-layout").exists() {
        let store = Store::open(&store, Access::Shared).unwrap();
        for (path, bytes) in files(&store.root().join("records/runs")) {
            if path.ends_with(".json") {
                check_run(&serde_json::from_slice(&bytes).unwrap(), &store);
            }
        }
    }
    if root.join("drive").join("test-1-1").join("bundle.json").exists() {
        let reader = fixture.reader(root).unwrap();
        assert_eq!(reader.check_volumes(&HashSet::new(), &|_| ()), []);
        assert_eq!(reader.changed_files(), Vec::<String>::new());
    }
}

fn check_run(run: &Run, store: &Store) {
    for entry in run.images.iter().filter(|entry| entry.problem.is_none()) {
        let image = store.image(&entry.image).unwrap();
        assert_eq!(store.first_missing(&image).unwrap(), None, "{}", image.repository);
    }
}
