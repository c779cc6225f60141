//! A server for nginx that answers for the foreign hosts: with what `sealift serve --foreign` says, or with the files of an
//! unpacked bundle.
//!
//! Urls come from vendors. Whatever is in one of them goes into the file as a regular expression of nothing but letters,
//! digits and a few harmless signs, the others as `\xHH`: there is nothing in it that nginx could take for the end of a
//! word, a variable or a block.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Answered, ConfigFile, ForeignHost, NotAnswered, Wanted};
use crate::error::{Error, Result};
use crate::image::decoded;
use crate::oci::Digest;

/// The longest word of a configuration that nginx reads is a little under 4096 bytes (`NGX_CONF_BUFFER`).
const WORD_MAX: usize = 4000;

/// Where its certificate and key are, where nothing else was said.
const CERTIFICATE: (&str, &str) = ("/etc/ssl/sealift/foreign.pem", "/etc/ssl/sealift/foreign.key");

/// What the layers are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// `sealift serve --foreign` without TLS, at this host and port.
    Serve(String),
    /// An unpacked bundle or another image layout, in this folder.
    Layout(String),
}

impl Default for Behind {
    fn default() -> Self {
        Behind::Serve("127.0.0.1:5000".to_owned())
    }
}

/// The file, to be included in the section `http`.
pub(super) fn nginx(
    hosts: &[ForeignHost],
    answered: &[Answered<'_>],
    wanted: &Wanted,
    not_answered: &mut Vec<NotAnswered>,
) -> Result<ConfigFile> {
    let mut content = String::from("# For the section http of nginx; made by sealift client-config\n");
    let location = match &wanted.behind {
        Behind::Serve(address) => proxy(&word(address)?),
        Behind::Layout(folder) => {
            content += &map(answered, not_answered);
            files(&word(folder)?)
        }
    };
    let of_tls: BTreeSet<u16> = hosts.iter().flat_map(|host| host.tls_ports.iter().copied()).collect();
    let plain: BTreeSet<u16> = hosts.iter().flat_map(|host| host.plain_ports.iter().copied()).collect();
    for port in &of_tls {
        let tls = tls(wanted)?;
        content += &server(wanted, *port, &tls, names(hosts, |host| host.tls_ports.contains(port)), &location);
    }
    // A port speaks one or the other.
    for port in plain.difference(&of_tls) {
        content += &server(wanted, *port, "", names(hosts, |host| host.plain_ports.contains(port)), &location);
    }
    Ok(ConfigFile { path: "nginx.conf".to_owned(), content })
}

fn names(hosts: &[ForeignHost], is_there: impl Fn(&ForeignHost) -> bool) -> Vec<&str> {
    hosts.iter().filter(|host| is_there(host)).map(|host| host.name.as_str()).collect()
}

fn server(wanted: &Wanted, port: u16, tls: &str, names: Vec<&str>, location: &str) -> String {
    let any = if wanted.address.is_some_and(|address| address.is_ipv6()) { "[::]:" } else { "" };
    let ssl = if tls.is_empty() { "" } else { " ssl" };
    let mut text = format!("\nserver {{\n    listen {any}{port}{ssl};\n");
    for name in names {
        // As regular expressions: nginx has too little room for long names otherwise, and does not start.
        let _ = writeln!(text, "    server_name \"~^{}$\";", expression(name));
    }
    text + tls + location + "}\n"
}

fn tls(wanted: &Wanted) -> Result<String> {
    let usual = || (CERTIFICATE.0.to_owned(), CERTIFICATE.1.to_owned());
    let (certificate, key) = wanted.certificate.clone().unwrap_or_else(usual);
    let (certificate, key) = (word(&certificate)?, word(&key)?);
    Ok(format!("    ssl_certificate \"{certificate}\";\n    ssl_certificate_key \"{key}\";\n"))
}

/// Everything goes on as it came: host, path and query. nginx keeps no copy of layers on its disk.
fn proxy(address: &str) -> String {
    format!(
        "    location / {{\n        proxy_pass http://{address};\n        proxy_http_version 1.1;\n        \
         proxy_set_header Host $http_host;\n        proxy_set_header Connection \"\";\n        \
         proxy_buffering off;\n        proxy_read_timeout 120s;\n    }}\n"
    )
}

/// Files by their digests; what is not in the map is not there.
fn files(folder: &str) -> String {
    format!(
        "    location / {{\n        root \"{folder}\";\n        types {{ }}\n        \
         default_type application/octet-stream;\n        if ($sealift_blob = \"\") {{\n            return 404;\n        }}\n        \
         rewrite ^ /$sealift_blob break;\n    }}\n"
    )
}

/// Which file is at which address. Regular expressions tell capital letters from small ones; other words of a map do not.
fn map(answered: &[Answered<'_>], not_answered: &mut Vec<NotAnswered>) -> String {
    let mut lines: BTreeSet<(String, Digest)> = BTreeSet::new();
    for Answered { address, digest } in answered {
        for target in [Some(address.target().to_owned()), as_go_writes(address.target())].into_iter().flatten() {
            let line = format!("~^{}:{}{}$", expression(address.host()), address.port(), expression(&target));
            if line.len() <= WORD_MAX {
                lines.insert((line, *digest));
            } else {
                let why = "it is too long for nginx: let nginx ask `sealift serve --foreign`".to_owned();
                not_answered.push(NotAnswered { url: address.to_string(), why });
            }
        }
    }
    let mut text = "\nmap \"$host:$server_port$request_uri\" $sealift_blob {\n    default \"\";\n".to_owned();
    for (line, digest) in lines {
        let _ = writeln!(text, "    \"{line}\" \"{}\";", digest.layout_path());
    }
    text + "}\n"
}

/// A regular expression for exactly this text.
fn expression(text: &str) -> String {
    let mut written = String::new();
    for byte in text.bytes() {
        match byte {
            b'.' => written += "\\.",
            b'/' | b'-' | b'_' | b':' | b'=' | b'&' | b',' => written.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => written.push(char::from(byte)),
            _ => _ = write!(written, "\\x{byte:02x}"),
        }
    }
    written
}

/// A target as programs in Go write it: containerd decodes a path, and encodes again what it has to (`net/url`, `EscapedPath`).
/// `None` where that changes what is asked for.
fn as_go_writes(target: &str) -> Option<String> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut written = String::new();
    for byte in decoded(path) {
        match byte {
            b'?' | b'#' | b'%' => return None,
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' => {
                written.push(char::from(byte));
            }
            _ if byte.is_ascii_alphanumeric() => written.push(char::from(byte)),
            _ => _ = write!(written, "%{byte:02X}"),
        }
    }
    (written != path).then(|| written + query)
}

/// A name that the operator gave, for between quotes. What would need another kind of quoting is refused.
fn word(text: &str) -> Result<String> {
    let harmless = |c: char| c.is_alphanumeric() || "/.-_:[]@+=, ".contains(c);
    if text.is_empty() || text.len() > WORD_MAX || !text.chars().all(harmless) {
        return Err(Error::usage(format!("{text:?} cannot stand in a configuration of nginx"))
            .help("use letters, digits and /.-_ only"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_url_is_more_than_a_letter_to_nginx() {
        let hostile = "/a\"b'c;d}e{f$g\\h#i j\tk\nl(m)n[o]p*q+r?s^t|u%22é";
        let written = expression(hostile);
        let plain = |c: char| c.is_ascii_alphanumeric() || "/\\-_:=&,.".contains(c);
        assert!(written.chars().all(plain), "{written}");
        assert!(written.starts_with("/a\\x22b\\x27c\\x3bd\\x7de\\x7bf\\x24g\\x5ch\\x23i\\x20j"), "{written}");
        assert_eq!(expression("mcr.microsoft.com"), "mcr\\.microsoft\\.com");
    }

    proptest::proptest! {
        /// What PCRE reads is what was meant, byte for byte, and nginx reads nothing but one word.
        #[test]
        fn an_expression_is_its_text(text in ".*") {
            let written = expression(&text);
            let plain = |c: char| c.is_ascii_alphanumeric() || "/\\-_:=&,.".contains(c);
            proptest::prop_assert!(written.chars().all(plain));
            let mut read = Vec::new();
            let mut rest = written.as_bytes();
            while let Some((&first, behind)) = rest.split_first() {
                match (first, behind) {
                    (b'\\', [b'x', high, low, ..]) => {
                        let digits = [*high, *low];
                        read.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                        rest = &behind[3..];
                    }
                    (b'\\', [b'.', ..]) => {
                        read.push(b'.');
                        rest = &behind[1..];
                    }
                    (b'\\' | b'.', _) => panic!("{written}"),
                    _ => {
                        read.push(first);
                        rest = behind;
                    }
                }
            }
            proptest::prop_assert_eq!(read, text.as_bytes());
        }
    }

    #[test]
    fn paths_as_programs_in_go_write_them() {
        let rows = [
            ("/a/b.tar.gz", None),
            ("/a%20b?x=%20", Some("/a%20b?x=%20")),
            ("/a b", Some("/a%20b")),
            ("/a%2Fb?q", Some("/a/b?q")),
            ("/%7euser", Some("/~user")),
            ("/a%3Fb", None),
            ("/a%25b", None),
            ("/é", Some("/%C3%A9")),
        ];
        for (target, written) in rows {
            let expected = written.filter(|written| *written != target);
            assert_eq!(as_go_writes(target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn names_of_files_stay_within_their_quotes() {
        for name in ["/etc/ssl/a b.pem", "127.0.0.1:5000", "[::1]:5000", "/srv/bündel"] {
            assert_eq!(word(name).unwrap(), name);
        }
        for name in ["", "a\"b", "a;b", "a$b", "a\nb", "a\\b", "a{b}", "a'b", "a#b"] {
            assert!(word(name).is_err(), "{name:?}");
        }
    }
}
