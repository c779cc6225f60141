//! A layout as an archive in the hands of podman, docker and containerd: they load the platform of this machine.

use super::support::{Containerd, Docker};
use super::*;

/// The platform of this machine; s390x is kept beside it.
const OWN: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The endings of archives.
const ENDINGS: [&str; 3] = ["tar", "tar.gz", "tar.zst"];

/// Layouts `one.*` with busybox, and `several.*` with another image besides.
struct Layouts {
    machine: Machine,
    host: String,
    busybox: SampleImage,
    tool: SampleImage,
    _source: DockerRegistry,
}

impl Layouts {
    /// `None` when the test is to be skipped.
    async fn made() -> Option<Self> {
        let busybox = debian_busybox_image()?;
        let source = DockerRegistry::start().await?;
        let tool = ImageBuilder::new().layer_files(&[("tool", b"for all")]).platform("linux", "s390x", "");
        let tool = tool.platform("linux", OWN, "").random_layer(10_000, 1).attestation().build().unwrap();
        push_sample(&source.url(), "debian/busybox", Some("1"), &busybox).await;
        push_sample(&source.url(), "team/tool", Some("1"), &tool).await;
        let machine = Machine::new();
        let both = ["debian/busybox", "team/tool"]
            .map(|repository| (format!("{}/{repository}", source.host()), "tags: {exact: [\"1\"]}"));
        for (stream, images) in [("one", &both[..1]), ("several", &both[..])] {
            let name = format!("{stream}.yaml");
            machine.write(&name, &spec(stream, &format!("linux/{OWN}, linux/s390x"), images));
            pull(&machine, &name).await;
            for ending in ENDINGS {
                let layout = format!("{stream}.{ending}");
                machine.json(&["export", stream, "--store", "store", "--layout", &layout]).await;
            }
        }
        Some(Layouts { machine, host: source.host().to_owned(), busybox, tool, _source: source })
    }

    /// Name, and the digest of the configuration for this machine, which is the image ID.
    fn expected(&self) -> [(String, Digest); 2] {
        [("debian/busybox", &self.busybox), ("team/tool", &self.tool)].map(|(repository, image)| {
            let child = image.child("linux", OWN, "").unwrap();
            (format!("{}/{repository}:1", self.host), blobs_of(image, &child)[0])
        })
    }
}

#[tokio::test]
async fn podman_loads_the_platform_of_this_machine() {
    let Some(layouts) = Layouts::made().await else { return };
    if !have(&["podman", "bash", "zcat"]) {
        return;
    }
    let [busybox, tool] = layouts.expected();
    for stream in ["one", "several"] {
        for ending in ENDINGS {
            let clients = Clients::new();
            let archive = layouts.machine.path(&format!("{stream}.{ending}"));
            let archive = match (stream, ending) {
                // podman 4.3 of Debian reads no docker archive that is compressed with gzip, whoever made it.
                ("several", "tar.gz") => {
                    let plain = clients.folder().join("plain.tar");
                    let unpack = format!("zcat {} > {}", archive.display(), plain.display());
                    assert_eq!(layouts.machine.bash(clients.folder(), &unpack).await.status, Some(0));
                    plain
                }
                _ => archive,
            };
            clients.podman_ok(&["load", "--quiet", "--input", archive.to_str().unwrap()]).await;
            let expected = if stream == "one" { &[&busybox][..] } else { &[&busybox, &tool] };
            for (name, config) in expected {
                let id = clients.podman_ok(&["image", "inspect", "--format", "{{.Id}} {{.Architecture}}", name]).await;
                assert_eq!(id.trim(), format!("{} {OWN}", config.hex()), "{stream}.{ending}");
            }
            let all = clients.podman_ok(&["images", "--quiet"]).await;
            assert_eq!(all.lines().count(), expected.len(), "{stream}.{ending}: {all}");
        }
    }
}

#[tokio::test]
async fn docker_loads_the_platform_of_this_machine() {
    let Some(docker) = Docker::start().await else { return };
    let Some(layouts) = Layouts::made().await else { return };
    // dockerd 20.10 of Debian reads no zstd; later ones do.
    for ending in ["tar", "tar.gz"] {
        let said = docker.load(&layouts.machine.path(&format!("several.{ending}"))).await;
        for (name, config) in layouts.expected() {
            assert!(said.contains(&format!("Loaded image: {name}")), "{said}");
            let image = docker.inspect(&name).await;
            assert_eq!((&image["Id"], &image["Architecture"]), (&config.to_string().into(), &OWN.into()), "{ending}");
            docker.ok(&["image", "rm", &name]).await;
        }
        assert_eq!(docker.ok(&["image", "ls", "--all", "--quiet"]).await, "", "nothing else was loaded");
    }
}

#[tokio::test]
async fn containerd_imports_the_index_and_the_platform_of_this_machine() {
    let Some(containerd) = Containerd::start().await else { return };
    let Some(layouts) = Layouts::made().await else { return };
    let archive = layouts.machine.path("several.tar");
    // It unpacks what it imports, which only the platform of this machine can be.
    containerd.ok(&["images", "import", "--snapshotter", "native", archive.to_str().unwrap()]).await;
    let images = [("debian/busybox", &layouts.busybox), ("team/tool", &layouts.tool)];
    for (repository, image) in images {
        let listed = containerd.listed(&format!("{}/{repository}:1", layouts.host)).await;
        assert_eq!(listed[2], image.root.digest.to_string(), "the index as it was signed");
    }
}
