//! `manifest.json`, the table of contents of `docker save`: what `docker load` reads, and `podman load` where it cannot
//! load `index.json`.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::oci::{Digest, json};

/// An image of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its configuration.
    pub config: Digest,
    /// Its names, `host/repository:tag`.
    pub names: Vec<String>,
    /// Its layers, in their order.
    pub layers: Vec<Digest>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    config: String,
    repo_tags: &'a [String],
    layers: Vec<String>,
}

/// The document. Its paths are those of the blobs, which lie there once for both tables of contents.
pub fn manifest_json(entries: &[Entry]) -> Result<Vec<u8>> {
    let written = entries.iter().map(|entry| Written {
        config: entry.config.layout_path(),
        repo_tags: &entry.names,
        layers: entry.layers.iter().map(Digest::layout_path).collect(),
    });
    json::canonical(&written.collect::<Vec<_>>()).map_err(|error| Error::failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_are_those_of_docker() {
        let (config, layer) = (Digest::of(b"config"), Digest::of(b"layer"));
        let entry = Entry { config, names: vec!["host/a:1".into()], layers: vec![layer, layer] };
        let found: serde_json::Value = serde_json::from_slice(&manifest_json(&[entry]).unwrap()).unwrap();
        let path = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
        let expected = serde_json::json!([
            {"Config": path(config), "RepoTags": ["host/a:1"], "Layers": [path(layer), path(layer)]}
        ]);
        assert_eq!(found, expected);
        assert_eq!(manifest_json(&[]).unwrap(), b"[]\n");
    }
}
