//! The schemas in `schemas/` are those of the types, and the examples keep to them.
//!
//! `SEALIFT_BLESS=1 cargo test --test schemas` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn schemas() -> Vec<(&'static str, Value)> {
    sealift::cli::SCHEMAS.iter().map(|(name, of)| (*name, of.schema())).collect()
}

fn examples() -> Vec<PathBuf> {
    let folders = ["mirror-specs", "packaging/examples"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap());
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn load(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

fn schema_of(document: &Value) -> Value {
    let name = match document["kind"].as_str().unwrap() {
        "MirrorSpec" => "mirror-spec",
        "Site" => "site",
        "Config" => "config",
        other => panic!("{other}"),
    };
    schemas().into_iter().find(|(found, _)| *found == name).unwrap().1
}

#[test]
fn schemas_are_those_of_the_types() {
    let files = std::fs::read_dir(root().join("schemas")).unwrap().count();
    assert!(files <= schemas().len(), "schemas/ holds a file that no type has");
    for (name, schema) in schemas() {
        let file = root().join(format!("schemas/{name}.schema.json"));
        let expected = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("SEALIFT_BLESS").is_some() {
            std::fs::write(&file, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == expected, "{} is not that of the types; SEALIFT_BLESS=1 writes it anew", file.display());
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
    }
}

#[test]
fn every_key_is_described() {
    for (name, schema) in schemas() {
        let definitions = schema["$defs"].as_object().into_iter().flat_map(|map| map.values()).chain([&schema]);
        let properties = definitions.filter_map(|schema| schema["properties"].as_object()).flatten();
        for (key, property) in properties {
            let described = property["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name}: {key} has no description");
        }
    }
}

#[test]
fn examples_keep_to_their_schema_and_load() {
    let files = examples();
    assert_eq!(files.len(), 6, "{files:?}");
    let mut specs = Vec::new();
    for file in &files {
        let document = load(file);
        let validator = jsonschema::validator_for(&schema_of(&document)).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", file.display());
        match document["kind"].as_str() {
            Some("MirrorSpec") => specs.push(file),
            Some("Site") => drop(sealift::site::load(file).unwrap_or_else(|error| panic!("{error}"))),
            _ => drop(sealift::config::Config::load(file).unwrap_or_else(|error| panic!("{error}"))),
        }
    }
    let specs = sealift::spec::load_all(specs).unwrap_or_else(|error| panic!("{error}"));
    for spec in &specs {
        let stem = spec.file.file_stem().unwrap().to_str().unwrap();
        assert_eq!(spec.name.as_str(), stem, "an example's file is named as its stream");
    }
    assert_eq!(specs.len(), 4);
}

#[test]
fn schemas_refuse_what_the_types_refuse() {
    let spec = load(&root().join("mirror-specs/base-images.yaml"));
    let validator = jsonschema::validator_for(&sealift::spec::schema()).unwrap();
    let changes: [fn(&mut Value); 6] = [
        |spec| spec["imags"] = Value::Null,
        |spec| spec["name"] = "Base".into(),
        |spec| spec["kind"] = "Site".into(),
        |spec| spec["images"] = Value::Array(vec![]),
        |spec| spec["defaults"]["index"] = "sprase".into(),
        |spec| spec["target"] = serde_json::json!({"profile": 5}),
    ];
    assert!(validator.is_valid(&spec));
    for (i, change) in changes.iter().enumerate() {
        let mut changed = spec.clone();
        change(&mut changed);
        assert!(!validator.is_valid(&changed), "change {i} was taken");
    }
}
