//! The `urls` of layers, answered in place of the hosts that they name; and the same over TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use sealift::serve::{Certificate, Foreign, Serving};

use super::*;

/// How long a 404 may take on a busy machine.
const QUICK: Duration = Duration::from_secs(5);

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const ORDINARY: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The layers of the vendor: type, address, bytes.
const LAYERS: [(&str, &str, &[u8]); 12] = [
    (FOREIGN, "https://a.example/layer", b"of host a"),
    (FOREIGN, "https://x.b.example/layer", b"of another host"),
    (ORDINARY, "https://a.example/layer?id=1", b"with a query"),
    (ORDINARY, "https://a.example/with%20space/a%2Fb", b"encoded"),
    (FOREIGN, "https://a.example/v2/windows/blobs/x", b"as a registry has it"),
    (FOREIGN, "https://a.example/current", b"old"),
    (FOREIGN, "https://a.example/current", b"new"),
    (FOREIGN, BLOB_URL, b"as a registry names it"),
    (FOREIGN, "https://a.example/v2/app/manifests/0", b"no manifest"),
    (FOREIGN, "https://a.example/v2/app/%74ags/list", b"no list"),
    (FOREIGN, "https://a.example/v2/app/manifests/1", b"one thing"),
    (FOREIGN, "https://a.example/v2/app/manifests/1", b"and another"),
];

/// The path names the digest of what is there.
const BLOB_URL: &str =
    "https://a.example/v2/windows/blobs/sha256:95f5241cfd38d4efa8fc61847c6081c1fc9517c2bff6040361c72d4354760ede";

struct Vendor {
    running: Running,
    client: Client,
}

impl Vendor {
    async fn start(certificate: Option<Certificate>) -> Self {
        let Registry { running, shelf, client } = Registry::start().await;
        let registry = Registry { running, shelf, client };
        for (at, (media_type, url, bytes)) in LAYERS.into_iter().enumerate() {
            let (digest, config) = (registry.blob("app", bytes).await, registry.blob("app", b"{}").await);
            let layer = json!({"mediaType": media_type, "digest": digest, "size": bytes.len(), "urls": [url]});
            let config = json!({"mediaType": CONFIG, "digest": config, "size": 2});
            let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
            let path = format!("/v2/app/manifests/{at}");
            let put = registry.send("PUT", &path, &[("content-type", OCI_MANIFEST)], manifest.to_string()).await;
            assert_eq!(put.status, 201);
        }
        let foreign = Foreign::new(&registry.shelf.addresses().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let serving = Serving { shelf: Arc::new(registry.shelf), foreign, certificate };
        Vendor { running: Running::start_with(address, serving).await.unwrap(), client: registry.client }
    }

    async fn send(&self, method: &str, host: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let url = format!("{}{target}", self.running.url());
        let mut request = self.client.request(method.parse().unwrap(), url).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.bytes().await.unwrap() }
    }

    async fn get(&self, host: &str, target: &str) -> Answer {
        self.send("GET", host, target, &[]).await
    }
}

fn certificate() -> Certificate {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    Certificate::load(&folder.join("server.pem"), &folder.join("server.key")).unwrap()
}

#[tokio::test]
async fn every_url_has_its_own_bytes() {
    let vendor = Vendor::start(None).await;
    for (host, target, at) in [
        ("a.example", "/layer", 0),
        ("A.EXAMPLE:443", "/layer", 0),
        ("x.b.example", "/layer", 1),
        ("a.example", "/layer?id=1", 2),
        ("a.example", "/with%20space/a%2Fb", 3),
        // As containerd writes it.
        ("a.example", "/with%20space/a/b", 3),
        ("a.example", "/v2/windows/blobs/x", 4),
        ("a.example", BLOB_URL.trim_start_matches("https://a.example"), 7),
    ] {
        let (_, _, bytes) = LAYERS[at];
        let answer = vendor.get(host, target).await;
        assert_eq!((answer.status, &answer.body[..]), (200, bytes), "{host}{target}");
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), Digest::of(bytes).to_string());
        let head = vendor.send("HEAD", host, target, &[]).await;
        assert_eq!(
            (head.status, head.header("content-length"), head.body.len()),
            (200, answer.header("content-length"), 0)
        );
        let part = vendor.send("GET", host, target, &[("range", "bytes=2-")]).await;
        assert_eq!((part.status, &part.body[..]), (206, &bytes[2..]), "{host}{target}");
        let range = format!("bytes 2-{}/{}", bytes.len() - 1, bytes.len());
        assert_eq!(part.header("content-range"), range);
        let beyond = vendor.send("GET", host, target, &[("range", "bytes=999-")]).await;
        assert_eq!(beyond.status, 416);
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(vendor.send(method, host, target, &[]).await.status, 405, "{method} {host}{target}");
        }
    }
}

#[tokio::test]
async fn anything_else_is_a_quick_404_without_a_body() {
    let vendor = Vendor::start(None).await;
    for (host, target) in [
        ("a.example", "/"),
        ("a.example", "/layer?id=2"),
        ("a.example", "/layer?id=1&x"),
        ("a.example", "/Layer"),
        ("a.example", "/layer/"),
        ("x.b.example", "/layer?id=1"),
        // Nobody can know which of the two is meant.
        ("a.example", "/current"),
    ] {
        let begun = Instant::now();
        let answer = vendor.get(host, target).await;
        assert_eq!(
            (answer.status, answer.body.len(), answer.header("content-length")),
            (404, 0, "0"),
            "{host}{target}"
        );
        assert!(begun.elapsed() < QUICK);
    }
    // Of hosts that no url names, the registry answers, as it always did.
    assert_eq!(vendor.get("c.example", "/layer").await.status, 404);
    assert_eq!(vendor.get("c.example", "/v2/app/manifests/0").await.status, 200);
    assert_eq!(vendor.get("a.example:8443", "/layer").await.status, 404);
    // A registry may have the name of a host that urls name.
    assert_eq!(vendor.get("a.example", "/v2/app/manifests/0").await.status, 200);
    assert_eq!(vendor.get("a.example", "/v2/gone/manifests/0").await.status, 404);
}

/// Whoever made one image must not say what another one is, also where a registry has the name of a host in a url.
#[tokio::test]
async fn no_url_stands_in_for_what_a_registry_says_itself() {
    let vendor = Vendor::start(None).await;
    for tag in [0, 1] {
        let path = format!("/v2/app/manifests/{tag}");
        for method in ["GET", "HEAD"] {
            let answer = vendor.send(method, "a.example", &path, &[]).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, OCI_MANIFEST), "{method} {path}");
        }
    }
    let tags = vendor.get("a.example", "/v2/app/tags/list").await;
    assert!(tags.body.starts_with(b"{"), "{:?}", tags.body);
}

#[tokio::test]
async fn the_same_over_tls() {
    let vendor = Vendor::start(Some(certificate())).await;
    let address = vendor.running.address();
    let pem = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/server.pem")).unwrap();
    let root = reqwest::Certificate::from_pem(&pem).unwrap();
    let client = Client::builder().no_proxy().tls_certs_only([root]).resolve("a.example", address);
    let client = client.resolve("c.example", address).build().unwrap();
    let get = |host: &str, target: &str| {
        client.get(format!("https://{host}:{}{target}", address.port())).header("host", host).send()
    };
    let answer = get("a.example", "/layer").await.unwrap();
    assert_eq!((answer.status(), answer.bytes().await.unwrap()), (StatusCode::OK, Bytes::from_static(b"of host a")));
    assert_eq!(get("a.example", "/v2/app/manifests/0").await.unwrap().status(), StatusCode::OK);
    assert!(get("c.example", "/layer").await.is_err(), "the certificate is not for that name");
    // Who speaks no TLS gets nothing.
    assert!(vendor.client.get(format!("http://{address}/v2/")).send().await.is_err());
    let Vendor { running, .. } = vendor;
    running.stop().await.unwrap();
}
