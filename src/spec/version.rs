//! The version in a tag: `v1.27.3-alpine` is version 1.27.3, variant `alpine`.

/// The version part of a tag, and what comes after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagVersion<'t> {
    /// One to three numbers, the missing ones as 0. Numbers compare as numbers: `22.04` is 22.4.0.
    pub version: semver::Version,
    /// What follows the first dash; empty for a plain version.
    pub variant: &'t str,
}

impl<'t> TagVersion<'t> {
    /// Reads `[v]N[.N[.N]][-variant]`; a tag of another form has no version.
    pub fn of(tag: &'t str) -> Option<Self> {
        let bare = tag.strip_prefix('v').unwrap_or(tag);
        let (numbers, variant) = match bare.split_once('-') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (bare, ""),
        };
        let mut parts = numbers.split('.').map(number);
        let mut next = || parts.next().unwrap_or(Some(0));
        let version = semver::Version::new(next()?, next()?, next()?);
        parts.next().is_none().then_some(TagVersion { version, variant })
    }
}

fn number(text: &str) -> Option<u64> {
    // `parse` alone would take a sign.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_tags() {
        let rows = [
            ("1.27.3", Some("1.27.3+")),
            ("1.27.3-alpine", Some("1.27.3+alpine")),
            ("v2", Some("2.0.0+")),
            ("1.27-bookworm-perl", Some("1.27.0+bookworm-perl")),
            ("22.04", Some("22.4.0+")),
            ("1.2.3-rc.1", Some("1.2.3+rc.1")),
            ("20261101", Some("20261101.0.0+")),
            ("1.2.3.4", None),
            ("latest", None),
            ("1.2.", None),
            (".1", None),
            ("1-", None),
            ("v", None),
            ("vv1", None),
            ("+1", None),
            ("1.27.3_alpine", None),
            ("99999999999999999999", None),
            ("", None),
        ];
        for (tag, expected) in rows {
            let found = TagVersion::of(tag).map(|found| format!("{}+{}", found.version, found.variant));
            assert_eq!(found.as_deref(), expected, "{tag:?}");
        }
    }
}
