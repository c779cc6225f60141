use super::super::Put;
use super::server::{Server, error, reply};
use super::*;
use crate::Kind;
use crate::oci::Name;
use crate::oci::{Descriptor, Digest, MANIFEST_SIZE_MAX, MediaType, Tag};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
const TYPE: (&str, &str) = ("content-type", "application/vnd.oci.image.manifest.v1+json");

fn tag() -> Name {
    Name::from("1".parse::<Tag>().unwrap())
}

fn digest() -> Digest {
    Digest::of(MANIFEST.as_bytes())
}

#[tokio::test]
async fn head_says_all_or_the_manifest_is_fetched() {
    let digest_header = || ("docker-content-digest", digest().to_string());
    // What the answer to HEAD has, and how many requests that takes.
    let rows: [(u16, bool, &str, usize); 6] = [
        (200, true, TYPE.1, 1),
        (200, false, TYPE.1, 2),
        (200, true, "text/plain", 2),
        (405, false, "", 2),
        (400, false, "", 2),
        (403, false, "", 2),
    ];
    for (status, with_digest, kind, requests) in rows {
        let server = Server::start(move |seen| {
            let (name, value) = digest_header();
            match (seen.method.as_str(), status, with_digest) {
                ("GET", ..) => reply(200, &[TYPE], MANIFEST),
                (_, _, true) => reply(status, &[(name, &value), ("content-type", kind)], MANIFEST),
                _ => reply(status, &[("content-type", "application/json")], MANIFEST),
            }
        })
        .await;
        let found = remote(&server).head_manifest(&tag()).await.unwrap();
        assert_eq!(found, Some(Descriptor::of(MediaType::OCI_MANIFEST, MANIFEST.as_bytes())));
        assert_eq!(server.lines().len(), requests, "{status} {with_digest} {kind}");
        assert_eq!(server.seen()[0].headers.get_all("accept").iter().count(), 4);
    }
    let server = Server::start(|_| reply(404, &[], "")).await;
    assert_eq!(remote(&server).head_manifest(&tag()).await.unwrap(), None);
}

#[tokio::test]
async fn bytes_must_be_those_that_were_named() {
    let other = Digest::of(b"other");
    let announced = |digest, size| Some(Descriptor::new(MediaType::OCI_MANIFEST, digest, size));
    let good = MANIFEST.len() as u64;
    let sha512 = Digest::Sha512([0; 64]).same_algorithm_of(MANIFEST.as_bytes());
    let rows = [
        (tag(), None, None, true),
        (digest().into(), None, None, true),
        (sha512.into(), None, None, true),
        (other.into(), None, None, false),
        (digest().into(), announced(digest(), good), None, true),
        (digest().into(), announced(digest(), good + 1), None, false),
        (tag(), announced(other, good), None, false),
        (tag(), None, Some(digest()), true),
        (tag(), None, Some(other), false),
    ];
    for (name, announced, header, taken) in rows {
        let server = Server::start(move |_| {
            let header = header.map(|digest| digest.to_string()).unwrap_or_default();
            reply(200, &[TYPE, ("docker-content-digest", &header)], MANIFEST)
        })
        .await;
        let found = remote(&server).get_manifest(&name, announced.as_ref()).await;
        match found {
            Ok(found) => assert_eq!(found.map(|(_, bytes)| bytes).as_deref(), Some(MANIFEST.as_bytes())),
            Err(error) => {
                assert!(!taken, "{error}");
                assert_eq!(error.kind(), Kind::Verification);
                if error.to_string().contains("digest") {
                    assert!(error.to_string().contains(&other.to_string()), "{error}");
                    assert!(error.to_string().contains(&digest().to_string()), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_media_type_is_the_headers_the_documents_or_the_parents() {
    let docker = Descriptor::new(MediaType::DOCKER_MANIFEST, Digest::of(b"{}"), 2);
    let rows: [(&str, &'static str, Option<&Descriptor>, MediaType); 4] = [
        ("application/vnd.oci.image.index.v1+json; charset=utf-8", MANIFEST, None, MediaType::OCI_INDEX),
        ("application/json", MANIFEST, None, MediaType::OCI_MANIFEST),
        ("text/plain", "{}", Some(&docker), MediaType::DOCKER_MANIFEST),
        ("text/plain", "{}", None, MediaType::OCTET_STREAM),
    ];
    for (header, body, announced, expected) in rows {
        let header = header.to_owned();
        let server = Server::start(move |_| reply(200, &[("content-type", &header)], body)).await;
        let (found, _) = remote(&server).get_manifest(&tag(), announced).await.unwrap().unwrap();
        assert_eq!(found.media_type, expected);
    }
}

#[tokio::test]
async fn a_manifest_has_an_end() {
    let long = vec![b' '; MANIFEST_SIZE_MAX as usize + 1];
    for announce in [true, false] {
        let long = Bytes::from(long.clone());
        let server = Server::start(move |_| match announce {
            true => reply(200, &[TYPE], long.clone()),
            false => reply(200, &[TYPE], super::server::unannounced(long.clone())),
        })
        .await;
        let error = remote(&server).get_manifest(&tag(), None).await.unwrap_err();
        assert!(error.to_string().contains("more than 4194304 bytes"), "{error}");
        assert_eq!(server.lines().len(), 1);
    }
}

#[tokio::test]
async fn putting() {
    let rows = [
        (201, "", Some(true), 1),
        (201, "", Some(false), 1),
        (400, "MANIFEST_BLOB_UNKNOWN", None, 1),
        (500, "MANIFEST_BLOB_UNKNOWN", None, 1),
        (413, "", None, 1),
    ];
    for (status, code, accepted, requests) in rows {
        let server = Server::start(move |_| match accepted {
            Some(true) => reply(status, &[("oci-subject", "sha256:0")], ""),
            Some(false) => reply(status, &[], ""),
            None => error(status, code),
        })
        .await;
        let put = remote(&server).put_manifest(&tag(), &MediaType::OCI_MANIFEST, MANIFEST.into()).await.unwrap();
        match (put, accepted) {
            (Put::Accepted { subject }, Some(expected)) => assert_eq!(subject, expected),
            (Put::Refused(answer), None) => {
                assert_eq!(answer.status, status);
                assert!(answer.has_code(code));
            }
            (put, _) => panic!("{put:?}"),
        }
        let seen = server.seen();
        assert_eq!(seen.len(), requests);
        assert_eq!((seen[0].header("content-type"), &seen[0].body[..]), (TYPE.1, MANIFEST.as_bytes()));
    }
    let server = Server::start(|_| error(500, "UNKNOWN")).await;
    assert!(remote(&server).put_manifest(&tag(), &MediaType::OCI_MANIFEST, MANIFEST.into()).await.is_err());
    assert_eq!(server.lines().len(), 5);
}

#[tokio::test]
async fn deleting() {
    for (status, expected) in [(202, Some(true)), (404, Some(false)), (405, None)] {
        let server = Server::start(move |_| reply(status, &[], "")).await;
        assert_eq!(remote(&server).delete_manifest(&digest().into()).await.ok(), expected);
    }
}
