//! A trimmed index on a real registry that wants every child, and a signature that openssl made of the original.

use std::process::{Command, Stdio};

use sealift::oci::Tag;

use super::*;

/// Runs openssl in a folder, and gives what it writes to standard output.
fn openssl(folder: &std::path::Path, arguments: &[&str]) -> Vec<u8> {
    let ran = Command::new("openssl").args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

/// An image whose index has signatures in both of cosign's forms, each with a key of its own, made by nothing but openssl.
fn signed_image(folder: &std::path::Path) -> SampleImage {
    for name in ["vendor", "newer"] {
        let (pem, public) = (format!("{name}.pem"), format!("{name}.pub"));
        openssl(folder, &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &pem]);
        openssl(folder, &["ec", "-in", &pem, "-pubout", "-out", &public]);
    }
    // What refers to the index does not change it.
    let unsigned = image(folder).build().unwrap();
    image(folder).referrer(SIGSTORE, &sigstore_bundle(folder, &unsigned.root.digest)).build().unwrap()
}

const SIGSTORE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What `cosign sign --key` of version 3 writes.
fn sigstore_bundle(folder: &std::path::Path, signed: &Digest) -> Vec<u8> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1", "predicate": {}, "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "subject": [{"digest": {"sha256": signed.hex()}}]
    });
    let (kind, body) = ("application/vnd.in-toto+json", statement.to_string());
    std::fs::write(folder.join("statement"), format!("DSSEv1 {} {kind} {} {body}", kind.len(), body.len())).unwrap();
    let signature = openssl(folder, &["dgst", "-sha256", "-sign", "newer.pem", "statement"]);
    let bundle = serde_json::json!({
        "mediaType": SIGSTORE, "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": {"payload": STANDARD.encode(&body), "payloadType": kind,
            "signatures": [{"sig": STANDARD.encode(signature)}]}
    });
    bundle.to_string().into_bytes()
}

fn image(folder: &std::path::Path) -> ImageBuilder {
    let own = folder.to_owned();
    let sign = move |payload: &[u8]| {
        std::fs::write(own.join("payload"), payload).unwrap();
        openssl(&own, &["dgst", "-sha256", "-sign", "vendor.pem", "payload"])
    };
    ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(200_000, 1)
        .attestation()
        .child_referrer("application/spdx+json", b"{\"name\":\"amd64\"}")
        .platform("linux", "arm64", "v8")
        .random_layer(200_000, 2)
        .platform("linux", "s390x", "")
        .random_layer(200_000, 3)
        .referrer("application/spdx+json", b"{\"name\":\"index\"}")
        .cosign_tag("registry.example/team/app", sign)
}

#[tokio::test]
async fn the_signature_of_the_original_verifies_through_the_witness() {
    if !have(&["openssl"]) {
        return;
    }
    let Some(sides) = Sides::start().await else { return };
    let (machine, keys) = (&sides.machine, tempfile::tempdir().unwrap());
    let image = signed_image(keys.path());
    let public = keys.path().join("vendor.pub").display().to_string();
    push_sample(&sides.source.url(), "team/app", Some("1"), &image).await;
    let images = [(sides.source_of("team/app"), "tags: {exact: [\"1\"]}; index: trim")];
    machine.write("spec.yaml", &spec("trimmed", "linux/amd64", &images));
    pull(machine, "spec.yaml").await;
    let bundle = export(machine, "trimmed", VOLUME_SIZE).await;
    verify(machine, &bundle).await;
    // As it is signed at the source.
    let source = format!("{}:1", sides.source_of("team/app"));
    let report = machine.json(&["inspect", &source, "--verify-key", &public]).await;
    assert_eq!(report["images"][0]["verification"]["signed"], image.root.digest.to_string());

    // The registry wants every child, and gets no stub.
    let report = sides.replay(&bundle, "mirror").await;
    let found = replayed(&report, "team/app");
    assert_eq!((&found["rung"], &found["problem"]), (&Value::Null, &Value::Null), "{found}");
    assert_eq!(found["signatures"], serde_json::json!({"expected": 2, "present": 2}), "the child's, and the witness");
    let target = sides.on_target("team/app");
    let root: Digest = found["root"].as_str().unwrap().parse().unwrap();
    let index = target.document("1").await;
    assert_eq!(Digest::of(&target.manifest("1").await.unwrap()), root);
    for left_out in ["arm64", "s390x"] {
        let child = image.child("linux", left_out, "").unwrap();
        assert_eq!(target.manifest(child.digest).await, None, "{left_out}: there is no stub");
    }
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "amd64 and its attestation");
    // This registry looks manifests up among blobs, and the original is a layer of the witness.
    assert_eq!(target.manifest(image.root.digest).await.as_ref(), image.bytes(&image.root.digest));
    let note = report["reports"][0]["notes"].to_string();
    assert!(note.contains("1 of 1 images have a trimmed index"), "{note}");

    // From the target alone: the original, its signature, and the key that openssl made.
    let at = format!("{}/{}:1", sides.target.host(), sides.name_on_target("mirror", "team/app"));
    let report = machine.json(&["inspect", &at, "--verify-key", &public]).await;
    super::command_line::keeps_to_schema(machine, "inspect-report", &report).await;
    let inspected = &report["images"][0];
    assert_eq!(inspected["problems"], serde_json::json!([]));
    assert_eq!(inspected["verification"]["signed"], image.root.digest.to_string());
    assert_eq!(inspected["verification"]["good"], true);
    let newer = keys.path().join("newer.pub").display().to_string();
    let report = machine.json(&["inspect", &at, "--verify-key", &newer]).await;
    let good = &report["images"][0]["verification"]["signatures"];
    let good = good.as_array().unwrap().iter().find(|checked| checked["result"] == "signed").unwrap();
    assert_eq!(good["form"], "sigstore-bundle");
    assert_eq!(inspected["witnesses"][0]["removed"].as_array().unwrap().len(), 2);
    machine.run_to(5, &["inspect", &at, "--verify-key", "keys/exporter.pub"]).await;

    what_the_witness_holds_is_checked_by_openssl(&target, &root, &image, keys.path()).await;
    clients_take_all_of_it(&at, &root).await;
}

/// Nothing of sealift's: the list of referrers, the witness, the payload, the signature in its annotation, openssl.
async fn what_the_witness_holds_is_checked_by_openssl(
    target: &Reader,
    root: &Digest,
    image: &SampleImage,
    folder: &std::path::Path,
) {
    use base64::Engine;
    let list = target.document(Tag::referrers_fallback(root)).await;
    assert_eq!(list["manifests"][0]["artifactType"], "application/vnd.sealift.witness.v1");
    let witness = target.document(list["manifests"][0]["digest"].as_str().unwrap()).await;
    assert_eq!(witness["subject"]["digest"], root.to_string());
    let layers: Vec<Digest> = witness["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(layers.contains(&image.root.digest));
    for layer in &layers {
        assert!(target.has_blob(layer).await, "{layer}");
    }
    let (_, signature) = &image.tags[0];
    assert!(layers.contains(&signature.digest));
    let manifest: Value = serde_json::from_slice(image.bytes(&signature.digest).unwrap()).unwrap();
    let layer = &manifest["layers"][0];
    let payload: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
    assert!(layers.contains(&payload));
    let text = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    std::fs::write(folder.join("found.sig"), base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap();
    std::fs::write(folder.join("found"), image.bytes(&payload).unwrap()).unwrap();
    openssl(folder, &["dgst", "-sha256", "-verify", "vendor.pub", "-signature", "found.sig", "found"]);
}

/// Tools that want every child of an index get every child of this one.
async fn clients_take_all_of_it(at: &str, root: &Digest) {
    if !have(&["skopeo", "podman"]) {
        return;
    }
    let clients = Clients::new();
    let to = format!("dir:{}", clients.folder().join("all").display());
    let from = format!("docker://{at}");
    let copied = clients.skopeo(&["copy", "--all", "--src-tls-verify=false", &from, &to]).await;
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let (repository, _) = at.rsplit_once(':').unwrap();
    let reference = format!("{repository}@{root}");
    clients.podman_ok(&["pull", "--quiet", "--tls-verify=false", "--arch", "amd64", &reference]).await;
}
