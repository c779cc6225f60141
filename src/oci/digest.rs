//! [`Digest`]: the name of content, valid by construction.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A digest as the OCI image specification writes it (`descriptor.md`, "Digests"): an algorithm and
/// lower-case hex of exactly the length of that algorithm.
///
/// The two registered algorithms are carried; anything else is refused where it is parsed, so no path
/// or URL is ever built from an unchecked string.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// `sha256:` and 64 hex digits.
    Sha256([u8; 32]),
    /// `sha512:` and 128 hex digits.
    Sha512([u8; 64]),
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of `bytes` in the algorithm of `self`, for comparing with `self`.
    pub fn same_algorithm_of(&self, bytes: &[u8]) -> Self {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "sha256",
            Digest::Sha512(_) => "sha512",
        }
    }

    /// The lower-case hex part.
    pub fn hex(&self) -> String {
        to_hex(self.bytes())
    }

    /// The raw digest.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        }
    }

    /// A hasher of the same algorithm.
    pub fn hasher(&self) -> Hasher {
        match self {
            Digest::Sha256(_) => Hasher::sha256(),
            Digest::Sha512(_) => Hasher(Context::new(&SHA512)),
        }
    }

    /// The path of this content in an OCI image layout, below its root: `blobs/sha256/<hex>`.
    pub fn layout_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm(), self.hex())
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> String {
        self.hex().chars().take(12).collect()
    }
}

/// Lower-case hex of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// A text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest: expected sha256: and 64, or sha512: and 128, lower-case hex digits")]
pub struct InvalidDigest(String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(160).collect());
        match text.split_once(':').ok_or_else(invalid)? {
            ("sha256", hex) => from_hex(hex).map(Digest::Sha256),
            ("sha512", hex) => from_hex(hex).map(Digest::Sha512),
            _ => None,
        }
        .ok_or_else(invalid)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A digest as the OCI specifications write it.",
            "pattern": "^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$"
        })
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// A SHA-256 hasher.
    pub fn sha256() -> Self {
        Hasher(Context::new(&SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> Digest {
        let output = self.0.finish();
        let bytes = output.as_ref();
        // The context was made by this module for one of exactly two algorithms.
        if let Ok(bytes) = <[u8; 32]>::try_from(bytes) {
            Digest::Sha256(bytes)
        } else {
            let mut long = [0; 64];
            long.copy_from_slice(bytes);
            Digest::Sha512(long)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        let long = Digest::Sha512([7; 64]);
        assert_eq!(long.to_string().parse(), Ok(long));
        assert_eq!(long.same_algorithm_of(b"x").algorithm(), "sha512");
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8555",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken");
        }
    }
}
