//! What a request path means. Repository names contain slashes, so no router can split these paths: the
//! last parts say what is asked for, and everything before them is the name.

use crate::oci::Name;
use crate::oci::{Digest, Registry, Repository};

/// The longest path that is looked at, in bytes: a name of 255, a digest of 135, and room for the words.
const PATH_MAX: usize = 1024;

/// The lengths of the groups of hex digits that a UUID is written in.
pub(super) const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v2/`: is this a registry?
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(String),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(String, Name),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(String, Digest),
    /// `/v2/<name>/blobs/<digest>`
    Blob(String, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(String),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(String, String),
}

/// Why a path names nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PathFault {
    /// No endpoint has this form.
    Unknown,
    /// The repository name is illegal.
    Name,
    /// The digest is illegal.
    Digest,
    /// The reference is neither a tag nor a digest.
    Reference,
}

/// Reads the path of a request as it was sent, before any decoding.
///
/// A part is decoded only after the path was split, and only `%3A` is: some clients write the colon of a
/// digest so. Nothing else that a legal name contains needs encoding, so an encoded slash or dot is an
/// illegal character and never a separator.
pub(super) fn parse(path: &str) -> Result<Endpoint, PathFault> {
    if path.len() > PATH_MAX {
        return Err(PathFault::Name);
    }
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Endpoint::Base),
        Some("/_catalog") => return Ok(Endpoint::Catalog),
        Some(rest) => rest.strip_prefix('/').ok_or(PathFault::Unknown)?,
        None => return Err(PathFault::Unknown),
    };
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [name @ .., "tags", "list"] => Ok(Endpoint::Tags(repository(name)?)),
        [name @ .., "manifests", reference] => {
            let name = repository(name)?;
            Ok(Endpoint::Manifest(name, manifest_name(reference)?))
        }
        [name @ .., "referrers", subject] => Ok(Endpoint::Referrers(repository(name)?, digest(subject)?)),
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            Ok(Endpoint::Uploads(repository(name)?))
        }
        [name @ .., "blobs", "uploads", id] => {
            let name = repository(name)?;
            if is_uuid(id) { Ok(Endpoint::Upload(name, (*id).to_owned())) } else { Err(PathFault::Unknown) }
        }
        [name @ .., "blobs", blob] => Ok(Endpoint::Blob(repository(name)?, digest(blob)?)),
        _ => Err(PathFault::Unknown),
    }
}

/// Whether a text is a legal repository name.
pub(super) fn is_repository(name: &str) -> bool {
    // The rule is that of `Repository`; the host is none that completes names.
    "localhost".parse::<Registry>().is_ok_and(|registry| Repository::new(registry, name).is_ok())
}

fn repository(parts: &[&str]) -> Result<String, PathFault> {
    let name = parts.join("/");
    if is_repository(&name) { Ok(name) } else { Err(PathFault::Name) }
}

fn digest(part: &str) -> Result<Digest, PathFault> {
    decode_colon(part).parse().map_err(|_| PathFault::Digest)
}

fn manifest_name(part: &str) -> Result<Name, PathFault> {
    let text = decode_colon(part);
    if text.contains(':') {
        return text.parse().map(Name::Digest).map_err(|_| PathFault::Digest);
    }
    text.parse().map(Name::Tag).map_err(|_| PathFault::Reference)
}

fn is_uuid(id: &str) -> bool {
    let groups = id.split('-').map(str::len);
    groups.eq(UUID_GROUPS) && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn decode_colon(part: &str) -> String {
    part.replace("%3A", ":").replace("%3a", ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn empty() -> Digest {
        Digest::of(b"")
    }

    #[test]
    fn every_endpoint() {
        let tag = |text: &str| Name::Tag(text.parse().unwrap());
        let id = "01234567-89ab-4def-8123-456789abcdef";
        let rows = [
            ("/v2".to_owned(), Endpoint::Base),
            ("/v2/".to_owned(), Endpoint::Base),
            ("/v2/_catalog".to_owned(), Endpoint::Catalog),
            ("/v2/team/app/tags/list".to_owned(), Endpoint::Tags("team/app".into())),
            ("/v2/app/manifests/1.0".to_owned(), Endpoint::Manifest("app".into(), tag("1.0"))),
            (format!("/v2/a/b/c/manifests/sha256:{HEX}"), Endpoint::Manifest("a/b/c".into(), empty().into())),
            (format!("/v2/app/manifests/sha256%3a{HEX}"), Endpoint::Manifest("app".into(), empty().into())),
            (format!("/v2/app/referrers/sha256:{HEX}"), Endpoint::Referrers("app".into(), empty())),
            (format!("/v2/app/blobs/sha256%3A{HEX}"), Endpoint::Blob("app".into(), empty())),
            ("/v2/app/blobs/uploads/".to_owned(), Endpoint::Uploads("app".into())),
            ("/v2/app/blobs/uploads".to_owned(), Endpoint::Uploads("app".into())),
            (format!("/v2/app/blobs/uploads/{id}"), Endpoint::Upload("app".into(), id.into())),
        ];
        for (path, endpoint) in rows {
            assert_eq!(parse(&path), Ok(endpoint), "{path}");
        }
    }

    #[test]
    fn words_of_the_protocol_may_be_parts_of_a_name() {
        assert_eq!(parse("/v2/blobs/manifests/tags/list"), Ok(Endpoint::Tags("blobs/manifests".into())));
        assert_eq!(parse("/v2/manifests/blobs/uploads/"), Ok(Endpoint::Uploads("manifests".into())));
        assert_eq!(
            parse("/v2/a/manifests/manifests/blobs"),
            Ok(Endpoint::Manifest("a/manifests".into(), Name::Tag("blobs".parse().unwrap())))
        );
    }

    #[test]
    fn hostile_paths_name_nothing() {
        let long = format!("/v2/{}/tags/list", "a/".repeat(2000));
        let rows = [
            ("/", PathFault::Unknown),
            ("/v1/", PathFault::Unknown),
            ("/v2x", PathFault::Unknown),
            ("/v2/app", PathFault::Unknown),
            ("/v2/../etc/passwd", PathFault::Unknown),
            ("/v2/../tags/list", PathFault::Name),
            ("/v2/a/../b/tags/list", PathFault::Name),
            ("/v2/a%2Fb/tags/list", PathFault::Name),
            ("/v2/a%2f..%2fb/tags/list", PathFault::Name),
            ("/v2/%2e%2e/tags/list", PathFault::Name),
            ("/v2/a%00b/tags/list", PathFault::Name),
            ("/v2//tags/list", PathFault::Name),
            ("/v2/tags/list", PathFault::Name),
            ("/v2/Upper/tags/list", PathFault::Name),
            ("/v2/app/manifests/", PathFault::Reference),
            ("/v2/app/manifests/..", PathFault::Reference),
            ("/v2/app/manifests/a%2Fb", PathFault::Reference),
            ("/v2/app/manifests/sha256:../../x", PathFault::Unknown),
            ("/v2/app/manifests/sha256:..", PathFault::Digest),
            ("/v2/app/blobs/sha256:ABC", PathFault::Digest),
            ("/v2/app/blobs/x", PathFault::Digest),
            ("/v2/app/referrers/x", PathFault::Digest),
            ("/v2/app/blobs/uploads/../x", PathFault::Unknown),
            ("/v2/app/blobs/uploads/..", PathFault::Unknown),
            (long.as_str(), PathFault::Name),
        ];
        for (path, fault) in rows {
            assert_eq!(parse(path), Err(fault), "{path}");
        }
    }
}
