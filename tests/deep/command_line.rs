//! What the command says, and how it ends.

use std::fs;
use std::path::PathBuf;
use std::slice;

use serde_json::Value;

use crate::made::{GZIP, Layer, ZSTD, archive, gzip, image, zstd};
use crate::{MIB, World, said};

/// What is verified and how, the exit status, and what is said.
type Row<'r> = (&'r str, &'r [PathBuf], &'r [&'r str], i32, &'r [&'r str]);

async fn world() -> World {
    let content = archive(1, 100_000);
    let good = Layer::new(GZIP, gzip(&content), &content);
    let bad = Layer::new(ZSTD, zstd(&content), b"something else");
    World::of(&[("team/good".into(), image(slice::from_ref(&good))), ("team/bad".into(), image(&[good, bad]))]).await
}

fn json(output: &[u8]) -> Value {
    let report: Value = serde_json::from_slice(output).unwrap();
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/verify-report.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(schema).unwrap()).unwrap();
    let errors: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&report)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_which_layer_of_which_image_is_wrong() {
    let world = world().await;
    let bundle = [world.export(MIB as u64).await];
    let store = [world.store.root().to_owned()];
    let key = world.path("exporter.pub");
    let key = ["--key", key.to_str().unwrap()];
    let deep = [&key[..], &["--deep"]].concat();
    let rows: [Row<'_>; 4] = [
        ("bundle", &bundle, &key, 0, &["good: 2 images can be replayed"]),
        (
            "bundle --deep",
            &bundle,
            &deep,
            5,
            &[
                "  1 layer unpacked to 97.7 KiB, as their images say\n",
                "/team/bad:1\n  layer 2, sha256:",
                "  what comes out has another digest than its image says\n  expected sha256:",
                "bad: 2 of 2 images can be replayed, but layers are not what their images say",
            ],
        ),
        ("store", &store, &[], 0, &["good: 2 images are whole", "No key signed this"]),
        ("store --deep", &store, &["--deep"], 5, &["wrong layer: ", "/team/bad:1\n", "ask whoever built the image"]),
    ];
    for (name, folders, more, status, says) in rows {
        let output = world.command(folders, more).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(status), "{name}: {said}");
        says.iter().for_each(|text| assert!(said.contains(text), "{name}: no {text:?} in {said}"));
    }

    let reports = world.command(&bundle, &[&deep[..], &["--output", "json"]].concat()).output().unwrap();
    let failures = &json(&reports.stdout)["reports"][0]["deep"]["failures"];
    assert_eq!(
        (failures[0]["image"].as_str(), failures[0]["position"].as_u64()),
        (Some(world.name("team/bad").as_str()), Some(2))
    );
    let reports = world.command(&store, &["--deep", "--output", "json"]).output().unwrap();
    assert_eq!(json(&reports.stdout)["stores"][0]["deep"]["failures"], *failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_signature_a_bundle_is_no_store() {
    let world = world().await;
    let bundle = [world.export(MIB as u64).await];
    assert_eq!(world.command(&bundle, &["--deep"]).output().unwrap().status.code(), Some(2), "a bundle needs a key");

    // Somebody takes the table of contents away and lays a store beside what is left.
    fs::remove_file(bundle[0].join("bundle.json")).unwrap();
    fs::copy(world.store.root().join("oci-layout"), bundle[0].join("oci-layout")).unwrap();
    let key = world.path("exporter.pub");
    let output = world.command(&bundle, &["--key", key.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(said(&output).contains("has no bundle.json"), "{}", said(&output));

    let output = world.command(&[world.path("nowhere")], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}
