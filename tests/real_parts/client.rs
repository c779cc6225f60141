//! The client alone, against a stock registry.

use bytes::Bytes;
use sealift::Side;
use sealift::config::Config;
use sealift::content::{Body, Role, Source, Work, read_limited};
use sealift::oci::{Descriptor, Digest, MediaType, Name, Repository, Tag};
use sealift::registry::{Client, Credentials, Pull, Put, ReferrersForm};

use super::support::DockerRegistry;

/// Bytes in which no two places look alike.
fn patterned(length: u32) -> Bytes {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>().into()
}

#[tokio::test]
async fn push_list_mount_and_pull() {
    let Some(registry) = DockerRegistry::start().await else { return };
    let address = registry.host();
    let client = Client::new(&Config::default(), Credentials::anonymous(), Side::Source).unwrap();
    let name: Repository = format!("{address}/team/app").parse().unwrap();
    let remote = client.repository(&name);
    assert_eq!(remote.tags().await.unwrap(), None);
    assert!(!remote.supports_referrers().await.unwrap());

    let content = patterned(5_000_000);
    let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &content);
    let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
    for (descriptor, bytes) in [(&layer, &content), (&config, &Bytes::from_static(b"{}"))] {
        assert_eq!(remote.blob_exists(&descriptor.digest).await.unwrap(), None);
        let open = |offset: u64| async move { Ok(Body::full(bytes.slice(offset as usize..))) };
        remote.push_blob(descriptor, open).await.unwrap();
        assert_eq!(remote.blob_exists(&descriptor.digest).await.unwrap(), Some(descriptor.size));
    }
    let other = client.repository(&format!("{address}/other").parse().unwrap());
    assert!(other.mount(&layer.digest, &name).await.unwrap());
    assert!(!other.mount(&Digest::of(b"none"), &name).await.unwrap());

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
    let (got, bytes) = remote.get_manifest(&head.digest.into(), Some(&head)).await.unwrap().unwrap();
    assert_eq!((&got, &bytes), (&head, &manifest));
    assert_eq!(remote.referrers(&head.digest).await.unwrap().form, ReferrersForm::Absent);
    assert_eq!(remote.tags().await.unwrap().unwrap().len(), 1);
    let work = Work::whole(layer, vec![name], Role::Blob);
    let pulled = Pull::new(client).open(&work, 1_000_000).await.unwrap();
    assert_eq!(read_limited(pulled, 4_000_000).await.unwrap(), content.slice(1_000_000..));
    assert!(remote.delete_manifest(&head.digest.into()).await.unwrap());
    assert!(!remote.delete_manifest(&head.digest.into()).await.unwrap());
}
