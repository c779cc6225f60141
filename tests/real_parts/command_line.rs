//! What the command line promises to people and to scripts.

use super::*;

const COMMANDS: [&[&str]; 19] = [
    &["plan"],
    &["pull"],
    &["export"],
    &["verify"],
    &["replay"],
    &["inspect"],
    &["serve"],
    &["client-config"],
    &["login", "check"],
    &["key", "generate"],
    &["probe"],
    &["foreign", "list"],
    &["foreign", "mark"],
    &["foreign", "unmark"],
    &["spec", "check"],
    &["spec", "schema"],
    &["schedule"],
    &["demo"],
    &["completions"],
];

#[tokio::test]
async fn every_command_shows_an_example() {
    let machine = Machine::new();
    for command in COMMANDS {
        let help = machine.ok(&[command, &["--help"]].concat()).await.out;
        let line = format!("  sealift {}", command.join(" "));
        let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("{command:?}: {help}"));
        assert!(examples.contains(&line), "{command:?}: {help}");
    }
    // Nothing is missing above.
    let help = machine.ok(&["--help"]).await.out;
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let listed: Vec<&str> = list.lines().map_while(|line| line.split_whitespace().next()).collect();
    for name in listed.iter().filter(|name| **name != "help") {
        assert!(COMMANDS.iter().any(|command| command[0] == *name), "{name}");
    }
    assert!(listed.len() > 8, "{listed:?}");
}

#[tokio::test]
async fn completions_for_the_shells() {
    let machine = Machine::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = machine.ok(&["completions", shell]).await.out;
        assert!(script.contains("replay") && script.lines().count() > 50, "{shell}");
    }
    let script = machine.ok(&["completions", "bash"]).await.out;
    machine.write("completions.bash", &script);
    let ran = machine.bash(machine.folder(), "source completions.bash && complete -p sealift").await;
    assert!(ran.status == Some(0) && ran.out.contains("sealift"), "{ran:?}");
}

/// Each report is one JSON document on standard output, and keeps to the schema that the binary shows for it.
#[tokio::test]
async fn reports_keep_to_their_schemas() {
    let Some(sides) = Sides::start().await else { return };
    let machine = &sides.machine;
    let image = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(70_000, 1)
        .attestation()
        .platform("windows", "amd64", "")
        .os_version("10.0.17763.1")
        .foreign_layer("https://example.com/layer", 1000, 2)
        .platform("linux", "arm64", "v8")
        .referrer("application/spdx+json", b"{}")
        .cosign_tag("registry.example/app", |payload| payload.to_vec())
        .build()
        .unwrap();
    push_sample_without_foreign(&sides, &image).await;
    let images = [
        (sides.source_of("team/app"), "tags: {exact: [\"1\"]}"),
        (sides.source_of("team/gone"), "tags: {exact: [\"1\"]}; missingPlatform: skip"),
    ];
    machine.write("spec.yaml", &spec("reports", "linux/amd64", &images));
    let timed =
        spec("timed", "linux/amd64", &images[..1]).replace("images:", "schedule: {cron: 15 2 * * 1-5}\nimages:");
    machine.write("timed.yaml", &timed);
    machine.json(&["key", "generate", "--out", "keys/exporter"]).await;
    let to = format!("{}/mirror", sides.target.host());
    let key = ["--key", "keys/exporter.pub", "--state", "state"];
    let export = ["export", "reports", "--store", "store", "--to", "drive", "--sign-key", "keys/exporter.key"];
    let cases: [(&str, i32, Vec<&str>); 12] = [
        ("check-report", 0, vec!["spec", "check", "spec.yaml"]),
        ("schedule-report", 0, vec!["schedule", "spec.yaml", "timed.yaml"]),
        ("plan", 3, vec!["plan", "spec.yaml", "--store", "store"]),
        ("pull-report", 3, vec!["pull", "spec.yaml", "--store", "store"]),
        ("key-report", 0, vec!["key", "generate", "--out", "keys/another"]),
        ("export-report", 3, export.to_vec()),
        ("layout-report", 3, vec!["export", "reports", "--store", "store", "--layout", "reports.tar"]),
        ("verify-report", 0, [&["verify", "drive/reports-1-1"][..], &key].concat()),
        ("verify-report", 0, [&["verify", "drive/reports-1-1", "--deep"][..], &key].concat()),
        ("verify-report", 0, vec!["verify", "store", "--deep"]),
        ("replay-report", 0, [&["replay", "drive/reports-1-1", "--to", &to][..], &key].concat()),
        ("replay-report", 0, [&["replay", "drive/reports-1-1", "--to", &to][..], &key].concat()),
    ];
    for (name, status, arguments) in cases {
        let report = machine.json_to(status, &arguments).await;
        keeps_to_schema(machine, name, &report).await;
    }
    let bundle = std::fs::read(machine.path("drive/reports-1-1/bundle.json")).unwrap();
    keeps_to_schema(machine, "bundle", &serde_json::from_slice(&bundle).unwrap()).await;
    let text = std::fs::read_to_string(machine.path("spec.yaml")).unwrap();
    keeps_to_schema(machine, "mirror-spec", &serde_yaml::from_str(&text).unwrap()).await;
}

/// The index lists a platform with a foreign layer, which docker-registry refuses: as an image that is in the index and
/// not on the source.
async fn push_sample_without_foreign(sides: &Sides, image: &SampleImage) {
    let mut there = image.clone();
    let windows = image.child("windows", "amd64", "").unwrap().digest;
    there.contents.retain(|(descriptor, _)| descriptor.digest != windows);
    let manifest = image.bytes(&windows).unwrap().clone();
    // As a blob it is enough for the registry to take the index.
    let blob = Descriptor::of(sealift::oci::MediaType::OCTET_STREAM, &manifest);
    there.contents.insert(0, (blob, manifest));
    push_sample(&sides.source.url(), "team/app", Some("1"), &there).await;
}

pub async fn keeps_to_schema(machine: &Machine, name: &str, document: &Value) {
    let schema: Value = serde_json::from_str(&machine.ok(&["spec", "schema", "--of", name]).await.out).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:?}\n{document}");
}

#[tokio::test]
async fn the_demo_works_in_both_renderings() {
    let machine = Machine::new();
    let said = machine.ok(&["demo"]).await;
    assert!(said.out.contains("8. One bit flipped"), "{}", said.out);
    let report = machine.json(&["demo", "--keep", "try"]).await;
    assert_eq!(report["export"]["bundle"], "demo-1-1");
    assert!(machine.path("try/drive/demo-1-1/bundle.json").exists());
    machine.run_to(2, &["demo", "--keep", "try"]).await;
}

/// Colours and bold are `CSI … m`; what moves the cursor is none, nor what ends a colour.
fn has_colours(text: &str) -> bool {
    text.split("\u{1b}[").skip(1).any(|rest| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|end| rest[end..].starts_with('m') && &rest[..end] != "0")
    })
}

/// On a terminal: escape sequences appear, and with `NO_COLOR` they do not.
#[tokio::test]
async fn no_color_is_respected() {
    if !have(&["script"]) {
        return;
    }
    let mut machine = Machine::new();
    machine.write("wrong.yaml", "apiVersion: sealift/v1\nkind: MirrorSpec\nnamee: x\n");
    let mut seen = Vec::new();
    for no_color in [false, true] {
        if no_color {
            machine.set("NO_COLOR", "1");
        }
        for command in ["sealift spec check wrong.yaml", "sealift --nonsense", "sealift verify . --key none -vvv"] {
            let on_terminal = format!("TERM=xterm script -qec '{command}' /dev/null || true");
            let ran = machine.bash(machine.folder(), &on_terminal).await;
            let coloured = has_colours(&ran.out);
            seen.push((no_color, coloured));
            assert!(!(no_color && coloured), "{command}: {:?}", ran.out);
        }
    }
    assert!(seen.contains(&(false, true)), "some of it is coloured without NO_COLOR");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_panic() {
    let machine = Machine::new();
    let commands = ["--help", "completions bash", "spec schema", "demo --output json", "demo"];
    for command in commands {
        let script = format!("sealift {command} | head -c 1 >/dev/null; echo \"${{PIPESTATUS[0]}}\"");
        let ran = machine.bash(machine.folder(), &script.replace("sealift", "set +o pipefail; sealift")).await;
        assert!(!ran.err.contains("panicked"), "{command}: {}", ran.err);
        assert_eq!(ran.out.trim(), "0", "{command}: {}", ran.err);
    }
    // Closed before anything was written.
    let ran = machine.bash(machine.folder(), "sealift spec schema >&-; sealift demo --output json >&- 2>&1").await;
    assert!(!ran.err.contains("panicked") && !ran.out.contains("panicked"), "{ran:?}");
}
