//! Manifests whose layers have `urls`: registries that refuse such addresses, and the lines that allow them.

use crate::error::{Error, Kind, Side};
use crate::oci::{Manifest, MediaType};
use crate::registry::Answer;

/// Codes with which registries refuse a manifest for the addresses of its layers, or for layers that they do not have:
/// distribution 2 and 3 (with a status of 500) and Docker Hub; zot, Quay and Pulp; Nexus.
const REFUSED_CODES: [&str; 3] = ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "BLOB_UNKNOWN"];

/// How many hosts are named in one line.
const HOSTS_MAX: usize = 20;

/// The longest host with its port (RFC 1035, section 2.3.4).
const HOST_LENGTH_MAX: usize = 253 + 6;

/// The line of distribution's configuration, 2.x and 3.x, that allows addresses at the hosts of `urls`; `None` where
/// there are none that it could allow.
pub fn allow_line<'u>(urls: impl IntoIterator<Item = &'u String>) -> Option<String> {
    let mut patterns: Vec<String> = Vec::new();
    for origin in urls.into_iter().filter_map(|url| origin(url)) {
        let pattern = format!("^{}/", literally(origin));
        if !patterns.contains(&pattern) && patterns.len() < HOSTS_MAX {
            patterns.push(pattern);
        }
    }
    if patterns.is_empty() {
        return None;
    }
    // Single quotes: YAML takes a backslash in them as it is.
    let quoted: Vec<String> = patterns.iter().map(|pattern| format!("'{pattern}'")).collect();
    Some(format!("validation: {{manifests: {{urls: {{allow: [{}]}}}}}}", quoted.join(", ")))
}

/// Scheme, host and port of an address as they stand in the manifest: that is what distribution holds its patterns against.
fn origin(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty() && host.len() <= HOST_LENGTH_MAX)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    host.chars().all(plain).then(|| url.get(..scheme.len() + 3 + host.len()))?
}

/// A text of plain characters as a pattern of itself.
fn literally(text: &str) -> String {
    text.chars().flat_map(|c| matches!(c, '.' | '[' | ']').then_some('\\').into_iter().chain([c])).collect()
}

/// The error of a manifest that the target refused, where one of its layers has addresses.
pub(super) fn refused_urls(answer: &Answer, manifest: &[u8], media_type: &MediaType) -> Option<Error> {
    // What cannot be read has no layers that could be named.
    let manifest = Manifest::parse(media_type, manifest).ok()?;
    let line = allow_line(manifest.successors().flat_map(|layer| &layer.urls))?;
    if !REFUSED_CODES.iter().any(|code| answer.has_code(code)) {
        return None;
    }
    let what = format!("it does not take a manifest whose layers have urls: {answer}");
    Some(Error::new(Kind::Refused, what).on(Side::Target).help(format!(
        "in the configuration of that registry (distribution 2 and 3): {line}  restart it, and replay again; other registries want the \
         layers themselves: in the spec `foreignLayers: {{policy: include}}` (zot, for Docker media types, also `http.compat: [docker2s2]`)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_host_once() {
        let rows: [(&[&str], Option<&str>); 6] = [
            (
                &["https://mcr.microsoft.com/v2/a/blobs/1", "https://mcr.microsoft.com/v2/b/blobs/2"],
                Some(r"validation: {manifests: {urls: {allow: ['^https://mcr\.microsoft\.com/']}}}"),
            ),
            (
                &["https://go.microsoft.com/fwlink/?linkid=1", "http://files.corp:8080/x"],
                Some(
                    r"validation: {manifests: {urls: {allow: ['^https://go\.microsoft\.com/', '^http://files\.corp:8080/']}}}",
                ),
            ),
            (
                &["https://[fd00::1]:8443/x", "https://127.0.0.1:8443/x"],
                Some(
                    r"validation: {manifests: {urls: {allow: ['^https://\[fd00::1\]:8443/', '^https://127\.0\.0\.1:8443/']}}}",
                ),
            ),
            (
                &["https://a.example:443?x", "HTTP://a.example/x", "https://a.example'/x", "https://me@a.example/x"],
                Some(r"validation: {manifests: {urls: {allow: ['^https://a\.example:443/']}}}"),
            ),
            (&["ftp://a.example/x", "nonsense", "https://"], None),
            (&[], None),
        ];
        for (urls, expected) in rows {
            let urls: Vec<String> = urls.iter().map(|&url| url.to_owned()).collect();
            assert_eq!(allow_line(&urls).as_deref(), expected, "{urls:?}");
        }
    }
}
