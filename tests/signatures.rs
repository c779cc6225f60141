//! What a replay says of signatures is what the target answers afterwards: "expected n, present n" is read again, in the way in
//! which whoever verifies the image looks for them. Registries here lose, hide and forget what they took.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sealift::oci::{Descriptor, Digest, MediaType, Name, Tag};
use sealift::sample::{ImageBuilder, SampleImage};
use sealift::serve::{MemoryShelf, Shelf, router};
use serde_json::{Value, json};
use support::{Said, World};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Two platforms, of which one comes along; two referrers of the index, one of its child, and a signature of cosign's.
fn signed() -> SampleImage {
    signing().build().unwrap()
}

/// The same image, which somebody has signed once more.
fn signed_again() -> SampleImage {
    signing().cosign_tag("registry.example/other", |payload| payload.to_vec()).build().unwrap()
}

fn signing() -> ImageBuilder {
    ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(100, 1)
        .child_referrer("application/spdx+json", b"{\"of\":\"a child\"}")
        .platform("linux", "arm64", "v8")
        .random_layer(100, 2)
        .referrer("application/spdx+json", b"{\"of\":\"the index\"}")
        .referrer("application/vnd.dev.sigstore.bundle.v0.3+json", b"{\"signs\":\"the index\"}")
        .cosign_tag("registry.example/app", |payload| payload.to_vec())
}

/// How a registry answers in place of the honest one behind it; `None`: it does not.
type Lie = fn(&Request, &SampleImage) -> Option<Response>;

/// A registry that lies, and what it was asked.
struct Lying {
    shelf: MemoryShelf,
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Liar {
    lie: Lie,
    image: Arc<SampleImage>,
    asked: Arc<Mutex<Vec<String>>>,
}

async fn answer(State(liar): State<Liar>, request: Request, next: Next) -> Response {
    liar.asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
    match (liar.lie)(&request, &liar.image) {
        Some(response) => response,
        None => next.run(request).await,
    }
}

impl Lying {
    async fn start(lie: Lie, image: &SampleImage) -> Self {
        let (shelf, asked) = (MemoryShelf::new(), Arc::default());
        let liar = Liar { lie, image: Arc::new(image.clone()), asked: Arc::clone(&asked) };
        let service: Router = router(Arc::new(shelf.clone())).layer(from_fn_with_state(liar, answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async { axum::serve(listener, service).await });
        Lying { shelf, host, asked }
    }

    /// How many requests of this method had this in their path.
    fn asked(&self, method: &str, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|line| line.starts_with(&format!("{method} ")) && line.contains(path)).count()
    }
}

/// A world whose stream `signed` is in the bundle `drive/signed-1-1`.
async fn bundled(image: &SampleImage) -> World {
    let world = World::new(&[("app", image)]).await;
    world.write_spec("signed", &world.source_host(), &["app"]);
    world.run(&["pull", "signed.yaml"]).ok();
    world.run(&["export", "signed", "--to", "drive", "--sign-key", "exporter.key"]).ok();
    world
}

fn replay(world: &World, to: &str, more: &[&str]) -> Said {
    let state = format!("state-{}", to.replace([':', '/'], "-"));
    let arguments = ["replay", "drive/signed-1-1", "--key", "exporter.pub", "--to", to, "--state", &state];
    world.run(&[&arguments[..], more].concat())
}

fn report(said: &Said) -> Value {
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    report["reports"][0].clone()
}

fn is_list(request: &Request, of: &Digest) -> bool {
    request.uri().path().ends_with(&format!("/referrers/{of}"))
}

fn is_manifest(request: &Request, name: impl std::fmt::Display) -> bool {
    request.uri().path().ends_with(&format!("/manifests/{name}"))
}

fn list_of_nothing() -> Response {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    ([(CONTENT_TYPE, INDEX)], index.to_string()).into_response()
}

fn nothing_there() -> Option<Response> {
    Some(StatusCode::NOT_FOUND.into_response())
}

fn first_referrer(image: &SampleImage) -> Descriptor {
    image.referrers(&image.root.digest)[0].clone()
}

fn no_api(request: &Request) -> Option<Response> {
    request.uri().path().contains("/referrers/").then(|| StatusCode::NOT_FOUND.into_response())
}

/// What a registry does, how many of the four signatures are present then, and what is said of the others.
const ROWS: &[(&str, Lie, u64, &str)] = &[
    ("honest", |_, _| None, 4, ""),
    ("honest, without the API", |request, _| no_api(request), 4, ""),
    (
        "takes referrers of the index and does not list them",
        |request, image| is_list(request, &image.root.digest).then(list_of_nothing),
        2,
        "not found: the registry took it, and its referrers API does not list it",
    ),
    (
        "lists a referrer whose manifest it has lost",
        |request, image| match is_manifest(request, first_referrer(image).digest) && request.method() != Method::PUT {
            true => nothing_there(),
            false => None,
        },
        3,
        "not found: it is listed, but its manifest is not there",
    ),
    (
        "answers with something that is no list",
        |request, image| {
            is_list(request, &image.root.digest).then(|| ([(CONTENT_TYPE, INDEX)], "<html>").into_response())
        },
        2,
        "not found: the list could not be had: ",
    ),
    (
        "loses cosign's tag",
        |request, image| match is_manifest(request, Tag::cosign(&image.root.digest, "sig")) {
            true if request.method() != Method::PUT => nothing_there(),
            _ => None,
        },
        3,
        "signature not found: the tag sha256-",
    ),
    (
        "has something else under cosign's tag",
        |request, image| match is_manifest(request, Tag::cosign(&image.root.digest, "sig")) {
            true if request.method() != Method::PUT => {
                let other = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
                let headers = [
                    ("content-type", other.media_type.to_string()),
                    ("docker-content-digest", other.digest.to_string()),
                    ("content-length", other.size.to_string()),
                ];
                Some((headers, "{}").into_response())
            }
            _ => None,
        },
        3,
        " points to sha256:44136fa355b3",
    ),
    (
        "has no API, and forgets the fallback tag of the index",
        |request, image| {
            let fallback = is_manifest(request, Tag::referrers_fallback(&image.root.digest));
            match fallback && request.method() == Method::PUT {
                true => Some(StatusCode::CREATED.into_response()),
                false => no_api(request),
            }
        },
        2,
        "not found: there is no referrers API, and the tag sha256-",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_found_again_is_a_shortfall() {
    let image = signed();
    let world = bundled(&image).await;
    for (name, lie, present, says) in ROWS {
        let lying = Lying::start(*lie, &image).await;
        let said = replay(&world, &format!("{}/m", lying.host), &["--output", "json"]);
        let report = report(&said);
        let found = &report["images"][0];
        assert_eq!(found["signatures"], json!({"expected": 4, "present": present}), "{name}: {report}");
        assert_eq!(found["problem"], Value::Null, "{name}: {report}");
        assert_eq!(found["tags"], json!(["1"]), "{name}: the image itself is published");
        let shortfalls = found["shortfalls"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(shortfalls.len() as u64, 4 - present, "{name}: {report}");
        assert!(shortfalls.iter().all(|text| text.as_str().unwrap().contains(says)), "{name}: {report}");
        let status = if *present == 4 { 0 } else { 3 };
        assert_eq!(said.status, Some(status), "{name}: {}", said.err);
        assert_eq!(report["notes"].to_string().contains("signatures were pushed and are not found"), status == 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_how_many_there_are_and_what_is_missing() {
    let image = signed();
    let world = bundled(&image).await;
    let hides: Lie = |request, image| is_list(request, &image.root.digest).then(list_of_nothing);
    let lying = Lying::start(hides, &image).await;
    let said = replay(&world, &lying.host, &[]);
    assert_eq!(said.status, Some(3), "{said:?}");
    let hidden = first_referrer(&image);
    for expected in ["    signatures: expected 4, present 2\n", "    shortfall: referrer ", &hidden.digest.to_string()]
    {
        assert!(said.out.contains(expected), "{expected:?}: {}", said.out);
    }
    // Nothing of it stays: the same command on a registry that lists them.
    let honest = Lying::start(|_, _| None, &image).await;
    let said = replay(&world, &honest.host, &[]);
    assert_eq!(said.status, Some(0), "{said:?}");
    assert!(said.out.contains("    signatures: expected 4, present 4\n"), "{}", said.out);
}

/// One list for each subject, and one look at each signature, however often a registry is replayed to.
#[tokio::test(flavor = "multi_thread")]
async fn asking_again_is_bounded() {
    let image = signed();
    let world = bundled(&image).await;
    let honest = Lying::start(|_, _| None, &image).await;
    replay(&world, &honest.host, &[]).ok();
    let subjects = [image.root.digest, image.child("linux", "amd64", "").unwrap().digest];
    for subject in subjects {
        assert_eq!(honest.asked("GET", &format!("/referrers/{subject}")), 1);
        for referrer in image.referrers(&subject) {
            assert_eq!(honest.asked("HEAD", &format!("/manifests/{}", referrer.digest)), 1);
        }
    }
    assert_eq!(honest.asked("HEAD", &format!("/manifests/{}", Tag::cosign(&image.root.digest, "sig"))), 1);
}

/// cosign's own copies leave images under the tag that is the fallback tag of referrers.
#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_tag_that_is_no_list_is_left_alone() {
    let image = signed();
    let world = bundled(&image).await;
    let target = Lying::start(|request, _| no_api(request), &image).await;
    let repository = format!("{}/app", world.source_host().replace(':', "_"));
    let tag = Tag::referrers_fallback(&image.root.digest);
    let child = image.child("linux", "arm64", "").unwrap();
    let bytes = image.bytes(&child.digest).unwrap();
    target.shelf.writer().unwrap().put_manifest(&repository, Some(&tag), &child, bytes).unwrap();
    for _ in 0..2 {
        let said = replay(&world, &target.host, &["--output", "json"]);
        assert_eq!(said.status, Some(3), "{said:?}");
        let report = report(&said);
        assert_eq!(report["images"][0]["signatures"], json!({"expected": 4, "present": 2}), "{report}");
        assert!(report["images"][0]["shortfalls"].to_string().contains("holds no list and is left alone"), "{report}");
        let there = target.shelf.resolve(&repository, &Name::from(tag.clone())).unwrap().unwrap();
        assert_eq!(there.digest, child.digest, "what was there stays");
    }
    // The list of another subject is made all the same.
    let other = Tag::referrers_fallback(&image.child("linux", "amd64", "").unwrap().digest);
    assert!(target.shelf.resolve(&repository, &Name::from(other)).unwrap().is_some());
}

/// An older bundle does not take back what a newer one has put under cosign's tag, and is not short of it either.
#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_a_newer_bundle_has_replaced_is_present() {
    let (old, new) = (signed(), signed_again());
    assert_eq!(old.root.digest, new.root.digest, "one image, signed twice");
    let world = bundled(&old).await;
    sealift::sample::seed(world.source.writer().unwrap(), "app", Some(&"1".parse().unwrap()), &new).unwrap();
    let spec = std::fs::read_to_string(world.path("signed.yaml")).unwrap();
    let defaults = "defaults:\n  signatures: {carry: all, recheck: 0s}\n";
    std::fs::write(world.path("signed.yaml"), spec.replace("defaults:\n", defaults)).unwrap();
    world.run(&["pull", "signed.yaml"]).ok();
    world.run(&["export", "signed", "--to", "drive", "--sign-key", "exporter.key"]).ok();
    let honest = Lying::start(|_, _| None, &old).await;
    for bundle in ["drive/signed-1-2", "drive/signed-1-1"] {
        let arguments = ["replay", bundle, "--key", "exporter.pub", "--to", &honest.host, "--output", "json"];
        let report = world.run(&arguments).ok();
        assert_eq!(report["reports"][0]["images"][0]["signatures"], json!({"expected": 4, "present": 4}), "{report}");
    }
}
