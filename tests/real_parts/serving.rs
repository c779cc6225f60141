//! `sealift serve` as a process, with real clients.

use std::time::{Duration, Instant};

use super::*;

/// The longest that a server without requests may take to end.
const ENDING_MAX: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_store_and_a_bundle_are_registries() {
    let Some((machine, source, image, bundle)) = carried("linux/amd64, linux/s390x").await else { return };
    if !have(&["skopeo", "podman"]) {
        return;
    }
    let repository = format!("{}/debian/busybox", source.host().replace(':', "_"));
    // Several are one; so are parts of one bundle.
    let arguments: [&[&str]; 3] = [
        &["store"],
        &[&bundle, "--key", "keys/exporter.pub"],
        &["store", &bundle, &bundle, "--key", "keys/exporter.pub", "--foreign"],
    ];
    for arguments in arguments {
        let serving = machine.serve(arguments).await;
        let reader = Reader::new(&serving.url(), &repository);
        assert_eq!(reader.tags().await, ["1"], "{arguments:?}");
        assert_eq!(reader.manifest("1").await.as_ref(), image.bytes(&image.root.digest));
        let left_out = image.child("linux", "arm64", "").unwrap();
        assert_eq!(reader.manifest(left_out.digest).await, None, "a stub is no manifest");
        let clients = Clients::new();
        let name = format!("{}/{repository}@{}", serving.host(), image.root.digest);
        for architecture in ["amd64", "s390x"] {
            let choice = ["--override-os", "linux", "--override-arch", architecture];
            let to = format!("dir:{}", clients.folder().join(architecture).display());
            let copy = ["copy", "--src-tls-verify=false", &format!("docker://{name}"), &to];
            clients.skopeo_ok(&[&choice[..], &copy].concat()).await;
            clients.podman_ok(&["pull", "--quiet", "--tls-verify=false", "--arch", architecture, &name]).await;
        }
        let missing = clients.podman(&["pull", "--tls-verify=false", "--arch", "arm64", &name]).await;
        assert!(!missing.status.success());
        assert!(String::from_utf8_lossy(&missing.stderr).contains("manifest unknown"), "{missing:?}");
        let begun = Instant::now();
        assert_eq!(serving.terminate().await, Some(0));
        assert!(begun.elapsed() < ENDING_MAX, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_writable_store_takes_pushes_and_keeps_them() {
    let Some((machine, source, image, _)) = carried("linux/amd64, linux/s390x").await else { return };
    if !have(&["skopeo"]) {
        return;
    }
    let serving = machine.serve(&["registry", "--writable"]).await;
    let clients = Clients::new();
    let from = format!("docker://{}/debian/busybox:1", source.host());
    let to = format!("docker://{}/pushed/busybox:2", serving.host());
    let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    clients.skopeo_ok(&["copy", "--all", "--preserve-digests", tls[0], tls[1], &from, &to]).await;
    assert_eq!(serving.terminate().await, Some(0));

    let serving = machine.serve(&["registry"]).await;
    let reader = Reader::new(&serving.url(), "pushed/busybox");
    assert_eq!(reader.manifest("2").await.as_ref(), image.bytes(&image.root.digest));
    let refused = clients.skopeo(&["copy", tls[0], tls[1], &from, &to.replace(":2", ":3")]).await;
    assert!(!refused.status.success(), "without --writable nothing is taken");
    assert_eq!(serving.terminate().await, Some(0));
}

#[tokio::test]
async fn a_bundle_of_a_stranger_is_not_served() {
    let Some((machine, _source, _, bundle)) = carried("linux/amd64, linux/s390x").await else { return };
    machine.json(&["key", "generate", "--out", "keys/other"]).await;
    let ran = machine.run_to(5, &["serve", &bundle, "--key", "keys/other.pub", "--listen", "127.0.0.1:0"]).await;
    assert!(ran.err.contains("signature") || ran.err.contains("signed"), "{}", ran.err);
    machine.run_to(2, &["serve", &bundle, "--listen", "127.0.0.1:0"]).await;
    let mistakes: [(&[&str], &str); 6] = [
        (&["store", "--listen", "0.0.0.0:0"], "--tls-cert"),
        (&["store", "--tls-cert", "server.pem"], "--tls-key"),
        (&["store", "--tls-cert", "gone.pem", "--tls-key", "gone.pem"], "gone.pem"),
        (&["store", &bundle, "--writable"], "one store"),
        (&[&bundle, "--writable"], "name a store"),
        (&["gone"], "is no store"),
    ];
    for (arguments, said) in mistakes {
        let ran = machine.run_to(2, &[&["serve"], arguments].concat()).await;
        assert!(ran.err.contains(said), "{arguments:?}: {}", ran.err);
    }
    let Some(ca) = support::Authority::new() else { return };
    let server = ca.server("IP:127.0.0.1");
    let (certificate, key) = (server.certificate.to_str().unwrap(), server.key.to_str().unwrap());
    let tls = ["--tls-cert", certificate, "--tls-key", key];
    let open = [&["serve", "pushed", "--writable", "--listen", "0.0.0.0:0"], &tls[..]].concat();
    let ran = machine.run_to(2, &open).await;
    assert!(ran.err.contains("anybody could push there"), "{}", ran.err);
}
