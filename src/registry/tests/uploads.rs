use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        "HEAD" | "GET" => reply(404, &[], ""),
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
    let rows = [
        (404, "BLOB_UPLOAD_UNKNOWN", "POST PUT HEAD POST PUT"),
        (400, "BLOB_UPLOAD_INVALID", "POST PUT HEAD POST PUT"),
        // It may have taken some of it.
        (503, "UNKNOWN", "POST PUT HEAD GET POST PUT"),
    ];
    for (status, code, methods) in rows {
        let server = taking(move |seen| if seen.nth < 2 { error(status, code) } else { reply(201, &[], "") }).await;
        push(&server).await.unwrap();
        let seen: Vec<String> = server.seen().iter().map(|seen| seen.method.to_string()).collect();
        assert_eq!(seen.join(" "), methods);
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

/// What a registry does with a request.
#[derive(Clone, Copy)]
enum Does {
    /// It reads so many bytes, and the connection is gone.
    Cut(usize),
    /// It reads all, and answers so: the first line and the headers.
    Answer(&'static str),
}

/// A request as it came, over a connection of its own.
#[derive(Clone, Debug, PartialEq)]
struct Came {
    line: String,
    range: String,
    body: Vec<u8>,
}

/// A registry on bare sockets, for only those can be cut in the middle of a body.
async fn scripted(
    does: impl Fn(&str, usize) -> Does + Send + 'static,
) -> (crate::oci::Repository, Arc<Mutex<Vec<Came>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository = format!("{}/team/app", listener.local_addr().unwrap()).parse().unwrap();
    let came: Arc<Mutex<Vec<Came>>> = Arc::default();
    let log = came.clone();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let header = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                lines
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_owned())
                    .unwrap_or_default()
            };
            let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
            let does = does(&line, log.lock().unwrap().len());
            let announced = header("content-length").parse().unwrap_or(0);
            let takes = match does {
                Does::Cut(at) => announced.min(at),
                Does::Answer(_) => announced,
            };
            let mut body = vec![0; takes];
            connection.read_exact(&mut body).await.unwrap();
            log.lock().unwrap().push(Came { line, range: header("content-range"), body });
            if let Does::Answer(text) = does {
                let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.trim_end(), ""));
                let length = format!("Content-Length: {}\r\n", body.len());
                let length = if head.starts_with("204") { "" } else { &length };
                let answer = format!("HTTP/1.1 {head}\r\n{length}Connection: close\r\n\r\n{body}");
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (repository, came)
}

async fn push_to(repository: &crate::oci::Repository) -> Result<()> {
    client(&Config::default(), Credentials::anonymous())
        .repository(repository)
        .push_blob(&layer(), |offset| async move { Ok(Body::full(bytes(SIZE).slice(offset as usize..))) })
        .await
}

const OPENED: &str = "202 Accepted\r\nLocation: /u?x=1\r\n";
const MADE: &str = "201 Created\r\n";
const UNKNOWN: &str = "404 Not Found\r\n";

#[tokio::test]
async fn a_cut_upload_goes_on_where_the_registry_says() {
    const CUT: usize = 100_000;
    const HAS_IT: &str = "204 No Content\r\nRange: 0-99999\r\nLocation: /u?x=2\r\n";
    // What is answered when the session is asked for, what to the next PUT, and the methods that come of it.
    let rows = [
        (HAS_IT, MADE, "POST PUT HEAD GET PUT"),
        ("204 No Content\r\nRange: 0-99999\r\n", MADE, "POST PUT HEAD GET PUT"),
        // All of it is there but for the last word.
        ("204 No Content\r\nRange: 0-299999\r\n", MADE, "POST PUT HEAD GET PUT"),
        // One byte, or none.
        ("204 No Content\r\nRange: 0-0\r\n", MADE, "POST PUT HEAD GET POST PUT"),
        ("204 No Content\r\nRange: 0-300000\r\n", MADE, "POST PUT HEAD GET POST PUT"),
        ("204 No Content\r\nRange: 100-200\r\n", MADE, "POST PUT HEAD GET POST PUT"),
        ("204 No Content\r\n", MADE, "POST PUT HEAD GET POST PUT"),
        ("200 OK\r\nRange: 0-99999\r\n", MADE, "POST PUT HEAD GET POST PUT"),
        // Credentials would go there, and it has not the address of the upload.
        ("204 No Content\r\nRange: 0-99999\r\nLocation: http://127.0.0.1:1/u\r\n", MADE, "POST PUT HEAD GET POST PUT"),
        (UNKNOWN, MADE, "POST PUT HEAD GET POST PUT"),
        ("500 Internal Server Error\r\n", MADE, "POST PUT HEAD GET POST PUT"),
        // It says what it has, and does not take the rest.
        (HAS_IT, "416 Range Not Satisfiable\r\n", "POST PUT HEAD GET PUT HEAD POST PUT"),
        (HAS_IT, "404 Not Found\r\n", "POST PUT HEAD GET PUT HEAD POST PUT"),
    ];
    for (status, rest, methods) in rows {
        let (repository, came) = scripted(move |line, nth| match line.split(' ').next().unwrap() {
            "POST" => Does::Answer(OPENED),
            "HEAD" => Does::Answer(UNKNOWN),
            "GET" => Does::Answer(status),
            "PUT" if nth == 1 => Does::Cut(CUT),
            "PUT" if nth == 4 => Does::Answer(rest),
            _ => Does::Answer(MADE),
        })
        .await;
        push_to(&repository).await.unwrap();
        let came = came.lock().unwrap();
        let seen: Vec<&str> = came.iter().map(|one| one.line.split(' ').next().unwrap()).collect();
        assert_eq!(seen.join(" "), methods, "{status}");
        assert!(came.iter().filter(|one| one.line.starts_with("GET")).all(|one| one.line == "GET /u?x=1"));
        let last = came.last().unwrap();
        let digest = layer().digest.to_string().replace(':', "%3A");
        if methods.ends_with("GET PUT") {
            let stored: usize = if status.contains("299999") { SIZE } else { CUT };
            let address = if status == HAS_IT { "/u?x=2" } else { "/u?x=1" };
            assert_eq!(last.line, format!("PUT {address}&digest={digest}"), "{status}");
            assert_eq!(last.body, bytes(SIZE).slice(stored..), "{status}");
            let range = if stored == SIZE { String::new() } else { format!("{CUT}-{}", SIZE - 1) };
            assert_eq!(last.range, range, "{status}");
        } else {
            assert_eq!((last.line.as_str(), last.range.as_str()), (&*format!("PUT /u?x=1&digest={digest}"), ""));
            assert_eq!(last.body, bytes(SIZE), "{status}");
        }
    }
}

#[tokio::test]
async fn an_upload_is_cut_as_often_as_it_gets_further() {
    // Nine times 30,000 bytes: more often than there are attempts.
    let taken = Arc::new(AtomicUsize::new(0));
    let (repository, came) = scripted(move |line, _| match line.split(' ').next().unwrap() {
        "POST" => Does::Answer(OPENED),
        "HEAD" => Does::Answer(UNKNOWN),
        "GET" => {
            let last = taken.load(Ordering::Relaxed) - 1;
            Does::Answer(format!("204 No Content\r\nRange: 0-{last}\r\n").leak())
        }
        _ if taken.load(Ordering::Relaxed) + 30_000 >= SIZE => Does::Answer(MADE),
        _ => {
            taken.fetch_add(30_000, Ordering::Relaxed);
            Does::Cut(30_000)
        }
    })
    .await;
    push_to(&repository).await.unwrap();
    let sent: Vec<u8> = came.lock().unwrap().iter().flat_map(|one| one.body.clone()).collect();
    assert_eq!(sent, bytes(SIZE), "each byte once");
}

#[tokio::test]
async fn an_upload_that_gets_nowhere_ends() {
    // It says that it has something, and never takes more, or does not take the rest.
    for rest in [Does::Cut(1000), Does::Answer("416 Range Not Satisfiable\r\n")] {
        let (repository, came) = scripted(move |line, _| match line.split(' ').next().unwrap() {
            "POST" => Does::Answer(OPENED),
            "HEAD" => Does::Answer(UNKNOWN),
            "GET" => Does::Answer("204 No Content\r\nRange: 0-99999\r\nLocation: /rest\r\n"),
            _ if line.contains("/rest") => rest,
            _ => Does::Cut(1000),
        })
        .await;
        assert!(push_to(&repository).await.is_err());
        let puts = came.lock().unwrap().iter().filter(|one| one.line.starts_with("PUT")).count();
        assert!((5..=10).contains(&puts), "{puts}");
    }
}

#[tokio::test]
async fn what_a_registry_put_together_wrongly_is_sent_once_more_as_a_whole() {
    const INVALID: &str = "400 Bad Request\r\n\r\n{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}";
    for good in [true, false] {
        let (repository, came) = scripted(move |line, nth| match line.split(' ').next().unwrap() {
            "POST" => Does::Answer(OPENED),
            "HEAD" => Does::Answer(UNKNOWN),
            "GET" => Does::Answer("204 No Content\r\nRange: 0-99999\r\n"),
            _ if nth == 1 => Does::Cut(100_000),
            _ if nth == 4 || !good => Does::Answer(INVALID),
            _ => Does::Answer(MADE),
        })
        .await;
        let pushed = push_to(&repository).await;
        assert_eq!(pushed.err().map(|error| error.kind()), (!good).then_some(Kind::Verification));
        let came = came.lock().unwrap();
        let seen: Vec<&str> = came.iter().map(|one| one.line.split(' ').next().unwrap()).collect();
        assert_eq!(seen.join(" "), "POST PUT HEAD GET PUT HEAD POST PUT");
        assert_eq!(came.last().unwrap().body, bytes(SIZE));
    }
}
