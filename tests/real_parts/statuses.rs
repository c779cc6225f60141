//! Each exit status, through the binary.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::support::StrictRegistry;
use super::*;

/// Changes one byte of a layer.
fn damage(volume: &Path) {
    std::fs::set_permissions(volume, PermissionsExt::from_mode(0o600)).unwrap();
    let file = File::options().read(true).write(true).open(volume).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 10_000).unwrap();
    file.write_all_at(&[!byte[0]], 10_000).unwrap();
}

#[tokio::test]
async fn each_exit_status_has_its_case() {
    let Some(source) = DockerRegistry::start().await else { return };
    let strict = StrictRegistry::start().await;
    let machine = Machine::new();
    let image = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(100_000, 1)
        .random_layer(100_000, 2)
        .platform("linux", "arm64", "v8")
        .random_layer(1_000, 3)
        .build()
        .unwrap();
    push_sample(&source.url(), "team/app", Some("1"), &image).await;
    let app = format!("{}/team/app", source.host());
    let write = |name: &str, tags: &'static str| {
        machine.write(name, &spec("statuses", "linux/amd64", &[(app.clone(), tags)]));
    };
    write("good.yaml", "tags: {exact: [\"1\"]}");
    write("half.yaml", "tags: {exact: [\"1\", missing]}");
    write("none.yaml", "tags: {exact: [missing]}");
    write("wrong.yaml", "tagz: {exact: [\"1\"]}");

    // 0: done
    machine.run_to(0, &["spec", "check", "good.yaml"]).await;
    machine.run_to(0, &["pull", "good.yaml", "--store", "store"]).await;
    let bundle = export(&machine, "statuses", "128KiB").await;
    let verify = ["verify", bundle.as_str(), "--key", "keys/exporter.pub", "--state", "state"];
    machine.run_to(0, &verify).await;
    // 1: failed
    let said = machine.run_to(1, &["pull", "none.yaml", "--store", "other"]).await;
    assert!(said.out.contains("missing is not there"), "{}", said.out);
    // 2: wrong usage, spec or site
    let said = machine.run_to(2, &["spec", "check", "wrong.yaml"]).await;
    assert!(said.err.contains("wrong.yaml:8") && said.err.contains("tagz"), "{}", said.err);
    machine.run_to(2, &["pull"]).await;
    machine.run_to(2, &["verify", &bundle, "--state", "state"]).await;
    // 3: incomplete
    machine.run_to(3, &["pull", "half.yaml", "--store", "other"]).await;
    machine.run_to(3, &["plan", "half.yaml", "--store", "other"]).await;
    // 4: refused by the policy of a registry
    let to = strict.host();
    machine.run_to(4, &["replay", &bundle, "--to", to, "--key", "keys/exporter.pub", "--state", "state"]).await;
    // 5: verification failed
    machine.json(&["key", "generate", "--out", "keys/other"]).await;
    machine.run_to(5, &["verify", &bundle, "--key", "keys/other.pub", "--state", "state"]).await;
    damage(&machine.path(&bundle).join("vol-0001.tar"));
    let said = machine.run_to(5, &verify).await;
    assert!(said.out.contains("damaged: vol-0001.tar"), "{}", said.out);
    // 6: a volume is missing
    std::fs::remove_file(machine.path(&bundle).join("vol-0001.tar")).unwrap();
    let said = machine.run_to(6, &verify).await;
    assert!(said.out.contains("missing: vol-0001.tar"), "{}", said.out);
    // The help names them all.
    let help = machine.ok(&["--help"]).await.out;
    (0..=6).for_each(|status| assert!(help.contains(&format!("\n  {status}  ")), "{status}: {help}"));
}
