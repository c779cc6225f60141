//! Fetching a token from a token server (distribution, "Token Authentication Specification" and "Oauth2").

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Response};
use serde::Deserialize;
use url::Url;

use super::answer::{ANSWER_SIZE_MAX, Answer};
use super::challenge::Bearer;
use super::credentials::{Login, TOKEN_USER};
use super::retry::Trouble;
use super::scope::Scope;
use super::secret::{Secret, remember};
use super::transport::{Transport, host_of, is_loopback, read_body};
use crate::error::{Error, Kind, Result};
use crate::oci::json;

/// The largest answer of a token server. Tokens with many scopes have some ten kilobytes.
const TOKEN_SIZE_MAX: usize = 256 * 1024;

/// How long a token lives when its server does not say (the specification's default).
const LIFE_DEFAULT: u64 = 60;

/// The longest life that is believed.
const LIFE_MAX: u64 = 24 * 60 * 60;

/// How long before its end a token is no longer used, so that it does not end on the way.
const REFRESH_AHEAD: Duration = Duration::from_secs(10);

/// What sealift calls itself to token servers.
const CLIENT_ID: &str = "sealift";

/// A token that is still good.
#[derive(Clone)]
pub(super) struct Token {
    header: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Token {
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    pub fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    fn from_body(host: &str, body: &[u8]) -> Result<Self> {
        let fail = |why: &str| Error::failed(format!("{host} answered with no token: {why}"));
        // The parser's message could quote the token.
        let answer: TokenAnswer = json::parse(body).map_err(|_| fail("it is not the JSON of a token server"))?;
        let some = |token: Option<String>| token.filter(|token| !token.is_empty());
        let text = some(answer.token).or(some(answer.access_token)).ok_or_else(|| fail("it names none"))?;
        let life =
            Duration::from_secs(answer.expires_in.filter(|&life| life > 0).unwrap_or(LIFE_DEFAULT).min(LIFE_MAX));
        // A short life is used for the most part, or every request would fetch one.
        let ahead = REFRESH_AHEAD.min(life / 4);
        Ok(Token { header: secret_header(&format!("Bearer {text}"))?, until: Instant::now() + (life - ahead) })
    }
}

/// How a token server answered.
pub(super) enum Fetched {
    Token(Token),
    /// It did not take the login, or nobody without one.
    Refused(Answer),
}

/// One attempt at a token for `scope`. Where a form of asking is not known, the next one is tried. `plain` says that the
/// registry itself is spoken to without TLS; only then may its token server be.
pub(super) async fn fetch(
    transport: &Transport,
    bearer: &Bearer,
    login: Option<&Login>,
    scope: &Scope,
    plain: bool,
) -> Result<Fetched, Trouble> {
    let realm = realm(&bearer.realm, plain)?;
    let host = host_of(&realm);
    if let Some(Login::Identity { token, .. }) = login {
        let response = transport.send(refresh(&realm, bearer, token, scope)).await?;
        // What servers without this form of asking answer: GCR 404, Artifactory 401, ACR 400, others 405.
        if !matches!(response.status().as_u16(), 400 | 401 | 404 | 405) {
            return take(&host, response, Some(token)).await;
        }
    }
    let mut response = transport.send(get(realm.clone(), bearer, login, scope)?).await?;
    // Servers that know the OAuth2 form alone.
    if let (404 | 405, Some(Login::Password { user, password })) = (response.status().as_u16(), login) {
        response = transport.send(log_in(&realm, bearer, user, password, scope)).await?;
    }
    take(&host, response, login.map(Login::secret)).await
}

/// The address of the token server. The registry chose it, and credentials go there; to which addresses a registry may
/// send sealift at all is the transport's affair.
fn realm(text: &str, plain: bool) -> Result<Url> {
    let fail = |why: &str| {
        let text = format!("the registry names a token server that is not asked: {why}");
        Error::new(Kind::Refused, text).help("no credentials were sent: ask who runs the registry what its token server is, and what is between it and here")
    };
    let url: Url = text.parse().map_err(|_| fail("its realm is no address"))?;
    match (url.scheme(), url.host()) {
        (_, None) => Err(fail("its realm names no host")),
        ("https", _) => Ok(url),
        ("http", _) if plain || is_loopback(&url) => Ok(url),
        ("http", _) => Err(fail("it has no TLS, though the registry has")),
        _ => Err(fail("its realm is neither http nor https")),
    }
}

/// The usual form: `GET realm?service=…&scope=…&scope=…`, with user and password where there are some.
fn get(mut realm: Url, bearer: &Bearer, login: Option<&Login>, scope: &Scope) -> Result<Request> {
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = &bearer.service {
            query.append_pair("service", service);
        }
        for text in scope.texts() {
            query.append_pair("scope", &text);
        }
    }
    let mut request = Request::new(Method::GET, realm);
    if let Some(login) = login {
        request.headers_mut().insert(AUTHORIZATION, direct(login)?);
    }
    Ok(request)
}

/// The form for refresh tokens (distribution, "Oauth2 Token Authentication").
fn refresh(realm: &Url, bearer: &Bearer, token: &Secret, scope: &Scope) -> Request {
    post(realm, bearer, scope, &[("grant_type", "refresh_token"), ("refresh_token", token.expose())])
}

/// The form for passwords, of the same specification.
fn log_in(realm: &Url, bearer: &Bearer, user: &str, password: &Secret, scope: &Scope) -> Request {
    post(realm, bearer, scope, &[("grant_type", "password"), ("username", user), ("password", password.expose())])
}

/// A POST, which never shows secrets in an address.
fn post(realm: &Url, bearer: &Bearer, scope: &Scope, grant: &[(&str, &str)]) -> Request {
    let scopes: Vec<String> = scope.texts().collect();
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(grant);
    form.append_pair("service", bearer.service.as_deref().unwrap_or_default());
    form.append_pair("client_id", CLIENT_ID);
    // An empty scope would be one that no server knows.
    if !scopes.is_empty() {
        form.append_pair("scope", &scopes.join(" "));
    }
    let mut request = Request::new(Method::POST, realm.clone());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    *request.body_mut() = Some(form.finish().into());
    request
}

async fn take(host: &str, mut response: Response, shown: Option<&Secret>) -> Result<Fetched, Trouble> {
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_success() {
        return match read_body(&mut response, TOKEN_SIZE_MAX).await? {
            Some(body) => Ok(Fetched::Token(Token::from_body(host, &body)?)),
            None => Err(Error::failed(format!("{host} answered with a token of over {TOKEN_SIZE_MAX} bytes")).into()),
        };
    }
    let body = read_body(&mut response, ANSWER_SIZE_MAX).await.ok().flatten().unwrap_or_default();
    // Some repeat what they were told.
    let body = shown.map_or_else(|| body.clone(), |secret| without(secret, &body));
    let answer = Answer::new(host, status, &headers, &body);
    match answer.status {
        400 | 401 | 403 => Ok(Fetched::Refused(answer)),
        _ => Err(answer.into_trouble()),
    }
}

/// An answer's body, without a secret.
fn without(secret: &Secret, body: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(body);
    match !secret.expose().is_empty() && text.contains(secret.expose()) {
        true => text.replace(secret.expose(), "…").into(),
        false => body.clone(),
    }
}

/// A login as it is shown without a token server: `Basic …`, or the token that it is. A refresh token takes the place of a
/// password where its own form is not known.
pub(super) fn direct(login: &Login) -> Result<HeaderValue> {
    let (user, secret) = match login {
        Login::Bearer { token } => return secret_header(&format!("Bearer {}", token.expose())),
        Login::Password { user, password } => (user.as_str(), password),
        Login::Identity { user, token } if user.is_empty() => (TOKEN_USER, token),
        Login::Identity { user, token } => (user.as_str(), token),
    };
    secret_header(&format!("Basic {}", STANDARD.encode(format!("{user}:{}", secret.expose()))))
}

fn secret_header(text: &str) -> Result<HeaderValue> {
    remember(text.split_once(' ').map_or(text, |(_, shown)| shown));
    let mut value =
        HeaderValue::from_str(text).map_err(|_| Error::failed("a token holds characters that no header takes"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(token)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_chooses_only_token_servers_that_are_as_safe_as_itself() {
        let rows = [
            ("https://auth.example/token?a=b", false, true),
            ("https://auth.example/token", true, true),
            ("http://auth.example/token", true, true),
            ("http://127.0.0.1:9/token", false, true),
            ("http://auth.example/t", false, false),
            ("file:///etc/passwd", true, false),
            ("token", true, false),
            ("", false, false),
        ];
        for (text, plain, expected) in rows {
            let checked = realm(text, plain).map_err(|error| error.kind());
            assert_eq!(checked.is_ok(), expected, "{text} {plain}");
            assert!(expected || checked == Err(Kind::Refused), "{text}");
        }
    }

    #[test]
    fn token_answers() {
        for body in
            [r#"{"token":"t"}"#, r#"{"access_token":"t","expires_in":300}"#, r#"{"token":"","access_token":"t"}"#]
        {
            let token = Token::from_body("auth", body.as_bytes()).unwrap();
            assert_eq!(token.header().to_str().unwrap(), "Bearer t");
            assert!(token.is_fresh());
        }
        let endless = format!(r#"{{"token":"t","expires_in":{}}}"#, u64::MAX);
        assert!(Token::from_body("auth", endless.as_bytes()).unwrap().is_fresh());
        assert!(Token::from_body("auth", br#"{"token":"t","expires_in":0}"#).unwrap().is_fresh());
        // What is used of a life, in tenths of a second.
        for (told, least, most) in [("2", 0, 15), ("40", 200, 300), ("3600", 35_000, 35_900)] {
            let token = Token::from_body("auth", format!(r#"{{"token":"t","expires_in":{told}}}"#).as_bytes()).unwrap();
            let used = token.until.duration_since(Instant::now()).as_millis() / 100;
            assert!((least..=most).contains(&used), "{told}: {used}");
        }
        for body in ["", "{}", r#"{"token":5}"#, "{\"token\":\"a\\nb\"}"] {
            let error = Token::from_body("auth", body.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("a\nb"), "{error}");
        }
    }
}
