//! The ladder: how an index of which children were left out reaches a target with its digest unchanged.
//!
//! 1. Put it. Registries that allow sparse indexes take it.
//! 2. Refused: push the left-out children's manifest bytes as ordinary *blobs* of the repository, and put it again.
//!    distribution 2.x looks a child up among blobs too.
//! 3. Refused still: this image stops, with the settings that would allow it.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Serialize;

use crate::content::{Limits, Source, Work, copy};
use crate::error::{Error, Kind, Result, Side};
use crate::monitor::Silent;
use crate::oci::{Descriptor, Digest, Manifest};
use crate::registry::{Answer, MISSING_CHILD_CODES, Put};

use super::RegistryTarget;
use super::product::{Product, Stubs};

/// How far the ladder had to be climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// It was taken as it is.
    Put,
    /// It was taken once stubs lay beside it.
    Stubs,
}

/// Puts `root`, an index of which children were left out; `stubs` is the work of pushing those of them that came along;
/// `None` where the site does not allow it.
pub async fn put_index<S: Source>(
    target: &RegistryTarget,
    root: &Descriptor,
    bytes: Bytes,
    stubs: Option<&[Work]>,
    source: &S,
) -> Result<Rung> {
    let put = || target.remote().put_sparse_index(&root.digest, &root.media_type, bytes.clone());
    let answer = match put().await? {
        Put::Accepted { .. } => return Ok(Rung::Put),
        Put::Refused(answer) => answer,
    };
    if !misses_children(&answer, root, &bytes) {
        return Err(refused(target, root, &answer));
    }
    let stubs = match stubs {
        None => return Err(refused_for_children(target, root, &answer, Stubs::Forbidden).await),
        Some([]) => return Err(refused_for_children(target, root, &answer, Stubs::None).await),
        Some(stubs) => stubs,
    };
    tracing::debug!(%answer, "the index was refused as it is; pushing stubs");
    if let Some((_, error)) = copy(stubs, source, target, Limits::default(), &Silent).await.into_iter().next() {
        return Err(error);
    }
    match put().await? {
        Put::Accepted { .. } => Ok(Rung::Stubs),
        Put::Refused(answer) if misses_children(&answer, root, &bytes) => {
            Err(refused_for_children(target, root, &answer, Stubs::Pushed).await)
        }
        Put::Refused(answer) => Err(refused(target, root, &answer)),
    }
}

/// Whether a refusal is about missing children, which were left out on purpose: by its code, or because it names one of
/// them in whatever words. Who may not push, and what is too large, is told by its status.
fn misses_children(answer: &Answer, root: &Descriptor, bytes: &[u8]) -> bool {
    if matches!(answer.status, 401 | 403 | 405 | 413 | 415) {
        return false;
    }
    MISSING_CHILD_CODES.iter().any(|code| answer.has_code(code)) || names_child(answer, root, bytes)
}

fn names_child(answer: &Answer, root: &Descriptor, bytes: &[u8]) -> bool {
    let Ok(index) = Manifest::parse(&root.media_type, bytes) else { return false };
    let texts = answer.errors.iter().flat_map(|entry| [&entry.message, &entry.detail]).chain([&answer.text]);
    let digest_of = |word: &str| {
        let start = word.find("sha")?;
        let word = word.get(start..)?;
        let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != ':').unwrap_or(word.len());
        word.get(..end)?.parse::<Digest>().ok()
    };
    let named: HashSet<Digest> = texts.flat_map(|text| text.split_whitespace()).filter_map(digest_of).collect();
    index.children().iter().any(|child| named.contains(&child.digest))
}

fn refused(target: &RegistryTarget, root: &Descriptor, answer: &Answer) -> Error {
    Error::new(Kind::Refused, format!("it does not take index {}: {answer}", root.digest))
        .while_(target.remote().repository())
        .on(Side::Target)
}

/// The same with what makes this very registry take it.
async fn refused_for_children(target: &RegistryTarget, root: &Descriptor, answer: &Answer, stubs: Stubs) -> Error {
    let remote = target.remote();
    let product = Product::recognise(remote.repository().registry(), &remote.appearance().await, answer);
    tracing::debug!(?product, "the index was refused for its children");
    refused(target, root, answer).help(Product::remedy(product, stubs))
}
