use super::super::Pull;
use super::server::{Seen, Server, cut, error, reply, stuck, unannounced};
use super::*;
use crate::Kind;
use crate::content::{Role, Source, Work};
use crate::oci::{Descriptor, MediaType};

const SIZE: usize = 300_000;

fn layer() -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes(SIZE))
}

fn range(seen: &Seen) -> Option<usize> {
    seen.header("range").strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The whole, or the rest with `Range`.
fn proper(seen: &Seen) -> axum::response::Response {
    match range(seen) {
        Some(from) => {
            let told = format!("bytes {from}-{}/{SIZE}", SIZE - 1);
            reply(206, &[("content-range", &told)], bytes(SIZE).slice(from..))
        }
        None => reply(200, &[], bytes(SIZE)),
    }
}

async fn fetch(server: &Server, offset: u64) -> Result<Bytes> {
    read(remote(server).open_blob(&layer(), offset).await?).await
}

#[tokio::test]
async fn from_the_start_and_from_an_offset() {
    let server = Server::start(proper).await;
    assert_eq!(fetch(&server, 0).await.unwrap(), bytes(SIZE));
    assert_eq!(fetch(&server, 1000).await.unwrap(), bytes(SIZE).slice(1000..));
    let before = server.lines().len();
    assert!(fetch(&server, SIZE as u64).await.unwrap().is_empty());
    assert!(fetch(&server, SIZE as u64 + 1).await.is_err());
    assert_eq!(server.lines().len(), before, "nothing is asked for at the end");
}

#[tokio::test]
async fn a_cut_blob_goes_on_where_it_was_cut() {
    // Cut more often than there are attempts: what arrives renews them.
    let server = Server::start(|seen| {
        let from = range(seen).unwrap_or(0);
        let to = (from + 30_000).min(SIZE);
        let told = format!("bytes {from}-{}/{SIZE}", SIZE - 1);
        let length = (SIZE - from).to_string();
        let status = if from == 0 { 200 } else { 206 };
        reply(status, &[("content-range", &told), ("content-length", &length)], cut(bytes(SIZE).slice(from..to)))
    })
    .await;
    assert_eq!(fetch(&server, 0).await.unwrap(), bytes(SIZE));
    let asked: Vec<Option<usize>> = server.seen().iter().map(range).collect();
    assert_eq!(asked, (0..10).map(|n| (n > 0).then_some(n * 30_000)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_blob_that_stands_still_goes_on_over_another_connection() {
    let server = Server::start(|seen| match seen.nth {
        0 => reply(200, &[("content-length", "300000")], stuck(bytes(SIZE).slice(..1000))),
        _ => proper(seen),
    })
    .await;
    assert_eq!(fetch(&server, 0).await.unwrap(), bytes(SIZE));
    assert_eq!(range(&server.seen()[1]), Some(1000));
}

/// A byte now and then, for ever.
fn dripping() -> axum::body::Body {
    let drip = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
    });
    axum::body::Body::from_stream(drip)
}

#[tokio::test]
async fn a_body_that_drips_does_not_hold_anybody_up() {
    let server = Server::start(|_| reply(200, &[], dripping())).await;
    let client = client(&Config::default(), Credentials::anonymous());
    let remote = client.repository(&server.repository("team/app"));
    let (layer, tag) = (layer(), crate::oci::Name::from("x".parse::<crate::oci::Tag>().unwrap()));
    let both = async {
        let blob = async { read(remote.open_blob(&layer, 0).await.unwrap()).await };
        futures_util::future::join(blob, remote.get_manifest(&tag, None)).await
    };
    let (blob, manifest) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it goes on for ever");
    for error in [blob.unwrap_err(), manifest.unwrap_err()] {
        assert!(error.to_string().contains("bytes came in 2 s"), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_breaks_off_after_each_byte_is_asked_a_few_times() {
    let server = Server::start(|seen| {
        let at = range(seen).unwrap_or_default();
        let told = format!("bytes {at}-{}/{SIZE}", SIZE - 1);
        reply(206, &[("content-range", &told)], cut(bytes(SIZE).slice(at..=at)))
    })
    .await;
    assert!(fetch(&server, 0).await.is_err());
    let asked = server.lines().len();
    assert!(asked <= 10, "{asked} requests");
}

#[tokio::test]
async fn a_server_without_range_is_read_from_the_start() {
    let wrong_range = |seen: &Seen| match range(seen) {
        Some(_) => reply(206, &[("content-range", &format!("bytes 7-9/{SIZE}"))], "abc"),
        None => reply(200, &[], bytes(SIZE)),
    };
    let refused = |seen: &Seen| match range(seen) {
        Some(_) => reply(416, &[], ""),
        None => reply(200, &[], bytes(SIZE)),
    };
    let ignored = |_: &Seen| reply(200, &[], bytes(SIZE));
    for server in [Server::start(wrong_range).await, Server::start(refused).await, Server::start(ignored).await] {
        assert_eq!(fetch(&server, 70_001).await.unwrap(), bytes(SIZE).slice(70_001..));
    }
    // And cut: once, then whole.
    let server = Server::start(|seen| match seen.nth {
        0 => reply(200, &[], cut(bytes(SIZE).slice(..100_000))),
        _ => reply(200, &[], bytes(SIZE)),
    })
    .await;
    assert_eq!(fetch(&server, 0).await.unwrap(), bytes(SIZE));
}

/// How a download ends whose second answer is odd.
enum Ends {
    /// Right, after so many requests.
    Whole(usize),
    /// As altered content.
    Refused,
    /// With the trouble, after all attempts.
    GivenUp,
}

#[tokio::test]
async fn whatever_is_answered_to_range_the_blob_is_whole_or_refused() {
    const CUT: usize = 100_000;
    type Answer = dyn Fn() -> axum::response::Response + Send + Sync;
    let ranged = |told: &'static str, from: usize, to: usize| {
        move || reply(206, &[("content-range", told)], bytes(SIZE).slice(from..to))
    };
    let right = ranged("bytes 100000-299999/300000", CUT, SIZE);
    // What is answered to the question for the rest, and how it ends.
    let rows: Vec<(&str, Box<Answer>, Ends)> = vec![
        ("the rest", Box::new(right), Ends::Whole(2)),
        ("the rest of a length that is not told", Box::new(ranged("bytes 100000-299999/*", CUT, SIZE)), Ends::Whole(2)),
        ("less than the rest", Box::new(ranged("bytes 100000-199999/300000", CUT, 200_000)), Ends::Whole(3)),
        ("the whole", Box::new(|| reply(200, &[], bytes(SIZE))), Ends::Whole(2)),
        ("the whole without its length", Box::new(|| reply(200, &[], unannounced(bytes(SIZE)))), Ends::Whole(2)),
        ("no such range", Box::new(|| reply(416, &[("content-range", "bytes */300000")], "")), Ends::Whole(3)),
        ("another range", Box::new(ranged("bytes 0-299999/300000", 0, SIZE)), Ends::Whole(3)),
        ("a later range", Box::new(ranged("bytes 100001-299999/300000", CUT + 1, SIZE)), Ends::Whole(3)),
        ("a range that is none", Box::new(ranged("bytes x", CUT, SIZE)), Ends::Whole(3)),
        ("a range that is not told", Box::new(|| reply(206, &[], bytes(SIZE).slice(CUT..))), Ends::Whole(3)),
        ("an expired link", Box::new(|| reply(403, &[], "")), Ends::Whole(3)),
        ("a wrong request", Box::new(|| reply(400, &[], "")), Ends::Whole(3)),
        ("trouble", Box::new(|| reply(503, &[], "")), Ends::GivenUp),
        ("another length", Box::new(ranged("bytes 100000-399999/400000", CUT, SIZE)), Ends::Refused),
        ("a shorter length", Box::new(ranged("bytes 100000-199999/200000", CUT, 200_000)), Ends::Refused),
        ("another whole", Box::new(|| reply(200, &[], bytes(SIZE + 1))), Ends::Refused),
        ("a shorter whole", Box::new(|| reply(200, &[], bytes(SIZE - 1))), Ends::Refused),
        (
            "more than the rest",
            Box::new(|| {
                let more = [bytes(SIZE).slice(CUT..), bytes(5)].concat();
                reply(206, &[("content-range", "bytes 100000-299999/300000")], unannounced(more.into()))
            }),
            Ends::Refused,
        ),
    ];
    for (what, answer, ends) in rows {
        let answer = std::sync::Arc::new(answer);
        let server = Server::start(move |seen| match (seen.nth, range(seen)) {
            (0, _) => reply(200, &[("content-length", "300000")], cut(bytes(SIZE).slice(..CUT))),
            (_, Some(CUT)) => answer(),
            _ => proper(seen),
        })
        .await;
        let fetched = fetch(&server, 0).await;
        match ends {
            Ends::GivenUp => {
                // Five attempts at the rest, for nothing new arrives.
                let text = fetched.unwrap_err().to_string();
                assert!(text.contains("5 attempts, the last") && text.contains("503"), "{what}: {text}");
                assert_eq!(server.lines().len(), 1 + 4, "{what}");
            }
            Ends::Whole(requests) => {
                assert_eq!(fetched.unwrap(), bytes(SIZE), "{what}");
                assert_eq!(server.lines().len(), requests, "{what}");
            }
            Ends::Refused => assert_eq!(fetched.unwrap_err().kind(), Kind::Verification, "{what}"),
        }
        assert_eq!(range(&server.seen()[1]), Some(CUT), "{what}");
    }
}

#[tokio::test]
async fn too_long_and_too_short() {
    let long: Bytes = [bytes(SIZE), bytes(1)].concat().into();
    let announced = long.clone();
    let server = Server::start(move |_| reply(200, &[], announced.clone())).await;
    assert_eq!(fetch(&server, 0).await.unwrap_err().kind(), Kind::Verification);
    let server = Server::start(move |_| reply(200, &[], unannounced(long.clone()))).await;
    let error = fetch(&server, 0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Verification);
    assert!(error.to_string().contains("300000"), "{error}");
    assert_eq!(server.lines().len(), 1);

    let server = Server::start(|_| reply(200, &[], unannounced(bytes(SIZE - 1)))).await;
    let error = fetch(&server, 0).await.unwrap_err();
    assert!(error.to_string().contains("ended after 299999 of 300000 bytes"), "{error}");
    assert_eq!(error.kind(), Kind::Failed);
    let server = Server::start(|_| reply(200, &[], bytes(SIZE - 1))).await;
    assert_eq!(fetch(&server, 0).await.unwrap_err().kind(), Kind::Verification);
}

#[tokio::test]
async fn a_redirect_does_not_carry_credentials_and_is_asked_for_anew() {
    let storage = Server::start(|seen| match seen.nth {
        0 => reply(200, &[("content-length", "300000")], cut(bytes(SIZE).slice(..1000))),
        _ => proper(seen),
    })
    .await;
    let there = storage.url("/presigned?signature=s3cr3t");
    let server = Server::start(move |seen| match seen.header("authorization") {
        "" => reply(401, &[("www-authenticate", "Basic")], ""),
        _ => reply(307, &[("location", &there)], ""),
    })
    .await;
    let remote = remote_as(&server, Credentials::of(server.registry(), "me", "pw"));
    assert_eq!(read(remote.open_blob(&layer(), 0).await.unwrap()).await.unwrap(), bytes(SIZE));
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_empty()));
    assert_eq!(range(&storage.seen()[1]), Some(1000));
    assert_eq!(server.lines().len(), 3, "401, and a redirect for each beginning");
}

#[tokio::test]
async fn redirects_end_and_errors_show_no_query() {
    let server = Server::start(|_| reply(307, &[("location", "/again?signature=s3cr3t")], "")).await;
    let error = fetch(&server, 0).await.unwrap_err();
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
    assert_eq!(server.lines().len(), 6);
    for location in
        ["http://127.0.0.1:1/x?signature=s3cr3t", "ftp://127.0.0.1/x?signature=s3cr3t", "http://[::1?s3cr3t"]
    {
        let server = Server::start(move |_| reply(307, &[("location", location)], "")).await;
        let error = fetch(&server, 0).await.unwrap_err();
        assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    }
}

#[tokio::test]
async fn existence() {
    let digest = layer().digest;
    let server = Server::start(|_| reply(200, &[], bytes(SIZE))).await;
    assert_eq!(remote(&server).blob_exists(&digest).await.unwrap(), Some(SIZE as u64));
    let server = Server::start(|_| reply(404, &[], "")).await;
    assert_eq!(remote(&server).blob_exists(&digest).await.unwrap(), None);
    // A redirect that is signed for GET alone.
    let server = Server::start(|seen| match (seen.method.as_str(), seen.target.as_str()) {
        (_, "/signed") if seen.method == "HEAD" => reply(403, &[], ""),
        (_, "/signed") => reply(200, &[], bytes(SIZE)),
        _ => reply(307, &[("location", "/signed")], ""),
    })
    .await;
    assert_eq!(remote(&server).blob_exists(&digest).await.unwrap(), Some(SIZE as u64));
}

#[tokio::test]
async fn the_first_repository_that_has_it() {
    let manifest = br#"{"schemaVersion":2}"#;
    let server = Server::start(move |seen| match seen.target.as_str() {
        target if target.starts_with("/v2/b/x/blobs/") => proper(seen),
        target if target.starts_with("/v2/b/x/manifests/") => reply(200, &[], &manifest[..]),
        target if target.starts_with("/v2/denied/") => error(403, "DENIED"),
        _ => error(404, "BLOB_UNKNOWN"),
    })
    .await;
    let pull = Pull::new(client(&Config::default(), Credentials::anonymous()));
    let work = |paths: &[&str], descriptor: Descriptor| {
        Work::whole(descriptor, paths.iter().map(|path| server.repository(path)).collect(), Role::Blob)
    };
    let found = pull.open(&work(&["denied/x", "a/x", "b/x"], layer()), 5).await.unwrap();
    assert_eq!(read(found).await.unwrap(), bytes(SIZE).slice(5..));
    let stub = Descriptor::of(MediaType::OCI_MANIFEST, manifest);
    let found = pull.open(&work(&["b/x"], stub), 2).await.unwrap();
    assert_eq!(&read(found).await.unwrap()[..], &manifest[2..]);
    let denied = pull.open(&work(&["a/x", "denied/x"], layer()), 0).await.err().unwrap();
    assert_eq!(denied.kind(), Kind::Refused);
    let nowhere = pull.open(&work(&["a/x", "c/x"], layer()), 0).await.err().unwrap();
    assert!(nowhere.to_string().contains("none of its repositories"), "{nowhere}");
}
