//! Against a stock registry: `cargo test --lib -- --ignored` where Debian's `docker-registry` is installed.

use std::process::Stdio;

use super::super::{Pull, Put, ReferrersForm};
use super::*;
use crate::content::{Role, Source, Work};
use crate::oci::Name;
use crate::oci::{Descriptor, MediaType, Repository, Tag};

const CONFIG: &str = "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: true\n";

async fn start(folder: &std::path::Path) -> (tokio::process::Child, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    std::fs::write(folder.join("config.yml"), CONFIG).unwrap();
    let child = tokio::process::Command::new("docker-registry")
        .arg("serve")
        .arg(folder.join("config.yml"))
        .env("REGISTRY_HTTP_ADDR", &address)
        .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(&address).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (child, address)
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn push_list_mount_and_pull() {
    let folder = tempfile::tempdir().unwrap();
    let (_child, address) = start(folder.path()).await;
    let client = client(&Config::default(), Credentials::anonymous());
    let name: Repository = format!("{address}/team/app").parse().unwrap();
    let remote = client.repository(&name);
    assert_eq!(remote.tags().await.unwrap(), None);
    assert!(!remote.supports_referrers().await.unwrap());

    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes(5_000_000));
    let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
    for (descriptor, content) in [(&layer, bytes(5_000_000)), (&config, "{}".into())] {
        assert_eq!(remote.blob_exists(&descriptor.digest).await.unwrap(), None);
        let content = &content;
        let open = |offset: u64| async move { Ok(Body::full(content.slice(offset as usize..))) };
        remote.push_blob(descriptor, open).await.unwrap();
        assert_eq!(remote.blob_exists(&descriptor.digest).await.unwrap(), Some(descriptor.size));
    }
    let other = client.repository(&format!("{address}/other").parse().unwrap());
    assert!(other.mount(&layer.digest, &name).await.unwrap());
    assert!(!other.mount(&crate::oci::Digest::of(b"none"), &name).await.unwrap());

    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST,
        "config": config, "layers": [layer]});
    let manifest = Bytes::from(manifest.to_string());
    let tag = Name::from("1".parse::<Tag>().unwrap());
    let put = remote.put_manifest(&tag, &MediaType::OCI_MANIFEST, manifest.clone()).await.unwrap();
    assert_eq!(put, Put::Accepted { subject: false });
    // The same where its config is missing.
    match other.put_manifest(&tag, &MediaType::OCI_MANIFEST, manifest.clone()).await.unwrap() {
        Put::Refused(answer) => assert!(answer.has_code("MANIFEST_BLOB_UNKNOWN"), "{answer}"),
        put => panic!("{put:?}"),
    }

    let head = remote.head_manifest(&tag).await.unwrap().unwrap();
    let (got, content) = remote.get_manifest(&head.digest.into(), Some(&head)).await.unwrap().unwrap();
    assert_eq!((&got, &content), (&head, &manifest));
    assert_eq!(remote.referrers(&head.digest).await.unwrap().form, ReferrersForm::Absent);
    assert_eq!(remote.tags().await.unwrap().unwrap().len(), 1);
    let work = Work::whole(layer, vec![name], Role::Blob);
    let pulled = Pull::new(client).open(&work, 1_000_000).await.unwrap();
    assert_eq!(read(pulled).await.unwrap(), bytes(5_000_000).slice(1_000_000..));
    assert!(remote.delete_manifest(&head.digest.into()).await.unwrap());
    assert!(!remote.delete_manifest(&head.digest.into()).await.unwrap());
}
