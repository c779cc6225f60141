//! Secrets are nowhere: not in what any command says with `SEALIFT_LOG=trace`, whatever registries, token servers, object
//! stores and proxies do with what they were shown; not in what it writes; not in an argument list.
//!
//! Each place that holds a secret has one of its own, which is looked for as it is and in base64.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use sealift::sample::{ImageBuilder, seed};
use sealift::serve::{MemoryShelf, ShelfWriter, router};
use support::sound::files_below;
use support::{Machine, Ran};
use tokio::io::{AsyncBufReadExt, BufReader};

const USER: &str = "carrier";
const PASSWORD: &str = "canary-password-Qx7";
const WRONG: &str = "canary-wrong-password-Lm2";
const TOKEN: &str = "canary-token-Vb9";
const IDENTITY: &str = "canary-identity-token-Ke4";
const SIGNATURE: &str = "canary-signature-Ht6";
const SESSION: &str = "canary-session-Zr3";
const PROXY: &str = "canary-proxy-password-Wd8";
const WRITTEN: &str = "canary-in-an-address-Uf5";
const HELPED: &str = "canary-of-a-helper-Ny1";
const REGISTRY_TOKEN: &str = "canary-registry-token-Gj5";

const ALL: [&str; 10] = [PASSWORD, WRONG, TOKEN, IDENTITY, SIGNATURE, SESSION, PROXY, WRITTEN, HELPED, REGISTRY_TOKEN];

/// How a secret may look: as it is, and within any text in base64.
fn forms(secret: &str) -> Vec<String> {
    let encoded = (0..3).map(|shift| {
        let text = STANDARD.encode("x".repeat(shift) + secret);
        // What the characters before it, and the end, have a part in is left out.
        let first = if shift == 0 { 0 } else { shift + 1 };
        text[first..text.trim_end_matches('=').len() - 1].to_owned()
    });
    [secret.to_owned()].into_iter().chain(encoded).collect()
}

/// The secret that `bytes` hold.
fn found(bytes: &[u8]) -> Option<&'static str> {
    let holds = |form: &String| bytes.windows(form.len()).any(|window| window == form.as_bytes());
    ALL.into_iter().find(|secret| forms(secret).iter().any(holds))
}

fn assert_none(what: &str, bytes: &[u8]) {
    let found = found(bytes);
    assert_eq!(found, None, "{what}:\n{}", String::from_utf8_lossy(bytes));
}

#[test]
fn a_secret_is_found_in_every_form() {
    for secret in ALL {
        assert_eq!(found(format!("a {secret} b").as_bytes()), Some(secret));
        for name in ["", "u:", "us:", "use:"] {
            assert_eq!(found(STANDARD.encode(format!("{name}{secret}")).as_bytes()), Some(secret));
        }
    }
    assert_eq!(found(b"canary"), None);
}

/// How a registry behaves to someone whom it may know.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// It wants a token, sends readers of blobs to an object store, and has a secret in the addresses of uploads.
    Well,
    /// It takes no token, however often.
    Loop,
    /// It forbids everything and says what it was shown.
    Echo,
    /// The same, and it wants the password itself.
    EchoPassword,
    /// Its token server refuses, and says what it was shown.
    EchoAtDoor,
    /// Its object store refuses, and says what it was shown.
    EchoAtStore,
    /// Its object store sends readers on, for ever.
    Round,
    /// It takes no uploads, and says where they went.
    EchoUploads,
}

/// A registry, its token server and its object store, on one port.
#[derive(Clone)]
struct Guard {
    manner: Arc<Mutex<Manner>>,
    host: String,
}

impl Guard {
    async fn start(shelf: &MemoryShelf) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard =
            Guard { manner: Arc::new(Mutex::new(Manner::Well)), host: listener.local_addr().unwrap().to_string() };
        let service = router(Arc::new(shelf.clone())).layer(from_fn_with_state(guard.clone(), Self::answer));
        tokio::spawn(async { axum::serve(listener, service).await });
        guard
    }

    fn be(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    async fn answer(State(guard): State<Guard>, request: Request, next: Next) -> Response {
        let manner = *guard.manner.lock().unwrap();
        let path = request.uri().path().to_owned();
        if request.uri().path() == "/token" {
            return guard.token(manner, request).await;
        }
        if let Some(path) = path.strip_prefix("/bucket") {
            let path = path.to_owned();
            return guard.bucket(manner, &path, request, next).await;
        }
        let shown = text(request.headers(), &AUTHORIZATION);
        let known = match manner {
            Manner::EchoPassword => shown.starts_with("Basic "),
            Manner::Loop => false,
            _ => shown == format!("Bearer {TOKEN}") || shown == format!("Bearer {REGISTRY_TOKEN}"),
        };
        if !known {
            let bearer = format!(r#"Bearer realm="http://{}/token",service="guard""#, guard.host);
            let wanted = if manner == Manner::EchoPassword { r#"Basic realm="x""#.to_owned() } else { bearer };
            return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, wanted)]).into_response();
        }
        let upload = path.contains("/uploads/");
        match manner {
            Manner::Echo | Manner::EchoPassword => refusal(&shown, request.headers()),
            Manner::EchoUploads if request.method() == Method::PUT && upload => {
                refusal(&request.uri().to_string(), request.headers())
            }
            _ if request.method() == Method::GET && path.contains("/blobs/") => guard.send_on(&path),
            _ if upload => with_session(next.run(request).await),
            _ => next.run(request).await,
        }
    }

    async fn token(&self, manner: Manner, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        let shown = text(&parts.headers, &AUTHORIZATION);
        let told = format!("{shown} {}", String::from_utf8_lossy(&body));
        let good = shown == basic(PASSWORD) || shown == basic(HELPED) || told.contains(IDENTITY);
        match (manner, good) {
            (Manner::EchoAtDoor, _) => refusal(&told, &parts.headers),
            (_, true) => format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#).into_response(),
            (_, false) => (StatusCode::UNAUTHORIZED, format!("not you: {told}")).into_response(),
        }
    }

    fn send_on(&self, path: &str) -> Response {
        let address = format!("http://{}/bucket{path}?X-Amz-Signature={SIGNATURE}", self.host);
        (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, address)]).into_response()
    }

    async fn bucket(&self, manner: Manner, path: &str, mut request: Request, next: Next) -> Response {
        let signed = request.uri().query().is_some_and(|query| query.contains(SIGNATURE));
        assert!(signed, "the store is asked without its signature");
        match manner {
            Manner::EchoAtStore => {
                let text = format!(
                    "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>http://{}{}</Message><Signature>{SIGNATURE}</Signature></Error>",
                    self.host,
                    request.uri()
                );
                (StatusCode::FORBIDDEN, text).into_response()
            }
            Manner::Round => self.send_on(path),
            _ => {
                *request.uri_mut() = path.parse().unwrap();
                next.run(request).await
            }
        }
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{password}")))
}

/// 403, which tells everything that was shown: as it came, and decoded.
fn refusal(told: &str, headers: &HeaderMap) -> Response {
    let decoded: String = told
        .split_whitespace()
        .filter_map(|word| String::from_utf8(STANDARD.decode(word).ok()?).ok())
        .collect::<Vec<_>>()
        .join(" ");
    let error = serde_json::json!({"errors": [
        {"code": "DENIED", "message": format!("no rights for {told} ({decoded})"), "detail": {"headers": format!("{headers:?}"), "told": told}},
        {"code": "OTHER", "message": told},
    ]});
    (StatusCode::FORBIDDEN, error.to_string()).into_response()
}

/// The address of an upload with a secret in it.
fn with_session(mut response: Response) -> Response {
    if let Some(location) = response.headers().get(LOCATION) {
        let location = format!("{}?_state={SESSION}", location.to_str().unwrap());
        response.headers_mut().insert(LOCATION, location.parse().unwrap());
    }
    response
}

/// The machine, a source and a target that want to know who is there, and a folder with everything that may hold secrets.
struct World {
    machine: Machine,
    inputs: tempfile::TempDir,
    source: Guard,
    target: Guard,
}

impl World {
    async fn new() -> Self {
        let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(50_000, 1);
        let (shelf, inputs) = (MemoryShelf::new(), tempfile::tempdir().unwrap());
        let image = image.referrer("application/spdx+json", b"{}").build().unwrap();
        seed(&shelf as &dyn ShelfWriter, "team/app", Some(&"1".parse().unwrap()), &image).unwrap();
        let (source, target) = (Guard::start(&shelf).await, Guard::start(&MemoryShelf::new()).await);
        let machine = Machine::new();
        machine.write("spec.yaml", &spec(&source.host));
        machine.ok(&["key", "generate", "--out", "exporter"]).await;
        World { machine, inputs, source, target }
    }

    /// Logs in with a file of docker's or podman's, which holds what `entry` says of both registries.
    fn log_in(&mut self, variable: &str, entry: &serde_json::Value) {
        let auths: serde_json::Map<String, serde_json::Value> =
            [&self.source, &self.target].map(|guard| (guard.host.clone(), entry.clone())).into_iter().collect();
        let path = self.inputs.path().join("config.json");
        std::fs::write(&path, serde_json::json!({ "auths": auths }).to_string()).unwrap();
        self.machine.unset_all();
        self.machine.set(variable, if variable == "DOCKER_CONFIG" { self.inputs.path() } else { &path });
    }

    /// Runs sealift as chatty as it can be, and looks at everything that it says, writes and is called with. The end of
    /// what it says.
    async fn run(&self, what: &str, arguments: &[&str]) -> Ran {
        let mut command = self.machine.command(env!("CARGO_BIN_EXE_sealift"));
        command.args(arguments).arg("-vvv").env("SEALIFT_LOG", "trace");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id().unwrap();
        let mut lists = self.look_at(what, id);
        let ended = child.wait_with_output();
        tokio::pin!(ended);
        let output = loop {
            tokio::select! {
                output = &mut ended => break output.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(1)) => lists += self.look_at(what, id),
            }
        };
        assert!(lists > 0, "{what}: it was not seen while it ran");
        assert_none(what, &output.stdout);
        assert_none(what, &output.stderr);
        only_sealift_logs(what, &String::from_utf8_lossy(&output.stderr));
        self.look_at_files(what);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The argument lists of a process and of everything that it has started; how many.
    fn look_at(&self, what: &str, id: u32) -> usize {
        let Ok(list) = std::fs::read(format!("/proc/{id}/cmdline")) else { return 0 };
        assert_none(what, &list);
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let below: usize = children.split_whitespace().map(|child| self.look_at(what, child.parse().unwrap())).sum();
        below + usize::from(!list.is_empty())
    }

    /// Every file that is there, but for the inputs.
    fn look_at_files(&self, what: &str) {
        for (name, path) in files_below(self.machine.folder()) {
            // Temporary files of the catalog may have gone meanwhile.
            assert_none(&format!("{what}: {name}"), &std::fs::read(path).unwrap_or_default());
        }
    }

    /// Logs in with a helper, which is this script.
    fn log_in_by_helper(&mut self, script: &str) {
        let helper = self.inputs.path().join("docker-credential-canary");
        std::fs::write(&helper, format!("#!/bin/sh\ncat > /dev/null\n{script}\n")).unwrap();
        std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(self.inputs.path().join("config.json"), r#"{"credsStore": "canary"}"#).unwrap();
        self.machine.unset_all();
        self.machine.set("DOCKER_CONFIG", self.inputs.path());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.inputs.path().to_owned()].into_iter().chain(std::env::split_paths(&path));
        self.machine.set("PATH", std::env::join_paths(folders).unwrap());
    }

    async fn login_check(&self, what: &str) -> Ran {
        let repository = format!("{}/team/app", self.source.host);
        self.run(what, &["login", "check", &repository, "--output", "json"]).await;
        self.run(what, &["login", "check", &repository]).await
    }

    async fn pull(&self, what: &str) -> Ran {
        self.run(what, &["pull", "spec.yaml", "--store", "store"]).await
    }

    async fn replay(&self, what: &str) -> Ran {
        let to = format!("{}/mirror", self.target.host);
        let bundle = ["replay", "drive/secret-1-1", "--to", &to, "--key", "exporter.pub", "--state", "state"];
        self.run(what, &bundle).await
    }
}

/// What a library below logs in detail is what goes over the wire.
fn only_sealift_logs(what: &str, said: &str) {
    let details = said.lines().filter(|line| ["TRACE", "DEBUG", "INFO"].iter().any(|level| line.contains(level)));
    let foreign: Vec<&str> = details.filter(|line| !line.contains(" sealift::")).collect();
    assert!(foreign.is_empty(), "{what}: {foreign:#?}");
}

fn spec(host: &str) -> String {
    format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: secret\ndefaults:\n  platforms: [linux/amd64]\nimages:\n\
         \x20 - {{source: {host}/team/app, tags: {{exact: ['1']}}}}\n"
    )
}

fn password(password: &str) -> serde_json::Value {
    serde_json::json!({ "auth": STANDARD.encode(format!("{USER}:{password}")) })
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_tokens_and_signed_addresses_are_found_nowhere() {
    let mut world = World::new().await;
    world.log_in("DOCKER_CONFIG", &password(WRONG));
    let ran = world.pull("a wrong password").await;
    assert_eq!(ran.status, Some(4), "{}", ran.err);
    world.log_in("DOCKER_CONFIG", &password(PASSWORD));
    let rows = [
        (Manner::Loop, 4),
        (Manner::Echo, 4),
        (Manner::EchoPassword, 4),
        (Manner::EchoAtDoor, 4),
        (Manner::EchoAtStore, 4),
        (Manner::Round, 1),
    ];
    for (manner, status) in rows {
        world.source.be(manner);
        let what = format!("{manner:?}");
        let planned = world.run(&what, &["plan", "spec.yaml", "--store", "store"]).await;
        let ran = world.pull(&what).await;
        assert_eq!(ran.status, Some(status), "{what}: {}", ran.err);
        // Signed addresses are met with the first blob.
        let asked_blobs = matches!(manner, Manner::EchoAtStore | Manner::Round);
        assert_eq!(planned.status, Some(if asked_blobs { 0 } else { status }), "{what}: {}", planned.err);
    }
    world.source.be(Manner::Well);
    let ran = world.pull("everything is well").await;
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    let export = ["export", "secret", "--store", "store", "--to", "drive", "--sign-key", "exporter.key"];
    assert_eq!(world.run("export", &export).await.status, Some(0));
    let verify = ["verify", "drive/secret-1-1", "--key", "exporter.pub", "--state", "state"];
    assert_eq!(world.run("verify", &verify).await.status, Some(0));

    for manner in [Manner::Loop, Manner::Echo, Manner::EchoPassword, Manner::EchoAtDoor, Manner::EchoUploads] {
        world.target.be(manner);
        let ran = world.replay(&format!("replay, {manner:?}")).await;
        assert_eq!(ran.status, Some(4), "{manner:?}: {}", ran.err);
    }
    world.target.be(Manner::Well);
    world.log_in("REGISTRY_AUTH_FILE", &password(WRONG));
    assert_eq!(world.replay("replay, wrong password").await.status, Some(4));
    world.log_in("REGISTRY_AUTH_FILE", &password(PASSWORD));
    let ran = world.replay("replay, everything is well").await;
    assert_eq!(ran.status, Some(0), "{}\n{}", ran.out, ran.err);
}

/// Who pulls from sealift may show credentials too, and ask with whatever a proxy has put into the address.
#[tokio::test(flavor = "multi_thread")]
async fn what_clients_show_is_found_nowhere() {
    let mut world = World::new().await;
    world.log_in("DOCKER_CONFIG", &password(PASSWORD));
    assert_eq!(world.pull("pull").await.status, Some(0));
    let mut command = world.machine.command(env!("CARGO_BIN_EXE_sealift"));
    command.args(["serve", "store", "--writable", "--listen", "127.0.0.1:0", "-vvv"]).env("SEALIFT_LOG", "trace");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    let base = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["", "team/app/manifests/1", "team/app/tags/list", "team/app/blobs/sha256:0", "%00/manifests/1"] {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH] {
            let url = format!("{base}/v2/{path}?X-Amz-Signature={SIGNATURE}&_state={SESSION}");
            let request = client.request(method, url).header(AUTHORIZATION, format!("Bearer {TOKEN}")).body(IDENTITY);
            // It may be closed before all of it was sent.
            let _ = request.send().await;
        }
    }
    let id = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    assert!(world.look_at("serve", child.id().unwrap()) > 0);
    kill_process(id, Signal::TERM).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_none("serve", line.as_bytes());
    assert_none("serve", &output.stderr);
    only_sealift_logs("serve", &String::from_utf8_lossy(&output.stderr));
    world.look_at_files("serve");
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_tokens_are_found_nowhere() {
    let mut world = World::new().await;
    let identity = serde_json::json!({"auth": STANDARD.encode(format!("{USER}:")), "identitytoken": IDENTITY});
    world.log_in("REGISTRY_AUTH_FILE", &identity);
    world.source.be(Manner::EchoAtDoor);
    let ran = world.pull("an identity token that is refused").await;
    assert_eq!(ran.status, Some(4), "{}", ran.err);
    world.source.be(Manner::Well);
    let ran = world.pull("an identity token").await;
    assert_eq!(ran.status, Some(0), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_helpers_say_is_found_nowhere() {
    let mut world = World::new().await;
    let answer = format!(r#"sleep 0.05; echo '{{"Username":"{USER}","Secret":"{HELPED}"}}'"#);
    // It says on standard error what it should not, as some do with their debugging on.
    world.log_in_by_helper(&format!("echo 'warning: {HELPED}' >&2\n{answer}"));
    for manner in [Manner::Loop, Manner::Echo, Manner::EchoPassword, Manner::EchoAtDoor] {
        world.source.be(manner);
        let what = format!("a helper, {manner:?}");
        assert_eq!(world.pull(&what).await.status, Some(4), "{what}");
        assert_eq!(world.login_check(&what).await.status, Some(4), "{what}");
    }
    world.source.be(Manner::Well);
    let checked = world.login_check("a helper").await;
    assert_eq!(checked.status, Some(0), "{}", checked.err);
    assert!(checked.out.contains("docker-credential-canary") && checked.out.contains(USER), "{}", checked.out);
    let ran = world.pull("a helper").await;
    assert_eq!(ran.status, Some(0), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_tokens_and_credentials_of_systemd_are_found_nowhere() {
    let mut world = World::new().await;
    world.log_in("DOCKER_CONFIG", &serde_json::json!({ "registrytoken": REGISTRY_TOKEN }));
    for (manner, status) in [(Manner::Loop, 4), (Manner::Echo, 4), (Manner::Well, 0)] {
        world.source.be(manner);
        let what = format!("a registry token, {manner:?}");
        assert_eq!(world.pull(&what).await.status, Some(status), "{what}");
        assert_eq!(world.login_check(&what).await.status, Some(status), "{what}");
    }
    world.log_in("DOCKER_CONFIG", &password(PASSWORD));
    let folder = world.inputs.path().to_owned();
    std::fs::rename(folder.join("config.json"), folder.join("registry-auth.json")).unwrap();
    world.machine.unset_all();
    world.machine.set("CREDENTIALS_DIRECTORY", folder);
    for (manner, status) in [(Manner::EchoPassword, 4), (Manner::Well, 0)] {
        world.source.be(manner);
        let what = format!("credentials of systemd, {manner:?}");
        assert_eq!(world.pull(&what).await.status, Some(status), "{what}");
        assert_eq!(world.login_check(&what).await.status, Some(status), "{what}");
    }
}

/// A proxy for plain HTTP before a registry; it refuses tunnels, and says what it was shown.
async fn proxy(shelf: &MemoryShelf) -> String {
    async fn answer(request: Request, next: Next) -> Response {
        let shown = text(request.headers(), &PROXY_AUTHORIZATION);
        let welcome = shown == basic(PROXY) && request.method() != Method::CONNECT;
        match welcome {
            true => next.run(request).await,
            false => {
                let mut response = refusal(&shown, request.headers());
                *response.status_mut() = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
                response
            }
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let service = router(Arc::new(shelf.clone())).layer(axum::middleware::from_fn(answer));
    tokio::spawn(async { axum::serve(listener, service).await });
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_proxies_are_found_nowhere() {
    let mut world = World::new().await;
    let shelf = MemoryShelf::new();
    let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(1_000, 1).build().unwrap();
    seed(&shelf as &dyn ShelfWriter, "team/app", Some(&"1".parse().unwrap()), &image).unwrap();
    let address = format!("http://{USER}:{PROXY}@{}", proxy(&shelf).await);
    let config = "apiVersion: sealift/v1\nkind: Config\nregistries: {registry.test: {plainHttp: true}}\n";
    let config = world.machine.write("config.yaml", config);
    world.machine.write("spec.yaml", &spec("registry.test"));
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        world.machine.set(variable, &address);
    }
    world.machine.set("SEALIFT_CONFIG", config);
    let ran = world.pull("a proxy that knows us").await;
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    // With TLS it needs a tunnel, which it is refused.
    world.machine.write("spec.yaml", &spec("secure.test"));
    let ran = world.pull("a proxy that refuses a tunnel").await;
    assert!(matches!(ran.status, Some(1 | 4)), "{:?} {}", ran.status, ran.err);
    assert!(ran.err.contains("secure.test"), "{}", ran.err);
    let wrong = address.replace(USER, "nobody");
    world.machine.set("HTTP_PROXY", &wrong);
    world.machine.write("spec.yaml", &spec("registry.test"));
    let ran = world.pull("a proxy that does not know us").await;
    assert!(matches!(ran.status, Some(1 | 4)), "{:?} {}", ran.status, ran.err);
}

/// Where an address can be written, a password in it is refused and not shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_an_address_is_refused_and_not_shown() {
    let world = World::new().await;
    let write = |name: &str, text: &str| {
        let path = world.inputs.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let with = format!("{USER}:{WRITTEN}@{}", world.source.host);
    let bad_spec = write("spec.yaml", &spec(&with));
    let mirror = format!(
        "apiVersion: sealift/v1\nkind: Config\nregistries: {{docker.io: {{mirrors: ['https://{USER}:{WRITTEN}@mirror.corp']}}}}\n"
    );
    let config = write("config.yaml", &mirror);
    let keys = world.machine.path("exporter.pub");
    let site = format!(
        "apiVersion: sealift/v1\nkind: Site\nname: far\nregistry: '{with}'\nkeys: ['{}']\n",
        Path::new(&keys).display()
    );
    let site = write("site.yaml", &site);
    let rows: [&[&str]; 4] = [
        &["spec", "check", &bad_spec],
        &["pull", &bad_spec, "--store", "store"],
        &["pull", "spec.yaml", "--store", "store", "--config", &config],
        &["replay", "drive", "--site", &site, "--state", "state"],
    ];
    for arguments in rows {
        let ran = world.run(&arguments.join(" "), arguments).await;
        assert_eq!(ran.status, Some(2), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains("error"), "{arguments:?}: {}", ran.err);
    }
    // What somebody writes into an argument list is there; it is not repeated.
    let to = format!("{with}/mirror");
    let ran =
        world.machine.run_to(2, &["replay", "drive", "--to", &to, "--key", "exporter.pub", "--state", "state"]).await;
    assert_none("--to", ran.err.as_bytes());
}
