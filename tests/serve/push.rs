//! The push side: uploads, mounts, manifests, deletion.

use bytes::Bytes;
use sealift::oci::Digest;
use sealift::sample::pseudo_random;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{OCI_INDEX, OCI_MANIFEST, Registry, seeded};

#[tokio::test]
async fn uploads_in_two_requests_and_as_a_stream() {
    let registry = Registry::start().await;
    let bytes = Bytes::from(pseudo_random(3_000_000, 1));
    let digest = Digest::of(&bytes);
    let location = registry.begin("team/app").await;
    let answer = registry.send("PUT", &format!("{location}?digest={digest}"), &[], bytes.clone()).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), format!("/v2/team/app/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(registry.get(answer.header("location")).await.body, bytes);

    // As podman and skopeo do: one PATCH of unknown length, and a PUT without a body.
    let location = registry.begin("other").await;
    let pieces: Vec<std::io::Result<Bytes>> = bytes.chunks(70_000).map(|piece| Ok(bytes.slice_ref(piece))).collect();
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let answer = registry.send("PATCH", &location, &[], stream).await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-2999999"));
    let answer = registry.send("PUT", &format!("{location}?ns=x&digest={digest}"), &[], "").await;
    assert_eq!(answer.status, 201);
    assert_eq!(registry.get(&format!("/v2/other/blobs/{digest}")).await.body, bytes);
    assert_eq!(registry.get(&location).await.codes(), ["BLOB_UPLOAD_UNKNOWN"], "the upload is over");
}

#[tokio::test]
async fn uploads_in_chunks_are_taken_in_their_order_alone() {
    let registry = Registry::start().await;
    let location = registry.begin("app").await;
    let range = |range: &'static str| [("content-range", range)];
    let answer = registry.send("PATCH", &location, &range("0-4"), "01234").await;
    assert_eq!((answer.status, answer.header("range"), answer.header("location")), (202, "0-4", location.as_str()));
    for (header, body, status, code) in [
        ("0-4", "01234", 416, "BLOB_UPLOAD_INVALID"),
        ("6-9", "6789", 416, "BLOB_UPLOAD_INVALID"),
        ("5-9", "5678", 400, "SIZE_INVALID"),
        ("9-5", "56789", 400, "BLOB_UPLOAD_INVALID"),
        ("bytes 5-9/10", "56789", 400, "BLOB_UPLOAD_INVALID"),
    ] {
        let answer = registry.send("PATCH", &location, &range(header), body).await;
        assert_eq!((answer.status, answer.codes()), (status, vec![code.to_owned()]), "{header}");
        let state = registry.get(&location).await;
        assert_eq!((state.status, state.header("range")), (204, "0-4"), "nothing of {header} was taken");
        if status == 416 {
            assert_eq!((answer.header("range"), answer.header("location")), ("0-4", location.as_str()));
        }
    }
    let digest = Digest::of(b"0123456789");
    let answer = registry.send("PUT", &format!("{location}?digest={digest}"), &range("5-9"), "56789").await;
    assert_eq!(answer.status, 201);
    assert_eq!(registry.get(&format!("/v2/app/blobs/{digest}")).await.body, "0123456789");
}

#[tokio::test]
async fn uploads_that_end_otherwise() {
    let registry = Registry::start().await;
    let digest = Digest::of(b"expected");
    let location = registry.begin("app").await;
    let answer = registry.send("PUT", &format!("{location}?digest={digest}"), &[], "other").await;
    assert_eq!((answer.status, answer.codes()), (400, vec!["DIGEST_INVALID".to_owned()]));
    assert_eq!(registry.get(&location).await.status, 404, "wrong bytes end the upload");
    assert_eq!(registry.get(&format!("/v2/app/blobs/{digest}")).await.status, 404);

    let location = registry.begin("app").await;
    assert_eq!(registry.send("DELETE", &location, &[], "").await.status, 204);
    assert_eq!(registry.get(&location).await.status, 404);

    let location = registry.begin("app").await;
    let elsewhere = location.replace("/app/", "/other/");
    assert_eq!(registry.get(&elsewhere).await.status, 404, "an upload belongs to its repository");
}

#[tokio::test]
async fn an_upload_goes_on_after_its_connection_broke_off() {
    // A chunk, and all of it in one request.
    for method in ["PATCH", "PUT"] {
        let registry = Registry::start().await;
        let location = registry.begin("app").await;
        let digest = Digest::of(b"0123456789");
        let whole = format!("{location}?digest={digest}");
        let mut connection = tokio::net::TcpStream::connect(registry.running.address()).await.unwrap();
        let request = format!("{method} {whole} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234");
        connection.write_all(request.as_bytes()).await.unwrap();
        // The bytes must have arrived before the connection goes.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        drop(connection);
        let state = registry.get(&location).await;
        assert_eq!((state.status, state.header("range")), (204, "0-4"), "{method}");
        let answer = registry.send("PUT", &whole, &[("content-range", "5-9")], "56789").await;
        assert_eq!(answer.status, 201, "{method}");
    }
}

#[tokio::test]
async fn blobs_are_mounted_where_they_are() {
    let registry = Registry::start().await;
    let digest = registry.blob("from", b"blob").await;
    let absent = Digest::of(b"absent");
    for (query, status) in [
        (format!("mount={digest}&from=from"), 201),
        (format!("mount={digest}"), 201),
        (format!("mount={digest}&from=other"), 202),
        (format!("mount={digest}&from=../x"), 202),
        (format!("mount={absent}&from=from"), 202),
    ] {
        let answer = registry.send("POST", &format!("/v2/to/blobs/uploads/?{query}"), &[], "").await;
        assert_eq!(answer.status, status, "{query}");
        let place = if status == 201 { format!("/v2/to/blobs/{digest}") } else { "/v2/to/blobs/uploads/".to_owned() };
        assert!(answer.header("location").starts_with(&place));
    }
    assert_eq!(registry.get(&format!("/v2/to/blobs/{digest}")).await.body, "blob");
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_and_an_index_does_not_need_its_children() {
    let registry = Registry::start().await;
    let (config, layer) = (Digest::of(b"config"), Digest::of(b"layer"));
    let describe = |kind: &str, digest: &Digest, urls: &[&str]| json!({ "mediaType": kind, "digest": digest, "size": 6, "urls": urls });
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let manifest = |kind: &str, urls: &[&str]| {
        let config = describe("application/vnd.oci.image.config.v1+json", &config, &[]);
        json!({ "schemaVersion": 2, "config": config, "layers": [describe(kind, &layer, urls)] }).to_string()
    };
    let ordinary = "application/vnd.oci.image.layer.v1.tar+gzip";
    let put = |body: String| registry.send("PUT", "/v2/app/manifests/1", &[("content-type", OCI_MANIFEST)], body);
    let missing = put(manifest(ordinary, &[])).await;
    assert_eq!((missing.status, missing.codes()), (400, vec!["MANIFEST_BLOB_UNKNOWN".to_owned(); 2]));
    assert_eq!(missing.json()["errors"][1]["detail"], json!(layer));
    registry.blob("app", b"config").await;
    assert_eq!(put(manifest(ordinary, &["https://example.com/"])).await.codes(), ["MANIFEST_BLOB_UNKNOWN"]);
    assert_eq!(put(manifest(foreign, &[])).await.codes(), ["MANIFEST_BLOB_UNKNOWN"]);
    assert_eq!(put(manifest(foreign, &["https://example.com/"])).await.status, 201);
    registry.blob("elsewhere", b"layer").await;
    assert_eq!(put(manifest(ordinary, &[])).await.codes(), ["MANIFEST_BLOB_UNKNOWN"], "in this repository");
    registry.blob("app", b"layer").await;
    let done = put(manifest(ordinary, &[])).await;
    let digest = Digest::of(manifest(ordinary, &[]).as_bytes());
    assert_eq!(done.status, 201);
    assert_eq!(done.header("location"), format!("/v2/app/manifests/{digest}"));
    assert_eq!(done.header("docker-content-digest"), digest.to_string());

    let index = json!({ "schemaVersion": 2, "manifests": [describe(OCI_MANIFEST, &Digest::of(b"absent"), &[])] });
    let sparse = registry.send("PUT", "/v2/app/manifests/sparse", &[("content-type", OCI_INDEX)], index.to_string());
    assert_eq!(sparse.await.status, 201);
}

#[tokio::test]
async fn a_manifest_has_four_mebibytes_at_the_most() {
    let registry = Registry::start().await;
    for (length, status) in [(4 << 20, 201), ((4 << 20) + 1, 413)] {
        let mut index = br#"{"schemaVersion":2,"manifests":[]"#.to_vec();
        index.resize(length - 1, b' ');
        index.push(b'}');
        let known = registry.send("PUT", "/v2/a/manifests/x", &[("content-type", OCI_INDEX)], index.clone()).await;
        assert_eq!(known.status, status);
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(index)]));
        let streamed = registry.send("PUT", "/v2/a/manifests/x", &[("content-type", OCI_INDEX)], stream).await;
        assert_eq!(streamed.status, status);
    }
}

#[tokio::test]
async fn manifests_of_sha512() {
    let registry = Registry::start().await;
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = Digest::Sha512([0; 64]).same_algorithm_of(index);
    let path = format!("/v2/a/manifests/{digest}");
    assert_eq!(registry.send("PUT", &path, &[("content-type", OCI_INDEX)], index.to_vec()).await.status, 201);
    assert_eq!(registry.get(&path).await.body, index.to_vec());
}

#[tokio::test]
async fn deleting() {
    let (registry, image) = seeded().await;
    let by_digest = format!("/v2/team/app/manifests/{}", image.root.digest);
    assert_eq!(registry.send("DELETE", "/v2/team/app/manifests/1.0", &[], "").await.status, 202);
    assert_eq!(registry.get("/v2/team/app/manifests/1.0").await.status, 404);
    assert_eq!(registry.get(&by_digest).await.status, 200, "a tag is only a name");
    assert_eq!(registry.send("DELETE", &by_digest, &[], "").await.status, 202);
    assert_eq!(registry.get(&by_digest).await.status, 404);
    let digest = registry.blob("team/app", b"blob").await;
    let blob = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(registry.send("DELETE", &blob, &[], "").await.status, 202);
    assert_eq!(registry.get(&blob).await.status, 404);
}
