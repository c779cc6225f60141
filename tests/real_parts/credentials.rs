//! Registries that want a password: from the files of docker and podman, and nowhere else afterwards.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::push_sample_as;
use super::*;

const USER: &str = "carrier";
const PASSWORD: &str = "walnut-harbour-42-Gx";
/// The line of an htpasswd file: bcrypt, which is all that docker-registry takes.
const HTPASSWD: &str = "carrier:$2y$05$abcdefghijklmnopqrstuuGHHWbJgODghpZc73S6j9RCQLYZNWLja\n";

/// What must be found nowhere: the password, and as it is sent.
fn secrets() -> [String; 2] {
    [PASSWORD.to_owned(), STANDARD.encode(format!("{USER}:{PASSWORD}"))]
}

fn says_no_secret(ran: &Ran) {
    for secret in secrets() {
        assert!(!ran.out.contains(&secret) && !ran.err.contains(&secret), "{}\n{}", ran.out, ran.err);
    }
}

/// Every file below `folder` was read and holds no secret; how many there are.
fn hold_no_secret(folder: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += hold_no_secret(&path);
            continue;
        }
        files += 1;
        let bytes = std::fs::read(&path).unwrap();
        for secret in secrets() {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds the password", path.display());
        }
    }
    files
}

fn auth_file(hosts: &[&str], password: &str) -> String {
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    let auths: serde_json::Map<String, Value> =
        hosts.iter().map(|host| ((*host).to_owned(), serde_json::json!({"auth": auth}))).collect();
    serde_json::json!({"auths": auths}).to_string()
}

#[tokio::test]
async fn a_password_opens_both_registries_and_is_found_nowhere() {
    let mut machine = Machine::new();
    let htpasswd = machine.write("far/htpasswd", HTPASSWD);
    let sections = format!("auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}", htpasswd.display());
    let Some(source) = DockerRegistry::start_logged(&sections).await else { return };
    let Some(target) = DockerRegistry::start_logged(&sections).await else { return };
    let image = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(50_000, 1)
        .platform("linux", "arm64", "v8")
        .random_layer(50_000, 2)
        .build()
        .unwrap();
    let login = Some((USER, PASSWORD));
    push_sample_as(login, &source.url(), "team/secret", Some("1"), &image).await;
    let images = [(format!("{}/team/secret", source.host()), "tags: {exact: [\"1\"]}")];
    machine.write("spec.yaml", &spec("secret", "linux/amd64", &images));
    machine.json(&["key", "generate", "--out", "keys/exporter"]).await;
    let pull = ["pull", "spec.yaml", "--store", "store", "-vvv"];
    let to = format!("{}/mirror", target.host());
    let replay = ["replay", "drive/secret-1-1", "--to", &to, "--key", "keys/exporter.pub", "--state", "state", "-vvv"];

    // Nobody, and somebody with a wrong password, are told where was looked.
    let anonymous = machine.run_to(4, &pull).await;
    assert!(anonymous.err.contains("401"), "{}", anonymous.err);
    assert!(anonymous.err.contains("help:") && anonymous.err.contains("login"), "{}", anonymous.err);
    machine.write("docker/config.json", &auth_file(&[source.host(), target.host()], "wrong"));
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    let wrong = machine.run_to(4, &pull).await;
    assert!(wrong.err.contains("401") && wrong.err.contains("help:"), "{}", wrong.err);
    assert!(wrong.err.contains("docker/config.json"), "it says which file that was: {}", wrong.err);
    let wrong_basic = STANDARD.encode(format!("{USER}:wrong"));
    assert!(!wrong.err.contains(&wrong_basic), "{}", wrong.err);

    // Docker's file opens the source, podman's the target.
    machine.write("docker/config.json", &auth_file(&[source.host()], PASSWORD));
    says_no_secret(&machine.ok(&pull).await);
    let export = ["export", "secret", "--store", "store", "--to", "drive", "--sign-key", "keys/exporter.key", "-vvv"];
    says_no_secret(&machine.ok(&export).await);
    machine.unset_all();
    machine.write("podman/auth.json", &auth_file(&[target.host()], "wrong"));
    machine.set("REGISTRY_AUTH_FILE", machine.path("podman/auth.json"));
    let wrong = machine.run(&replay).await;
    assert_eq!(wrong.status, Some(4), "{wrong:?}");
    assert!(wrong.out.contains("401") && wrong.out.contains("help:"), "{}", wrong.out);
    machine.write("podman/auth.json", &auth_file(&[target.host()], PASSWORD));
    says_no_secret(&machine.ok(&replay).await);
    let put = target.accesses().into_iter().filter(|access| access.method == "PUT" && access.status == 201);
    assert!(put.count() > 0);

    for folder in ["store", "state", "drive", "keys"] {
        assert!(hold_no_secret(&machine.path(folder)) > 0, "{folder}");
    }
}
