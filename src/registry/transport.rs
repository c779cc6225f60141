//! Connections: one request, one answer, with time-outs; no redirects, no authorisation, no second attempt.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Request, Response, redirect};
use url::{Host, Url};

use super::retry::Trouble;
use crate::error::{Error, Result};

/// How long a connection may take to be made, TLS included: slow lines and busy registries need a few seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a registry may think before its answer begins. Registries that fetch from elsewhere first take their time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an answer's body may stand still: longer than the pauses of a busy object store. Tests do not wait so long.
const STALL_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });

/// How long an unused connection is kept: less than the 60 s after which common proxies close theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// How sealift names itself.
const USER_AGENT: &str = concat!("sealift/", env!("CARGO_PKG_VERSION"));

/// The HTTP clients, each made when it is first needed.
///
/// A client with TLS cannot be made on a machine without CA certificates; plain HTTP must work there
/// nevertheless (loopback registries, embedded ones), so it has clients of its own that know no certificate.
#[derive(Default)]
pub(super) struct Transport {
    plain_direct: OnceLock<reqwest::Client>,
    plain: OnceLock<reqwest::Client>,
    secure_direct: OnceLock<reqwest::Client>,
    secure: OnceLock<reqwest::Client>,
}

impl Transport {
    /// Sends `request` and waits for the head of its answer, [`ANSWER_TIMEOUT`] long at the most.
    pub async fn send(&self, request: Request) -> Result<Response, Trouble> {
        let host = host_of(request.url());
        let client = self.client(request.url())?;
        match tokio::time::timeout(ANSWER_TIMEOUT, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(trouble(&host, error)),
            Err(_) => Err(too_late(&host, ANSWER_TIMEOUT)),
        }
    }

    /// The client for `url`. Loopback addresses are spoken to directly, whatever proxies the environment names.
    pub fn client(&self, url: &Url) -> Result<&reqwest::Client> {
        let (direct, secure) = (is_loopback(url), url.scheme() == "https");
        let place = match (secure, direct) {
            (false, true) => &self.plain_direct,
            (false, false) => &self.plain,
            (true, true) => &self.secure_direct,
            (true, false) => &self.secure,
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let client = build(direct, secure)?;
        Ok(place.get_or_init(|| client))
    }
}

fn build(direct: bool, secure: bool) -> Result<reqwest::Client> {
    // HTTP/1.1 only: measured, one HTTP/2 stream over a long line is many times slower. Nothing is
    // decompressed: digest and length are of the bytes as they travel. No read time-out of the client: it
    // would also end uploads, whose answer comes last.
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(USER_AGENT);
    if direct {
        builder = builder.no_proxy();
    }
    if !secure {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        Error::failed(format!("no TLS client can be made: {}", innermost(&error)))
            .help("install the CA certificates of the system (package ca-certificates), or name a file of them in SSL_CERT_FILE")
    })
}

/// The next piece of an answer's body; `None` at its end.
pub(super) async fn next_piece(response: &mut Response) -> Result<Option<Bytes>, Trouble> {
    match tokio::time::timeout(STALL_TIMEOUT, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(trouble(&host_of(response.url()), error)),
        Err(_) => Err(too_late(&host_of(response.url()), STALL_TIMEOUT)),
    }
}

/// The whole body of an answer; `None` when it has more than `limit` bytes.
pub(super) async fn read_body(response: &mut Response, limit: usize) -> Result<Option<Bytes>, Trouble> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Ok(None);
    }
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(response).await? {
        if whole.len() + piece.len() > limit {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole.freeze()))
}

/// What went wrong with a connection, without its URL. It may pass, unless it is about certificates or about
/// the request itself.
pub(super) fn trouble(host: &str, error: reqwest::Error) -> Trouble {
    let error = error.without_url();
    let text = innermost(&error);
    let what = if error.is_connect() { "connect to" } else { "talk to" };
    let made = Error::failed(text.clone()).while_(format_args!("{what} {host}"));
    if text.contains("certificate") {
        return Trouble::Final(made.help(format!(
            "{host} shows a certificate that is not trusted here: install its CA, or name it in SSL_CERT_FILE"
        )));
    }
    // What TLS says when the other side answers in plain text.
    if text.contains("InvalidContentType") {
        return Trouble::Final(
            made.help(format!("{host} speaks no TLS: configure plain HTTP for it if that is meant")),
        );
    }
    if error.is_builder() {
        return Trouble::Final(made);
    }
    Trouble::passing(
        made.help(format!("check that {host} is up and can be reached from here, then run the same command again")),
    )
}

pub(super) fn too_late(host: &str, limit: Duration) -> Trouble {
    let error = Error::failed(format!("nothing came for {} s", limit.as_secs())).while_(format_args!("talk to {host}"));
    Trouble::passing(error.help(format!("check {host} and the network in between, then run the same command again")))
}

/// The cause at the bottom: the layers above only say that there is one.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// `host[:port]` of an address, for people. Never its query.
pub(super) fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "(no host)".to_owned(),
    }
}

/// A loopback address or `localhost`.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
