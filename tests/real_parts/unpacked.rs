//! A bundle in the hands of a person without sealift: the commands of its `README.txt`, as they stand there.

use super::*;

/// The lines of `README.txt` that are commands, except those that need sealift.
fn commands(readme: &str) -> String {
    let commands = readme.lines().filter_map(|line| line.strip_prefix("    "));
    let mut script = String::new();
    for command in commands {
        let words = command.split_whitespace().collect::<Vec<_>>();
        let names_an_image = matches!(words[..], [_, digest] if digest.starts_with("sha256:"));
        if words.first() != Some(&"sealift") && !names_an_image {
            script += &format!("{command}\n");
        }
    }
    script
}

#[tokio::test]
async fn openssl_tar_and_coreutils_open_a_bundle_and_skopeo_reads_it() {
    const LARGE: usize = 20 * 1024 * 1024;
    let Some(busybox) = debian_busybox_image() else { return };
    let Some(source) = DockerRegistry::start().await else { return };
    if !have(&["skopeo", "openssl", "sha256sum", "tar"]) {
        return;
    }
    let large = ImageBuilder::new().platform("linux", "amd64", "").random_layer(LARGE, 1).build().unwrap();
    push_sample(&source.url(), "debian/busybox", Some("1"), &busybox).await;
    push_sample(&source.url(), "team/large", Some("1"), &large).await;
    let images = ["debian/busybox", "team/large"]
        .map(|repository| (format!("{}/{repository}", source.host()), "tags: {exact: [\"1\"]}"));
    let machine = Machine::new();
    machine.write("spec.yaml", &spec("by-hand", "linux/amd64", &images));
    pull(&machine, "spec.yaml").await;
    let bundle = machine.path(&export(&machine, "by-hand", "18MiB").await);
    assert!(bundle.join("vol-0002.tar").exists());
    let readme = std::fs::read_to_string(bundle.join("README.txt")).unwrap();
    assert_eq!(readme.matches("cat parts/sha256/").count(), 1, "one blob was split:\n{readme}");

    std::fs::copy(machine.path("keys/exporter.pub"), bundle.join("exporter.pub")).unwrap();
    let ran = machine.bash(&bundle, &commands(&readme)).await;
    assert_eq!(ran.status, Some(0), "{}\n{}{}", commands(&readme), ran.out, ran.err);
    // The signature is good, and SHA256SUMS is the one that was signed; then sha256sum has nothing to say.
    assert_eq!(ran.out, "Verified OK\n1\n", "{}", ran.err);
    skopeo_reads(&bundle, &source, [("debian/busybox", &busybox), ("team/large", &large)]).await;

    // One changed byte in a blob is found by the same commands, one in bundle.json by the signature.
    let layer = blobs_of(&large, &large.children()[0]).pop().unwrap();
    let check = "cd layout; sha256sum --quiet -c ../SHA256SUMS";
    let ran = machine.bash(&bundle, &format!("printf x >> layout/{}; {check}", layer.layout_path())).await;
    assert!(ran.status != Some(0) && ran.out.contains(layer.hex().as_str()), "{ran:?}");
    let forged = "chmod +w bundle.json; printf x >> bundle.json; \
                  openssl dgst -sha256 -verify exporter.pub -signature ~/bundle.sig bundle.json";
    let ran = machine.bash(&bundle, forged).await;
    assert!(ran.status != Some(0) && !ran.out.contains("OK"), "{ran:?}");
}

async fn skopeo_reads(bundle: &std::path::Path, source: &DockerRegistry, images: [(&str, &SampleImage); 2]) {
    let clients = Clients::new();
    for (repository, image) in images {
        let layout = format!("oci:{}:{}/{repository}:1", bundle.join("layout").display(), source.host());
        let raw = clients.skopeo_ok(&["inspect", "--raw", &layout]).await;
        assert_eq!(raw.as_bytes(), image.bytes(&image.root.digest).unwrap());
        let to = format!("dir:{}", clients.folder().join("copied").display());
        let choice = ["--override-os", "linux", "--override-arch", "amd64"];
        clients.skopeo_ok(&[&choice[..], &["copy", &layout, &to]].concat()).await;
        let amd64 = image.child("linux", "amd64", "").unwrap();
        for blob in blobs_of(image, &amd64) {
            let bytes = std::fs::read(clients.folder().join("copied").join(blob.hex())).unwrap();
            assert_eq!(Digest::of(&bytes), blob);
        }
    }
}
