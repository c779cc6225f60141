//! `sealift login check`, with real registries, files and helpers.

use super::command_line::keeps_to_schema;
use super::credentials::{PASSWORD, USER, auth_file, guarded, image, install_helper, knowing, says_no_secret};
use super::support::{TokenRules, TokenServer, TokenUser, push_sample_with};
use super::*;

async fn check(machine: &Machine, status: i32, name: &str) -> (Value, String) {
    let report = machine.json_to(status, &["login", "check", name]).await;
    keeps_to_schema(machine, "login-report", &report).await;
    let ran = machine.run_to(status, &["login", "check", name, "-vvv"]).await;
    says_no_secret(&ran);
    assert!(!report.to_string().contains(PASSWORD));
    (report, ran.out)
}

#[tokio::test]
async fn it_names_the_file_and_the_entry() {
    let mut machine = Machine::new();
    let Some(registry) = guarded(&machine).await else { return };
    let host = registry.host().to_owned();
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    let (nobody, text) = check(&machine, 4, &host).await;
    assert_eq!((&nobody["outcome"], &nobody["login"]), (&"refused".into(), &Value::Null));
    assert!(text.contains("docker/config.json (not there)") && text.contains("docker login"), "{text}");
    machine.write("docker/config.json", &auth_file(&[&host], PASSWORD));
    let (good, text) = check(&machine, 0, &host).await;
    assert_eq!(good["outcome"], "accepted");
    let login = &good["login"];
    assert_eq!((&login["user"], &login["form"]), (&USER.into(), &"password".into()));
    assert_eq!(login["entry"], format!("auths \"{host}\""));
    assert!(login["file"].as_str().unwrap().ends_with("docker/config.json"));
    assert!(text.contains(USER) && text.contains("works"), "{text}");
    // The repository need not be there.
    assert_eq!(check(&machine, 0, &format!("{host}/team/none")).await.0["outcome"], "accepted");
    machine.write("docker/config.json", &auth_file(&[&host], "wrong"));
    let (wrong, text) = check(&machine, 4, &host).await;
    assert_eq!(wrong["outcome"], "refused");
    assert!(wrong["problem"]["help"].as_str().unwrap().contains("docker/config.json"), "{wrong}");
    assert!(text.contains("help: the login for"), "{text}");
    machine.write("docker/config.json", "no JSON");
    assert!(machine.run_to(2, &["login", "check", &host]).await.err.contains("docker/config.json"));
}

#[tokio::test]
async fn it_names_the_helper() {
    let mut machine = Machine::new();
    let Some(registry) = guarded(&machine).await else { return };
    let host = registry.host().to_owned();
    install_helper(&mut machine, "test", &knowing(&[&host])).await;
    machine.write("docker/config.json", r#"{"credsStore": "test"}"#);
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    let (good, text) = check(&machine, 0, &host).await;
    assert_eq!((&good["login"]["helper"], &good["login"]["entry"]), (&"test".into(), &"credsStore".into()));
    assert!(text.contains("kept by docker-credential-test"), "{text}");
    install_helper(&mut machine, "test", "echo 'the vault is sealed' >&2; exit 1").await;
    let (failed, text) = check(&machine, 1, &host).await;
    assert_eq!((&failed["outcome"], &failed["login"]["helper"]), (&"failed".into(), &"test".into()));
    assert!(text.contains("the vault is sealed") && text.contains("help:"), "{text}");
}

#[tokio::test]
async fn it_asks_for_a_token_and_for_the_repository() {
    let Some(tokens) = TokenServer::start(TokenRules::of(TokenUser::new(USER, PASSWORD))).await else { return };
    let Some(registry) = DockerRegistry::start_logged(&tokens.section()).await else { return };
    let host = registry.host().to_owned();
    push_sample_with(Some(&tokens.bearer("team/app")), &registry.url(), "team/app", Some("1"), &image(50_000)).await;
    let mut machine = Machine::new();
    machine.write("auth.json", &auth_file(&[&host], PASSWORD));
    machine.set("REGISTRY_AUTH_FILE", machine.path("auth.json"));
    let repository = format!("{host}/team/app");
    assert_eq!(check(&machine, 0, &repository).await.0["outcome"], "accepted");
    // The token server takes the login, and the repository is another matter.
    tokens.change(|rules| rules.users[0].actions.clear());
    assert_eq!(check(&machine, 0, &host).await.0["outcome"], "accepted");
    let (refused, _) = check(&machine, 4, &repository).await;
    assert_eq!(refused["outcome"], "refused");
    assert!(refused["problem"]["text"].as_str().unwrap().contains("pull from"), "{refused}");
    // The token server does not take it.
    tokens.change(|rules| rules.users.clear());
    let (refused, text) = check(&machine, 4, &host).await;
    assert!(refused["problem"]["help"].as_str().unwrap().contains("log in again"), "{refused}");
    assert!(text.contains("auth.json"), "{text}");
}

#[tokio::test]
async fn it_needs_no_login_where_the_registry_wants_none() {
    let Some(registry) = DockerRegistry::start().await else { return };
    let host = registry.host().to_owned();
    let mut machine = Machine::new();
    let (open, text) = check(&machine, 0, &host).await;
    assert_eq!((&open["outcome"], &open["login"]), (&"notWanted".into(), &Value::Null));
    assert!(text.contains("asks for no login"), "{text}");
    // A helper is named, and not started.
    install_helper(&mut machine, "test", "exit 1").await;
    machine.write("auth.json", r#"{"credsStore": "test"}"#);
    machine.set("REGISTRY_AUTH_FILE", machine.path("auth.json"));
    let (open, _) = check(&machine, 0, &host).await;
    assert_eq!((&open["login"]["helper"], &open["login"]["form"]), (&"test".into(), &Value::Null));
    assert!(!machine.path("helpers/asked").exists());
    drop(registry);
    let (gone, _) = check(&machine, 1, &host).await;
    assert_eq!(gone["outcome"], "failed");
    for name in ["nothing here", "team/app"] {
        machine.run_to(2, &["login", "check", name]).await;
    }
}
