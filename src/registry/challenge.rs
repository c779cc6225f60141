//! [`Challenge`]: what a registry wants to see in `Authorization`, from `WWW-Authenticate`.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The longest `WWW-Authenticate` line that is looked at. Real ones have a few hundred characters.
const CHALLENGE_LENGTH_MAX: usize = 8 * 1024;

/// A challenge that sealift can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password, to the registry itself.
    Basic,
    /// A token, from a token server.
    Bearer(Bearer),
}

/// Where a token is had (distribution, "Token Authentication Specification").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The address of the token server.
    pub realm: String,
    /// The name by which the token server knows the registry.
    pub service: Option<String>,
    /// What this very request needs.
    pub scope: Option<String>,
}

impl Challenge {
    /// The best challenge of an answer: a token before a password; `None` when there is none that sealift knows.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for line in headers.get_all(WWW_AUTHENTICATE) {
            let Some(line) = line.to_str().ok().filter(|line| line.len() <= CHALLENGE_LENGTH_MAX) else { continue };
            for (scheme, parameters) in parse(line) {
                let value = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                match (scheme.as_str(), value("realm")) {
                    ("bearer", Some(realm)) => {
                        return Some(Challenge::Bearer(Bearer {
                            realm,
                            service: value("service"),
                            scope: value("scope"),
                        }));
                    }
                    ("basic", _) => basic = Some(Challenge::Basic),
                    _ => {}
                }
            }
        }
        basic
    }
}

/// The challenges of one header line, names in lower case (RFC 9110, section 11.6.1): commas separate both
/// challenges and parameters, so a word that no `=` follows begins the next challenge.
fn parse(line: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, tail) = take_value(value.trim_start());
            if let Some((_, parameters)) = challenges.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = tail;
        } else if word.is_empty() {
            return challenges;
        } else {
            challenges.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
    }
}

/// A token or a quoted string, and what comes after it.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, tail) = text.split_at(end);
        return (value.to_owned(), tail);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(lines: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, reqwest::header::HeaderValue::from_static(line));
        }
        Challenge::from_headers(&headers)
    }

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer(Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            }))
        };
        let rows: [(&[&'static str], Option<Challenge>); 8] = [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                ],
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push")),
            ),
            (
                &[r#"Basic realm="a, b", Bearer realm = "https://x/?a=1" , service=y"#],
                bearer("https://x/?a=1", Some("y"), None),
            ),
            (&[r#"Negotiate, Basic realm="x""#], Some(Challenge::Basic)),
            (&["Negotiate", "bAsIc"], Some(Challenge::Basic)),
            (
                &[r#"Bearer realm="a \"quoted\" one", error="insufficient_scope""#],
                bearer("a \"quoted\" one", None, None),
            ),
            (&["Bearer service=x"], None),
            (&[r#"Bearer realm="never closed"#], bearer("never closed", None, None)),
            (&["", "=,=,=", "Digest x=y"], None),
        ];
        for (lines, expected) in rows {
            assert_eq!(challenge(lines), expected, "{lines:?}");
        }
    }
}
