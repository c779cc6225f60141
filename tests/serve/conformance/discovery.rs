//! "Content Discovery": end-8a, end-8b, end-12a, end-12b.

use super::*;

/// Tags of one repository, in the order that the specification wants: case-insensitive alphanumeric.
const TAGS: [&str; 6] = ["0.9", "alpha", "Beta", "gamma", "Release-1", "test"];

async fn tagged(registry: &Registry) {
    for tag in TAGS.iter().rev() {
        assert_eq!(Artifact::image().push(registry, "app", tag).await.status, 201);
    }
}

async fn tags(registry: &Registry, query: &str) -> (Vec<String>, String) {
    let answer = registry.get(&format!("/v2/app/tags/list{query}")).await;
    assert_eq!(answer.status, 200, "{query}");
    let list = answer.json();
    assert_eq!(list["name"], "app");
    (serde_json::from_value(list["tags"].clone()).unwrap(), answer.header("link").to_owned())
}

#[tokio::test]
async fn tags_are_listed_in_order_whole_and_in_part() {
    for Case { over, registry, .. } in cases().await {
        tagged(&registry).await;
        let rows: [(&str, &[&str], bool); 8] = [
            ("", &TAGS, false),
            ("?n=4", &TAGS[..4], true),
            ("?n=6", &TAGS, false),
            ("?n=99", &TAGS, false),
            ("?n=0", &[], false),
            ("?n=2&last=alpha", &TAGS[2..4], true),
            ("?n=99&last=gamma", &TAGS[4..], false),
            ("?last=Beta", &TAGS[3..], false),
        ];
        for (query, expected, more) in rows {
            let (found, link) = tags(&registry, query).await;
            assert_eq!(found, expected, "{over} {query}");
            assert_eq!(link.ends_with("; rel=\"next\""), more, "{over} {query}: {link}");
        }
    }
}

#[tokio::test]
async fn the_link_leads_through_all_tags() {
    for Case { over, registry, .. } in cases().await {
        tagged(&registry).await;
        let (mut query, mut found) = ("?n=4".to_owned(), Vec::new());
        while !query.is_empty() {
            let (page, link) = tags(&registry, &query).await;
            found.extend(page);
            let next = link.strip_prefix("</v2/app/tags/list").and_then(|rest| rest.split_once('>'));
            query = next.map(|(next, _)| next.to_owned()).unwrap_or_default();
        }
        assert_eq!(found, TAGS, "{over}");
    }
}

#[tokio::test]
async fn a_repository_without_tags_has_an_empty_list() {
    for Case { over, registry, .. } in cases().await {
        Artifact::image().keep(&registry, "app").await;
        assert_eq!(tags(&registry, "").await.0, Vec::<String>::new(), "{over}");
        assert_eq!(registry.get("/v2/none/tags/list").await.status, 404, "{over}");
    }
}

/// Referrers of every kind, and what the list says of each: its type (none is left out) and its annotations.
fn referrers(subject: &Value) -> Vec<(Artifact, Value)> {
    let notes = json!({ "org.example.note": "n" });
    let of = |artifact: Artifact| artifact.with("subject", subject.clone()).with("annotations", notes.clone());
    vec![
        (of(Artifact::image()).with("artifactType", json!("a/typed")), json!("a/typed")),
        (of(Artifact::image()), json!(CONFIG)),
        (of(Artifact::image()).with("artifactType", json!("")), json!(CONFIG)),
        (of(Artifact::index()).with("artifactType", json!("a/index")), json!("a/index")),
        (of(Artifact::index()), Value::Null),
        (of(Artifact::index()).with("artifactType", json!("")), Value::Null),
    ]
}

async fn list(registry: &Registry, subject: impl std::fmt::Display, query: &str) -> (Answer, Vec<Value>) {
    let answer = registry.get(&format!("/v2/app/referrers/{subject}{query}")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, OCI_INDEX));
    let index = answer.json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    let manifests = index["manifests"].as_array().unwrap().clone();
    (answer, manifests)
}

#[tokio::test]
async fn referrers_are_listed_with_their_type_and_annotations() {
    for Case { over, registry, .. } in cases().await {
        let subject = Artifact::image();
        let expected = referrers(&subject.descriptor());
        for (referrer, _) in &expected {
            referrer.keep(&registry, "app").await;
        }
        // The subject came last, and is no referrer of its own.
        for pushed in [false, true] {
            if pushed {
                subject.keep(&registry, "app").await;
            }
            let (answer, found) = list(&registry, subject.digest(), "").await;
            assert_eq!(found.len(), expected.len(), "{over}");
            assert_eq!(answer.header("oci-filters-applied"), "", "{over}: none was asked for");
            for (referrer, kind) in &expected {
                let entry = found.iter().find(|entry| entry["digest"] == json!(referrer.digest())).unwrap();
                assert_eq!(entry["mediaType"], referrer.media_type, "{over}");
                assert_eq!(entry["size"], json!(referrer.bytes().len()), "{over}");
                assert_eq!(entry["artifactType"], *kind, "{over}: {}", referrer.document);
                assert_eq!(entry["annotations"], referrer.document["annotations"], "{over}");
                let pulled = registry.get(&format!("/v2/app/manifests/{}", referrer.digest())).await;
                assert_eq!(pulled.body, referrer.bytes(), "{over}: in the same repository");
            }
        }
    }
}

#[tokio::test]
async fn referrers_are_filtered_by_type() {
    for Case { over, registry, .. } in cases().await {
        let subject = Artifact::image();
        for (referrer, _) in referrers(&subject.descriptor()) {
            referrer.keep(&registry, "app").await;
        }
        for (kind, expected) in [("a/typed", 1), ("a%2Findex", 1), (&CONFIG.replace('+', "%2B"), 2), ("a/none", 0)] {
            let (answer, found) = list(&registry, subject.digest(), &format!("?artifactType={kind}")).await;
            assert_eq!(
                (found.len(), answer.header("oci-filters-applied")),
                (expected, "artifactType"),
                "{over} {kind}"
            );
        }
    }
}

#[tokio::test]
async fn a_list_of_no_referrers_is_empty_and_never_not_found() {
    for Case { over, registry, .. } in cases().await {
        Artifact::image().keep(&registry, "app").await;
        for subject in [Artifact::image().digest(), Digest::of(b"absent")] {
            assert_eq!(list(&registry, subject, "").await.1, Vec::<Value>::new(), "{over}");
        }
        for illegal in ["sha256:0", "1.0", "sha256"] {
            let answer = registry.get(&format!("/v2/app/referrers/{illegal}")).await;
            assert_eq!(answer.status, 400, "{over} {illegal}");
        }
    }
}
