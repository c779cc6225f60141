//! TLS with a private CA: certificates of servers and clients, from the configuration and from `certs.d` folders.

use std::path::Path;

use super::support::{Authority, Certificate, KeyForm, Settings, Tunnel, push_sample_through};
use super::*;

const NAMES: &str = "IP:127.0.0.1,IP:::1,DNS:registry.test";

/// A docker-registry with TLS; with `clients`, only for those whose certificates the CA has signed.
async fn registry(server: &Certificate, clients: Option<&Authority>, address: &'static str) -> Option<DockerRegistry> {
    let wanted = clients.map_or_else(String::new, |ca| format!(", clientcas: [\"{}\"]", ca.certificate().display()));
    let (certificate, key) = (server.certificate.display(), server.key.display());
    let http = format!("  tls: {{certificate: \"{certificate}\", key: \"{key}\"{wanted}}}");
    DockerRegistry::start_with(Settings { http, address, ..Settings::default() }).await
}

/// An image at `registry`, by a client that believes `ca` and shows `shown`.
async fn push(registry: &DockerRegistry, ca: &Authority, shown: Option<&Certificate>) -> SampleImage {
    let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(70_000, 1).build().unwrap();
    let read = |path: &Path| std::fs::read(path).unwrap();
    let root = reqwest::Certificate::from_pem(&read(&ca.certificate())).unwrap();
    let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
    if let Some(shown) = shown {
        let pem = [read(&shown.certificate), read(&shown.key)].concat();
        client = client.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    push_sample_through(client.build().unwrap(), &registry.url(), "team/app", Some("1"), &image).await;
    image
}

/// A machine with a spec of the image at `host`, and a configuration.
fn machine(host: &str, registries: &str) -> Machine {
    let mut machine = Machine::new();
    // Signatures that a mirror does not have would be asked of the registry behind it.
    let images = [(format!("{host}/team/app"), "tags: {exact: [\"1\"]}; signatures: {carry: none}")];
    machine.write("spec.yaml", &spec("tls", "linux/amd64", &images));
    configure(&mut machine, registries);
    machine
}

fn configure(machine: &mut Machine, registries: &str) {
    let text = format!("apiVersion: sealift/v1\nkind: Config\nregistries:\n{registries}\n");
    let path = machine.write("config.yaml", &text);
    machine.unset_all();
    machine.set("SEALIFT_CONFIG", path);
}

/// A `tls:` of the configuration for `host`.
fn tls(host: &str, ca: Option<&Authority>, shown: Option<&Certificate>) -> String {
    let mut parts: Vec<String> = ca.iter().map(|ca| format!("ca: \"{}\"", ca.certificate().display())).collect();
    parts.extend(
        shown
            .iter()
            .map(|shown| format!("certificate: \"{}\", key: \"{}\"", shown.certificate.display(), shown.key.display())),
    );
    format!("  \"{host}\": {{tls: {{{}}}}}", parts.join(", "))
}

async fn pulls(machine: &Machine) {
    machine.ok(&["pull", "spec.yaml", "--store", "store"]).await;
}

/// It fails, is not tried again, and says all of `texts`.
async fn fails(machine: &Machine, status: i32, texts: &[&str]) -> Ran {
    let ran = machine.run_to(status, &["pull", "spec.yaml", "--store", "store"]).await;
    let said = format!("{}{}", ran.out, ran.err);
    for text in texts {
        assert!(said.contains(text), "{text}\n{said}");
    }
    assert!(!said.contains("attempts, the last"), "{said}");
    ran
}

#[tokio::test]
async fn a_private_ca_is_believed_where_it_was_named() {
    let (Some(ca), Some(other)) = (Authority::new(), Authority::new()) else { return };
    let Some(registry) = registry(&ca.server(NAMES), None, "127.0.0.1:0").await else { return };
    push(&registry, &ca, None).await;
    let host = registry.host();
    let mut machine = machine(host, &tls(host, Some(&other), None));
    fails(&machine, 1, &["its CA is not known here", &format!("`registries.\"{host}\".tls.ca`")]).await;
    configure(&mut machine, &tls(host, Some(&ca), None));
    pulls(&machine).await;
    // In a folder of podman's.
    let mut machine = self::machine(host, "  a.example: {}");
    let folder = format!(".config/containers/certs.d/{host}");
    machine.write(&format!("{folder}/ca.crt"), &std::fs::read_to_string(ca.certificate()).unwrap());
    pulls(&machine).await;
    // Another host's certificates are for that alone.
    configure(&mut machine, &tls("a.example", Some(&ca), None));
    std::fs::remove_dir_all(machine.path(&folder)).unwrap();
    std::fs::remove_dir_all(machine.path("store")).unwrap();
    fails(&machine, 1, &["HTTPS server"]).await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_in_each_form_of_its_key() {
    let (Some(ca), Some(other)) = (Authority::new(), Authority::new()) else { return };
    let Some(registry) = registry(&ca.server(NAMES), Some(&ca), "127.0.0.1:0").await else { return };
    let client = ca.client(KeyForm::Pkcs8);
    push(&registry, &ca, Some(&client)).await;
    let host = registry.host();
    let mut machine = machine(host, &tls(host, Some(&ca), None));
    fails(&machine, 1, &["it wants a client certificate", &format!("`registries.\"{host}\".tls.certificate`")]).await;
    for form in [KeyForm::Pkcs8, KeyForm::Pkcs1, KeyForm::Sec1] {
        configure(&mut machine, &tls(host, Some(&ca), Some(&ca.client(form))));
        machine.ok(&["plan", "spec.yaml", "--store", "store"]).await;
    }
    configure(&mut machine, &tls(host, Some(&ca), Some(&other.client(KeyForm::Pkcs8))));
    fails(&machine, 1, &["it does not take the client certificate"]).await;
    // In a folder of podman's.
    let machine = self::machine(host, "  a.example: {}");
    for (name, file) in [("ca.crt", ca.certificate()), ("me.cert", client.certificate), ("me.key", client.key)] {
        let text = std::fs::read_to_string(file).unwrap();
        machine.write(&format!(".config/containers/certs.d/{host}/{name}"), &text);
    }
    pulls(&machine).await;
    // Its key is gone: that is a mistake, and not an anonymous client.
    std::fs::remove_file(machine.path(&format!(".config/containers/certs.d/{host}/me.key"))).unwrap();
    fails(&machine, 2, &["me.cert has no key beside it"]).await;
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let Some(ca) = Authority::new() else { return };
    let (one, two) = (ca.client(KeyForm::Pkcs8), ca.client(KeyForm::Sec1));
    let mut machine = machine("r.example", "  r.example: {}");
    machine.write("none.pem", "nothing\n");
    machine.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    machine.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let (certificate, key, others) = (one.certificate.display(), one.key.display(), two.key.display());
    let rows = [
        ("ca: gone.pem".to_owned(), "gone.pem: No such file"),
        ("ca: none.pem".to_owned(), "none.pem: it holds no certificate"),
        ("ca: broken.pem".to_owned(), "broken.pem: one of them is no certificate of a CA"),
        ("ca: cut.pem".to_owned(), "cut.pem: it"),
        ("ca: .".to_owned(), ": it is no file"),
        (format!("certificate: \"{key}\", key: \"{key}\""), "client-Pkcs8.key: it holds no certificate"),
        (
            format!("certificate: \"{certificate}\", key: \"{certificate}\""),
            "client-Pkcs8.pem: it holds no private key",
        ),
        (format!("certificate: \"{certificate}\", key: \"{others}\""), "client-Sec1.key: it is not the key of"),
    ];
    for (tls, said) in rows {
        configure(&mut machine, &format!("  r.example: {{tls: {{{tls}}}}}"));
        fails(&machine, 2, &["configure TLS of r.example: ", said]).await;
    }
}

#[tokio::test]
async fn mirrors_and_targets_have_ipv6_addresses_and_certificates_of_their_own() {
    let Some(ca) = Authority::new() else { return };
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        support::skip("this machine has no IPv6");
        return;
    }
    let server = ca.server(NAMES);
    let Some(mirror) = registry(&server, None, "[::1]:0").await else { return };
    let Some(target) = registry(&server, None, "[::1]:0").await else { return };
    push(&mirror, &ca, None).await;
    let registries = format!(
        "  registry.test: {{mirrors: [\"{}\"]}}\n{}\n{}",
        mirror.url(),
        tls(mirror.host(), Some(&ca), None),
        tls(target.host(), Some(&ca), None)
    );
    assert!(mirror.host().starts_with("[::1]:"), "{}", mirror.host());
    let machine = machine("registry.test", &registries);
    pulls(&machine).await;
    let bundle = export(&machine, "tls", VOLUME_SIZE).await;
    let report = replay(&machine, 0, &bundle, &format!("{}/mirror", target.host())).await;
    assert_eq!(report["reports"][0]["images"].as_array().unwrap().len(), 1, "{report}");
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_own_sentence() {
    let Some(ca) = Authority::new() else { return };
    let Some(good) = registry(&ca.server(NAMES), None, "127.0.0.1:0").await else { return };
    let Some(expired) = registry(&ca.expired_server(NAMES), None, "127.0.0.1:0").await else { return };
    let Some(plain) = DockerRegistry::start().await else { return };
    let names = [
        ("registry.test:443", good.host()),
        ("other.test:443", good.host()),
        ("old.test:443", expired.host()),
        ("plain.test:443", plain.host()),
    ];
    let tunnel = Tunnel::start("me:pw", &names).await;
    push(&good, &ca, None).await;
    let rows = [
        ("registry.test", None),
        ("other.test", Some("its certificate is for other names: 127.0.0.1, 0::1, registry.test")),
        ("old.test", Some("its certificate has expired")),
        ("plain.test", Some("it speaks no TLS")),
    ];
    for (host, said) in rows {
        let mut machine = machine(host, &tls(host, Some(&ca), None));
        machine.set("HTTPS_PROXY", format!("http://me:pw@{}", tunnel.host()));
        match said {
            None => pulls(&machine).await,
            Some(said) => {
                let place = format!("connect to {host} through the proxy {}: {said}", tunnel.host());
                fails(&machine, 1, &[&place]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_begin_is_not_waited_for() {
    let Some(ca) = Authority::new() else { return };
    let quiet = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = quiet.local_addr().unwrap().to_string();
    let mirror = format!("  registry.test: {{mirrors: [\"https://{host}\"]}}");
    let tls = format!("  \"{host}\": {{tls: {{ca: \"{}\"}}, timeouts: {{connect: 1s}}}}", ca.certificate().display());
    let mut machine = machine("registry.test", &format!("{mirror}\n{tls}"));
    // What is behind the mirror is not there either.
    machine.set("HTTPS_PROXY", "http://127.0.0.1:1");
    let ran = machine.run_to(1, &["plan", "spec.yaml", "--store", "store"]).await;
    assert!(ran.err.contains(&format!("connect to {host}: no connection after 1 s")), "{}", ran.err);
}
