//! Changing a manifest's text in few places: all other bytes stay as they are. So marking a layer and taking the mark off
//! again gives the original digest.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::oci::Digest;
use crate::oci::json::spans::{elements, members};

/// What becomes of a layer's descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerEdit {
    /// Its media type.
    pub media_type: String,
    /// Its `urls`; without any, the member is removed.
    pub urls: Vec<String>,
}

/// A manifest whose layers, by their place, are changed. `None` where the text is not what a parser has seen in it.
pub(super) fn edit_layers(text: &[u8], edits: &BTreeMap<usize, LayerEdit>) -> Option<Vec<u8>> {
    edit_list(text, "layers", edits, |layer, edit| {
        let retyped = set(layer, "mediaType", &quoted(&edit.media_type)?)?;
        match edit.urls.is_empty() {
            true => remove(&retyped, "urls"),
            false => set(&retyped, "urls", &serde_json::to_string(&edit.urls).ok()?),
        }
    })
}

/// An index whose children, by their place, have another digest and another size. `None` also where one of them is embedded
/// (`data`): clients take that for the child, and it would be the old one.
pub(super) fn edit_children(text: &[u8], edits: &BTreeMap<usize, (Digest, u64)>) -> Option<Vec<u8>> {
    edit_list(text, "manifests", edits, |child, (digest, size)| {
        if value_of(child, "data").is_some() {
            return None;
        }
        set(&set(child, "digest", &quoted(&digest.to_string())?)?, "size", &size.to_string())
    })
}

/// Changes elements of a member that is a list, by their place.
fn edit_list<E>(
    text: &[u8],
    name: &str,
    edits: &BTreeMap<usize, E>,
    edit: impl Fn(&[u8], &E) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let list = value_of(text, name)?;
    let places = elements(text.get(list.clone())?)?;
    let mut edited = text.to_vec();
    // From behind, so that what comes before stays in its place.
    for (at, change) in edits.iter().rev() {
        let place = places.get(*at)?;
        let place = list.start + place.start..list.start + place.end;
        let element = edit(text.get(place.clone())?, change)?;
        edited.splice(place, element);
    }
    Some(edited)
}

fn quoted(text: &str) -> Option<String> {
    serde_json::to_string(text).ok()
}

fn value_of(object: &[u8], name: &str) -> Option<Range<usize>> {
    members(object)?.into_iter().find(|(member, _)| member == name).map(|(_, value)| value)
}

/// Gives a member this value; one that is not there is added behind the last, spaced as that is.
fn set(object: &[u8], name: &str, value: &str) -> Option<Vec<u8>> {
    let mut edited = object.to_vec();
    if let Some(place) = value_of(object, name) {
        edited.splice(place, value.bytes());
        return Some(edited);
    }
    let found = members(object)?;
    let (_, last) = found.last()?;
    let key = key_before(object, last.start)?;
    let colon = object.get(key.end..last.start)?;
    // What stands between two members; of a single one, what stands before it.
    let space = match found.iter().rev().nth(1) {
        Some((_, before)) => object.get(before.end..key.start)?.to_vec(),
        None => [b",", object.get(after_brace(object)?..key.start)?].concat(),
    };
    let member = [&space, quoted(name)?.as_bytes(), colon, value.as_bytes()].concat();
    edited.splice(last.end..last.end, member);
    Some(edited)
}

/// Takes a member out, with the comma and the space before it; of the first one, those behind it.
fn remove(object: &[u8], name: &str) -> Option<Vec<u8>> {
    let found = members(object)?;
    let Some(at) = found.iter().position(|(member, _)| member == name) else { return Some(object.to_vec()) };
    let (_, value) = found.get(at)?;
    let place = match (at.checked_sub(1).and_then(|before| found.get(before)), found.get(at + 1)) {
        (Some((_, before)), _) => before.end..value.end,
        (None, Some((_, next))) => key_before(object, value.start)?.start..key_before(object, next.start)?.start,
        (None, None) => key_before(object, value.start)?.start..value.end,
    };
    let mut edited = object.to_vec();
    edited.drain(place);
    Some(edited)
}

/// The name whose value begins at `value`, with its quotes: before it there are a colon and space only.
fn key_before(object: &[u8], value: usize) -> Option<Range<usize>> {
    let close = object.get(..value)?.iter().rposition(|byte| *byte == b'"')?;
    let mut open = close;
    loop {
        open = object.get(..open)?.iter().rposition(|byte| *byte == b'"')?;
        let escapes = object.get(..open)?.iter().rev().take_while(|byte| **byte == b'\\').count();
        if escapes % 2 == 0 {
            return Some(open..close + 1);
        }
    }
}

fn after_brace(object: &[u8]) -> Option<usize> {
    object.iter().position(|byte| *byte == b'{').map(|at| at + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn foreign(urls: &[&str]) -> LayerEdit {
        LayerEdit { media_type: "a/foreign".into(), urls: urls.iter().map(|url| (*url).to_owned()).collect() }
    }

    fn ordinary() -> LayerEdit {
        LayerEdit { media_type: "a/ordinary".into(), urls: Vec::new() }
    }

    /// How different writers write a manifest of two layers.
    fn texts() -> Vec<String> {
        let layers = json!([
            {"mediaType": "a/ordinary", "digest": format!("sha256:{HEX}"), "size": 1},
            {"mediaType": "a/ordinary", "size": 2, "annotations": {"urls": "none \"}, here", "b": "\\"}, "digest": "sha256:x"},
        ]);
        let document = json!({"schemaVersion": 2, "layers": layers, "annotations": {"layers": "[", "x": 1.50}});
        let odd = "{ \"schemaVersion\" :2,\n\t\"layers\" : [ {\"digest\":\"d\" , \"si\\u007ae\":1,\"mediaType\"\n:\"a/ordinary\" },{ \
                   \"mediaType\": \"a/ordinary\", \"x\\\"\": null }\n]  }\n";
        let own = serde_json::to_string(&document).unwrap();
        vec![own, serde_json::to_string_pretty(&document).unwrap(), odd.to_owned()]
    }

    #[test]
    fn what_is_marked_and_unmarked_is_what_it_was() {
        for text in texts() {
            for places in [&[0][..], &[1], &[0, 1]] {
                let mark = |edit: LayerEdit| places.iter().map(|at| (*at, edit.clone())).collect();
                let urls = ["https://a.example/x", "https://b.example/\"y\""];
                let marked = edit_layers(text.as_bytes(), &mark(foreign(&urls))).unwrap();
                let value: Value = serde_json::from_slice(&marked).unwrap_or_else(|_| panic!("{text}"));
                for at in places {
                    assert_eq!(value["layers"][at]["mediaType"], "a/foreign", "{text}");
                    assert_eq!(value["layers"][at]["urls"], json!(urls), "{text}");
                }
                let back = edit_layers(&marked, &mark(ordinary())).unwrap();
                assert_eq!(String::from_utf8(back).unwrap(), text);
            }
        }
    }

    /// Nothing but the two members of one layer is another.
    #[test]
    fn nothing_else_is_changed() {
        for text in texts() {
            let mut expected: Value = serde_json::from_str(&text).unwrap();
            expected["layers"][1]["mediaType"] = json!("a/foreign");
            expected["layers"][1]["urls"] = json!(["https://a.example/"]);
            let edited =
                edit_layers(text.as_bytes(), &BTreeMap::from([(1, foreign(&["https://a.example/"]))])).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), expected);
            let (begin, end) = (text.find("\"layers\"").unwrap(), text.find("a/ordinary").unwrap());
            assert_eq!(&edited[begin..end], &text.as_bytes()[begin..end]);
        }
    }

    #[test]
    fn urls_are_taken_out_wherever_they_stand() {
        for (text, expected) in [
            (r#"{"urls":["x"],"size":1}"#, r#"{"size":1}"#),
            (r#"{"size":1,"urls":["x"]}"#, r#"{"size":1}"#),
            (r#"{ "size" : 1 , "urls" : [ ] , "a" : 2 }"#, r#"{ "size" : 1 , "a" : 2 }"#),
            (r#"{"size":1}"#, r#"{"size":1}"#),
            (r#"{"urls":1}"#, r#"{}"#),
        ] {
            assert_eq!(String::from_utf8(remove(text.as_bytes(), "urls").unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn children_get_digest_and_size() {
        let text = format!(
            "{{\n  \"manifests\": [\n    {{\"size\": 1, \"digest\": \"sha256:{HEX}\", \"platform\": {{\"os\": \"linux\"}}}},\n    {{}}\n  ]\n}}"
        );
        let digest = Digest::of(b"other");
        let edited = edit_children(text.as_bytes(), &BTreeMap::from([(0, (digest, 77))])).unwrap();
        let expected =
            text.replace(&format!("sha256:{HEX}"), &digest.to_string()).replace("\"size\": 1", "\"size\": 77");
        assert_eq!(String::from_utf8(edited).unwrap(), expected);
    }

    /// Clients take embedded content for the child: it would be the old one under a new digest.
    #[test]
    fn a_child_that_is_embedded_is_not_changed() {
        let text = format!(r#"{{"manifests":[{{"digest":"sha256:{HEX}","d\u0061ta":"e30=","size":2}}]}}"#);
        let edits = BTreeMap::from([(0, (Digest::of(b"other"), 77))]);
        assert_eq!(edit_children(text.as_bytes(), &edits), None);
    }

    #[test]
    fn a_place_that_is_not_there_is_nothing() {
        for (text, at) in [("{\"layers\":[]}", 0), ("{\"layers\":[{}]}", 1), ("{}", 0), ("[]", 0), ("", 0)] {
            assert_eq!(edit_layers(text.as_bytes(), &BTreeMap::from([(at, ordinary())])), None, "{text}");
        }
    }
}
