//! The entries of `images`, with what they take from `defaults`.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::file::{
    CarryWord, DefaultsFile, ForeignLayersFile, ForeignWord, ImageFile, IndexWord, MissingPlatformWord, SignaturesFile,
    SpecFile,
};
use super::{CarrySignatures, ForeignPolicy, ImageSpec, IndexMode, MissingPlatform, Selection, Signatures, tags};
use crate::oci::{PlatformPattern, Repository, Tag};
use crate::yaml::{At, Fault};

/// After how long the signatures of a known digest are looked up again, unless a spec says otherwise.
const RECHECK_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// All images of the spec.
pub(super) fn images(at: At<'_>, file: &SpecFile) -> Option<Vec<ImageSpec>> {
    let list = at.key("images");
    if file.images.is_empty() {
        list.wrong_key(Fault::new("`images` is empty").expected("at least one entry with source and tags"));
    }
    // Checked here and not with each image: a wrong default would be said once for each of them.
    let defaults = Defaults::of(at.key("defaults"), &file.defaults);
    let made: Vec<Option<ImageSpec>> =
        file.images.iter().enumerate().map(|(i, written)| image(list.item(i), written, &defaults)).collect();
    let made: Vec<ImageSpec> = made.into_iter().collect::<Option<_>>()?;
    each_name_once(list, &made);
    Some(made)
}

/// What images that do not say otherwise get, and where it stands.
struct Defaults<'d> {
    at: At<'d>,
    /// `None`: none are written. `Some(None)`: what is written is wrong, and that has been reported.
    platforms: Option<Option<Vec<PlatformPattern>>>,
    missing_platform: MissingPlatform,
    index: IndexMode,
    foreign: ForeignPolicy,
    signatures: Signatures,
}

impl<'d> Defaults<'d> {
    fn of(at: At<'d>, file: &DefaultsFile) -> Self {
        let unsaid = Signatures { carry: CarrySignatures::All, recheck: RECHECK_DEFAULT };
        Defaults {
            at,
            platforms: file.platforms.as_ref().map(|written| platforms(at.key("platforms"), written)),
            missing_platform: file.missing_platform.map_or(MissingPlatform::Fail, missing_platform),
            index: file.index.map_or(IndexMode::Sparse, index),
            foreign: foreign(at.key("foreignLayers"), file.foreign_layers.as_ref()),
            signatures: signatures(at.key("signatures"), file.signatures.as_ref(), unsaid),
        }
    }
}

fn image(at: At<'_>, file: &ImageFile, defaults: &Defaults<'_>) -> Option<ImageSpec> {
    let source = source(at.key("source"), &file.source);
    let selection = selection(at, file);
    let platforms = match (&file.platforms, &defaults.platforms) {
        (Some(written), _) => platforms(at.key("platforms"), written),
        (None, Some(platforms)) => platforms.clone(),
        (None, None) => {
            at.wrong(
                Fault::new("no platforms are chosen for this image")
                    .expected("`platforms` here or in `defaults`, for example [linux/amd64]")
                    .help("write `platforms: [all]` to keep every platform"),
            );
            None
        }
    };
    let index = file.index.map_or(defaults.index, index);
    if let (IndexMode::Child, Some(platforms)) = (index, &platforms) {
        check_child(at, file, defaults, platforms);
    }
    let foreign = match &file.foreign_layers {
        Some(written) => foreign(at.key("foreignLayers"), Some(written)),
        None => defaults.foreign,
    };
    let signatures = signatures(at.key("signatures"), file.signatures.as_ref(), defaults.signatures);
    Some(ImageSpec {
        source: source?,
        selection: selection?,
        platforms: platforms?,
        missing_platform: file.missing_platform.map_or(defaults.missing_platform, missing_platform),
        index,
        foreign,
        signatures,
        place: at.place(),
    })
}

fn source(at: At<'_>, text: &str) -> Option<Repository> {
    if text.contains('@') {
        let fault = Fault::new(format!("{text:?} has a digest")).expected("the repository alone");
        at.wrong(fault.help("write the digest as `digest: …`, with `tag: …` for its name on the target"));
        return None;
    }
    if let Some((_, tag)) = text.rsplit_once(':').filter(|(name, tag)| name.contains('/') && !tag.contains('/')) {
        let fault = Fault::new(format!("{text:?} has a tag")).expected("the repository alone");
        at.wrong(fault.help(format!("write the tag as `tags: {{exact: [\"{tag}\"]}}`")));
        return None;
    }
    let source: Repository = at.parsed(text)?;
    // No prefix is known here; a name that is too long without one is too long with any.
    if let Err(error) = source.target_path("") {
        at.wrong(Fault::new(error.to_string()).expected("a repository whose name fits on a target"));
        return None;
    }
    Some(source)
}

fn selection(at: At<'_>, file: &ImageFile) -> Option<Selection> {
    match (&file.tags, &file.digest, &file.tag) {
        (Some(written), None, None) => tags::selection(at.key("tags"), written).map(Selection::Tags),
        (None, Some(digest), Some(tag)) => {
            let (digest, tag) = (at.key("digest").parsed(digest), at.key("tag").parsed(tag));
            Some(Selection::Digest { digest: digest?, tag: tag? })
        }
        (None, None, None) => {
            at.wrong(Fault::new("neither tags nor a digest are chosen").expected("`tags`, or `digest` and `tag`"));
            None
        }
        (Some(_), Some(_), _) => {
            at.key("digest")
                .wrong_key(Fault::new("both `tags` and `digest`").expected("one of them; make two entries"));
            None
        }
        (None, Some(_), None) => {
            at.key("digest").wrong_key(
                Fault::new("`digest` without `tag`")
                    .expected("`tag` beside it: the name that the image gets on the target"),
            );
            None
        }
        (_, None, Some(tag)) => {
            let fault = Fault::new("`tag` without `digest`").expected("`digest` beside it, or `tags` instead");
            at.key("tag").wrong_key(fault.help(format!("write `tags: {{exact: [\"{tag}\"]}}`")));
            None
        }
    }
}

fn platforms(at: At<'_>, written: &[String]) -> Option<Vec<PlatformPattern>> {
    if written.is_empty() {
        at.wrong_key(Fault::new("`platforms` is empty").expected("for example [linux/amd64], or [all]"));
        return None;
    }
    let parsed: Vec<PlatformPattern> = tags::each(at, written)?;
    // `each` compares as written; arm64 and arm64/v8 are one platform.
    let mut seen = BTreeSet::new();
    for (i, pattern) in parsed.iter().enumerate() {
        let spelled_before = || written.iter().take(i).any(|text| Some(text) == written.get(i));
        if !seen.insert(pattern) && !spelled_before() {
            at.item(i).wrong(Fault::new("another spelling of a platform that is in this list already"));
        }
    }
    Some(parsed)
}

/// `child` carries one child instead of the index: which one must not be open.
fn check_child(at: At<'_>, file: &ImageFile, defaults: &Defaults<'_>, platforms: &[PlatformPattern]) {
    if matches!(platforms, [one] if one.is_exact()) {
        return;
    }
    // Where the platforms stand, so that the line shown is the one to change.
    let place = match (&file.platforms, &file.index) {
        (Some(_), _) => at.key("platforms"),
        (None, Some(_)) => at.key("index"),
        (None, None) => defaults.at.key("index"),
    };
    let fault = Fault::new("`index: child` carries one child, but more than one platform is selected");
    let fault = fault.expected("exactly one platform without *");
    place.wrong(fault.help(format!("the platforms of {} are: {}", file.source, join(platforms))));
}

fn join(platforms: &[PlatformPattern]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn missing_platform(word: MissingPlatformWord) -> MissingPlatform {
    match word {
        MissingPlatformWord::Fail => MissingPlatform::Fail,
        MissingPlatformWord::Skip => MissingPlatform::Skip,
    }
}

fn index(word: IndexWord) -> IndexMode {
    match word {
        IndexWord::Sparse => IndexMode::Sparse,
        IndexWord::Full => IndexMode::Full,
        IndexWord::Child => IndexMode::Child,
        IndexWord::Trim => IndexMode::Trim,
    }
}

fn foreign(at: At<'_>, file: Option<&ForeignLayersFile>) -> ForeignPolicy {
    let instead = "`policy: skip`: manifests are unchanged, and foreign layers stay where their urls point";
    if let Some(written) = file {
        match written.policy {
            None | Some(ForeignWord::Skip) => {}
            Some(ForeignWord::Include) => at.key("policy").not_honoured("foreignLayers policy include", instead),
            Some(ForeignWord::Require) => at.key("policy").not_honoured("foreignLayers policy require", instead),
        }
        if written.hosts.is_some() {
            at.key("hosts").not_honoured("foreignLayers.hosts", instead);
        }
        if written.acknowledge.is_some() {
            at.key("acknowledge").not_honoured("foreignLayers.acknowledge", instead);
        }
    }
    ForeignPolicy::Skip
}

fn signatures(at: At<'_>, file: Option<&SignaturesFile>, unsaid: Signatures) -> Signatures {
    let Some(written) = file else { return unsaid };
    let instead = "`carry: all`, and check the signatures on the far side with the tool that you trust";
    if written.verify.is_some() {
        at.key("verify").not_honoured("signatures.verify", instead);
    }
    if written.policies.is_some() {
        at.key("policies").not_honoured("signatures.policies", instead);
    }
    Signatures {
        carry: match written.carry {
            Some(CarryWord::All) => CarrySignatures::All,
            Some(CarryWord::None) => CarrySignatures::None,
            None => unsaid.carry,
        },
        // A wrong duration is reported there; the value stands in until the check ends.
        recheck: written.recheck.as_ref().and_then(|text| at.key("recheck").duration(text)).unwrap_or(unsaid.recheck),
    }
}

/// Reports names that two entries give: which of the two would the tag on the target be?
fn each_name_once(list: At<'_>, images: &[ImageSpec]) {
    // A pattern hashes and compares by its text; the caches inside its matcher do not count.
    #[allow(clippy::mutable_key_type)]
    let mut selections: HashMap<(&Repository, &Selection), &str> = HashMap::new();
    let mut names: HashMap<(&Repository, &Tag), usize> = HashMap::new();
    for (i, image) in images.iter().enumerate() {
        if let Some(place) = selections.insert((&image.source, &image.selection), &image.place) {
            let fault = Fault::new(format!("the same images of {} are chosen at {place}", image.source));
            list.item(i).wrong(fault.expected("each once; put all platforms into one entry"));
            continue;
        }
        let named = match &image.selection {
            Selection::Digest { tag, .. } => std::slice::from_ref(tag),
            Selection::Tags(tags) => tags.exact(),
        };
        for tag in named {
            let first = *names.entry((&image.source, tag)).or_insert(i);
            if let Some(other) = images.get(first).filter(|_| first != i) {
                let fault = Fault::new(format!("{}:{tag} is also chosen at {}", image.source, other.place));
                list.item(i).wrong(fault.expected("each tag in one entry"));
            }
        }
    }
}
