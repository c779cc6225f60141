//! Where the parts of a JSON text stand, for whoever changes some of its bytes and leaves all others as they are.
//!
//! The text was parsed before: what is no JSON gives `None` here, and nothing is said about why.

use std::ops::Range;

/// The members of an object: what each is called, and where its value stands.
pub fn members(text: &[u8]) -> Option<Vec<(String, Range<usize>)>> {
    let mut found = Vec::new();
    list(text, b'{', b'}', |begin| {
        let end = end_of_string(text, begin)?;
        let name = serde_json::from_slice(text.get(begin..end)?).ok()?;
        let colon = after_space(text, end);
        let value = after_space(text, colon.checked_add(1).filter(|_| text.get(colon) == Some(&b':'))?);
        let value = value..end_of_value(text, value)?;
        let end = value.end;
        found.push((name, value));
        Some(end)
    })?;
    Some(found)
}

/// The elements of an array: where each stands.
pub fn elements(text: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut found = Vec::new();
    list(text, b'[', b']', |begin| {
        let element = begin..end_of_value(text, begin)?;
        let end = element.end;
        found.push(element);
        Some(end)
    })?;
    Some(found)
}

/// Goes through what stands between `open` and `close`; `item` is told where one begins, and says where it ends.
fn list(text: &[u8], open: u8, close: u8, mut item: impl FnMut(usize) -> Option<usize>) -> Option<()> {
    let begin = after_space(text, 0);
    if text.get(begin) != Some(&open) {
        return None;
    }
    let mut at = after_space(text, begin + 1);
    if text.get(at) == Some(&close) {
        return Some(());
    }
    loop {
        at = after_space(text, item(at)?);
        match text.get(at)? {
            b',' => at = after_space(text, at + 1),
            byte if *byte == close => return Some(()),
            _ => return None,
        }
    }
}

fn after_space(text: &[u8], at: usize) -> usize {
    let space = text.iter().skip(at).take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
    at.saturating_add(space)
}

fn end_of_value(text: &[u8], begin: usize) -> Option<usize> {
    match text.get(begin)? {
        b'"' => end_of_string(text, begin),
        b'{' | b'[' => end_of_nested(text, begin),
        _ => {
            let rest = text.get(begin..)?;
            let length = rest.iter().take_while(|byte| !b",]} \n\r\t".contains(byte)).count();
            (length > 0).then(|| begin + length)
        }
    }
}

fn end_of_nested(text: &[u8], begin: usize) -> Option<usize> {
    let (mut at, mut depth) = (begin, 0usize);
    loop {
        match text.get(at)? {
            b'"' => {
                at = end_of_string(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

fn end_of_string(text: &[u8], begin: usize) -> Option<usize> {
    if text.get(begin) != Some(&b'"') {
        return None;
    }
    let mut at = begin + 1;
    loop {
        match text.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_found_whatever_their_strings_hold() {
        let text = " { \"a\\\"b\" : [1, \"]}\" ,{\"x\":[]}] ,\n\"\\u0062\":-1.5e3,\"c\":{ } } ";
        let found = members(text.as_bytes()).unwrap();
        let shown: Vec<(&str, &str)> = found.iter().map(|(name, at)| (name.as_str(), &text[at.clone()])).collect();
        assert_eq!(shown, [("a\"b", "[1, \"]}\" ,{\"x\":[]}]"), ("b", "-1.5e3"), ("c", "{ }")]);
        let list = &text[found[0].1.clone()];
        let shown: Vec<&str> = elements(list.as_bytes()).unwrap().into_iter().map(|at| &list[at]).collect();
        assert_eq!(shown, ["1", "\"]}\"", "{\"x\":[]}"]);
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for text in
            ["", "{", "[", "{\"a\"", "{\"a\":", "{\"a\":1", "{1:2}", "[1", "[1 2]", "[\"", "[\"\\", "[}", "[,]", "{]"]
        {
            assert!(members(text.as_bytes()).is_none() && elements(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_part_is_the_value_that_a_parser_finds(values in prop::collection::vec(any::<(String, Option<i64>)>(), 0..6)) {
            let pretty = serde_json::to_string_pretty(&values).unwrap();
            let parts = elements(pretty.as_bytes()).unwrap();
            let parsed: Vec<(String, Option<i64>)> =
                parts.into_iter().map(|at| serde_json::from_str(&pretty[at]).unwrap()).collect();
            prop_assert_eq!(parsed, values);
        }

        #[test]
        fn no_bytes_bring_it_down(text in prop::collection::vec(prop::sample::select(b"{}[]\",:\\1a \n".to_vec()), 0..40)) {
            let _ = (members(&text), elements(&text));
        }
    }
}
