//! The rows of `docs/targets.md` for targets that no distribution packages.

use sealift::oci::{Descriptor, MediaType};

use super::registries::Olareg;
use super::support::Matrix;
use super::targets::{SPARSE_ALLOWED, distribution};
use super::*;

/// Only the children for this platform have to be there.
const LIST: &str = "validation:\n  manifests:\n    indexes:\n      platforms: list\n      platformlist:\n        \
                    - {os: linux, architecture: amd64}";

const NONE_AND_URLS: &str = "validation:\n  manifests:\n    indexes: {platforms: none}\n    \
                             urls: {allow: [\"^https://layers\\\\.invalid/\"]}";

#[tokio::test]
async fn what_the_document_says_of_targets_is_what_is_measured() {
    let settings =
        [("all` (default)", ""), ("none`", SPARSE_ALLOWED), ("none` and `urls.allow`", NONE_AND_URLS), ("list`", LIST)];
    if counterpart("registry").is_none() || counterpart("olareg").is_none() {
        return;
    }
    let Some(matrix) = Matrix::start().await else { return };
    for (name, sections) in settings {
        let Some(target) = distribution(sections).await else { return };
        matrix.check(&format!("distribution 3, `{name}"), target.host()).await;
    }
    let Some(olareg) = Olareg::start().await else { return };
    matrix.check("olareg", &olareg.host).await;
}

#[tokio::test]
async fn distribution_3_with_a_list_breaks_off_at_a_child_without_a_platform() {
    let Some(target) = distribution(LIST).await else { return };
    let child = Descriptor::of(MediaType::OCI_MANIFEST, b"{}");
    let child = serde_json::json!({"mediaType": child.media_type, "digest": child.digest, "size": child.size});
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [child]});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = client.put(format!("{}/v2/team/app/manifests/1", target.url())).body(index.to_string());
    let answer = put.header("content-type", MediaType::OCI_INDEX.as_str()).send().await;
    assert!(
        answer.is_err_and(|error| error.status().is_none()),
        "it answers by now: the help and the documents can say so"
    );
    assert!(target.log().contains("panic"), "{}", target.log());
}
