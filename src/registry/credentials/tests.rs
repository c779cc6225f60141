//! Files and helpers together. The helpers are no programs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::helper::{Programs, Said};
use super::*;
use crate::error::{Error, Kind};

/// What a helper says; it gets the program, and how many were asked before.
type Answer = Box<dyn Fn(&str, usize) -> Result<Said> + Send + Sync>;

/// Helpers that answer as a test says, and remember who was asked for what.
pub(in crate::registry) struct FakeHelpers {
    answer: Answer,
    asked: Mutex<Vec<String>>,
    /// Two at the same time are a mistake.
    busy: AtomicBool,
}

impl FakeHelpers {
    pub(in crate::registry) fn new(answer: impl Fn(&str, usize) -> Result<Said> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(FakeHelpers { answer: Box::new(answer), asked: Mutex::default(), busy: AtomicBool::new(false) })
    }

    /// `program server` of each.
    pub(in crate::registry) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl fmt::Debug for FakeHelpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeHelpers")
    }
}

impl Programs for FakeHelpers {
    fn get<'a>(&'a self, program: &'a str, server: &'a str) -> BoxFuture<'a, Result<Said>> {
        async move {
            assert!(!self.busy.swap(true, Ordering::SeqCst), "asked twice at once");
            tokio::task::yield_now().await;
            let mut asked = self.asked.lock().unwrap();
            asked.push(format!("{program} {server}"));
            self.busy.store(false, Ordering::SeqCst);
            (self.answer)(program, asked.len() - 1)
        }
        .boxed()
    }
}

/// A login, as a helper says it.
pub(in crate::registry) fn knows(user: &str, secret: &str) -> Result<Said> {
    let answer = format!(r#"{{"ServerURL":"x","Username":"{user}","Secret":"{secret}"}}"#);
    Ok(Said { failed: None, answer: answer.into(), words: Vec::new() })
}

/// What a helper says that knows nothing.
pub(in crate::registry) fn knows_none() -> Result<Said> {
    Ok(Said {
        failed: Some("it ended".into()),
        answer: b"credentials not found in native keychain".into(),
        words: Vec::new(),
    })
}

fn is_sealed() -> Result<Said> {
    Ok(Said { failed: Some("it ended".into()), answer: Vec::new(), words: b"the vault is sealed".into() })
}

impl Credentials {
    /// What one file with this text would say.
    pub(in crate::registry) fn from_json(text: &str) -> Self {
        Self::from_files(&[text], FakeHelpers::new(|program, _| panic!("{program} was asked")))
    }

    /// What these files would say, in their order.
    pub(in crate::registry) fn from_files(texts: &[&str], programs: Arc<FakeHelpers>) -> Self {
        let parsed = |text: &&str| serde_json::from_str(text).unwrap();
        let file = |(at, text)| AuthFile::from_value(format!("file {at}"), &parsed(text));
        let files = texts.iter().enumerate().map(file).collect();
        Credentials(Arc::new(Inner { files, places: Vec::new(), helpers: Helpers::new(programs) }))
    }
}

async fn found(credentials: &Credentials, registry: &str, path: &str) -> Option<(String, String)> {
    let found = credentials.find(&registry.parse().unwrap(), path).await.unwrap()?;
    let text = match found.login {
        Login::Password { user, password } => format!("{user}:{}", password.expose()),
        Login::Identity { user, token } => format!("{user}!{}", token.expose()),
        Login::Bearer { token } => format!("={}", token.expose()),
    };
    Some((text, found.origin.to_string()))
}

#[tokio::test]
async fn a_helper_comes_first_and_what_it_does_not_know_may_stand_in_the_file() {
    let helpers = FakeHelpers::new(|program, _| match program {
        "docker-credential-own" => knows("helped", "pw"),
        _ => knows_none(),
    });
    let first = r#"{"credHelpers": {"a.example": "own"}, "credsStore": "all",
        "auths": {"a.example": {"auth": "YTpi"}, "b.example": {"auth": "YTpi"}, "c.example": {}}}"#;
    let second = r#"{"auths": {"a.example": {"auth": "YzpkAAA="}, "c.example": {"auth": "YzpkAAA="}}}"#;
    let credentials = Credentials::from_files(&[first, second], helpers.clone());
    let rows = [
        ("a.example", Some(("helped:pw", r#"docker-credential-own, which file 0 names (credHelpers "a.example")"#))),
        ("b.example", Some(("a:b", r#"file 0 (auths "b.example")"#))),
        ("c.example", Some(("c:d", r#"file 1 (auths "c.example")"#))),
        ("d.example", None),
    ];
    for (registry, expected) in rows {
        let found = found(&credentials, registry, "p").await;
        let found = found.as_ref().map(|(login, origin)| (login.as_str(), origin.as_str()));
        assert_eq!(found, expected, "{registry}");
    }
    let all = ["own a", "all b", "all c", "all d"].map(|row| format!("docker-credential-{row}.example"));
    assert_eq!(helpers.asked(), all);
}

#[tokio::test]
async fn docker_hub_has_the_name_that_helpers_know() {
    let helpers = FakeHelpers::new(|_, _| knows("<token>", "refresh"));
    let credentials = Credentials::from_files(&[r#"{"credsStore": "x"}"#], helpers.clone());
    for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
        assert_eq!(found(&credentials, name, "library/nginx").await.unwrap().0, "!refresh");
    }
    // The name that podman gave it.
    let podman = FakeHelpers::new(|_, nth| if nth == 0 { knows_none() } else { knows("me", "pw") });
    let of_podman = Credentials::from_files(&[r#"{"credsStore": "x"}"#], podman.clone());
    assert_eq!(found(&of_podman, "docker.io", "library/nginx").await.unwrap().0, "me:pw");
    assert_eq!(podman.asked(), ["docker-credential-x https://index.docker.io/v1/", "docker-credential-x docker.io"]);
    assert_eq!(found(&credentials, "r.example:5000", "p").await.unwrap().0, "!refresh");
    assert_eq!(
        helpers.asked(),
        ["docker-credential-x https://index.docker.io/v1/", "docker-credential-x r.example:5000"]
    );
}

#[tokio::test]
async fn many_at_once_ask_a_helper_once() {
    let helpers = FakeHelpers::new(|_, _| knows("me", "pw"));
    let credentials = &Credentials::from_files(&[r#"{"credsStore": "x"}"#], helpers.clone());
    let all = (0..20).map(|n| async move { found(credentials, "r.example", &format!("p{n}")).await.unwrap() });
    assert!(futures_util::future::join_all(all).await.iter().all(|(login, _)| login == "me:pw"));
    assert_eq!(helpers.asked().len(), 1);
}

#[tokio::test]
async fn a_refused_login_of_a_helper_is_asked_for_again_but_not_for_ever() {
    let helpers = FakeHelpers::new(|_, nth| knows("me", &format!("pw{nth}")));
    let credentials = Credentials::from_files(&[r#"{"credsStore": "x"}"#], helpers.clone());
    let registry = "r.example".parse().unwrap();
    let old = credentials.find(&registry, "p").await.unwrap().unwrap();
    let renewed = credentials.renew(&registry, "p", &old).await.unwrap().unwrap();
    assert_ne!(old, renewed);
    // Whoever comes later with the old one gets what is there.
    assert_eq!(credentials.renew(&registry, "p", &old).await.unwrap(), Some(renewed.clone()));
    assert_eq!(credentials.find(&registry, "p").await.unwrap(), Some(renewed.clone()));
    // The new one is refused at once: another program would not help.
    assert_eq!(credentials.renew(&registry, "p", &renewed).await.unwrap(), None);
    assert_eq!(helpers.asked().len(), 2);
}

#[tokio::test]
async fn the_same_again_is_nothing_new() {
    let helpers = FakeHelpers::new(|_, _| knows("me", "pw"));
    let credentials = Credentials::from_files(&[r#"{"credsStore": "x"}"#], helpers.clone());
    let registry = "r.example".parse().unwrap();
    let old = credentials.find(&registry, "p").await.unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(credentials.renew(&registry, "p", &old).await.unwrap(), None);
    }
    assert_eq!(helpers.asked().len(), 2);
    let written = Credentials::of(registry.clone(), "me", "pw");
    let old = written.find(&registry, "p").await.unwrap().unwrap();
    assert_eq!(written.renew(&registry, "p", &old).await.unwrap(), None);
}

#[tokio::test]
async fn a_helper_that_fails_is_an_error_and_rests() {
    let helpers = FakeHelpers::new(|_, _| is_sealed());
    let file = r#"{"credsStore": "vault", "auths": {"r.example": {"auth": "YTpi"}}}"#;
    let credentials = Credentials::from_files(&[file], helpers.clone());
    for _ in 0..2 {
        let error = credentials.find(&"r.example".parse().unwrap(), "p").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        let said = "find credentials, as file 0 says: ask docker-credential-vault for the login of r.example: it ended: the vault is sealed";
        assert_eq!(error.to_string(), said);
        assert!(error.help_text().unwrap().contains("docker-credential-vault list"), "{error:?}");
    }
    assert_eq!(helpers.asked().len(), 1);
    let gone = FakeHelpers::new(|_, _| Err(Error::failed("it is not on the PATH")));
    let credentials = Credentials::from_files(&[file], gone);
    assert!(credentials.find(&"r.example".parse().unwrap(), "p").await.is_err());
}

#[tokio::test]
async fn what_is_known_asks_nobody() {
    let helpers = FakeHelpers::new(|_, _| knows("me", "s3cr3t"));
    let file = r#"{"credHelpers": {"a.example": "x"}, "auths": {"b.example": {"auth": "eDpzM2NyM3Q="}}}"#;
    let credentials = Credentials::from_files(&[file], helpers.clone());
    let known = |registry: &str| credentials.known(&registry.parse().unwrap(), "p").map(|origin| origin.entry);
    assert_eq!((known("a.example"), known("b.example")), (None, Some(r#"auths "b.example""#.to_owned())));
    assert!(helpers.asked().is_empty());
    found(&credentials, "a.example", "p").await.unwrap();
    assert_eq!(known("a.example").as_deref(), Some(r#"credHelpers "a.example""#));
    let shown = format!("{credentials:?}");
    assert!(!shown.contains("s3cr3t") && shown.contains("b.example"), "{shown}");
}
