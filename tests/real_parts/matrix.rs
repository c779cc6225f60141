//! The rows of `docs/targets.md` for targets that are always here.

use super::support::Matrix;
use super::*;

const URLS_ALLOWED: &str = "validation: {manifests: {urls: {allow: [\"^https://layers\\\\.invalid/\"]}}}";

#[tokio::test]
async fn what_the_document_says_of_targets_is_what_is_measured() {
    let Some(matrix) = Matrix::start().await else { return };
    let Some(docker_registry) = DockerRegistry::start().await else { return };
    let allowing = Settings { sections: URLS_ALLOWED.to_owned(), ..Settings::default() };
    let Some(allowing) = DockerRegistry::start_with(allowing).await else { return };
    let machine = Machine::new();
    let embedded = machine.serve(&["fresh", "--writable"]).await;
    matrix.check("`sealift serve --writable`", embedded.host()).await;
    matrix.check("docker-registry 2.8", docker_registry.host()).await;
    matrix.check("docker-registry 2.8, `urls.allow`", allowing.host()).await;
}
