//! Documents with one mistake each: the message names what is wrong, at the place where it stands.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use sealift::config::Config;
use sealift::yaml::{Diagnostic, Diagnostics, SIZE_MAX};
use sealift::{site, spec};

/// Stands in a document before the place that the diagnostic must point at.
const MARK: char = '‸';

const SPEC: &str = "apiVersion: sealift/v1\nkind: MirrorSpec\nname: x\n";
const SITE: &str = "apiVersion: sealift/v1\nkind: Site\nname: x\nregistry: registry.corp:5000\nkeys: [a.pub]\n";
const CONFIG: &str = "apiVersion: sealift/v1\nkind: Config\n";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(text: &str) -> Result<(), Diagnostics> {
    let file = Path::new("x.yaml");
    if text.contains("kind: Site") {
        site::parse(file, text.as_bytes()).map(drop)
    } else if text.contains("kind: Config") {
        Config::parse(file, text.as_bytes()).map(drop)
    } else {
        spec::parse(file, text.as_bytes()).map(drop)
    }
}

/// Line and column of the mark, and the text without it.
fn unmark(marked: &str) -> (usize, usize, String) {
    let (before, after) = marked.split_once(MARK).unwrap_or_else(|| panic!("no mark in {marked}"));
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    (line, column, format!("{before}{after}"))
}

fn only(text: &str, found: Diagnostics) -> Diagnostic {
    let all: Vec<_> = found.iter().cloned().collect();
    assert_eq!(all.len(), 1, "{text}\n{found}");
    all.into_iter().next().unwrap()
}

/// What is not as expected about the document, if anything is.
fn mismatch(marked: &str, expected: &str) -> Option<String> {
    let (line, column, text) = unmark(marked);
    let Err(found) = parse(&text) else { return Some(format!("this was taken:\n{text}")) };
    let rendered = found.render(false);
    let all: Vec<&Diagnostic> = found.iter().collect();
    let [one] = all[..] else { return Some(format!("not one diagnostic but\n{rendered}")) };
    let place = one.place.as_ref().map(|place| (place.line, place.column));
    let fault = one.fault.clone();
    let said =
        format!("{} | {} | {}", fault.message, fault.expected.unwrap_or_default(), fault.help.unwrap_or_default());
    let good = place == Some((line, column))
        && said.contains(expected)
        && rendered.contains(&format!("x.yaml:{line}:{column}"));
    (!good).then(|| format!("expected {expected:?} at {line}:{column}, found {place:?}\n{rendered}"))
}

/// Checks every row before it complains.
fn check<S: AsRef<str>>(rows: impl IntoIterator<Item = (S, &'static str)>) {
    let wrong: Vec<String> =
        rows.into_iter().filter_map(|(marked, expected)| mismatch(marked.as_ref(), expected)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A spec whose one image has `extra` lines besides its source.
fn with_image(extra: &str) -> String {
    format!("{SPEC}images:\n- source: docker.io/library/nginx\n  platforms: [linux/amd64]\n{extra}")
}

/// A good spec with `extra` at its end.
fn with(extra: &str) -> String {
    format!(
        "{SPEC}images:\n- {{source: docker.io/library/nginx, platforms: [linux/amd64], tags: {{exact: ['1']}}}}\n{extra}"
    )
}

#[test]
fn syntax_and_shape() {
    let rows = [
        ("‸", "the document is empty"),
        ("‸# nothing but a comment\n", "the document is empty"),
        ("‸just text", "a mapping that begins with apiVersion"),
        ("‸- a\n- b\n", "a mapping that begins with apiVersion"),
        ("apiVersion: sealift/v1\nkind: MirrorSpec\nname: ‸[a\n", "unclosed bracket"),
        ("apiVersion: sealift/v1\nkind: MirrorSpec\n name‸: x\n", "not valid YAML"),
        ("apiVersion: sealift/v1\n‸\tkind: MirrorSpec\n", "indent with spaces"),
        ("apiVersion: sealift/v1\nname: ‸\"x", "unclosed quote"),
        ("‸kind: MirrorSpec\n", "the key `apiVersion` is missing | `apiVersion: sealift/v1`"),
        ("‸apiversion: sealift/v1\nkind: MirrorSpec\n", "`apiversion` is written `apiVersion`"),
        ("apiVersion: ‸sealift/v2\nkind: MirrorSpec\n", "wrong apiVersion | `sealift/v1`"),
        ("apiVersion: sealift/v1\nkind: ‸Mirror\n", "wrong kind | `MirrorSpec`"),
        ("apiVersion: sealift/v1\nkind: MirrorSpec\n‸---\na: b\n", "a second document"),
        ("apiVersion: sealift/v1\nkind: MirrorSpec\nname: &a ‸x\n", "anchors"),
        ("apiVersion: sealift/v1\nkind: MirrorSpec\nname: !x ‸x\n", "tags (!name)"),
        ("apiVersion: sealift/v1\nkind: MirrorSpec\n? ‸[a]\n: b\n", "a key is a mapping or a list"),
    ];
    check(rows);
}

#[test]
fn keys_and_types() {
    let rows = [
        (with("‸name: y\n"), "`name` stands here a second time"),
        (with_image("  tags:\n    exact: [a]\n    ‸exact: [b]\n"), "`exact` stands here a second time"),
        (with("‸imags: []\n"), "unknown key `imags`"),
        (with("‸exports: {}\n"), "did you mean `export`?"),
        (with_image("  ‸tag_s: {exact: [a]}\n"), "did you mean `tags`?"),
        (with_image("  tags: {‸regex: x}\n"), "one of exact, semver, variants, glob, newest, exclude"),
        (with("defaults: {‸missing_platform: skip}\n"), "did you mean `missingPlatform`?"),
        (format!("‸{SPEC}"), "the key `images` is missing"),
        (format!("{SPEC}images:\n- ‸tags: {{exact: [a]}}\n"), "the key `source` is missing"),
        (format!("{SPEC}images: ‸none\n"), "| a list"),
        (format!("{SPEC}images:\n- ‸docker.io/library/nginx\n"), "| a mapping (source, and tags or digest)"),
        (with_image("  tags: ‸[a]\n"), "a list | a mapping (exact, semver"),
        (with_image("  tags: {exact: ‸a}\n"), "| a list"),
        (with_image("  tags: {glob: ['*'], newest: ‸many}\n"), "| a whole number"),
        (with_image("  tags: {glob: ['*'], newest: ‸-1}\n"), "| a whole number"),
        (with_image("  tags: {exact: [‸{a: b}]}\n"), "| text"),
        (with_image("  tags: {exact: [a]}\n  index: ‸sprase\n"), "did you mean `sparse`?"),
        (with("defaults:\n  missingPlatform: ‸ignore\n"), "unknown value `ignore` | one of fail, skip"),
        (with("schedule: {cron: '0 0 * * *', catchUp: ‸maybe}\n"), "| true or false"),
        (with("schedule: ‸daily\n"), "| a mapping (cron, timezone, jitter, catchUp)"),
    ];
    check(rows);
}

#[test]
fn names_and_images() {
    let rows = [
        (with("").replace("name: x", "name: ‸Base_Images"), "is no name"),
        (with("").replace("name: x", &format!("name: ‸{}", "x".repeat(64))), "is no name"),
        (format!("{SPEC}‸images: []\n"), "`images` is empty"),
        (with("").replace("docker.io/library/nginx", "‸nginx"), "the host is always written out"),
        (with("").replace("docker.io/library/nginx", "‸docker.io/library/nginx:1.27"), "has a tag"),
        (with("").replace("docker.io/library/nginx", "‸docker.io/nginx@sha256:00"), "has a digest"),
        (with("").replace("docker.io/library/nginx", "‸docker.io/library/Nginx"), "illegal"),
        (with("").replace("docker.io/library/nginx", &format!("‸a.example/{}", "x".repeat(250))), "name on the target"),
        (with("").replace("docker.io/library/nginx", "‸\"[::1]:5000/x\""), "name on the target"),
        (format!("{SPEC}images:\n- ‸source: a.example/x\n  tags: {{exact: [a]}}\n"), "no platforms are chosen"),
        (with_image("").replace("- source", "- ‸source"), "neither tags nor a digest"),
        (with_image(&format!("  ‸digest: {DIGEST}\n")), "`digest` without `tag`"),
        (with_image("  ‸tag: a\n"), "`tag` without `digest`"),
        (with_image(&format!("  tags: {{exact: [a]}}\n  ‸digest: {DIGEST}\n  tag: b\n")), "both `tags` and `digest`"),
        (with_image("  digest: ‸sha256:00\n  tag: b\n"), "digest"),
        (with_image(&format!("  digest: {DIGEST}\n  tag: ‸'.b'\n")), "is no tag"),
        (with_image("  tags: {exact: [a]}\n").replace("[linux/amd64]", "[‸linux/x64]"), "no images exist"),
        (with_image("  tags: {exact: [a]}\n").replace("[linux/amd64]", "[‸linux]"), "two or three parts"),
        (
            with_image("  tags: {exact: [a]}\n").replace("platforms: [linux/amd64]", "‸platforms: []"),
            "`platforms` is empty",
        ),
        (
            with_image("  tags: {exact: [a]}\n").replace("[linux/amd64]", "[linux/arm64, ‸linux/arm64/v8]"),
            "another spelling",
        ),
        (with("defaults: {platforms: [‸amd64]}\n"), "two or three parts"),
        (
            with_image("  tags: {exact: [a]}\n  index: child\n")
                .replace("[linux/amd64]", "‸[linux/amd64, linux/arm64]"),
            "exactly one platform",
        ),
        (
            with_image("  tags: {exact: [a]}\n  index: child\n").replace("[linux/amd64]", "‸[all]"),
            "exactly one platform",
        ),
        (
            with_image("  tags: {exact: [a]}\n").replace("platforms: [linux/amd64]", "index: ‸child")
                + "defaults: {platforms: [linux/*]}\n",
            "the platforms of docker.io/library/nginx are: linux/*",
        ),
        (
            with_image("  tags: {exact: [a]}\n- ‸source: docker.io/nginx\n  platforms: [all]\n  tags: {exact: [a]}\n"),
            "the same images of docker.io/library/nginx are chosen at x.yaml:5",
        ),
        (
            with_image(&format!(
                "  tags: {{exact: [a]}}\n- ‸source: docker.io/nginx\n  platforms: [all]\n  digest: {DIGEST}\n  tag: a\n"
            )),
            "docker.io/library/nginx:a is also chosen at x.yaml:5",
        ),
    ];
    check(rows);
}

#[test]
fn tag_rules() {
    let rows = [
        ("‸tags: {}", "`tags` takes nothing"),
        ("tags: {exact: [a, ‸a]}", "a second time"),
        ("tags: {exact: [‸a/b]}", "is no tag"),
        ("tags: {semver: ‸'>=1.26 <2'}", "joined by commas"),
        ("tags: {semver: ‸'1 || 2'}", "is no range"),
        ("tags: {semver: ‸''}", "is no range"),
        ("tags: {glob: [a, ‸'[']}", "is no pattern"),
        ("tags: {glob: ['*'], exclude: [‸'']}", "* takes every tag"),
        ("tags: {semver: '1', ‸variants: []}", "for the plain variant"),
        ("tags: {semver: '1', variants: [‸'a b']}", "is no variant"),
        ("tags: {glob: ['*'], newest: ‸0}", "1 or more"),
        ("tags: {exact: [a], ‸newest: 3}", "`newest` has nothing to work on"),
        ("tags: {exact: [a], ‸exclude: ['*']}", "`exclude` has nothing to work on"),
        ("tags: {glob: ['*'], ‸variants: [x]}", "`variants` has nothing to work on"),
    ];
    check(rows.map(|(marked, expected)| (with_image(&format!("  {marked}\n")), expected)));
}

#[test]
fn schedule_and_export() {
    let rows = [
        ("schedule: {cron: ‸0 0 31 2 *}", "never fires"),
        ("schedule: {cron: ‸0 25 * * *}", "hour `25`"),
        ("schedule: {cron: ‸0 0 0 * * *}", "no seconds"),
        ("schedule: {cron: ‸'@daily'}", "@ words are not taken"),
        ("schedule: {cron: 0 0 * * *, timezone: ‸Mars/Olympus}", "unknown time zone"),
        ("schedule: {cron: 0 0 * * *, jitter: ‸soon}", "is no duration"),
        ("schedule: {cron: 0 0 * * *, jitter: ‸-5m}", "is no duration"),
        ("schedule: {cron: 0 0 * * *, jitter: ‸25h}", "less than 24 hours"),
        ("schedule: ‸{timezone: UTC}", "the key `cron` is missing"),
        ("export: {volumeSize: ‸big}", "is no size"),
        ("export: {volumeSize: ‸1KiB}", "64KiB or more"),
        ("export: {to: ‸''}", "the path is empty"),
        ("target: {profile: ‸''}", "the path is empty"),
        ("target: {sparseRefused: ‸full}", "without a profile"),
        ("target: {sparseRefused: ‸trim}", "without a profile"),
        ("defaults: {signatures: {recheck: ‸daily}}", "is no duration"),
        ("defaults: {signatures: {recheck: ‸1 month}}", "is no duration"),
    ];
    check(rows.map(|(marked, expected)| (with(&format!("{marked}\n")), expected)));
}

#[test]
fn what_is_not_honoured_is_refused() {
    let rows = [
        "defaults: {foreignLayers: {policy: ‸include}}",
        "defaults: {foreignLayers: {policy: ‸require}}",
        "defaults: {foreignLayers: {hosts: ‸[mcr.microsoft.com]}}",
        "defaults: {foreignLayers: {acknowledge: ‸ticket}}",
        "defaults: {signatures: {verify: ‸true}}",
        "defaults: {signatures: {policies: ‸{}}}",
        "export: {baseline: {from: ‸acknowledged}}",
        "export: {baseline: {from: ‸drive}}",
        "export: {baseline: {site: ‸enclave-a}}",
    ];
    check(rows.map(|marked| (with(&format!("{marked}\n")), "not honoured by this version: ")));
    check(rows.map(|marked| (with(&format!("{marked}\n")), " | use ")));
    let rows = ["threshold: ‸2", "trust: ‸{policies: []}"];
    check(rows.map(|marked| (format!("{SITE}{marked}\n"), "not honoured by this version: ")));
}

#[test]
fn sites_and_configurations() {
    let rows = [
        (format!("{SITE}prefix: ‸/mirror\n"), "illegal"),
        (format!("{SITE}stubs: ‸maybe\n"), "one of allow, never"),
        (format!("{SITE}rewrite: [{{from: ‸'*', to: 'x/*'}}]\n"), "docker.io/library/*"),
        (format!("{SITE}rewrite: [{{from: ‸docker.io/*/x, to: x}}]\n"), "only as the last part"),
        (format!("{SITE}rewrite: [{{from: docker.io/library/*, to: ‸hub}}]\n"), "or neither"),
        (format!("{SITE}rewrite: [{{from: docker.io/library/*, to: ‸Hub/*}}]\n"), "illegal"),
        (format!("{SITE}rewrite: [{{from: a.b/x, to: y}}, {{from: ‸a.b/x, to: z}}]\n"), "never reached"),
        (SITE.replace("registry.corp:5000", "‸registry.corp:none"), "the port is no number"),
        (SITE.replace("keys: [a.pub]", "‸keys: []"), "`keys` is empty"),
        (SITE.replace("name: x", "name: ‸X"), "is no name"),
        (format!("{CONFIG}registries: {{‸not a host: {{}}}}\n"), "is no registry"),
        (format!("{CONFIG}registries: {{a.b: {{mirrors: [‸mirror.corp]}}}}\n"), "is no address of a mirror"),
        (format!("{CONFIG}registries: {{a.b: {{mirrors: [‸ftp://mirror.corp]}}}}\n"), "neither https nor http"),
        (format!("{CONFIG}registries: {{a.b: {{mirrors: [‸https://mirror.corp/?x]}}}}\n"), "it has a ? or #"),
        (format!("{CONFIG}registries: {{docker.io: {{}}, ‸index.docker.io: {{}}}}\n"), "another name of docker.io"),
        (format!("{CONFIG}registries: {{a.b: {{‸plainHTTP: true}}}}\n"), "did you mean `plainHttp`?"),
        (format!("{CONFIG}store: ‸''\n"), "the path is empty"),
    ];
    check(rows);
    let site_as_spec = spec::parse(Path::new("x.yaml"), SITE.as_bytes()).map(drop).unwrap_err();
    assert_eq!(site_as_spec.iter().next().unwrap().fault.message, "this file is a Site");
}

/// A configuration with `rest` below one registry.
fn with_registry(rest: &str) -> String {
    format!("{CONFIG}registries:\n  a.b:\n    {rest}\n")
}

#[test]
fn how_registries_are_reached() {
    let rows = [
        (with_registry("tls: ‸ca.pem"), "| a mapping (ca, certificate, key)"),
        (with_registry("tls: {ca: ‸''}"), "the path is empty | a file of CA certificates"),
        (with_registry("tls: {certificate: ‸'', key: a.key}"), "the path is empty | a file with a certificate"),
        (with_registry("tls: {certificate: a.pem, key: ‸''}"), "the path is empty | a file with its private key"),
        (with_registry("tls: {ca: ‸[a.pem]}"), "| text"),
        (with_registry("tls: ‸{certificate: a.pem}"), "`certificate` and `key` belong together | both, or neither"),
        (with_registry("tls: ‸{ca: ca.pem, key: a.key}"), "`certificate` and `key` belong together | both, or neither"),
        (with_registry("tls: {‸cert: a.pem}"), "unknown key `cert`"),
        (with_registry("tls: {‸insecure: true}"), "unknown key `insecure`"),
        (with_registry("timeouts: ‸20s"), "| a mapping (connect, idle)"),
        (with_registry("timeouts: {connect: ‸soon}"), "\"soon\" is no duration"),
        (with_registry("timeouts: {connect: ‸0s}"), "\"0s\" is out of bounds | 1s to 1h"),
        (with_registry("timeouts: {idle: ‸2h}"), "\"2h\" is out of bounds | 1s to 1h"),
        (with_registry("timeouts: {‸read: 20s}"), "unknown key `read`"),
        (
            with_registry("limits: {‸requests: 0}").replace("‸requests: ", "requests: ‸"),
            "`requests` is out of bounds | 1 to 256",
        ),
        (with_registry("limits: {requests: ‸257}"), "`requests` is out of bounds | 1 to 256"),
        (with_registry("limits: {requests: ‸-1}"), "| a whole number"),
        (with_registry("limits: {requestsPerSecond: ‸100001}"), "`requestsPerSecond` is out of bounds | 1 to 100000"),
        (with_registry("limits: {bandwidth: ‸big}"), "\"big\" is no size"),
        (
            with_registry("limits: {bandwidth: ‸1KiB}"),
            "1024 bytes a second are too few | 16KiB or more, or `unlimited`",
        ),
        (with_registry("limits: {reserve: ‸many}"), "| a whole number"),
        (with_registry("limits: {‸requestPerSecond: 5}"), "did you mean `requestsPerSecond`?"),
    ];
    check(rows);
}

#[test]
fn how_much_is_used() {
    let window = |rest: &str| format!("{CONFIG}limits:\n  windows:\n  - {rest}\n");
    let rows = [
        (format!("{CONFIG}limits: ‸50MiB\n"), "| a mapping (bandwidth, timezone, windows)"),
        (format!("{CONFIG}limits: {{bandwidth: ‸fast}}\n"), "\"fast\" is no size"),
        (format!("{CONFIG}limits: {{bandwidth: ‸1B}}\n"), "1 bytes a second are too few"),
        (format!("{CONFIG}limits: {{timezone: ‸Europe/Berlyn}}\n"), "unknown time zone \"Europe/Berlyn\""),
        (format!("{CONFIG}limits: {{windows: ‸night}}\n"), "| a list"),
        (window("‸{from: '07:00', to: '19:00'}"), "the key `bandwidth` is missing"),
        (window("{from: ‸'7', to: '19:00', bandwidth: 5MiB}"), "\"7\" is no time of day | HH:MM"),
        (window("{from: '07:00', to: ‸'25:00', bandwidth: 5MiB}"), "\"25:00\" is no time of day"),
        (window("{from: '07:00', to: ‸'07:00', bandwidth: 5MiB}"), "the window is empty: it ends where it begins"),
        (window("{from: '07:00', to: '19:00', bandwidth: ‸slow}"), "\"slow\" is no size"),
        (window("{days: ‸[], from: '07:00', to: '19:00', bandwidth: 5MiB}"), "no day is named"),
        (
            window("{days: [‸monday], from: '07:00', to: '19:00', bandwidth: 5MiB}"),
            "unknown value `monday` | one of mon",
        ),
    ];
    check(rows);
}

#[test]
fn credentials_are_refused_and_not_shown() {
    let rows = [
        with("").replace("docker.io/library/nginx", "‸bob:hunter2@a.example/x"),
        with("").replace("docker.io/library/nginx", "\"‸https://bob:hunter2@a.example/x\"").replace("\"‸", "‸\""),
        with_image("  tags: {exact: [a]}\n  ‸password: hunter2\n"),
        format!("{CONFIG}registries:\n  a.b:\n    mirrors: [‸https://bob:hunter2@mirror.corp]\n"),
        format!("{CONFIG}registries:\n  a.b:\n    ‸token: hunter2\n"),
        format!("{CONFIG}registries:\n  a.b: {{‸auth: {{x: hunter2}}}}\n"),
        format!("{CONFIG}registries:\n  ? ‸bob:hunter2@a.b\n  : {{}}\n"),
    ];
    for marked in rows {
        check([(&marked, "docker login")]);
        let (_, _, text) = unmark(&marked);
        let found = parse(&text).unwrap_err();
        assert!(!found.render(true).contains("hunter2"), "{found}");
    }
    let broken = parse("apiVersion: sealift/v1\nkind: Config\na: [\"https://bob:hunter2@a.b\"\n").unwrap_err();
    assert!(!broken.to_string().contains("hunter2"), "{broken}");
}

#[test]
fn several_mistakes_are_said_at_once() {
    let text = with("export: {volumeSize: big}\nschedule: {cron: x}\n").replace("name: x", "name: X");
    let found = parse(&text).unwrap_err();
    let lines: Vec<usize> = found.iter().filter_map(|one| one.place.as_ref().map(|place| place.line)).collect();
    assert_eq!(lines, [3, 6, 7], "{found}");
    let doubled = parse("a: 1\na: 2\na: 3\nb: 1\nb: 2\n").unwrap_err();
    assert_eq!(doubled.iter().count(), 3);
}

#[test]
fn a_few_lines_of_aliases_unfold_to_nothing() {
    let mut laughs = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (name, below) in ('b'..='i').zip('a'..) {
        laughs += &format!("{name}: &{name} [*{below}, *{below}, *{below}, *{below}, *{below}, *{below}, *{below}]\n");
    }
    let found = parse(&laughs).unwrap_err();
    assert!(found.to_string().contains("anchors (&name) and aliases (*name) are not taken"), "{found}");
}

#[test]
fn bounds_hold() {
    let flat = format!("{SPEC}images: [{}]\n", "a,".repeat(200_000));
    let rows = [
        ("[".repeat(100_000), "not valid YAML"),
        (format!("a: {}{}", "[".repeat(40), "]".repeat(40)), "lie in each other"),
        ("- ".repeat(100_000), "lie in each other"),
        (flat, "keys and values"),
        ("x".repeat(SIZE_MAX as usize + 1), "larger than 1024 KiB"),
    ];
    for (text, expected) in rows {
        let found = parse(&text).unwrap_err().to_string();
        assert!(found.contains(expected), "{}", found.chars().take(500).collect::<String>());
    }
    let largest = format!("{}{}", with(""), "#".repeat(SIZE_MAX as usize - with("").len()));
    assert!(parse(&largest).is_ok(), "a document of exactly the limit is taken");
}

#[test]
fn files_that_cannot_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    let missing = spec::load(&folder.path().join("none.yaml")).unwrap_err().to_string();
    assert!(missing.contains("none.yaml: cannot be read"), "{missing}");
    let not_file = spec::load(folder.path()).unwrap_err().to_string();
    assert!(not_file.contains("is a folder"), "{not_file}");
    let large = folder.path().join("large.yaml");
    std::fs::write(&large, vec![b' '; SIZE_MAX as usize + 1]).unwrap();
    assert!(spec::load(&large).unwrap_err().to_string().contains("larger than"));
    let latin = spec::parse(Path::new("x.yaml"), b"a: b\nc: \xe4\n").unwrap_err().to_string();
    assert!(latin.contains("line 2 is not UTF-8"), "{latin}");
}

#[test]
fn a_stream_comes_from_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let files = [write("a.yaml", &with("")), write("b.yaml", &with("")), write("c.yaml", "x")];
    let found = spec::load_all(&files).unwrap_err();
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("b.yaml:3:7: the stream `x` is also in "), "{lines:?}");
    assert!(lines[1].contains("c.yaml:1:1: not a MirrorSpec"), "{lines:?}");
    assert_eq!(spec::load_all(&files[..1]).unwrap().len(), 1);
}

#[test]
fn windows_line_ends_and_marks_move_nothing() {
    let (line, column, text) = unmark(&with("export: {volumeSize: ‸big}\n"));
    for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}"), format!("# ümläute 🚢\n{text}")] {
        let place = only(&text, parse(&text).unwrap_err()).place.unwrap();
        let line = line + usize::from(text.starts_with('#'));
        assert_eq!((place.line, place.column), (line, column), "{text:?}");
    }
}
