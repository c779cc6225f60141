//! Signatures by cosign itself: an index that it has signed still verifies, without the internet, after two platforms of three
//! have crossed. Version 2 keeps a signature under a tag made of the digest, version 3 in a bundle that refers to the index.

use std::process::Output;

use super::registries::Olareg;
use super::support::Settings;
use super::targets::{SPARSE_ALLOWED, distribution};
use super::*;

/// Each version, and what its signing is told to keep it from the internet.
const VERSIONS: [(&str, &[&str]); 2] =
    [("cosign2", &["--tlog-upload=false"]), ("cosign3", &["--signing-config", "nobody.json"])];

/// Services that a signature is to be shown to: none.
const NOBODY: &str =
    r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}"#;

/// Where nobody listens: whatever is no registry on this machine is asked for there, and fails at once.
const NOWHERE: &str = "http://127.0.0.1:9";

/// cosign, with a key pair of its own and one of somebody else.
struct Cosign(Counterparts);

impl Cosign {
    /// `None` when the test is to be skipped.
    async fn new() -> Option<Self> {
        let cosign = Cosign(Counterparts::with(&["cosign2", "cosign3"])?);
        std::fs::write(cosign.0.folder().join("nobody.json"), NOBODY).unwrap();
        for name in ["own", "other"] {
            cosign.ok("cosign3", &["generate-key-pair", "--output-key-prefix", name]).await;
        }
        Some(cosign)
    }

    async fn run(&self, version: &str, arguments: &[&str]) -> Output {
        let mut command = self.0.command(counterpart(version).unwrap().to_str().unwrap());
        command.env("COSIGN_PASSWORD", "").env("HTTPS_PROXY", NOWHERE).args(arguments).output().await.unwrap()
    }

    async fn ok(&self, version: &str, arguments: &[&str]) {
        let output = self.run(version, arguments).await;
        assert!(output.status.success(), "{version} {}: {output:?}", arguments.join(" "));
    }

    /// Signs with both versions.
    async fn sign(&self, reference: &str) {
        for (version, offline) in VERSIONS {
            let arguments = ["sign", "--yes", "--key", "own.key", "--allow-http-registry", reference];
            self.ok(version, &[&arguments[..], offline].concat()).await;
        }
    }

    /// What this version says of a signature by `key`; the digest that it names.
    async fn verify(&self, version: &str, key: &str, reference: &str) -> Result<String, String> {
        let offline = ["--insecure-ignore-tlog", "--private-infrastructure", "--allow-http-registry"];
        let output = self.run(version, &[&["verify", "--key", key], &offline[..], &[reference]].concat()).await;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{version}: {found}");
        Ok(found[0]["critical"]["image"]["docker-manifest-digest"].as_str().unwrap().to_owned())
    }
}

fn three_platforms() -> SampleImage {
    ImageBuilder::new()
        .layer_files(&[("etc/base", b"base\n")])
        .platform("linux", "amd64", "")
        .random_layer(50_000, 1)
        .platform("linux", "arm64", "v8")
        .random_layer(50_000, 2)
        .platform("linux", "s390x", "")
        .random_layer(50_000, 3)
        .build()
        .unwrap()
}

/// Carries two platforms of `team/app` at `host` into a bundle.
async fn two_of_three(machine: &Machine, host: &str) -> String {
    let spec = format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: signed\ndefaults:\n  platforms: [linux/amd64, linux/arm64]\n\
         images:\n  - source: {host}/team/app\n    tags: {{exact: [\"1\"]}}\n"
    );
    machine.write("spec.yaml", &spec);
    machine.ok(&["pull", "spec.yaml", "--store", "store"]).await;
    machine.ok(&["key", "generate", "--out", "keys/exporter"]).await;
    let export = ["export", "signed", "--store", "store", "--to", "drive", "--sign-key", "keys/exporter.key"];
    machine.json(&export).await["folder"].as_str().unwrap().to_owned()
}

/// Signs at the source, carries, and verifies on each kind of target.
async fn crosses(url: &str, host: &str) {
    let Some(cosign) = Cosign::new().await else { return };
    let (machine, image) = (Machine::new(), three_platforms());
    push_sample(url, "team/app", Some("1"), &image).await;
    let index = image.root.digest.to_string();
    cosign.sign(&format!("{host}/team/app@{index}")).await;
    let bundle = two_of_three(&machine, host).await;
    let Some(docker) = DockerRegistry::start_with(Settings::default()).await else { return };
    let Some(distribution) = distribution(SPARSE_ALLOWED).await else { return };
    let Some(olareg) = Olareg::start().await else { return };
    for (number, target) in [docker.host(), distribution.host(), &olareg.host].into_iter().enumerate() {
        let (to, state) = (format!("{target}/mirror"), format!("state-{number}"));
        let arguments = ["replay", &bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", &state];
        let report = machine.json(&arguments).await["reports"][0]["images"][0].clone();
        assert_eq!(report["signatures"], serde_json::json!({"expected": 2, "present": 2}), "{target}: {report}");
        let name = format!("{to}/{}/team/app", host.replace(':', "_"));
        for (version, _) in VERSIONS {
            for reference in [format!("{name}@{index}"), format!("{name}:1")] {
                assert_eq!(
                    cosign.verify(version, "own.pub", &reference).await,
                    Ok(index.clone()),
                    "{version} {reference}"
                );
                let by_other = cosign.verify(version, "other.pub", &reference).await;
                assert!(by_other.is_err(), "{version} {reference}: somebody else's key");
            }
        }
        let reader = Reader::new(&format!("http://{target}"), &name[target.len() + 1..]);
        let left_out = image.parsed(&image.child("linux", "s390x", "").unwrap()).unwrap();
        for blob in left_out.successors().filter(|blob| !shared(&image, &blob.digest)) {
            assert!(!reader.has_blob(&blob.digest).await, "{target}: {blob:?} of the third platform");
        }
    }
}

/// Whether a platform that was carried needs this blob too.
fn shared(image: &SampleImage, digest: &Digest) -> bool {
    let carried = ["amd64", "arm64"].map(|architecture| {
        let variant = if architecture == "arm64" { "v8" } else { "" };
        image.parsed(&image.child("linux", architecture, variant).unwrap()).unwrap()
    });
    carried.iter().any(|manifest| manifest.successors().any(|blob| blob.digest == *digest))
}

#[tokio::test]
async fn what_cosign_signed_at_docker_registry_verifies_after_two_platforms_of_three_have_crossed() {
    let Some(source) = DockerRegistry::start().await else { return };
    crosses(&source.url(), source.host()).await;
}

#[tokio::test]
async fn what_cosign_signed_where_referrers_have_an_api_verifies_after_two_platforms_of_three_have_crossed() {
    let Some(source) = Olareg::start().await else { return };
    crosses(&source.url(), &source.host).await;
}
