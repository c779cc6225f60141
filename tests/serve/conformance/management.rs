//! "Content Management": end-9, end-10. That a registry which only reads answers 405 is tested in `refusals`.

use super::*;

#[tokio::test]
async fn a_tag_is_deleted_alone() {
    for Case { over, registry, .. } in cases().await {
        let image = Artifact::image();
        image.push(&registry, "app", "1.0").await;
        image.push(&registry, "app", "1").await;
        assert_eq!(registry.send("DELETE", "/v2/app/manifests/1.0", &[], "").await.status, 202, "{over}");
        assert_eq!(registry.get("/v2/app/manifests/1.0").await.status, 404, "{over}");
        for name in ["1".to_owned(), image.digest().to_string()] {
            assert_eq!(registry.get(&format!("/v2/app/manifests/{name}")).await.status, 200, "{over} {name}");
        }
        assert_eq!(registry.send("DELETE", "/v2/app/manifests/1.0", &[], "").await.status, 404, "{over}: it is gone");
    }
}

#[tokio::test]
async fn a_manifest_is_deleted_with_all_its_tags() {
    for Case { over, registry, .. } in cases().await {
        let (image, other) = (Artifact::image(), Artifact::image().with("annotations", json!({ "a": "b" })));
        for tag in ["1.0", "latest"] {
            image.push(&registry, "app", tag).await;
        }
        other.push(&registry, "app", "2.0").await;
        let path = format!("/v2/app/manifests/{}", image.digest());
        assert_eq!(registry.send("DELETE", &path, &[], "").await.status, 202, "{over}");
        for name in [image.digest().to_string(), "1.0".to_owned(), "latest".to_owned()] {
            assert_eq!(registry.get(&format!("/v2/app/manifests/{name}")).await.status, 404, "{over} {name}");
        }
        assert_eq!(registry.get("/v2/app/tags/list").await.json()["tags"], json!(["2.0"]), "{over}");
        assert_eq!(registry.get(&format!("/v2/app/manifests/{}", other.digest())).await.status, 200, "{over}");
        for gone in [path.clone(), path.replace("/app/", "/none/")] {
            assert_eq!(registry.send("DELETE", &gone, &[], "").await.status, 404, "{over} {gone}");
        }
        assert_eq!(image.push(&registry, "app", "1.0").await.status, 201, "{over}: it can be pushed again");
        assert_eq!(registry.get(&path).await.status, 200, "{over}");
    }
}

#[tokio::test]
async fn a_deleted_referrer_is_listed_no_longer() {
    for Case { over, registry, .. } in cases().await {
        let subject = Artifact::image();
        let referrer = Artifact::image().with("subject", subject.descriptor());
        subject.keep(&registry, "app").await;
        referrer.keep(&registry, "app").await;
        let list = format!("/v2/app/referrers/{}", subject.digest());
        let count = |answer: Answer| answer.json()["manifests"].as_array().unwrap().len();
        let delete = |digest: Digest| format!("/v2/app/manifests/{digest}");
        assert_eq!(registry.send("DELETE", &delete(subject.digest()), &[], "").await.status, 202, "{over}");
        assert_eq!(count(registry.get(&list).await), 1, "{over}: a referrer outlives its subject");
        assert_eq!(registry.send("DELETE", &delete(referrer.digest()), &[], "").await.status, 202, "{over}");
        assert_eq!(count(registry.get(&list).await), 0, "{over}");
    }
}

/// A store shares its blobs between repositories and streams, and removes none at a client's word: it has to say so.
#[tokio::test]
async fn a_blob_is_deleted_or_the_registry_says_that_it_deletes_none() {
    for Case { over, registry, .. } in cases().await {
        let path = format!("/v2/app/blobs/{}", registry.blob("app", b"a blob").await);
        let answer = registry.send("DELETE", &path, &[], "").await;
        let after = registry.get(&path).await.status;
        match over {
            "memory" => assert_eq!((answer.status, after), (202, 404)),
            _ => assert_eq!((answer.status, answer.codes(), after), (405, vec!["UNSUPPORTED".to_owned()], 200)),
        }
        let absent = format!("/v2/app/blobs/{}", Digest::of(b"absent"));
        assert_eq!(registry.send("DELETE", &absent, &[], "").await.status, 404, "{over}");
    }
}
