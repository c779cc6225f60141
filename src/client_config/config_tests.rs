//! What is written, for whom, and that nothing in a url can be more than a url.

use super::*;
use crate::oci::{Descriptor, Manifest, MediaType};

fn add(addresses: &mut Addresses, repository: &str, urls: &[&str], bytes: &[u8], carried: bool) {
    let mut layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, bytes);
    layer.urls = urls.iter().map(|url| (*url).to_owned()).collect();
    let document = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
        "config": Descriptor::of(MediaType::OCI_CONFIG, b"{}"), "layers": [layer]});
    let manifest = Manifest::parse(&MediaType::OCI_MANIFEST, document.to_string().as_bytes()).unwrap();
    addresses.add_manifest(repository, &manifest, |_| carried);
}

fn wanted(parts: &[Part]) -> Wanted {
    Wanted {
        parts: parts.iter().copied().collect(),
        address: Some("10.0.0.5".parse().unwrap()),
        registry: Some("registry.corp:5000".parse().unwrap()),
        ca: Some("-----BEGIN CERTIFICATE-----\n".to_owned()),
        ..Wanted::default()
    }
}

fn windows() -> Addresses {
    let mut addresses = Addresses::default();
    let url = "https://mcr.microsoft.com/v2/windows/nanoserver/blobs/sha256:1";
    add(&mut addresses, "mcr.microsoft.com/windows/nanoserver", &[url], b"base", true);
    add(&mut addresses, "mcr.microsoft.com/app", &["https://go.microsoft.com/fwlink/?linkid=1"], b"update", true);
    addresses
}

fn file<'a>(config: &'a ClientConfig, path: &str) -> &'a str {
    &config.files.iter().find(|file| file.path == path).unwrap().content
}

#[test]
fn every_part_for_a_windows_image() {
    let parts = [Part::Hosts, Part::Nginx, Part::Containerd, Part::Podman, Part::Docker];
    let config = client_config(&windows(), &wanted(&parts)).unwrap();
    let paths: Vec<&str> = config.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "hosts",
            "nginx.conf",
            "containerd/certs.d/registry.corp:5000/hosts.toml",
            "containerd/certs.d/registry.corp:5000/ca.crt",
            "containers/certs.d/registry.corp:5000/ca.crt",
            "docker/certs.d/registry.corp:5000/ca.crt",
            "ca-certificates/sealift-enclave.crt",
        ]
    );
    assert!(file(&config, "hosts").ends_with("\n10.0.0.5 go.microsoft.com\n10.0.0.5 mcr.microsoft.com\n"));
    let nginx = file(&config, "nginx.conf");
    assert!(nginx.contains("listen 443 ssl;") && nginx.contains("\"~^go\\.microsoft\\.com$\""), "{nginx}");
    assert!(nginx.contains("proxy_pass http://127.0.0.1:5000;"), "{nginx}");
    let toml = file(&config, paths[2]);
    assert!(toml.contains("server = \"https://registry.corp:5000\""), "{toml}");
    assert!(
        config.steps[0].contains("subjectAltName=DNS:go.microsoft.com,DNS:mcr.microsoft.com\""),
        "{:?}",
        config.steps
    );
    assert_eq!(config.hosts.iter().map(|host| (host.urls, host.bytes)).collect::<Vec<_>>(), [(1, 6), (1, 4)]);
    assert_eq!((config.not_answered.len(), config.verdict()), (0, None));
}

#[test]
fn files_of_an_unpacked_bundle_are_found_by_exact_urls() {
    let wanted = Wanted { behind: Behind::Layout("/srv/base-images-1-7".to_owned()), ..wanted(&[Part::Nginx]) };
    let config = client_config(&windows(), &wanted).unwrap();
    let nginx = file(&config, "nginx.conf");
    let digest = Digest::of(b"update").hex();
    let line = format!("    \"~^go\\.microsoft\\.com:443/fwlink/\\x3flinkid=1$\" \"blobs/sha256/{digest}\";\n");
    assert!(nginx.contains(&line), "{nginx}");
    assert!(nginx.contains("root \"/srv/base-images-1-7\";"), "{nginx}");
}

#[test]
fn what_would_turn_the_enclave_upside_down_is_left_alone() {
    let mut addresses = windows();
    let urls = [
        "https://localhost/x",
        "https://db.localhost/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://registry.corp:5000/v2/x",
        "https://registry.corp/x",
        "https://ldap/x",
        "https://user:pw@a.example/x",
        "https://a.example\n10.0.0.9 evil.example/x",
    ];
    add(&mut addresses, "x/hostile", &urls, b"x", true);
    let config = client_config(&addresses, &wanted(&[Part::Hosts, Part::Nginx])).unwrap();
    let hosts: Vec<&str> = config.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(hosts, ["go.microsoft.com", "mcr.microsoft.com"]);
    assert_eq!(config.not_answered.len(), urls.len(), "{:?}", config.not_answered);
    assert_eq!(file(&config, "hosts").lines().count(), 3);
    let readme = steps::readme(&config);
    assert!(readme.lines().all(|line| !line.starts_with("10.0.0.9")), "{readme}");
    // A name without a domain may be an in-house server: whoever means it says so.
    let named = Wanted { hosts: BTreeSet::from(["ldap".to_owned()]), ..wanted(&[Part::Hosts]) };
    assert!(file(&client_config(&addresses, &named).unwrap(), "hosts").ends_with("\n10.0.0.5 ldap\n"));
}

#[test]
fn a_url_cannot_break_out_of_a_file() {
    let mut addresses = Addresses::default();
    let urls = [
        "https://a.example/\";}\nserver{listen 1;}#",
        "https://a.example/\"; } server { listen 1; }",
        "https://a.example/$host$(reboot)`id`",
        "https://a.example/x\\\" y",
        "https://a.example/{{}}';--",
    ];
    add(&mut addresses, "x/hostile", &urls, b"x", true);
    let wanted = Wanted { behind: Behind::Layout("/srv/x".to_owned()), ..wanted(&[Part::Nginx, Part::Hosts]) };
    let config = client_config(&addresses, &wanted).unwrap();
    let nginx = file(&config, "nginx.conf");
    // Those that nginx means itself, and no other.
    assert_eq!(nginx.matches('{').count(), nginx.matches('}').count());
    assert_eq!(nginx.matches("server {").count(), 1, "{nginx}");
    assert_eq!(nginx.lines().filter(|line| line.trim_start().starts_with("listen")).count(), 1, "{nginx}");
    for line in nginx.lines().filter(|line| line.contains("a\\.example:443")) {
        assert!(line.starts_with("    \"~^") && line.ends_with("\";") && line.matches('"').count() == 4, "{line}");
    }
    assert_eq!(file(&config, "hosts").lines().last().unwrap(), "10.0.0.5 a.example");
}

#[test]
fn what_is_not_carried_and_what_is_doubtful_is_said() {
    let mut addresses = windows();
    add(&mut addresses, "x/gone", &["https://gone.example/x"], b"gone", false);
    add(&mut addresses, "x/old", &["https://a.example/current"], b"old", true);
    add(&mut addresses, "x/new", &["https://a.example/current"], b"new", true);
    let config = client_config(&addresses, &wanted(&[Part::Hosts])).unwrap();
    let whys: Vec<(&str, bool)> =
        config.not_answered.iter().map(|row| (row.url.as_str(), row.why == DOUBTFUL)).collect();
    assert_eq!(whys, [("https://a.example/current", true), ("https://gone.example/x", false)]);
    // A host that cannot be reached at all would be worse than one that answers 404.
    assert!(file(&config, "hosts").contains("10.0.0.5 a.example\n"));
    assert!(!file(&config, "hosts").contains("gone.example"));
}

#[test]
fn what_is_missing_for_a_part_is_said() {
    let cases = [
        (Part::Hosts, Wanted { address: None, ..wanted(&[Part::Hosts]) }, "--address"),
        (Part::Containerd, Wanted { registry: None, ..wanted(&[Part::Containerd]) }, "--registry"),
        (Part::Podman, Wanted { ca: None, ..wanted(&[Part::Podman]) }, "--ca"),
    ];
    for (part, wanted, option) in cases {
        let error = client_config(&windows(), &wanted).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.help_text().unwrap().contains(option), "{part:?}: {error}");
    }
    let named = Wanted { hosts: BTreeSet::from(["mcr.example".to_owned()]), ..wanted(&[Part::Hosts]) };
    assert_eq!(client_config(&windows(), &named).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn nothing_is_written_outside_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (out, elsewhere) = (folder.path().join("out"), folder.path().join("elsewhere"));
    let config = client_config(&windows(), &wanted(&[Part::Hosts, Part::Containerd])).unwrap();
    assert_eq!(write(&config, &out).unwrap().len(), 5);
    assert!(out.join("containerd/certs.d/registry.corp:5000/hosts.toml").is_file());
    assert!(std::fs::read_to_string(out.join("README.txt")).unwrap().contains("1. Make a certificate"));
    // Again: what is there is replaced.
    write(&config, &out).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    for (link, to) in [("hosts", "elsewhere/hosts"), ("containerd", "elsewhere"), ("README.txt.partial", "elsewhere/x")]
    {
        let link = out.join(link);
        let _ = std::fs::remove_file(&link);
        let _ = std::fs::remove_dir_all(&link);
        std::os::unix::fs::symlink(folder.path().join(to), &link).unwrap();
        let error = write(&config, &out).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");
        std::fs::remove_file(&link).unwrap();
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    let mut escaping = config;
    escaping.files[0].path = "../elsewhere/x".to_owned();
    assert!(write(&escaping, &out).is_err());
}
