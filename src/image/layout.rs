//! The two files that make a folder of blobs an OCI image layout (OCI image specification, `image-layout.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::oci::{Descriptor, MediaType, Repository, Tag, json};

/// What `oci-layout` holds.
pub const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";

/// A tag and what it points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Named {
    /// The repository with its source host.
    pub name: Repository,
    /// The tag.
    pub tag: Tag,
    /// The manifest that it points to.
    pub descriptor: Descriptor,
}

/// `index.json`: one descriptor for each tag, named in full, because one layout holds many repositories.
pub fn index_json(references: &[Named]) -> Result<Vec<u8>> {
    let manifests = references
        .iter()
        .map(|reference| {
            let name = format!("{}:{}", reference.name, reference.tag);
            let annotations = BTreeMap::from([
                ("io.containerd.image.name".to_owned(), name.clone()),
                ("org.opencontainers.image.ref.name".to_owned(), name),
            ]);
            let Descriptor { media_type, digest, size, .. } = reference.descriptor.clone();
            Descriptor { annotations, ..Descriptor::new(media_type, digest, size) }
        })
        .collect::<Vec<_>>();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": manifests});
    json::canonical(&index).map_err(|error| Error::failed(error.to_string()))
}
