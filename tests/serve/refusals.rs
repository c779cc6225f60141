//! What is refused, and how: error codes, hostile paths, read-only and broken shelves.

use std::sync::Arc;

use bytes::Bytes;
use sealift::Result;
use sealift::content::Body;
use sealift::oci::Name;
use sealift::oci::{Descriptor, Digest, Tag};
use sealift::sample::seed;
use sealift::serve::{MemoryShelf, Shelf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{OCI_INDEX, OCI_MANIFEST, Registry, image, seeded};

#[tokio::test]
async fn every_error_has_its_code() {
    let (registry, image) = seeded().await;
    let none = Digest::of(b"nothing has this digest");
    let upload = "/v2/team/app/blobs/uploads/00000000-0000-4000-8000-000000000000";
    let rows: Vec<(&str, String, &str, &str, u16, &str)> = vec![
        ("GET", "/v2/none/tags/list".into(), "", "", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/Team/tags/list".into(), "", "", 400, "NAME_INVALID"),
        ("GET", "/v2/team/app/tags/list?n=x".into(), "", "", 400, "UNSUPPORTED"),
        ("GET", "/v2/team/app/manifests/none".into(), "", "", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/none/manifests/1.0".into(), "", "", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/team/app/manifests/.illegal".into(), "", "", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/team/app/manifests/sha256:0".into(), "", "", 400, "DIGEST_INVALID"),
        ("GET", format!("/v2/team/app/manifests/{none}"), "", "", 404, "MANIFEST_UNKNOWN"),
        ("GET", format!("/v2/team/app/blobs/{none}"), "", "", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/team/app/blobs/sha256:0".into(), "", "", 400, "DIGEST_INVALID"),
        ("GET", "/v2/team/app/referrers/x".into(), "", "", 400, "DIGEST_INVALID"),
        ("GET", "/v2/team/app/none".into(), "", "", 404, "UNSUPPORTED"),
        ("GET", "/".into(), "", "", 404, "UNSUPPORTED"),
        ("POST", "/v2/".into(), "", "", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/team/app/manifests/1.0".into(), "", "", 405, "UNSUPPORTED"),
        ("GET", "/v2/team/app/blobs/uploads/".into(), "", "", 405, "UNSUPPORTED"),
        ("PUT", "/v2/team/app/manifests/x".into(), "application/json", "{}", 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/team/app/manifests/x".into(), "", "{}", 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/team/app/manifests/x".into(), OCI_MANIFEST, "<html>", 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/team/app/manifests/x".into(), OCI_MANIFEST, "{}", 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/team/app/manifests/.x".into(), OCI_INDEX, r#"{"manifests":[]}"#, 400, "MANIFEST_INVALID"),
        ("PUT", format!("/v2/team/app/manifests/{none}"), OCI_INDEX, r#"{"manifests":[]}"#, 400, "DIGEST_INVALID"),
        ("DELETE", "/v2/team/app/manifests/none".into(), "", "", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", format!("/v2/team/app/blobs/{none}"), "", "", 404, "BLOB_UNKNOWN"),
        ("POST", "/v2/team/app/blobs/uploads/?digest=x".into(), "", "", 400, "DIGEST_INVALID"),
        ("POST", "/v2/team/app/blobs/uploads/?mount=x".into(), "", "", 400, "DIGEST_INVALID"),
        ("POST", format!("/v2/team/app/blobs/uploads/?digest={none}"), "", "x", 400, "DIGEST_INVALID"),
        ("GET", upload.into(), "", "", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", upload.into(), "", "x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", format!("{upload}?digest={none}"), "", "x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", upload.into(), "", "x", 400, "DIGEST_INVALID"),
        ("DELETE", upload.into(), "", "", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", upload.into(), "", "", 405, "UNSUPPORTED"),
    ];
    for (method, path, content_type, body, status, code) in rows {
        let headers: &[(&str, &str)] = if content_type.is_empty() { &[] } else { &[("content-type", content_type)] };
        let answer = registry.send(method, &path, headers, body.to_owned()).await;
        assert_eq!((answer.status, answer.codes()), (status, vec![code.to_owned()]), "{method} {path} {content_type}");
        assert_eq!(answer.header("content-type"), "application/json");
        let head = registry.send("HEAD", &path, &[], "").await;
        assert!(head.body.is_empty(), "HEAD {path} has a body");
    }
    assert_eq!(registry.shelf.tags("team/app").unwrap().unwrap().len(), 1 + image.tags.len());
}

#[tokio::test]
async fn hostile_paths() {
    let (registry, _) = seeded().await;
    let long = format!("/v2/{}/tags/list", "a/".repeat(4000));
    // Written by hand: a client would mend these before it sends them.
    for (path, status) in [
        ("/v2/../../etc/passwd", 404),
        ("/v2/team/../team/app/tags/list", 400),
        ("/v2/team%2Fapp/tags/list", 400),
        ("/v2/team/app/manifests/..%2f1.0", 404),
        ("/v2/team/app/blobs/../manifests/1.0", 400),
        ("/v2/team//app/tags/list", 400),
        ("/v2/team/app/blobs/uploads/..", 404),
        ("/v2/%00/tags/list", 400),
        (&long, 400),
    ] {
        let mut connection = tokio::net::TcpStream::connect(registry.running.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path:.60}: {answer}");
    }
}

/// A shelf that only shows what another has; `broken` cannot even do that.
struct ReadOnly {
    shelf: MemoryShelf,
    broken: bool,
}

impl Shelf for ReadOnly {
    fn repositories(&self) -> Result<Vec<String>> {
        self.shelf.repositories()
    }

    fn tags(&self, repository: &str) -> Result<Option<Vec<String>>> {
        self.shelf.tags(repository)
    }

    fn resolve(&self, repository: &str, name: &Name) -> Result<Option<Descriptor>> {
        match self.broken {
            true => Err(sealift::Error::failed("/secret/path: input/output error")),
            false => self.shelf.resolve(repository, name),
        }
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        self.shelf.manifest(descriptor)
    }

    fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.shelf.referrers(repository, subject)
    }

    fn blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>> {
        self.shelf.blob(repository, digest)
    }

    fn open(&self, digest: &Digest, offset: u64, length: u64) -> Result<Body> {
        self.shelf.open(digest, offset, length)
    }
}

#[tokio::test]
async fn a_read_only_shelf_takes_nothing() {
    let (shelf, image) = (MemoryShelf::new(), image());
    seed(&shelf, "app", Some(&"1".parse::<Tag>().unwrap()), &image).unwrap();
    let registry = Registry::over(shelf.clone(), Arc::new(ReadOnly { shelf, broken: false })).await;
    assert_eq!(registry.get("/v2/app/manifests/1").await.status, 200);
    let digest = image.root.digest;
    let large = "x".repeat(1 << 20);
    for (method, path) in [
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/app/blobs/uploads/?mount={digest}&from=app")),
        ("PATCH", "/v2/app/blobs/uploads/00000000-0000-4000-8000-000000000000".to_owned()),
        ("PUT", "/v2/app/manifests/1".to_owned()),
        ("DELETE", "/v2/app/manifests/1".to_owned()),
        ("DELETE", format!("/v2/app/blobs/{digest}")),
    ] {
        let answer = registry.send(method, &path, &[("content-type", OCI_INDEX)], large.clone()).await;
        assert_eq!((answer.status, answer.codes()), (405, vec!["UNSUPPORTED".to_owned()]), "{method} {path}");
    }
}

#[tokio::test]
async fn what_fails_inside_is_not_told_outside() {
    let shelf = MemoryShelf::new();
    let registry = Registry::over(shelf.clone(), Arc::new(ReadOnly { shelf, broken: true })).await;
    let answer = registry.get("/v2/app/manifests/1").await;
    assert_eq!((answer.status, answer.codes()), (500, vec!["UNKNOWN".to_owned()]));
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
}
