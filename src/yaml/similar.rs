//! "Did you mean …": the known word that is nearest to what was written.

/// Words longer than this are not compared; no key is.
const LENGTH_MAX: usize = 40;

/// The one of `known` that `written` is most likely a slip of the pen for.
pub(super) fn closest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let written = plain(written);
    if written.chars().count() > LENGTH_MAX {
        return None;
    }
    let distances = known.iter().map(|word| (distance(&written, &plain(word)), *word));
    // A third of the letters may differ, and one letter always.
    let near = distances.filter(|(distance, word)| *distance <= (word.chars().count() / 3).max(1));
    near.min().map(|(_, word)| word)
}

/// The Levenshtein distance: how many letters to add, drop or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&b) {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn slips_of_the_pen() {
        let known = ["source", "tags", "platforms", "missingPlatform", "index", "tag"];
        let rows = [
            ("sorce", Some("source")),
            ("platform", Some("platforms")),
            ("missing_platform", Some("missingPlatform")),
            ("Index", Some("index")),
            ("tgas", None),
            ("tage", Some("tag")),
            ("something-else", None),
            ("", None),
        ];
        for (written, expected) in rows {
            assert_eq!(closest(written, &known), expected, "{written:?}");
        }
    }
}
