use super::super::{REFERRERS_MAX, ReferrersForm};
use super::server::{Server, error, reply};
use super::*;
use crate::oci::{Digest, Tag};

const INDEX: (&str, &str) = ("content-type", "application/vnd.oci.image.index.v1+json");
const LIST: &str = "/v2/team/app/tags/list";
const NO_NAME: &str = r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#;

fn texts(tags: Option<Vec<Tag>>) -> Vec<String> {
    tags.unwrap_or_default().iter().map(Tag::to_string).collect()
}

#[tokio::test]
async fn tags_come_in_pages_or_all_at_once() {
    let server = Server::start(|seen| match seen.target.trim_start_matches(LIST) {
        "?n=1000" => reply(200, &[("link", &format!("<{LIST}?last=b&n=2>; rel=\"next\""))], r#"{"tags":["b","a"]}"#),
        "?last=b&n=2" => {
            let link = format!("<https://{}{LIST}?last=c>; rel=next", seen.header("host"));
            reply(200, &[("link", &link)], r#"{"tags":["c","a","../x",""]}"#)
        }
        "?last=c" => reply(200, &[], r#"{"tags":null}"#),
        other => panic!("{other}"),
    })
    .await;
    assert_eq!(texts(remote(&server).tags().await.unwrap()), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_list_of_tags_ends() {
    let link = |target: &str| format!("<{target}>; rel=next");
    let rows = [
        (200, link(&format!("{LIST}?n=1000")), Some(vec!["x"])),
        (200, link("http://elsewhere.example/v2/"), None),
        (404, String::new(), Some(vec![])),
        (403, String::new(), None),
    ];
    for (status, link, expected) in rows {
        let server = Server::start(move |_| reply(status, &[("link", &link)], r#"{"tags":["x"]}"#)).await;
        assert_eq!(
            remote(&server).tags().await.ok().map(texts),
            expected.map(|e| e.into_iter().map(Into::into).collect())
        );
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn tags_of_every_kind_of_server() {
    // One that ignores `n` and sorts nothing; one that repeats a page under another link; one that ends with a link to
    // nothing new; pages in a circle.
    let link = |target: &str| format!("<{LIST}?{target}>; rel=next");
    let unsorted = Server::start(|_| reply(200, &[], r#"{"name":"x","tags":["c","a","c","b"]}"#)).await;
    assert_eq!(texts(remote(&unsorted).tags().await.unwrap()), ["a", "b", "c"]);
    let repeats = Server::start(move |seen| match seen.nth {
        0 => reply(200, &[("link", &link("last=b"))], r#"{"tags":["a","b"]}"#),
        1 => reply(200, &[("link", &link("last=b&again"))], r#"{"tags":["a","b"]}"#),
        2 => reply(200, &[("link", &link("last=c"))], r#"{"tags":["c"]}"#),
        _ => reply(200, &[], r#"{"tags":[]}"#),
    })
    .await;
    assert_eq!(texts(remote(&repeats).tags().await.unwrap()), ["a", "b", "c"]);
    assert_eq!(repeats.lines().len(), 4);
    let circle = Server::start(move |seen| {
        let next = if seen.target.ends_with("page=1") { "page=2" } else { "page=1" };
        reply(200, &[("link", &link(next))], r#"{"tags":["a"]}"#)
    })
    .await;
    let error = remote(&circle).tags().await.unwrap_err();
    assert!(error.to_string().contains("in a row that bring nothing new"), "{error}");
    assert!(circle.lines().len() <= 12);
    for nonsense in ["", "[]", r#"{"tags":"a"}"#, r#"{"tags":[1]}"#, r#"{"tags":{"a":"b"}}"#] {
        let server = Server::start(move |_| reply(200, &[], nonsense)).await;
        let error = remote(&server).tags().await.unwrap_err();
        assert!(error.to_string().contains("no list of tags"), "{nonsense}: {error}");
    }
}

fn index(digests: impl IntoIterator<Item = Digest>) -> String {
    let children: Vec<String> = digests
        .into_iter()
        .map(|d| format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{d}","size":1}}"#))
        .collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","))
}

#[tokio::test]
async fn referrers_by_api_or_fallback_tag() {
    let subject = Digest::of(b"subject");
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let image = ("content-type", "application/vnd.oci.image.manifest.v1+json");
    type Answer = (u16, (&'static str, &'static str), String);
    let plain = ("content-type", "text/plain");
    let strict = ("content-type", "application/vnd.oci.image.index.v1+json; charset=utf-8");
    let json = ("content-type", "application/json");
    let rows: [(Answer, Answer, ReferrersForm, &[Digest]); 14] = [
        ((200, INDEX, index([one, one])), (404, plain, String::new()), ReferrersForm::Api, &[one]),
        ((200, INDEX, index([])), (200, INDEX, index([one])), ReferrersForm::Api, &[]),
        ((404, plain, "404 page not found".into()), (200, INDEX, index([two])), ReferrersForm::FallbackTag, &[two]),
        ((200, plain, "{}".into()), (200, INDEX, index([two])), ReferrersForm::FallbackTag, &[two]),
        ((400, plain, "".into()), (404, plain, "".into()), ReferrersForm::Absent, &[]),
        // cosign's copies leave the image under this tag.
        ((404, plain, "".into()), (200, image, r#"{"config":{}}"#.into()), ReferrersForm::Absent, &[]),
        ((406, plain, "".into()), (200, plain, "no manifest".into()), ReferrersForm::Absent, &[]),
        // An index with a parameter of its type is one; a 200 of another type is a page for people, or the wrong API.
        ((200, strict, index([one])), (404, plain, "".into()), ReferrersForm::Api, &[one]),
        ((200, json, index([one])), (200, INDEX, index([two])), ReferrersForm::FallbackTag, &[two]),
        ((200, image, index([one])), (404, plain, "".into()), ReferrersForm::Absent, &[]),
        ((405, plain, "".into()), (200, INDEX, index([two])), ReferrersForm::FallbackTag, &[two]),
        ((501, plain, "".into()), (200, INDEX, index([two])), ReferrersForm::FallbackTag, &[two]),
        // A repository that is not there has neither.
        ((404, json, NO_NAME.into()), (404, json, NO_NAME.into()), ReferrersForm::Absent, &[]),
        // A fallback tag may list nothing any more.
        ((404, plain, "".into()), (200, INDEX, index([])), ReferrersForm::FallbackTag, &[]),
    ];
    for (at, (api, fallback, form, expected)) in rows.into_iter().enumerate() {
        let tag = format!("/v2/team/app/manifests/{}", Tag::referrers_fallback(&subject));
        let server = Server::start(move |seen| match &seen.target {
            target if *target == format!("/v2/team/app/referrers/{subject}") => reply(api.0, &[api.1], api.2.clone()),
            target if *target == tag => reply(fallback.0, &[fallback.1], fallback.2.clone()),
            other => panic!("{other}"),
        })
        .await;
        let found = remote(&server).referrers(&subject).await.unwrap();
        let digests: Vec<Digest> = found.descriptors.iter().map(|d| d.digest).collect();
        assert_eq!((found.form, digests.as_slice()), (form, expected), "row {at}");
    }
}

#[tokio::test]
async fn referrers_in_pages_and_too_many() {
    let server = Server::start(|seen| match seen.target.split_once('?') {
        None => reply(200, &[INDEX, ("link", "<?page=2>; rel=next")], index([Digest::of(b"1")])),
        Some(_) => reply(200, &[INDEX], index([Digest::of(b"2")])),
    })
    .await;
    assert_eq!(remote(&server).referrers(&Digest::of(b"x")).await.unwrap().descriptors.len(), 2);
    let all = index((0..=REFERRERS_MAX).map(|n| Digest::of(&n.to_le_bytes())));
    let server = Server::start(move |_| reply(200, &[INDEX], all.clone())).await;
    assert!(remote(&server).referrers(&Digest::of(b"x")).await.is_err());
    // The same behind the fallback tag, and page by page.
    let all = index((0..=REFERRERS_MAX).map(|n| Digest::of(&n.to_le_bytes())));
    let server = Server::start(move |seen| match seen.target.contains("/referrers/") {
        true => error(404, "UNKNOWN"),
        false => reply(200, &[INDEX], all.clone()),
    })
    .await;
    let error_text = |error: crate::Error| format!("{error:?}");
    let told = error_text(remote(&server).referrers(&Digest::of(b"x")).await.unwrap_err());
    assert!(told.contains("more than 1000 referrers") && told.contains("carry: none"), "{told}");
    let server = Server::start(|seen| {
        let next = format!("<?page={}>; rel=next", seen.nth);
        reply(200, &[INDEX, ("link", &next)], index([Digest::of(&seen.nth.to_le_bytes())]))
    })
    .await;
    assert!(remote(&server).referrers(&Digest::of(b"x")).await.is_err());
    assert_eq!(server.lines().len(), REFERRERS_MAX + 1);
    // Pages in a circle, and pages that are large and say little.
    let server = Server::start(|seen| {
        let next = if seen.target.ends_with("page=1") { "<?page=2>; rel=next" } else { "<?page=1>; rel=next" };
        reply(200, &[INDEX, ("link", next)], index([]))
    })
    .await;
    let told = error_text(remote(&server).referrers(&Digest::of(b"x")).await.unwrap_err());
    assert!(told.contains("in a row that bring nothing new"), "{told}");
    let server = Server::start(|seen| {
        let next = format!("<?page={}>; rel=next", seen.nth);
        let large = index([]) + &" ".repeat(4_000_000);
        reply(200, &[INDEX, ("link", &next)], large)
    })
    .await;
    assert!(remote(&server).referrers(&Digest::of(b"x")).await.is_err());
    assert_eq!(server.lines().len(), 5);
    // A list that ends in the middle is not the list.
    let server = Server::start(|seen| match seen.nth {
        0 => reply(200, &[INDEX, ("link", "<?page=2>; rel=next")], index([Digest::of(b"1")])),
        _ => error(404, "UNKNOWN"),
    })
    .await;
    assert!(remote(&server).referrers(&Digest::of(b"x")).await.is_err());
    // Never filtered: a filter of the registry may be none.
    assert!(server.lines().iter().all(|line| !line.contains("artifactType")));
    // Not being allowed to look is not the same as nothing there.
    let server = Server::start(|_| error(403, "DENIED")).await;
    assert!(remote(&server).referrers(&Digest::of(b"x")).await.is_err());
}

#[tokio::test]
async fn the_api_is_asked_for_once() {
    let rows = [(200, true, 1), (404, false, 1)];
    for (status, expected, requests) in rows {
        let server = Server::start(move |_| reply(status, &[INDEX], index([]))).await;
        let remote = remote(&server);
        assert_eq!(remote.supports_referrers().await.unwrap(), expected);
        assert_eq!(remote.supports_referrers().await.unwrap(), expected);
        assert_eq!(server.lines().len(), requests);
    }
    let server =
        Server::start(|seen| if seen.nth == 0 { error(404, "NAME_UNKNOWN") } else { reply(200, &[INDEX], index([])) })
            .await;
    let remote = remote(&server);
    assert!(!remote.supports_referrers().await.unwrap());
    assert!(remote.supports_referrers().await.unwrap());
}
