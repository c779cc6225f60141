//! [`Compression`]: what a media type says of how a layer is packed.

use crate::oci::MediaType;

/// How a layer is packed, as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// An archive as it is.
    None,
    /// gzip: one member or several.
    Gzip,
    /// zstd: one frame or several.
    Zstd,
    /// The media type says nothing, and the first bytes decide.
    Unsaid,
}

/// The media types of archives; after each comes how it is packed.
const OCI: [&str; 2] =
    ["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"];
/// Docker's.
const DOCKER: [&str; 2] =
    ["application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar"];

impl Compression {
    /// How a layer of this media type is packed; `None` for what is no layer of a file system.
    pub fn of(media_type: &MediaType) -> Option<Self> {
        let after = |types: [&str; 2]| types.into_iter().find_map(|plain| media_type.as_str().strip_prefix(plain));
        match (after(OCI), after(DOCKER)) {
            (Some(""), _) => Some(Compression::None),
            (Some("+gzip"), _) | (_, Some(".gzip")) => Some(Compression::Gzip),
            (Some("+zstd"), _) | (_, Some(".zstd")) => Some(Compression::Zstd),
            // Clients of this type have always looked at the bytes, so there are compressed ones.
            (_, Some("")) => Some(Compression::Unsaid),
            _ => None,
        }
    }

    /// What these first bytes of a layer look like.
    pub(super) fn looks_like(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            // A frame, or a skippable one before it (RFC 8878, sections 3.1.1 and 3.1.2).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// Its name in texts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Compression::None => "not compressed",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Unsaid => "anything",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        use Compression::{Gzip, None as Plain, Unsaid, Zstd};
        for (text, expected) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Plain)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Zstd)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar", Some(Plain)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", Some(Zstd)),
            ("application/vnd.docker.image.rootfs.diff.tar", Some(Unsaid)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(Zstd)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
            ("application/vnd.oci.image.layer.v1.tar.gzip", None),
            ("application/vnd.in-toto+json", None),
            ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", None),
            ("application/wasm", None),
        ] {
            assert_eq!(Compression::of(&MediaType::new(text)), expected, "{text}");
        }
    }
}
