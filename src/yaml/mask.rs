//! Credentials do not belong in a document: they are refused, and never shown while refusing.

use super::tree::{Node, Shape};
use super::{At, Fault};

/// Keys whose value is a secret wherever they stand (compared in lower case, without `-` and `_`).
const SECRET_KEYS: [&str; 16] = [
    "password",
    "pass",
    "pwd",
    "passwd",
    "passphrase",
    "token",
    "auth",
    "authorization",
    "secret",
    "credential",
    "credentials",
    "username",
    "identitytoken",
    "registrytoken",
    "bearer",
    "apikey",
];

/// The longest way to write one of them: with quotes, dashes and underscores between its words.
const SECRET_KEY_LENGTH_MAX: usize = 32;

fn is_secret_key(key: &str) -> bool {
    SECRET_KEYS.contains(&key.to_lowercase().replace(['-', '_'], "").as_str())
}

/// Where the `user:password@` of an address ends, if `word` is one that has it.
fn userinfo_end(word: &str) -> Option<usize> {
    let (start, with_scheme) = match word.find("://") {
        Some(at) => (at + 3, true),
        None => (0, false),
    };
    let rest = word.get(start..)?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let end = authority.rfind('@')?;
    let digest = authority.get(end..).is_some_and(|rest| rest.starts_with("@sha256:") || rest.starts_with("@sha512:"));
    // Without a scheme a colon is needed: a person's mail address is no secret. Nor is `x:1@sha256:…`.
    let named = with_scheme || authority.get(..end)?.contains(':') && !digest;
    named.then_some(start + end)
}

/// Reports every key and value that is, or holds, a credential.
pub(super) fn refuse_credentials(at: At<'_>) {
    let below: Vec<(Option<&str>, &Node)> = match &at.node().shape {
        Shape::Scalar(text) => {
            if text.split_whitespace().any(|word| userinfo_end(word).is_some()) {
                at.wrong(fault("credentials are written into this address"));
            }
            return;
        }
        Shape::List(items) => items.iter().map(|node| (None, node)).collect(),
        Shape::Map(members) => members.iter().map(|(key, node)| (Some(key.as_str()), node)).collect(),
    };
    for (key, node) in below {
        match key {
            Some(key) if is_secret_key(key) => {
                at.at(node).wrong_key(fault(&format!("`{key}`: credentials are not written into this file")));
            }
            Some(key) if userinfo_end(key).is_some() => {
                at.at(node).wrong_key(fault("credentials are written into this key"));
            }
            _ => refuse_credentials(at.at(node)),
        }
    }
}

fn fault(message: &str) -> Fault {
    Fault::new(message).expected("no credentials").help(
        "log in with `docker login` or `podman login`: their files are read. \
         Change this password, if it is a real one",
    )
}

/// `text` with everything that looks like a secret starred out, each byte by one, so that offsets stay.
///
/// This looks at lines and not at the tree: a document that is not even valid must not be shown with
/// its secrets either.
pub(super) fn secrets(text: &str) -> String {
    text.split_inclusive('\n').map(masked_line).collect()
}

fn masked_line(line: &str) -> String {
    let mut hidden = vec![false; line.len()];
    let mut hide = |from: usize, to: usize| hidden.iter_mut().take(to).skip(from).for_each(|byte| *byte = true);
    if let Some((colon, _)) = line.match_indices(':').find(|(colon, _)| secret_key_ends(line, *colon)) {
        hide(colon + 1, line.len());
    }
    let mut start = 0;
    for word in line.split_inclusive(|c: char| c.is_whitespace() || "\"'[]{},".contains(c)) {
        if let Some(end) = userinfo_end(word) {
            let from = word.find("://").map_or(0, |at| at + 3);
            hide(start + from, start + end);
        }
        start += word.len();
    }
    let stars = |(at, c): (usize, char)| match hidden.get(at) {
        Some(true) if !c.is_whitespace() => "*".repeat(c.len_utf8()),
        _ => c.to_string(),
    };
    line.char_indices().map(stars).collect()
}

/// Whether the colon at `colon` follows a key whose value is a secret.
fn secret_key_ends(line: &str, colon: usize) -> bool {
    let before = line.get(..colon).unwrap_or_default().trim_end();
    // No such key is longer; reading back to the start of a long line for every colon would take for ever.
    let window = before.char_indices().rev().nth(SECRET_KEY_LENGTH_MAX).map_or(0, |(at, _)| at);
    let key = before.get(window..).unwrap_or_default().rsplit(['{', ',', ' ', '\t']).next().unwrap_or_default();
    is_secret_key(key.trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::secrets;

    #[test]
    fn secrets_are_starred_out_and_nothing_moves() {
        let rows = [
            ("source: https://bob:hunter2@a.example/x", "source: https://***********@a.example/x"),
            ("- bob:pässe@a.example/x\n", "- **********@a.example/x\n"),
            ("  password: hunter2", "  password: *******"),
            ("a: {\"token\": abc, b: c}", "a: {\"token\": **** ** **"),
            ("api-key : hunter2", "api-key : *******"),
            ("- pwd: hunter2", "- pwd: *******"),
            ("source: nginx:1@sha256:00", "source: nginx:1@sha256:00"),
            ("source: docker.io/library/nginx", "source: docker.io/library/nginx"),
            ("digest: a.example/x@sha256:00", "digest: a.example/x@sha256:00"),
            ("acknowledge: ask bob@a.example", "acknowledge: ask bob@a.example"),
        ];
        for (text, expected) in rows {
            assert_eq!(secrets(text), expected);
            assert_eq!(secrets(text).len(), text.len());
        }
    }
}
