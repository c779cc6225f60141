//! Addresses that an image named: whom they may lead to, what is shown there, and what is taken from there.

use std::sync::Arc;

use axum::response::Response;
use futures_util::StreamExt;

use super::super::transport::{Network, Proxies};
use super::super::{Pull, Retry};
use super::network::Names;
use super::server::{Seen, Server, cut, reply, unannounced};
use super::*;
use crate::Kind;
use crate::content::{Source, Work};
use crate::oci::{Descriptor, Elsewhere, MediaType, UrlHost};

/// What is never to be seen anywhere.
const CANARY: &str = "s3cr3t";

fn host(text: &str) -> UrlHost {
    text.parse().unwrap()
}

/// The hosts, all of which are opened where `opened` says so.
fn rules(hosts: &[&str], opened: bool) -> Arc<Elsewhere> {
    let hosts: Vec<UrlHost> = hosts.iter().map(|text| host(text)).collect();
    Arc::new(Elsewhere { allow_private: if opened { hosts.clone() } else { Vec::new() }, hosts })
}

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER_GZIP, bytes)
}

/// A client with a login for every server that is named, in a network where names lead to loopback or as they are told.
fn client_in(network: Network, logged_in: &Server) -> Client {
    let credentials = Credentials::of(logged_in.registry(), "me", CANARY);
    let client = Client::in_network(&Config::default(), credentials, Side::Source, network).unwrap();
    client.with_retry(Retry::default().with_base(Duration::ZERO))
}

fn network(known: &[(&'static str, &str)], proxies: Proxies) -> Network {
    let known = known.iter().map(|(name, address)| (*name, address.parse().unwrap())).collect();
    Network { resolver: Arc::new(Names { known, ..Names::default() }), proxies, certificates: Vec::new() }
}

/// The bytes of a layer from `offset` on, at `url` by `rules`.
async fn fetch(client: Client, url: &str, rules: &Arc<Elsewhere>, of: &Descriptor, offset: u64) -> Result<Bytes> {
    let work = Work::at(rules.address(url).unwrap(), of.clone());
    read(Pull::new(client).open(&work, offset).await?).await
}

/// Fetches from `server`, which is named and opened beside `others`.
async fn fetch_from(server: &Server, others: &[&str], of: &Descriptor) -> Result<Bytes> {
    let own = server.address.to_string();
    let hosts = [&[own.as_str()], others].concat();
    let client = client_in(network(&[], Proxies::none()), server);
    fetch(client, &server.url("/layer?sig=s3cr3t"), &rules(&hosts, true), of, 0).await
}

#[tokio::test]
async fn redirects_lead_only_where_the_spec_says() {
    let victim = Server::start(|_| reply(200, &[], "a layer")).await;
    let port = victim.address.port();
    let rows = [
        (format!("http://127.0.0.1:{port}/x?sig=s3cr3t"), "127.0.0.1:"),
        (format!("https://evil.example:{port}/x?sig=s3cr3t"), "evil.example"),
        ("https://169.254.169.254/latest?sig=s3cr3t".to_owned(), "169.254.169.254"),
        ("https://[fe80::1]/x?sig=s3cr3t".to_owned(), "fe80::1"),
        ("https://me:s3cr3t@named.example/x".to_owned(), "a user or a password"),
        ("http://named.example/x?sig=s3cr3t".to_owned(), "only https"),
        ("ftp://named.example/x?sig=s3cr3t".to_owned(), "only https"),
        ("file:///etc/passwd".to_owned(), "no address"),
        ("data:,x".to_owned(), "no address"),
        (format!("https://named.example/{}", "x".repeat(10_000)), "no address"),
        // Named; but its name leads to where no image may.
        (format!("https://named.example:{port}/x?sig=s3cr3t"), "loopback"),
        (format!("https://cloud.example:{port}/x?sig=s3cr3t"), "link-local"),
        (format!("https://private.example:{port}/x?sig=s3cr3t"), "private network"),
        (format!("https://mapped.example:{port}/x?sig=s3cr3t"), "private network"),
        (format!("https://10.0.0.7:{port}/x?sig=s3cr3t"), "private network"),
    ];
    let known = [
        ("named.example", "127.0.0.1"),
        ("evil.example", "127.0.0.1"),
        ("cloud.example", "169.254.169.254"),
        ("private.example", "10.1.2.3"),
        ("mapped.example", "::ffff:192.168.1.1"),
    ];
    for (location, said) in rows {
        let to = location.clone();
        let server = Server::start(move |_| reply(302, &[("location", &to)], "")).await;
        let own = server.address.to_string();
        let at_port = ["named.example", "cloud.example", "private.example", "mapped.example", "10.0.0.7"]
            .map(|name| format!("{name}:{port}"));
        let mut hosts: Vec<UrlHost> = at_port.iter().map(|text| host(text)).collect();
        hosts.extend([host(&own), host("named.example")]);
        let rules = Arc::new(Elsewhere { hosts, allow_private: vec![host(&own)] });
        let client = client_in(network(&known, Proxies::none()), &server);
        let error = fetch(client, &server.url("/layer"), &rules, &layer(b"a layer"), 0).await.unwrap_err();
        assert!(error.to_string().contains(said), "{location}: {error}");
        assert!(error.help_text().is_some(), "{location}: {error:?}");
        assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
        assert_eq!(server.lines().len(), 1, "{location}: not tried again");
    }
    assert!(victim.lines().is_empty(), "{:?}", victim.lines());
}

#[tokio::test]
async fn names_that_lead_to_private_addresses_are_not_connected_to_unless_they_are_opened() {
    let server = Server::start(|_| reply(200, &[], "a layer")).await;
    let url = format!("https://vendor.example:{}/layer", server.address.port());
    let vendor = format!("vendor.example:{}", server.address.port());
    for address in ["127.0.0.1", "10.0.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1", "203.0.113.1"] {
        let client = client_in(network(&[("vendor.example", address)], Proxies::none()), &server);
        let error = fetch(client, &url, &rules(&[&vendor], false), &layer(b"a layer"), 0).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{address}: {error:?}");
        assert!(error.help_text().is_some_and(|help| help.contains("allowPrivate")), "{error:?}");
    }
    assert!(server.lines().is_empty());
    // What the configuration says of a registry opens nothing to an image.
    let mut config = Config::default();
    config.registries.insert(vendor.parse().unwrap(), Default::default());
    let net = network(&[("vendor.example", "127.0.0.1")], Proxies::none());
    let client = Client::in_network(&config, Credentials::anonymous(), Side::Source, net).unwrap();
    let error = fetch(client, &url, &rules(&[&vendor], false), &layer(b"a layer"), 0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    // Opened, it is spoken to; in TLS, which this server does not know.
    let client = client_in(network(&[("vendor.example", "127.0.0.1")], Proxies::none()), &server);
    let error = fetch(client, &url, &rules(&[&vendor], true), &layer(b"a layer"), 0).await.unwrap_err();
    assert!(error.to_string().contains("it speaks no TLS"), "{error}");
}

#[tokio::test]
async fn behind_a_proxy_hosts_have_names() {
    let proxy = Server::start(|_| reply(502, &[], "")).await;
    let ask = async |url: &str, host: &str, opened| {
        let proxies = Proxies::all(&proxy.url(""), "");
        let client = client_in(network(&[], proxies), &proxy).with_retry(Retry::default().once());
        fetch(client, url, &rules(&[host], opened), &layer(b"a layer"), 0).await.unwrap_err()
    };
    for literal in ["93.184.216.34", "10.0.0.1"] {
        let error = ask(&format!("https://{literal}/x"), literal, false).await;
        assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    }
    let error = ask("https://[2606:4700::1111]/x", "[2606:4700::1111]", false).await;
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(proxy.seen().is_empty());
    for (url, host, opened) in
        [("https://vendor.example/x", "vendor.example", false), ("https://10.0.0.1/x", "10.0.0.1", true)]
    {
        let error = ask(url, host, opened).await;
        assert!(error.to_string().contains("through the proxy"), "{error}");
    }
    assert_eq!(proxy.seen().len(), 2);
    assert!(!format!("{:?}", proxy.seen()).contains(CANARY));
}

#[tokio::test]
async fn nobody_is_logged_in_and_nothing_of_us_is_shown() {
    let realm = Server::start(|_| reply(200, &[], r#"{"token":"s3cr3t"}"#)).await;
    let challenges = [
        r#"Basic realm="x""#.to_owned(),
        format!(r#"Bearer realm="{}",service="x",scope="repository:x:pull""#, realm.url("/token")),
    ];
    for challenge in challenges {
        let server =
            Server::start(move |_| reply(401, &[("www-authenticate", &challenge), ("set-cookie", "id=s3cr3t")], ""))
                .await;
        for _ in 0..2 {
            let error = fetch_from(&server, &[], &layer(b"a layer")).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{error:?}");
            assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
        }
        let seen = server.seen();
        assert_eq!(seen.len(), 2, "not tried again");
        for one in seen {
            for name in ["authorization", "proxy-authorization", "cookie", "referer", "origin"] {
                assert_eq!(one.header(name), "", "{name}");
            }
            assert_eq!(one.header("accept-encoding"), "identity");
        }
    }
    assert!(realm.seen().is_empty());
    // Nor where it redirects to.
    let store = Server::start(|_| reply(200, &[], "a layer")).await;
    let to = store.url("/x");
    let server = Server::start(move |_| reply(307, &[("location", &to), ("set-cookie", "id=s3cr3t")], "")).await;
    let bytes = fetch_from(&server, &[&store.address.to_string()], &layer(b"a layer")).await.unwrap();
    assert_eq!(bytes, "a layer");
    let headers = format!("{:?}", store.seen());
    assert!(!headers.contains(CANARY), "{headers}");
}

/// An answer, and what comes of it: all bytes, or an error of this kind that says so.
type Row = (&'static str, fn(&Seen) -> Response, Result<(), (Kind, &'static str)>);

const WHOLE: &[u8] = b"the bytes of a layer";

#[tokio::test]
async fn only_the_bytes_that_were_announced_are_taken() {
    let rows: [Row; 10] = [
        ("plain", |_| reply(200, &[], WHOLE), Ok(())),
        ("without a length", |_| reply(200, &[], unannounced(WHOLE.into())), Ok(())),
        // Some servers say so of every file that is packed; nothing is unpacked on the way, so the digest decides.
        ("said to be packed", |_| reply(200, &[("content-encoding", "gzip")], WHOLE), Ok(())),
        ("too long", |_| reply(200, &[], [WHOLE, b"!"].concat()), Err((Kind::Verification, "has 21 bytes"))),
        ("too short", |_| reply(200, &[], &WHOLE[1..]), Err((Kind::Verification, "has 19 bytes"))),
        (
            "endless",
            |_| {
                let piece: Bytes = vec![0; 65536].into();
                let pieces = futures_util::stream::repeat(piece).map(Ok::<_, std::io::Error>);
                reply(200, &[], axum::body::Body::from_stream(pieces))
            },
            Err((Kind::Verification, "sends more bytes")),
        ),
        (
            "never whole",
            |_| reply(200, &[], unannounced(Bytes::from_static(&WHOLE[..5]))),
            Err((Kind::Failed, "ended after 5 of 20")),
        ),
        ("not there", |_| reply(404, &[], "<title>gone</title>"), Err((Kind::Failed, "404"))),
        ("in trouble", |_| reply(503, &[], ""), Err((Kind::Failed, "503"))),
        (
            "in a circle",
            |seen| reply(302, &[("location", &seen.target)], ""),
            Err((Kind::Failed, "redirects more than")),
        ),
    ];
    for (name, answer, expected) in rows {
        let server = Server::start(answer).await;
        let found = fetch_from(&server, &[], &layer(WHOLE)).await;
        match expected {
            Ok(()) => assert_eq!(found.unwrap(), WHOLE, "{name}"),
            Err((kind, said)) => {
                let error = found.unwrap_err();
                assert_eq!(error.kind(), kind, "{name}: {error:?}");
                assert!(error.to_string().contains(said), "{name}: {error}");
                assert!(error.to_string().starts_with("source: fetch layer sha256:"), "{name}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_cut_is_gone_on_with_through_the_first_address() {
    let bytes = super::bytes(100_000);
    for knows_ranges in [true, false] {
        let whole = bytes.clone();
        let store = Server::start(move |seen| {
            let from = seen.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
            match (seen.nth, knows_ranges && from > 0) {
                (0, _) => reply(200, &[("content-length", "100000")], cut(whole.slice(..60_000))),
                (_, true) => {
                    reply(206, &[("content-range", &format!("bytes {from}-99999/100000"))], whole.slice(from..))
                }
                (_, false) => reply(200, &[], whole.clone()),
            }
        })
        .await;
        let to = store.url("/signed?sig=s3cr3t");
        let server = Server::start(move |_| reply(302, &[("location", &to)], "")).await;
        let found = fetch_from(&server, &[&store.address.to_string()], &layer(&bytes)).await.unwrap();
        assert_eq!(found, bytes);
        assert_eq!(server.seen().len(), 2, "signed addresses expire");
        let range = store.seen()[1].header("range").to_owned();
        assert!(range.starts_with("bytes=") && range != "bytes=0-", "{range}");
    }
}

#[tokio::test]
async fn a_host_that_is_down_is_found_out_once() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let server = Server::start(|_| reply(200, &[], "a layer")).await;
    let client = client_in(network(&[], Proxies::none()), &server);
    let url = format!("http://{gone}/x");
    let first = fetch(client.clone(), &url, &rules(&[&gone], true), &layer(b"a layer"), 0).await.unwrap_err();
    assert!(first.to_string().contains("5 attempts"), "{first}");
    let second = fetch(client, &url, &rules(&[&gone], true), &layer(b"another"), 0).await.unwrap_err();
    assert!(second.to_string().contains("was found down"), "{second}");
}
