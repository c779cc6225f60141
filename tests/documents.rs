//! What good documents mean, how mistakes are shown, and that no bytes make the parser panic.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use sealift::config::Config;
use sealift::oci::{PlatformPattern, Registry, Repository};
use sealift::site::{self, Stubs};
use sealift::spec::{self, CarrySignatures, IndexMode, MirrorSpec, MissingPlatform, Selection};

fn good(text: &str) -> MirrorSpec {
    spec::parse(Path::new("specs/x.yaml"), text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

const SPEC: &str = r#"
apiVersion: sealift/v1
kind: MirrorSpec
name: base-images
schedule: {cron: "15 2 * * 1-5", timezone: Europe/Berlin, jitter: 10m}
defaults:
  platforms: [linux/amd64, linux/arm64/v8]
  missingPlatform: skip
  index: full
  signatures: {carry: none}
images:
  - source: index.docker.io/nginx
    tags: {exact: [1.10, "1.27"], semver: ">=1.26, <2", variants: ["", bookworm], newest: 3, exclude: ["*-perl"]}
  - source: ghcr.io/acme/tool
    digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    tag: pinned
    platforms: [linux/amd64]
    index: child
    missingPlatform: fail
    signatures: {carry: all, recheck: 1h 30m}
export: {to: outbox, volumeSize: 4095MiB, baseline: {from: none}}
target: {sparseRefused: fail}
"#;

#[test]
fn defaults_are_filled_in() {
    let spec = good(SPEC);
    assert_eq!(spec.name.as_str(), "base-images");
    let [nginx, tool] = &spec.images[..] else { panic!("{:?}", spec.images) };
    let platforms: Vec<PlatformPattern> = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap()).into();
    assert_eq!(nginx.source.to_string(), "docker.io/library/nginx");
    assert_eq!((&nginx.platforms, nginx.index), (&platforms, IndexMode::Full));
    assert_eq!(nginx.missing_platform, MissingPlatform::Skip);
    assert_eq!((nginx.signatures.carry, nginx.signatures.recheck), (CarrySignatures::None, Duration::from_hours(24)));
    assert_eq!(nginx.place, "specs/x.yaml:12");
    assert_eq!((tool.platforms.len(), tool.index), (1, IndexMode::Child));
    assert_eq!(tool.missing_platform, MissingPlatform::Fail);
    assert_eq!((tool.signatures.carry, tool.signatures.recheck), (CarrySignatures::All, Duration::from_mins(90)));
    assert!(matches!(&tool.selection, Selection::Digest { tag, .. } if tag.as_str() == "pinned"));
}

#[test]
fn tags_are_taken_as_written() {
    let spec = good(SPEC);
    let Selection::Tags(tags) = &spec.images[0].selection else { panic!() };
    let exact: Vec<&str> = tags.exact().iter().map(|tag| tag.as_str()).collect();
    assert_eq!(exact, ["1.10", "1.27"], "1.10 is no number here");
    assert!(tags.needs_list());
}

#[test]
fn paths_are_relative_to_the_file_and_schedules_leave_a_note() {
    let spec = good(SPEC);
    assert_eq!(spec.export.to.as_deref(), Some(Path::new("specs/outbox")));
    assert_eq!(spec.export.volume_size, Some(4095 << 20));
    let schedule = spec.schedule.expect("one is written");
    assert_eq!((schedule.jitter, schedule.catch_up), (Duration::from_mins(10), true));
    let [note] = &spec.notes[..] else { panic!("{:?}", spec.notes) };
    assert!(note.starts_with("specs/x.yaml:5: ") && note.contains("the daemon"), "{note}");
    let plain = "apiVersion: sealift/v1\nkind: MirrorSpec\nname: x\nschedule:\nimages:\n\
                 - {source: a.b/c, tags: {exact: [d]}, platforms: [all]}\n";
    let plain = good(plain);
    assert!(plain.notes.is_empty() && plain.schedule.is_none() && plain.export.to.is_none());
}

#[test]
fn names_on_a_site() {
    let text = "apiVersion: sealift/v1\nkind: Site\nname: enclave-a\nregistry: registry.corp:5000\nprefix: mirror/in\n\
                rewrite:\n- {from: docker.io/library/*, to: hub/*}\n- {from: ghcr.io/acme/tool, to: tool}\n\
                - {from: ghcr.io/acme/*, to: acme/*}\n- {from: quay.io/*, to: '*'}\n\
                keys: [keys/a.pub, /etc/b.pub]\nstubs: never\n";
    let site = site::parse(Path::new("/etc/sealift/site.yaml"), text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    let rows = [
        ("docker.io/library/nginx", "mirror/in/hub/nginx"),
        ("docker.io/nginx", "mirror/in/hub/nginx"),
        ("docker.io/library/a/b", "mirror/in/hub/a/b"),
        ("docker.io/librarian/nginx", "mirror/in/docker.io/librarian/nginx"),
        ("ghcr.io/acme/tool", "mirror/in/tool"),
        ("ghcr.io/acme/tools", "mirror/in/acme/tools"),
        ("ghcr.io/acme", "mirror/in/ghcr.io/acme"),
        ("quay.io/x/y", "mirror/in/x/y"),
        ("quay.io:443/x/y", "mirror/in/quay.io_443/x/y"),
    ];
    for (source, expected) in rows {
        let source: Repository = source.parse().unwrap();
        assert_eq!(site.target_path(&source).as_deref(), Ok(expected), "{source}");
    }
    let long: Repository = format!("docker.io/library/{}", "x".repeat(235)).parse().unwrap();
    assert!(site.target_path(&long).is_ok());
    let longer: Repository = format!("ghcr.io/acme/{}", "x".repeat(241)).parse().unwrap();
    assert!(site.target_path(&longer).is_err(), "over 255 characters");
    assert_eq!(site.keys, [Path::new("/etc/sealift/keys/a.pub"), Path::new("/etc/b.pub")]);
    assert_eq!(site.stubs, Stubs::Never);
}

#[test]
fn a_configuration() {
    let text = "apiVersion: sealift/v1\nkind: Config\nstore: store\nregistries:\n  index.docker.io:\n    \
                mirrors: [https://cache.corp/hub]\n  lab.corp:5000: {plainHttp: true}\n";
    let config =
        Config::parse(Path::new("/etc/sealift/config.yaml"), text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.store.as_deref(), Some(Path::new("/etc/sealift/store")));
    let hub: Registry = "docker.io".parse().unwrap();
    assert_eq!(config.registries[&hub].mirrors[0].as_str(), "https://cache.corp/hub");
    let lab: Registry = "lab.corp:5000".parse().unwrap();
    assert!(config.registries[&lab].plain_http);
    let empty = Config::parse(Path::new("c"), b"apiVersion: sealift/v1\nkind: Config\n").unwrap();
    assert!(empty.store.is_none() && empty.registries.is_empty());
}

#[test]
fn how_mistakes_are_shown() {
    let misspelt = SPEC.replace("missingPlatform: skip", "missingPlatfrom: skip");
    let several =
        SPEC.replace("15 2 * * 1-5", "0 0 31 2 *").replace("recheck: 1h 30m", "recheck: 1h 30m, verify: true");
    let secret = SPEC.replace("ghcr.io/acme", "bob:hunter2@ghcr.io/acme");
    for (name, text) in [("unknown_key", misspelt), ("several", several), ("secret", secret)] {
        let found = spec::parse(Path::new("specs/base-images.yaml"), text.as_bytes()).unwrap_err();
        insta::assert_snapshot!(name, found.render(false));
        let error = sealift::Error::from(found);
        assert_eq!(error.kind(), sealift::Kind::Usage);
        assert!(!error.to_string().starts_with("error"), "{error}");
    }
}

#[test]
fn only_the_coloured_text_moves_colours() {
    let found = spec::parse(Path::new("a\u{1b}[31m.yaml"), b"\"\\e[31m\": x").unwrap_err();
    assert!(found.render(true).contains('\u{1b}'));
    let plain = found.render(false) + &found.iter().map(ToString::to_string).collect::<String>();
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

fn parse_as_all(bytes: &[u8]) {
    let file = Path::new("x.yaml");
    let rendered =
        [spec::parse(file, bytes).map(drop), site::parse(file, bytes).map(drop), Config::parse(file, bytes).map(drop)];
    for found in rendered.into_iter().filter_map(Result::err) {
        assert!(!found.render(true).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        parse_as_all(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\PC\n\t\r:\\[\\]{}&*!|>'\"#@%,-]{0,200}") {
        parse_as_all(text.as_bytes());
    }

    /// Parts of a good document cut out, repeated and replaced: deeper than noise gets.
    #[test]
    fn no_damage_makes_it_panic(from in 0..SPEC.len(), length in 0..60usize, to in 0..SPEC.len(), noise in "\\PC{0,6}") {
        let part: String = SPEC.chars().skip(from).take(length).collect();
        let damaged = SPEC.replacen(&part, &noise, 1);
        parse_as_all(damaged.as_bytes());
        let inserted: String = SPEC.chars().take(to).chain(part.chars()).chain(SPEC.chars().skip(to)).collect();
        parse_as_all(inserted.as_bytes());
    }
}
