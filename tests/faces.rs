//! How registries refuse an index whose children were left out: whatever the status and the code, it is recognised, stubs are
//! tried where they came along, and the help is for that very registry.
//!
//! The answers were recorded: distribution 2.8 and 3, and olareg here; the others from their sources and from reports of
//! their users. A registry in memory gives them to every index that is put, until the manifests of its children lie there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

#[path = "support/mod.rs"]
mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sealift::content::{Body, Source, Work};
use sealift::error::{Error, Kind, Result, Side};
use sealift::monitor::Silent;
use sealift::oci::{Descriptor, Digest, MediaType, Repository};
use sealift::sample::{ImageBuilder, SampleImage};
use sealift::serve::{MemoryShelf, Shelf, router};
use sealift::target::{Known, RegistryTarget, Rung, TakesSparse, probe, put_index, scratch};
use support::journey::quick_client;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const REPOSITORY: &str = "team/app";

/// Stands for the digest of the child that is missing.
const CHILD: &str = "CHILD";

/// A registry's face.
struct Face {
    name: &'static str,
    /// The answer to the index.
    status: u16,
    body: &'static str,
    /// The answer of `GET /v2/` to anybody.
    root: (u16, &'static [(&'static str, &'static str)]),
    /// Words that the help has, and words that it has not.
    says: &'static [&'static str],
    silent: &'static [&'static str],
}

const OF_DOCKER: (&str, &str) = ("docker-distribution-api-version", "registry/2.0");
const OPEN: (u16, &[(&str, &str)]) = (200, &[OF_DOCKER]);
const SETTING: &str = "validation.manifests.indexes.platforms: none";
const QUAY: &str = "FEATURE_SPARSE_INDEX: true";
const DISTRIBUTION: &str =
    r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":"CHILD"}]}"#;

const FACES: &[Face] = &[
    Face {
        name: "distribution",
        status: 400,
        body: DISTRIBUTION,
        root: OPEN,
        says: &["this is distribution: as 3.x", SETTING, "not `list`", "index: full", "index: trim"],
        silent: &[QUAY, "Harbor"],
    },
    Face {
        name: "Harbor, with the answer of the distribution inside",
        status: 400,
        body: DISTRIBUTION,
        root: (
            401,
            &[
                OF_DOCKER,
                ("server", "nginx"),
                ("www-authenticate", "Bearer realm=\"http://h.example/service/token\",service=\"harbor-registry\""),
            ],
        ),
        says: &["this is Harbor", "index: full", "index: trim", "index: child"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "Harbor, by its own database",
        status: 404,
        body: r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"artifact CHILD not found"}]}"#,
        root: (
            401,
            &[("www-authenticate", "Bearer realm=\"http://h.example/service/token\",service=\"harbor-registry\"")],
        ),
        says: &["this is Harbor"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "Quay 3.17",
        status: 400,
        body: r#"{"errors":[{"code":"MANIFEST_INVALID","detail":{"message":"Could not find child manifest with digest `CHILD`"},"message":"manifest invalid"}]}"#,
        root: (
            401,
            &[
                OF_DOCKER,
                ("x-sparse-manifest-support", "false"),
                ("www-authenticate", "Bearer realm=\"http://q.example/v2/auth\",service=\"q.example\""),
            ],
        ),
        says: &["this is Quay", QUAY, "3.17 or later"],
        silent: &[SETTING, "Harbor"],
    },
    Face {
        name: "Quay 3.17 that takes sparse indexes, and has something against this one",
        status: 400,
        body: r#"{"errors":[{"code":"MANIFEST_INVALID","detail":{},"message":"manifest invalid"}]}"#,
        root: (401, &[OF_DOCKER, ("x-sparse-manifest-support", "true")]),
        says: &["see its log"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "Quay, by its words alone",
        status: 400,
        body: r#"{"errors":[{"code":"MANIFEST_INVALID","detail":{"message":"Could not find child manifest with digest `CHILD`"},"message":"manifest invalid"}]}"#,
        root: (200, &[OF_DOCKER]),
        says: &["this is Quay", QUAY],
        silent: &[SETTING],
    },
    Face {
        name: "Nexus",
        status: 400,
        body: r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":"CHILD"},{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":"CHILD"}]}"#,
        root: (200, &[OF_DOCKER, ("server", "Nexus/3.41.0-01 (OSS)")]),
        says: &["this is Nexus", "index: full"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "zot",
        status: 400,
        body: r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid","detail":{"reference":"CHILD"}}]}"#,
        root: OPEN,
        says: &["looks like zot"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "olareg",
        status: 400,
        body: r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"manifest references a manifest or blob unknown to registry","detail":"manifest not found: CHILD"}]}"#,
        root: OPEN,
        says: &["this is olareg", "--api-sparse-index"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "Gitea",
        status: 404,
        body: r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":""}]}"#,
        root: (
            401,
            &[(
                "www-authenticate",
                "Bearer realm=\"http://g.example/v2/token\",service=\"container_registry\",scope=\"*\"",
            )],
        ),
        says: &["this is Gitea or Forgejo"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "GitLab",
        status: 400,
        body: DISTRIBUTION,
        root: (
            401,
            &[
                OF_DOCKER,
                ("www-authenticate", "Bearer realm=\"https://g.example/jwt/auth\",service=\"container_registry\""),
            ],
        ),
        says: &["this is GitLab's registry"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "Artifactory",
        status: 400,
        body: r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid","detail":{"description":"missing"}}]}"#,
        root: (401, &[("x-jfrog-version", "Artifactory/7.98.8 79808900"), ("www-authenticate", "Basic realm=\"x\"")]),
        says: &["this is Artifactory"],
        silent: &[SETTING, QUAY],
    },
    Face {
        name: "crane's registry",
        status: 404,
        body: r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"Sub-manifest \"CHILD\" not found"}]}"#,
        root: (200, &[]),
        says: &["cannot be told", SETTING, QUAY, "index: full"],
        silent: &["stubs"],
    },
    Face {
        name: "the words of Amazon ECR",
        status: 400,
        body: r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"Images with digests '[CHILD]' required for pushing image into repository with name 'app' in the registry with id '1' do not exist"}]}"#,
        root: (401, &[OF_DOCKER, ("www-authenticate", "Basic realm=\"https://1.example/\",service=\"ecr\"")]),
        says: &["cannot be told"],
        silent: &[],
    },
    Face {
        name: "a 500 that knows no such manifest",
        status: 500,
        body: r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
        root: (200, &[]),
        says: &["cannot be told", SETTING, QUAY],
        silent: &[],
    },
    Face {
        name: "a 500 that knows no such blob",
        status: 500,
        body: r#"{"errors":[{"code":"UNKNOWN","message":"unknown error"},{"code":"BLOB_UNKNOWN","detail":"CHILD"}]}"#,
        root: (200, &[]),
        says: &["cannot be told"],
        silent: &[],
    },
    Face {
        name: "no envelope, but the child is named",
        status: 422,
        body: "cannot store index: no such manifest: 'CHILD', sorry",
        root: (404, &[]),
        says: &["cannot be told"],
        silent: &[],
    },
];

/// What has nothing to do with children: no stubs are pushed, and no setting is named.
const OTHERS: &[(u16, &str)] = &[
    (403, r#"{"errors":[{"code":"DENIED","message":"CHILD is not for you"}]}"#),
    (413, r#"{"errors":[{"code":"MANIFEST_INVALID","message":"too large"}]}"#),
    (400, r#"{"errors":[{"code":"NAME_INVALID","message":"no such project"}]}"#),
    (400, "no"),
];

/// What a registry of these tests does.
#[derive(Clone)]
struct Rules {
    shelf: MemoryShelf,
    refusal: (u16, String),
    root: (u16, &'static [(&'static str, &'static str)]),
    missing: Digest,
    takes_stubs: bool,
}

struct Refusing {
    host: String,
    shelf: MemoryShelf,
    task: JoinHandle<()>,
}

impl Drop for Refusing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Refusing {
    async fn start(face: &Face, missing: Digest, takes_stubs: bool) -> Self {
        let refusal = (face.status, face.body.replace(CHILD, &missing.to_string()));
        let shelf = MemoryShelf::new();
        let rules = Rules { shelf: shelf.clone(), refusal, root: face.root, missing, takes_stubs };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let app = router(Arc::new(shelf.clone())).layer(from_fn_with_state(rules, answer));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Refusing { host, shelf, task }
    }
}

async fn answer(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/v2/" {
        let headers =
            rules.root.1.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        return (StatusCode::from_u16(rules.root.0).unwrap(), headers.collect::<HeaderMap>()).into_response();
    }
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_index = request.method() == Method::PUT && MediaType::new(kind).is_index();
    let satisfied = rules.takes_stubs && rules.shelf.blob(REPOSITORY, &rules.missing).unwrap().is_some();
    if is_index && !satisfied {
        return (StatusCode::from_u16(rules.refusal.0).unwrap(), rules.refusal.1).into_response();
    }
    next.run(request).await
}

/// Hands out the contents of an image.
struct Contents(SampleImage);

impl Source for Contents {
    async fn open(&self, work: &Work, _offset: u64) -> Result<Body> {
        Ok(Body::full(self.0.bytes(&work.descriptor.digest).unwrap().clone()))
    }
}

fn image() -> SampleImage {
    ImageBuilder::new().platform("linux", "amd64", "").platform("linux", "s390x", "").build().unwrap()
}

/// Puts the index of `image` without its second child, whose manifest comes along as `stubs` says.
async fn put(registry: &Refusing, image: &SampleImage, stubs: Option<bool>) -> Result<Rung> {
    let repository: Repository = format!("{}/{REPOSITORY}", registry.host).parse().unwrap();
    let target = RegistryTarget::new(quick_client(Side::Target).repository(&repository), Known::default());
    let stub = Work::whole(left_out(image), Vec::new(), sealift::content::Role::Blob);
    let stubs = stubs.map(|some| if some { vec![stub] } else { Vec::new() });
    let bytes = image.bytes(&image.root.digest).unwrap().clone();
    put_index(&target, &image.root, bytes, stubs.as_deref(), &Contents(image.clone())).await
}

fn left_out(image: &SampleImage) -> Descriptor {
    image.child("linux", "s390x", "").unwrap()
}

fn help(error: &Error) -> &str {
    error.help_text().unwrap_or_default()
}

#[tokio::test]
async fn every_face_is_recognised_and_gets_the_remedy_of_its_registry() {
    let image = image();
    let missing = left_out(&image).digest;
    for face in FACES {
        let registry = Refusing::start(face, missing, false).await;
        let error = put(&registry, &image, Some(true)).await.unwrap_err();
        let name = face.name;
        assert_eq!(error.kind(), Kind::Refused, "{name}: {error}");
        assert!(error.to_string().contains(&face.status.to_string()), "{name}: {error}");
        assert_eq!(
            registry.shelf.blob(REPOSITORY, &missing).unwrap(),
            Some(left_out(&image).size),
            "{name}: stubs are tried"
        );
        let help = help(&error);
        face.says.iter().for_each(|words| assert!(help.contains(words), "{name}: {words:?} is not in: {help}"));
        face.silent.iter().for_each(|words| assert!(!help.contains(words), "{name}: {words:?} is in: {help}"));
    }
}

#[tokio::test]
async fn whoever_takes_stubs_gets_them_whatever_the_face() {
    let image = image();
    for face in FACES {
        let registry = Refusing::start(face, left_out(&image).digest, true).await;
        assert_eq!(
            put(&registry, &image, Some(true)).await.unwrap_or_else(|e| panic!("{}: {e}", face.name)),
            Rung::Stubs
        );
    }
}

#[tokio::test]
async fn stubs_that_are_forbidden_or_did_not_come_are_what_is_named_first() {
    let image = image();
    let missing = left_out(&image).digest;
    for (stubs, words) in [(None, "(`stubs: never`)"), (Some(false), "the bundle has none")] {
        for face in FACES.iter().filter(|face| ["distribution", "olareg", "crane's registry"].contains(&face.name)) {
            let registry = Refusing::start(face, missing, true).await;
            let error = put(&registry, &image, stubs).await.unwrap_err();
            assert!(help(&error).contains(words), "{}: {error:?}", face.name);
            assert_eq!(registry.shelf.blob(REPOSITORY, &missing).unwrap(), None, "{}", face.name);
        }
    }
}

#[tokio::test]
async fn a_probe_takes_every_face_for_a_no() {
    for face in FACES {
        let registry = Refusing::start(face, left_out(&image()).digest, false).await;
        let scratch = scratch(&registry.host.parse().unwrap(), "").unwrap();
        let profile = probe(&quick_client(Side::Target), &scratch, &Silent).await.unwrap();
        assert_eq!(profile.takes_sparse(), TakesSparse::Not, "{}: {:?}", face.name, profile.sparse_index);
    }
}

#[tokio::test]
async fn other_refusals_are_not_taken_for_it() {
    let image = image();
    let missing = left_out(&image).digest;
    for (status, body) in OTHERS {
        let face = Face { name: "other", status: *status, body, root: OPEN, says: &[], silent: &[] };
        let registry = Refusing::start(&face, missing, true).await;
        let error = put(&registry, &image, Some(true)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(!help(&error).contains("index:"), "{status}: {error:?}");
        assert_eq!(registry.shelf.blob(REPOSITORY, &missing).unwrap(), None, "{status}: nothing is pushed");
    }
}
