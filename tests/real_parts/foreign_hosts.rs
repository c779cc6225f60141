//! Layers with `urls` in an enclave: what podman and containerd say without an answer at the urls, and that they pull after a
//! replay when what `sealift client-config` wrote is applied as it is, with `sealift serve --foreign` and with nginx. What is
//! done is what stands in the blocks of `docs/foreign-layers.md`.
//!
//! The enclave is a network in which nothing but the registry and what answers for the urls can be reached.

use std::path::Path;
use std::process::Stdio;

use sealift::client_config::{Behind, Part, Wanted, client_config};
use sealift::image::Addresses;
use sealift::oci::{Manifest, MediaType};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

use super::support::{Authority, Containerd, Docker, Enclave, Nginx};
use super::*;

/// The platform of this machine.
const OWN: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// Where the vendor has the layers: hosts that nobody has.
const URLS: [&str; 2] =
    ["https://images.vendor.example/build%20s/rootfs.tar.gz?id=7&sig=a%2Fb", "https://other.vendor.example/layers/2"];

const REGISTRY: &str = "registry.corp:5000";

/// An image of two layers, each with an address of its vendor. Its first layer is an ordinary one; the type of the other one
/// is `second`.
fn image(second: &MediaType) -> SampleImage {
    let (os, architecture) = OWN.split_once('/').unwrap();
    let mut image = ImageBuilder::new()
        .platform(os, architecture, "")
        .layer_files(&[("etc/vendor", b"vendor\n"), ("bin/app", b"#!/bin/sh\n")])
        .random_layer(200_000, 7)
        .single()
        .build()
        .unwrap();
    let mut manifest: Value = serde_json::from_slice(image.bytes(&image.root.digest).unwrap()).unwrap();
    for (layer, url) in manifest["layers"].as_array_mut().unwrap().iter_mut().zip(URLS) {
        layer["urls"] = serde_json::json!([url]);
    }
    manifest["layers"][1]["mediaType"] = second.as_str().into();
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let root = Descriptor::of(image.root.media_type.clone(), &bytes);
    let place = image.contents.iter_mut().find(|(known, _)| known.digest == image.root.digest).unwrap();
    *place = (root.clone(), bytes.into());
    image.root = root;
    image
}

/// The blocks of the document, in their order.
const WRITE: usize = 0;
const CERTIFICATE: usize = 1;
const ANSWER: usize = 2;
const HOSTS: usize = 3;

fn blocks() -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/foreign-layers.md")).unwrap();
    let (_, section) = text.split_once("\n## In the enclave\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks: Vec<String> =
        section.split("```bash\n").skip(1).map(|part| part.split("```").next().unwrap().to_owned()).collect();
    assert_eq!(blocks.len(), 4);
    blocks
}

/// The enclave after a replay, and what is left of the connected side.
struct Scene {
    machine: Machine,
    enclave: Enclave,
    authority: Authority,
    target: DockerRegistry,
    bundle: String,
    image: SampleImage,
    /// The image on the target.
    name: String,
    clients: Clients,
    containerd: Containerd,
}

impl Scene {
    /// `None` when the test is to be skipped.
    async fn new() -> Option<Self> {
        Self::with(&MediaType::OCI_LAYER_GZIP, "").await
    }

    /// The same with this type of the second layer, and more lines in the entry of the spec.
    async fn with(second: &MediaType, more: &str) -> Option<Self> {
        if !have(&["podman", "nginx", "tar"]) && !Path::new("/usr/sbin/nginx").exists() {
            return None;
        }
        let (enclave, authority) = (Enclave::start()?, Authority::new()?);
        let source = DockerRegistry::start_logged(ALLOW_URLS).await?;
        let image = image(second);
        push_sample(&source.url(), "vendor/app", Some("1"), &image).await;
        let machine = Machine::new();
        let entry = format!("tags: {{exact: [\"1\"]}}{more}");
        let images = [(format!("{}/vendor/app", source.host()), entry.as_str())];
        machine.write("spec.yaml", &spec("vendor", OWN, &images));
        pull(&machine, "spec.yaml").await;
        let bundle = export(&machine, "vendor", VOLUME_SIZE).await;
        let target = target(&enclave, &authority).await?;
        let name = format!("{REGISTRY}/mirror/{}/vendor/app:1", source.host().replace(':', "_"));
        let (clients, containerd) = (Clients::within(&enclave), Containerd::within(&enclave).await?);
        let scene = Scene { machine, enclave, authority, target, bundle, image, name, clients, containerd };
        // As the operator of the enclave does for the registry alone.
        scene.enclave.ok(&format!(
            "mkdir -p /etc/containers/certs.d/{REGISTRY} && cp {} /etc/containers/certs.d/{REGISTRY}/ca.crt
             mkdir -p /etc/containerd/certs.d/{REGISTRY}
             cp {} /etc/containerd/certs.d/{REGISTRY}/ca.crt
             printf 'server = \"https://{REGISTRY}\"\\n[host.\"https://{REGISTRY}\"]\\n  ca = \"/etc/containerd/certs.d/{REGISTRY}/ca.crt\"\\n' \
             > /etc/containerd/certs.d/{REGISTRY}/hosts.toml",
            scene.authority.certificate().display(),
            scene.authority.certificate().display(),
        ));
        let to = format!("{REGISTRY}/mirror");
        // What the document says that an operator has.
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, scene.machine.path(name)).unwrap();
        link(&scene.machine.path(&scene.bundle), "vendor-1-1");
        link(&scene.machine.path("keys/exporter.pub"), "exporter.pub");
        link(&scene.authority.folder().join("ca.pem"), "ca.pem");
        link(&scene.authority.folder().join("ca.key"), "ca.key");
        let replay = ["replay", &scene.bundle, "--to", &to, "--key", "keys/exporter.pub", "--state", "state"];
        let ran = scene.sealift().args(replay).output().await.unwrap();
        assert!(ran.status.success(), "{ran:?}");
        Some(scene)
    }

    /// sealift in the enclave.
    fn sealift(&self) -> tokio::process::Command {
        self.machine.command(self.enclave.wrapper(env!("CARGO_BIN_EXE_sealift")))
    }

    async fn serve(&self, arguments: &[&str]) -> (Child, String) {
        let mut command = self.sealift();
        command.arg("serve").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("answering") {
            match lines.next_line().await.unwrap() {
                Some(line) => said += &format!("{line}\n"),
                None => panic!("{said}{:?}", child.wait_with_output().await.unwrap()),
            }
        }
        (child, said)
    }

    /// With the certificate that was made, at the address to which the foreign hosts lead.
    async fn serve_with_tls(&self, what: &str) -> (Child, String) {
        let listen = format!("{}:443", Enclave::FOREIGN_ADDRESS);
        let tls = ["--listen", &listen, "--tls-cert", "foreign.pem", "--tls-key", "foreign.key"];
        self.serve(&[&[what, "--foreign", "--key", "keys/exporter.pub"], &tls[..]].concat()).await
    }

    /// What podman says of a pull; the image goes again.
    async fn podman(&self) -> Result<(), String> {
        let ran = self.clients.podman(&["pull", "--quiet", &self.name]).await;
        if !ran.status.success() {
            return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
        }
        let digest = self.clients.podman_ok(&["image", "inspect", "--format", "{{.Digest}}", &self.name]).await;
        assert_eq!(digest.trim(), self.image.root.digest.to_string());
        self.clients.podman_ok(&["image", "rm", &self.name]).await;
        Ok(())
    }

    /// Where nobody can be connected to, podman goes on to the registry up to version 4, and gives up from version 5 on
    /// (containers/image 5.30).
    async fn podman_without_connection(&self) {
        let version = self.clients.podman_ok(&["--version"]).await;
        let major: u32 = version.rsplit(' ').next().unwrap().split('.').next().unwrap().parse().unwrap();
        assert_eq!(self.podman().await.is_ok(), major < 5, "{version}");
    }

    /// The same of containerd.
    async fn containerd(&self) -> Result<(), String> {
        let ran = self.containerd.pull_by("/etc/containerd/certs.d", OWN, &self.name).await;
        if !ran.status.success() {
            return Err(String::from_utf8_lossy(&ran.stderr).into_owned());
        }
        let listed = self.containerd.listed(&self.name).await;
        assert_eq!(listed[2], self.image.root.digest.to_string());
        self.containerd.ok(&["images", "rm", "--sync", &self.name]).await;
        Ok(())
    }

    /// Both pull, and take the layers from where the urls say.
    async fn both_pull_from_the_urls(&self, what: &str) {
        let before = self.target.accesses().len();
        assert_eq!(self.podman().await, Ok(()), "{what}");
        assert_eq!(self.containerd().await, Ok(()), "{what}");
        let accesses = self.target.accesses();
        let asked = blobs_asked(&accesses[before..], "GET");
        let layers = self.layers();
        assert!(asked.iter().all(|blob| !layers.contains(blob)), "{what}: the registry was asked for {asked:?}");
    }

    fn layers(&self) -> Vec<Digest> {
        blobs_of(&self.image, &self.image.root).split_off(1)
    }

    /// What `client-config` writes to the folder `enclave`.
    async fn written(&self, more: &[&str]) -> Value {
        self.written_for(&self.bundle, more).await
    }

    async fn written_for(&self, what: &str, more: &[&str]) -> Value {
        let ca = self.authority.certificate();
        let ca = ca.to_str().unwrap();
        let arguments = ["client-config", what, "--key", "keys/exporter.pub", "--out", "enclave"];
        let wanted = ["--address", Enclave::FOREIGN_ADDRESS, "--registry", REGISTRY, "--ca", ca];
        self.machine.json(&[&arguments[..], &wanted, more].concat()).await
    }

    /// Runs a block of the document where an operator would, in the enclave.
    fn block(&self, at: usize) {
        let path = Path::new(env!("CARGO_BIN_EXE_sealift")).parent().unwrap().display();
        let folder = self.machine.folder().display();
        self.enclave.ok(&format!("export PATH={path}:$PATH\ncd {folder}\n{}", blocks()[at]));
    }

    fn make_certificate(&self) {
        self.block(CERTIFICATE);
    }

    fn tell_the_hosts(&self) {
        self.block(HOSTS);
    }

    /// nginx with the file as it was written, where its first line wants it.
    fn nginx(&self) -> Child {
        let folder = self.machine.path("nginx");
        std::fs::create_dir_all(&folder).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
        let main = format!(
            "daemon off;\nmaster_process off;\npid pid;\nevents {{}}\nhttp {{\n{temporary}access_log log;\n\
             include /etc/nginx/conf.d/*.conf;\n}}\n"
        );
        std::fs::write(folder.join("nginx.conf"), main).unwrap();
        let (folder, out) = (folder.display(), self.machine.path("enclave"));
        self.enclave.ok(&format!(
            "mkdir -p /etc/ssl/sealift /etc/nginx/conf.d
             cp {folder}/../foreign.pem {folder}/../foreign.key /etc/ssl/sealift/
             cp {out}/nginx.conf /etc/nginx/conf.d/sealift-foreign.conf
             /usr/sbin/nginx -t -p {folder} -e errors -c nginx.conf",
            out = out.display(),
        ));
        let mut command = self.machine.command(self.enclave.wrapper("/usr/sbin/nginx"));
        command.args(["-p", &folder.to_string(), "-e", "errors", "-c", "nginx.conf"]).spawn().unwrap()
    }

    /// Waits until something listens at the address of the foreign hosts.
    fn listening(&self) {
        let address = Enclave::FOREIGN_ADDRESS;
        self.enclave.ok(&format!(
            "for _ in $(seq 200); do (: > /dev/tcp/{address}/443) 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
        ));
    }
}

/// What only the store has, because its policy leaves it out of bundles, is answered for from the store.
#[tokio::test]
async fn a_foreign_layer_is_pulled_from_the_store() {
    let foreign = MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    let Some(scene) = Scene::with(&foreign, "").await else { return };
    let layer = scene.layers().remove(1);
    let config = scene.written(&["--for", "hosts,containerd,podman"]).await;
    assert_eq!(config["hosts"].as_array().unwrap().len(), 1, "{config}");
    assert_eq!(config["notAnswered"][0]["url"], URLS[1], "{config}");
    // As somebody got it another way.
    let blob = scene.machine.path(&format!("store/{}", layer.layout_path()));
    std::fs::write(blob, scene.image.bytes(&layer).unwrap()).unwrap();
    scene.written_for("store", &["--for", "hosts,containerd,podman"]).await;
    scene.make_certificate();
    scene.tell_the_hosts();
    say(scene.containerd().await, &["connection refused"]);
    let (serving, _) = scene.serve_with_tls("store").await;
    scene.both_pull_from_the_urls("a store").await;
    end(serving).await;
}

/// A foreign layer that was included comes with the bundle: it is answered for from there.
#[tokio::test]
async fn an_included_foreign_layer_is_pulled_after_a_replay() {
    let foreign = MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    let policy = "; foreignLayers: {policy: include, hosts: [other.vendor.example], acknowledge: \"ticket 1\"}";
    let Some(scene) = Scene::with(&foreign, policy).await else { return };
    scene.block(WRITE);
    scene.make_certificate();
    scene.tell_the_hosts();
    let (serving, said) = scene.serve_with_tls(&scene.bundle).await;
    assert!(said.contains("answering for 2 urls of 2 hosts"), "{said}");
    scene.both_pull_from_the_urls("a bundle with a foreign layer").await;
    end(serving).await;
}

/// Urls that vendors might write in order to get out of nginx's file, each with other bytes: nginx starts, and sends for each
/// what is meant by it, and nothing for anything else.
#[tokio::test]
async fn nginx_takes_hostile_urls_for_what_they_are() {
    let targets = [
        "/plain.tar.gz",
        "/plain-tar-gz",
        "/PLAIN.tar.gz",
        "/x?a=1&b=2",
        "/x?a=1",
        "/\";}server{listen:1;}",
        "/';}",
        "/$host${uri}$sealift_blob",
        "/back\\slash\\",
        "/(a|b)*[c]^d~e",
        "/%22%3B%7D%0a",
        "/a//b/./c",
    ];
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
    let root = folder.path().display().to_string();
    let bytes = |target: &str| format!("what is at {target}");
    let nginx = Nginx::start(|port| {
        let mut addresses = Addresses::default();
        for target in targets {
            let text = bytes(target);
            let mut layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, text.as_bytes());
            layer.urls = vec![format!("http://a.example:{port}{target}")];
            std::fs::write(folder.path().join(layer.digest.layout_path()), &text).unwrap();
            let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
                "config": Descriptor::of(MediaType::OCI_CONFIG, b"{}"), "layers": [layer]});
            let manifest = Manifest::parse(&MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
            addresses.add_manifest("a.example/app", &manifest, |_| true);
        }
        let behind = Behind::Layout(root.clone());
        let wanted = Wanted { parts: [Part::Nginx].into(), behind, ..Wanted::default() };
        let config = client_config(&addresses, &wanted).unwrap();
        assert_eq!((config.not_answered.len(), config.hosts[0].urls), (0, targets.len()));
        config.files[0].content.clone()
    });
    let Some(nginx) = nginx.await else { return };
    let port = nginx.host().rsplit(':').next().unwrap().to_owned();
    for target in targets {
        let (status, body) = get(&nginx.host(), &format!("a.example:{port}"), target).await;
        assert_eq!((status, body), (200, bytes(target)), "{target}");
    }
    for target in ["/", "/x", "/x?a=1&b=3", "/etc/passwd", "/blobs/sha256/", "/plainxtar.gz", "/a/b/c", "/PLAIN.TAR.GZ"]
    {
        assert_eq!(get(&nginx.host(), &format!("a.example:{port}"), target).await.0, 404, "{target}");
    }
    assert_eq!(get(&nginx.host(), &format!("b.example:{port}"), "/plain.tar.gz").await.0, 404);
}

/// docker with an image store of its own asks the registry alone: there is nothing at the urls, and it pulls.
#[tokio::test]
async fn docker_asks_no_urls() {
    let Some(docker) = Docker::start().await else { return };
    let Some(target) = DockerRegistry::start_logged(ALLOW_URLS).await else { return };
    let foreign = MediaType::new("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    for (tag, second) in [("1", MediaType::OCI_LAYER_GZIP), ("2", foreign)] {
        let image = image(&second);
        push_sample(&target.url(), "vendor/app", Some(tag), &image).await;
        docker.ok(&["pull", "--quiet", &format!("{}/vendor/app@{}", target.host(), image.root.digest)]).await;
    }
}

/// Status and body of an answer to a target that is sent as it is.
async fn get(address: &str, host: &str, target: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What the target needs in order to take manifests with urls.
const ALLOW_URLS: &str = "validation: {manifests: {urls: {allow: [\".*\"]}}}";

async fn target(enclave: &Enclave, authority: &Authority) -> Option<DockerRegistry> {
    let server = authority.server("DNS:registry.corp");
    DockerRegistry::start_with(Settings {
        program: Some(enclave.wrapper("docker-registry")),
        address: "10.77.0.5:5000",
        http: format!(
            "  tls: {{certificate: \"{}\", key: \"{}\"}}",
            server.certificate.display(),
            server.key.display()
        ),
        sections: ALLOW_URLS.to_owned(),
        access_log: Some("access.log".into()),
        ..Settings::default()
    })
    .await
}

async fn end(mut child: Child) {
    child.kill().await.unwrap();
}

/// Both fail, and say all of these.
fn say(said: Result<(), String>, words: &[&str]) {
    let said = said.expect_err("it was pulled");
    for word in words {
        assert!(said.contains(word), "{word}\n{said}");
    }
}

/// Everything that an operator is told to do, as it was written, makes the hosts pull.
#[tokio::test]
async fn what_was_written_makes_hosts_pull() {
    let Some(scene) = Scene::new().await else { return };
    // The blobs are on the registry; and yet.
    say(scene.containerd().await, &[".vendor.example", "dial tcp", "lookup"]);
    scene.podman_without_connection().await;

    let key = scene.authority.folder().join("ca.key");
    let secret = ["client-config", "store", "--ca", key.to_str().unwrap()];
    let refused = scene.machine.run_to(2, &secret).await;
    assert!(refused.err.contains("private key"), "{}", refused.err);
    let config = scene.written(&["--for", "hosts,nginx,containerd,podman"]).await;
    command_line::keeps_to_schema(&scene.machine, "client-config", &config).await;
    std::fs::remove_dir_all(scene.machine.path("enclave")).unwrap();
    scene.block(WRITE);
    scene.make_certificate();
    scene.tell_the_hosts();
    say(scene.containerd().await, &[".vendor.example", "connection refused"]);
    scene.podman_without_connection().await;

    // By itself, as the document says.
    let block = blocks().swap_remove(ANSWER);
    let (program, arguments) = block.trim().split_once(" serve ").unwrap();
    assert_eq!(program, "sealift");
    let (serving, said) = scene.serve(&arguments.split(' ').collect::<Vec<_>>()).await;
    assert!(said.contains("answering for 2 urls of 2 hosts: images.vendor.example, other.vendor.example"), "{said}");
    scene.both_pull_from_the_urls("serve --foreign").await;
    end(serving).await;

    // Behind nginx.
    let (serving, _) =
        scene.serve(&[&scene.bundle, "--foreign", "--key", "keys/exporter.pub", "--listen", "127.0.0.1:5000"]).await;
    let nginx = scene.nginx();
    scene.listening();
    scene.both_pull_from_the_urls("nginx before serve --foreign").await;
    end(nginx).await;
    end(serving).await;

    // nginx alone, over the unpacked bundle.
    let unpacked = scene.machine.path("unpacked");
    let unpack = format!("mkdir unpacked && for tar in {}/*.tar; do tar -xf \"$tar\" -C unpacked; done", scene.bundle);
    assert_eq!(scene.machine.bash(scene.machine.folder(), &unpack).await.status, Some(0));
    scene.written(&["--for", "hosts,nginx", "--layout", unpacked.to_str().unwrap()]).await;
    let nginx = scene.nginx();
    scene.listening();
    scene.both_pull_from_the_urls("nginx over the unpacked bundle").await;
    end(nginx).await;
}

/// A quick 404 is enough for containerd, which goes on to the registry, and not for podman. A CA that is not believed is the
/// end for both.
#[tokio::test]
async fn what_clients_say_when_something_is_missing() {
    let Some(scene) = Scene::new().await else { return };
    scene.written(&["--for", "hosts,containerd,podman"]).await;
    // A volume that is not here is not carried.
    let meta = format!("mkdir half && cp {0}/bundle* {0}/meta.tar half", scene.bundle);
    assert_eq!(scene.machine.bash(scene.machine.folder(), &meta).await.status, Some(0));
    let half = scene.machine.json(&["client-config", "half", "--key", "keys/exporter.pub"]).await;
    assert_eq!(half["hosts"], serde_json::json!([]), "{half}");
    assert_eq!(half["notAnswered"].as_array().unwrap().len(), 2, "{half}");
    scene.make_certificate();
    scene.enclave.ok(&format!("cat {}/hosts >> /etc/hosts", scene.machine.path("enclave").display()));
    // A store that knows nothing of these layers.
    let missing = Machine::new();
    missing.json(&["demo", "--keep", "try"]).await;
    let other = missing.path("try/store");
    let (serving, _) = scene.serve_with_tls(other.to_str().unwrap()).await;
    say(scene.containerd().await, &["x509", "unknown authority"]);

    scene.tell_the_hosts();
    assert_eq!(scene.containerd().await, Ok(()));
    // Of podman 4: "reading blob sha256:...: http: read on closed response body".
    say(scene.podman().await, &["blob sha256:"]);
    end(serving).await;
}
