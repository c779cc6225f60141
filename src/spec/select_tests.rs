//! Tag selections, worked out.

#![allow(clippy::expect_used)]

use super::*;
use crate::oci::Digest;

const NGINX: &str = "1.25.5 1.26 1.26.2 1.26.3 1.27 1.27.0 1.27.3 1.27.4 1.27.3-alpine 1.27.4-alpine \
    1.27.3-bookworm 1.27.4-bookworm 1.27.4-bookworm-perl 1.28.0-rc.1 2.0.0 latest mainline stable stable-bookworm \
    stable-perl sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.sig \
    sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn tags(text: &str) -> Vec<Tag> {
    text.split_whitespace().map(|tag| tag.parse().expect(tag)).collect()
}

fn globs(text: &str) -> Vec<TagGlob> {
    text.split_whitespace().map(|glob| glob.parse().expect(glob)).collect()
}

#[derive(Default)]
struct Row {
    exact: &'static str,
    semver: &'static str,
    variants: &'static [&'static str],
    glob: &'static str,
    newest: Option<usize>,
    exclude: &'static str,
}

impl Row {
    fn selection(&self) -> TagSelection {
        TagSelection {
            exact: tags(self.exact),
            semver: (!self.semver.is_empty()).then(|| self.semver.parse().expect(self.semver)),
            variants: if self.variants.is_empty() {
                vec![String::new()]
            } else {
                self.variants.iter().map(|&v| v.into()).collect()
            },
            glob: globs(self.glob),
            newest: self.newest,
            exclude: globs(self.exclude),
        }
    }
}

#[test]
fn selections() {
    let range = ">=1.26, <2";
    let rows = [
        (Row { exact: "1.27 nowhere", ..Row::default() }, "1.27 nowhere"),
        (Row { semver: range, ..Row::default() }, "1.26 1.26.2 1.26.3 1.27 1.27.0 1.27.3 1.27.4"),
        (Row { semver: range, newest: Some(2), ..Row::default() }, "1.27.3 1.27.4"),
        (
            Row { semver: range, newest: Some(1), variants: &["", "bookworm"], ..Row::default() },
            "1.27.4 1.27.4-bookworm",
        ),
        (Row { semver: range, variants: &["rc.1"], ..Row::default() }, "1.28.0-rc.1"),
        (Row { semver: range, newest: Some(1), exclude: "*.4", ..Row::default() }, "1.27.3"),
        (Row { glob: "stable*", ..Row::default() }, "stable stable-bookworm stable-perl"),
        (Row { glob: "stable*", exclude: "*-perl", newest: Some(1), ..Row::default() }, "stable stable-bookworm"),
        (
            Row { glob: "1.27.*", newest: Some(1), ..Row::default() },
            "1.27.4 1.27.4-alpine 1.27.4-bookworm 1.27.4-bookworm-perl",
        ),
        (Row { glob: "{latest,mainline}", ..Row::default() }, "latest mainline"),
        (Row { glob: "*", exclude: "*", ..Row::default() }, ""),
        (Row { exact: "stable-perl", glob: "stable*", exclude: "*", ..Row::default() }, "stable-perl"),
        (Row { semver: "=1.27.0", ..Row::default() }, "1.27 1.27.0"),
        (Row { semver: "*", newest: Some(1), ..Row::default() }, "2.0.0"),
    ];
    let mut reversed = tags(NGINX);
    reversed.reverse();
    for (row, expected) in rows {
        let selection = row.selection();
        let mut expected = tags(expected);
        expected.sort();
        assert_eq!(selection.select(&tags(NGINX)), expected, "{selection:?}");
        assert_eq!(selection.select(&reversed), expected, "the order of the list must not matter: {selection:?}");
    }
}

#[test]
fn equal_versions_stand_or_fall_together() {
    let selection = Row { semver: ">=1", newest: Some(1), ..Row::default() }.selection();
    assert_eq!(selection.select(&tags("v1.2.0 1.2 1.2.0 1.1.9")), tags("1.2 1.2.0 v1.2.0"));
}

#[test]
fn a_list_is_needed_only_for_what_is_found_in_it() {
    assert!(!Row { exact: "1", ..Row::default() }.selection().needs_list());
    assert!(Row { semver: "1", ..Row::default() }.selection().needs_list());
    assert!(Row { glob: "x", ..Row::default() }.selection().needs_list());
}

#[test]
fn a_pattern_never_takes_a_signature_for_an_image() {
    let all = Row { glob: "*", ..Row::default() }.selection();
    assert!(all.select(&tags(NGINX)).iter().all(|tag| !tag.as_str().starts_with("sha256-")));
    assert_eq!(all.select(&tags("sha256-abc sha256-tools")).len(), 2, "only whole digests are meant");
    let keeping = Tag::keeping(&Digest::of(b"child"));
    assert_eq!(
        all.select(&[keeping, "sealift-keeps-1".parse().expect("a tag")]).len(),
        1,
        "a child that another sealift keeps"
    );
}

#[test]
fn patterns_that_are_none() {
    for text in ["", "[", "a/b", "{a", "a:b"] {
        assert!(text.parse::<TagGlob>().is_err(), "{text:?} was taken");
    }
    assert!("x".repeat(GLOB_LENGTH_MAX + 1).parse::<TagGlob>().is_err());
}
