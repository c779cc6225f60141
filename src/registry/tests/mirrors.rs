use super::server::{Server, error, reply};
use super::*;
use crate::Kind;
use crate::config::RegistryConfig;
use crate::oci::Name;
use crate::oci::{Descriptor, Digest, MediaType, Tag};

const MANIFEST: &str = "{}";

fn behind(server: &Server, mirrors: &[String]) -> Remote {
    behind_on(Side::Source, server, mirrors)
}

fn behind_on(side: Side, server: &Server, mirrors: &[String]) -> Remote {
    let mirrors = mirrors.iter().map(|url| url.parse().unwrap()).collect();
    let config = Config {
        registries: [(server.registry(), RegistryConfig { mirrors, ..RegistryConfig::default() })]
            .into_iter()
            .collect(),
        ..Config::default()
    };
    let credentials = Credentials::of(server.registry(), "me", "pw");
    let client =
        Client::new(&config, credentials, side).unwrap().with_retry(Retry::default().with_base(Duration::ZERO));
    client.repository(&server.repository("team/app"))
}

#[tokio::test]
async fn a_mirror_that_does_not_help_is_passed_over() {
    let answers: [(u16, &str); 5] = [(404, ""), (503, ""), (403, ""), (401, ""), (200, "altered")];
    for (status, body) in answers {
        let body = body.to_owned();
        let mirror = Server::start(move |_| reply(status, &[], body.clone())).await;
        let server = Server::start(|_| reply(200, &[], MANIFEST)).await;
        let gone = "http://127.0.0.1:1/".to_owned();
        let remote = behind(&server, &[gone, mirror.url("/cache/")]);
        let name = Name::from(Digest::of(MANIFEST.as_bytes()));
        assert!(remote.get_manifest(&name, None).await.unwrap().is_some(), "{status}");
        assert_eq!(mirror.lines(), [format!("GET /cache/v2/team/app/manifests/{name}")], "asked once");
        let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, MANIFEST.as_bytes());
        let blob = read(remote.open_blob(&descriptor, 0).await.unwrap()).await.unwrap();
        assert_eq!(&blob[..], MANIFEST.as_bytes());
        assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_empty()));
    }
}

#[tokio::test]
async fn a_mirror_that_helps_is_enough_for_reading_alone() {
    let mirror = Server::start(|_| reply(200, &[], MANIFEST)).await;
    let server = Server::start(|_| error(404, "MANIFEST_UNKNOWN")).await;
    let remote = behind(&server, &[mirror.url("")]);
    let name = Name::from("1".parse::<Tag>().unwrap());
    assert!(remote.get_manifest(&name, None).await.unwrap().is_some());
    assert!(server.lines().is_empty());
    remote.put_manifest(&name, &MediaType::OCI_MANIFEST, MANIFEST.into()).await.unwrap();
    assert_eq!((mirror.lines().len(), server.lines().len()), (1, 1));
}

#[tokio::test]
async fn what_a_target_has_is_asked_of_itself() {
    let mirror = Server::start(|_| reply(200, &[], MANIFEST)).await;
    let server = Server::start(|_| error(404, "BLOB_UNKNOWN")).await;
    let remote = behind_on(Side::Target, &server, &[mirror.url("")]);
    assert_eq!(remote.blob_exists(&Digest::of(b"x")).await.unwrap(), None);
    assert!(mirror.lines().is_empty());
}

#[tokio::test]
async fn a_mirror_without_referrers_is_not_believed() {
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    let kind = ("content-type", "application/vnd.oci.image.index.v1+json");
    let mirror = Server::start(move |_| reply(200, &[kind], index)).await;
    let server = Server::start(move |_| reply(200, &[kind], index)).await;
    behind(&server, &[mirror.url("")]).referrers(&Digest::of(b"x")).await.unwrap();
    assert_eq!((mirror.lines().len(), server.lines().len()), (1, 1));
}

#[test]
fn addresses_of_mirrors_are_checked() {
    let rows = [
        ("https://mirror.example/cache", true),
        ("http://127.0.0.1:5000", true),
        ("http://lan.example", true),
        ("http://mirror.example", false),
        ("https://me:pw@mirror.example", false),
        ("ftp://mirror.example", false),
        ("data:x", false),
    ];
    for (url, taken) in rows {
        let mut config = Config::default();
        config
            .registries
            .insert("lan.example".parse().unwrap(), RegistryConfig { plain_http: true, ..RegistryConfig::default() });
        let mirrors = vec![url.parse().unwrap()];
        config.registries.insert("docker.io".parse().unwrap(), RegistryConfig { mirrors, ..RegistryConfig::default() });
        let made = Client::new(&config, Credentials::anonymous(), Side::Source);
        assert_eq!(made.as_ref().err().map(|e| e.kind()), (!taken).then_some(Kind::Usage), "{url}");
    }
}
