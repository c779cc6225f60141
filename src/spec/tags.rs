//! Tag rules: from what is written to a [`TagSelection`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use super::TagSelection;
use super::file::TagsFile;
use crate::oci::Tag;
use crate::yaml::{At, Fault};

/// The selection that `tags` means.
pub(super) fn selection(at: At<'_>, file: &TagsFile) -> Option<TagSelection> {
    let exact = each(at.key("exact"), &file.exact);
    let semver = match &file.semver {
        Some(text) => range(at.key("semver"), text).map(Some),
        None => Some(None),
    };
    let glob = each(at.key("glob"), &file.glob);
    let exclude = each(at.key("exclude"), &file.exclude);
    let variants = match &file.variants {
        Some(written) => variants(at.key("variants"), written),
        None => Some(vec![String::new()]),
    };
    let newest = match file.newest {
        Some(newest) => usize::try_from(newest).ok().filter(|&newest| newest > 0).map(Some),
        None => Some(None),
    };
    if newest.is_none() {
        at.key("newest").wrong(Fault::new("`newest: 0` takes nothing").expected("1 or more"));
    }
    refuse_idle_keys(at, file);
    Some(TagSelection {
        exact: exact?,
        semver: semver?,
        variants: variants?,
        glob: glob?,
        newest: newest?,
        exclude: exclude?,
    })
}

/// A key that could change nothing is a slip: its writer expects something of it.
fn refuse_idle_keys(at: At<'_>, file: &TagsFile) {
    let searches = file.semver.is_some() || !file.glob.is_empty();
    if file.exact.is_empty() && !searches {
        at.wrong_key(Fault::new("`tags` takes nothing").expected("at least one of exact, semver, glob"));
        return;
    }
    let idle = |key: &str, needs: &str| {
        at.key(key).wrong_key(Fault::new(format!("`{key}` has nothing to work on")).expected(needs));
    };
    if !searches && file.newest.is_some() {
        idle("newest", "semver or glob beside it");
    }
    if !searches && !file.exclude.is_empty() {
        idle("exclude", "semver or glob beside it");
    }
    if file.semver.is_none() && file.variants.is_some() {
        idle("variants", "semver beside it");
    }
}

/// Every text of a list parsed; each once.
pub(super) fn each<T: FromStr<Err: Display>>(at: At<'_>, texts: &[String]) -> Option<Vec<T>> {
    once(at, texts);
    let parsed: Vec<Option<T>> = texts.iter().enumerate().map(|(i, text)| at.item(i).parsed(text)).collect();
    parsed.into_iter().collect()
}

fn once(at: At<'_>, texts: &[String]) {
    let mut seen = BTreeSet::new();
    for (i, text) in texts.iter().enumerate() {
        if !seen.insert(text) {
            at.item(i).wrong(Fault::new(format!("{text:?} stands in this list a second time")).expected("each once"));
        }
    }
}

fn range(at: At<'_>, text: &str) -> Option<semver::VersionReq> {
    let parsed = text.parse::<semver::VersionReq>();
    if let Err(error) = &parsed {
        at.wrong(
            Fault::new(format!("{text:?} is no range of versions: {error}"))
                .expected("comparisons joined by commas, for example \">=1.26, <2\""),
        );
    }
    parsed.ok()
}

fn variants(at: At<'_>, written: &[String]) -> Option<Vec<String>> {
    if written.is_empty() {
        at.wrong_key(Fault::new("`variants` is empty and takes nothing").expected("\"\" for the plain variant"));
        return None;
    }
    once(at, written);
    let mut legal = true;
    for (i, variant) in written.iter().enumerate() {
        // What a variant may be follows from what a tag may be.
        if !variant.is_empty() && format!("1-{variant}").parse::<Tag>().is_err() {
            at.item(i).wrong(
                Fault::new(format!("{variant:?} is no variant"))
                    .expected("what follows the version and its dash, for example bookworm; or \"\""),
            );
            legal = false;
        }
    }
    legal.then(|| written.to_vec())
}
