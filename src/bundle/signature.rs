//! Keys and signatures: ECDSA P-256 over SHA-256, so that openssl and cosign can check what sealift signs.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::durable;
use crate::error::{Context, Error, Result, Side};
use crate::oci::Digest;

/// The largest key or signature file that is read.
const KEY_FILE_MAX: u64 = 16 * 1024;

/// What precedes the 65 bytes of an uncompressed point in every SubjectPublicKeyInfo of a P-256 key (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// A key that signs bundles.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

/// A key whose bundles are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo, DER.
    spki: Vec<u8>,
}

/// Makes a key pair: `<out>.key` (PKCS#8 PEM, mode 0600) and `<out>.pub` (SubjectPublicKeyInfo PEM). Files that are there
/// are never overwritten.
pub fn generate_key(out: &Path) -> Result<PublicKey> {
    let (private, public) = (durable::with_suffix(out, ".key"), durable::with_suffix(out, ".pub"));
    if let Some(there) = [&private, &public].into_iter().find(|path| path.exists()) {
        return Err(
            Error::usage(format!("{} is there already", there.display())).help("choose another name with --out")
        );
    }
    let failed = |_| Error::failed("the key could not be made: no randomness");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let document = pair.to_pkcs8v1().map_err(failed)?;
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        durable::create_folder(folder)?;
    }
    let key = PublicKey::from_point(pair.public_key().as_ref())?;
    durable::write_secret(&private, pem(PRIVATE_LABEL, document.as_ref()).as_bytes())?;
    durable::write_file(&public, pem(PUBLIC_LABEL, &key.spki).as_bytes(), 0o644)?;
    Ok(key)
}

impl SigningKey {
    /// Reads a PKCS#8 PEM file.
    pub fn load(path: &Path) -> Result<Self> {
        let attempt = || format!("read signing key {}", path.display());
        let text = read_text(path).while_(attempt)?;
        let der = from_pem(PRIVATE_LABEL, &text).map_err(Error::usage).while_(attempt)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der)
            .map_err(|_| Error::usage("it is no P-256 key in PKCS#8").help("make one with `sealift key generate`"))
            .while_(attempt)?;
        let public = PublicKey::from_point(pair.public_key().as_ref())?;
        Ok(SigningKey { pair, public })
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The text of a `.sig` file: the signature of `bytes` as DER in base64.
    pub fn sign(&self, bytes: &[u8]) -> Result<String> {
        let signature =
            self.pair.sign(&SystemRandom::new(), bytes).map_err(|_| Error::failed("signing failed: no randomness"))?;
        Ok(STANDARD.encode(signature) + "\n")
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo PEM file.
    pub fn load(path: &Path) -> Result<Self> {
        let attempt = || format!("read public key {}", path.display());
        let text = read_text(path).while_(attempt)?;
        let spki = from_pem(PUBLIC_LABEL, &text).map_err(Error::usage).while_(attempt)?;
        if spki.len() != SPKI_PREFIX.len() + 65 || !spki.starts_with(&SPKI_PREFIX) {
            return Err(Error::usage("it is no P-256 key")
                .while_(attempt())
                .help("name the .pub file of the exporter"));
        }
        Ok(PublicKey { spki })
    }

    fn from_point(point: &[u8]) -> Result<Self> {
        if point.len() != 65 {
            return Err(Error::failed("the key has no uncompressed point"));
        }
        Ok(PublicKey { spki: [&SPKI_PREFIX, point].concat() })
    }

    /// The SHA-256 digest of the SubjectPublicKeyInfo: the name of the key.
    pub fn id(&self) -> Digest {
        Digest::of(&self.spki)
    }

    /// Whether `signature`, the text of a `.sig` file, is this key's signature of `bytes`.
    pub fn verifies(&self, bytes: &[u8], signature: &str) -> bool {
        let Ok(der) = STANDARD.decode(signature.trim_end()) else { return false };
        let point = self.spki.get(SPKI_PREFIX.len()..).unwrap_or_default();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(bytes, &der).is_ok()
    }
}

fn read_text(path: &Path) -> Result<String> {
    let found = std::fs::metadata(path)?;
    if found.len() > KEY_FILE_MAX {
        return Err(Error::usage("the file is too large for a key"));
    }
    Ok(std::fs::read_to_string(path)?)
}

/// One PEM block (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut block = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, later) = rest.split_at(rest.len().min(64));
        block.push_str(line);
        block.push('\n');
        rest = later;
    }
    block + &format!("-----END {label}-----\n")
}

fn from_pem(label: &str, text: &str) -> Result<Vec<u8>, String> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let missing = || format!("it has no PEM block {label:?}");
    let (_, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (body, _) = rest.split_once(&end).ok_or_else(missing)?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map_err(|error| format!("its PEM block is damaged: {error}"))
}

/// The error of a bundle that no trusted key signed.
pub(super) fn untrusted(folder: &Path) -> Error {
    Error::verification(format!("{}: no trusted key signed this bundle", folder.display()))
        .on(Side::Bundle)
        .help("either bundle.json or its signature was changed or damaged, or it was signed by another key: compare the fingerprints of the keys, and have the bundle exported again. Nothing of it was used")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_verified_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("keys/exporter");
        let public = generate_key(&out).unwrap();
        let loaded = PublicKey::load(&durable::with_suffix(&out, ".pub")).unwrap();
        assert_eq!(loaded, public);
        let key = SigningKey::load(&durable::with_suffix(&out, ".key")).unwrap();
        let signature = key.sign(b"bytes").unwrap();
        assert!(loaded.verifies(b"bytes", &signature));
        assert!(!loaded.verifies(b"other", &signature));
        assert!(!loaded.verifies(b"bytes", "no base64!"));
        assert!(!loaded.verifies(b"bytes", ""));
        let other = generate_key(&folder.path().join("other")).unwrap();
        assert!(!other.verifies(b"bytes", &signature));
        assert!(generate_key(&out).is_err(), "keys are never overwritten");
        assert!(SigningKey::load(&durable::with_suffix(&out, ".pub")).is_err());
    }
}
