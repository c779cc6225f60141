//! Listing the layers of images that are foreign, or have `urls`.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use super::place::{Medium, Place, Root};
use super::urls;
use crate::error::{Context, Error, Kind, Problem, Result};
use crate::oci::manifest::{Content, INDEX_DEPTH_MAX, config_platform};
use crate::oci::{Descriptor, Digest, Manifest, MediaType};

/// The most manifests that are looked at, of all images together: what many of them share is looked at for each.
const MANIFESTS_MAX: usize = 1_000_000;

/// The most children of one image, those of nested indexes included.
const CHILDREN_MAX: usize = 10_000;

/// The most layers that are listed: they are in memory.
const LISTED_MAX: usize = 100_000;

/// How many addresses of a layer are shown. Manifests may hold anything.
const URLS_MAX: usize = 16;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListReport {
    /// What was looked at, as it was named.
    pub what: String,
    /// What kind of thing that is.
    pub medium: Medium,
    /// The images that have such layers, and those that could not be looked at.
    pub images: Vec<ListedImage>,
    /// How many images were looked at.
    pub looked_at: u64,
}

/// An image with layers that are had from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedImage {
    /// Its names.
    pub names: Vec<String>,
    /// Its root.
    pub root: Digest,
    /// The layers.
    pub layers: Vec<ListedLayer>,
    /// How many manifests that its indexes list are not here, so that nothing is known of their layers.
    pub not_here: u64,
    /// Why it could not be looked at to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A layer that is foreign, or has `urls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedLayer {
    /// The manifest that lists it.
    pub manifest: Digest,
    /// The platform of that, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Which of its layers it is, from 1.
    pub number: u64,
    /// Its media type.
    pub media_type: MediaType,
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Whether its media type says that it is not to be distributed. Otherwise it is a layer like others that has `urls`.
    pub foreign: bool,
    /// Where it is to be had. Queries are not shown: they may be secrets.
    pub urls: Vec<String>,
    /// The hosts of these.
    pub hosts: Vec<String>,
    /// Whether it is here too.
    pub here: bool,
}

impl ListReport {
    /// What went wrong, as the kind that decides the exit status; `None` for nothing.
    pub fn verdict(&self) -> Option<Kind> {
        Kind::first_of(self.images.iter().filter_map(|image| image.problem.as_ref()).map(|problem| problem.kind))
    }
}

/// Lists the layers of everything in `place` that are foreign, or have `urls`. What is wrong with one image is in its entry; an
/// error means that nothing could be listed.
pub async fn list(what: &str, place: &Place) -> Result<ListReport> {
    let roots = place.roots().await?;
    let mut report =
        ListReport { what: what.to_owned(), medium: place.medium(), images: Vec::new(), looked_at: roots.len() as u64 };
    let mut looking = Looking { place, manifests: 0, listed: 0 };
    for root in roots {
        let mut image = ListedImage {
            names: Vec::new(),
            root: root.descriptor.digest,
            layers: Vec::new(),
            not_here: 0,
            problem: None,
        };
        if let Err(error) = looking.look_at(&root, &mut image).await {
            image.problem = Some(Problem::from(&error));
        }
        image.names = root.names;
        if !image.layers.is_empty() || image.problem.is_some() {
            report.images.push(image);
        }
        looking.bounded()?;
    }
    Ok(report)
}

struct Looking<'a> {
    place: &'a Place,
    manifests: usize,
    listed: usize,
}

impl Looking<'_> {
    /// Ends what hostile documents could make go on for days, or fill memory with.
    fn bounded(&self) -> Result<()> {
        match self.manifests > MANIFESTS_MAX || self.listed > LISTED_MAX {
            false => Ok(()),
            true => Err(Error::failed(format!(
                "there are more than {MANIFESTS_MAX} manifests, or {LISTED_MAX} layers that are had from elsewhere"
            ))
            .on(self.place.side())
            .help("list fewer images at once, and ask where they come from")),
        }
    }

    async fn look_at(&mut self, root: &Root, image: &mut ListedImage) -> Result<()> {
        let mut open = vec![(root.descriptor.clone(), 0)];
        let (mut seen, mut count) = (HashSet::from([root.descriptor.digest]), 0);
        while let Some((descriptor, depth)) = open.pop() {
            self.manifests += 1;
            self.bounded()?;
            let Some(bytes) = self.place.manifest(&descriptor).await? else {
                image.not_here += 1;
                continue;
            };
            let manifest = parse(&descriptor, &bytes).on(self.place.side())?;
            if let Content::Image { config, layers } = &manifest.content {
                self.add_layers(&descriptor, config, layers, image).await?;
            }
            if depth >= INDEX_DEPTH_MAX && !manifest.children().is_empty() {
                let text = format!("its indexes are nested more than {INDEX_DEPTH_MAX} levels deep");
                return Err(Error::verification(text).on(self.place.side()));
            }
            count += manifest.children().len();
            if count > CHILDREN_MAX {
                let text = format!("it lists more than {CHILDREN_MAX} children");
                return Err(Error::verification(text).on(self.place.side()));
            }
            // From behind: the first child is looked at first.
            let children = manifest.children().iter().rev().filter(|child| child.media_type.is_manifest());
            open.extend(children.filter(|child| seen.insert(child.digest)).map(|child| (child.clone(), depth + 1)));
        }
        Ok(())
    }

    async fn add_layers(
        &mut self,
        of: &Descriptor,
        config: &Descriptor,
        layers: &[Descriptor],
        image: &mut ListedImage,
    ) -> Result<()> {
        let elsewhere = |layer: &Descriptor| layer.media_type.is_foreign_layer() || !layer.urls.is_empty();
        let mut platform = of.platform.as_deref().cloned();
        if platform.is_none() && layers.iter().any(elsewhere) && config.media_type.is_image_config() {
            platform = self.place.config(config).await?.and_then(|bytes| config_platform(&bytes));
        }
        for (number, layer) in (1..).zip(layers).filter(|(_, layer)| elsewhere(layer)) {
            self.listed += 1;
            self.bounded()?;
            image.layers.push(ListedLayer {
                manifest: of.digest,
                platform: platform.as_ref().map(ToString::to_string),
                number,
                media_type: layer.media_type.clone(),
                digest: layer.digest,
                size: layer.size,
                foreign: layer.media_type.is_foreign_layer(),
                urls: shown(&layer.urls),
                hosts: hosts(&layer.urls),
                here: self.place.has(layer).await?,
            });
        }
        Ok(())
    }
}

fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest> {
    Manifest::parse(&descriptor.media_type, bytes)
        .map_err(|error| Error::verification(error.to_string()))
        .while_(|| format!("manifest {}", descriptor.digest))
}

fn shown(urls: &[String]) -> Vec<String> {
    urls.iter().take(URLS_MAX).map(|url| urls::shown(url)).collect()
}

/// The hosts of addresses, each once.
fn hosts(urls: &[String]) -> Vec<String> {
    let found: BTreeSet<String> = urls.iter().take(URLS_MAX).filter_map(|url| urls::host(url)).collect();
    found.into_iter().collect()
}
