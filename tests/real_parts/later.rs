//! A platform that is added later, and the other ways of carrying an index.

use super::*;

async fn copies(clients: &Clients, reference: &str, architecture: &str) -> bool {
    let to = format!("dir:{}", clients.folder().join(architecture).display());
    let from = format!("docker://{reference}");
    let choice = ["--override-os", "linux", "--override-arch", architecture];
    clients.skopeo(&[&choice[..], &["copy", "--src-tls-verify=false", &from, &to]].concat()).await.status.success()
}

#[tokio::test]
async fn adding_a_platform_later_moves_exactly_what_is_missing() {
    let Some(image) = debian_busybox_image() else { return };
    let Some(sides) = Sides::start().await else { return };
    if !have(&["skopeo"]) {
        return;
    }
    push_sample(&sides.source.url(), "debian/busybox", Some("1"), &image).await;
    let images = [(sides.source_of("debian/busybox"), "tags: {exact: [\"1\"]}")];
    let machine = &sides.machine;
    let reference =
        format!("{}/{}@{}", sides.target.host(), sides.name_on_target("mirror", "debian/busybox"), image.root.digest);
    let clients = Clients::new();

    machine.write("spec.yaml", &spec("later", "linux/amd64", &images));
    pull(machine, "spec.yaml").await;
    let first = export(machine, "later", VOLUME_SIZE).await;
    assert!(first.ends_with("/later-1-1"), "{first}");
    sides.replay(&first, "mirror").await;
    assert!(copies(&clients, &reference, "amd64").await);
    assert!(!copies(&clients, &reference, "s390x").await);

    let (at_source, at_target) = (sides.source.accesses().len(), sides.target.accesses().len());
    machine.write("spec.yaml", &spec("later", "linux/amd64, linux/s390x", &images));
    let pulled = pull(machine, "spec.yaml").await;
    let mut expected: Vec<Digest> =
        children_for(&image, "s390x").iter().flat_map(|child| blobs_of(&image, child)).collect();
    expected.sort();
    let mut asked = blobs_asked(&sides.source.accesses()[at_source..], "GET");
    asked.sort();
    assert_eq!(asked, expected);
    assert_eq!(pulled["reports"][0]["fetchedBlobs"], expected.len());

    let second = export(machine, "later", VOLUME_SIZE).await;
    assert!(second.ends_with("/later-1-2"), "{second}");
    sides.replay(&second, "mirror").await;
    assert!(copies(&clients, &reference, "s390x").await);
    assert!(copies(&clients, &reference, "amd64").await);
    assert!(!copies(&clients, &reference, "arm64").await);
    let begun = sides.target.accesses()[at_target..].iter().filter(|access| access.method == "POST").count();
    assert_eq!(begun, expected.len(), "only the new blobs were uploaded");
    // The older bundle, replayed once more, takes nothing back.
    sides.replay(&first, "mirror").await;
    assert!(copies(&clients, &reference, "s390x").await);
    assert_eq!(sides.on_target("debian/busybox").manifest("1").await.as_ref(), image.bytes(&image.root.digest));
}

#[tokio::test]
async fn an_index_is_carried_whole_or_one_child_instead_of_it() {
    let Some(image) = debian_busybox_image() else { return };
    let Some(sides) = Sides::start().await else { return };
    if !have(&["skopeo"]) {
        return;
    }
    push_sample(&sides.source.url(), "full", Some("1"), &image).await;
    push_sample(&sides.source.url(), "child", Some("1"), &image).await;
    let images = [
        (sides.source_of("full"), "tags: {exact: [\"1\"]}; platforms: [all]; index: full"),
        (sides.source_of("child"), "tags: {exact: [\"1\"]}; index: child"),
    ];
    sides.machine.write("spec.yaml", &spec("modes", "linux/s390x", &images));
    pull(&sides.machine, "spec.yaml").await;
    let bundle = export(&sides.machine, "modes", "4MiB").await;
    let report = sides.replay(&bundle, "mirror").await;
    for repository in ["full", "child"] {
        assert!(replayed(&report, repository)["rung"].is_null(), "no ladder is needed");
    }
    assert_eq!(sides.on_target("full").manifest("1").await.as_ref(), image.bytes(&image.root.digest));
    let child = image.child("linux", "s390x", "").unwrap();
    assert_eq!(sides.on_target("child").manifest("1").await.as_ref(), image.bytes(&child.digest));
    assert_eq!(sides.on_target("child").manifest(image.root.digest).await, None);
    let clients = Clients::new();
    let reference = |repository| format!("{}/{}:1", sides.target.host(), sides.name_on_target("mirror", repository));
    for architecture in ["amd64", "arm64", "s390x"] {
        assert!(copies(&clients, &reference("full"), architecture).await, "{architecture}");
    }
    assert!(copies(&clients, &reference("child"), "s390x").await);
}
