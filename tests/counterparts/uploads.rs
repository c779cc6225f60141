//! Uploads over a line that is cut, to a registry that can go on with them.

use super::support::{BadLine, DockerRegistry, Settings, counterpart, patterned};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn distribution_3_is_sent_each_byte_about_once() {
    let Some(program) = counterpart("registry") else { return };
    let registry =
        DockerRegistry::start_with(Settings { program: Some(program), ..Settings::default() }).await.unwrap();
    let line = BadLine::before(registry.host(), MIB).await;
    let content = patterned(9 * MIB as u32 + 5);
    line.push(&content).await.unwrap();
    let carried = line.carried();
    assert!(carried < content.len() as u64 + MIB, "{carried} bytes for {}", content.len());
}
