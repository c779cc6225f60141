//! The conformance suite of the distribution specification, in the version of its release 1.1.1.

use super::*;

/// How many lines of a failed run are shown.
const SHOWN: usize = 80;

#[tokio::test]
async fn the_conformance_suite_finds_no_failure() {
    let Some(tools) = Counterparts::with(&["conformance"]) else { return };
    let machine = Machine::new();
    let serving = machine.serve(&["store", "--writable"]).await;
    let mut command = tools.command("conformance");
    command.args(["-test.v", "-ginkgo.no-color"]).env("OCI_ROOT_URL", serving.url());
    command.env("OCI_NAMESPACE", "suite/first").env("OCI_CROSSMOUNT_NAMESPACE", "suite/second");
    for workflow in ["PULL", "PUSH", "CONTENT_DISCOVERY", "CONTENT_MANAGEMENT"] {
        command.env(format!("OCI_TEST_{workflow}"), "1");
    }
    let ran = command.env("OCI_REPORT_DIR", "none").output().await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert!(ran.status.success(), "{}", lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
    assert!(said.contains(" 0 Failed"), "it has run: {said}");
}
