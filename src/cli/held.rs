//! What `serve` and `client-config` are about: stores and bundles, opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::KeysArgument;
use crate::bundle::{BUNDLE_JSON, BundleReader, group_folders};
use crate::error::Result;
use crate::image::Addresses;
use crate::store::{Access, Store};

/// A store, or a bundle whose signature was checked.
pub(super) enum Held {
    Store(Arc<Store>),
    Bundle(Arc<BundleReader>),
}

impl Held {
    /// The `urls` of what it holds.
    pub fn addresses(&self) -> Result<Addresses> {
        match self {
            Held::Store(store) => store.addresses(),
            Held::Bundle(reader) => Ok(reader.addresses()),
        }
    }
}

pub(super) fn is_bundle(folder: &Path) -> bool {
    folder.join(BUNDLE_JSON).exists()
}

/// Opens all of them for reading, in their order. Folders that hold parts of one bundle are one.
pub(super) fn open(folders: &[PathBuf], keys: &KeysArgument) -> Result<Vec<Held>> {
    let keys = if folders.iter().any(|folder| is_bundle(folder)) { keys.load(&[])? } else { Vec::new() };
    let open = |group: Vec<PathBuf>| match group.as_slice() {
        [folder] if !is_bundle(folder) => Ok(Held::Store(Arc::new(Store::open_existing(folder, Access::Shared)?))),
        folders => Ok(Held::Bundle(Arc::new(BundleReader::open(folders, &keys)?))),
    };
    group_folders(folders).into_iter().map(open).collect()
}

/// What of a host is answered for.
#[derive(Default)]
pub(super) struct AnsweredHost {
    pub urls: usize,
    /// Whether clients connect to it with TLS.
    pub secure: bool,
}

/// The hosts whose urls `serve --foreign` answers for.
pub(super) fn answered_hosts(addresses: &Addresses) -> BTreeMap<String, AnsweredHost> {
    let mut hosts: BTreeMap<String, AnsweredHost> = BTreeMap::new();
    for (address, contents) in addresses.iter() {
        if matches!(contents, [content] if content.carried) {
            let host = hosts.entry(address.host().to_owned()).or_default();
            host.urls += 1;
            host.secure |= address.is_secure();
        }
    }
    hosts
}

/// The urls at which manifests want different bytes.
pub(super) fn doubtful(addresses: &Addresses) -> impl Iterator<Item = String> {
    addresses.iter().filter(|(_, contents)| contents.len() > 1).map(|(address, _)| address.to_string())
}
