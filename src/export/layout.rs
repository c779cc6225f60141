//! Export for other tools: what the store holds of a stream becomes a plain OCI image layout.
//!
//! The choice is that of a bundle. Nothing is numbered, signed or recorded: who takes a layout trusts whoever hands
//! it over, and the digests in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::loadable::{Loadable, NotLoadable, decide};
use super::{Chosen, choose};
use crate::content::copy;
use crate::durable;
use crate::error::{Error, Result, Side};
use crate::image::index_json;
use crate::layout::{Form, LayoutContents, LayoutWriter, Place, manifest_json};
use crate::monitor::Monitor;
use crate::oci::{Descriptor, Digest, MediaType, PlatformPattern};
use crate::store::Store;
use crate::store::records::Failure;

/// What an export to a layout did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayoutReport {
    /// Where it lies.
    pub layout: PathBuf,
    /// What it is.
    pub form: Form,
    /// Whether exactly this was there already: then it was compared, and nothing was written.
    pub again: bool,
    /// The digest of `index.json`: equal ones have equal content.
    pub index: Digest,
    /// Images in it.
    pub images: u64,
    /// Tags in it.
    pub tags: u64,
    /// Blobs in it, manifests included.
    pub blobs: u64,
    /// Bytes of all files in it, not compressed.
    pub bytes: u64,
    /// What `manifest.json` names: the images that `docker load` takes, each with one platform.
    pub loadable: Vec<Loadable>,
    /// Images that are in the layout and not in `manifest.json`, and why.
    pub not_loadable: Vec<NotLoadable>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// What is in the stream and not in the layout, and why.
    pub failed: Vec<Failure>,
}

/// Exports the latest state of `stream` to `path`, whose ending says in which form. `platform` is what `manifest.json` names
/// of an image of which several are there.
pub async fn export_layout(
    stream: &str,
    store: &Arc<Store>,
    path: &Path,
    platform: Option<&PlatformPattern>,
    monitor: &dyn Monitor,
) -> Result<LayoutReport> {
    let _lock = store.lock_stream(stream)?;
    let place = Place::of(path)?;
    let (chosen, failed) = choose(stream, store)?;
    let decided = decide(&chosen, store, platform)?;
    decided.notes.iter().for_each(|note| monitor.note(note));
    let Chosen { references, images, blobs, .. } = chosen;
    let index = index_json(&references)?;
    let mut report = LayoutReport {
        layout: place.path.clone(),
        form: place.form,
        again: place.there,
        index: Digest::of(&index),
        images: images.len() as u64,
        tags: references.len() as u64,
        blobs: blobs.len() as u64,
        bytes: 0,
        loadable: decided.loadable,
        not_loadable: decided.not_loadable,
        notes: decided.notes,
        failed,
    };
    let blobs = blobs.iter().map(|blob| Descriptor::new(MediaType::OCTET_STREAM, blob.digest, blob.size)).collect();
    let contents = Arc::new(LayoutContents::new(index, manifest_json(&decided.entries)?, blobs));
    report.bytes = contents.size();
    refuse_when_full(&place, &contents)?;
    write(place, contents, store, monitor).await?;
    Ok(report)
}

async fn write(place: Place, contents: Arc<LayoutContents>, store: &Arc<Store>, monitor: &dyn Monitor) -> Result<()> {
    let work = contents.work();
    let writer = LayoutWriter::create(place, contents).await?;
    monitor.begin("export", work.len() as u64, work.iter().map(|item| item.descriptor.size).sum());
    let failures = copy(&work, store, &writer, writer.limits(), monitor).await;
    monitor.end();
    match failures.into_iter().next() {
        None => writer.finish().await,
        Some((_, error)) => {
            if let Err(error) = writer.give_up().await {
                monitor.problem(&error);
            }
            Err(error)
        }
    }
}

/// Refuses before anything is written when it does not fit.
fn refuse_when_full(place: &Place, contents: &LayoutContents) -> Result<()> {
    durable::create_folder(place.parent())?;
    let wanted = place.wanted(contents);
    let Some(free) = durable::free_space(place.parent()).filter(|&free| wanted > free) else { return Ok(()) };
    let folder = place.parent().display();
    Err(Error::failed(format!("the layout needs {wanted} bytes more, and {free} are free in {folder}"))
        .on(Side::Layout)
        .help("free space, or choose a place with more; nothing was written"))
}
