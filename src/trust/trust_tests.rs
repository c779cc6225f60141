use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::bundle::{SigningKey, generate_key};
use crate::oci::MediaType;

struct Signer {
    key: SigningKey,
    other: SigningKey,
    signed: Digest,
}

impl Signer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [key, other] = ["one", "two"].map(|name| {
            generate_key(&folder.path().join(name)).unwrap();
            SigningKey::load(&folder.path().join(format!("{name}.key"))).unwrap()
        });
        Signer { key, other, signed: Digest::of(b"an index") }
    }

    fn payload(&self) -> Value {
        json!({"critical": {"identity": {"docker-reference": "registry.example/app"},
            "image": {"docker-manifest-digest": self.signed}, "type": "cosign container image signature"}, "optional": null})
    }

    /// What is said of a classic signature by `key` of these bytes.
    fn classic(&self, key: &SigningKey, payload: &[u8]) -> Verdict {
        let mut layer = Descriptor::of(MediaType::new(cosign::LAYER_TYPE), payload);
        let signature = key.sign(payload).unwrap().trim().to_owned();
        layer.annotations.insert("dev.cosignproject.cosign/signature".into(), signature);
        assert_eq!(form_of(&layer), Some(Form::Cosign));
        check(Form::Cosign, &layer, payload, &self.signed, self.key.public())
    }

    fn statement(&self) -> Value {
        json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {}, "subject": [{"digest": {"sha256": self.signed.hex()}}]})
    }

    fn bundle(&self, key: &SigningKey, statement: &Value) -> Value {
        let body = serde_json::to_vec(statement).unwrap();
        let kind = "application/vnd.in-toto+json";
        let signed = [format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).as_bytes(), &body].concat();
        let signature = key.sign(&signed).unwrap();
        json!({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
            "dsseEnvelope": {"payload": STANDARD.encode(body), "payloadType": kind,
                "signatures": [{"sig": signature.trim(), "keyid": ""}]}})
    }

    fn sigstore(&self, bundle: &Value) -> Verdict {
        let bytes = serde_json::to_vec(bundle).unwrap();
        let layer = Descriptor::of(MediaType::new("application/vnd.dev.sigstore.bundle.v0.3+json"), &bytes);
        assert_eq!(form_of(&layer), Some(Form::SigstoreBundle));
        check(Form::SigstoreBundle, &layer, &bytes, &self.signed, self.key.public())
    }
}

fn changed(value: &Value, pointer: &str, to: Value) -> Value {
    let mut value = value.clone();
    *value.pointer_mut(pointer).unwrap() = to;
    value
}

fn refused(verdict: Verdict, why: &str) {
    match verdict {
        Verdict::Not(text) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}, and not: {why}"),
    }
}

#[test]
fn the_classic_form() {
    let signer = Signer::new();
    let bytes = |value: &Value| serde_json::to_vec(value).unwrap();
    let payload = signer.payload();
    assert_eq!(signer.classic(&signer.key, &bytes(&payload)), Verdict::Signed);
    refused(signer.classic(&signer.other, &bytes(&payload)), "not a signature of this key");
    let another = changed(&payload, "/critical/image/docker-manifest-digest", json!(Digest::of(b"another")));
    refused(signer.classic(&signer.key, &bytes(&another)), "about another image");
    let kind = changed(&payload, "/critical/type", json!("atomic container signature"));
    refused(signer.classic(&signer.key, &bytes(&kind)), "what was signed is a");
    refused(signer.classic(&signer.key, b"{}"), "cannot be read");
    let twice = String::from_utf8(bytes(&payload)).unwrap().replacen('{', "{\"critical\":null,", 1);
    refused(signer.classic(&signer.key, twice.as_bytes()), "cannot be read");
    let bare = Descriptor::of(MediaType::new(cosign::LAYER_TYPE), b"{}");
    refused(check(Form::Cosign, &bare, b"{}", &signer.signed, signer.key.public()), "no signature");
}

#[test]
fn the_bundle_form() {
    let signer = Signer::new();
    let statement = signer.statement();
    let good = signer.bundle(&signer.key, &statement);
    assert_eq!(signer.sigstore(&good), Verdict::Signed);
    refused(signer.sigstore(&signer.bundle(&signer.other, &statement)), "not a signature of this key");
    let sbom = changed(&statement, "/predicateType", json!("https://spdx.dev/Document"));
    let said = signer.sigstore(&signer.bundle(&signer.key, &sbom));
    assert_eq!(said, Verdict::Statement("https://spdx.dev/Document".into()));
    let another = changed(&statement, "/subject/0/digest/sha256", json!(Digest::of(b"another").hex()));
    refused(signer.sigstore(&signer.bundle(&signer.key, &another)), "about another image");
    let kind = changed(&statement, "/_type", json!("something"));
    refused(signer.sigstore(&signer.bundle(&signer.key, &kind)), "no in-toto statement");
    let signature = good.pointer("/dsseEnvelope/signatures/0").unwrap().clone();
    let two = changed(&good, "/dsseEnvelope/signatures", json!([signature, signature]));
    refused(signer.sigstore(&two), "2 signatures");
    let none = changed(&good, "/dsseEnvelope", Value::Null);
    refused(signer.sigstore(&none), "no DSSE envelope");
    // The same bytes under another type are something else.
    let retyped = changed(&good, "/dsseEnvelope/payloadType", json!("text/plain"));
    refused(signer.sigstore(&retyped), "not a signature of this key");
    let body = changed(&good, "/dsseEnvelope/payload", json!("e30="));
    refused(signer.sigstore(&body), "not a signature of this key");
}

#[test]
fn other_layers_are_no_signatures() {
    for kind in ["application/spdx+json", "application/vnd.oci.image.layer.v1.tar+gzip", ""] {
        assert_eq!(form_of(&Descriptor::of(MediaType::new(kind), b"")), None);
    }
}
