//! The ladder: how an index of which children were left out reaches a target with its digest unchanged.
//!
//! 1. Put it. Registries that allow sparse indexes take it.
//! 2. Refused: push the left-out children's manifest bytes as ordinary *blobs* of the repository, and put it again.
//!    distribution 2.x looks a child up among blobs too.
//! 3. Refused still: this image stops, with the settings that would allow it.

use bytes::Bytes;
use serde::Serialize;

use crate::content::{Limits, Source, Work, copy};
use crate::error::{Error, Kind, Result, Side};
use crate::monitor::Silent;
use crate::oci::{Descriptor, Name};
use crate::registry::{Answer, Put};

use super::RegistryTarget;

/// How far the ladder had to be climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// It was taken as it is.
    Put,
    /// It was taken once stubs lay beside it.
    Stubs,
}

/// Codes with which registries refuse an index whose children they do not have. There is no common one: distribution and
/// Docker Hub, Nexus, zot and Quay, and others each have their own.
const MISSING_CHILD_CODES: [&str; 4] =
    ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN"];

/// Puts `root`, an index of which children were left out; `stubs` is the work of pushing those of them that came along;
/// `None` where the site does not allow it.
pub async fn put_index<S: Source>(
    target: &RegistryTarget,
    root: &Descriptor,
    bytes: Bytes,
    stubs: Option<&[Work]>,
    source: &S,
) -> Result<Rung> {
    let name = Name::from(root.digest);
    let answer = match target.remote().put_manifest(&name, &root.media_type, bytes.clone()).await? {
        Put::Accepted { .. } => return Ok(Rung::Put),
        Put::Refused(answer) => answer,
    };
    let Some(stubs) = stubs else {
        let error = refused(target, root, &answer);
        return Err(match misses_children(&answer) {
            true => error.help_first("the site says `stubs: never`, and this registry takes a sparse index at most with stubs: allow them there"),
            false => error,
        });
    };
    if !misses_children(&answer) || stubs.is_empty() {
        return Err(refused(target, root, &answer));
    }
    tracing::debug!(%answer, "the index was refused as it is; pushing stubs");
    if let Some((_, error)) = copy(stubs, source, target, Limits::default(), &Silent).await.into_iter().next() {
        return Err(error);
    }
    match target.remote().put_manifest(&name, &root.media_type, bytes).await? {
        Put::Accepted { .. } => Ok(Rung::Stubs),
        Put::Refused(answer) => Err(refused(target, root, &answer)),
    }
}

/// Whether a refusal is about missing children, which were left out on purpose.
fn misses_children(answer: &Answer) -> bool {
    MISSING_CHILD_CODES.iter().any(|code| answer.has_code(code))
}

fn refused(target: &RegistryTarget, root: &Descriptor, answer: &Answer) -> Error {
    let error = Error::new(Kind::Refused, format!("it does not take index {}: {answer}", root.digest))
        .while_(target.remote().repository())
        .on(Side::Target);
    if !misses_children(answer) {
        return error;
    }
    error.help(
        "this registry wants all children of an index. Either allow sparse indexes there \
         (distribution 3: validation.manifests.indexes.platforms: none; Quay 3.17: FEATURE_SPARSE_INDEX: true; \
         Harbor, Nexus and Gitea have no such setting), or carry what it wants: in the spec `index: full`, `index: trim` \
         for a new index, or `index: child` for a single platform",
    )
}
