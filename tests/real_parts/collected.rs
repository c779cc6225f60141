//! The garbage collector of distribution 2.x, which removes manifests without a tag.

use std::process::Stdio;

use super::*;

/// Replays one platform, lets the collector remove what has no tag, and says whether each of the kept manifests is there.
async fn after_collecting(tag_children: bool) -> Option<Vec<bool>> {
    let sides = Sides::start().await?;
    let image = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(5_000, 1)
        .attestation()
        .platform("linux", "arm64", "v8")
        .random_layer(5_000, 2)
        .referrer("application/spdx+json", b"{}")
        .build()
        .unwrap();
    push_sample(&sides.source.url(), "app", Some("1"), &image).await;
    let images = [(sides.source_of("app"), "tags: {exact: [\"1\"]}")];
    sides.machine.write("spec.yaml", &spec("collected", "linux/amd64", &images));
    pull(&sides.machine, "spec.yaml").await;
    let bundle = export(&sides.machine, "collected", VOLUME_SIZE).await;
    let site = format!(
        "apiVersion: sealift/v1\nkind: Site\nname: far\nregistry: {}\nprefix: mirror\nkeys: [keys/exporter.pub]\n\
         tagChildren: {tag_children}\n",
        sides.target.host()
    );
    sides.machine.write("site.yaml", &site);
    let arguments = ["replay", &bundle, "--site", "site.yaml", "--state", "state"];
    let report = sides.machine.json(&arguments).await;
    let warned = report.to_string().contains("garbage-collect --delete-untagged");
    assert_eq!(warned, !tag_children, "{report}");

    let mut collect = tokio::process::Command::new("docker-registry");
    collect.args(["garbage-collect", "--delete-untagged"]).arg(sides.target.config()).stdout(Stdio::null());
    assert!(collect.stderr(Stdio::null()).status().await.unwrap().success());

    let target = sides.on_target("app");
    assert!(target.manifest(image.root.digest).await.is_some(), "the index has a tag");
    let mut kept: Vec<Digest> = children_for(&image, "amd64").iter().map(|child| child.digest).collect();
    kept.extend(image.referrers(&image.root.digest).iter().map(|referrer| referrer.digest));
    assert_eq!(kept.len(), 3);
    let mut found = Vec::new();
    for digest in kept {
        found.push(target.manifest(digest).await.is_some());
    }
    Some(found)
}

#[tokio::test]
async fn tags_keep_children_and_referrers_from_the_garbage_collector() {
    let Some(found) = after_collecting(true).await else { return };
    assert_eq!(found, [true; 3]);
}

#[tokio::test]
async fn without_tags_the_garbage_collector_removes_what_the_index_needs() {
    let Some(found) = after_collecting(false).await else { return };
    assert_eq!(found, [false; 3], "the warning of the report is out of date");
}
