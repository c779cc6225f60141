//! A signature of an index in cosign's classic form, made by openssl, still verifies after two platforms of three have crossed:
//! from what the target gives, with openssl and nothing of sealift.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sealift::oci::Tag;

use super::*;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

fn openssl(arguments: &[&str]) -> std::process::Output {
    Command::new("openssl").args(arguments).output().unwrap()
}

/// A key pair for ECDSA on P-256, as cosign makes them: `signer.key` and `signer.pub`.
fn key_pair(folder: &Path) -> (String, String) {
    let [private, public] = ["signer.key", "signer.pub"].map(|name| folder.join(name).display().to_string());
    let made = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
    assert!(made.status.success(), "{made:?}");
    let made = openssl(&["ec", "-in", &private, "-pubout", "-out", &public]);
    assert!(made.status.success(), "{made:?}");
    (private, public)
}

/// The signature of `payload`, made by openssl.
fn sign(folder: &Path, key: &str, payload: &[u8]) -> Vec<u8> {
    let [file, signature] = ["to-sign", "signature"].map(|name| folder.join(name));
    std::fs::write(&file, payload).unwrap();
    let (file, made) = (file.display().to_string(), signature.display().to_string());
    let signed = openssl(&["dgst", "-sha256", "-sign", key, "-out", &made, &file]);
    assert!(signed.status.success(), "{signed:?}");
    std::fs::read(signature).unwrap()
}

fn verifies(folder: &Path, key: &str, payload: &[u8], signature: &[u8]) -> bool {
    let [file, made] = ["to-verify", "to-verify.sig"].map(|name| folder.join(name));
    std::fs::write(&file, payload).unwrap();
    std::fs::write(&made, signature).unwrap();
    let (file, made) = (file.display().to_string(), made.display().to_string());
    openssl(&["dgst", "-sha256", "-verify", key, "-signature", &made, &file]).status.success()
}

/// An image of three platforms, whose index was signed with this key.
fn signed_image(folder: &Path, key: &str) -> SampleImage {
    let (folder, key) = (folder.to_owned(), key.to_owned());
    ImageBuilder::new()
        .layer_files(&[("etc/base", b"base\n")])
        .platform("linux", "amd64", "")
        .random_layer(100_000, 1)
        .platform("linux", "arm64", "v8")
        .random_layer(100_000, 2)
        .platform("linux", "s390x", "")
        .random_layer(100_000, 3)
        .cosign_tag("registry.example/team/app", move |payload| sign(&folder, &key, payload))
        .build()
        .unwrap()
}

#[tokio::test]
async fn what_openssl_signed_verifies_after_two_platforms_of_three_have_crossed() {
    if !have(&["openssl"]) {
        return;
    }
    let Some(sides) = Sides::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = key_pair(folder.path());
    let image = signed_image(folder.path(), &private);
    push_sample(&sides.source.url(), "team/app", Some("1"), &image).await;
    let images = [(sides.source_of("team/app"), "tags: {exact: [\"1\"]}")];
    sides.machine.write("spec.yaml", &spec("signed", "linux/amd64, linux/arm64", &images));
    pull(&sides.machine, "spec.yaml").await;
    let bundle = export(&sides.machine, "signed", VOLUME_SIZE).await;
    let report = sides.replay(&bundle, "mirror").await;
    let replayed = replayed(&report, "team/app");
    assert_eq!(replayed["signatures"], serde_json::json!({"expected": 1, "present": 1}), "{replayed}");

    let target = sides.on_target("team/app");
    let index = Digest::of(&target.manifest("1").await.unwrap());
    assert_eq!(index, image.root.digest);
    let signatures = target.document(Tag::cosign(&index, "sig")).await;
    let layer = &signatures["layers"][0];
    let payload = target.blob(&layer["digest"].as_str().unwrap().parse().unwrap()).await.unwrap();
    let signature = STANDARD.decode(layer["annotations"][SIGNATURE].as_str().unwrap()).unwrap();
    assert!(verifies(folder.path(), &public, &payload, &signature));
    let claim: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(
        claim["critical"]["image"]["docker-manifest-digest"],
        index.to_string(),
        "it is this index that was signed"
    );

    let mut altered = payload.to_vec();
    altered[10] ^= 1;
    assert!(!verifies(folder.path(), &public, &altered, &signature), "openssl would notice");
    // And the third platform stayed behind.
    let third = blobs_of(&image, &image.child("linux", "s390x", "").unwrap());
    let kept = ["amd64", "arm64"].map(|architecture| children_for(&image, architecture).remove(0));
    let kept: Vec<Digest> = kept.iter().flat_map(|child| blobs_of(&image, child)).collect();
    for blob in third.iter().filter(|blob| !kept.contains(blob)) {
        assert!(!target.has_blob(blob).await, "{blob}");
    }
}
