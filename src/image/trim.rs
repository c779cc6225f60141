//! Trimming: an index without the members that were left out, and with every other byte as it was.
//!
//! The new index is a function of the original and of what is kept: every night makes the same bytes. Where only some
//! children of a nested index are kept, that is trimmed likewise, and in the entry of the index above just `digest` and
//! `size` change.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Image, IndexMode, Kept, Signature, SignatureForm, witness};
use crate::error::{Context, Error, Result};
use crate::oci::json::spans;
use crate::oci::manifest::INDEX_DEPTH_MAX;
use crate::oci::{Descriptor, Digest, Manifest, MediaType};

/// What can be done about an index that cannot be trimmed.
const INSTEAD: &str = "carry this image with `index: sparse`, or `index: full` where the target wants all platforms";

/// What a trimmed image was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trimmed {
    /// The indexes of which members were removed: the root's first.
    pub indexes: Vec<TrimmedIndex>,
    /// The artifact that shows what was signed: it refers to the root, and its layers are the original indexes, their
    /// signatures and the payloads of these.
    pub witness: Descriptor,
    /// The signatures of the originals, which are in the witness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

/// An index of which members were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TrimmedIndex {
    /// As its publisher made and signed it.
    pub original: Descriptor,
    /// What it became.
    pub trimmed: Descriptor,
}

/// A document that no registry has, because it is made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What it is.
    pub descriptor: Descriptor,
    /// All of it.
    pub bytes: Bytes,
}

impl Made {
    pub(super) fn new(media_type: MediaType, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Made { descriptor: Descriptor::of(media_type, &bytes), bytes }
    }
}

/// What becomes of a member of `manifests`.
enum Fate {
    Kept,
    Removed,
    /// It is an index that was trimmed too: its digest and size now.
    Became(Digest, u64),
}

impl Image {
    /// Makes of a decision about an untouched index the one about the trimmed index, and the documents for it. `read` gives the
    /// bytes of manifests, whose digests it has checked.
    pub fn trim(mut self, read: impl Fn(&Descriptor) -> Result<Bytes>) -> Result<(Image, Vec<Made>)> {
        let mut trimmer = Trimmer::of(&self, &read);
        let root = trimmer.index(&self.root, 0)?;
        let Trimmer { mut indexes, mut made, .. } = trimmer;
        if indexes.is_empty() {
            self.mode = IndexMode::Full;
            return Ok((self, made));
        }
        // Nested ones are done before the indexes that list them.
        indexes.reverse();
        refuse_confusion(&indexes, &self.kept)?;
        let (usual, witnessed) = divide(&self, &indexes);
        let witness = witness::make(&root, &indexes, &witnessed, &read)?;
        self.point_to(&indexes);
        self.root = root;
        self.mode = IndexMode::Trim;
        self.signatures = usual;
        self.signatures.push(Signature {
            descriptor: witness.descriptor.clone(),
            subject: self.root.digest,
            form: SignatureForm::Referrer,
            tag: None,
        });
        let trimmed = Trimmed { indexes, witness: witness.descriptor.clone(), signatures: witnessed };
        self.trimmed = Some(Box::new(trimmed));
        made.push(Made::new(MediaType::OCI_EMPTY, witness::EMPTY));
        made.push(witness);
        Ok((self, made))
    }

    /// The decision about the untouched index from which this one was made: all of it is to be had at the source.
    #[must_use]
    pub fn before_trim(mut self) -> Image {
        let Some(trimmed) = self.trimmed.take() else { return self };
        let Trimmed { indexes, witness, signatures } = *trimmed;
        let back: Vec<TrimmedIndex> = indexes
            .into_iter()
            .map(|TrimmedIndex { original, trimmed }| TrimmedIndex { original: trimmed, trimmed: original })
            .collect();
        if let Some(root) = back.first() {
            self.root = root.trimmed.clone();
        }
        self.point_to(&back);
        self.signatures.retain(|signature| signature.descriptor.digest != witness.digest);
        for signature in signatures {
            if !self.signatures.contains(&signature) {
                self.signatures.push(signature);
            }
        }
        self
    }

    /// What is made here and not to be had at the source, made again from what is.
    ///
    /// # Errors
    ///
    /// [`Kind::Verification`](crate::Kind::Verification) where something else comes out.
    pub fn remade(&self, read: impl Fn(&Descriptor) -> Result<Bytes>) -> Result<Vec<Made>> {
        if let Err(why) = self.check_trimmed() {
            let what = format!("{}@{}: {why}", self.repository, self.root.digest);
            return Err(Error::verification(what).help("the plan was changed: plan again"));
        }
        if self.trimmed.is_none() {
            return Ok(Vec::new());
        }
        let (again, made) = self.clone().before_trim().trim(read)?;
        if again != *self {
            let what =
                format!("the trimmed index {} cannot be made again: it is {}", self.root.digest, again.root.digest);
            return Err(Error::verification(what)
                .help("the plan was changed, or another version of sealift made it: plan again"));
        }
        Ok(made)
    }

    /// Whether what is said about trimming agrees with itself.
    ///
    /// # Errors
    ///
    /// What does not, in words.
    pub fn check_trimmed(&self) -> Result<(), &'static str> {
        let Some(Trimmed { indexes, witness, .. }) = self.trimmed.as_deref() else {
            return if self.mode == IndexMode::Trim {
                Err("nothing says from what its index was trimmed")
            } else {
                Ok(())
            };
        };
        if self.mode != IndexMode::Trim || indexes.first().is_none_or(|index| index.trimmed.digest != self.root.digest)
        {
            return Err("its root is not the index that was trimmed");
        }
        let listed = |signature: &Signature| {
            signature.descriptor.digest == witness.digest && signature.subject == self.root.digest
        };
        self.signatures
            .iter()
            .any(listed)
            .then_some(())
            .ok_or("the witness of its original is not among its signatures")
    }

    /// Lets kept children name the indexes by what these became.
    fn point_to(&mut self, indexes: &[TrimmedIndex]) {
        let became: HashMap<Digest, &Descriptor> =
            indexes.iter().map(|index| (index.original.digest, &index.trimmed)).collect();
        for child in &mut self.kept {
            if let Some(parent) = became.get(&child.parent) {
                child.parent = parent.digest;
            }
            if let Some(nested) = became.get(&child.descriptor.digest) {
                (child.descriptor.digest, child.descriptor.size) = (nested.digest, nested.size);
            }
        }
    }
}

/// Signatures of what stays, and those of the originals, in an order that does not depend on who was asked first.
fn divide(image: &Image, indexes: &[TrimmedIndex]) -> (Vec<Signature>, Vec<Signature>) {
    let originals: HashSet<Digest> = indexes.iter().map(|index| index.original.digest).collect();
    let kept = image.kept.iter().map(|child| child.descriptor.digest).filter(|digest| !originals.contains(digest));
    let usual = speaking_of(kept.collect(), &image.signatures);
    let mut witnessed = speaking_of(originals, &image.signatures);
    // One that is found in two ways is first named with its tag, which the witness keeps.
    let order = |signature: &Signature| (signature.descriptor.digest, signature.subject, signature.tag.is_none());
    witnessed.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.tag.cmp(&b.tag)));
    (usual, witnessed)
}

/// Of `signatures`, those of `subjects`, and of these signatures, and so on.
fn speaking_of(mut subjects: HashSet<Digest>, signatures: &[Signature]) -> Vec<Signature> {
    loop {
        let before = subjects.len();
        subjects.extend(
            signatures
                .iter()
                .filter(|signature| subjects.contains(&signature.subject))
                .map(|signature| signature.descriptor.digest)
                .collect::<Vec<_>>(),
        );
        if subjects.len() == before {
            return signatures.iter().filter(|signature| subjects.contains(&signature.subject)).cloned().collect();
        }
    }
}

/// Two indexes that differ in nothing but what is removed would become one: which children belonged to which could not be
/// said any more.
fn refuse_confusion(indexes: &[TrimmedIndex], kept: &[Kept]) -> Result<()> {
    let originals: HashSet<Digest> = indexes.iter().map(|index| index.original.digest).collect();
    let mut seen: HashSet<Digest> =
        kept.iter().map(|child| child.descriptor.digest).filter(|digest| !originals.contains(digest)).collect();
    match indexes.iter().find(|index| !seen.insert(index.trimmed.digest)) {
        None => Ok(()),
        Some(index) => {
            let what = format!("index {} becomes the same as another one when it is trimmed", index.original.digest);
            Err(Error::failed(what).help(INSTEAD))
        }
    }
}

/// Trims an index and those in it, from the innermost outwards.
struct Trimmer<'a, R> {
    read: &'a R,
    /// Kept children by the index that lists them.
    kept: HashMap<(Digest, Digest), Vec<&'a Descriptor>>,
    /// Indexes whose members were looked at.
    opened: HashSet<Digest>,
    /// What became of each index: one may be listed ten thousand times.
    done: HashMap<Digest, Descriptor>,
    indexes: Vec<TrimmedIndex>,
    made: Vec<Made>,
}

impl<'a, R: Fn(&Descriptor) -> Result<Bytes>> Trimmer<'a, R> {
    fn of(image: &'a Image, read: &'a R) -> Self {
        let mut kept: HashMap<_, Vec<_>> = HashMap::new();
        for child in &image.kept {
            kept.entry((child.parent, child.descriptor.digest)).or_default().push(&child.descriptor);
        }
        let left_out = image.left_out.iter().map(|child| child.parent);
        let opened = image.kept.iter().map(|child| child.parent).chain(left_out).collect();
        Trimmer { read, kept, opened, done: HashMap::new(), indexes: Vec::new(), made: Vec::new() }
    }

    /// What `original` becomes; itself where nothing of it is removed.
    fn index(&mut self, original: &Descriptor, depth: usize) -> Result<Descriptor> {
        if let Some(known) = self.done.get(&original.digest) {
            return Ok(known.clone());
        }
        let became = self.trimmed(original, depth)?;
        self.done.insert(original.digest, became.clone());
        Ok(became)
    }

    fn trimmed(&mut self, original: &Descriptor, depth: usize) -> Result<Descriptor> {
        if depth >= INDEX_DEPTH_MAX {
            return Err(Error::verification(format!("its indexes are nested more than {INDEX_DEPTH_MAX} levels deep")));
        }
        let attempt = || format!("trim index {}", original.digest);
        let bytes = (self.read)(original).while_(attempt)?;
        let manifest = parse(original, &bytes).while_(attempt)?;
        let mut fates = Vec::with_capacity(manifest.children().len());
        for child in manifest.children() {
            fates.push(self.fate(child, original, depth)?);
        }
        if fates.iter().all(|fate| matches!(fate, Fate::Kept)) {
            return Ok(original.clone());
        }
        let text = cut(&bytes, &fates).while_(attempt)?;
        let digest = original.digest.same_algorithm_of(&text);
        let trimmed = Descriptor { digest, size: text.len() as u64, ..original.clone() };
        check(&trimmed, &text, &manifest, &fates).while_(attempt)?;
        self.made.push(Made { descriptor: trimmed.clone(), bytes: text.into() });
        self.indexes.push(TrimmedIndex { original: original.clone(), trimmed: trimmed.clone() });
        Ok(trimmed)
    }

    fn fate(&mut self, child: &Descriptor, parent: &Descriptor, depth: usize) -> Result<Fate> {
        let listed = self.kept.get(&(parent.digest, child.digest)).is_some_and(|kept| kept.contains(&child));
        if !listed {
            return Ok(Fate::Removed);
        }
        if !child.media_type.is_index() || !self.opened.contains(&child.digest) {
            return Ok(Fate::Kept);
        }
        let became = self.index(child, depth + 1)?;
        Ok(if became.digest == child.digest { Fate::Kept } else { Fate::Became(became.digest, became.size) })
    }
}

fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest> {
    Manifest::parse(&descriptor.media_type, bytes).map_err(|error| Error::verification(error.to_string()))
}

/// What a comparison of a trimmed index with its original shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Members of the original that the trimmed one has, as they stand in the original.
    pub kept: Vec<Descriptor>,
    /// Members that it does not have.
    pub removed: Vec<Descriptor>,
    /// Nested indexes that were trimmed too, and are to be compared next.
    pub nested: Vec<TrimmedIndex>,
}

/// Compares a trimmed index with what is said to be its original; `originals` gives that of a nested one, by the digest of
/// what it became. Whoever calls has compared the bytes with the digests.
///
/// # Errors
///
/// In words: what the trimmed index has that the original does not, or that more was changed than members removed.
pub fn compare(
    (original, original_bytes): (&Descriptor, &[u8]),
    (trimmed, trimmed_bytes): (&Descriptor, &[u8]),
    originals: &HashMap<Digest, Descriptor>,
) -> Result<Compared, String> {
    let read = |descriptor: &Descriptor, bytes| parse(descriptor, bytes).map_err(|error| error.to_string());
    let (before, after) = (read(original, original_bytes)?, read(trimmed, trimmed_bytes)?);
    let mut left = after.children().iter().peekable();
    let (mut compared, mut fates) = (Compared::default(), Vec::new());
    for child in before.children() {
        let became = |after: &Descriptor| {
            let known = originals.get(&after.digest).is_some_and(|original| original.digest == child.digest);
            known && *after == Descriptor { digest: after.digest, size: after.size, ..child.clone() }
        };
        fates.push(match left.next_if(|after| *after == child || became(after)) {
            None => {
                compared.removed.push(child.clone());
                Fate::Removed
            }
            Some(after) => {
                compared.kept.push(child.clone());
                if after.digest == child.digest {
                    Fate::Kept
                } else {
                    compared.nested.push(TrimmedIndex { original: child.clone(), trimmed: after.clone() });
                    Fate::Became(after.digest, after.size)
                }
            }
        });
    }
    if let Some(child) = left.next() {
        let platform = child.platform.as_ref().map_or_else(|| "a child".to_owned(), ToString::to_string);
        let what = format!("{platform} {} is not listed in the original with this digest and platform", child.digest);
        return Err(what);
    }
    match cut(original_bytes, &fates) {
        Ok(text) if text == trimmed_bytes => Ok(compared),
        _ => Err(format!("more than members was changed between {} and {}", original.digest, trimmed.digest)),
    }
}

/// What was made lists what it has to list, for whoever reads it.
fn check(trimmed: &Descriptor, text: &[u8], original: &Manifest, fates: &[Fate]) -> Result<()> {
    let expected = original.children().iter().zip(fates).filter_map(|(child, fate)| match fate {
        Fate::Kept => Some(child.clone()),
        Fate::Became(digest, size) => Some(Descriptor { digest: *digest, size: *size, ..child.clone() }),
        Fate::Removed => None,
    });
    match parse(trimmed, text)?.children() == expected.collect::<Vec<_>>() {
        true => Ok(()),
        false => Err(Error::failed("what comes out does not list what it should").help(INSTEAD)),
    }
}

/// `index` without the members of `manifests` that are removed. One of the two pieces of text around a removed member goes
/// with it: the one before it, or for the first ones the one behind.
fn cut(index: &[u8], fates: &[Fate]) -> Result<Vec<u8>> {
    let odd = || Error::verification("its text cannot be followed").help(INSTEAD);
    let members = spans::members(index).ok_or_else(odd)?;
    let (_, list) = members.into_iter().find(|(name, _)| name == "manifests").ok_or_else(odd)?;
    let text = index.get(list.clone()).ok_or_else(odd)?;
    let elements = spans::elements(text).ok_or_else(odd)?;
    if elements.len() != fates.len() {
        return Err(odd());
    }
    let (Some(first), Some(last)) = (elements.first(), elements.last()) else { return Ok(index.to_vec()) };
    let mut out = Vec::with_capacity(index.len());
    out.extend_from_slice(index.get(..list.start + first.start).ok_or_else(odd)?);
    let (mut before, mut empty) = (first.start, true);
    for (element, fate) in elements.iter().zip(fates) {
        let between = text.get(before..element.start).ok_or_else(odd)?;
        before = element.end;
        if matches!(fate, Fate::Removed) {
            continue;
        }
        if !empty {
            out.extend_from_slice(between);
        }
        empty = false;
        let member = text.get(element.clone()).ok_or_else(odd)?;
        match fate {
            Fate::Became(digest, size) => out.extend(renamed(member, digest, *size)?),
            _ => out.extend_from_slice(member),
        }
    }
    out.extend_from_slice(index.get(list.start + last.end..).ok_or_else(odd)?);
    Ok(out)
}

/// A descriptor's text with another digest and size.
fn renamed(member: &[u8], digest: &Digest, size: u64) -> Result<Vec<u8>> {
    let odd = || Error::verification("the entry of a nested index cannot be followed").help(INSTEAD);
    let mut changes = Vec::new();
    for (name, place) in spans::members(member).ok_or_else(odd)? {
        match name.as_str() {
            "digest" => changes.push((place, format!("\"{digest}\""))),
            "size" => changes.push((place, size.to_string())),
            // Clients take what is embedded for the content: it would be that of the original.
            "data" => {
                return Err(Error::failed("the entry of a nested index embeds its content (`data`)").help(INSTEAD));
            }
            _ => {}
        }
    }
    let (mut out, mut done) = (Vec::with_capacity(member.len()), 0);
    for (place, text) in changes {
        out.extend_from_slice(member.get(done..place.start).ok_or_else(odd)?);
        out.extend_from_slice(text.as_bytes());
        done = place.end;
    }
    out.extend_from_slice(member.get(done..).ok_or_else(odd)?);
    Ok(out)
}

#[cfg(test)]
#[path = "trim_tests.rs"]
mod tests;
