//! A pull with nothing new costs one HEAD for each tag, and writes one record.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use sealift::oci::{Name, Tag};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, ShelfWriter, router};
use support::Machine;

/// Requests as `METHOD path`.
type Asked = Arc<Mutex<Vec<String>>>;

/// Serves `shelf`, and writes down what it is asked. Its address.
async fn serve_logged(shelf: MemoryShelf, asked: Asked) -> String {
    let log = move |request: Request, next: Next| {
        asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        next.run(request)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = router(Arc::new(shelf)).layer(from_fn(log));
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

fn image(seed: u64) -> SampleImage {
    ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(3000, seed)
        .attestation()
        .platform("linux", "arm64", "v8")
        .random_layer(3000, seed + 100)
        .referrer("application/spdx+json", b"{}")
        .cosign_tag("registry.example/app", |payload| payload.to_vec())
        .build()
        .unwrap()
}

/// Two repositories with two tags each; one is selected by a list of its tags.
fn shelf() -> MemoryShelf {
    let shelf = MemoryShelf::new();
    for (at, (repository, tag)) in [("one", "1"), ("one", "2"), ("two", "1"), ("two", "2")].into_iter().enumerate() {
        let tag: Tag = tag.parse().unwrap();
        seed(&shelf as &dyn ShelfWriter, repository, Some(&tag), &image(at as u64)).unwrap();
    }
    shelf
}

fn spec(host: &str, recheck: &str) -> String {
    format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: same\ndefaults:\n  platforms: [linux/amd64]\n  signatures: {{recheck: {recheck}}}\n\
         images:\n  - {{source: {host}/one, tags: {{exact: ['1', '2']}}}}\n  - {{source: {host}/two, tags: {{glob: ['?']}}}}\n"
    )
}

/// Every file of the store but for the catalog's, with the time of its last change and its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.file_name().unwrap().to_string_lossy().starts_with("catalog.sqlite3") {
            found.insert(path.clone(), (path.metadata().unwrap().modified().unwrap(), std::fs::read(path).unwrap()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_with_nothing_new_asks_once_for_each_tag_and_writes_one_record() {
    let (machine, asked) = (Machine::new(), Asked::default());
    let host = serve_logged(shelf(), Arc::clone(&asked)).await;
    machine.write("spec.yaml", &spec(&host, "24h"));
    let pull = ["pull", "spec.yaml", "--store", "store"];
    machine.ok(&pull).await;
    assert!(asked.lock().unwrap().iter().any(|line| line.contains("/blobs/")), "{asked:?}");
    let before = files(&machine.path("store"));
    asked.lock().unwrap().clear();

    machine.ok(&pull).await;
    let mut found = asked.lock().unwrap().clone();
    found.sort();
    let expected = ["GET /v2/two/tags/list?n=1000", "HEAD /v2/one/manifests/1", "HEAD /v2/one/manifests/2"];
    let expected = [expected.as_slice(), &["HEAD /v2/two/manifests/1", "HEAD /v2/two/manifests/2"]].concat();
    assert_eq!(found, expected);
    let after = files(&machine.path("store"));
    let changed: Vec<_> = after.iter().filter(|(path, file)| before.get(*path) != Some(file)).map(|(p, _)| p).collect();
    assert_eq!(changed, [&machine.path("store/records/runs/same-2.json")]);
    assert!(before.keys().all(|path| after.contains_key(path)), "nothing went");
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_are_due_are_looked_up_and_not_fetched_again() {
    let (machine, asked) = (Machine::new(), Asked::default());
    let host = serve_logged(shelf(), Arc::clone(&asked)).await;
    machine.write("spec.yaml", &spec(&host, "0s"));
    let pull = ["pull", "spec.yaml", "--store", "store"];
    machine.ok(&pull).await;
    asked.lock().unwrap().clear();
    machine.ok(&pull).await;
    let found = asked.lock().unwrap().clone();
    let fetched: Vec<_> = found
        .iter()
        .filter(|line| line.starts_with("GET"))
        .filter(|line| !line.contains("/tags/list") && !line.contains("/referrers/"))
        .collect();
    assert!(fetched.is_empty(), "{fetched:?}");
    assert!(found.iter().any(|line| line.starts_with("HEAD") && line.ends_with(".sig")), "{found:?}");
    assert!(found.iter().any(|line| line.contains("/referrers/")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_finds_nothing_changes_nothing_and_what_there_was_can_be_exported() {
    let (machine, shelf) = (Machine::new(), shelf());
    let host = serve_logged(shelf.clone(), Asked::default()).await;
    machine.write("spec.yaml", &spec(&host, "24h").replace("{glob: ['?']}", "{exact: ['1']}"));
    let pull = ["pull", "spec.yaml", "--store", "store"];
    machine.ok(&pull).await;
    let before = files(&machine.path("store"));
    for (repository, tag) in [("one", "1"), ("one", "2"), ("two", "1")] {
        assert!(shelf.delete_manifest(repository, &Name::Tag(tag.parse().unwrap())).unwrap());
    }
    machine.run_to(1, &pull).await;
    assert_eq!(files(&machine.path("store")), before);
    machine.ok(&["key", "generate", "--out", "exporter"]).await;
    machine.ok(&["export", "same", "--store", "store", "--to", "drive", "--sign-key", "exporter.key"]).await;
}
