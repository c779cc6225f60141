//! What a registry that counts, a bad line and a very long list of tags cost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use bytes::Bytes;
use sealift::oci::{Digest, Tag};
use sealift::sample::{ImageBuilder, seed};
use sealift::serve::{MemoryShelf, Running, Shelf, ShelfWriter, router};
use support::{BadLine, DockerRegistry, Machine, have, patterned};
use tokio::net::TcpListener;

/// Serves `service` on a free port; its address.
async fn serve(service: Router) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

/// A registry that counts pulls as Docker Hub does: the GET of a manifest. How many are left.
async fn counting(shelf: MemoryShelf, limit: u64) -> (String, Arc<AtomicU64>) {
    let left = Arc::new(AtomicU64::new(limit));
    let counter = Arc::clone(&left);
    let count = move |request: Request, next: Next| {
        let (manifest, counted) = (request.uri().path().contains("/manifests/"), request.method() == Method::GET);
        let counter = Arc::clone(&counter);
        async move {
            let mut response = next.run(request).await;
            if manifest {
                let spent = u64::from(counted && response.status().is_success());
                let left = counter.fetch_sub(spent, Ordering::SeqCst) - spent;
                response.headers_mut().insert("ratelimit-limit", format!("{limit};w=21600").parse().unwrap());
                response.headers_mut().insert("ratelimit-remaining", format!("{left};w=21600").parse().unwrap());
            }
            response
        }
    };
    (serve(router(Arc::new(shelf)).layer(from_fn(count))).await, left)
}

/// An index with two platforms: three manifests, of which one is a stub when the other is left out.
fn one_image() -> MemoryShelf {
    let image = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(3000, 1)
        .platform("linux", "arm64", "v8")
        .random_layer(3000, 2)
        .build()
        .unwrap();
    let shelf = MemoryShelf::new();
    seed(&shelf as &dyn ShelfWriter, "app", Some(&"1".parse::<Tag>().unwrap()), &image).unwrap();
    shelf
}

fn spec(host: &str) -> String {
    format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: counted\ndefaults:\n  platforms: [linux/amd64]\n\
         images:\n  - {{source: {host}/app, tags: {{exact: ['1']}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_what_it_costs_where_pulls_are_counted() {
    let machine = Machine::new();
    let (host, left) = counting(one_image(), 100).await;
    machine.write("spec.yaml", &spec(&host));
    let plan = ["plan", "spec.yaml", "--store", "store", "--out", "tonight.json"];
    let shown = machine.json(&plan).await;
    let pulls = &shown["plans"][0]["pulls"];
    let expected = serde_json::json!([{
        "registry": host, "limit": 100, "remaining": 97, "window": 21600, "made": 3, "toMake": 0,
    }]);
    assert_eq!(pulls, &expected);
    assert_eq!(left.load(Ordering::SeqCst), 97, "what is shown is what was counted");
    // Planned again, nothing is new. With another store the pull has to read them all.
    let told = machine.ok(&plan).await;
    let row = format!("0  made for this plan, 0 for the pull; {host} allows 97 more of 100 in 6 h");
    assert!(told.out.contains(&row), "{}", told.out);
    machine.ok(&["pull", "--plan", "tonight.json", "--store", "other"]).await;
    assert_eq!(left.load(Ordering::SeqCst), 94);
    let nothing_counted = Running::start(Arc::new(one_image())).await.unwrap();
    machine.write("spec.yaml", &spec(&nothing_counted.address().to_string()));
    let shown = machine.json(&["plan", "spec.yaml", "--store", "third"]).await;
    assert_eq!(shown["plans"][0]["pulls"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_of_the_configuration_is_kept() {
    let machine = Machine::new();
    let (host, left) = counting(one_image(), 21).await;
    machine.write("spec.yaml", &spec(&host));
    let config = format!(
        "apiVersion: sealift/v1\nkind: Config\nregistries:\n  {host:?}:\n    limits: {{reserve: 20, requests: 1, requestsPerSecond: 500}}\n"
    );
    machine.write("config.yaml", &config);
    let ran = machine.run_to(4, &["pull", "spec.yaml", "--store", "store", "--config", "config.yaml"]).await;
    assert_eq!(left.load(Ordering::SeqCst), 20);
    assert!(ran.out.contains("allows 20 more of 21 pulls in 6 h, and 20 are kept"), "{}{}", ran.out, ran.err);
}

/// A hundred thousand tags in no order, at once whatever `n` says, and with one tag that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_tags_take_little_memory() {
    if !have(&["time"]) {
        return;
    }
    const TAGS: u64 = 100_000;
    let machine = Machine::new();
    let shelf = one_image();
    let mut list = String::from(r#"{"name":"app","tags":["#);
    for n in 0..TAGS {
        // A step that shares no factor with the number of tags meets each of them once.
        let tag = format!("build-{:012}-of-the-main-branch", n * 7919 % TAGS);
        list.extend(["\"", &tag, "\","]);
    }
    list.push_str(r#""1"]}"#);
    let list = Bytes::from(list);
    let answer = move |request: Request, next: Next| {
        let list = list.clone();
        async move {
            match request.uri().path().ends_with("/tags/list") {
                true => list.into_response(),
                false => next.run(request).await,
            }
        }
    };
    let host = serve(router(Arc::new(shelf)).layer(from_fn(answer))).await;
    machine.write("spec.yaml", &spec(&host).replace("exact: ['1']", "glob: ['?']"));
    let peak = machine.path("peak");
    let mut command = machine.command("time");
    command.args(["-f", "%M", "-o"]).arg(&peak).arg(env!("CARGO_BIN_EXE_sealift"));
    let output = command.args(["plan", "spec.yaml", "--store", "store"]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kib: u64 = std::fs::read_to_string(peak).unwrap().trim().parse().unwrap();
    assert!(kib < 64 * 1024, "{kib} KiB");
}

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_line_that_is_cut_every_mebibyte_sends_each_byte_about_once() {
    let shelf = MemoryShelf::new();
    let target = Running::start(Arc::new(shelf.clone())).await.unwrap();
    let line = BadLine::before(&target.address().to_string(), MIB).await;
    let content = patterned(9 * MIB as u32 + 5);
    line.push(&content).await.unwrap();
    assert!(
        shelf.blob(BadLine::REPOSITORY, &Digest::of(&content)).unwrap().is_some(),
        "the registry compared the digest"
    );
    // Heads of requests, and what was on its way in the moment of each cut.
    let carried = line.carried();
    assert!(carried < content.len() as u64 + MIB, "{carried} bytes for {}", content.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_registry_forgets_a_cut_upload_the_blob_begins_anew() {
    let Some(registry) = DockerRegistry::start().await else { return };
    // Wide enough for the blob, and too narrow for a second one: the first connection also carried the question before it.
    let content = patterned(2 * MIB as u32);
    let line = BadLine::before(registry.host(), 3 * MIB).await;
    for _ in 0..3 {
        line.push(&content).await.unwrap();
    }
    let narrow = BadLine::before(registry.host(), MIB).await;
    let other = patterned(2 * MIB as u32 + 1);
    let error = narrow.push(&other).await.unwrap_err();
    assert!(error.to_string().contains("attempts, the last"), "{error}");
    assert!(narrow.carried() <= 7 * MIB, "one blob for each attempt at the most: {}", narrow.carried());
}
