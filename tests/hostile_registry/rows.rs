//! What it does.

use sealift::oci::{Descriptor, Digest, MediaType};

use super::server::Request;
use super::{Asked, Row};

const MIB: usize = 1024 * 1024;

/// Status and content type of a manifest that came as it should.
const INDEX: (&str, &str) = ("content-type", "application/vnd.oci.image.index.v1+json");

fn some_digest(number: usize) -> Digest {
    Digest::of(&number.to_le_bytes())
}

fn some_manifest(number: usize) -> Descriptor {
    Descriptor::new(MediaType::OCI_MANIFEST, some_digest(number), 500)
}

/// An artifact that says that it is about `subject`.
fn artifact(subject: &Descriptor, number: usize) -> (Descriptor, Vec<u8>) {
    let empty = Descriptor::of(MediaType::new("application/vnd.oci.empty.v1+json"), b"{}");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "artifactType": "x/y", "config": empty,
        "layers": [empty], "subject": subject, "annotations": {"number": number.to_string()},
    });
    let bytes = serde_json::to_vec(&manifest).unwrap();
    (Descriptor::of(MediaType::OCI_MANIFEST, &bytes), bytes)
}

/// The number behind `name=` in the query.
fn number(request: &Request<'_>, name: &str) -> usize {
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    found.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The root manifest is asked for, by tag or digest.
fn is_root(request: &Request<'_>) -> bool {
    request.has("/manifests/1") || request.has(&format!("/manifests/{}", request.world.image.root.digest))
}

/// Everything of the layer.
fn is_layer(request: &Request<'_>) -> bool {
    let largest = request.world.image.contents.iter().max_by_key(|(blob, _)| blob.size).unwrap();
    request.has(&format!("/blobs/{}", largest.0.digest))
}

fn of_root(request: &mut Request<'_>, answer: impl FnOnce(&mut Request<'_>) -> bool) -> bool {
    is_root(request) && answer(request)
}

/// Chunks that never end.
fn endless(request: &mut Request<'_>, status: u16, headers: &str) -> bool {
    request.raw(format!("HTTP/1.1 {status} x\r\ntransfer-encoding: chunked\r\n{headers}\r\n").as_bytes());
    let chunk = format!("10000\r\n{}\r\n", "[".repeat(0x10000));
    request.is_head() || request.forever(chunk.as_bytes())
}

/// 64 MiB of zeros.
fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..64).for_each(|_| packer.write_all(&vec![0; MIB]).unwrap());
    packer.finish().unwrap()
}

const fn row(name: &'static str, asked: Asked, respond: super::Respond, status: i32, says: &'static str) -> Row {
    Row { name, asked, respond, status, says }
}

pub const ROWS: &[Row] = &[
    row("well-behaved", Asked::All, |_| false, 0, ""),
    // Referrers.
    row(
        "10,000 referrers at once",
        Asked::One,
        |request| {
            let all: Vec<Descriptor> = (0..10_000).map(some_manifest).collect();
            request.has("/referrers/") && request.referrers(&all, None)
        },
        1,
        "lists more than 1000 referrers",
    ),
    row(
        "10,000 referrers in pages",
        Asked::One,
        |request| {
            let page = number(request, "page");
            let some: Vec<Descriptor> = (page * 100..page * 100 + 100).map(some_manifest).collect();
            request.has("/referrers/") && request.referrers(&some, Some(&format!("?page={}", page + 1)))
        },
        1,
        "lists more than 1000 referrers",
    ),
    row(
        "empty pages of referrers, for ever",
        Asked::One,
        |request| {
            let page = number(request, "page");
            request.has("/referrers/") && request.referrers(&[], Some(&format!("?page={}", page + 1)))
        },
        1,
        "referrers",
    ),
    row(
        "referrers go in a circle",
        Asked::One,
        |request| {
            let (one, one_bytes) = artifact(&request.world.image.root.clone(), 1);
            let (two, two_bytes) = artifact(&one, 2);
            if request.has("/referrers/") {
                let about_one = request.has(&one.digest.to_string());
                return request.referrers(&[if about_one { two } else { one }], None);
            }
            let named = [(one, one_bytes), (two, two_bytes)];
            let found = named.iter().find(|(named, _)| request.has(&format!("/manifests/{}", named.digest)));
            found.is_some_and(|(_, bytes)| request.manifest(&MediaType::OCI_MANIFEST, bytes))
        },
        0,
        "",
    ),
    row(
        "a chain of referrers without end",
        Asked::One,
        |request| {
            let mut chain = vec![(request.world.image.root.clone(), Vec::new())];
            (0..60).for_each(|at| chain.push(artifact(&chain[at].0.clone(), at)));
            let at = |descriptor: &Descriptor| request.has(&descriptor.digest.to_string());
            let Some(place) = chain.iter().position(|(descriptor, _)| at(descriptor)) else { return false };
            match request.has("/referrers/") {
                true => request.referrers(&[chain[(place + 1) % 61].0.clone()], None),
                false => place > 0 && request.manifest(&MediaType::OCI_MANIFEST, &chain[place].1),
            }
        },
        0,
        "",
    ),
    // Tags.
    row(
        "tags link to themselves",
        Asked::All,
        |request| {
            let path = request.path.clone();
            request.has("/tags/list") && request.tags(&["1"], Some(&path))
        },
        0,
        "",
    ),
    row(
        "tags link to a growing query",
        Asked::All,
        |request| {
            let more = format!("{}x", request.path);
            request.has("/tags/list") && request.tags(&["1"], Some(&more))
        },
        1,
        "tags",
    ),
    row(
        "tags link back and forth",
        Asked::All,
        |request| {
            let other = if number(request, "page") == 1 { "?page=2" } else { "?page=1" };
            request.has("/tags/list") && request.tags(&["1"], Some(other))
        },
        1,
        "tags",
    ),
    row(
        "tags link to another host",
        Asked::All,
        |request| {
            let other = format!("http://{}/v2/team/app/tags/list", request.world.other);
            request.has("/tags/list") && request.tags(&["1"], Some(&other.replace("127.0.0.1", "localhost")))
        },
        4,
        "leads to another host",
    ),
    row(
        "tags in pages, for ever",
        Asked::All,
        |request| {
            let page = number(request, "page");
            let names: Vec<String> = (0..10_000).map(|at| format!("{:0>128}", page * 10_000 + at)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            request.has("/tags/list") && request.tags(&names, Some(&format!("?page={}", page + 1)))
        },
        1,
        "tags",
    ),
    row(
        "64 MiB of brackets for tags",
        Asked::All,
        |request| request.has("/tags/list") && request.answer(200, &[], &vec![b'['; 64 * MIB]),
        1,
        "tags",
    ),
    row("tags without end", Asked::All, |request| request.has("/tags/list") && endless(request, 200, ""), 1, "tags"),
    row(
        "tags that are none",
        Asked::All,
        |request| {
            let tags = ["../../etc/passwd", "\u{1b}[31mred", "a/b", "", "line\nline", "1"];
            request.has("/tags/list") && request.tags(&tags, None)
        },
        0,
        "",
    ),
    row(
        "a page for people instead of tags",
        Asked::All,
        |request| request.has("/tags/list") && request.answer(200, &[], b"<html>\x1b[31m<body>sign in</body></html>"),
        1,
        "what is no list of tags",
    ),
    // Manifests.
    row(
        "HEAD and GET disagree",
        Asked::One,
        |request| {
            let digest = some_digest(7).to_string();
            let headers = [INDEX, ("docker-content-digest", digest.as_str())];
            request.is_head() && request.has("/manifests/1") && request.answer(200, &headers, &[b' '; 1_000])
        },
        1,
        "is listed, but not there",
    ),
    row(
        "HEAD and GET disagree about the length",
        Asked::One,
        |request| {
            let digest = request.world.image.root.digest.to_string();
            let headers = [INDEX, ("docker-content-digest", digest.as_str())];
            request.is_head() && request.has("/manifests/1") && request.answer(200, &headers, &[b' '; 10])
        },
        5,
        "announced were 10",
    ),
    row(
        "a digest in upper case",
        Asked::One,
        |request| {
            let (root, bytes) =
                request.world.image.contents.iter().find(|(one, _)| *one == request.world.image.root).unwrap();
            let digest = root.digest.to_string().to_uppercase().replace("SHA256", "sha256");
            let headers = [INDEX, ("docker-content-digest", digest.as_str())];
            request.has("/manifests/1") && request.answer(200, &headers, &bytes.clone())
        },
        0,
        "",
    ),
    row(
        "children with digests in upper case",
        Asked::One,
        |request| {
            let child = format!(
                r#"{{"mediaType":"{}","digest":"sha256:{}","size":1}}"#,
                MediaType::OCI_MANIFEST,
                "AB".repeat(32)
            );
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{child}]}}"#);
            request.has("/manifests/") && request.manifest(&MediaType::OCI_INDEX, index.as_bytes())
        },
        5,
        "is no digest",
    ),
    row(
        "a manifest of more than 4 MiB",
        Asked::One,
        |request| request.has("/manifests/") && request.manifest(&MediaType::OCI_INDEX, &vec![b' '; 4 * MIB + 1]),
        1,
        "more than 4194304 bytes",
    ),
    row(
        "4 MiB of brackets",
        Asked::One,
        |request| request.has("/manifests/") && request.manifest(&MediaType::OCI_INDEX, &vec![b'['; 4 * MIB]),
        5,
        "nested more than 32 levels deep",
    ),
    row(
        "an index of 100,000 entries",
        Asked::One,
        |request| {
            let all: Vec<Descriptor> = (0..100_000).map(some_manifest).collect();
            let index = serde_json::json!({"schemaVersion": 2, "manifests": all}).to_string();
            request.has("/manifests/") && request.manifest(&MediaType::OCI_INDEX, index.as_bytes())
        },
        1,
        "more than 4194304 bytes",
    ),
    row(
        "4 MiB of the shortest entries",
        Asked::One,
        |request| {
            let entry = format!(r#"{{"mediaType":"a","digest":"sha256:{}","size":1}}"#, "a".repeat(64));
            let all = vec![entry; 37_000].join(",");
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{all}]}}"#);
            assert!(index.len() < 4 * MIB && index.len() > 3 * MIB);
            request.has("/manifests/") && request.manifest(&MediaType::OCI_INDEX, index.as_bytes())
        },
        5,
        "more than 10000",
    ),
    row(
        "a manifest without end",
        Asked::One,
        |request| request.has("/manifests/") && endless(request, 200, ""),
        1,
        "more than 4194304 bytes",
    ),
    row(
        "a page for people instead of a manifest",
        Asked::One,
        |request| {
            request.has("/manifests/") && request.answer(200, &[("content-type", "text/html")], b"<html>\x1b[2Jsign in")
        },
        5,
        "",
    ),
    row(
        "a gzip bomb for a manifest",
        Asked::One,
        |request| request.has("/manifests/") && request.answer(200, &[INDEX, ("content-encoding", "gzip")], &bomb()),
        5,
        "",
    ),
    row(
        "a gzip bomb for a layer",
        Asked::One,
        |request| is_layer(request) && request.answer(200, &[("content-encoding", "gzip")], &bomb()),
        5,
        "though the manifest announces",
    ),
    row(
        "a longer length than the body",
        Asked::One,
        |request| {
            of_root(request, |request| {
                request.raw(b"HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: 5000\r\n\r\n{}");
                request.close()
            })
        },
        1,
        "5 attempts",
    ),
    row(
        "a shorter length than the body",
        Asked::One,
        |request| {
            of_root(request, |request| {
                request.raw(b"HTTP/1.1 200 x\r\ncontent-type: application/vnd.oci.image.index.v1+json\r\ncontent-length: 2\r\n\r\n{}{}{}");
                true
            })
        },
        1,
        "it has no linux/amd64",
    ),
    row(
        "two lengths",
        Asked::One,
        |request| of_root(request, |request| request.answer(200, &[("content-length", "7")], b"{}")),
        1,
        "",
    ),
    // Heads.
    row(
        "a head of 8 MiB",
        Asked::One,
        |request| of_root(request, |request| request.answer(200, &[("x-large", &"x".repeat(8 * MIB))], b"{}")),
        1,
        "",
    ),
    row(
        "100,000 headers",
        Asked::One,
        |request| of_root(request, |request| request.answer(200, &vec![("x-one", "x"); 100_000], b"{}")),
        1,
        "",
    ),
    row(
        "what is no HTTP",
        Asked::One,
        |request| {
            request.raw(b"SSH-2.0-OpenSSH_9.2\x1b[31m\r\n\r\n");
            request.close()
        },
        1,
        "",
    ),
    row(
        "a head without end",
        Asked::One,
        |request| {
            request.raw(b"HTTP/1.1 200 x\r\n");
            request.forever(b"x-header: of no importance\r\n")
        },
        1,
        "",
    ),
    // Redirects.
    row(
        "a redirect to itself",
        Asked::One,
        |request| {
            let path = request.path.clone();
            of_root(request, |request| request.answer(302, &[("location", &path)], b""))
        },
        1,
        "redirects more than 5 times",
    ),
    row(
        "redirects that grow",
        Asked::One,
        |request| {
            let path = format!("{}?{}", request.path, "x".repeat(1_000));
            request.has("/manifests/1") && request.answer(307, &[("location", &path)], b"")
        },
        1,
        "redirects more than 5 times",
    ),
    row(
        "a redirect to a file",
        Asked::One,
        |request| is_layer(request) && request.answer(302, &[("location", "file:///etc/passwd")], b""),
        1,
        "redirects to the scheme",
    ),
    row(
        "a redirect to what is no address",
        Asked::One,
        |request| is_layer(request) && request.answer(302, &[("location", "http://[::x]:99999/")], b""),
        1,
        "no address",
    ),
    // Refusals.
    row(
        "a refusal of megabytes with control characters",
        Asked::One,
        |request| of_root(request, |request| request.answer(403, &[], &b"\x1b[31m\x07no\r\n".repeat(MIB))),
        4,
        "403",
    ),
    row("a refusal without end", Asked::One, |request| of_root(request, |request| endless(request, 403, "")), 4, "403"),
    row(
        "a refusal in pieces with control characters",
        Asked::One,
        |request| {
            let entry = r#"{"code":"\u001b]0;X\u0007","message":"a\u001b[2J\u0000\n\rb","detail":{"\u001b":"\u0085"}}"#;
            let body = format!(r#"{{"errors":[{}]}}"#, vec![entry; 100].join(","));
            of_root(request, |request| request.answer(403, &[], body.as_bytes()))
        },
        4,
        "403",
    ),
    // Challenges.
    row(
        "401 for ever",
        Asked::One,
        |request| request.answer(401, &[("www-authenticate", "Basic realm=x")], b""),
        4,
        "401",
    ),
    row(
        "a realm that is a file",
        Asked::One,
        |request| request.answer(401, &[("www-authenticate", r#"Bearer realm="file:///etc/passwd""#)], b""),
        4,
        "token server that is not asked",
    ),
    row(
        "a realm that asks for a realm",
        Asked::One,
        |request| {
            let realm = format!("Bearer realm=\"http://{}/token\"", request.world.host);
            request.answer(401, &[("www-authenticate", &realm)], b"")
        },
        4,
        "401",
    ),
    row(
        "a challenge of 300 KiB",
        Asked::One,
        |request| {
            let many = "Bearer realm=x,".repeat(20 * 1024);
            request.answer(401, &[("www-authenticate", &many)], b"")
        },
        4,
        "401",
    ),
    row(
        "a token without end",
        Asked::One,
        |request| {
            let realm = format!("Bearer realm=\"http://{}/token\"", request.world.host);
            match request.has("/token") {
                true => endless(request, 200, ""),
                false => request.answer(401, &[("www-authenticate", &realm)], b""),
            }
        },
        1,
        "token",
    ),
];
