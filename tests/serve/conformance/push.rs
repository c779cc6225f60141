//! "Push": end-4a, end-4b, end-5, end-6, end-7, end-11, end-13.

use super::*;

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

async fn begin(registry: &Registry) -> String {
    let answer = registry.send("POST", "/v2/app/blobs/uploads/", &[("content-length", "0")], "").await;
    assert_eq!(answer.status, 202);
    let place = location(&answer);
    let id = place.rsplit('/').next().unwrap();
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{id} is a UUID");
    assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{id} is a UUID");
    place.to_owned()
}

/// 201, and `Location` is where the blob can be pulled.
async fn created(registry: &Registry, answer: Answer, bytes: &[u8]) {
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    let pulled = registry.get(location(&answer)).await;
    assert_eq!((pulled.status, &pulled.body[..]), (200, bytes));
}

#[tokio::test]
async fn a_blob_in_two_requests_or_in_one() {
    for Case { registry, .. } in cases().await {
        let digest = Digest::of(b"two requests");
        let (first, second) = (begin(&registry).await, begin(&registry).await);
        assert_ne!(first, second, "each session has its own id");
        let put = registry.send("PUT", &format!("{first}?digest={digest}"), &[OCTETS], "two requests").await;
        created(&registry, put, b"two requests").await;
        let path = format!("/v2/app/blobs/uploads/?digest={}", Digest::of(b"one request"));
        let post = registry.send("POST", &path, &[OCTETS], "one request").await;
        created(&registry, post, b"one request").await;
    }
}

/// A chunk; where the next one goes.
async fn patch(registry: &Registry, place: &str, range: &str, body: &'static str) -> String {
    let answer = registry.send("PATCH", place, &[OCTETS, ("content-range", range)], body).await;
    assert_eq!((answer.status, answer.header("range").split('-').next()), (202, Some("0")), "{range}");
    assert_eq!(answer.header("range").split('-').nth(1), range.split('-').nth(1), "the last byte that was uploaded");
    location(&answer).to_owned()
}

#[tokio::test]
async fn a_blob_in_chunks() {
    for Case { registry, .. } in cases().await {
        let digest = Digest::of(b"0123456789");
        // The final chunk comes with the request that ends the session, or before it.
        for with_put in [true, false] {
            let mut place = begin(&registry).await;
            place = patch(&registry, &place, "0-2", "012").await;
            place = patch(&registry, &place, "3-6", "3456").await;
            let end = format!("{place}?digest={digest}");
            let put = if with_put {
                registry.send("PUT", &end, &[OCTETS, ("content-range", "7-9")], "789").await
            } else {
                place = patch(&registry, &place, "7-9", "789").await;
                registry.send("PUT", &format!("{place}?digest={digest}"), &[], "").await
            };
            created(&registry, put, b"0123456789").await;
        }
    }
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_the_state_can_be_asked_for() {
    for Case { over, registry, .. } in cases().await {
        let mut place = begin(&registry).await;
        let early = registry.send("PATCH", &place, &[OCTETS, ("content-range", "3-6")], "3456").await;
        assert_eq!(early.status, 416, "{over}: the first chunk begins with byte 0");
        place = patch(&registry, &place, "0-2", "012").await;
        for range in ["0-2", "4-6"] {
            let answer = registry.send("PATCH", &place, &[OCTETS, ("content-range", range)], "xxx").await;
            assert_eq!(answer.status, 416, "{over} {range}");
        }
        let state = registry.get(&place).await;
        assert_eq!((state.status, state.header("range")), (204, "0-2"), "{over}");
        place = location(&state).to_owned();
        let digest = Digest::of(b"0123");
        let put = registry.send("PUT", &format!("{place}?digest={digest}"), &[("content-range", "5-5")], "3").await;
        assert_eq!(put.status, 416, "{over}: the end is a chunk too");
        let put = registry.send("PUT", &format!("{place}?digest={digest}"), &[("content-range", "3-3")], "3").await;
        created(&registry, put, b"0123").await;
        assert_eq!(registry.get(&place).await.status, 404, "{over}: the session is closed");
    }
}

#[tokio::test]
async fn a_blob_that_is_not_what_its_digest_says_is_refused() {
    let digest = Digest::of(b"expected");
    for Case { over, registry, .. } in cases().await {
        let place = begin(&registry).await;
        let put = registry.send("PUT", &format!("{place}?digest={digest}"), &[OCTETS], "another").await;
        assert_eq!((put.status, put.codes()), (400, vec!["DIGEST_INVALID".to_owned()]), "{over}");
        let path = format!("/v2/app/blobs/uploads/?digest={digest}");
        assert_eq!(registry.send("POST", &path, &[OCTETS], "another").await.status, 400, "{over}");
        assert_eq!(registry.get(&format!("/v2/app/blobs/{digest}")).await.status, 404, "{over}");
    }
}

#[tokio::test]
async fn a_blob_is_mounted_or_else_an_upload_begins() {
    for Case { over, registry, .. } in cases().await {
        let digest = registry.blob("app", b"a blob").await;
        let mounted =
            registry.send("POST", &format!("/v2/other/blobs/uploads/?mount={digest}&from=app"), &[], "").await;
        created(&registry, mounted, b"a blob").await;
        let absent = Digest::of(b"absent");
        let begun = registry.send("POST", &format!("/v2/other/blobs/uploads/?mount={absent}&from=app"), &[], "").await;
        assert_eq!(begun.status, 202, "{over}");
        let put = registry.send("PUT", &format!("{}?digest={absent}", location(&begun)), &[OCTETS], "absent").await;
        created(&registry, put, b"absent").await;
    }
}

#[tokio::test]
async fn a_manifest_is_kept_byte_for_byte() {
    for Case { over, registry, .. } in cases().await {
        let image = Artifact::image();
        // Another serialisation of the same document is another manifest.
        let bytes = serde_json::to_vec_pretty(&image.document).unwrap();
        image.push(&registry, "app", "other").await;
        let digest = Digest::of(&bytes);
        let parameters = format!("{OCI_MANIFEST}; charset=utf-8");
        for (name, kind) in [("1.0", OCI_MANIFEST), (&digest.to_string(), OCI_MANIFEST), ("2.0", &parameters)] {
            let path = format!("/v2/app/manifests/{name}");
            let put = registry.send("PUT", &path, &[("content-type", kind)], bytes.clone()).await;
            assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.to_string().as_str()), "{over}");
            for place in [&path, location(&put)] {
                let pulled = registry.get(place).await;
                assert_eq!((pulled.status, &pulled.body[..]), (200, &bytes[..]), "{over} {place}");
                assert_eq!(pulled.header("content-type"), OCI_MANIFEST);
            }
        }
    }
}

#[tokio::test]
async fn a_manifest_may_have_no_layers() {
    for Case { over, registry, .. } in cases().await {
        let image = Artifact::image().with("layers", json!([]));
        assert_eq!(image.push(&registry, "app", "none").await.status, 201, "{over}");
    }
}

#[tokio::test]
async fn a_manifest_whose_blobs_are_missing_is_refused_with_their_code() {
    for Case { over, registry, .. } in cases().await {
        let path = "/v2/app/manifests/1.0";
        let put = registry.send("PUT", path, &[("content-type", OCI_MANIFEST)], Artifact::image().bytes()).await;
        assert_eq!((put.status, put.codes()), (400, vec!["MANIFEST_BLOB_UNKNOWN".to_owned(); 2]), "{over}");
        assert_eq!(registry.get(path).await.status, 404, "{over}");
    }
}

#[tokio::test]
async fn a_subject_may_come_later_and_is_acknowledged() {
    for Case { over, registry, .. } in cases().await {
        let subject = Artifact::image();
        for referrer in [Artifact::image(), Artifact::index()] {
            let referrer = referrer.with("subject", subject.descriptor());
            let answer = referrer.push(&registry, "app", &referrer.digest().to_string()).await;
            let acknowledged = (answer.status, answer.header("oci-subject").to_owned());
            assert_eq!(acknowledged, (201, subject.digest().to_string()), "{over}");
        }
        let without = subject.push(&registry, "app", "1.0").await;
        assert_eq!((without.status, without.header("oci-subject")), (201, ""), "{over}");
    }
}
