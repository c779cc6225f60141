//! `verify` asks the kernel for no socket, whatever a module says of itself: strace counts.

use crate::support::{Machine, have};

#[tokio::test(flavor = "multi_thread")]
async fn verify_opens_no_socket() {
    if !have(&["strace"]) {
        return;
    }
    let machine = Machine::new();
    machine.ok(&["demo", "--keep", "try"]).await;
    let trace = machine.path("trace");
    let output = std::process::Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=network", "-o", trace.to_str().unwrap(), env!("CARGO_BIN_EXE_sealift")])
        .args(["verify", "try/drive/demo-1-1", "--key", "try/keys/exporter.pub", "--state", "try/site"])
        .current_dir(machine.folder())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<&str> = calls.lines().filter(|line| line.contains('(')).collect();
    assert!(calls.is_empty(), "{calls:?}");
}
