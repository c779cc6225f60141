//! Signatures of images, checked with a public key: what cosign makes of them. No network, no log, no certificate: whether
//! this key signed this digest, and nothing else.
//!
//! The order of the checks is the point: the signature is checked over the exact bytes before anything of them is parsed, and
//! the digest that was signed comes from the caller, who computed it.

mod cosign;
mod sigstore;

use crate::bundle::PublicKey;
use crate::oci::{Descriptor, Digest};

/// The most layers of one signature that are looked at. cosign takes as many.
pub const LAYERS_MAX: usize = 1_000;

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// cosign's payload of JSON, with the signature in an annotation of its layer (cosign 1 and 2).
    Cosign,
    /// A sigstore bundle with a DSSE envelope (cosign 3).
    SigstoreBundle,
}

/// What a signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This key signed this digest.
    Signed,
    /// This key signed a statement about this digest, which is not that it signed the image: its predicate type.
    Statement(String),
    /// Not this key, or not this digest: why.
    Not(String),
}

/// The form of the signature that a layer holds; `None` for any other layer.
pub fn form_of(layer: &Descriptor) -> Option<Form> {
    match layer.media_type.as_str() {
        cosign::LAYER_TYPE => Some(Form::Cosign),
        kind if kind.starts_with(sigstore::LAYER_TYPE) => Some(Form::SigstoreBundle),
        _ => None,
    }
}

/// Whether the signature in `layer`, whose bytes are `payload`, is one of `key` for the manifest `signed`.
///
/// The caller has compared the payload with the digest of the layer.
pub fn check(form: Form, layer: &Descriptor, payload: &[u8], signed: &Digest, key: &PublicKey) -> Verdict {
    let checked = match form {
        Form::Cosign => cosign::check(layer, payload, signed, key).map(|()| Verdict::Signed),
        Form::SigstoreBundle => sigstore::check(payload, signed, key),
    };
    checked.unwrap_or_else(Verdict::Not)
}

/// Why a signature is not taken, where it is another key's or the bytes are others.
const NOT_THIS_KEY: &str = "it is not a signature of this key";

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
