use super::server::{Seen, Server, error, reply};
use super::*;
use crate::Kind;

const BODY: &str = r#"{"tags":["1"]}"#;

/// A registry with a token server in it: `token` decides what a request for a token gets.
async fn guarded(token: impl Fn(&Seen) -> Option<String> + Clone + Send + Sync + 'static) -> Server {
    Server::start(move |seen| {
        let address = seen.header("host").to_owned();
        if seen.target.starts_with("/token") {
            return match token(seen) {
                Some(token) => reply(200, &[], format!(r#"{{"token":"{token}","expires_in":300}}"#)),
                None => error(401, "UNAUTHORIZED"),
            };
        }
        if seen.header("authorization") == "Bearer good" {
            return reply(200, &[], BODY);
        }
        let challenge =
            format!(r#"Bearer realm="http://{address}/token?a=b",service="s, t",scope="repository:team/app:pull""#);
        reply(401, &[("www-authenticate", &challenge)], "")
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_for_its_scope_and_kept() {
    let server = guarded(|_| Some("good".into())).await;
    let remote = remote_as(&server, Credentials::of(server.registry(), "me", "pw"));
    remote.tags().await.unwrap();
    remote.tags().await.unwrap();
    let token = "/token?a=b&service=s%2C+t&scope=repository%3Ateam%2Fapp%3Apull";
    let list = "GET /v2/team/app/tags/list?n=1000";
    assert_eq!(server.lines(), [list.to_owned(), format!("GET {token}"), list.into(), list.into()]);
    let seen = server.seen();
    assert_eq!(seen[0].header("authorization"), "");
    assert_eq!(seen[1].header("authorization"), "Basic bWU6cHc=");
    // Writing needs another token, which is had before anything is sent.
    let name = crate::oci::Name::Digest(crate::oci::Digest::of(b"{}"));
    remote.put_manifest(&name, &crate::oci::MediaType::OCI_MANIFEST, "{}".into()).await.unwrap();
    let lines = server.lines();
    assert!(lines[4].ends_with("scope=repository%3Ateam%2Fapp%3Apull%2Cpush"), "{lines:?}");
    assert_eq!(lines.len(), 6);
}

#[tokio::test]
async fn nobody_gets_a_token_without_credentials_too() {
    let server = guarded(|seen| seen.header("authorization").is_empty().then(|| "good".into())).await;
    assert!(remote(&server).tags().await.is_ok());
}

#[tokio::test]
async fn the_second_401_is_final_and_says_where_was_looked() {
    let server = guarded(|_| Some("bad".into())).await;
    let error = remote(&server).tags().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let said = format!("source: list tags of {0}/team/app: {0} answered 401 Unauthorized", server.address);
    assert_eq!(error.to_string(), said);
    assert!(error.help_text().unwrap().contains("no credentials file was found"), "{error:?}");
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn a_refused_token_is_no_passing_trouble() {
    let server = guarded(|_| None).await;
    let remote = remote_as(&server, Credentials::of(server.registry(), "me", "s3cr3t"));
    let error = remote.tags().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.help_text().unwrap().contains("log in again"), "{error:?}");
    assert!(!format!("{error:?}").contains("s3cr3t"));
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_token_that_ends_early_is_fetched_again() {
    let server = Server::start(|seen| {
        let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host"));
        match (seen.target.starts_with("/token"), seen.header("authorization")) {
            (true, _) => reply(200, &[], format!(r#"{{"access_token":"t{}"}}"#, seen.nth)),
            // The first token is good once.
            (false, "Bearer t1") if seen.nth == 2 => reply(200, &[], BODY),
            (false, "Bearer t4") => reply(200, &[], BODY),
            _ => reply(401, &[("www-authenticate", &realm)], ""),
        }
    })
    .await;
    let remote = remote(&server);
    remote.tags().await.unwrap();
    remote.tags().await.unwrap();
    assert_eq!(server.lines().len(), 6);
}

#[tokio::test]
async fn basic_is_answered_once() {
    let server = Server::start(|seen| match seen.header("authorization") {
        "Basic bWU6cHc=" => reply(200, &[], BODY),
        _ => reply(401, &[("www-authenticate", r#"Basic realm="x""#)], ""),
    })
    .await;
    assert!(remote_as(&server, Credentials::of(server.registry(), "me", "pw")).tags().await.is_ok());
    let wrong = remote_as(&server, Credentials::of(server.registry(), "me", "no"));
    let before = server.lines().len();
    let error = wrong.tags().await.unwrap_err();
    assert!(error.help_text().unwrap().contains("may not do this"), "{error:?}");
    assert_eq!(server.lines().len() - before, 2);
}

#[tokio::test]
async fn trouble_that_passes_is_tried_again() {
    for (status, headers) in [(429, vec![("retry-after", "0")]), (503, vec![]), (500, vec![]), (408, vec![])] {
        let server = Server::start(move |seen| match seen.nth {
            0..4 => reply(status, &headers, ""),
            _ => reply(200, &[], BODY),
        })
        .await;
        assert!(remote(&server).tags().await.is_ok(), "{status}");
        assert_eq!(server.lines().len(), 5);
    }
    let server = Server::start(|_| reply(503, &[], "")).await;
    let error = remote(&server).tags().await.unwrap_err();
    assert!(error.to_string().contains("5 attempts, the last"), "{error}");
    assert_eq!(server.lines().len(), 5);
    for status in [400, 403, 405, 409, 413] {
        let server = Server::start(move |_| reply(status, &[], "")).await;
        assert!(remote(&server).tags().await.is_err());
        assert_eq!(server.lines().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_host() {
    let server = Server::start(|_| reply(200, &[], BODY)).await;
    let gone: crate::oci::Repository = "127.0.0.1:1/team/app".parse().unwrap();
    let remote = client(&Config::default(), Credentials::anonymous()).repository(&gone);
    let error = remote.tags().await.unwrap_err();
    assert!(error.to_string().contains("connect to 127.0.0.1:1"), "{error}");
    drop(server);
}

#[tokio::test]
async fn a_refresh_token_is_posted_or_else_shown_as_a_password() {
    // What the token server says to the POST, and what is asked after it.
    for (status, then) in [(200, "GET"), (405, "GET /token"), (401, "GET /token")] {
        let server = Server::start(move |seen| {
            let realm = format!(r#"Bearer realm="http://{}/token",service="s""#, seen.header("host"));
            match (seen.method.as_str(), seen.header("authorization")) {
                ("POST", _) => reply(status, &[], r#"{"access_token":"good"}"#),
                (_, "Bearer good") => reply(200, &[], BODY),
                (_, "Basic PHRva2VuPjpyZWZyZXNo") => reply(200, &[], r#"{"token":"good"}"#),
                _ => reply(401, &[("www-authenticate", &realm)], ""),
            }
        })
        .await;
        let file = format!(r#"{{"auths":{{"{}":{{"identitytoken":"refresh"}}}}}}"#, server.registry());
        remote_as(&server, Credentials::from_json(&file)).tags().await.unwrap();
        let seen = server.seen();
        let form = "grant_type=refresh_token&refresh_token=refresh&service=s&client_id=sealift&scope=repository%3Ateam%2Fapp%3Apull";
        assert_eq!((seen[1].line().as_str(), &seen[1].body[..]), ("POST /token", form.as_bytes()));
        assert!(seen[2].line().starts_with(then), "{:?}", server.lines());
    }
}
