//! What serde complains about, in the words of the person who wrote the document.

use std::ops::Range;

use serde_path_to_error::{Path, Segment};

use super::tree::{Located, Node};
use super::{Fault, similar};

/// How the messages of serde and its derive begin; what comes before is a path, which the place says.
const BEGINNINGS: [&str; 6] =
    ["unknown field ", "missing field ", "unknown variant ", "invalid type: ", "invalid value: ", "invalid length "];

/// The error of a deserialisation with its place: by the tree, or by the line that the YAML library
/// names where it failed before serde saw a value.
pub(super) fn located(root: &Node, text: &str, error: &serde_path_to_error::Error<serde_yaml::Error>) -> Located {
    let message = without_place(error.inner());
    let begins = BEGINNINGS.iter().filter_map(|words| message.find(words)).min();
    let Some(message) = begins.and_then(|start| message.get(start..)) else {
        return Located::new(place_named(text, error.inner()), Fault::new(format!("not valid YAML: {message}")));
    };
    let (node, written) = find(root, error.path());
    if message.starts_with("unknown field ") {
        let known = backticked(message.split_once(", expected").map_or("", |(_, known)| known));
        let span = node.get(&written).and_then(|node| node.key.clone()).unwrap_or_else(|| node.span());
        return Located::new(span, unknown("key", &written, &known));
    }
    let found = node.get(&written).unwrap_or(node).span();
    if message.starts_with("unknown variant ") {
        let (word, known) = message.split_once(", expected").unwrap_or((message, ""));
        let word = word.trim_start_matches("unknown variant ").trim_matches('`');
        return Located::new(found, unknown("value", word, &backticked(known)));
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return Located::new(found, Fault::new(format!("the key {key} is missing")).expected(format!("{key} here")));
    }
    Located::new(found, wrong_type(message))
}

/// The error's text without the " at line … column …" at its end.
fn without_place(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(at) => text.replace(&format!(" at line {} column {}", at.line(), at.column()), ""),
        None => text,
    }
}

fn place_named(text: &str, error: &serde_yaml::Error) -> Range<usize> {
    let start = error.location().map_or(0, |at| {
        let line_starts = text.split_inclusive('\n').take(at.line().saturating_sub(1)).map(str::len);
        line_starts.sum::<usize>() + at.column().saturating_sub(1)
    });
    start..start
}

/// The node that `path` leads to. Where its last key leads nowhere (an unknown key leads to a value
/// that was not looked at), the node above; and in any case that last key.
fn find<'n>(root: &'n Node, path: &Path) -> (&'n Node, String) {
    let mut node = root;
    let mut above = root;
    let mut last = String::new();
    for segment in path.iter() {
        let below = match segment {
            Segment::Map { key } => {
                last.clone_from(key);
                node.get(key)
            }
            Segment::Seq { index } => {
                last.clear();
                node.item(*index)
            }
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        above = node;
        node = below.unwrap_or(node);
    }
    if last.is_empty() { (node, last) } else { (above, last) }
}

fn backticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn unknown(what: &str, written: &str, known: &[&str]) -> Fault {
    let fault = Fault::new(format!("unknown {what} `{written}`"));
    let fault = match known {
        [] => fault.expected("nothing here"),
        [one] => fault.expected(format!("`{one}`")),
        several => fault.expected(format!("one of {}", several.join(", "))),
    };
    match similar::closest(written, known) {
        Some(word) => fault.help(format!("did you mean `{word}`?")),
        None => fault,
    }
}

fn wrong_type(message: &str) -> Fault {
    let (found, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let found = match found {
        "unit value" | "Option value" => "nothing",
        "sequence" => "a list",
        "map" => "a mapping",
        other => other,
    };
    let fault = Fault::new(format!("wrong kind of value: {found}"));
    match expected {
        "" => fault,
        "a sequence" => fault.expected("a list"),
        "a map" => fault.expected("a mapping"),
        "a string" => fault.expected("text"),
        "a boolean" => fault.expected("true or false"),
        "u32" | "usize" | "u64" => fault.expected("a whole number"),
        other => fault.expected(other),
    }
}
