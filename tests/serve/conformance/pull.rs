//! "Pull": end-1, end-2, end-3.

use super::*;

#[tokio::test]
async fn it_says_that_it_implements_the_specification() {
    for Case { over, registry, .. } in cases().await {
        assert_eq!(registry.get("/v2/").await.status, 200, "{over}");
    }
}

#[tokio::test]
async fn a_manifest_is_pulled_and_asked_for_by_tag_and_by_digest() {
    for Case { over, registry, .. } in cases().await {
        for artifact in [Artifact::image(), Artifact::index()] {
            assert_eq!(artifact.push(&registry, "app", "1.0").await.status, 201);
            let digest = artifact.digest().to_string();
            for name in ["1.0", &digest] {
                let path = format!("/v2/app/manifests/{name}");
                let (got, head) = (registry.get(&path).await, registry.send("HEAD", &path, &[], "").await);
                assert_eq!((got.status, head.status), (200, 200), "{over} {name}");
                assert_eq!(got.body, artifact.bytes(), "{over} {name}");
                for answer in [&got, &head] {
                    assert_eq!(answer.header("content-type"), artifact.media_type, "as it was pushed, no parameters");
                    assert_eq!(answer.header("docker-content-digest"), digest);
                    assert_eq!(answer.header("content-length"), artifact.bytes().len().to_string());
                }
            }
        }
    }
}

#[tokio::test]
async fn a_blob_is_pulled_and_asked_for() {
    for Case { over, registry, .. } in cases().await {
        let digest = registry.blob("app", b"a blob").await;
        let path = format!("/v2/app/blobs/{digest}");
        let (got, head) = (registry.get(&path).await, registry.send("HEAD", &path, &[], "").await);
        assert_eq!((got.status, head.status, &got.body[..]), (200, 200, &b"a blob"[..]), "{over}");
        for answer in [got, head] {
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            assert_eq!(answer.header("content-length"), "6");
        }
        let part = registry.send("GET", &path, &[("range", "bytes=2-3")], "").await;
        assert_eq!((part.status, &part.body[..], part.header("content-range")), (206, &b"bl"[..], "bytes 2-3/6"));
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let absent = Digest::of(b"absent");
    for Case { over, registry, .. } in cases().await {
        Artifact::image().push(&registry, "app", "1.0").await;
        for repository in ["app", "none"] {
            for path in [
                format!("/v2/{repository}/manifests/none"),
                format!("/v2/{repository}/manifests/{absent}"),
                format!("/v2/{repository}/blobs/{absent}"),
            ] {
                assert_eq!(registry.get(&path).await.status, 404, "{over} {path}");
                assert_eq!(registry.send("HEAD", &path, &[], "").await.status, 404, "{over} {path}");
            }
        }
        assert_eq!(registry.get("/v2/none/manifests/1.0").await.status, 404, "{over}: a repository that is not there");
        let elsewhere = format!("/v2/none/manifests/{}", Artifact::image().digest());
        assert_eq!(registry.get(&elsewhere).await.status, 404, "{over}: a manifest of another repository");
    }
}
