use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Seen, Server, error, reply};
use super::*;
use crate::oci::{Descriptor, Digest, MediaType};
use crate::{Error, Kind};

const SIZE: usize = 300_000;

fn layer() -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER_GZIP, &bytes(SIZE))
}

/// A session at a relative address with a query, and whatever `put` says to its PUT.
async fn taking(put: impl Fn(&Seen) -> axum::response::Response + Clone + Send + Sync + 'static) -> Server {
    Server::start(move |seen| match seen.method.as_str() {
        "POST" => reply(202, &[("location", "/upload/7?_state=a%2Bb%3D&x")], ""),
        "PUT" => put(seen),
        "HEAD" => reply(404, &[], ""),
        other => panic!("{other}"),
    })
    .await
}

async fn push(server: &Server) -> Result<()> {
    remote(server)
        .push_blob(&layer(), |offset| async move { Ok(Body::full(bytes(SIZE).slice(offset as usize..))) })
        .await
}

#[tokio::test]
async fn one_put_at_the_address_that_was_given() {
    for status in [201, 204] {
        let server = taking(move |_| reply(status, &[], "")).await;
        push(&server).await.unwrap();
        let seen = server.seen();
        assert_eq!(seen[0].line(), "POST /v2/team/app/blobs/uploads/");
        assert_eq!(seen[0].header("content-length"), "0");
        let digest = layer().digest.to_string().replace(':', "%3A");
        assert_eq!(seen[1].line(), format!("PUT /upload/7?_state=a%2Bb%3D&x&digest={digest}"));
        assert_eq!(seen[1].header("content-length"), SIZE.to_string());
        assert_eq!(seen[1].header("content-range"), "");
        assert_eq!(seen[1].body, bytes(SIZE));
    }
    let server = taking(|_| reply(201, &[], "")).await;
    let empty = Descriptor::of(MediaType::OCTET_STREAM, b"");
    remote(&server).push_blob(&empty, |_| async { Ok(Body::full("")) }).await.unwrap();
    assert_eq!(server.seen()[1].header("content-length"), "0");
}

#[tokio::test]
async fn a_lost_session_begins_anew() {
    for (status, code) in [(404, "BLOB_UPLOAD_UNKNOWN"), (400, "BLOB_UPLOAD_INVALID"), (503, "UNKNOWN")] {
        let server = taking(move |seen| if seen.nth < 2 { error(status, code) } else { reply(201, &[], "") }).await;
        push(&server).await.unwrap();
        assert_eq!(
            server.seen().iter().map(|seen| seen.method.as_str().to_owned()).collect::<Vec<_>>().join(" "),
            "POST PUT HEAD POST PUT"
        );
    }
    // The answer was lost, the blob was not.
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => reply(202, &[("location", "/u")], ""),
        "PUT" => reply(502, &[], ""),
        _ => reply(200, &[], bytes(SIZE)),
    })
    .await;
    push(&server).await.unwrap();
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn refusals_are_final() {
    for (status, code, kind) in
        [(400, "DIGEST_INVALID", Kind::Verification), (413, "", Kind::Refused), (403, "DENIED", Kind::Refused)]
    {
        let server = taking(move |_| error(status, code)).await;
        assert_eq!(push(&server).await.unwrap_err().kind(), kind, "{status}");
        assert_eq!(server.lines().len(), 2);
    }
    let server = Server::start(|_| reply(202, &[], "")).await;
    assert!(push(&server).await.unwrap_err().to_string().contains("no Location"));
}

#[tokio::test]
async fn wrong_bytes_never_make_a_whole_upload() {
    let mut altered = bytes(SIZE).to_vec();
    altered[SIZE - 1] ^= 1;
    let rows = [Bytes::from(altered), bytes(SIZE - 1), bytes(SIZE + 1), Bytes::new()];
    for wrong in rows {
        let server =
            taking(|seen| if seen.body.len() == SIZE { reply(201, &[], "") } else { error(400, "SIZE_INVALID") }).await;
        let wrong = &wrong;
        let pushed = remote(&server).push_blob(&layer(), |_| async move { Ok(Body::full(wrong.clone())) }).await;
        let error = pushed.unwrap_err();
        assert_eq!(error.kind(), Kind::Verification, "{error}");
        assert!(server.seen().iter().all(|seen| seen.body.len() < SIZE));
    }
    let empty = Descriptor::of(MediaType::OCTET_STREAM, b"");
    let server = taking(|_| reply(201, &[], "")).await;
    let pushed = remote(&server).push_blob(&empty, |_| async { Ok(Body::full("x")) }).await;
    assert_eq!(pushed.unwrap_err().kind(), Kind::Verification);
}

#[tokio::test]
async fn bytes_that_were_checked_before_are_hashed_when_a_registry_refuses_them() {
    let compares = |seen: &Seen| match seen.body == bytes(SIZE) {
        true => reply(201, &[], ""),
        false => error(400, "DIGEST_INVALID"),
    };
    let mut altered = bytes(SIZE).to_vec();
    altered[0] ^= 1;
    let altered = &Bytes::from(altered);
    let server = taking(compares).await;
    remote(&server).push_checked_blob(&layer(), |_| async { Ok(Body::full(bytes(SIZE))) }).await.unwrap();
    assert_eq!(server.lines().len(), 2);
    // Wrong where they come from: found out before the second upload is whole.
    let server = taking(compares).await;
    let pushed = remote(&server).push_checked_blob(&layer(), |_| async move { Ok(Body::full(altered.clone())) }).await;
    let told = pushed.unwrap_err();
    assert_eq!(told.kind(), Kind::Verification);
    assert!(told.to_string().contains(&Digest::of(altered).to_string()), "{told}");
    assert_eq!(server.seen().iter().filter(|seen| seen.body.len() == SIZE).count(), 1);
    // Right where they come from: something in between alters them.
    let server = taking(|_| error(400, "DIGEST_INVALID")).await;
    let told =
        remote(&server).push_checked_blob(&layer(), |_| async { Ok(Body::full(bytes(SIZE))) }).await.unwrap_err();
    assert!(told.help_text().is_some_and(|help| help.contains("alters uploads")), "{told:?}");
}

#[tokio::test]
async fn the_sources_error_is_told_as_it_is() {
    let server = taking(|_| reply(201, &[], "")).await;
    let opened = AtomicUsize::new(0);
    let pushed = remote(&server)
        .push_blob(&layer(), |_| {
            opened.fetch_add(1, Ordering::Relaxed);
            async {
                let (sender, body) = Body::channel();
                tokio::spawn(async move {
                    let _ = sender.send(bytes(SIZE).slice(..1000)).await;
                    sender.finish(Err(Error::verification("the drive is damaged").on(Side::Bundle))).await;
                });
                Ok(body)
            }
        })
        .await;
    let error = pushed.unwrap_err();
    assert!(error.to_string().contains("the drive is damaged"), "{error}");
    assert_eq!((error.side(), opened.into_inner()), (Some(Side::Bundle), 1));
}

#[tokio::test]
async fn a_token_that_ends_during_an_upload_is_fetched_again_once() {
    for good in [true, false] {
        let server = Server::start(move |seen| {
            let realm = format!(r#"Bearer realm="http://{}/token""#, seen.header("host"));
            match (seen.method.as_str(), seen.header("authorization")) {
                ("GET", _) => reply(200, &[], format!(r#"{{"token":"t{}"}}"#, seen.nth)),
                (_, "") => reply(401, &[("www-authenticate", &realm)], ""),
                ("PUT", "Bearer t1") => reply(401, &[("www-authenticate", &realm)], ""),
                ("PUT", _) if !good => reply(401, &[("www-authenticate", &realm)], ""),
                ("PUT", _) => reply(201, &[], ""),
                ("POST", _) => reply(202, &[("location", "/u")], ""),
                _ => reply(404, &[], ""),
            }
        })
        .await;
        let pushed = push(&server).await;
        assert_eq!(pushed.is_ok(), good);
        assert_eq!(server.seen().iter().filter(|seen| seen.method == "PUT").count(), 2);
    }
}

#[tokio::test]
async fn mounting() {
    let digest = layer().digest;
    let rows: [(u16, bool, usize); 5] =
        [(201, true, 1), (202, false, 2), (404, false, 1), (401, false, 1), (405, false, 1)];
    for (status, expected, requests) in rows {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "POST" => reply(status, &[("location", "/u?_state=1")], ""),
            _ => reply(204, &[], ""),
        })
        .await;
        let mounted = remote(&server).mount(&digest, &server.repository("other/app")).await.unwrap();
        assert_eq!(mounted, expected, "{status}");
        let lines = server.lines();
        assert_eq!(lines.len(), requests);
        let asked = digest.to_string().replace(':', "%3A");
        assert_eq!(lines[0], format!("POST /v2/team/app/blobs/uploads/?mount={asked}&from=other%2Fapp"));
        if status == 202 {
            assert_eq!(lines[1], "DELETE /u?_state=1");
        }
    }
    let server = Server::start(|_| reply(201, &[], "")).await;
    let elsewhere = "other.example/team/app".parse().unwrap();
    assert!(!remote(&server).mount(&digest, &elsewhere).await.unwrap());
    assert!(server.lines().is_empty());
}
