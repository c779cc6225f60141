//! Which login goes where, and when a helper is asked for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::credentials::tests::{FakeHelpers, knows, knows_none};
use super::super::login::{LoginCheck, LoginForm};
use super::server::{Seen, Server, cut, reply};
use super::*;
use crate::error::{Error, Kind};
use crate::oci::{Descriptor, Digest, MediaType};

const BODY: &str = r#"{"tags":["1"]}"#;
const BASIC: &str = r#"Basic realm="x""#;
/// me:old and me:new
const OLD: &str = "Basic bWU6b2xk";
const NEW: &str = "Basic bWU6bmV3";

/// A file that leaves everything to a helper.
const HELPED: &str = r#"{"credsStore": "x"}"#;

/// A helper that has another secret when it is asked again.
fn renewing(user: &'static str) -> Arc<FakeHelpers> {
    FakeHelpers::new(move |_, nth| knows(user, if nth == 0 { "old" } else { "new" }))
}

fn nobody_asks() -> Credentials {
    Credentials::from_json(HELPED)
}

/// A registry that takes `good` and challenges with a token server of its own; that answers as `token` says.
async fn guarded(token: impl Fn(&Seen) -> axum::response::Response + Clone + Send + Sync + 'static) -> Server {
    Server::start(move |seen| {
        if seen.target.starts_with("/token") {
            return token(seen);
        }
        let realm = format!(r#"Bearer realm="http://{}/token",service="s""#, seen.header("host"));
        match seen.header("authorization") {
            "Bearer good" => reply(200, &[], BODY),
            _ => reply(401, &[("www-authenticate", &realm)], ""),
        }
    })
    .await
}

fn good() -> axum::response::Response {
    reply(200, &[], r#"{"token":"good","expires_in":300}"#)
}

fn of_path(server: &Server, path: &str) -> usize {
    server.seen().iter().filter(|seen| seen.target.starts_with(path)).count()
}

#[tokio::test]
async fn a_registry_that_wants_no_login_starts_no_helper() {
    for status in [200, 403, 404, 500, 401] {
        // A 401 without a challenge that is known asks for nothing that could be shown.
        let server = Server::start(move |_| reply(status, &[("www-authenticate", "Negotiate")], BODY)).await;
        let asked = remote_as(&server, nobody_asks()).tags().await;
        assert_eq!(asked.is_ok(), status == 200 || status == 404, "{status}");
        assert!(server.seen().iter().all(|seen| seen.header("authorization").is_empty()));
    }
}

#[tokio::test]
async fn no_login_follows_a_redirect_and_no_other_host_can_ask_for_one() {
    let storage = Server::start(|_| reply(401, &[("www-authenticate", BASIC)], "")).await;
    let elsewhere = storage.url("/storage");
    let server = Server::start(move |seen| match seen.header("authorization") {
        OLD => reply(307, &[("location", &elsewhere)], ""),
        _ => reply(401, &[("www-authenticate", BASIC)], ""),
    })
    .await;
    let file = format!(
        r#"{{"auths": {{"{}": {{"auth": "bWU6b2xk"}}, "{}": {{"auth": "bWU6b2xk"}}}}}}"#,
        server.registry(),
        storage.registry()
    );
    assert!(remote_as(&server, Credentials::from_json(&file)).tags().await.is_err());
    assert_eq!(storage.lines(), ["GET /storage"]);
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_empty()));
    // The same without a login for the first: the second one's challenge is not taken for its.
    let elsewhere = storage.url("/storage");
    let open = Server::start(move |_| reply(307, &[("location", &elsewhere)], "")).await;
    assert!(remote_as(&open, nobody_asks()).tags().await.is_err());
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_login_is_not_shown_at_a_path_that_another_host_chose() {
    // The registry's own address, by way of the other one.
    let there = Server::start(|seen| {
        let back = format!("{}/v2/other/secrets", seen.target.trim_start_matches("/?"));
        reply(307, &[("location", &back)], "")
    })
    .await;
    let elsewhere = there.url("");
    let server = Server::start(move |seen| match seen.header("authorization") {
        OLD => {
            let location = format!("{elsewhere}/?http://{}", seen.header("host"));
            reply(307, &[("location", &location)], "")
        }
        _ => reply(401, &[("www-authenticate", BASIC)], ""),
    })
    .await;
    let file = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6b2xk"}}}}}}"#, server.registry());
    assert!(remote_as(&server, Credentials::from_json(&file)).tags().await.is_err());
    let seen = server.seen();
    let back = seen.iter().find(|seen| seen.target == "/v2/other/secrets").unwrap();
    assert_eq!(back.header("authorization"), "");
}

#[tokio::test]
async fn a_token_server_sees_the_login_of_the_registry_that_named_it_and_no_other() {
    let tokens = Server::start(|_| good()).await;
    let realm = format!(r#"Bearer realm="{}",service="s""#, tokens.url("/token"));
    let registry = || {
        let realm = realm.clone();
        Server::start(move |seen| match seen.header("authorization") {
            "Bearer good" => reply(200, &[], BODY),
            _ => reply(401, &[("www-authenticate", &realm)], ""),
        })
    };
    let (one, other) = (registry().await, registry().await);
    let file = format!(
        r#"{{"auths": {{"{}": {{"auth": "bWU6b2xk"}}, "{}": {{"auth": "bWU6bmV3"}}}}}}"#,
        one.registry(),
        tokens.registry()
    );
    let credentials = Credentials::from_json(&file);
    remote_as(&one, credentials.clone()).tags().await.unwrap();
    remote_as(&other, credentials).tags().await.unwrap();
    let shown: Vec<String> = tokens.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(shown, [OLD, ""]);
    for registry in [one, other] {
        assert!(registry.seen().iter().all(|seen| !seen.header("authorization").starts_with("Basic")));
    }
}

#[tokio::test]
async fn a_helper_is_asked_once_for_many_requests() {
    let server = Server::start(|seen| match seen.header("authorization") {
        OLD => reply(200, &[], BODY),
        _ => reply(401, &[("www-authenticate", BASIC)], ""),
    })
    .await;
    let helpers = renewing("me");
    let remote = &remote_as(&server, Credentials::from_files(&[HELPED], helpers.clone()));
    let all = futures_util::future::join_all((0..8).map(|_| remote.tags())).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(helpers.asked(), [format!("docker-credential-x {}", server.registry())]);
}

#[tokio::test]
async fn a_password_that_ended_is_asked_for_again() {
    let server = Server::start(|seen| match seen.header("authorization") {
        NEW => reply(200, &[], BODY),
        _ => reply(401, &[("www-authenticate", BASIC)], ""),
    })
    .await;
    let helpers = renewing("me");
    let remote = remote_as(&server, Credentials::from_files(&[HELPED], helpers.clone()));
    // Asked for in this very request, it is taken for what the helper has. Refused later, it has ended: the same request goes on
    // with a newer one.
    assert!(remote.tags().await.is_err());
    assert!(remote.tags().await.is_ok());
    assert!(remote.tags().await.is_ok());
    assert_eq!(helpers.asked().len(), 2);
    // One that is never taken does not start a program each time.
    let never = Server::start(|_| reply(401, &[("www-authenticate", BASIC)], "")).await;
    let helpers = FakeHelpers::new(|_, nth| knows("me", &format!("pw{nth}")));
    let remote = remote_as(&never, Credentials::from_files(&[HELPED], helpers.clone()));
    for _ in 0..5 {
        assert_eq!(remote.tags().await.unwrap_err().kind(), Kind::Refused);
    }
    assert_eq!(helpers.asked().len(), 2);
}

#[tokio::test]
async fn a_refresh_token_that_ended_is_asked_for_again() {
    let server = guarded(|seen| match String::from_utf8_lossy(&seen.body).contains("refresh_token=new") {
        true => good(),
        false => reply(401, &[], ""),
    })
    .await;
    let helpers = renewing("<token>");
    remote_as(&server, Credentials::from_files(&[HELPED], helpers.clone())).tags().await.unwrap();
    assert_eq!(helpers.asked().len(), 2);
    // POST and GET with the old one, POST with the new one.
    assert_eq!(of_path(&server, "/token"), 3);
}

#[tokio::test]
async fn a_helper_that_fails_is_told_and_not_tried_again() {
    let server = guarded(|_| good()).await;
    let helpers = FakeHelpers::new(|_, _| Err(Error::failed("it did not end within 30 s")));
    let remote = remote_as(&server, Credentials::from_files(&[HELPED], helpers.clone()));
    for _ in 0..2 {
        let error = remote.tags().await.unwrap_err();
        let expected = format!("ask docker-credential-x for the login of {}: it did not end", server.registry());
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!((error.kind(), error.side()), (Kind::Failed, Some(Side::Source)));
        assert!(error.help_text().is_some());
    }
    assert_eq!(helpers.asked().len(), 1);
    assert_eq!(of_path(&server, "/token"), 0);
    // One that knows nothing leaves us nobody, which may be enough.
    let helpers = FakeHelpers::new(|_, _| knows_none());
    remote_as(&server, Credentials::from_files(&[HELPED], helpers)).tags().await.unwrap();
}

#[tokio::test]
async fn a_registry_token_is_shown_as_it_is() {
    let server = guarded(|_| panic!("the token server was asked")).await;
    let with = |token: &str| {
        let file = format!(r#"{{"auths": {{"{}": {{"registrytoken": "{token}"}}}}}}"#, server.registry());
        remote_as(&server, Credentials::from_json(&file))
    };
    with("good").tags().await.unwrap();
    let before = server.lines().len();
    let error = with("s3cr3t").tags().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
    assert_eq!(server.lines().len() - before, 2);
}

#[tokio::test]
async fn a_token_server_that_knows_the_other_form_alone_gets_the_password_in_it() {
    for status in [404, 405] {
        let server = guarded(move |seen| match seen.method.as_str() {
            "POST" => reply(200, &[], r#"{"access_token":"good","expires_in":300}"#),
            _ => reply(status, &[], ""),
        })
        .await;
        remote_as(&server, Credentials::of(server.registry(), "me", "p w")).tags().await.unwrap();
        let seen = server.seen();
        assert_eq!(seen[2].line(), "POST /token");
        let form = "grant_type=password&username=me&password=p+w&service=s&client_id=sealift&scope=repository%3Ateam%2Fapp%3Apull";
        assert_eq!(String::from_utf8_lossy(&seen[2].body), form);
        assert_eq!(seen[2].header("content-type"), "application/x-www-form-urlencoded");
        // Nobody has nothing to post.
        let error = remote(&server).tags().await.unwrap_err();
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
    // One that repeats what it was told.
    let server = guarded(|_| reply(401, &[], format!("me:{} is nobody", "s3cr3t".repeat(100)))).await;
    let error =
        remote_as(&server, Credentials::of(server.registry(), "me", &"s3cr3t".repeat(100))).tags().await.unwrap_err();
    assert!(error.to_string().ends_with("401 me:… is nobody"), "{error}");
    assert!(error.help_text().unwrap().contains("the credentials that were given"), "{error:?}");
    assert_eq!(server.lines().len(), 2, "a password that is refused is not posted as well");
}

#[tokio::test]
async fn fewer_rights_than_asked_for_cost_one_more_token_for_each_request() {
    let server = guarded(|_| reply(200, &[], r#"{"token":"less","expires_in":300}"#)).await;
    let remote = remote_as(&server, Credentials::of(server.registry(), "me", "pw"));
    for tokens in 1..=3 {
        let error = remote.tags().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.help_text().unwrap().contains("rights on team/app"), "{error:?}");
        assert_eq!(of_path(&server, "/token"), tokens);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_went_out_bare_beside_others_may_meet_a_token_that_has_ended() {
    // Both go out bare; the second is heard when the first has had its token, which is good for one request.
    let (bare, spent): (Arc<AtomicUsize>, Arc<std::sync::Mutex<Vec<String>>>) = Default::default();
    let server = Server::start(move |seen| {
        if seen.target.starts_with("/token") {
            return reply(200, &[], format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.nth));
        }
        let shown = seen.header("authorization").to_owned();
        let waits = shown.is_empty() && bare.fetch_add(1, Ordering::SeqCst) > 0;
        while waits && spent.lock().unwrap().is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let mut spent = spent.lock().unwrap();
        if shown.is_empty() || spent.contains(&shown) {
            let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host"));
            return reply(401, &[("www-authenticate", &realm)], "");
        }
        spent.push(shown);
        reply(200, &[], r#"{"tags":["a"]}"#)
    })
    .await;
    let remote = remote(&server);
    let (one, other) = futures_util::future::join(remote.tags(), remote.tags()).await;
    assert_eq!((one.unwrap().unwrap().len(), other.unwrap().unwrap().len()), (1, 1));
    assert_eq!(of_path(&server, "/token"), 2);
}

#[tokio::test]
async fn a_download_goes_on_with_a_new_token_when_its_own_has_ended() {
    const SIZE: usize = 300_000;
    const PIECE: usize = 60_000;
    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes(SIZE));
    // Each token is good for one request, and says that it lives long.
    let spent: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let server = Server::start(move |seen| {
        if seen.target.starts_with("/token") {
            return reply(200, &[], format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.nth));
        }
        let shown = seen.header("authorization").to_owned();
        let mut spent = spent.lock().unwrap();
        if shown.is_empty() || spent.contains(&shown) {
            let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host"));
            return reply(401, &[("www-authenticate", &realm)], "");
        }
        spent.push(shown);
        let from = seen.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        let from: usize = from.map_or(0, |from| from.parse().unwrap());
        let (told, length) = (format!("bytes {from}-{}/{SIZE}", SIZE - 1), (SIZE - from).to_string());
        let status = if from == 0 { 200 } else { 206 };
        let piece = bytes(SIZE).slice(from..(from + PIECE).min(SIZE));
        reply(status, &[("content-range", &told), ("content-length", &length)], cut(piece))
    })
    .await;
    let remote = remote_as(&server, Credentials::of(server.registry(), "me", "pw"));
    assert_eq!(read(remote.open_blob(&layer, 0).await.unwrap()).await.unwrap(), bytes(SIZE));
    let seen = server.seen();
    let begun = seen.iter().filter(|seen| seen.target.contains("/blobs/") && !seen.header("authorization").is_empty());
    let ranges: std::collections::BTreeSet<&str> = begun.map(|seen| seen.header("range")).collect();
    assert_eq!(ranges.len(), SIZE / PIECE, "{ranges:?}");
    assert_eq!(of_path(&server, "/token"), SIZE / PIECE);
}

/// A registry that refuses an upload without reading it, and closes: the answer may be lost in what was not read.
#[tokio::test]
async fn an_upload_that_is_refused_before_it_was_read_begins_again_with_a_new_token() {
    const SIZE: usize = 3_000_000;
    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes(SIZE));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let (puts, whole) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (ended.clone(), puts.clone(), whole.clone());
    let serve = async move |mut stream: TcpStream| {
        let (ended, puts, whole) = &counts;
        let (head, mut taken) = head_of(&mut stream).await;
        let is_put = head.starts_with("put ");
        if is_put {
            puts.fetch_add(1, Ordering::SeqCst);
            ended.store(true, Ordering::SeqCst);
        }
        let good = if ended.load(Ordering::SeqCst) { "t2" } else { "t1" };
        let challenge = format!("www-authenticate: Bearer realm=\"http://{address}/token\"\r\n");
        let (status, header, body) = match () {
            () if head.starts_with("get /token") => ("200 OK", String::new(), format!(r#"{{"token":"{good}"}}"#)),
            () if !head.contains(&format!("authorization: bearer {good}\r\n")) => ("401 No", challenge, String::new()),
            () if head.starts_with("post ") => ("202 Accepted", "location: /upload\r\n".to_owned(), String::new()),
            () if is_put => {
                let mut buffer = vec![0; 64 * 1024];
                while taken < SIZE {
                    taken += stream.read(&mut buffer).await.unwrap();
                }
                whole.fetch_add(1, Ordering::SeqCst);
                ("201 Created", String::new(), String::new())
            }
            () => ("404 Not Found", String::new(), String::new()),
        };
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = Arc::clone(&serve);
            tokio::spawn(async move { serve(stream).await });
        }
    });
    let repository = format!("{address}/team/app").parse().unwrap();
    let remote = client(&Config::default(), Credentials::anonymous()).repository(&repository);
    remote.push_blob(&layer, |_| async { Ok(Body::full(bytes(SIZE))) }).await.unwrap();
    assert_eq!((puts.load(Ordering::SeqCst), whole.load(Ordering::SeqCst)), (2, 1));
}

/// The head of a request in lower case, and how many bytes came after it.
async fn head_of(stream: &mut TcpStream) -> (String, usize) {
    let mut seen = Vec::new();
    loop {
        let mut buffer = vec![0; 16 * 1024];
        let read = stream.read(&mut buffer).await.unwrap();
        seen.extend_from_slice(&buffer[..read]);
        if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            return (String::from_utf8_lossy(&seen[..end + 2]).to_ascii_lowercase(), seen.len() - end - 4);
        }
        assert!(read > 0, "a request without an end");
    }
}

#[tokio::test]
async fn a_mount_asks_for_rights_on_both_repositories() {
    let server = guarded(|_| good()).await;
    let remote = remote_as(&server, Credentials::of(server.registry(), "me", "pw"));
    remote.mount(&Digest::of(b"x"), &server.repository("other/app")).await.unwrap();
    let seen = server.seen();
    let asked = seen.iter().find(|seen| seen.target.starts_with("/token")).unwrap();
    let scopes = "scope=repository%3Aother%2Fapp%3Apull&scope=repository%3Ateam%2Fapp%3Apull%2Cpush";
    assert!(asked.target.ends_with(scopes), "{}", asked.target);
}

async fn check(server: &Server, credentials: Credentials, path: Option<&str>) -> LoginCheck {
    client(&Config::default(), credentials).check_login(&server.registry(), path).await
}

#[tokio::test]
async fn a_check_says_which_login_it_was_and_whether_it_works() {
    let server = guarded(|seen| match seen.header("authorization") {
        OLD => good(),
        _ => reply(401, &[], ""),
    })
    .await;
    let works = check(&server, Credentials::of(server.registry(), "me", "old"), None).await;
    let login = works.login.unwrap();
    assert_eq!((login.user.as_deref(), login.form), (Some("me"), Some(LoginForm::Password)));
    assert!(works.wanted && works.result.is_ok(), "{:?}", works.result);
    assert_eq!(server.lines(), ["GET /v2/", "GET /token?service=s", "GET /v2/"]);
    // The repository is asked for with a token of its own.
    let path = Some("team/app");
    let works = check(&server, Credentials::of(server.registry(), "me", "old"), path).await;
    assert!(works.result.is_ok(), "{:?}", works.result);
    assert!(server.lines().contains(&"HEAD /v2/team/app/manifests/latest".to_owned()), "{:?}", server.lines());
    let wrong = check(&server, Credentials::of(server.registry(), "me", "s3cr3t"), path).await;
    assert!(wrong.login.is_some() && wrong.wanted);
    assert!(!format!("{wrong:?}").contains("s3cr3t"), "{wrong:?}");
    assert_eq!(wrong.result.unwrap_err().kind(), Kind::Refused);
    let nobody = check(&server, Credentials::anonymous(), path).await;
    assert!(nobody.login.is_none() && nobody.wanted);
    let error = nobody.result.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.help_text().unwrap().contains("docker login"), "{error:?}");
}

#[tokio::test]
async fn a_check_lets_nobody_in_where_the_repository_is_public() {
    // Without a scope the token server wants a login.
    let server = guarded(|seen| if seen.target.contains("scope=") { good() } else { reply(401, &[], "") }).await;
    let public = check(&server, Credentials::anonymous(), Some("team/app")).await;
    assert!(public.result.is_ok(), "{:?}", public.result);
    assert!(check(&server, Credentials::anonymous(), None).await.result.is_err());
}

#[tokio::test]
async fn a_check_finds_the_login_that_one_repository_wants() {
    let server = Server::start(|seen| match (seen.target.as_str(), seen.header("authorization")) {
        ("/v2/", _) => reply(200, &[], "{}"),
        (_, OLD) => reply(404, &[], ""),
        _ => reply(401, &[("www-authenticate", BASIC)], ""),
    })
    .await;
    let credentials = || Credentials::of(server.registry(), "me", "old");
    assert!(!check(&server, credentials(), None).await.wanted);
    let checked = check(&server, credentials(), Some("team/app")).await;
    assert!(checked.wanted && checked.result.is_ok(), "{:?}", checked.result);
    assert_eq!(checked.login.unwrap().form, Some(LoginForm::Password));
}

#[tokio::test]
async fn a_check_starts_a_helper_only_for_a_registry_that_wants_a_login() {
    let open = Server::start(|_| reply(200, &[], "{}")).await;
    let checked = check(&open, nobody_asks(), None).await;
    assert!(!checked.wanted && checked.result.is_ok());
    let login = checked.login.unwrap();
    assert_eq!((login.origin.helper.as_deref(), login.form), (Some("x"), None));
    let closed = guarded(|_| good()).await;
    let helpers = FakeHelpers::new(|_, _| knows("<token>", "t"));
    let checked = check(&closed, Credentials::from_files(&[HELPED], helpers.clone()), Some("team/app")).await;
    assert_eq!(checked.login.unwrap().form, Some(LoginForm::IdentityToken));
    assert_eq!(helpers.asked().len(), 1);
    let failing = FakeHelpers::new(|_, _| Err(Error::failed("it is not on the PATH")));
    let checked = check(&closed, Credentials::from_files(&[HELPED], failing.clone()), Some("team/app")).await;
    assert_eq!(checked.result.unwrap_err().kind(), Kind::Failed);
    assert_eq!(failing.asked().len(), 1);
    let none = Server::start(|_| reply(404, &[], "")).await;
    let error = check(&none, nobody_asks(), None).await.result.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.help_text().unwrap().contains("no registry"), "{error:?}");
}
