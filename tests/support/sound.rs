//! What must hold of a store at every moment, also right after a SIGKILL; seen without opening it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use sealift::oci::Digest;
use sealift::store::chunk_digests;

/// The check behind the digests of chunks in a row.
const CHECK_SIZE: usize = 8;

/// Every file below `folder` by its path from there; nothing where there is no such folder.
pub fn files_below(folder: &Path) -> Vec<(String, PathBuf)> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), path));
            }
        }
    }
    found.sort();
    found
}

/// Every file below `folder` with its digest.
pub fn snapshot(folder: &Path) -> BTreeMap<String, Digest> {
    files_below(folder).into_iter().map(|(name, path)| (name, Digest::of(&std::fs::read(path).unwrap()))).collect()
}

/// Every file below `blobs/` has the digest that its name says. The chunk tables of all, by digest.
pub fn assert_blobs_are_true(store: &Path) -> BTreeMap<Digest, Vec<u8>> {
    let mut tables = BTreeMap::new();
    for (name, path) in files_below(&store.join("blobs")) {
        let named: Digest = name.replacen('/', ":", 1).parse().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(named.same_algorithm_of(&bytes), named, "{}", path.display());
        tables.insert(named, chunk_digests(&bytes));
    }
    tables
}

/// What the catalog says and must not say wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Catalogued {
    pub runs: BTreeSet<String>,
    pub bundles: BTreeSet<String>,
}

/// Every record has its name whole; one of an image is what its name says.
fn assert_records_are_whole(store: &Path) {
    let index = ("index.json".to_owned(), store.join("index.json"));
    let records = files_below(&store.join("records")).into_iter().chain(index.1.exists().then_some(index));
    for (name, path) in records.filter(|(name, _)| name.ends_with(".json")) {
        let bytes = std::fs::read(&path).unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(), "{name} is not whole");
        if let Some(digest) = name.strip_prefix("images/") {
            assert_eq!(digest, format!("{}.json", Digest::of(&bytes).hex()));
        }
    }
}

/// The store holds no wrong byte; SQLite finds nothing wrong with the catalog; and what that says is what blobs and records
/// say. It may lag behind: a record is written before its row.
pub fn assert_sound(store: &Path) -> Catalogued {
    let tables = assert_blobs_are_true(store);
    assert_records_are_whole(store);
    let Some(rows) = read_catalog(store) else { return Catalogued::default() };
    let Rows { integrity, blobs, runs, bundles } = rows;
    assert_eq!(integrity, "ok");
    for (digest, size, chunks) in blobs {
        let digest = Digest::Sha256(digest[1..].try_into().unwrap());
        let table = tables.get(&digest).unwrap_or_else(|| panic!("the catalog has {digest}, which is not there"));
        assert_eq!(std::fs::metadata(store.join(digest.layout_path())).unwrap().len(), size, "{digest}");
        assert_eq!(&chunks[..chunks.len() - CHECK_SIZE], table, "{digest}");
    }
    let recorded = recorded(store);
    assert!(runs.is_subset(&recorded.runs), "{runs:?}, and there are {:?}", recorded.runs);
    assert!(bundles.is_subset(&recorded.bundles), "{bundles:?}, and there are {:?}", recorded.bundles);
    Catalogued { runs, bundles }
}

/// The runs and bundles of which there are records.
pub fn recorded(store: &Path) -> Catalogued {
    let runs = files_below(&store.join("records/runs")).into_iter();
    let bundles = files_below(&store.join("records/bundles")).into_iter();
    Catalogued {
        runs: runs.filter_map(|(name, _)| name.strip_suffix(".json").map(str::to_owned)).collect(),
        bundles: bundles.filter_map(|(name, _)| name.strip_suffix("/bundle.json").map(str::to_owned)).collect(),
    }
}

struct Rows {
    integrity: String,
    blobs: Vec<(Vec<u8>, u64, Vec<u8>)>,
    runs: BTreeSet<String>,
    bundles: BTreeSet<String>,
}

/// Reads a copy: opening the catalog itself would mend what a kill has left, before the next command sees it. `None` when
/// there is none yet, or none of its tables.
fn read_catalog(store: &Path) -> Option<Rows> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["catalog.sqlite3", "catalog.sqlite3-wal"] {
        let from = store.join(name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let path = copy.path().join("catalog.sqlite3");
    if !path.exists() {
        return None;
    }
    let connection = Connection::open(path).unwrap();
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    if version == 0 {
        return None;
    }
    let texts = |sql: &str| -> BTreeSet<String> {
        let mut query = connection.prepare(sql).unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let mut query = connection.prepare("SELECT digest, size, chunks FROM blobs").unwrap();
    let blobs =
        query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?))).unwrap();
    Some(Rows {
        integrity: texts("PRAGMA integrity_check").into_iter().collect(),
        blobs: blobs.map(Result::unwrap).collect(),
        runs: texts("SELECT stream || '-' || number FROM runs"),
        bundles: texts("SELECT stream || '-' || epoch || '-' || sequence FROM bundles"),
    })
}
