//! What the far side takes, as far as it decides what is carried.

use std::collections::BTreeSet;

use crate::error::{Error, Kind, Result};
use crate::image::{Image, IndexMode};
use crate::spec::{SparseRefused, TargetSpec};
use crate::target::{Profile, TakesSparse};

/// Where distribution is told which addresses foreign layers may have.
const ALLOW_URLS: &str = "distribution: validation.manifests.urls.allow";

/// The far side of a stream.
pub(super) struct Far {
    profile: Option<Profile>,
    refused: SparseRefused,
}

/// What becomes of an index of which children would be left out.
pub(super) enum LeaveOut {
    /// It is carried so; with the left-out children's manifests where `stubs` says so.
    Yes { stubs: bool },
    /// A new index is made without them.
    Trim,
    /// All children are taken, for the target refuses anything else.
    Nothing,
}

impl Far {
    /// Reads the profile that the spec names.
    pub fn load(target: &TargetSpec) -> Result<Self> {
        let profile = target.profile.as_deref().map(Profile::load).transpose()?;
        Ok(Far { profile, refused: target.sparse_refused })
    }

    /// What becomes of an index of which children would be left out.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`] where the target takes none, and the spec says that the image fails then.
    pub fn leave_out(&self) -> Result<LeaveOut> {
        let takes = self.profile.as_ref().map_or(TakesSparse::Unknown, Profile::takes_sparse);
        match (takes, self.refused) {
            (TakesSparse::Plainly, _) => Ok(LeaveOut::Yes { stubs: false }),
            (TakesSparse::WithStubs | TakesSparse::Unknown, _) => Ok(LeaveOut::Yes { stubs: true }),
            (TakesSparse::Not, SparseRefused::Full) => Ok(LeaveOut::Nothing),
            (TakesSparse::Not, SparseRefused::Trim) => Ok(LeaveOut::Trim),
            (TakesSparse::Not, SparseRefused::Fail) => Err(self.refuses_sparse()),
        }
    }

    fn refuses_sparse(&self) -> Error {
        let registry = self.profile.as_ref().map_or("the target", |profile| profile.registry.as_str());
        Error::new(Kind::Refused, format!("{registry} takes no index of which children are missing, says its profile")).help(
            "allow it there and probe again (distribution 3: validation.manifests.indexes.platforms: none; Quay 3.17: \
             FEATURE_SPARSE_INDEX: true), or carry what it takes: in the spec `target: {sparseRefused: full}` for all \
             platforms, `target: {sparseRefused: trim}` for a new index of the chosen ones, or `index: child` for a single one",
        )
    }

    /// What the operator should know about images that this target would refuse.
    pub fn notes(&self, image: &Image) -> Vec<String> {
        let Some(profile) = &self.profile else { return Vec::new() };
        self.foreign_notes(image, profile).into_iter().chain(witness_note(image, profile)).collect()
    }

    fn foreign_notes(&self, image: &Image, profile: &Profile) -> Vec<String> {
        let refused = image.foreign.iter().filter(|layer| {
            let docker = layer.descriptor.media_type.as_str().contains(".docker.");
            (if docker { &profile.docker_foreign_layers } else { &profile.foreign_layers }).is_no()
        });
        let hosts: BTreeSet<&str> =
            refused.flat_map(|layer| &layer.descriptor.urls).filter_map(|url| host(url)).collect();
        if hosts.is_empty() {
            return Vec::new();
        }
        let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
        vec![format!(
            "{}: {} refuses manifests whose layers are elsewhere, says its profile: allow addresses at {hosts} there first ({ALLOW_URLS})",
            image.repository, profile.registry
        )]
    }
}

/// A witness is an artifact about another manifest.
fn witness_note(image: &Image, profile: &Profile) -> Option<String> {
    let refused = image.mode == IndexMode::Trim && profile.artifacts.is_no();
    refused.then(|| {
        format!(
            "{}: {} refuses artifacts, says its profile: it will take the trimmed index and not the witness of the original",
            image.repository, profile.registry
        )
    })
}

/// The host of an address in a manifest, which may be anything.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())
}
