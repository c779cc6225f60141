//! Layers that are on a vendor's web server (nginx, TLS by a private CA) and not in the registry: a Windows-shaped image with
//! Docker's media types, and a Linux image whose root file system is such a layer.

use super::support::{Authority, Nginx};
use super::*;

/// The text that allows it.
const ACKNOWLEDGE: &str = "ticket LEGAL-1742";

/// A login that is for the registry, and never for a vendor.
const CANARY: &str = "Y2Fycmllcjp3YWxudXQtaGFyYm91ci00Mi1HeA==";

/// Both registries, the vendor, and a machine that believes its CA.
struct Vendor {
    machine: Machine,
    web: Nginx,
    files: tempfile::TempDir,
    source: DockerRegistry,
    _ca: Authority,
    windows: SampleImage,
    linux: SampleImage,
}

impl Vendor {
    /// `None` when the test is to be skipped.
    async fn start() -> Option<Self> {
        let (ca, busybox) = (Authority::new()?, debian_busybox_image()?);
        let (server, files) = (ca.server("IP:127.0.0.1,DNS:vendor.test"), tempfile::tempdir().unwrap());
        let (certificate, key, root) = (server.certificate.display(), server.key.display(), files.path().display());
        let web = Nginx::start(|port| {
            format!(
                "log_format all '$status $request_method $uri auth=\"$http_authorization\" cookie=\"$http_cookie\"';\n\
                 server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
                 access_log log all; root {root};\n\
                 location = /short {{ return 302 /base.tar.gz; }} }}"
            )
        });
        let web = web.await?;
        let sections = "validation: {manifests: {urls: {allow: [\".*\"]}}}".to_owned();
        let source = DockerRegistry::start_with(Settings { sections, ..Settings::default() }).await?;
        let url = |name: &str| format!("https://{}/{name}", web.host());
        let windows = ImageBuilder::new()
            .platform("windows", "amd64", "")
            .os_version("10.0.17763.7314")
            .foreign_layer(&url("short"), 700_000, 1)
            .foreign_layer(&url("update.tar.gz"), 300_000, 2)
            .random_layer(5_000, 3)
            .docker_format()
            .build()
            .unwrap();
        let linux = with_foreign_root(&busybox, &url("rootfs.tar.gz"));
        let keep = |name: &str, bytes: &[u8]| std::fs::write(files.path().join(name), bytes).unwrap();
        keep("base.tar.gz", &windows.foreign[0].1);
        keep("update.tar.gz", &windows.foreign[1].1);
        keep("rootfs.tar.gz", &linux.foreign[0].1);
        push_sample(&source.url(), "windows/core", Some("ltsc2019"), &windows).await;
        push_sample(&source.url(), "team/rootfs", Some("1"), &linux).await;
        let mut machine = Machine::new();
        let config = format!(
            "apiVersion: sealift/v1\nkind: Config\nregistries:\n  \"{}\": {{tls: {{ca: \"{}\"}}}}\n",
            web.host(),
            ca.certificate().display()
        );
        let config = machine.write("config.yaml", &config);
        machine.set("SEALIFT_CONFIG", config);
        let auths = serde_json::json!({"auths": {source.host(): {"auth": CANARY}, web.host(): {"auth": CANARY}}});
        machine.write(".docker/config.json", &auths.to_string());
        Some(Vendor { machine, web, files, source, _ca: ca, windows, linux })
    }

    /// Writes a spec of both images; `more` goes to its end.
    fn spec(&self, foreign: &str, more: &str) {
        let foreign = format!("foreignLayers: {{{foreign}}}");
        let images = ["windows/core; ltsc2019", "team/rootfs; 1"].map(|image| {
            let (name, tag) = image.split_once("; ").unwrap();
            (format!("{}/{name}", self.source.host()), format!("tags: {{exact: [\"{tag}\"]}}; {foreign}"))
        });
        let images = images.each_ref().map(|(source, rest)| (source.clone(), rest.as_str()));
        let text = spec("foreign", "\"windows/amd64:10.0.17763.*\", linux/amd64", &images);
        // Each image has one of them.
        let text = text.replace("images:\n", "  missingPlatform: skip\nimages:\n");
        self.machine.write("spec.yaml", &format!("{text}{more}"));
    }

    fn wanting(&self, policy: &str, more: &str) {
        let host = self.web.host();
        let hosts = format!("hosts: [\"{host}\"], allowPrivate: [\"{host}\"]");
        self.spec(&format!("policy: {policy}, {hosts}, acknowledge: {ACKNOWLEDGE}"), more);
    }

    fn foreign(&self) -> [&(Descriptor, bytes::Bytes); 3] {
        [&self.windows.foreign[0], &self.windows.foreign[1], &self.linux.foreign[0]]
    }

    /// Which of the foreign layers, and of the tags, `target` has; each with the right bytes.
    async fn arrived(&self, target: &DockerRegistry) -> (Vec<bool>, Vec<bool>) {
        let host = self.source.host().replace(':', "_");
        let at = |name: &str| Reader::new(&target.url(), &format!("mirror/{host}/{name}"));
        let (windows, linux) = (at("windows/core"), at("team/rootfs"));
        let mut layers = Vec::new();
        for (n, (layer, bytes)) in self.foreign().into_iter().enumerate() {
            let from = if n < 2 { "windows/core" } else { "team/rootfs" };
            let url = format!("{}/v2/mirror/{host}/{from}/blobs/{}", target.url(), layer.digest);
            let answer = reqwest::get(&url).await.unwrap();
            let there = answer.status().is_success();
            assert!(!there || answer.bytes().await.unwrap() == bytes, "{url}");
            layers.push(there);
        }
        let mut tags = Vec::new();
        for (reader, tag, image) in [(&windows, "ltsc2019", &self.windows), (&linux, "1", &self.linux)] {
            let found = reader.manifest(tag).await;
            tags.push(found.is_some());
            assert!(found.is_none_or(|bytes| bytes == image.bytes(&image.root.digest).unwrap()), "{tag}");
        }
        (layers, tags)
    }

    /// What was asked of the vendor, without whatever shows who asked.
    fn asked(&self) -> Vec<String> {
        let log = self.web.file("log");
        for line in log.lines() {
            assert!(line.ends_with("auth=\"-\" cookie=\"-\""), "{line}");
        }
        let mut asked: Vec<String> =
            log.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
        asked.sort();
        asked
    }

    async fn target(&self, sections: &str) -> DockerRegistry {
        DockerRegistry::start_with(Settings { sections: sections.to_owned(), ..Settings::default() }).await.unwrap()
    }

    async fn replay(&self, status: i32, bundle: &str, target: &DockerRegistry) -> Value {
        replay(&self.machine, status, bundle, &format!("{}/mirror", target.host())).await
    }
}

/// The child of `busybox` for amd64, whose layer is an OCI foreign one at `url`.
fn with_foreign_root(busybox: &SampleImage, url: &str) -> SampleImage {
    let child = children_for(busybox, "amd64").into_iter().find(|child| child.attests().is_none()).unwrap();
    let mut manifest: Value = serde_json::from_slice(busybox.bytes(&child.digest).unwrap()).unwrap();
    let layer = &mut manifest["layers"][0];
    layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    layer["urls"] = serde_json::json!([url]);
    let bytes = bytes::Bytes::from(serde_json::to_vec(&manifest).unwrap());
    let root = Descriptor::of(child.media_type, &bytes);
    let content = |digest: &Digest| busybox.contents.iter().find(|(known, _)| known.digest == *digest).unwrap().clone();
    let of = blobs_of(busybox, &Descriptor::new(root.media_type.clone(), child.digest, child.size));
    SampleImage {
        contents: vec![content(&of[0]), (root.clone(), bytes)],
        foreign: vec![content(&of[1])],
        root,
        tags: Vec::new(),
    }
}

/// The line of configuration that the help of a refused image has.
fn line_of(problem: &Value) -> String {
    let help = problem["help"].as_str().unwrap();
    let (_, rest) = help.split_once("validation: ").unwrap_or_else(|| panic!("{help}"));
    let (line, _) = rest.split_once("  restart").unwrap();
    format!("validation: {line}")
}

#[tokio::test]
async fn foreign_layers_arrive_where_the_registry_is_told_what_sealift_says() {
    let Some(vendor) = Vendor::start().await else { return };
    let Some(stock) = DockerRegistry::start().await else { return };
    // Skipped: nobody is asked, and a stock registry takes no such manifest.
    vendor.spec("policy: skip", "");
    pull(&vendor.machine, "spec.yaml").await;
    assert!(vendor.asked().is_empty());
    let skipped = export(&vendor.machine, "foreign", VOLUME_SIZE).await;
    let report = vendor.replay(4, &skipped, &stock).await;
    let lines: Vec<String> =
        ["windows/core", "team/rootfs"].map(|name| line_of(&replayed(&report, name)["problem"])).into();
    let pattern = format!("'^https://{}/'", vendor.web.host().replace('.', "\\."));
    assert_eq!(lines, [format!("validation: {{manifests: {{urls: {{allow: [{pattern}]}}}}}}"), lines[0].clone()]);
    assert_eq!(vendor.arrived(&stock).await, (vec![false; 3], vec![false; 2]));

    // Included later: exactly they are fetched, by a redirect too, and nobody says who asks.
    vendor.wanting("include", "");
    let report = pull(&vendor.machine, "spec.yaml").await;
    let bytes: u64 = vendor.foreign().iter().map(|(layer, _)| layer.size).sum();
    let report = &report["reports"][0];
    assert_eq!((&report["fetchedBlobs"], &report["fetchedBytes"]), (&3.into(), &bytes.into()));
    assert_eq!(
        vendor.asked(),
        ["200 GET /base.tar.gz", "200 GET /rootfs.tar.gz", "200 GET /update.tar.gz", "302 GET /short"]
    );
    let included = export(&vendor.machine, "foreign", VOLUME_SIZE).await;
    verify(&vendor.machine, &included).await;
    // A stock registry refuses the manifest even with the layer beside it.
    let report = vendor.replay(4, &included, &stock).await;
    let image = replayed(&report, "windows/core");
    assert_eq!(line_of(&image["problem"]), lines[0]);
    assert_eq!(vendor.arrived(&stock).await, (vec![true; 3], vec![false; 2]));

    // With the line as it was printed.
    let told = vendor.target(&lines[0]).await;
    let report = vendor.replay(0, &skipped, &told).await;
    assert_eq!(replayed(&report, "windows/core")["foreign"][0]["decision"], "skip");
    assert_eq!(vendor.arrived(&told).await, (vec![false; 3], vec![true; 2]));
    let report = vendor.replay(0, &included, &told).await;
    for name in ["windows/core", "team/rootfs"] {
        for layer in replayed(&report, name)["foreign"].as_array().unwrap() {
            assert_eq!((&layer["decision"], &layer["acknowledge"]), (&"include".into(), &ACKNOWLEDGE.into()));
            assert_eq!(layer["hosts"], serde_json::json!([vendor.web.host()]));
        }
    }
    assert_eq!(vendor.arrived(&told).await, (vec![true; 3], vec![true; 2]));
}

#[tokio::test]
async fn what_the_vendor_no_longer_has_is_left_behind_or_fails_the_image() {
    let Some(vendor) = Vendor::start().await else { return };
    std::fs::remove_file(vendor.files.path().join("update.tar.gz")).unwrap();
    vendor.wanting("require", "");
    let report = vendor.machine.json_to(3, &["pull", "spec.yaml", "--store", "store"]).await;
    let report = &report["reports"][0];
    assert_eq!(report["complete"], 1, "{report}");
    let failed = report["failed"].to_string();
    assert!(failed.contains("windows/core:ltsc2019") && failed.contains("404"), "{failed}");
    vendor.wanting("include", "");
    let report = vendor.machine.json_to(3, &["pull", "spec.yaml", "--store", "store"]).await;
    let report = &report["reports"][0];
    assert_eq!((&report["complete"], &report["fetchedBlobs"]), (&2.into(), &0.into()), "{report}");
    assert_eq!(report["leftBehind"].as_array().unwrap().len(), 1, "{report}");
}

#[tokio::test]
async fn a_ca_that_nobody_named_is_not_believed_and_a_private_host_is_not_asked() {
    let Some(vendor) = Vendor::start().await else { return };
    vendor.machine.write("config.yaml", "apiVersion: sealift/v1\nkind: Config\n");
    vendor.wanting("require", "");
    let report = vendor.machine.json_to(1, &["pull", "spec.yaml", "--store", "store"]).await;
    let failed = report["reports"][0]["failed"].to_string();
    assert!(failed.contains("its CA is not known here") && failed.contains("tls.ca"), "{failed}");
    vendor.spec(&format!("policy: require, hosts: [\"{}\"], acknowledge: {ACKNOWLEDGE}", vendor.web.host()), "");
    let report = vendor.machine.json_to(1, &["pull", "spec.yaml", "--store", "store"]).await;
    let failed = report["reports"][0]["failed"].to_string();
    assert!(failed.contains("a loopback address: refused") && failed.contains("allowPrivate"), "{failed}");
    assert!(vendor.asked().is_empty());
}

#[tokio::test]
async fn a_plan_says_what_a_registry_must_be_told_before_anything_is_pushed() {
    let Some(vendor) = Vendor::start().await else { return };
    let Some(stock) = DockerRegistry::start().await else { return };
    vendor.machine.json(&["probe", &format!("{}/mirror", stock.host()), "--out", "far.json"]).await;
    vendor.wanting("require", "target: {profile: far.json}\n");
    let plan = vendor.machine.json(&["plan", "spec.yaml", "--store", "store"]).await;
    let notes = plan["plans"][0]["notes"].as_array().unwrap();
    let pattern = format!("allow: ['^https://{}/']", vendor.web.host().replace('.', "\\."));
    let said = notes.iter().filter(|note| note.as_str().unwrap().contains(&pattern)).count();
    assert_eq!(said, 2, "{notes:?}");
}
