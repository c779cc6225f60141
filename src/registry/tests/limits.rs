use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::server::{Server, error, reply, stuck};
use super::*;
use crate::Kind;
use crate::config::{RegistryConfig, RegistryLimits};
use crate::oci::{Descriptor, Digest, MediaType, Name, Tag};

fn limited(server: &Server, limits: RegistryLimits) -> Client {
    let one = RegistryConfig { limits, ..RegistryConfig::default() };
    let registries = [(server.registry(), one)].into_iter().collect();
    client(&Config { registries, ..Config::default() }, Credentials::anonymous())
}

fn name(text: &str) -> Name {
    Name::from(text.parse::<Tag>().unwrap())
}

#[tokio::test]
async fn requests_at_once_are_those_whose_answers_are_not_read() {
    let body = bytes(100_000);
    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &body);
    let server = Server::start(move |seen| match seen.method.as_str() {
        "GET" => reply(200, &[("content-length", "100000")], stuck(body.slice(..1000))),
        _ => reply(404, &[], ""),
    })
    .await;
    let client = limited(&server, RegistryLimits { requests: Some(2), ..RegistryLimits::default() });
    let remote = client.repository(&server.repository("team/app"));
    let (one, two) = (remote.open_blob(&layer, 0).await.unwrap(), remote.open_blob(&layer, 0).await.unwrap());
    let third = remote.blob_exists(&layer.digest);
    let waits = tokio::time::timeout(Duration::from_millis(200), third).await.is_err();
    assert!(waits, "two blobs are on their way");
    // Nobody wants this one any more.
    drop(one);
    assert_eq!(remote.blob_exists(&layer.digest).await.unwrap(), None);
    drop(two);
}

#[tokio::test]
async fn one_request_at_once_is_enough_for_every_operation() {
    let server = Server::start(|seen| match (seen.method.as_str(), seen.header("authorization")) {
        ("POST", _) if seen.target.contains("mount") => reply(202, &[("location", "/u")], ""),
        ("POST", _) => reply(202, &[("location", "/u")], ""),
        ("PUT", _) if seen.nth == 1 => reply(503, &[], ""),
        ("PUT", _) => reply(201, &[], ""),
        ("DELETE", _) => reply(202, &[], ""),
        ("HEAD", _) => error(404, "UNKNOWN"),
        (_, _) if seen.header("range").is_empty() => reply(200, &[], bytes(1000)),
        _ => reply(416, &[], "no"),
    })
    .await;
    let client = limited(&server, RegistryLimits { requests: Some(1), ..RegistryLimits::default() });
    let remote = client.repository(&server.repository("team/app"));
    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes(1000));
    let all = async {
        remote.push_blob(&layer, |_| async { Ok(Body::full(bytes(1000))) }).await.unwrap();
        assert!(!remote.mount(&layer.digest, &server.repository("other/app")).await.unwrap());
        read(remote.open_blob(&layer, 10).await.unwrap()).await.unwrap();
        remote.delete_manifest(&name("x")).await.unwrap();
        let _ = (remote.tags().await, remote.referrers(&layer.digest).await, remote.supports_referrers().await);
        remote.get_manifest(&name("x"), None).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("it waits for its own turn");
}

#[tokio::test]
async fn bytes_of_blobs_are_slowed_down_both_ways() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => reply(202, &[("location", "/u")], ""),
        "PUT" => reply(201, &[], ""),
        _ => reply(200, &[], bytes(100_000)),
    })
    .await;
    // A fifth of a second for each way, but for the last slice.
    let client = limited(&server, RegistryLimits { bandwidth: Some(500_000), ..RegistryLimits::default() });
    let remote = client.repository(&server.repository("team/app"));
    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes(100_000));
    let begun = std::time::Instant::now();
    assert_eq!(read(remote.open_blob(&layer, 0).await.unwrap()).await.unwrap(), bytes(100_000));
    remote.push_blob(&layer, |_| async { Ok(Body::full(bytes(100_000))) }).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(server.seen().last().unwrap().body, bytes(100_000));
}

#[tokio::test]
async fn the_reserve_is_kept_before_a_manifest_is_asked_for() {
    const MANIFEST: &str = r#"{"schemaVersion":2}"#;
    let left = Arc::new(AtomicUsize::new(4));
    let counts = left.clone();
    let server = Server::start(move |seen| {
        if seen.method == "GET" && seen.target.contains("/manifests/") {
            counts.fetch_sub(1, Ordering::Relaxed);
        }
        let remaining = format!("{};w=21600", counts.load(Ordering::Relaxed));
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let digest = Digest::of(MANIFEST.as_bytes()).to_string();
        let headers = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", &remaining),
            ("content-type", kind),
            ("docker-content-digest", &digest),
        ];
        reply(200, &headers, if seen.target.contains("/blobs/") { "layer" } else { MANIFEST })
    })
    .await;
    let client = limited(&server, RegistryLimits { reserve: 2, ..RegistryLimits::default() });
    let remote = client.repository(&server.repository("team/app"));
    assert!(client.budgets().is_empty(), "nothing was said yet");
    remote.head_manifest(&name("1")).await.unwrap().unwrap();
    let budget = client.budgets().remove(0);
    assert_eq!((budget.limit, budget.remaining, budget.window, budget.made), (100, 4, Some(21600), 0));
    // Many at once take no more than there are.
    let asked = join_all((0..10).map(|_| {
        let remote = remote.clone();
        async move { remote.get_manifest(&name("1"), None).await }
    }))
    .await;
    let refused: Vec<_> = asked.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 8);
    assert!(refused.iter().all(|error| error.kind() == Kind::Refused), "{refused:?}");
    let text = refused[0].to_string();
    for part in ["team/app:1", &server.registry().to_string(), "2 more of 100 pulls in 6 h", "2 are kept"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(refused[0].help_text().is_some_and(|help| help.contains("limits.reserve") && help.contains("mirror")));
    assert_eq!(left.load(Ordering::Relaxed), 2, "none was sent");
    assert_eq!(client.budgets().remove(0).made, 2);
    // What is not counted goes on.
    assert!(remote.head_manifest(&name("1")).await.unwrap().is_some());
    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, b"layer");
    assert_eq!(&read(remote.open_blob(&layer, 0).await.unwrap()).await.unwrap()[..], b"layer");
}

#[tokio::test]
async fn pulls_that_are_used_up_are_said_so_and_not_asked_for_again() {
    let hub = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    // What Retry-After says, and how often it is asked.
    for (after, asked) in [(None, 1), (Some("0"), 5), (Some("7200"), 1)] {
        let server = Server::start(move |_| match after {
            Some(after) => reply(429, &[("retry-after", after)], hub),
            None => reply(429, &[], hub),
        })
        .await;
        let error = remote(&server).get_manifest(&name("1"), None).await.unwrap_err();
        assert_eq!((error.kind(), server.lines().len()), (Kind::Refused, asked), "{after:?}");
        assert!(error.to_string().contains("pull rate limit"), "{error}");
        let help = error.help_text().unwrap();
        assert!(help.contains("log in") && help.contains("mirror"), "{help}");
    }
}

#[tokio::test]
async fn trouble_is_tried_again_and_refusals_are_not() {
    // Status, code, and how often it is asked.
    let rows = [
        (408, "UNKNOWN", 5),
        (425, "UNKNOWN", 5),
        (429, "TOOMANYREQUESTS", 5),
        (500, "UNKNOWN", 5),
        (502, "UNKNOWN", 5),
        (503, "UNKNOWN", 5),
        (504, "UNKNOWN", 5),
        (500, "MANIFEST_BLOB_UNKNOWN", 1),
        (500, "UNSUPPORTED", 1),
        (400, "MANIFEST_INVALID", 1),
        (401, "UNAUTHORIZED", 1),
        (403, "DENIED", 1),
        (405, "UNSUPPORTED", 1),
        (501, "UNSUPPORTED", 1),
    ];
    for (status, code, asked) in rows {
        let server = Server::start(move |_| error(status, code)).await;
        let error = remote(&server).get_manifest(&name("1"), None).await.unwrap_err();
        assert_eq!(server.lines().len(), asked, "{status} {code}");
        let text = error.to_string();
        let host = server.registry().to_string();
        for part in ["source", "get manifest", "team/app:1", &host, &status.to_string(), code] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(error.help_text().is_some(), "{text}");
    }
}
