//! The `urls` of layers, answered in place of the hosts that they name: `serve --foreign`.
//!
//! containerd and podman ask the `urls` of a layer first. Only the bytes satisfy both of them; with 404, containerd goes on to the
//! registry. So what is here is sent, and everything else under such a host is a 404 at once, without a body.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use axum::http::header::{CONTENT_LENGTH, HOST};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::path::{self, Endpoint};
use super::server::{Server, header, with};
use super::{blobs, empty};
use crate::image::{Address, AddressContent, Addresses, decoded, host_key};
use crate::oci::Digest;

/// What a registry is asked at. A registry may have the name of a foreign host.
const REGISTRY: &str = "/v2";

/// Which content is at which address.
#[derive(Default)]
pub struct Foreign {
    hosts: HashMap<String, Targets>,
}

/// The paths and queries of one host.
#[derive(Default)]
struct Targets {
    /// As manifests write them.
    written: HashMap<String, Found>,
    /// As they are meant, for clients that write them in another way.
    meant: HashMap<Vec<u8>, Found>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Content(Digest, u64),
    /// Manifests want different bytes under the one address, and a request does not say which.
    Doubtful,
}

impl Found {
    /// Takes note that `other` is at the same place.
    fn meets(&mut self, other: Found) {
        if *self != other {
            *self = Found::Doubtful;
        }
    }
}

impl Foreign {
    /// Answers for everything in `addresses` that was carried along.
    pub fn new(addresses: &Addresses) -> Self {
        let mut foreign = Foreign::default();
        for (address, contents) in addresses.iter() {
            for content in contents {
                foreign.add(address, content);
            }
        }
        foreign
    }

    fn add(&mut self, address: &Address, content: &AddressContent) {
        let found = Found::Content(content.digest, content.size);
        let targets = self.hosts.entry(address.key()).or_default();
        note(&mut targets.written, address.target().to_owned(), found);
        note(&mut targets.meant, decoded(address.target()), found);
    }

    /// `None` for a host that no address names; nothing within it for a target that none names.
    fn find(&self, host: &str, target: &str) -> Option<Option<Found>> {
        let targets = self.hosts.get(host)?;
        Some(targets.written.get(target).or_else(|| targets.meant.get(&decoded(target))).copied())
    }
}

fn note<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Found>, key: K, found: Found) {
    match map.entry(key) {
        Entry::Occupied(mut there) => there.get_mut().meets(found),
        Entry::Vacant(free) => _ = free.insert(found),
    }
}

/// The answer to a request for a foreign host; `None` when it is for the registry.
pub(super) async fn answer(server: &Server, parts: &Parts) -> Option<Response> {
    if server.foreign.hosts.is_empty() {
        return None;
    }
    let host = match parts.uri.authority() {
        Some(authority) => host_key(authority.as_str()),
        None => header(&parts.headers, HOST).and_then(host_key),
    }?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let of_registry = target == REGISTRY || target.starts_with("/v2/") || target.starts_with("/v2?");
    let found = server.foreign.find(&host, target)?;
    if is_of_registry(parts.uri.path(), found) {
        return None;
    }
    match found {
        Some(Found::Content(digest, size)) => content(server, digest, size, parts).await,
        Some(Found::Doubtful) => Some(not_here()),
        None if of_registry => None,
        None => Some(not_here()),
    }
}

/// Whether a registry speaks for itself at `path`. Its name may be that of a host in a url, and whoever made one image wrote its
/// urls: they must not say which tags and manifests there are, nor what is in the blobs of others. A blob's path says itself what
/// has to be there, so a url that keeps to that is answered like any other.
fn is_of_registry(path: &str, found: Option<Found>) -> bool {
    match (path::parse(path), found) {
        (Ok(Endpoint::Blob(_, named)), Some(Found::Content(digest, _))) => named != digest,
        (endpoint, _) => endpoint.is_ok(),
    }
}

async fn content(server: &Server, digest: Digest, size: u64, parts: &Parts) -> Option<Response> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Some(with(empty(StatusCode::METHOD_NOT_ALLOWED), axum::http::header::ALLOW, "GET, HEAD"));
    }
    // Asked for again: what was left out may have come, and what was here may have gone.
    let there = server.ask(move |shelf| Ok(shelf.size_of(&digest))).await;
    Some(match there {
        Ok(Some(there)) if there == size => {
            let sent = blobs::send(server, digest, size, &parts.method, &parts.headers).await;
            sent.unwrap_or_else(IntoResponse::into_response)
        }
        Ok(_) => not_here(),
        Err(fault) => fault.into_response(),
    })
}

fn not_here() -> Response {
    with(empty(StatusCode::NOT_FOUND), CONTENT_LENGTH, "0")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn content(bytes: &[u8]) -> AddressContent {
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        AddressContent { digest, size, carried: true, repositories: BTreeSet::new() }
    }

    fn foreign(urls: &[(&str, &[u8])]) -> Foreign {
        let mut foreign = Foreign::default();
        for (url, bytes) in urls {
            foreign.add(&Address::parse(url).unwrap(), &content(bytes));
        }
        foreign
    }

    #[test]
    fn host_path_and_query_decide_together() {
        let foreign = foreign(&[
            ("https://a.example/layer", b"of a"),
            ("https://b.example/layer", b"of b"),
            ("https://a.example/layer?id=1", b"one"),
            ("https://a.example/layer?id=2", b"two"),
            ("https://a.example/Layer", b"capital"),
            ("https://a.example:8443/layer", b"of another port"),
            ("https://a.example/a%20b", b"space"),
            ("https://a.example/a%2Fb", b"slash"),
        ]);
        let rows: [(&str, &str, Option<&[u8]>); 16] = [
            ("a.example", "/layer", Some(b"of a")),
            ("b.example", "/layer", Some(b"of b")),
            ("a.example", "/layer?id=1", Some(b"one")),
            ("a.example", "/layer?id=2", Some(b"two")),
            ("a.example", "/layer?id=%32", Some(b"two")),
            ("a.example", "/layer?id=3", None),
            ("a.example", "/layer?", None),
            ("a.example", "/layer/", None),
            ("a.example", "//layer", None),
            ("a.example", "/x/../layer", None),
            ("a.example", "/Layer", Some(b"capital")),
            ("a.example", "/LAYER", None),
            ("a.example:8443", "/layer", Some(b"of another port")),
            ("a.example", "/a%20b", Some(b"space")),
            // As containerd writes a slash that was encoded.
            ("a.example", "/a/b", Some(b"slash")),
            ("b.example", "/a/b", None),
        ];
        for (host, target, bytes) in rows {
            let expected = bytes.map(|bytes| Found::Content(Digest::of(bytes), bytes.len() as u64));
            assert_eq!(foreign.find(host, target).unwrap(), expected, "{host}{target}");
        }
        assert_eq!(foreign.find("c.example", "/layer"), None);
    }

    #[test]
    fn what_is_not_clear_is_not_answered() {
        let same = ("https://a.example/same", &b"same"[..]);
        let foreign = foreign(&[
            ("https://a.example/current", b"old"),
            ("https://a.example/current", b"new"),
            ("https://a.example/a%2Fb", b"encoded"),
            ("https://a.example/a/b", b"plain"),
            same,
            ("http://a.example:443/same", b"same"),
        ]);
        let found = |target| foreign.find("a.example", target).unwrap();
        let known = |bytes: &[u8]| Some(Found::Content(Digest::of(bytes), bytes.len() as u64));
        assert_eq!(found("/current"), Some(Found::Doubtful));
        assert_eq!(found("/a%2Fb"), known(b"encoded"));
        assert_eq!(found("/a/b"), known(b"plain"));
        assert_eq!(found("/a%2fb"), Some(Found::Doubtful));
        assert_eq!(found("/same"), known(b"same"));
    }
}
