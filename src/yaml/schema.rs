//! JSON Schemas of the documents as written, for editors, and the schema pieces that they share.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

/// Where the schemas can be fetched.
const BASE: &str = "https://raw.githubusercontent.com/sealift/sealift/main/schemas";

/// The JSON Schema (draft 2020-12) of `T` as it is read.
pub fn schema<T: JsonSchema>(name: &str, title: &str) -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    schema.insert("$id".into(), format!("{BASE}/{name}.schema.json").into());
    schema.to_value()
}

/// A key that is known and planned but not honoured. Its value may be anything, so that the refusal can
/// name the key instead of complaining about a type; an editor marks the key itself.
#[derive(Clone, Debug)]
pub struct NotHonoured;

impl<'de> Deserialize<'de> for NotHonoured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| NotHonoured)
    }
}

impl JsonSchema for NotHonoured {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NotHonoured".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"not": {}})
    }
}
