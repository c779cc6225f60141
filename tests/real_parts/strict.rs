//! A target that takes an index only with all its children, stubs or not.

use super::support::StrictRegistry;
use super::*;

#[tokio::test]
async fn a_registry_that_takes_no_sparse_index_is_told_apart_and_holds_up_nothing_else() {
    let Some(source) = DockerRegistry::start().await else { return };
    let target = StrictRegistry::start().await;
    let machine = Machine::new();
    let image = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(20_000, 1)
        .platform("linux", "arm64", "v8")
        .random_layer(20_000, 2)
        .build()
        .unwrap();
    for repository in ["first", "sparse", "whole"] {
        push_sample(&source.url(), repository, Some("1"), &image).await;
    }
    let source_of = |repository: &str| format!("{}/{repository}", source.host());
    let images = [
        (source_of("first"), "tags: {exact: [\"1\"]}; index: child"),
        (source_of("sparse"), "tags: {exact: [\"1\"]}"),
        (source_of("whole"), "tags: {exact: [\"1\"]}; index: full"),
    ];
    machine.write("spec.yaml", &spec("strict", "linux/amd64", &images));
    pull(&machine, "spec.yaml").await;
    let bundle = export(&machine, "strict", VOLUME_SIZE).await;
    let report = replay(&machine, 4, &bundle, &format!("{}/mirror", target.host())).await;

    let refused = replayed(&report, "/sparse");
    assert!(refused["problem"]["text"].as_str().unwrap().contains("MANIFEST_BLOB_UNKNOWN"), "{refused}");
    let help = refused["problem"]["help"].as_str().unwrap();
    assert!(help.contains("validation.manifests.indexes.platforms: none"), "{help}");
    let below = format!("mirror/{}", source.host().replace(':', "_"));
    let repository = |name: &str| Reader::new(&target.url(), &format!("{below}/{name}"));
    assert_eq!(repository("sparse").tags().await, Vec::<String>::new());
    assert_eq!(repository("sparse").manifest(image.root.digest).await, None);
    assert_eq!(repository("first").tags().await, ["1"]);
    assert_eq!(repository("whole").manifest("1").await.as_ref(), image.bytes(&image.root.digest));

    // The person at the terminal reads the same.
    let to = format!("{}/mirror", target.host());
    let said =
        machine.run_to(4, &["replay", &bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", "state"]).await;
    assert!(said.out.contains("validation.manifests.indexes.platforms: none"), "{}", said.out);
    assert!(said.out.contains("NOT published"), "{}", said.out);
}
