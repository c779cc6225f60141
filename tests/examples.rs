//! Each example in `mirror-specs/` is planned by the binary, against registries on this machine that hold what it asks
//! for. The plan as people and as scripts see it, byte counts included, is in `tests/snapshots/`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealift::sample::{ImageBuilder, SampleImage, pseudo_random, seed};
use sealift::serve::{MemoryShelf, Running};
use serde_json::Value;
use support::Machine;

/// A layer of about `size` bytes that is the same on every machine.
fn layer(builder: ImageBuilder, size: usize, number: u64) -> ImageBuilder {
    builder.layer_files_zstd(&[("data", &pseudo_random(size, number))])
}

/// An index for these platforms; `number` tells images apart.
fn image(number: u64, platforms: &[(&str, &str)]) -> SampleImage {
    let mut builder = layer(ImageBuilder::new(), 3_000, number);
    for (at, (architecture, variant)) in (1..).zip(platforms) {
        builder = builder.platform("linux", architecture, variant);
        builder = layer(builder, 10_000 + 1_000 * usize::try_from(at).unwrap(), number * 100 + at).attestation();
    }
    builder.build().unwrap()
}

const THREE: [(&str, &str); 3] = [("amd64", ""), ("arm64", "v8"), ("s390x", "")];

/// A Windows image whose base layer is foreign. Each tag has one build.
fn windows(number: u64, builds: &[&str]) -> SampleImage {
    let mut builder = ImageBuilder::new();
    for (at, build) in (1..).zip(builds) {
        builder = builder.platform("windows", "amd64", "").os_version(build).foreign_layer(
            "https://mcr.microsoft.com/v2/windows/blobs/base",
            40_000,
            number * 10 + at,
        );
        builder = layer(builder, 5_000, number * 10 + at);
    }
    builder.docker_format().build().unwrap()
}

/// What `pinned-tools.yaml` names by digest. The same calls make the same bytes, so the digests in the file hold.
fn pinned() -> [(&'static str, SampleImage); 4] {
    let signed = layer(ImageBuilder::new(), 3_000, 41)
        .platform("linux", "amd64", "")
        .layer_files_zstd(&[("scanner", &pseudo_random(20_000, 1))])
        .platform("linux", "arm64", "v8")
        .layer_files_zstd(&[("scanner", &pseudo_random(20_000, 2))])
        .referrer("application/spdx+json", b"{\"spdxVersion\":\"SPDX-2.3\"}")
        .cosign_tag("ghcr.io/acme/scanner", |payload| sealift::oci::Digest::of(payload).bytes().to_vec())
        .build()
        .unwrap();
    let linter = image(42, &THREE[..2]);
    let (agent, gateway) = (image(43, &THREE[..2]), image(44, &THREE));
    [("acme/scanner", signed), ("acme/linter", linter), ("acme/agent", agent), ("acme/gateway", gateway)]
}

/// Registries that the examples name, on this machine.
struct World {
    machine: Machine,
    registries: Vec<(&'static str, Running)>,
    /// Has nothing: what a mirror does not have is asked of the registry behind it.
    nothing: Running,
}

impl World {
    async fn start() -> Self {
        let nothing = Running::start(Arc::new(MemoryShelf::new())).await.unwrap();
        let mut machine = Machine::new();
        // The registries themselves are "reached" in plain HTTP through this proxy, so no test leaves the machine.
        machine.set("http_proxy", nothing.url());
        World { machine, registries: Vec::new(), nothing }
    }

    /// Adds a registry with these tags. An image that is named twice is one image.
    async fn with(mut self, host: &'static str, tagged: &[(&str, &str, &SampleImage)]) -> Self {
        let shelf = MemoryShelf::new();
        for (repository, tag, image) in tagged {
            seed(&shelf, repository, Some(&tag.parse().unwrap()), image).unwrap();
        }
        self.registries.push((host, Running::start(Arc::new(shelf)).await.unwrap()));
        self.write_config();
        self
    }

    fn write_config(&self) {
        let mut text = String::from("apiVersion: sealift/v1\nkind: Config\nregistries:\n");
        for (host, running) in &self.registries {
            text += &format!("  {host}: {{plainHttp: true, mirrors: [\"{}\"]}}\n", running.url());
        }
        self.machine.write("config.yaml", &text);
    }

    /// Plans an example, in both renderings, each with an empty store; compares with the snapshots.
    async fn plan(&self, name: &str) {
        let text = std::fs::read_to_string(examples().join(format!("{name}.yaml"))).unwrap();
        self.plan_text(name, &text).await;
    }

    async fn plan_text(&self, name: &str, text: &str) {
        let path = format!("mirror-specs/{name}.yaml");
        self.machine.write(&path, text);
        let plan = ["plan", &path, "--config", "config.yaml", "--store"];
        let human = self.machine.ok(&[&plan[..], &["one"]].concat()).await;
        let mut document = self.machine.json(&[&plan[..], &["two"]].concat()).await;
        redact(&mut document);
        let mut text = String::new();
        fold(&document, 0, &mut text);
        insta::assert_snapshot!(format!("{name}-human"), self.without_ports(&human.out));
        insta::assert_snapshot!(format!("{name}-json"), self.without_ports(&text));
    }

    fn without_ports(&self, text: &str) -> String {
        let running = self.registries.iter().map(|(_, running)| running).chain([&self.nothing]);
        running.fold(text.to_owned(), |text, running| text.replace(&running.address().to_string(), "127.0.0.1:PORT"))
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mirror-specs")
}

/// Takes out the time of the run, and nothing else.
fn redact(document: &mut Value) {
    for plan in document["plans"].as_array_mut().unwrap() {
        plan["created"] = "[time]".into();
        for image in plan["images"].as_array_mut().unwrap() {
            image["signaturesChecked"] = "[time]".into();
        }
    }
}

/// JSON with each object or array that is short enough on one line.
fn fold(value: &Value, indent: usize, text: &mut String) {
    const WIDTH: usize = 230;
    let line = value.to_string();
    let pad = "  ".repeat(indent + 1);
    let (open, close, items): (_, _, Vec<(String, &Value)>) = match value {
        Value::Object(members) if line.len() > WIDTH => {
            ('{', '}', members.iter().map(|(key, value)| (format!("{key:?}: "), value)).collect())
        }
        Value::Array(items) if line.len() > WIDTH => {
            ('[', ']', items.iter().map(|value| (String::new(), value)).collect())
        }
        _ => return text.push_str(&line),
    };
    text.push(open);
    for (at, (key, item)) in items.iter().enumerate() {
        *text += &format!("{}\n{pad}{key}", if at == 0 { "" } else { "," });
        fold(item, indent + 1, text);
    }
    *text += &format!("\n{}{close}", "  ".repeat(indent));
}

#[tokio::test]
async fn base_images() {
    let nginx = [10, 11, 12, 13, 14, 15, 16].map(|number| image(number, &THREE));
    let (debian, slim) = (image(20, &THREE), image(21, &THREE));
    let postgres = [30, 31, 32].map(|number| image(number, &THREE));
    let tagged = [
        ("library/nginx", "1.25.5", &nginx[0]),
        ("library/nginx", "1.26.3", &nginx[1]),
        ("library/nginx", "1.26.3-alpine", &nginx[2]),
        ("library/nginx", "1.27.4", &nginx[3]),
        ("library/nginx", "1.27-bookworm", &nginx[3]),
        ("library/nginx", "1.27.4-alpine", &nginx[4]),
        ("library/nginx", "1.27.4-perl", &nginx[5]),
        ("library/nginx", "1.28.0", &nginx[6]),
        ("library/nginx", "1.29.1", &nginx[1]),
        ("library/nginx", "2.0.0", &nginx[0]),
        ("library/nginx", "latest", &nginx[6]),
        ("library/debian", "bookworm", &debian),
        ("library/debian", "bookworm-slim", &slim),
        ("library/debian", "trixie", &slim),
        ("library/postgres", "15.13-bookworm", &postgres[0]),
        ("library/postgres", "16.9-bookworm", &postgres[0]),
        ("library/postgres", "17.4-bookworm", &postgres[1]),
        ("library/postgres", "17.5-bookworm", &postgres[2]),
        ("library/postgres", "17.6", &postgres[0]),
        ("library/postgres", "18.0-bookworm", &postgres[0]),
    ];
    World::start().await.with("docker.io", &tagged).await.plan("base-images").await;
}

#[tokio::test]
async fn pinned_tools() {
    let images = pinned();
    let text = std::fs::read_to_string(examples().join("pinned-tools.yaml")).unwrap();
    for (name, image) in &images {
        assert!(text.contains(&image.root.digest.to_string()), "{name} has the digest {}", image.root.digest);
    }
    let tagged: Vec<_> = images.iter().map(|(name, image)| (*name, "latest", image)).collect();
    World::start().await.with("ghcr.io", &tagged).await.plan("pinned-tools").await;
}

#[tokio::test]
async fn vendor_windows() {
    let core = windows(50, &["10.0.17763.7314", "10.0.14393.8066"]);
    let (older, newer) = (windows(51, &["10.0.17763.7314"]), windows(52, &["10.0.20348.3692"]));
    let tagged = [
        ("windows/servercore", "ltsc2019", &core),
        ("windows/nanoserver", "ltsc2019", &older),
        ("windows/nanoserver", "ltsc2022", &newer),
        ("windows/nanoserver", "ltsc2025", &newer),
    ];
    World::start().await.with("mcr.microsoft.com", &tagged).await.plan("vendor-windows").await;
}

/// `localhost:5000` may be taken on this machine, so the example is planned with the port of a free one.
#[tokio::test]
async fn everything_from_a_team() {
    let shelf = MemoryShelf::new();
    let app = [60, 61].map(|number| image(number, &THREE[..2]));
    let worker = [62, 63].map(|number| image(number, &THREE[..1]));
    let tags = [
        ("team/app", "0.9.0", &app[0]),
        ("team/app", "1.0.0", &app[0]),
        ("team/app", "1.1.0", &app[0]),
        ("team/app", "1.2.0", &app[0]),
        ("team/app", "1.2.1", &app[1]),
        ("team/app", "1.3.0", &app[1]),
        ("team/app", "1.3.0-debug", &app[0]),
        ("team/app", "latest", &app[1]),
        ("team/app", "pr-17", &app[0]),
        ("team/worker", "1.9.0", &worker[0]),
        ("team/worker", "2.0.0", &worker[0]),
        ("team/worker", "nightly-20261101", &worker[1]),
    ];
    for (repository, tag, image) in tags {
        seed(&shelf, repository, Some(&tag.parse().unwrap()), image).unwrap();
    }
    let mut world = World::start().await;
    let registry = Running::start(Arc::new(shelf)).await.unwrap();
    let text = std::fs::read_to_string(examples().join("everything-from-a-team.yaml")).unwrap();
    assert!(text.contains("localhost:5000/"));
    let text = text.replace("localhost:5000/", &format!("{}/", registry.address()));
    world.registries.push(("localhost", registry));
    world.machine.write("config.yaml", "apiVersion: sealift/v1\nkind: Config\n");
    world.plan_text("everything-from-a-team", &text).await;
}

#[test]
fn no_example_is_left_out() {
    let mut names: Vec<String> =
        std::fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["base-images.yaml", "everything-from-a-team.yaml", "pinned-tools.yaml", "vendor-windows.yaml"]);
}
