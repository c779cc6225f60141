//! Where a registry may send sealift, and what it may wrap its answers in. Names lead to loopback here as the test says.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use reqwest::dns::{Addrs, Name as HostName, Resolve, Resolving};

use super::super::transport::{Network, Proxies};
use super::server::{Seen, Server, error, reply};
use super::*;
use crate::Kind;
use crate::config::RegistryConfig;
use crate::oci::{Descriptor, Digest, MediaType, Name, Registry, Repository};

const BLOB: &[u8] = b"a blob";

/// What each name leads to, and which were asked for.
#[derive(Clone, Default)]
pub(super) struct Names {
    pub known: Vec<(&'static str, IpAddr)>,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Resolve for Names {
    fn resolve(&self, name: HostName) -> Resolving {
        self.asked.lock().unwrap().push(name.as_str().to_owned());
        let found = self.known.iter().filter(|(known, _)| *known == name.as_str());
        let found: Vec<SocketAddr> = found.map(|(_, address)| SocketAddr::new(*address, 0)).collect();
        Box::pin(async { Ok(Box::new(found.into_iter()) as Addrs) })
    }
}

/// A registry by the name of `host`, which leads to a server on loopback; `others` are names that may be redirected to.
struct Far {
    names: Names,
    config: Config,
    proxies: Proxies,
    repository: Repository,
}

impl Far {
    fn new(host: &'static str, port: u16, others: &[(&'static str, &str)]) -> Self {
        let mut known = vec![(host, "127.0.0.1".parse().unwrap())];
        known.extend(others.iter().map(|(name, address)| (*name, address.parse().unwrap())));
        let registry: Registry = format!("{host}:{port}").parse().unwrap();
        let mut far = Far {
            names: Names { known, ..Names::default() },
            config: Config::default(),
            proxies: Proxies::none(),
            repository: Repository::new(registry.clone(), "team/app").unwrap(),
        };
        far.configure(registry);
        far
    }

    /// Has the operator name a host.
    fn configure(&mut self, registry: Registry) {
        self.config.registries.insert(registry, RegistryConfig { plain_http: true, ..RegistryConfig::default() });
    }

    fn remote(self) -> Remote {
        let network = Network { resolver: Arc::new(self.names), proxies: self.proxies, certificates: Vec::new() };
        let credentials = Credentials::of(self.repository.registry().clone(), "me", "pw");
        let client = Client::in_network(&self.config, credentials, Side::Source, network).unwrap();
        client.with_retry(Retry::default().with_base(Duration::ZERO)).repository(&self.repository)
    }
}

fn blob() -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER_GZIP, BLOB)
}

/// Sends everything to `location`, with what is put together from the parts `location` and the port of the server.
async fn redirecting(location: String) -> Server {
    Server::start(move |_| reply(307, &[("location", &location)], "")).await
}

#[tokio::test]
async fn no_redirect_leads_to_this_machine_or_its_cloud() {
    let victim = Server::start(|_| reply(200, &[], BLOB)).await;
    let port = victim.address.port();
    let rows = [
        format!("http://127.0.0.1:{port}/x?sig=s3cr3t"),
        format!("http://localhost:{port}/x?sig=s3cr3t"),
        format!("http://[::ffff:127.0.0.1]:{port}/x?sig=s3cr3t"),
        format!("http://0.0.0.0:{port}/x?sig=s3cr3t"),
        "http://169.254.169.254/latest/meta-data?sig=s3cr3t".to_owned(),
        "http://[fe80::1]/x?sig=s3cr3t".to_owned(),
        format!("http://evil.example:{port}/x?sig=s3cr3t"),
        format!("http://cloud.example:{port}/x?sig=s3cr3t"),
        format!("http://mapped.example:{port}/x?sig=s3cr3t"),
        // Another service of the machine that the registry's own name leads to.
        format!("http://registry.example:{port}/x?sig=s3cr3t"),
    ];
    let others =
        [("evil.example", "127.0.0.1"), ("cloud.example", "169.254.169.254"), ("mapped.example", "::ffff:7f00:1")];
    for location in rows {
        let server = redirecting(location.clone()).await;
        let far = Far::new("registry.example", server.address.port(), &others);
        let refused = far.remote().open_blob(&blob(), 0).await.err().unwrap();
        assert_eq!(refused.kind(), Kind::Refused, "{location}: {refused:?}");
        let host = location.split('/').nth(2).unwrap();
        let said = refused.to_string();
        // The URL parser writes some addresses anew.
        let host = if host.contains("127.0.0.1]") { "[::ffff:7f00:1]" } else { host };
        assert!(said.contains(host) && said.contains("registry.example"), "{location}: {said}");
        assert!(!format!("{refused:?}").contains("s3cr3t"), "{refused:?}");
        assert_eq!(server.lines().len(), 1, "{location}: not tried again");
    }
    assert!(victim.lines().is_empty(), "{:?}", victim.lines());
}

#[tokio::test]
async fn what_the_operator_named_may_be_redirected_to() {
    let store = Server::start(|_| reply(200, &[], BLOB)).await;
    for host in ["127.0.0.1", "store.example"] {
        let server = redirecting(format!("http://{host}:{}/x", store.address.port())).await;
        let mut far = Far::new("registry.example", server.address.port(), &[("store.example", "127.0.0.1")]);
        far.configure(format!("{host}:{}", store.address.port()).parse().unwrap());
        let body = far.remote().open_blob(&blob(), 0).await.unwrap();
        assert_eq!(read(body).await.unwrap(), BLOB);
    }
    let seen = store.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_registry_on_loopback_may_use_loopback_and_no_more() {
    let store = Server::start(|_| reply(200, &[], BLOB)).await;
    let port = store.address.port();
    let rows = [
        (format!("http://127.0.0.1:{port}/x"), true),
        (format!("http://store.example:{port}/x"), true),
        ("http://169.254.169.254/x".to_owned(), false),
        ("http://cloud.example/x".to_owned(), false),
    ];
    for (location, taken) in rows {
        let server = redirecting(location.clone()).await;
        let others = [("store.example", "127.0.0.1"), ("cloud.example", "169.254.169.254")];
        let mut far = Far::new("registry.example", server.address.port(), &others);
        far.repository = server.repository("team/app");
        let opened = far.remote().open_blob(&blob(), 0).await;
        assert_eq!(
            opened.map(drop).map_err(|error| error.kind()),
            if taken { Ok(()) } else { Err(Kind::Refused) },
            "{location}"
        );
    }
}

#[tokio::test]
async fn no_upload_goes_to_this_machine() {
    let victim = Server::start(|_| reply(201, &[], "")).await;
    for host in ["127.0.0.1", "evil.example"] {
        let location = format!("http://{host}:{}/upload?state=s3cr3t", victim.address.port());
        let server = Server::start(move |seen| match seen.method.as_str() {
            "POST" => reply(202, &[("location", &location)], ""),
            _ => error(404, "BLOB_UNKNOWN"),
        })
        .await;
        let remote = Far::new("registry.example", server.address.port(), &[("evil.example", "127.0.0.1")]).remote();
        let refused = remote.push_blob(&blob(), |_| async { Ok(Body::full(BLOB)) }).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{refused:?}");
        assert!(!format!("{refused:?}").contains("s3cr3t"), "{refused:?}");
        assert_eq!(server.lines().iter().filter(|line| line.starts_with("POST")).count(), 1, "not tried again");
    }
    assert!(victim.lines().is_empty());
}

#[tokio::test]
async fn no_password_goes_to_a_realm_on_this_machine() {
    let victim = Server::start(|_| reply(200, &[], r#"{"token":"t"}"#)).await;
    for host in ["127.0.0.1", "localhost", "evil.example"] {
        let challenge = format!(r#"Bearer realm="http://{host}:{}/token",service="s""#, victim.address.port());
        let server = Server::start(move |_| reply(401, &[("www-authenticate", &challenge)], "")).await;
        let remote = Far::new("registry.example", server.address.port(), &[("evil.example", "127.0.0.1")]).remote();
        let refused = remote.tags().await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused, "{refused:?}");
        assert_eq!(server.lines().len(), 1);
    }
    assert!(victim.lines().is_empty());
}

#[tokio::test]
async fn no_page_is_fetched_from_another_host() {
    let victim = Server::start(|_| reply(200, &[], r#"{"tags":[]}"#)).await;
    let link = format!("<http://127.0.0.1:{}/v2/x?last=a>; rel=\"next\"", victim.address.port());
    let server = Server::start(move |_| reply(200, &[("link", &link)], r#"{"tags":["a"]}"#)).await;
    let remote = Far::new("registry.example", server.address.port(), &[]).remote();
    assert_eq!(remote.tags().await.unwrap_err().kind(), Kind::Refused);
    assert!(victim.lines().is_empty());
}

#[tokio::test]
async fn a_proxy_finds_the_registry_and_is_told_of_by_host_and_port_alone() {
    // In plain HTTP a proxy is asked for whole addresses: it stands for all servers here.
    let proxy = Server::start(|seen| match seen.header("proxy-authorization") {
        "Basic bWU6czNjcjN0" => reply(200, &[], r#"{"tags":["1"]}"#),
        _ => reply(407, &[("proxy-authenticate", "Basic realm=\"x\"")], ""),
    })
    .await;
    let behind = |login: &str| {
        let mut far = Far::new("registry.example", 5000, &[]);
        far.names.known.clear();
        far.proxies = Proxies::all(&format!("http://{login}{}", proxy.address), "");
        far.remote()
    };
    assert_eq!(behind("me:s3cr3t@").tags().await.unwrap().unwrap().len(), 1);
    for (login, said) in [("", "wants a user and a password"), ("me:s3cr3t2@", "refuses the user or the password")] {
        let before = proxy.lines().len();
        let refused = behind(login).tags().await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(refused.to_string().contains(&format!("the proxy {} {said}", proxy.address)), "{refused}");
        assert!(!format!("{refused:?}").contains("s3cr3t"));
        assert_eq!(proxy.lines().len(), before + 1, "not tried again");
    }
    // Loopback is spoken to directly.
    let server = Server::start(|_| reply(200, &[], r#"{"tags":["1","2"]}"#)).await;
    let mut far = Far::new("registry.example", 5000, &[]);
    far.repository = server.repository("team/app");
    far.proxies = Proxies::all("http://127.0.0.1:1", "");
    assert_eq!(far.remote().tags().await.unwrap().unwrap().len(), 2);
    // A proxy that is not there.
    let mut far = Far::new("registry.example", 5000, &[]);
    far.proxies = Proxies::all("http://me:s3cr3t@127.0.0.1:1", "");
    let gone = far.remote().tags().await.unwrap_err();
    assert!(gone.to_string().contains("registry.example:5000 through the proxy 127.0.0.1:1: "), "{gone}");
    assert!(!format!("{gone:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn an_ipv6_address_behind_a_proxy_is_an_error_that_says_so() {
    let mut far = Far::new("registry.example", 5000, &[]);
    far.repository = Repository::new("[2001:db8::1]:5000".parse().unwrap(), "team/app").unwrap();
    far.proxies = Proxies::all("http://127.0.0.1:1", "");
    let refused = far.remote().tags().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Usage);
    assert!(refused.to_string().contains("[2001:db8::1]:5000 cannot be reached with TLS through"), "{refused}");
}

#[tokio::test]
async fn ipv6_addresses_are_spoken_to() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6.
        return;
    }
    let server = Server::start_at("[::1]:0", |_| reply(200, &[], r#"{"tags":["1"]}"#)).await;
    assert!(server.registry().to_string().starts_with("[::1]:"));
    assert_eq!(remote(&server).tags().await.unwrap().unwrap().len(), 1);
    assert_eq!(server.seen()[0].header("host"), server.address.to_string());
}

#[tokio::test]
async fn a_host_is_waited_for_as_long_as_its_own_time_out_says() {
    let quiet = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = quiet.local_addr().unwrap();
    let registry: Registry = address.to_string().parse().unwrap();
    let timeouts = crate::config::Timeouts { idle: Duration::from_secs(1), ..Default::default() };
    let mut config = Config::default();
    config.registries.insert(registry.clone(), RegistryConfig { timeouts, ..RegistryConfig::default() });
    let remote = client(&config, Credentials::anonymous()).repository(&Repository::new(registry, "team/app").unwrap());
    let error = remote.tags().await.unwrap_err();
    assert!(error.to_string().ends_with(&format!("talk to {address}: nothing came for 1 s")), "{error}");
}

#[tokio::test]
async fn nothing_is_decoded_and_an_encoding_is_told_of() {
    let encoded = |body: &'static [u8]| {
        Server::start(move |seen: &Seen| {
            assert_eq!(seen.header("accept-encoding"), "identity");
            reply(200, &[("content-encoding", "gzip")], body)
        })
    };
    // Right bytes are right, whatever the header says.
    let server = encoded(BLOB).await;
    let body = remote(&server).open_blob(&blob(), 0).await.unwrap();
    assert_eq!(read(body).await.unwrap(), BLOB);
    let told = "it came with the Content-Encoding \"gzip\"";
    let server = encoded(b"\x1f\x8b\x08 no JSON").await;
    let remote = remote(&server);
    let name = Name::Digest(Digest::of(BLOB));
    let wrong = remote.get_manifest(&name, None).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::Verification);
    assert!(wrong.to_string().contains(told), "{wrong}");
    let wrong = remote.tags().await.unwrap_err();
    assert!(wrong.to_string().contains(told), "{wrong}");
    let wrong = remote.open_blob(&blob(), 0).await.err().unwrap();
    assert!(wrong.to_string().contains(told), "{wrong}");
}
