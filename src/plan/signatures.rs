//! The signature closure: everything that speaks about the root, a kept child, or another signature. Never filtered
//! by artifact type: tools disagree about those.

use std::collections::HashSet;

use futures_util::{StreamExt, future, stream};

use super::fetch::Fetcher;
use crate::error::{Error, Result, Side};
use crate::image::{Absent, Image, Signature, SignatureForm};
use crate::oci::{Digest, Name, Tag};
use crate::registry::ReferrersForm;

/// How far signatures of signatures are followed.
const DEPTH_MAX: usize = 3;

/// The most signatures of one image.
pub(super) const SIGNATURES_MAX: usize = 1_000;

/// Subjects that are asked about at the same time.
const SUBJECTS_AT_ONCE: usize = 4;

/// Finds the signatures of `image` and records which forms were absent.
pub(super) async fn collect(fetcher: &Fetcher, image: &mut Image, notes: &mut Vec<String>) -> Result<()> {
    let mut subjects: Vec<Digest> = vec![image.root.digest];
    subjects.extend(image.kept.iter().map(|child| child.descriptor.digest));
    let mut asked: HashSet<Digest> = subjects.iter().copied().collect();
    let mut known = HashSet::new();
    for depth in 0..DEPTH_MAX {
        let mut found = Vec::new();
        let asking: Vec<_> = subjects.iter().map(|subject| of_subject(fetcher, *subject)).collect();
        let mut spoken = stream::iter(asking).buffered(SUBJECTS_AT_ONCE);
        while let Some(of_one) = spoken.next().await {
            let of_one = of_one?;
            // Only what was asked about the image itself is worth recording: nearly no signature is signed.
            if depth == 0 && !of_one.absent.is_empty() {
                image.absent.push(Absent { subject: of_one.subject, forms: of_one.absent });
            }
            notes.extend(of_one.notes);
            let more = !of_one.found.is_empty();
            found.extend(of_one.found);
            if more && image.signatures.len() + found.len() > SIGNATURES_MAX {
                return Err(Error::verification(format!("it has more than {SIGNATURES_MAX} signatures and referrers"))
                    .on(Side::Source)
                    .help("set signatures: {carry: none} for this image, or ask its publisher to remove old ones"));
            }
        }
        // One manifest may be found in several ways, and each of them is to work on the far side.
        found.retain(|signature| known.insert((signature.descriptor.digest, signature.subject, signature.tag.clone())));
        subjects =
            found.iter().map(|signature| signature.descriptor.digest).filter(|digest| asked.insert(*digest)).collect();
        image.signatures.extend(found);
        if subjects.is_empty() {
            return Ok(());
        }
    }
    notes.push(format!(
        "{}@{}: signatures of signatures are followed {DEPTH_MAX} deep; what speaks about the last of them stays behind",
        image.repository,
        image.root.digest.short()
    ));
    Ok(())
}

/// What speaks about a subject.
struct Spoken {
    subject: Digest,
    found: Vec<Signature>,
    /// The forms that are not there.
    absent: Vec<String>,
    notes: Vec<String>,
}

impl Spoken {
    fn new(subject: Digest) -> Self {
        Spoken { subject, found: Vec::new(), absent: Vec::new(), notes: Vec::new() }
    }
}

async fn of_subject(fetcher: &Fetcher, subject: Digest) -> Result<Spoken> {
    let tags = Tag::COSIGN_SUFFIXES.map(|suffix| by_tag(fetcher, subject, suffix));
    let (by_tags, referrers) = future::try_join(future::try_join_all(tags), by_referrers(fetcher, subject)).await?;
    let mut spoken = Spoken::new(subject);
    for one in by_tags.into_iter().chain([referrers]) {
        spoken.found.extend(one.found);
        spoken.absent.extend(one.absent);
        spoken.notes.extend(one.notes);
    }
    Ok(spoken)
}

/// What cosign left under a tag that it made of the subject.
async fn by_tag(fetcher: &Fetcher, subject: Digest, suffix: &'static str) -> Result<Spoken> {
    let mut spoken = Spoken::new(subject);
    let tag = Tag::cosign(&subject, suffix);
    match fetcher.head(&Name::from(tag.clone())).await? {
        None => spoken.absent.push(format!("cosign.{suffix}")),
        Some(descriptor) if !descriptor.media_type.is_image_manifest() => {
            spoken.notes.push(format!("the tag {tag} holds a {}, which is not carried", descriptor.media_type));
        }
        Some(descriptor) => {
            fetcher.required(&descriptor).await?;
            spoken.found.push(Signature { descriptor, subject, form: SignatureForm::CosignTag, tag: Some(tag) });
        }
    }
    Ok(spoken)
}

async fn by_referrers(fetcher: &Fetcher, subject: Digest) -> Result<Spoken> {
    let mut spoken = Spoken::new(subject);
    let referrers = fetcher.referrers(&subject).await?;
    if referrers.form == ReferrersForm::Absent || referrers.descriptors.is_empty() {
        spoken.absent.push("referrers".to_owned());
    }
    for descriptor in referrers.descriptors {
        let named = format!("referrer {} of {}", descriptor.digest.short(), subject.short());
        if !descriptor.media_type.is_image_manifest() {
            spoken.notes.push(format!("{named} is a {}, which is not carried", descriptor.media_type));
            continue;
        }
        // The list may name what is long gone; what is there must be about this subject.
        let Some(manifest) = fetcher.manifest(&descriptor).await? else {
            spoken.notes.push(format!("{named} is listed, but not there"));
            continue;
        };
        if manifest.subject.is_some_and(|about| about.digest == subject) {
            spoken.found.push(Signature { descriptor, subject, form: SignatureForm::Referrer, tag: None });
        }
    }
    Ok(spoken)
}
