//! The two files that make a folder of blobs an OCI image layout (OCI image specification, `image-layout.md`).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Repository, Tag, json};

/// Marks a folder as a layout.
pub const OCI_LAYOUT_PATH: &str = "oci-layout";

/// Lists what a layout names.
pub const INDEX_JSON_PATH: &str = "index.json";

/// What `oci-layout` holds.
pub const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";

/// The largest `index.json` that is read: some hundred thousand tags.
pub const INDEX_JSON_MAX: u64 = 64 * 1024 * 1024;

/// Annotations under which names stand in `index.json`, the fullest first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// What an `index.json` of whatever origin lists, with the name of each, which may be anything.
///
/// # Errors
///
/// Why it is none.
pub fn names_of_index(bytes: &[u8]) -> Result<Vec<(Option<String>, Descriptor)>, String> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    let Index { manifests } = json::parse(bytes)?;
    let name = |entry: &Descriptor| NAMES.iter().find_map(|name| entry.annotations.get(*name)).cloned();
    Ok(manifests.into_iter().map(|entry| (name(&entry), entry)).collect())
}

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

/// What stands before and behind the entries of an `index.json`.
pub const INDEX_JSON_AROUND: [&str; 2] = [
    "{\n  \"manifests\": [",
    "],\n  \"mediaType\": \"application/vnd.oci.image.index.v1+json\",\n  \"schemaVersion\": 2\n}\n",
];

/// What stands between two entries.
pub const INDEX_JSON_BETWEEN: &str = ",";

/// `index.json`: one descriptor for each tag, named in full, because one layout holds many repositories.
pub fn index_json(references: &[Named]) -> Result<Vec<u8>> {
    let [before, behind] = INDEX_JSON_AROUND;
    let entries = index_entries(references)?;
    let end = if entries.is_empty() { "" } else { "\n  " };
    Ok(format!("{before}{entries}{end}{behind}").into_bytes())
}

/// The entries of an `index.json` for `references`: canonical JSON, as it stands there.
pub fn index_entries(references: &[Named]) -> Result<String> {
    let mut entries = String::new();
    for reference in references {
        if !entries.is_empty() {
            entries += INDEX_JSON_BETWEEN;
        }
        let entry = json::canonical(&index_entry(reference)).map_err(|error| Error::failed(error.to_string()))?;
        for line in String::from_utf8_lossy(&entry).lines() {
            entries += "\n    ";
            entries += line;
        }
    }
    Ok(entries)
}

fn index_entry(reference: &Named) -> Descriptor {
    let name = format!("{}:{}", reference.name, reference.tag);
    let annotations = NAMES.map(|key| (key.to_owned(), name.clone())).into();
    let Descriptor { media_type, digest, size, .. } = reference.descriptor.clone();
    Descriptor { annotations, ..Descriptor::new(media_type, digest, size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, MediaType};

    /// It is written entry by entry: what comes of it must be what the canonical form of the whole is.
    #[test]
    fn index_json_is_canonical() {
        let named = |tag: &str| Named {
            name: "registry.example/team/app".parse().unwrap(),
            tag: tag.parse().unwrap(),
            descriptor: Descriptor::new(MediaType::OCI_INDEX, Digest::of(tag.as_bytes()), 7),
        };
        for references in [vec![], vec![named("1")], vec![named("1"), named("2"), named("3")]] {
            let entries: Vec<Descriptor> = references.iter().map(index_entry).collect();
            let whole =
                serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": entries});
            let written = String::from_utf8(index_json(&references).unwrap()).unwrap();
            assert_eq!(written, String::from_utf8(json::canonical(&whole).unwrap()).unwrap());
        }
    }
}
