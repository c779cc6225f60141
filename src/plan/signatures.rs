//! The signature closure: everything that speaks about the root, a kept child, or another signature. Never filtered
//! by artifact type: tools disagree about those.

use std::collections::HashSet;

use super::fetch::Fetcher;
use crate::error::{Error, Result, Side};
use crate::image::{Absent, Image, Signature, SignatureForm};
use crate::oci::{Digest, Name, Tag};
use crate::registry::ReferrersForm;

/// How far signatures of signatures are followed.
const DEPTH_MAX: usize = 3;

/// The most signatures of one image.
pub(super) const SIGNATURES_MAX: usize = 1_000;

/// The tags that cosign 1 and 2 make.
const COSIGN_SUFFIXES: [(&str, &str); 3] = [("sig", "cosign.sig"), ("att", "cosign.att"), ("sbom", "cosign.sbom")];

/// Finds the signatures of `image` and records which forms were absent.
pub(super) async fn collect(fetcher: &Fetcher, image: &mut Image, notes: &mut Vec<String>) -> Result<()> {
    let mut subjects: Vec<Digest> = vec![image.root.digest];
    subjects.extend(image.kept.iter().map(|child| child.descriptor.digest));
    let mut asked: HashSet<Digest> = subjects.iter().copied().collect();
    let mut known = HashSet::new();
    for depth in 0..DEPTH_MAX {
        let mut found = Vec::new();
        for subject in &subjects {
            let before = found.len();
            let absent = of_subject(fetcher, *subject, &mut found, notes).await?;
            // Only what was asked about the image itself is worth recording: nearly no signature is signed.
            if depth == 0 && !absent.is_empty() {
                image.absent.push(Absent { subject: *subject, forms: absent });
            }
            if found.len() > before && image.signatures.len() + found.len() > SIGNATURES_MAX {
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

/// What speaks about `subject`; returns the forms that are not there.
async fn of_subject(
    fetcher: &Fetcher,
    subject: Digest,
    found: &mut Vec<Signature>,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut absent = Vec::new();
    for (suffix, form) in COSIGN_SUFFIXES {
        let tag = Tag::cosign(&subject, suffix);
        let Some(descriptor) = fetcher.remote().head_manifest(&Name::from(tag.clone())).await? else {
            absent.push(form.to_owned());
            continue;
        };
        if !descriptor.media_type.is_image_manifest() {
            notes.push(format!("the tag {tag} holds a {}, which is not carried", descriptor.media_type));
            continue;
        }
        fetcher.required(&descriptor).await?;
        found.push(Signature { descriptor, subject, form: SignatureForm::CosignTag, tag: Some(tag) });
    }
    let referrers = fetcher.remote().referrers(&subject).await?;
    if referrers.form == ReferrersForm::Absent || referrers.descriptors.is_empty() {
        absent.push("referrers".to_owned());
    }
    for descriptor in referrers.descriptors {
        if !descriptor.media_type.is_image_manifest() {
            notes.push(format!(
                "referrer {} of {} is a {}, which is not carried",
                descriptor.digest.short(),
                subject.short(),
                descriptor.media_type
            ));
            continue;
        }
        // The list may name what is long gone; what is there must be about this subject.
        let Some(manifest) = fetcher.manifest(&descriptor).await? else {
            notes.push(format!(
                "referrer {} of {} is listed, but not there",
                descriptor.digest.short(),
                subject.short()
            ));
            continue;
        };
        if manifest.subject.is_some_and(|about| about.digest == subject) {
            found.push(Signature { descriptor, subject, form: SignatureForm::Referrer, tag: None });
        }
    }
    Ok(absent)
}
