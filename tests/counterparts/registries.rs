//! The full way from and into registries that no distribution packages: distribution 3 with a password, which lists tags in
//! pages; olareg, which has the referrers API.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sealift::oci::Tag;

use super::support::{Settings, push_sample_as};
use super::*;

const LOGIN: (&str, &str) = ("carrier", "walnut-harbour-42-Gx");
/// The line of an htpasswd file: bcrypt, which is all that distribution takes.
const HTPASSWD: &str = "carrier:$2y$05$abcdefghijklmnopqrstuuGHHWbJgODghpZc73S6j9RCQLYZNWLja\n";

/// How long a registry may take to listen.
const STARTING_MAX: Duration = Duration::from_secs(20);

const TAGS: [&str; 5] = ["1", "2", "3", "4", "5"];

/// Distribution 3 behind a password; two tags are a page. `None` when the test is to be skipped.
async fn distribution(machine: &Machine) -> Option<DockerRegistry> {
    let program = Some(counterpart("registry")?);
    let htpasswd = machine.write("far/htpasswd", HTPASSWD);
    let sections = format!(
        "tags: {{maxtags: 2}}\nvalidation: {{manifests: {{indexes: {{platforms: none}}}}}}\n\
         auth: {{htpasswd: {{realm: test, path: \"{}\"}}}}",
        htpasswd.display()
    );
    DockerRegistry::start_with(Settings { program, sections, access_log: Some("log".into()), ..Settings::default() })
        .await
}

/// Writes docker's file with this password for both.
fn log_in(machine: &Machine, hosts: [&str; 2], password: &str) {
    let auth = STANDARD.encode(format!("{}:{password}", LOGIN.0));
    let auths: serde_json::Map<String, Value> =
        hosts.iter().map(|host| ((*host).to_owned(), serde_json::json!({ "auth": auth }))).collect();
    machine.write("docker/config.json", &serde_json::json!({ "auths": auths }).to_string());
}

/// Pulls `team/app` with all its tags, and exports it; the bundle.
async fn to_bundle(machine: &Machine, host: &str) -> String {
    let spec = format!(
        "apiVersion: sealift/v1\nkind: MirrorSpec\nname: met\ndefaults:\n  platforms: [{KEPT}]\n\
         images:\n  - source: {host}/team/app\n    tags: {{glob: [\"*\"], exclude: [\"sha256-*\"]}}\n"
    );
    machine.write("spec.yaml", &spec);
    machine.ok(&["key", "generate", "--out", "keys/exporter"]).await;
    machine.ok(&["pull", "spec.yaml", "--store", "store"]).await;
    let export = ["export", "met", "--store", "store", "--to", "drive", "--sign-key", "keys/exporter.key"];
    let bundle = machine.json(&export).await["folder"].as_str().unwrap().to_owned();
    machine.ok(&["verify", &bundle, "--key", "keys/exporter.pub", "--state", "state"]).await;
    bundle
}

async fn replay(machine: &Machine, status: i32, bundle: &str, host: &str) -> Value {
    let to = format!("{host}/mirror");
    let arguments = ["replay", bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", "state"];
    machine.json_to(status, &arguments).await["reports"][0]["images"].clone()
}

#[tokio::test]
async fn distribution_3_with_a_password_from_end_to_end() {
    let mut machine = Machine::new();
    let Some(source) = distribution(&machine).await else { return };
    let target = distribution(&machine).await.unwrap();
    let image = image();
    for tag in TAGS {
        push_sample_as(Some(LOGIN), &source.url(), "team/app", Some(tag), &image).await;
    }
    machine.set("DOCKER_CONFIG", machine.path("docker"));
    let hosts = [source.host(), target.host()];
    log_in(&machine, hosts, LOGIN.1);
    let bundle = to_bundle(&machine, source.host()).await;
    let lists = source.accesses().into_iter().filter(|access| access.path.contains("/tags/list?"));
    let pages = lists.filter(|access| access.status == 200 && access.path.contains("last=")).count();
    assert!(pages >= 2, "five tags and one of referrers, two on a page: {pages}");

    log_in(&machine, hosts, "wrong");
    let refused = replay(&machine, 4, &bundle, target.host()).await;
    assert!(refused[0]["problem"]["text"].as_str().unwrap().contains("401"), "{refused}");
    log_in(&machine, hosts, LOGIN.1);
    replay(&machine, 0, &bundle, target.host()).await;
    let repository = format!("mirror/{}/team/app", source.host().replace(':', "_"));
    let reader = Reader::logged_in(LOGIN, &target.url(), &repository);
    for tag in TAGS {
        assert_eq!(reader.manifest(tag).await.as_ref(), image.bytes(&image.root.digest), "{tag}");
    }
    // The other platform stayed behind, and what speaks about the image came along.
    assert_eq!(reader.manifest(image.child("linux", "arm64", "v8").unwrap().digest).await, None);
    let list = reader.document(Tag::referrers_fallback(&image.root.digest)).await;
    assert_eq!(list["manifests"][0]["digest"], image.referrers(&image.root.digest)[0].digest.to_string());
}

#[tokio::test]
async fn olareg_takes_a_sparse_index_with_stubs() {
    let Some(registry) = Olareg::start().await else { return };
    let profile = Machine::new().json(&["probe", &registry.host]).await;
    for (what, expected) in [("sparseIndex", "no"), ("stubs", "yes"), ("referrersApi", "yes"), ("foreignLayers", "no")]
    {
        assert_eq!(profile[what]["taken"], expected, "{what}: {profile}");
    }
}

/// A running olareg; killed when dropped.
pub struct Olareg {
    process: Child,
    pub host: String,
}

impl Olareg {
    /// `None` when the test is to be skipped.
    pub async fn start() -> Option<Self> {
        let mut command = Command::new(counterpart("olareg")?);
        command.args(["serve", "--addr", "127.0.0.1", "--port", "0", "--store-type", "mem"]);
        let mut olareg = Olareg { process: command.spawn().unwrap(), host: String::new() };
        let begun = Instant::now();
        // It does not say which port it took.
        while olareg.host.is_empty() {
            let ended = olareg.process.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < STARTING_MAX, "olareg did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
            olareg.host = listening(olareg.process.id()).map(|port| format!("127.0.0.1:{port}")).unwrap_or_default();
        }
        Some(olareg)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }
}

impl Drop for Olareg {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The port on which a process listens (proc(5), `/proc/net/tcp`: state `0A`).
fn listening(process: u32) -> Option<u16> {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let sockets: Vec<String> = open
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).ok()?;
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let own = words.get(3) == Some(&"0A") && sockets.iter().any(|inode| words.get(9) == Some(&inode.as_str()));
        own.then(|| u16::from_str_radix(words[1].split_once(':')?.1, 16).ok()).flatten()
    })
}

#[tokio::test]
async fn referrers_cross_from_api_to_api() {
    let Some(source) = Olareg::start().await else { return };
    let target = Olareg::start().await.unwrap();
    let (machine, image) = (Machine::new(), image());
    push_sample(&source.url(), "team/app", Some("1"), &image).await;
    let bundle = to_bundle(&machine, &source.host).await;
    let report = replay(&machine, 0, &bundle, &target.host).await;
    assert_eq!(report[0]["signatures"], serde_json::json!({"expected": 1, "present": 1}), "{report}");
    let reader = Reader::new(&target.url(), &format!("mirror/{}/team/app", source.host.replace(':', "_")));
    assert_eq!(reader.manifest("1").await.as_ref(), image.bytes(&image.root.digest));
    let referrer = image.referrers(&image.root.digest)[0].digest;
    assert_eq!(reader.referrers(&image.root.digest).await, [referrer]);
    assert_eq!(reader.manifest(referrer).await.as_ref(), image.bytes(&referrer));
    // Where the API is, nothing is kept under the fallback tag.
    assert_eq!(reader.tags().await, ["1"]);
}
