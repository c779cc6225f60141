//! Replay into registries that no distribution packages.

use super::support::Settings;
use super::*;

/// Distribution 3 checks the children of an index unless it is told not to; that is its only help.
pub const SPARSE_ALLOWED: &str = "validation:\n  manifests:\n    indexes:\n      platforms: none";

pub async fn distribution(sections: &str) -> Option<DockerRegistry> {
    let program = Some(counterpart("registry")?);
    DockerRegistry::start_with(Settings { program, sections: sections.to_owned(), ..Settings::default() }).await
}

async fn replay(carried: &Carried, status: i32, target: &DockerRegistry) -> Value {
    let to = format!("{}/mirror", target.host());
    let arguments = ["replay", &carried.bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", "state"];
    carried.machine.json_to(status, &arguments).await["reports"][0]["images"][0].clone()
}

#[tokio::test]
async fn distribution_3_takes_a_sparse_index_as_it_is_where_that_is_allowed() {
    let Some(target) = distribution(SPARSE_ALLOWED).await else { return };
    let Some(carried) = Carried::start().await else { return };
    let report = replay(&carried, 0, &target).await;
    assert_eq!((&report["rung"], &report["problem"]), (&"put".into(), &Value::Null), "{report}");
    let reader = Reader::new(&target.url(), &format!("mirror/{}", carried.repository()));
    assert_eq!(reader.manifest("1").await.as_ref(), carried.image.bytes(&carried.index()));
    assert_eq!(reader.manifest(carried.child("arm64")).await, None);

    let Some(tools) = Counterparts::with(&["crane", "regctl"]) else { return };
    tools.regctl_without_tls(target.host()).await;
    let name = carried.by_digest(&format!("{}/mirror/{}", target.host(), carried.repository()));
    tools.ok("crane", &["pull", "--platform", KEPT, &name, "kept.tar"]).await;
    tools.refused("crane", &["pull", "--platform", LEFT_OUT, &name, "left-out.tar"], "MANIFEST_UNKNOWN").await;
    tools.ok("regctl", &["image", "config", "--platform", KEPT, &name]).await;
    tools.refused("regctl", &["image", "config", "--platform", LEFT_OUT, &name], "not found").await;
}

#[tokio::test]
async fn distribution_3_refuses_it_otherwise_and_the_help_names_the_setting() {
    let Some(target) = distribution("").await else { return };
    let Some(carried) = Carried::start().await else { return };
    let report = replay(&carried, 4, &target).await;
    let text = report["problem"]["text"].as_str().unwrap();
    assert!(text.contains("400 MANIFEST_BLOB_UNKNOWN") && text.contains(&carried.child("arm64").to_string()), "{text}");
    let help = report["problem"]["help"].as_str().unwrap();
    assert!(
        help.contains(
            "this is distribution: as 3.x it has a setting: set validation.manifests.indexes.platforms: none"
        ),
        "{help}"
    );
    let reader = Reader::new(&target.url(), &format!("mirror/{}", carried.repository()));
    assert_eq!(reader.tags().await, Vec::<String>::new());
}
