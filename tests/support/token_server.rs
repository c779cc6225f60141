//! [`TokenServer`]: a token server by distribution's token specification, whose tokens docker-registry believes.
//!
//! Both forms of asking (GET with Basic, POST of OAuth2), rights by user, and tokens that live as long as a test says: that is
//! what a registry in front of object storage, far away, does to a long transfer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ISSUER: &str = "sealift-tests";
const SERVICE: &str = "registry.tests";

/// How long after their end docker-registry still takes tokens, in seconds (its `Leeway`). Ends are set that much earlier.
const LEEWAY: i64 = 60;

/// Somebody who gets tokens.
#[derive(Clone)]
pub struct TokenUser {
    pub name: String,
    /// The password, and as well the refresh token.
    pub secret: String,
    /// What the user may do, whatever the repository.
    pub actions: Vec<String>,
}

/// How it answers.
#[derive(Clone)]
pub struct TokenRules {
    pub users: Vec<TokenUser>,
    /// How many seconds a token is good.
    pub life: i64,
    /// What it says of that; otherwise the truth.
    pub told_life: Option<i64>,
    /// Whether it knows the GET form. Where not, it answers 404.
    pub knows_get: bool,
    /// Whether it knows the POST form. Where not, it answers 405.
    pub knows_post: bool,
}

/// A request for a token.
#[derive(Clone, Debug)]
pub struct AskedToken {
    pub method: String,
    /// `basic`, `password`, `refresh_token` or nothing.
    pub grant: String,
    pub scopes: Vec<String>,
    /// Whether it got one.
    pub given: bool,
}

/// A running token server; stops when dropped.
pub struct TokenServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    folder: TempDir,
}

struct Shared {
    rules: Mutex<TokenRules>,
    asked: Mutex<Vec<AskedToken>>,
    key: EcdsaKeyPair,
    /// The certificate, as it stands in tokens.
    certificate: String,
}

/// Who asks, with what.
struct Asking {
    grant: String,
    user: String,
    secret: String,
    scopes: Vec<String>,
}

impl TokenUser {
    /// One who may pull and push everywhere.
    pub fn new(name: &str, secret: &str) -> Self {
        let actions = ["pull", "push"].map(str::to_owned).to_vec();
        TokenUser { name: name.to_owned(), secret: secret.to_owned(), actions }
    }
}

impl TokenRules {
    /// One user with all rights, both forms, five minutes.
    pub fn of(user: TokenUser) -> Self {
        TokenRules { users: vec![user], life: 300, told_life: None, knows_get: true, knows_post: true }
    }
}

impl TokenServer {
    /// Starts one with a key of its own; `None` when the test is to be skipped.
    pub async fn start(rules: TokenRules) -> Option<Self> {
        if !super::have(&["openssl"]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=token-server", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let pem = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let key = STANDARD.decode(body_of(&pem("key.pem"))).unwrap();
        let shared = Arc::new(Shared {
            rules: Mutex::new(rules),
            asked: Mutex::default(),
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).unwrap(),
            certificate: body_of(&pem("cert.pem")),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = Arc::clone(&shared);
        let handler = move |request: Request| {
            let shared = Arc::clone(&answering);
            async move { shared.answer(request).await }
        };
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, Router::new().fallback(handler)).await;
        });
        Some(TokenServer { address, shared, task, folder })
    }

    /// The `auth` section for a docker-registry that believes its tokens.
    pub fn section(&self) -> String {
        format!(
            "auth: {{token: {{realm: \"http://{}/token\", service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: \"{}\"}}}}",
            self.address,
            self.certificate().display()
        )
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Changes how it answers.
    pub fn change(&self, how: impl FnOnce(&mut TokenRules)) {
        how(&mut self.shared.rules.lock().unwrap());
    }

    /// The requests for tokens so far.
    pub fn asked(&self) -> Vec<AskedToken> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Forgets them.
    pub fn forget(&self) {
        self.shared.asked.lock().unwrap().clear();
    }

    /// A token with which a test itself pushes to `repository`: `Bearer …`.
    pub fn bearer(&self, repository: &str) -> String {
        let access = json!([{"type": "repository", "name": repository, "actions": ["pull", "push"]}]);
        format!("Bearer {}", self.shared.sign("tests", &access, 300))
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, 64 * 1024).await.unwrap_or_default();
        let rules = self.rules.lock().unwrap().clone();
        let query = parts.uri.query().unwrap_or_default();
        let asking = match parts.method {
            Method::GET => Asking::from_get(&parts.headers, query),
            Method::POST => Asking::from_post(&body),
            _ => return reply(405, &json!({})),
        };
        let known = if parts.method == Method::GET { rules.knows_get } else { rules.knows_post };
        let user = rules.users.iter().find(|user| asking.is_of(user)).filter(|_| known);
        self.asked.lock().unwrap().push(AskedToken {
            method: parts.method.to_string(),
            grant: asking.grant.clone(),
            scopes: asking.scopes.clone(),
            given: user.is_some(),
        });
        match user {
            _ if !known => reply(if parts.method == Method::GET { 404 } else { 405 }, &json!({})),
            None => reply(401, &json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})),
            Some(user) => {
                let token = self.sign(&user.name, &granted(user, &asking.scopes), rules.life);
                let life = rules.told_life.unwrap_or(rules.life);
                reply(200, &json!({"token": token, "access_token": token, "expires_in": life}))
            }
        }
    }

    /// A JSON Web Token, as distribution's "Token Authentication Implementation" has it.
    fn sign(&self, subject: &str, access: &Value, life: i64) -> String {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": SERVICE, "jti": format!("{now}"), "access": access,
            "iat": now - 3600, "nbf": now - 3600, "exp": now + life - LEEWAY,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Asking {
    fn from_get(headers: &HeaderMap, query: &str) -> Self {
        let basic = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        let pair = basic.map(|basic| String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap());
        let (user, secret) = pair.as_deref().and_then(|pair| pair.split_once(':')).unwrap_or_default();
        let grant = if basic.is_some() { "basic" } else { "" };
        Asking { grant: grant.into(), user: user.into(), secret: secret.into(), scopes: values(query, "scope") }
    }

    fn from_post(body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body);
        let one = |name: &str| values(&body, name).into_iter().next().unwrap_or_default();
        let secret = if one("grant_type") == "password" { one("password") } else { one("refresh_token") };
        let scopes = one("scope").split_whitespace().map(str::to_owned).collect();
        Asking { grant: one("grant_type"), user: one("username"), secret, scopes }
    }

    fn is_of(&self, user: &TokenUser) -> bool {
        let named = self.grant == "refresh_token" || self.user == user.name;
        named && self.secret == user.secret
    }
}

/// What `user` gets of what was asked for. That it is less is said to nobody.
fn granted(user: &TokenUser, scopes: &[String]) -> Value {
    let one = |scope: &String| {
        let (rest, actions) = scope.rsplit_once(':')?;
        let (kind, name) = rest.split_once(':')?;
        let actions: Vec<&str> = actions.split(',').filter(|a| user.actions.iter().any(|may| may == a)).collect();
        Some(json!({"type": kind, "name": name, "actions": actions}))
    };
    scopes.iter().filter_map(one).collect()
}

fn values(form: &str, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

fn reply(status: u16, body: &Value) -> Response {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body.to_string().into()).unwrap()
}

/// What stands between the lines of a PEM file.
fn body_of(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}
