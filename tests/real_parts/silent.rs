//! `verify` asks the kernel for no socket, whatever a module says of itself: strace counts.

use crate::support::{Machine, have};

#[tokio::test(flavor = "multi_thread")]
async fn verify_opens_no_socket() {
    if !have(&["strace"]) {
        return;
    }
    let machine = Machine::new();
    machine.ok(&["demo", "--keep", "try"]).await;
    let bundle = ["try/drive/demo-1-1", "--key", "try/keys/exporter.pub", "--state", "try/site"];
    let calls: [&[&str]; 4] = [&bundle, &[&bundle[..], &["--deep"]].concat(), &["try/store"], &["try/store", "--deep"]];
    for arguments in calls {
        let trace = machine.path("trace");
        let output = std::process::Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=network", "-o", trace.to_str().unwrap(), env!("CARGO_BIN_EXE_sealift")])
            .arg("verify")
            .args(arguments)
            .current_dir(machine.folder())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let calls = std::fs::read_to_string(trace).unwrap();
        let calls: Vec<&str> = calls.lines().filter(|line| line.contains('(')).collect();
        assert!(calls.is_empty(), "{arguments:?}: {calls:?}");
    }
}
