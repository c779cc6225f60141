//! [`Endpoint`]: one base address of a registry or mirror. Authorises requests, follows redirects, and tells
//! success, refusal and passing trouble apart.
//!
//! What stands around the transport is stacked in [`Endpoint::enter`] and [`Endpoint::send`], and nowhere else: a turn
//! among the requests of this registry, its rest when it was found down, its count of pulls, its pace.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response, StatusCode};
use url::Url;

use super::answer::{ANSWER_SIZE_MAX, Answer};
use super::appearance::Appearance;
use super::auth::Authority;
use super::budget::{OnTheWay, Pulls};
use super::health::{Health, Probe};
use super::limits::{Held, Lane, Turn};
use super::retry::Trouble;
use super::scope::Scope;
use super::transport::{Transport, host_of, is_loopback, read_body};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// How often one attempt is refused at the most with a token of others, before that is the answer.
const REFUSALS_MAX: usize = 3;

/// How many redirects of one request are followed. Registries need one; some content networks add another.
const REDIRECTS_MAX: usize = 5;

/// One base address, with all that is known about it.
pub(super) struct Endpoint {
    /// `None` for a host that is a legal name but no URL can be made of (`1.2.3.4.5`): every request says so.
    base: Option<Url>,
    host: String,
    transport: Arc<Transport>,
    authority: Authority,
    /// How much of it is used.
    pub lane: Arc<Lane>,
    /// Whether it was found down.
    pub health: Arc<Health>,
    /// How many pulls it allows.
    pub pulls: Pulls,
    /// Whether the registry has the referrers API, once that was found out.
    pub referrers_api: Mutex<Option<bool>>,
    /// What it lets be seen of what it is, once that was looked at.
    pub appearance: OnceCell<Appearance>,
}

/// A request without a streamed body: it can be sent again.
#[derive(Clone)]
pub(super) struct Call {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The repository whose credentials are used.
    pub path: String,
    /// What a token must allow.
    pub scope: Scope,
    /// Whether registries that count pulls count this.
    pub is_pull: bool,
    /// Codes that are the last word on this call also where they come with a 500, which is otherwise tried again.
    pub last_words: &'static [&'static str],
}

/// How a registry answered, when it did.
pub(super) enum Outcome {
    /// 2xx; the body is still to be read.
    Good(Held),
    /// Anything that stays so when asked again.
    Bad(Answer),
}

/// What one attempt holds: its turn until the answer was read, and its pull until there is an answer.
struct Entered<'a> {
    turn: Turn,
    _pull: Option<OnTheWay<'a>>,
}

/// An answer after all redirects.
struct Reply {
    response: Response,
    /// It came from another host than was asked.
    foreign: bool,
}

impl Call {
    pub fn new(method: Method, url: Url, path: &str, scope: Scope) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Call { method, url, headers, body, path: path.to_owned(), scope, is_pull: false, last_words: &[] }
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    fn is_answered_by(&self, answer: &Answer) -> bool {
        answer.status == 500 && self.last_words.iter().any(|code| answer.has_code(code))
    }
}

impl Endpoint {
    pub fn new(base: &str, transport: Arc<Transport>, authority: Authority, lane: Lane, pulls: Pulls) -> Self {
        let url = Url::parse(base).ok();
        let health = url.as_ref().map_or_else(Health::default, |base| Health::new(probe(base, transport.clone())));
        Endpoint {
            host: url.as_ref().map_or_else(|| base.to_owned(), host_of),
            base: url,
            transport,
            authority,
            lane: Arc::new(lane),
            health: Arc::new(health),
            pulls,
            referrers_api: Mutex::default(),
            appearance: OnceCell::new(),
        }
    }

    /// `<base>/v2/<path>/<rest>`.
    pub fn url(&self, path: &str, rest: &str) -> Result<Url> {
        let unusable = || Error::usage(format!("{} is no address that can be connected to", self.host));
        let base = self.base.as_ref().ok_or_else(unusable)?;
        let mut url = base.clone();
        url.set_path(&format!("{}/v2/{path}/{rest}", base.path().trim_end_matches('/')));
        url.set_query(None);
        Ok(url)
    }

    /// `<base>/v2/`: what every registry answers (OCI distribution specification, "Determining Support").
    pub fn root(&self) -> Result<Url> {
        let mut url = self.url("", "")?;
        url.set_path(&url.path().replace("//", "/"));
        Ok(url)
    }

    /// What it shows of itself here.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host, for people.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Waits for a turn, and takes a pull where `call` is one; fails at once where the endpoint is not to be asked now.
    async fn enter(&self, call: &Call) -> Result<Entered<'_>, Trouble> {
        let doubted = self.health.is_doubted();
        let turn = self.lane.turn().await;
        // After the wait: those who waited learn what those before them found out.
        self.health.check(&self.host)?;
        if self.health.is_doubted() && !doubted {
            return Err(Trouble::Doubted);
        }
        let pull = if call.is_pull { Some(self.pulls.take()?) } else { None };
        Ok(Entered { turn, _pull: pull })
    }

    /// Sends one request of `call` at the pace of this registry.
    async fn send(&self, call: &Call, url: Url, authorization: Option<&HeaderValue>) -> Result<Response, Trouble> {
        let own = same_origin(&url, &call.url);
        if own {
            self.lane.begin().await;
        }
        let begun = Instant::now();
        let sent = self.transport.send(request(call, url, authorization)).await;
        // What another host does says nothing about this one.
        let response = sent.map_err(|trouble| if own { trouble.unheard(begun) } else { trouble })?;
        if own {
            self.pulls.learn(response.headers());
        }
        Ok(response)
    }

    /// One attempt at `call`: with authorisation, once more after a 401, and along redirects.
    pub async fn attempt(&self, call: &Call) -> Result<Outcome, Trouble> {
        let entered = self.enter(call).await?;
        let mut shown = self.header(call).await?;
        let mut refused = 0;
        loop {
            let reply = self.follow(call, shown.as_ref()).await?;
            let done = reply.foreign || reply.response.status() != StatusCode::UNAUTHORIZED;
            if done || refused == REFUSALS_MAX {
                return self.judge(call, reply.response, entered.turn).await;
            }
            let (headers, begun) = (reply.response.headers(), Instant::now());
            let answer = self.authority.answer(&self.transport, &call.path, &call.scope, headers, shown.as_ref()).await;
            let Some(next) = answer.map_err(|trouble| trouble.unheard(begun))? else {
                return self.judge(call, reply.response, entered.turn).await;
            };
            // Beside others, it may be a token that they have had meanwhile, and that has ended.
            refused = if next.kept { refused + 1 } else { REFUSALS_MAX };
            shown = Some(next.header);
        }
    }

    /// What `call` carries by what is known so far. A registry whose token server is down is as good as down itself.
    async fn header(&self, call: &Call) -> Result<Option<HeaderValue>, Trouble> {
        let begun = Instant::now();
        let header = self.authority.header(&self.transport, &call.path, &call.scope).await;
        header.map_err(|trouble| trouble.unheard(begun))
    }

    /// Whether `url` is an address of this endpoint: credentials are for nobody else.
    pub fn is_own(&self, url: &Url) -> bool {
        self.base.as_ref().is_some_and(|base| same_origin(url, base))
    }

    /// One attempt at a request whose body is a stream: no redirects, and no second time within it. `send` sends
    /// the request with its body, for its time-outs are its own.
    pub async fn attempt_stream<F, Fut>(&self, call: &Call, send: F) -> Result<Streamed, Trouble>
    where
        F: FnOnce(Arc<Transport>, Request) -> Fut,
        Fut: Future<Output = Result<Response, Trouble>>,
    {
        // Some registries take uploads at another host, with all rights in the address.
        let own = self.is_own(&call.url);
        let entered = self.enter(call).await?;
        let shown = if own { self.header(call).await? } else { None };
        self.lane.begin().await;
        let request = request(call, call.url.clone(), shown.as_ref());
        let response = send(self.transport.clone(), request).await?;
        if own && response.status() == StatusCode::UNAUTHORIZED {
            let headers = response.headers();
            let fresh =
                self.authority.answer(&self.transport, &call.path, &call.scope, headers, shown.as_ref()).await?;
            if fresh.is_some() {
                return Ok(Streamed::Unauthorised(self.refusal(&call.path, response).await));
            }
        }
        self.judge(call, response, entered.turn).await.map(Streamed::Answered)
    }

    async fn follow(&self, call: &Call, authorization: Option<&HeaderValue>) -> Result<Reply, Trouble> {
        let mut url = call.url.clone();
        let mut foreign = false;
        for _ in 0..=REDIRECTS_MAX {
            // Also on the way back: the path there was chosen by somebody else.
            foreign |= !same_origin(&url, &call.url);
            // Credentials are for the host that was asked, and never go further (OCI distribution specification).
            let authorization = authorization.filter(|_| !foreign);
            let response = self.send(call, url.clone(), authorization).await?;
            if !is_followed(&call.method, response.status()) {
                return Ok(Reply { response, foreign });
            }
            let Some(next) = redirection(&url, response.headers())? else { return Ok(Reply { response, foreign }) };
            url = next;
        }
        Err(Error::failed(format!("{} redirects more than {REDIRECTS_MAX} times", self.host())).into())
    }

    /// Success, a refusal, or trouble. A 401 here is the last word: everything that is known was shown.
    async fn judge(&self, call: &Call, response: Response, turn: Turn) -> Result<Outcome, Trouble> {
        self.health.heard();
        if response.status().is_success() {
            return Ok(Outcome::Good(Held::new(response, turn)));
        }
        let answer = self.refusal(&call.path, response).await;
        match answer.status {
            401 => Err(answer.into_trouble()),
            _ if call.is_answered_by(&answer) => Ok(Outcome::Bad(answer)),
            _ if answer.is_passing() => Err(answer.into_trouble()),
            _ => Ok(Outcome::Bad(answer)),
        }
    }

    /// The headers with which anybody is answered who shows no login. Asked once.
    pub async fn headers_for_anybody(&self, call: &Call) -> Result<HeaderMap, Trouble> {
        let _entered = self.enter(call).await?;
        let mut response = self.send(call, call.url.clone(), None).await?;
        Ok(std::mem::take(response.headers_mut()))
    }

    async fn refusal(&self, path: &str, mut response: Response) -> Answer {
        let host = host_of(response.url());
        let (status, headers) = (response.status(), response.headers().clone());
        // A body that cannot be read changes nothing about the status.
        let body = read_body(&mut response, ANSWER_SIZE_MAX).await.ok().flatten().unwrap_or_default();
        let mut answer = Answer::new(&host, status, &headers, &body);
        if matches!(answer.status, 401 | 403) {
            answer.help = Some(self.authority.advice(path));
        }
        answer
    }
}

/// Whether the root of the API answers anything: it is what every registry has (OCI distribution specification,
/// "Determining Support"). Without authorisation, for a 401 is an answer.
fn probe(base: &Url, transport: Arc<Transport>) -> Probe {
    let mut root = base.clone();
    root.set_path(&format!("{}/v2/", base.path().trim_end_matches('/')));
    Box::new(move || {
        let (transport, request) = (transport.clone(), Request::new(Method::GET, root.clone()));
        Box::pin(async move { transport.send(request).await.is_ok() })
    })
}

/// How a request with a streamed body ended.
pub(super) enum Streamed {
    /// As any other.
    Answered(Outcome),
    /// With a 401 for which fresh authorisation was had: the same once more may work.
    Unauthorised(Answer),
}

fn request(call: &Call, url: Url, authorization: Option<&HeaderValue>) -> Request {
    let mut request = Request::new(call.method.clone(), url);
    request.headers_mut().extend(call.headers.clone());
    if let Some(value) = authorization {
        request.headers_mut().insert(AUTHORIZATION, value.clone());
    }
    if !call.body.is_empty() {
        *request.body_mut() = Some(call.body.clone().into());
    } else if !matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) {
        // Asked for by the specification, and by proxies; hyper says nothing of an empty body by itself.
        request.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
    request
}

/// Only reading is redirected: a body would have to be sent twice, and no registry asks for it.
pub(super) fn is_followed(method: &Method, status: StatusCode) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads; `None` when it does not say.
fn redirection(from: &Url, headers: &HeaderMap) -> Result<Option<Url>> {
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    resolve(from, location).map(Some)
}

/// An address from a `Location` header, absolute or relative to the request. One that gives up TLS is refused,
/// unless it stays on this machine.
pub(super) fn resolve(from: &Url, location: &HeaderValue) -> Result<Url> {
    let host = host_of(from);
    let text = location.to_str().map_err(|_| Error::failed(format!("{host} redirects to what is no address")))?;
    let next = from.join(text).map_err(|_| Error::failed(format!("{host} redirects to what is no address")))?;
    match next.scheme() {
        "https" => Ok(next),
        "http" if from.scheme() == "http" || is_loopback(&next) => Ok(next),
        "http" => Err(Error::failed(format!("{host} redirects to {} without TLS", host_of(&next))).help(
            "a proxy in front of the registry hides its TLS: have it send X-Forwarded-Proto, or set the registry's external address",
        )),
        other => Err(Error::failed(format!("{host} redirects to the scheme {other:?}"))),
    }
}

/// Scheme, host and port are equal.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let from: Url = "https://r.example/v2/a/blobs/uploads/?x=1".parse().unwrap();
        let rows = [
            ("/v2/a/blobs/uploads/7?_state=q%3D", Some("https://r.example/v2/a/blobs/uploads/7?_state=q%3D")),
            ("8", Some("https://r.example/v2/a/blobs/uploads/8")),
            ("//cdn.example/y", Some("https://cdn.example/y")),
            ("http://127.0.0.1:9/y", Some("http://127.0.0.1:9/y")),
            ("http://r.example/y", None),
            ("file:///etc/passwd", None),
            ("https://", None),
        ];
        for (location, expected) in rows {
            let found = resolve(&from, &HeaderValue::from_static(location)).ok().map(String::from);
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }
}
