//! Registries that want a password: from the files of docker and podman, and nowhere else afterwards.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::push_sample_as;
use super::*;

pub const USER: &str = "carrier";
pub const PASSWORD: &str = "walnut-harbour-42-Gx";
/// The line of an htpasswd file: bcrypt, which is all that docker-registry takes.
const HTPASSWD: &str = "carrier:$2y$05$abcdefghijklmnopqrstuuGHHWbJgODghpZc73S6j9RCQLYZNWLja\n";

/// What must be found nowhere: the password, and as it is sent.
fn secrets() -> [String; 2] {
    [PASSWORD.to_owned(), STANDARD.encode(format!("{USER}:{PASSWORD}"))]
}

pub fn says_no_secret(ran: &Ran) {
    for secret in secrets() {
        assert!(!ran.out.contains(&secret) && !ran.err.contains(&secret), "{}\n{}", ran.out, ran.err);
    }
}

/// Every file below `folder` was read and holds no secret; how many there are.
pub fn hold_no_secret(folder: &Path) -> usize {
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

pub fn auth_file(hosts: &[&str], password: &str) -> String {
    let auth = STANDARD.encode(format!("{USER}:{password}"));
    let auths: serde_json::Map<String, Value> =
        hosts.iter().map(|host| ((*host).to_owned(), serde_json::json!({"auth": auth}))).collect();
    serde_json::json!({"auths": auths}).to_string()
}

/// A registry that wants the password; `None` when the test is to be skipped.
pub async fn guarded(machine: &Machine) -> Option<DockerRegistry> {
    let htpasswd = machine.write("far/htpasswd", HTPASSWD);
    let sections = format!("auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}", htpasswd.display());
    DockerRegistry::start_logged(&sections).await
}

/// An image of two platforms, one of them with a layer of `size` bytes.
pub fn image(size: usize) -> SampleImage {
    let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(size, 1);
    image.platform("linux", "arm64", "v8").random_layer(50_000, 2).build().unwrap()
}

/// Installs a credential helper in a folder that comes first on the `PATH`. Each call leaves a line in `helpers/asked`: its
/// arguments, the server, and the command line of its parent.
pub async fn install_helper(machine: &mut Machine, name: &str, script: &str) {
    let asked = machine.path("helpers/asked");
    let text = format!(
        "#!/bin/sh\nread -r server || true\n\
         echo \"$* $server $(tr '\\0' ' ' < /proc/$PPID/cmdline)\" >> '{}'\n{script}\n",
        asked.display()
    );
    machine.write(&format!("helper-{name}"), &text);
    // By another process: a file that this one has open for writing cannot be run, and a child of another test might have
    // inherited it.
    let install = format!("install -D -m 755 helper-{name} helpers/docker-credential-{name}");
    let done = machine.bash(machine.folder(), &install).await;
    assert_eq!(done.status, Some(0), "{}", done.err);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [machine.path("helpers")].into_iter().chain(std::env::split_paths(&path));
    machine.set("PATH", std::env::join_paths(folders).unwrap());
}

/// The script of a helper that knows these servers.
pub fn knowing(servers: &[&str]) -> String {
    format!(
        "case \"$server\" in\n{}) printf '{{\"ServerURL\":\"%s\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}' \"$server\" ;;\n\
         *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac",
        servers.join("|")
    )
}

fn asked(machine: &Machine) -> Vec<String> {
    let text = std::fs::read_to_string(machine.path("helpers/asked")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A registry with an image, a spec for it, and a key.
async fn source_with_image(machine: &Machine) -> Option<DockerRegistry> {
    let source = guarded(machine).await?;
    push_sample_as(Some((USER, PASSWORD)), &source.url(), "team/secret", Some("1"), &image(50_000)).await;
    let images = [(format!("{}/team/secret", source.host()), "tags: {exact: [\"1\"]}")];
    machine.write("spec.yaml", &spec("secret", "linux/amd64", &images));
    Some(source)
}

const PULL: [&str; 5] = ["pull", "spec.yaml", "--store", "store", "-vvv"];

#[tokio::test]
async fn a_helper_opens_both_registries_and_is_asked_once_by_each_command() {
    let mut machine = Machine::new();
    let Some(source) = source_with_image(&machine).await else { return };
    let Some(target) = guarded(&machine).await else { return };
    machine.json(&["key", "generate", "--out", "keys/exporter"]).await;
    install_helper(&mut machine, "test", &knowing(&[source.host(), target.host()])).await;
    machine.write("docker/config.json", r#"{"credsStore": "test"}"#);
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    says_no_secret(&machine.ok(&PULL).await);
    let bundle = export(&machine, "secret", VOLUME_SIZE).await;
    let to = format!("{}/mirror", target.host());
    let replay = ["replay", &bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", "state", "-vvv"];
    says_no_secret(&machine.ok(&replay).await);
    let asked = asked(&machine);
    let begins = [source.host(), target.host()].map(|host| format!("get {host} "));
    assert_eq!(asked.len(), 2, "{asked:?}");
    for (line, begin) in asked.iter().zip(begins) {
        assert!(line.starts_with(&begin) && line.contains("sealift") && !line.contains(PASSWORD), "{line}");
    }
    for folder in ["store", "state", "drive"] {
        assert!(hold_no_secret(&machine.path(folder)) > 0, "{folder}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_helper_is_told() {
    let mut machine = Machine::new();
    let Some(source) = source_with_image(&machine).await else { return };
    let config = |machine: &mut Machine, name: &str| {
        machine.write("docker/config.json", &format!(r#"{{"credHelpers": {{"{}": "{name}"}}}}"#, source.host()));
        machine.set("DOCKER_CONFIG", machine.path("docker"));
    };
    let told = |ran: &Ran, what: &str| {
        for part in [what, source.host(), "docker-credential-", "docker/config.json", "help:"] {
            assert!(ran.err.contains(part), "{part}: {}", ran.err);
        }
        says_no_secret(ran);
    };
    config(&mut machine, "absent");
    told(&machine.run_to(1, &PULL).await, "it is not on the PATH");
    install_helper(
        &mut machine,
        "sealed",
        &format!("echo '{{\"Secret\":\"{PASSWORD}\"}}'; echo 'the vault is sealed' >&2; exit 3"),
    )
    .await;
    config(&mut machine, "sealed");
    told(&machine.run_to(1, &PULL).await, "exit status: 3: the vault is sealed");
    install_helper(&mut machine, "loud", "exec head -c 100000 /dev/zero").await;
    config(&mut machine, "loud");
    told(&machine.run_to(1, &PULL).await, "more than 65536 bytes");
    install_helper(&mut machine, "chatty", &format!("head -c 300000 /dev/zero >&2\n{}", knowing(&[source.host()])))
        .await;
    config(&mut machine, "chatty");
    machine.ok(&PULL).await;
    // One that knows nothing leaves what the file has itself.
    install_helper(&mut machine, "empty", &knowing(&["nobody.example"])).await;
    let both = format!(r#"{{"credsStore": "empty", {}"#, &auth_file(&[source.host()], PASSWORD)[1..]);
    machine.write("docker/config.json", &both);
    machine.ok(&["pull", "spec.yaml", "--store", "other"]).await;
    assert!(asked(&machine).last().unwrap().starts_with(&format!("get {} ", source.host())));
}

/// Takes as long as a helper may: half a minute.
#[tokio::test]
async fn a_helper_that_hangs_is_ended() {
    let mut machine = Machine::new();
    let Some(source) = source_with_image(&machine).await else { return };
    install_helper(
        &mut machine,
        "hangs",
        "echo $$ > \"$(dirname \"$0\")/process\"; sleep 600 & echo $! > \"$(dirname \"$0\")/child\"; wait",
    )
    .await;
    machine.write("docker/config.json", r#"{"credsStore": "hangs"}"#);
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    let ran = machine.run_to(1, &PULL).await;
    let said = format!("ask docker-credential-hangs for the login of {}: it did not end within 30 s", source.host());
    assert!(ran.err.contains(&said), "{}", ran.err);
    assert_eq!(asked(&machine).len(), 1);
    for process in ["process", "child"] {
        let process = std::fs::read_to_string(machine.path("helpers").join(process)).unwrap();
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", process.trim())).unwrap_or_default();
        assert!(!command.contains("hangs") && !command.contains("sleep"), "{command} still runs");
    }
}

#[tokio::test]
async fn a_helper_is_not_asked_for_a_registry_that_wants_no_login() {
    let mut machine = Machine::new();
    let Some(source) = DockerRegistry::start().await else { return };
    push_sample(&source.url(), "team/open", Some("1"), &image(50_000)).await;
    let images = [(format!("{}/team/open", source.host()), "tags: {exact: [\"1\"]}")];
    machine.write("spec.yaml", &spec("open", "linux/amd64", &images));
    install_helper(&mut machine, "test", "exit 1").await;
    machine.write("docker/config.json", r#"{"credsStore": "test"}"#);
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    machine.ok(&PULL).await;
    assert!(asked(&machine).is_empty());
}

#[tokio::test]
async fn the_longest_namespace_of_podmans_file_decides() {
    let mut machine = Machine::new();
    let Some(source) = source_with_image(&machine).await else { return };
    let key = |path: &str| format!("{}{path}", source.host());
    let entry = |password: &str| serde_json::json!({"auth": STANDARD.encode(format!("{USER}:{password}"))});
    let file = |host: &str, team: &str, app: &str| {
        let auths =
            serde_json::json!({key(""): entry(host), key("/team"): entry(team), key("/team/secrets"): entry(app)});
        serde_json::json!({"auths": auths}).to_string()
    };
    machine.set("REGISTRY_AUTH_FILE", machine.path("auth.json"));
    machine.write("auth.json", &file("wrong", PASSWORD, "wrong"));
    says_no_secret(&machine.ok(&PULL).await);
    machine.write("auth.json", &file(PASSWORD, "wrong", PASSWORD));
    let wrong = machine.run_to(4, &PULL).await;
    assert!(wrong.err.contains(&format!("auth.json (auths \"{}\")", key("/team"))), "{}", wrong.err);
}

#[tokio::test]
async fn systemd_hands_over_a_file_that_comes_first() {
    let mut machine = Machine::new();
    let Some(source) = source_with_image(&machine).await else { return };
    machine.write("docker/config.json", &auth_file(&[source.host()], "wrong"));
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    machine.set("CREDENTIALS_DIRECTORY", machine.path("given"));
    // A unit may load credentials of other names alone.
    machine.write("given/other", "x");
    machine.run_to(4, &PULL).await;
    machine.write("given/registry-auth.json", &auth_file(&[source.host()], PASSWORD));
    says_no_secret(&machine.ok(&PULL).await);
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
