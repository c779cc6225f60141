//! Blobs at addresses outside of registries: the `urls` of layers.
//!
//! Whoever made an image chose them. So nothing is shown there of who we are (no login, no token, no certificate of ours,
//! no cookie), each redirect is held to the hosts that the operator named, and the transport connects to addresses only
//! that such a host may have. Everything else is as with a registry: attempts, `Range`, limits, length and digest.

use std::sync::Arc;

use reqwest::header::LOCATION;
use reqwest::{Method, Request, Response};
use tokio::time::Instant;
use url::Url;

use super::Client;
use super::answer::{ANSWER_SIZE_MAX, Answer};
use super::download::{Asked, Opened, Origin, open, open_at};
use super::endpoint::{Call, Outcome, is_followed, same_origin};
use super::health::Health;
use super::limits::{Held, Lane};
use super::retry::{Patience, Retry, Trouble};
use super::scope::Scope;
use super::transport::{Transport, host_of, read_body};
use crate::content::Body;
use crate::error::{Context, Error, Kind, Result, Side};
use crate::oci::elsewhere::{NotAsked, URL_LENGTH_MAX};
use crate::oci::{Descriptor, LayerUrl};

/// How many redirects are followed. Vendors' short links need one or two, and their object stores one more.
const REDIRECTS_MAX: usize = 5;

/// What can be done where an address is not answered as it must be.
const ASK_VENDOR: &str = "nobody is logged in at addresses that an image names: see with a browser what is there, and ask the vendor; `policy: skip` leaves the layer there";

/// What is known about one host of addresses, for all who ask it.
#[derive(Clone)]
pub(super) struct UrlSite {
    /// Shared with the registry of that name, where there is one.
    pub lane: Arc<Lane>,
    pub health: Arc<Health>,
}

/// One address, as it is asked.
#[derive(Clone)]
struct Door(Arc<Inner>);

struct Inner {
    address: LayerUrl,
    host: String,
    site: UrlSite,
    transport: Transport,
    retry: Retry,
    side: Side,
}

impl Client {
    /// Opens a blob at an address outside of registries; `None` when it is not there.
    pub(super) async fn open_elsewhere(
        &self,
        address: &LayerUrl,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Option<Body>> {
        let (site, transport) = self.elsewhere(address);
        let (host, retry, side) = (host_of(&address.url), self.retry(), self.side());
        let door = Door(Arc::new(Inner { address: address.clone(), host, site, transport, retry, side }));
        open(&door, descriptor, offset).await
    }
}

impl Origin for Door {
    async fn connect(&self, descriptor: &Descriptor, at: u64) -> Result<Option<Opened>, Trouble> {
        let call = Call::new(Method::GET, self.0.address.url.clone(), "", Scope::pull(""));
        open_at(self, &call, descriptor, at).await
    }

    fn patience(&self) -> Patience {
        self.0.retry.patience(&self.0.site.health)
    }

    fn tell<T>(&self, result: Result<T>, descriptor: &Descriptor) -> Result<T> {
        result.while_(|| format!("fetch layer {} from {}", descriptor.digest, self.0.host)).on(self.0.side)
    }
}

impl Asked for Door {
    /// One attempt, along redirects.
    async fn attempt(&self, call: &Call) -> Result<Outcome, Trouble> {
        let Inner { site, host, .. } = &*self.0;
        let turn = site.lane.turn().await;
        site.health.check(host)?;
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.0.address.rules.check(&url).map_err(|why| refused(host, &why))?;
            let response = self.send(call, url.clone()).await?;
            let to = response.headers().get(LOCATION).filter(|_| is_followed(&call.method, response.status()));
            let Some(to) = to else {
                site.health.heard();
                return judge(response, turn).await;
            };
            url = joined(host, &url, to.as_bytes())?;
        }
        Err(Error::failed(format!("{host} redirects more than {REDIRECTS_MAX} times")).help(ASK_VENDOR).into())
    }

    fn host(&self) -> &str {
        &self.0.host
    }

    fn lane(&self) -> &Arc<Lane> {
        &self.0.site.lane
    }
}

impl Door {
    async fn send(&self, call: &Call, url: Url) -> Result<Response, Trouble> {
        let own = same_origin(&url, &self.0.address.url);
        if own {
            self.0.site.lane.begin().await;
        }
        let mut request = Request::new(call.method.clone(), url);
        request.headers_mut().extend(call.headers.clone());
        let begun = Instant::now();
        let sent = self.0.transport.send(request).await;
        // What another host does says nothing about this one.
        sent.map_err(|trouble| if own { trouble.unheard(begun) } else { trouble })
    }
}

/// Success, an answer that stays, or trouble.
async fn judge(mut response: Response, turn: super::limits::Turn) -> Result<Outcome, Trouble> {
    if response.status().is_success() {
        return Ok(Outcome::Good(Held::new(response, turn)));
    }
    let host = host_of(response.url());
    let (status, headers) = (response.status(), response.headers().clone());
    let body = read_body(&mut response, ANSWER_SIZE_MAX).await.ok().flatten().unwrap_or_default();
    let mut answer = Answer::new(&host, status, &headers, &body);
    if answer.is_passing() {
        return Err(answer.into_trouble());
    }
    answer.help = Some(ASK_VENDOR.to_owned());
    Ok(Outcome::Bad(answer))
}

/// Where a redirect leads. One never gives up TLS, wherever it leads.
fn joined(host: &str, from: &Url, to: &[u8]) -> Result<Url> {
    let next = std::str::from_utf8(to).ok().filter(|text| text.len() <= URL_LENGTH_MAX);
    let next = next.and_then(|text| from.join(text).ok());
    let Some(mut next) = next else {
        return Err(Error::failed(format!("{host} redirects to what is no address")).help(ASK_VENDOR));
    };
    next.set_fragment(None);
    if from.scheme() == "https" && next.scheme() != "https" {
        let why = NotAsked::Scheme { host: host_of(&next), scheme: next.scheme().to_owned() };
        return Err(refused(host, &why));
    }
    Ok(next)
}

fn refused(host: &str, why: &NotAsked) -> Error {
    let error = Error::new(Kind::Refused, format!("{host} redirects to an address that is not asked: {why}"));
    match why {
        NotAsked::Unnamed(other) => error.help(format!(
            "if {other} is where the vendor keeps its layers, add it to `hosts` of foreignLayers in the spec"
        )),
        _ => error.help(ASK_VENDOR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_gives_up_tls() {
        let rows = [
            ("https://a.example/x", "/y?z#w", Some("https://a.example/y?z")),
            ("https://a.example/x", "//b.example/y", Some("https://b.example/y")),
            ("https://a.example/x", "http://a.example/y", None),
            // Also not for addresses that were opened.
            ("https://127.0.0.1:9/x", "http://127.0.0.1:9/y", None),
            ("https://a.example/x", "ftp://a.example/y", None),
            ("http://127.0.0.1:9/x", "http://127.0.0.1:9/y", Some("http://127.0.0.1:9/y")),
            ("https://a.example/x", "https://", None),
            ("https://a.example/x", "\u{ff}", Some("https://a.example/%C3%BF")),
        ];
        for (from, to, expected) in rows {
            let found = joined("a.example", &from.parse().unwrap(), to.as_bytes());
            assert_eq!(found.ok().map(String::from).as_deref(), expected, "{from} to {to}");
        }
        let long = "x".repeat(URL_LENGTH_MAX + 1);
        assert!(joined("a.example", &"https://a.example".parse().unwrap(), long.as_bytes()).is_err());
        assert!(joined("a.example", &"https://a.example".parse().unwrap(), &[0xff]).is_err());
    }
}
