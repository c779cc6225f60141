//! [`Place`]: where images are looked at.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use crate::bundle::{BUNDLE_JSON, BundleReader, read_plain};
use crate::content::read_limited;
use crate::error::{Context, Error, Kind, Result, Side};
use crate::image::{INDEX_JSON_MAX, INDEX_JSON_PATH, OCI_LAYOUT_PATH, names_of_index};
use crate::oci::{CONFIG_SIZE_MAX, Descriptor, Digest, MANIFEST_SIZE_MAX, Name, Reference};
use crate::registry::Remote;

/// What holds images.
pub enum Place {
    /// A repository, and what is meant in it.
    Registry(Remote, Name),
    /// An OCI image layout, as every store is.
    Layout(PathBuf),
    /// A bundle whose signature was checked.
    Bundle(Box<BundleReader>),
}

/// A kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Medium {
    /// A registry.
    Registry,
    /// A store, or another OCI image layout.
    Layout,
    /// A bundle.
    Bundle,
}

/// An image under its names.
pub(super) struct Root {
    pub names: Vec<String>,
    pub descriptor: Descriptor,
}

impl Place {
    /// Whether a folder is a bundle, or what is left of one without its contents.
    pub fn is_bundle(folder: &Path) -> bool {
        folder.join(BUNDLE_JSON).exists()
    }

    /// Whether a folder is an OCI image layout.
    pub fn is_layout(folder: &Path) -> bool {
        folder.join(OCI_LAYOUT_PATH).is_file()
    }

    /// The place that a reference names.
    pub fn registry(remote: Remote, reference: &Reference) -> Result<Self> {
        Ok(Place::Registry(remote, name_of(reference)?))
    }

    /// What kind it is.
    pub fn medium(&self) -> Medium {
        match self {
            Place::Registry(..) => Medium::Registry,
            Place::Layout(_) => Medium::Layout,
            Place::Bundle(_) => Medium::Bundle,
        }
    }

    /// The images in it.
    pub(super) async fn roots(&self) -> Result<Vec<Root>> {
        match self {
            Place::Registry(remote, name) => {
                let found = remote.head_manifest(name).await?.ok_or_else(|| absent(remote, name))?;
                Ok(vec![Root { names: vec![name.within(remote.repository())], descriptor: found }])
            }
            Place::Layout(folder) => Ok(merged(named_in(folder)?)),
            Place::Bundle(reader) => {
                let (contents, tags) = (reader.contents(), reader.contents().tags());
                Ok(merged(contents.images.iter().flat_map(|image| {
                    let tags = tags.get(&(image.repository.clone(), image.root.digest)).map_or(&[][..], Vec::as_slice);
                    let named: Vec<String> = match tags {
                        [] => vec![Name::from(image.root.digest).to_string()],
                        tags => tags.iter().map(|tag| format!("{}:{tag}", image.repository)).collect(),
                    };
                    named.into_iter().map(|name| (Some(name), image.root.clone()))
                })))
            }
        }
    }

    /// The bytes of a manifest, compared with its digest; `None` where it is not here.
    pub(super) async fn manifest(&self, descriptor: &Descriptor) -> Result<Option<Bytes>> {
        if descriptor.size > MANIFEST_SIZE_MAX {
            let text = format!("manifest {} has {} bytes", descriptor.digest, descriptor.size);
            return Err(Error::verification(text).on(self.side()));
        }
        match self {
            Place::Registry(remote, _) => {
                let found = remote.get_manifest(&Name::from(descriptor.digest), Some(descriptor)).await?;
                Ok(found.map(|(_, bytes)| bytes))
            }
            Place::Layout(folder) => read_blob(folder, descriptor),
            Place::Bundle(reader) if reader.size_of(&descriptor.digest).is_none() => Ok(None),
            Place::Bundle(reader) => reader.read(descriptor).map(Some),
        }
    }

    /// The bytes of a config, compared with its digest; `None` where it is not here, or larger than any config is.
    pub(super) async fn config(&self, config: &Descriptor) -> Result<Option<Bytes>> {
        if config.size > CONFIG_SIZE_MAX || !self.has(config).await? {
            return Ok(None);
        }
        match self {
            Place::Registry(remote, _) => config_of(remote, config).await.map(Some),
            Place::Layout(folder) => read_blob(folder, config),
            Place::Bundle(reader) => reader.read_config(config).map(Some),
        }
    }

    /// Whether a blob is here, as far as its length says.
    pub(super) async fn has(&self, blob: &Descriptor) -> Result<bool> {
        match self {
            Place::Registry(remote, _) => Ok(remote.blob_exists(&blob.digest).await? == Some(blob.size)),
            Place::Layout(folder) => {
                let found = folder.join(blob.digest.layout_path()).symlink_metadata();
                Ok(found.is_ok_and(|found| found.is_file() && found.len() == blob.size))
            }
            Place::Bundle(reader) => Ok(reader.size_of(&blob.digest) == Some(blob.size)),
        }
    }

    pub(super) fn side(&self) -> Side {
        match self {
            Place::Registry(..) => Side::Source,
            Place::Layout(_) => Side::Layout,
            Place::Bundle(_) => Side::Bundle,
        }
    }
}

/// Reads a config, and compares it with its digest.
pub(super) async fn config_of(remote: &Remote, config: &Descriptor) -> Result<Bytes> {
    let body = remote.open_blob(config, 0).await?;
    let bytes = read_limited(body, config.size.min(CONFIG_SIZE_MAX)).await.on(Side::Source)?;
    match config.digest.same_algorithm_of(&bytes) == config.digest {
        true => Ok(bytes),
        false => Err(Error::verification(format!("config {} has other bytes than its digest says", config.digest))
            .on(Side::Source)),
    }
}

/// What a reference names in its repository.
pub(super) fn name_of(reference: &Reference) -> Result<Name> {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => Ok(Name::from(*digest)),
        (None, Some(tag)) => Ok(Name::from(tag.clone())),
        (None, None) => Err(Error::usage(format!("{reference} names a repository, and no image in it"))
            .help("add a tag or a digest: HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:…")),
    }
}

pub(super) fn absent(remote: &Remote, name: &Name) -> Error {
    Error::failed(format!("{} is not there", name.within(remote.repository())))
        .on(Side::Source)
        .help("check the name; a private repository also looks like this without credentials")
}

/// What several names point to is one image.
fn merged(named: impl IntoIterator<Item = (Option<String>, Descriptor)>) -> Vec<Root> {
    let (mut roots, mut places): (Vec<Root>, HashMap<Digest, usize>) = Default::default();
    for (name, descriptor) in named {
        let at = *places.entry(descriptor.digest).or_insert(roots.len());
        match roots.get_mut(at) {
            Some(known) => known.names.extend(name),
            None => roots.push(Root {
                names: name.into_iter().collect(),
                // Without what a hostile document may make large.
                descriptor: Descriptor::new(descriptor.media_type, descriptor.digest, descriptor.size),
            }),
        }
    }
    roots
}

fn named_in(folder: &Path) -> Result<Vec<(Option<String>, Descriptor)>> {
    let path = folder.join(INDEX_JSON_PATH);
    let attempt = || format!("read {}", path.display());
    let bytes = read_file(&path, INDEX_JSON_MAX).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(Kind::Missing, "it is not there")
            .help("a store gets it from its first pull; any other layout has to be copied again"),
        _ => Error::from(error),
    });
    let bytes = bytes.while_(attempt).on(Side::Layout)?;
    names_of_index(&bytes).map_err(|why| Error::verification(why).while_(attempt()).on(Side::Layout))
}

fn read_blob(folder: &Path, descriptor: &Descriptor) -> Result<Option<Bytes>> {
    let path = folder.join(descriptor.digest.layout_path());
    let bytes = match read_file(&path, descriptor.size) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).on(Side::Layout).while_(|| format!("read {}", path.display())),
    };
    match descriptor.digest.same_algorithm_of(&bytes) == descriptor.digest {
        true => Ok(Some(bytes)),
        false => Err(Error::verification(format!("{} is not what its name says", path.display())).on(Side::Layout)),
    }
}

/// Reads a regular file whole, at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> std::io::Result<Bytes> {
    let bytes = read_plain(path, limit)?;
    match bytes.len() as u64 > limit {
        true => Err(std::io::Error::other(format!("it has more than {limit} bytes"))),
        false => Ok(bytes.into()),
    }
}
