//! The pull side: manifests, blobs, lists, referrers.

use sealift::oci::{Descriptor, Digest, MediaType};
use sealift::sample::pseudo_random;
use sealift::serve::Shelf;
use serde_json::json;

use super::{OCI_INDEX, OCI_MANIFEST, Registry, seeded};

#[tokio::test]
async fn manifests_are_served_byte_for_byte() {
    let (registry, image) = seeded().await;
    let digest = image.root.digest.to_string();
    for name in ["1.0", &digest, &digest.replace(':', "%3A")] {
        let path = format!("/v2/team/app/manifests/{name}?ns=docker.io");
        let (got, head) = (registry.get(&path).await, registry.send("HEAD", &path, &[], "").await);
        assert_eq!(got.body, image.bytes(&image.root.digest).unwrap());
        assert!(head.body.is_empty());
        for answer in [got, head] {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), OCI_INDEX);
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert_eq!(answer.header("content-length"), image.root.size.to_string());
            assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        }
    }
    let known = |tag: String| async {
        let tag = tag;
        registry.send("GET", "/v2/team/app/manifests/1.0", &[("if-none-match", &tag)], "").await
    };
    for tag in [format!("\"{digest}\""), format!("W/\"{digest}\""), format!("\"x\", \"{digest}\""), "*".to_owned()] {
        let answer = known(tag).await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (304, digest.as_str()));
        assert!(answer.body.is_empty());
    }
    assert_eq!(known("\"x\"".to_owned()).await.status, 200);
}

#[tokio::test]
async fn a_left_out_child_is_not_there_though_its_bytes_are_a_blob() {
    let (registry, image) = seeded().await;
    let child = image.child("linux", "arm64", "").unwrap();
    let path = format!("/v2/team/app/manifests/{}", child.digest);
    assert_eq!(registry.send("DELETE", &path, &[], "").await.status, 202);
    registry.blob("team/app", image.bytes(&child.digest).unwrap()).await;
    assert_eq!(registry.get(&path).await.codes(), ["MANIFEST_UNKNOWN"]);
    assert_eq!(registry.get("/v2/team/app/manifests/1.0").await.status, 200);
}

#[tokio::test]
async fn ranges_of_blobs() {
    let registry = Registry::start().await;
    let bytes = pseudo_random(1000, 1);
    let digest = registry.blob("a", &bytes).await;
    let path = format!("/v2/a/blobs/{digest}");
    let etag = format!("\"{digest}\"");
    type Row<'a> = (&'a [(&'a str, &'a str)], u16, &'a str, std::ops::Range<usize>);
    let rows: [Row<'_>; 11] = [
        (&[], 200, "", 0..1000),
        (&[("range", "bytes=0-")], 206, "bytes 0-999/1000", 0..1000),
        (&[("range", "bytes=10-19")], 206, "bytes 10-19/1000", 10..20),
        (&[("range", "bytes=990-2000")], 206, "bytes 990-999/1000", 990..1000),
        (&[("range", "bytes=999-")], 206, "bytes 999-999/1000", 999..1000),
        (&[("range", "bytes=-5")], 206, "bytes 995-999/1000", 995..1000),
        (&[("range", "bytes=1-2,4-5")], 200, "", 0..1000),
        (&[("range", "nonsense")], 200, "", 0..1000),
        (&[("range", "bytes=10-19"), ("if-range", &etag)], 206, "bytes 10-19/1000", 10..20),
        (&[("range", "bytes=10-19"), ("if-range", "\"other\"")], 200, "", 0..1000),
        (&[("range", "bytes=0-0")], 206, "bytes 0-0/1000", 0..1),
    ];
    for (headers, status, content_range, part) in rows {
        let answer = registry.send("GET", &path, headers, "").await;
        assert_eq!((answer.status, answer.header("content-range")), (status, content_range), "{headers:?}");
        assert_eq!(answer.header("content-length"), part.len().to_string());
        assert_eq!(answer.body, bytes[part]);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    }
    for range in ["bytes=1000-", "bytes=5000-6000", "bytes=-0"] {
        let answer = registry.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */1000"), "{range}");
    }
    let head = registry.send("HEAD", &path, &[("range", "bytes=1-2")], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "1000", 0));
    assert_eq!(head.header("accept-ranges"), "bytes");
    let empty = registry.blob("a", b"").await;
    let answer = registry.get(&format!("/v2/a/blobs/{empty}")).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "0"));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let registry = Registry::start().await;
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    for name in ["b", "a", "C", "d"] {
        let path = format!("/v2/team/{}/manifests/{name}", name.to_lowercase());
        assert_eq!(registry.send("PUT", &path, &[("content-type", OCI_INDEX)], index.to_vec()).await.status, 201);
        let path = format!("/v2/tags/manifests/{name}");
        assert_eq!(registry.send("PUT", &path, &[("content-type", OCI_INDEX)], index.to_vec()).await.status, 201);
    }
    let all = registry.get("/v2/tags/tags/list").await;
    assert_eq!(all.json(), json!({ "name": "tags", "tags": ["a", "b", "C", "d"] }));
    assert_eq!(all.header("link"), "");
    for (list, member) in [("/v2/tags/tags/list", "tags"), ("/v2/_catalog", "repositories")] {
        let whole = registry.get(list).await.json()[member].clone();
        let (mut next, mut collected) = (format!("{list}?n=2"), Vec::new());
        loop {
            let page = registry.get(&next).await;
            let items = page.json()[member].as_array().unwrap().clone();
            assert!(items.len() <= 2);
            collected.extend(items);
            match page.header("link").strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) {
                Some(link) => next = link.to_owned(),
                None => break,
            }
        }
        assert_eq!(json!(collected), whole);
    }
    let none = registry.get("/v2/tags/tags/list?n=0").await;
    assert_eq!((none.status, none.json()["tags"].clone()), (200, json!([])));
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let (registry, image) = seeded().await;
    let path = format!("/v2/team/app/referrers/{}", image.root.digest);
    let all = registry.get(&path).await;
    assert_eq!((all.status, all.header("content-type")), (200, OCI_INDEX));
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(all.header("oci-filters-applied"), "");
    let filtered = registry.get(&format!("{path}?artifactType=application%2Fspdx%2Bjson")).await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let found = filtered.json()["manifests"].clone();
    assert_eq!(found[0]["artifactType"], "application/spdx+json");
    assert_eq!(found.as_array().unwrap().len(), 1);
    for nowhere in [format!("/v2/team/app/referrers/{}", Digest::of(b"x")), path.replace("team/app", "none")] {
        let none = registry.get(&nowhere).await;
        assert_eq!((none.status, none.json()["manifests"].clone()), (200, json!([])));
    }
    let artifact = image.referrers(&image.root.digest)[0].clone();
    let path = format!("/v2/team/app/manifests/{}", artifact.digest);
    let bytes = image.bytes(&artifact.digest).unwrap().clone();
    let put = registry.send("PUT", &path, &[("content-type", OCI_MANIFEST)], bytes).await;
    assert_eq!((put.status, put.header("oci-subject")), (201, image.root.digest.to_string().as_str()));
}

#[tokio::test]
async fn many_or_large_referrers_come_in_pages() {
    let registry = Registry::start().await;
    let subject = Digest::of(b"subject");
    let keep = |repository: &str, n: usize, note: &str| {
        let subject = json!({ "mediaType": OCI_INDEX, "digest": subject, "size": 7 });
        let annotations = json!({ "n": n.to_string(), "note": note });
        let artifact =
            json!({ "manifests": [], "subject": subject, "artifactType": "a/b", "annotations": annotations });
        let bytes = artifact.to_string();
        let descriptor = Descriptor::of(MediaType::OCI_INDEX, bytes.as_bytes());
        registry.shelf.writer().unwrap().put_manifest(repository, None, &descriptor, bytes.as_bytes()).unwrap();
    };
    for n in 0..501 {
        keep("a", n, "");
    }
    for n in 0..2 {
        keep("large", n, &"x".repeat(3 << 20));
    }
    let large = registry.get(&format!("/v2/large/referrers/{subject}")).await;
    assert_eq!(large.json()["manifests"].as_array().unwrap().len(), 1);
    assert!(large.header("link").contains("rel=\"next\""));
    let first = registry.get(&format!("/v2/a/referrers/{subject}?artifactType=a/b")).await;
    assert_eq!(first.json()["manifests"].as_array().unwrap().len(), 500);
    let next = first.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    let last = registry.get(&next).await;
    assert_eq!(last.json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!((last.header("link"), last.header("oci-filters-applied")), ("", "artifactType"));
}
