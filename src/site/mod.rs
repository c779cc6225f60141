//! The site: the far side's registry, names and keys. [`SiteFile`] as written, [`Site`] as meant.

mod file;
mod lower;
mod rewrite;
pub mod state;

use std::path::{Path, PathBuf};

use crate::oci::reference::InvalidName;
use crate::oci::{Registry, Repository};
use crate::yaml::{Diagnostics, Document};

pub use file::SiteFile;
pub use rewrite::Rewrite;

/// The `kind` of a site.
pub const KIND: &str = "Site";

/// A site as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its registry.
    pub registry: Registry,
    /// What every name on the registry begins with; may be empty.
    pub prefix: String,
    /// How source names become names on the registry; the first that matches wins.
    pub rewrite: Vec<Rewrite>,
    /// The files of the public keys whose bundles are accepted.
    pub keys: Vec<PathBuf>,
    /// Whether left-out children may be uploaded as stubs.
    pub stubs: Stubs,
    /// Whether kept children and referrers get tags too.
    pub tag_children: bool,
}

/// Whether left-out children may be uploaded as stubs where a registry refuses a sparse index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stubs {
    /// They may.
    Allow,
    /// They may not.
    Never,
}

impl Site {
    /// The path of `source` on this site's registry: the first rewrite that matches, else the source's
    /// host and path; below the prefix.
    pub fn target_path(&self, source: &Repository) -> Result<String, InvalidName> {
        let Some(rewritten) = self.rewrite.iter().find_map(|rule| rule.apply(source)) else {
            return source.target_path(&self.prefix);
        };
        let path = match self.prefix.as_str() {
            "" => rewritten,
            prefix => format!("{prefix}/{rewritten}"),
        };
        Ok(Repository::new(self.registry.clone(), &path)?.path().to_owned())
    }
}

/// Reads the site in `file`.
pub fn load(file: &Path) -> Result<Site, Diagnostics> {
    lower::site(&Document::read(file)?)
}

/// Takes `bytes` as a site; `file` is what messages call it.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<Site, Diagnostics> {
    lower::site(&Document::parse(file, bytes)?)
}

/// The JSON Schema of a site, for editors.
pub fn schema() -> serde_json::Value {
    crate::yaml::schema::<SiteFile>("site", "sealift site")
}
