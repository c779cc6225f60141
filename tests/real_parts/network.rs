//! What stands between here and a registry: proxies with a password, and front ends that redirect blobs elsewhere.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Authority, Nginx, Settings, Tunnel, push_sample_as, push_sample_through};
use super::*;

/// The password of a proxy; percent-encoded, as an address wants it.
const PASSWORD: &str = "lantern/quarry:7";
const ENCODED: &str = "lantern%2Fquarry%3A7";

/// One that tinyproxy takes in its configuration: letters and digits.
const PLAIN_PASSWORD: &str = "lanternQuarry7";

fn image(layer: u64) -> SampleImage {
    let layer = usize::try_from(layer).unwrap();
    ImageBuilder::new().platform("linux", "amd64", "").random_layer(layer, 1).build().unwrap()
}

/// A machine with a spec of the image at `host`, and a configuration.
fn machine(host: &str, registries: &str) -> Machine {
    let mut machine = Machine::new();
    let images = [(format!("{host}/team/app"), "tags: {exact: [\"1\"]}")];
    machine.write("spec.yaml", &spec("network", "linux/amd64", &images));
    let text = format!("apiVersion: sealift/v1\nkind: Config\nregistries:\n{registries}\n");
    let path = machine.write("config.yaml", &text);
    machine.set("SEALIFT_CONFIG", path);
    machine
}

/// A registry with TLS from a private CA, with an image in it.
async fn registry_with_tls(names: &str) -> Option<(Authority, DockerRegistry)> {
    let ca = Authority::new()?;
    let server = ca.server(names);
    let (certificate, key) = (server.certificate.display(), server.key.display());
    let http = format!("  tls: {{certificate: \"{certificate}\", key: \"{key}\"}}");
    let registry = DockerRegistry::start_with(Settings { http, ..Settings::default() }).await?;
    let root = reqwest::Certificate::from_pem(&std::fs::read(ca.certificate()).unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    push_sample_through(client, &registry.url(), "team/app", Some("1"), &image(70_000)).await;
    Some((ca, registry))
}

fn says_no_password(ran: &Ran) {
    let basic = STANDARD.encode(format!("me:{PASSWORD}"));
    for secret in [PASSWORD, ENCODED, PLAIN_PASSWORD, &basic] {
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{}\n{}", ran.out, ran.err);
    }
}

#[tokio::test]
async fn a_proxy_with_a_password_leads_to_a_name_that_it_alone_knows() {
    let Some((ca, registry)) = registry_with_tls("IP:127.0.0.1,DNS:registry.test").await else { return };
    let port = registry.host().rsplit(':').next().unwrap();
    let host = format!("registry.test:{port}");
    let tunnel = Tunnel::start(&format!("me:{PASSWORD}"), &[(&host, registry.host())]).await;
    let config = format!("  \"{host}\": {{tls: {{ca: \"{}\"}}}}", ca.certificate().display());
    let proxy = tunnel.host();
    let pull = ["pull", "spec.yaml", "--store", "store"];

    let mut good = machine(&host, &config);
    good.set("HTTPS_PROXY", format!("http://me:{ENCODED}@{proxy}"));
    good.set("SEALIFT_LOG", "trace");
    let ran = good.ok(&pull).await;
    says_no_password(&ran);
    assert!(tunnel.asked().iter().all(|asked| *asked == host), "{:?}", tunnel.asked());

    let rows = [
        (format!("http://{proxy}"), 4, format!("the proxy {proxy} wants a user and a password")),
        (format!("http://me:x{ENCODED}@{proxy}"), 4, format!("the proxy {proxy} refuses the user or the password")),
        (format!("http://me:{ENCODED} @{proxy}"), 2, "HTTPS_PROXY is no address of a proxy".to_owned()),
    ];
    for (address, status, said) in rows {
        let mut bad = machine(&host, &config);
        bad.set("HTTPS_PROXY", address);
        bad.set("SEALIFT_LOG", "trace");
        let before = tunnel.asked().len();
        let ran = bad.run_to(status, &pull).await;
        assert!(ran.err.contains(&said) || ran.out.contains(&said), "{said}\n{}\n{}", ran.out, ran.err);
        assert!(tunnel.asked().len() <= before + 1, "not tried again");
        says_no_password(&ran);
    }
    // Loopback is spoken to directly, and so is what NO_PROXY names.
    let config = format!("  \"{}\": {{tls: {{ca: \"{}\"}}}}", registry.host(), ca.certificate().display());
    let mut direct = machine(registry.host(), &config);
    direct.set("ALL_PROXY", "http://127.0.0.1:1");
    direct.ok(&pull).await;
}

/// Debian's tinyproxy; killed when dropped.
struct Tinyproxy {
    process: Child,
    host: String,
    _folder: tempfile::TempDir,
}

impl Tinyproxy {
    async fn start() -> Option<Self> {
        if !support::have(&["tinyproxy"]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let text = format!("Port {port}\nListen 127.0.0.1\nMaxClients 20\nBasicAuth me {PLAIN_PASSWORD}\n");
        std::fs::write(folder.path().join("conf"), text).unwrap();
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(folder.path().join("conf"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut started = Tinyproxy { process, host: format!("127.0.0.1:{port}"), _folder: folder };
        for _ in 0..500 {
            assert!(started.process.try_wait().unwrap().is_none(), "tinyproxy did not start");
            if TcpStream::connect(&started.host).await.is_ok() {
                return Some(started);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("tinyproxy does not listen");
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn tinyproxy_is_passed_with_a_password() {
    // An address that is this machine for Linux, and no loopback address for sealift.
    let Some((ca, registry)) = registry_with_tls("IP:127.0.0.1,IP:0.0.0.0").await else { return };
    let Some(proxy) = Tinyproxy::start().await else { return };
    let host = registry.host().replace("127.0.0.1", "0.0.0.0");
    let config = format!("  \"{host}\": {{tls: {{ca: \"{}\"}}}}", ca.certificate().display());
    let pull = ["pull", "spec.yaml", "--store", "store"];
    let mut machine = machine(&host, &config);
    machine.set("HTTPS_PROXY", format!("http://me:{PLAIN_PASSWORD}@{}", proxy.host));
    says_no_password(&machine.ok(&pull).await);
    // It was asked, for without a password nothing comes.
    let mut machine = self::machine(&host, &config);
    machine.set("HTTPS_PROXY", format!("http://{}", proxy.host));
    let ran = machine.run_to(4, &pull).await;
    assert!(format!("{}{}", ran.out, ran.err).contains("wants a user and a password"), "{ran:?}");
}

/// The size of the layer that is fetched from behind a redirect, and where its first download is cut.
const LAYER: u64 = 3_000_000;
const CUT_AT: usize = 1_200_000;

/// Stands before `to`. The first connection over which so many bytes of answers went is cut there.
async fn cutting(to: String, at: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let to_cut = Arc::new(AtomicBool::new(true));
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&to).await.unwrap();
            tokio::spawn(pass(client, server, at, to_cut.clone()));
        }
    });
    host
}

async fn pass(client: TcpStream, server: TcpStream, at: usize, to_cut: Arc<AtomicBool>) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forward = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let (mut passed, mut buffer) = (0, vec![0; 16 * 1024]);
    loop {
        let read = from_server.read(&mut buffer).await?;
        passed += read;
        if read == 0 || (passed > at && to_cut.swap(false, Ordering::SeqCst)) {
            break;
        }
        to_client.write_all(&buffer[..read]).await?;
    }
    to_client.shutdown().await?;
    forward.abort();
    Ok(())
}

/// docker-registry with a password; before it nginx, which redirects blobs to a second nginx by links that work once.
#[tokio::test]
async fn a_download_goes_on_by_a_new_link_and_no_password_goes_with_it() {
    let htpasswd = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(htpasswd.path(), "carrier:$2y$05$abcdefghijklmnopqrstuuGHHWbJgODghpZc73S6j9RCQLYZNWLja\n").unwrap();
    let login = ("carrier", "walnut-harbour-42-Gx");
    let basic = STANDARD.encode(format!("{}:{}", login.0, login.1));
    let sections = format!("auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}", htpasswd.path().display());
    let Some(registry) = DockerRegistry::start_with(Settings { sections, ..Settings::default() }).await else { return };
    push_sample_as(Some(login), &registry.url(), "team/app", Some("1"), &image(LAYER)).await;

    let behind = registry.host().to_owned();
    let store = Nginx::start(|port| {
        format!(
            "limit_req_zone $uri zone=links:1m rate=1r/m;\n\
             log_format all '$status $uri auth=\"$http_authorization\" range=\"$http_range\"';\n\
             server {{ listen 127.0.0.1:{port}; access_log log all;\n\
             location ~ ^/link/[^/]+(?<blob>/v2/.*)$ {{ limit_req zone=links; limit_req_status 403;\n\
             proxy_set_header Authorization \"Basic {basic}\"; proxy_pass http://{behind}$blob; }} }}"
        )
    });
    let Some(store) = store.await else { return };
    let cutting = cutting(store.host(), CUT_AT).await;
    let behind = registry.host();
    let front = Nginx::start(|port| {
        format!(
            "log_format all '$status $uri auth=\"$http_authorization\"';\n\
             server {{ listen 127.0.0.1:{port}; access_log log all;\n\
             location ~ ^/v2/.*/blobs/sha256: {{ return 307 http://{cutting}/link/$request_id$uri; }}\n\
             location / {{ proxy_set_header Host $http_host; proxy_pass http://{behind}; }} }}"
        )
    });
    let Some(front) = front.await else { return };

    let machine = machine(&front.host(), "  a.example: {}");
    let auth = serde_json::json!({"auths": {front.host(): {"auth": basic}}});
    machine.write(".docker/config.json", &auth.to_string());
    let report = machine.json(&["pull", "spec.yaml", "--store", "store"]).await;
    assert_eq!((&report["reports"][0]["complete"], &report["reports"][0]["fetchedBlobs"]), (&1.into(), &2.into()));

    let asked = front.file("log");
    let redirected = asked.lines().filter(|line| line.starts_with("307")).count();
    // The line of the download that was cut is written when nginx has noticed.
    for _ in 0..1_000 {
        if store.file("log").lines().count() >= redirected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lines = store.file("log");
    assert!(lines.lines().all(|line| line.contains("auth=\"-\"")), "{lines}");
    // Every link was used once, and the layer's second one from where the first was cut.
    assert!(!lines.lines().any(|line| line.starts_with("403")), "{lines}");
    let links: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let distinct: std::collections::BTreeSet<&str> = links.iter().copied().collect();
    assert_eq!(links.len(), distinct.len(), "{lines}");
    let resumed = lines.lines().filter(|line| line.starts_with("206") && line.contains("range=\"bytes=")).count();
    assert_eq!(resumed, 1, "{lines}");
    assert_eq!(redirected, links.len(), "{asked}\n{lines}");
    assert!(asked.contains(&basic), "the registry wanted the password");
}
