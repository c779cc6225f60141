//! Counting the signatures of an image on the target, in the way in which whoever verifies the image looks for them. That a
//! registry took a manifest does not mean that it lists it among the referrers, or still knows its tag.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use crate::error::Result;
use crate::image::{Signature, SignatureForm};
use crate::oci::{Digest, Name, Tag};
use crate::registry::{Referrers, ReferrersForm, Remote};
use crate::site::state::Tags;

/// How much is asked at the same time: one list for each subject, one HEAD for each signature.
const ASKED_AT_ONCE: usize = 8;

/// What the target lists, by subject. A list that could not be had is a text that says why.
type Lists = HashMap<Digest, Result<Referrers, String>>;

/// For each of `signatures`, in their order: why it is not found in the repository; `None` where it is. `remembered` says
/// what the site has set tags to.
pub(super) async fn recount(remote: &Remote, signatures: &[Signature], remembered: &Tags) -> Vec<Option<String>> {
    let lists = list(remote, signatures).await;
    let asked: Vec<_> = signatures
        .iter()
        .map(|signature| {
            let lists = &lists;
            async move {
                match tag_of(signature) {
                    Some(tag) => missing_tag(remote, tag, &expected(tag, signature, remembered)).await,
                    None => missing_referrer(remote, signature, lists).await,
                }
            }
        })
        .collect();
    stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
}

/// The tag under which a signature is looked for; `None` for one that is found by its subject.
fn tag_of(signature: &Signature) -> Option<&Tag> {
    signature.tag.as_ref().filter(|_| signature.form == SignatureForm::CosignTag)
}

/// What a tag of a signature points to when all is well: what a newer bundle has put there, or this one.
fn expected(tag: &Tag, signature: &Signature, remembered: &Tags) -> Digest {
    remembered.set_to(tag).copied().unwrap_or(signature.descriptor.digest)
}

/// One list for each subject, however many signatures it has.
async fn list(remote: &Remote, signatures: &[Signature]) -> Lists {
    let mut subjects: Vec<Digest> =
        signatures.iter().filter(|signature| tag_of(signature).is_none()).map(|one| one.subject).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let asked: Vec<_> = subjects
        .into_iter()
        .map(|subject| async move {
            let found = remote.referrers(&subject).await;
            (subject, found.map_err(|error| error.to_string()))
        })
        .collect();
    stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
}

async fn missing_tag(remote: &Remote, tag: &Tag, expected: &Digest) -> Option<String> {
    let instead = match remote.head_manifest(&Name::from(tag.clone())).await {
        Ok(Some(found)) if found.digest == *expected => return None,
        Ok(Some(found)) => format!("points to {}, not to {expected}", found.digest),
        Ok(None) => "is not there, though it was set".to_owned(),
        Err(error) => format!("could not be looked up: {error}"),
    };
    Some(format!("signature not found: the tag {tag} {instead}"))
}

async fn missing_referrer(remote: &Remote, signature: &Signature, lists: &Lists) -> Option<String> {
    let (digest, subject) = (signature.descriptor.digest, signature.subject);
    let why = match lists.get(&subject) {
        Some(Ok(found)) if found.descriptors.iter().any(|listed| listed.digest == digest) => {
            match remote.head_manifest(&Name::from(digest)).await {
                Ok(Some(_)) => return None,
                Ok(None) => "it is listed, but its manifest is not there".to_owned(),
                Err(error) => format!("it is listed, but could not be looked up: {error}"),
            }
        }
        Some(Ok(found)) => not_listed(found, &subject),
        Some(Err(error)) => format!("the list could not be had: {error}"),
        None => "nobody asked for its list".to_owned(),
    };
    Some(format!("referrer {digest} of {} not found: {why}", subject.short()))
}

fn not_listed(found: &Referrers, subject: &Digest) -> String {
    let tag = Tag::referrers_fallback(subject);
    match found.form {
        ReferrersForm::Api => "the registry took it, and its referrers API does not list it".to_owned(),
        ReferrersForm::FallbackTag => format!("the list under the tag {tag} does not have it"),
        ReferrersForm::Absent => {
            format!("there is no referrers API, and the tag {tag} is not there, or holds no list and is left alone")
        }
    }
}
