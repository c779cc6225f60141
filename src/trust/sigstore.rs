//! The form of cosign 3: a sigstore bundle (version 0.3) whose DSSE envelope holds an in-toto statement.
//!
//! Entries of a transparency log are not looked at: the key alone decides, as `cosign verify --key` with
//! `--insecure-ignore-tlog` does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::{NOT_THIS_KEY, Verdict};
use crate::bundle::PublicKey;
use crate::oci::{Digest, json};

/// How the types of the layers that hold bundles begin. Behind it stands the version, in several spellings.
pub(super) const LAYER_TYPE: &str = "application/vnd.dev.sigstore.bundle";

/// What a statement is (in-toto attestation framework).
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// What a statement says that does nothing but sign an image.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: std::collections::BTreeMap<String, Value>,
}

/// The envelope has to be parsed to find what was signed; of that, nothing is parsed before its signature was right.
pub(super) fn check(bundle: &[u8], signed: &Digest, key: &PublicKey) -> Result<Verdict, String> {
    let bundle: Bundle = json::parse(bundle).map_err(|why| format!("it cannot be read: {why}"))?;
    if !bundle.media_type.starts_with(LAYER_TYPE) {
        return Err("it is no sigstore bundle".into());
    }
    let envelope = bundle.dsse_envelope.ok_or("it has no DSSE envelope")?;
    let [signature] = &envelope.signatures[..] else {
        return Err(format!("it has {} signatures, and one is expected", envelope.signatures.len()));
    };
    let body = STANDARD.decode(&envelope.payload).map_err(|_| "its payload is no base64")?;
    if !key.verifies(&pre_authentication(&envelope.payload_type, &body), &signature.sig) {
        return Err(NOT_THIS_KEY.into());
    }
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err("what was signed is no in-toto statement".into());
    }
    let statement: Statement = json::parse(&body).map_err(|why| format!("what was signed cannot be read: {why}"))?;
    if !STATEMENTS.contains(&statement.kind.as_str()) {
        return Err("what was signed is no in-toto statement of a known version".into());
    }
    let hex = signed.hex();
    let about = |subject: &Subject| subject.digest.get(signed.algorithm()).and_then(Value::as_str) == Some(&hex);
    if !statement.subject.iter().any(about) {
        return Err("it is about another image".into());
    }
    match statement.predicate_type == SIGNED {
        true => Ok(Verdict::Signed),
        false => Ok(Verdict::Statement(statement.predicate_type.chars().take(200).collect())),
    }
}

/// DSSE's PAE: what is signed in place of the payload, so that nothing can be taken for something else.
fn pre_authentication(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
    text.extend_from_slice(body);
    text
}
