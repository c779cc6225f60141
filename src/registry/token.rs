//! Fetching a token from a token server (distribution, "Token Authentication Specification" and "Oauth2").

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Request, Response};
use serde::Deserialize;
use url::Url;

use super::answer::{ANSWER_SIZE_MAX, Answer};
use super::challenge::Bearer;
use super::credentials::Login;
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

/// One attempt at a token for `scope`. `plain` says that the registry itself is spoken to without TLS; only
/// then may its token server be.
pub(super) async fn fetch(
    transport: &Transport,
    bearer: &Bearer,
    login: Option<&Login>,
    scope: &Scope,
    plain: bool,
) -> Result<Token, Trouble> {
    let realm = realm(bearer, plain)?;
    let host = host_of(&realm);
    if let Some(Login::Identity { token, .. }) = login {
        let response = transport.send(refresh(transport, &realm, bearer, token, scope)?).await?;
        // What servers without this form of asking answer: GCR 404, Artifactory 401, ACR 400, others 405.
        if !matches!(response.status().as_u16(), 400 | 401 | 404 | 405) {
            return take(&host, response, true).await;
        }
    }
    let response = transport.send(get(realm, bearer, login, scope)?).await?;
    take(&host, response, login.is_some()).await
}

/// The address of the token server. The registry chose it, so it is checked: credentials go there.
fn realm(bearer: &Bearer, plain: bool) -> Result<Url> {
    let fail =
        |why: &str| Error::new(Kind::Refused, format!("the registry names a token server that is not asked: {why}"));
    let url: Url = bearer.realm.parse().map_err(|_| fail("its realm is no address"))?;
    match (url.scheme(), url.host_str()) {
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
        request.headers_mut().insert(AUTHORIZATION, basic(login)?);
    }
    Ok(request)
}

/// The form for refresh tokens: a POST of them, which never shows them in an address.
fn refresh(transport: &Transport, realm: &Url, bearer: &Bearer, token: &Secret, scope: &Scope) -> Result<Request> {
    let scopes: Vec<String> = scope.texts().collect();
    let form = [
        ("grant_type", "refresh_token"),
        ("service", bearer.service.as_deref().unwrap_or_default()),
        ("client_id", CLIENT_ID),
        ("scope", &scopes.join(" ")),
        ("refresh_token", token.expose()),
    ];
    let request = transport.client(realm)?.post(realm.clone()).form(&form).build();
    request.map_err(|error| Error::failed(error.without_url().to_string()))
}

async fn take(host: &str, mut response: Response, known: bool) -> Result<Token, Trouble> {
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_success() {
        return match read_body(&mut response, TOKEN_SIZE_MAX).await? {
            Some(body) => Ok(Token::from_body(host, &body)?),
            None => Err(Error::failed(format!("{host} answered with a token of over {TOKEN_SIZE_MAX} bytes")).into()),
        };
    }
    let body = read_body(&mut response, ANSWER_SIZE_MAX).await.ok().flatten().unwrap_or_default();
    let mut answer = Answer::new(host, status, &headers, &body);
    if matches!(answer.status, 400 | 401 | 403) && known {
        answer.help = Some("the token server did not take the stored credentials: log in again".to_owned());
    }
    Err(answer.into_trouble())
}

/// `Basic …` of a login. A refresh token takes the place of a password where its own form is not known.
pub(super) fn basic(login: &Login) -> Result<HeaderValue> {
    let (user, secret) = match login {
        Login::Password { user, password } => (user.as_str(), password),
        Login::Identity { user, token } if user.is_empty() => ("<token>", token),
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
    fn a_realm_without_tls_is_not_asked_for_a_registry_with_tls() {
        let ask = |realm: &str, plain| {
            super::realm(&Bearer { realm: realm.into(), service: None, scope: None }, plain).map_err(|e| e.kind())
        };
        assert!(ask("https://auth.example/token", false).is_ok());
        assert!(ask("http://auth.example/token", true).is_ok());
        for (realm, plain) in
            [("http://auth.example/t", false), ("file:///etc/passwd", true), ("token", true), ("", false)]
        {
            assert_eq!(ask(realm, plain), Err(Kind::Refused), "{realm}");
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
        for body in ["", "{}", r#"{"token":5}"#, "{\"token\":\"a\\nb\"}"] {
            let error = Token::from_body("auth", body.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("a\nb"), "{error}");
        }
    }
}
