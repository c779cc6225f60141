//! JSON from outside and JSON of our own: bounded on the way in, canonical on the way out.

mod sorted;
pub mod spans;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep JSON from outside may be nested. Manifests use five levels, `bundle.json` six.
pub const JSON_DEPTH_MAX: usize = 32;

/// The largest integer that every JSON reader keeps exactly: nothing that is counted in bytes is larger.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Parses JSON from outside that was read within a limit of its size. Refuses more than
/// [`JSON_DEPTH_MAX`] levels also in members that `T` does not know, so that nothing carried along can
/// hurt the next reader.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if depth(bytes) > JSON_DEPTH_MAX {
        return Err(format!("it is nested more than {JSON_DEPTH_MAX} levels deep"));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// The deepest nesting of brackets outside of strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The canonical bytes of a document of our own: members sorted by name, two spaces of indentation, a
/// newline at the end. Equal values have equal bytes, and a person can read and `diff` them.
pub fn canonical(document: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    sorted::write(document, true)
}

/// The same without white space, for documents that grow large.
pub fn canonical_compact(document: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    sorted::write(document, false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        assert_eq!(depth(br#"{"a":["[[[\"[[["]}"#), 2);
        let deep = "[".repeat(JSON_DEPTH_MAX + 1) + &"]".repeat(JSON_DEPTH_MAX + 1);
        assert!(parse::<serde_json::Value>(deep.as_bytes()).is_err());
        assert!(parse::<serde_json::Value>(&deep.as_bytes()[1..deep.len() - 1]).is_ok());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                // Names that begin alike, and some that are written with a backslash.
                prop::collection::vec(("[a!\\\\\" \u{1}é]{0,3}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// A map of serde_json's own is sorted by name, but a large document of them takes many times its length.
        #[test]
        fn canonical_bytes_are_those_of_a_sorted_map(value in values()) {
            let lines = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            prop_assert_eq!(lines(canonical(&value).unwrap()), lines(serde_json::to_vec_pretty(&value).unwrap()) + "\n");
            prop_assert_eq!(lines(canonical_compact(&value).unwrap()), lines(serde_json::to_vec(&value).unwrap()) + "\n");
        }
    }

    #[test]
    fn canonical_bytes_do_not_depend_on_the_order_of_a_map() {
        let one: std::collections::HashMap<_, _> = (0..50).map(|n| (n.to_string(), n)).collect();
        let other: std::collections::HashMap<_, _> = (0..50).rev().map(|n| (n.to_string(), n)).collect();
        assert_eq!(canonical(&one).unwrap(), canonical(&other).unwrap());
    }
}
