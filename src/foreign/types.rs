//! Which media type a layer has when it is foreign, and which when it is not.

use crate::oci::MediaType;

/// Ordinary and foreign types of layers in Docker's manifests. There is no foreign zstd layer among them.
const DOCKER: [(&str, &str); 2] = [
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar"),
];

/// The same in manifests of the OCI specification (`layer.md`, "Non-Distributable Layers").
const OCI: [(&str, &str); 3] = [
    ("application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"),
    ("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    ("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"),
];

fn pairs(manifest: &MediaType) -> &'static [(&'static str, &'static str)] {
    match *manifest == MediaType::DOCKER_MANIFEST {
        true => &DOCKER,
        false => &OCI,
    }
}

/// The foreign type of a layer in a manifest of this type; `None` where there is none.
pub(super) fn foreign(manifest: &MediaType, layer: &MediaType) -> Option<&'static str> {
    let known = |(ordinary, foreign): &&(&str, &str)| layer.as_str() == *ordinary || layer.as_str() == *foreign;
    pairs(manifest).iter().find(known).map(|(_, foreign)| *foreign)
}

/// The ordinary type of a layer in a manifest of this type; `None` where there is none.
pub(super) fn ordinary(manifest: &MediaType, layer: &MediaType) -> Option<&'static str> {
    let known = |(ordinary, foreign): &&(&str, &str)| layer.as_str() == *ordinary || layer.as_str() == *foreign;
    pairs(manifest).iter().find(known).map(|(ordinary, _)| *ordinary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_stays_in_its_family() {
        for (manifest, pairs) in [(MediaType::DOCKER_MANIFEST, &DOCKER[..]), (MediaType::OCI_MANIFEST, &OCI[..])] {
            for (one, other) in pairs {
                let (one_type, other_type) = (MediaType::new(one), MediaType::new(other));
                assert!(!one_type.is_foreign_layer() && other_type.is_foreign_layer());
                for layer in [&one_type, &other_type] {
                    assert_eq!((ordinary(&manifest, layer), foreign(&manifest, layer)), (Some(*one), Some(*other)));
                }
            }
        }
        for (manifest, layer) in [
            (MediaType::DOCKER_MANIFEST, MediaType::OCI_LAYER_GZIP),
            (MediaType::OCI_MANIFEST, MediaType::new(DOCKER[0].0)),
            (MediaType::OCI_MANIFEST, MediaType::new("application/vnd.in-toto+json")),
        ] {
            assert_eq!((foreign(&manifest, &layer), ordinary(&manifest, &layer)), (None, None));
        }
    }
}
