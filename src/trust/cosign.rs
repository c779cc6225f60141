//! The classic form: "simple signing" (cosign, `specs/SIGNATURE_SPEC.md`).

use serde::Deserialize;

use super::NOT_THIS_KEY;
use crate::bundle::PublicKey;
use crate::oci::{Descriptor, Digest, json};

/// The type of the layers that hold payloads.
pub(super) const LAYER_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation of such a layer that holds the signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What `critical.type` has to be.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

pub(super) fn check(layer: &Descriptor, payload: &[u8], signed: &Digest, key: &PublicKey) -> Result<(), String> {
    let signature = layer.annotations.get(SIGNATURE).ok_or("its layer has no signature")?;
    if !key.verifies(payload, signature) {
        return Err(NOT_THIS_KEY.into());
    }
    let payload: Payload = json::parse(payload).map_err(|why| format!("what was signed cannot be read: {why}"))?;
    let Critical { image, kind } = payload.critical;
    if kind != TYPE {
        return Err(format!("what was signed is a {kind:?} and no {TYPE:?}"));
    }
    match image.digest == signed.to_string() {
        true => Ok(()),
        false => Err(format!("it is about another image: {:?}", short(&image.digest))),
    }
}

/// A text from outside, as much of it as a line takes.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
