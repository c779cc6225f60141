//! [`Answer`]: what a registry said when it did not do what it was asked.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use super::budget::MORE_PULLS;
use super::retry::{Trouble, retry_after};
use super::secret::masked;
use crate::error::{Error, Kind};
use crate::oci::json;

/// How much of an error's body is read. Real ones have a few hundred bytes for each missing blob.
pub(super) const ANSWER_SIZE_MAX: usize = 64 * 1024;

/// Codes that are a refusal also when they come with a 500. Those of the specification that say what is there or not may
/// come of a store behind the registry that had trouble at that moment.
const REFUSALS: [&str; 8] = [
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "NAME_INVALID",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "UNSUPPORTED",
];

/// How many entries of an answer are kept: an index may miss as many children as it has.
const ENTRIES_MAX: usize = 1_000;

/// How many characters of a text from outside are kept for people to read.
const TEXT_LENGTH_MAX: usize = 300;

/// An answer that is not a success: the status, and the entries of the error envelope where there is one
/// (OCI distribution specification, "Error Codes"). Texts from outside are shortened and hold no control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The entries of the envelope, in their order.
    pub errors: Vec<Entry>,
    /// The beginning of a body that is no such envelope.
    pub text: String,
    /// The host that answered.
    pub host: String,
    pub(super) help: Option<String>,
    after: Option<Duration>,
}

/// One entry of an error envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The code, for example `MANIFEST_BLOB_UNKNOWN`.
    pub code: String,
    /// What the registry says to people.
    pub message: String,
    /// What the registry adds: a plain text as it is, anything else as JSON; empty for nothing.
    pub detail: String,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: serde_json::Value,
    #[serde(default)]
    detail: serde_json::Value,
}

impl Answer {
    pub(super) fn new(host: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        // Whatever else the body is, the status stands: parsed as far as it goes.
        let errors: Vec<Entry> = json::parse::<Envelope>(body)
            .map(|envelope| envelope.errors.into_iter().take(ENTRIES_MAX).map(Entry::from).collect())
            .unwrap_or_default();
        let text = if errors.is_empty() { gist(body) } else { String::new() };
        let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
        Answer { status: status.as_u16(), errors, text, host: host.to_owned(), help: None, after }
    }

    /// Whether one of the entries has this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.errors.iter().any(|entry| entry.code == code)
    }

    /// A server's word for "a little later": 408 and 425 (RFC 8470) ask for it, and 520 to 524 are what Cloudflare says
    /// of a server behind it that does not answer.
    ///
    /// distribution answers 500 when it refuses a foreign layer's `urls`, with `MANIFEST_BLOB_UNKNOWN` inside: that is a
    /// refusal, and stays one however often it is asked. So do a 500 with another code for a refusal, and pulls that are
    /// used up, unless the registry says when to come back.
    pub(super) fn is_passing(&self) -> bool {
        match self.status {
            429 => !self.is_pull_limit() || self.after.is_some(),
            500 => !REFUSALS.iter().any(|code| self.has_code(code)),
            408 | 425 | 502..=504 | 520..=524 => true,
            _ => false,
        }
    }

    /// Docker Hub's 429 when the pulls of a window are used up. Its limit on abuse is a plain 429, and passes soon.
    fn is_pull_limit(&self) -> bool {
        let says = |text: &str| text.to_ascii_lowercase().contains("pull rate limit");
        self.status == 429 && (says(&self.text) || self.errors.iter().any(|entry| says(&entry.message)))
    }

    /// There is no such repository, manifest, blob or upload.
    pub(super) fn is_absent(&self) -> bool {
        self.status == 404
    }

    /// The answer as an error: which host said what, and what can be done about it.
    pub fn into_error(self) -> Error {
        let used_up = self.is_pull_limit();
        let kind = match self.status {
            401 | 403 | 405 | 413 | 415 => Kind::Refused,
            _ if used_up => Kind::Refused,
            _ => Kind::Failed,
        };
        let error = Error::new(kind, format!("{} answered {self}", self.host));
        let help = match self.status {
            _ if self.help.is_some() => self.help,
            _ if used_up => Some(MORE_PULLS.to_owned()),
            429 => {
                Some("the registry limits requests: log in where that raises the limit, or run again later".to_owned())
            }
            300..=399 => {
                Some("the registry points elsewhere where that is not followed: use its final address".to_owned())
            }
            404 => Some(
                "check the name; a private repository also looks like this without credentials, and some registries want a repository to be made before anything is pushed to it".to_owned(),
            ),
            405 => Some("the registry does not allow this: it may be read-only, or a cache of another".to_owned()),
            413 => Some("a proxy or the registry limits the size of uploads: raise that limit".to_owned()),
            500..=599 => {
                Some("the registry has trouble of its own: see its log, and run the same command again".to_owned())
            }
            400..=499 => Some("the registry takes this for a wrong request, and will again: see its log, and what stands between it and here".to_owned()),
            _ => None,
        };
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    }

    /// The answer as trouble: passing or final.
    pub(super) fn into_trouble(self) -> Trouble {
        // That it answered at all is known from there being a wait, if only of nothing.
        let after = Some(self.after.unwrap_or_default());
        match self.is_passing() {
            true => Trouble::Passing { error: self.into_error(), after },
            false => Trouble::Final(self.into_error()),
        }
    }
}

impl From<RawEntry> for Entry {
    fn from(raw: RawEntry) -> Self {
        let text = |value: serde_json::Value| match value {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => readable(&text),
            other => readable(&other.to_string()),
        };
        Entry { code: text(raw.code), message: text(raw.message), detail: text(raw.detail) }
    }
}

/// What a body that is no error envelope says to people.
fn gist(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if !text.trim_start().starts_with('<') {
        return readable(&text);
    }
    // Object stores answer in XML and repeat the signed request in it; of that, and of HTML pages, only this
    // is for people.
    let within = |tag: &str| text.split_once(&format!("<{tag}>"))?.1.split_once(&format!("</{tag}>")).map(|(t, _)| t);
    let parts: Vec<&str> = ["Code", "Message", "title"].into_iter().filter_map(within).collect();
    readable(&parts.join(": "))
}

/// One line of a text from outside, shortened, without what sealift has shown. Addresses lose their login, and their
/// query: it may hold a signature.
pub(super) fn readable(text: &str) -> String {
    // Before it is shortened: half a secret is one too.
    let text = masked(text);
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if line.len() > TEXT_LENGTH_MAX {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        match word.split_once('?') {
            Some((address, _)) if address.contains('/') => line.extend([&without_login(address), "?…"]),
            _ => line.push_str(&without_login(word)),
        }
    }
    line.chars().take(TEXT_LENGTH_MAX).collect()
}

/// A word without the user and the password of the address in it.
fn without_login(word: &str) -> Cow<'_, str> {
    let found = word.split_once("://").and_then(|(before, rest)| {
        let authority = rest.split('/').next().unwrap_or_default();
        // The last one: a password may hold another.
        let (login, _) = authority.rsplit_once('@')?;
        Some((before, rest.strip_prefix(login)?))
    });
    found.map_or(Cow::Borrowed(word), |(before, rest)| Cow::Owned(format!("{before}://…{rest}")))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match self.errors.first() {
            Some(entry) => {
                write!(f, " {entry}")?;
                // The first entry of distribution's refusals is "unknown error"; the telling one comes later.
                if let Some(other) = self.errors.iter().find(|e| e.code != entry.code) {
                    write!(f, "; {other}")?;
                }
                match self.errors.len() {
                    0..=2 => Ok(()),
                    all => write!(f, " ({all} entries)"),
                }
            }
            None if self.text.is_empty() => {
                let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
                reason.map_or(Ok(()), |reason| write!(f, " {reason}"))
            }
            None => write!(f, " {}", self.text),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        // `{}` is what distribution sends for a detail that it does not tell.
        match self.detail.as_str() {
            "" | "{}" => Ok(()),
            detail => write!(f, " ({detail})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::new("r.example", StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn one_line_whatever_the_body() {
        let rows = [
            (404, "404 page not found\n", "404 404 page not found"),
            (403, "", "403 Forbidden"),
            (413, "<html><title>413 Too Large</title><body>x</body></html>", "413 413 Too Large"),
            (
                403,
                "<?xml?><Error><Code>ExpiredToken</Code><Message>expired</Message><Signature>s3cr3t</Signature></Error>",
                "403 ExpiredToken: expired",
            ),
            (400, "Get \"https://s3.example/x?sig=s3cr3t\":\n EOF", "400 Get \"https://s3.example/x?… EOF"),
            (400, r#"{"errors":[{"code":"X","message":"no\u001b[31m"}]}"#, "400 X: no [31m"),
            (400, r#"{"errors":[{"code":7,"detail":{"a":1}},5]}"#, r#"400 {"errors":[{"code":7,"detail":{"a":1}},5]}"#),
            (
                500,
                r#"{"errors":[{"code":"UNKNOWN","message":"unknown error"},{"code":"UNKNOWN","detail":{}},{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown","detail":"sha256:1"}]}"#,
                "500 UNKNOWN: unknown error; MANIFEST_BLOB_UNKNOWN: blob unknown (sha256:1) (3 entries)",
            ),
        ];
        for (status, body, line) in rows {
            assert_eq!(answer(status, body).to_string(), line);
        }
    }

    #[test]
    fn what_passes_and_what_is_the_last_word() {
        let coded = |code: &str| format!(r#"{{"errors":[{{"code":"UNKNOWN"}},{{"code":"{code}"}}]}}"#);
        let hub = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit. x"}]}"#;
        let rows = [
            (408, String::new(), true),
            (425, String::new(), true),
            (429, String::new(), true),
            (429, coded("TOOMANYREQUESTS"), true),
            (429, hub.to_owned(), false),
            (429, "You have reached your PULL RATE LIMIT".to_owned(), false),
            (500, String::new(), true),
            (500, coded("UNKNOWN"), true),
            (500, coded("BLOB_UNKNOWN"), true),
            (500, coded("MANIFEST_BLOB_UNKNOWN"), false),
            (500, coded("DENIED"), false),
            (500, coded("UNSUPPORTED"), false),
            (502, String::new(), true),
            (503, coded("DENIED"), true),
            (504, String::new(), true),
            (522, String::new(), true),
            (501, String::new(), false),
            (505, String::new(), false),
            (507, String::new(), false),
            (400, coded("MANIFEST_INVALID"), false),
            (401, String::new(), false),
            (403, coded("DENIED"), false),
            (404, String::new(), false),
            (405, coded("UNSUPPORTED"), false),
            (409, String::new(), false),
            (413, String::new(), false),
            (416, String::new(), false),
        ];
        for (status, body, passes) in rows {
            let answer = answer(status, &body);
            assert_eq!(answer.is_passing(), passes, "{status} {body}");
            assert!(answer.into_error().help_text().is_some(), "{status} {body}: nothing says what to do");
        }
    }

    #[test]
    fn pulls_that_are_used_up_are_waited_for_when_the_registry_says_how_long() {
        let text = "You have reached your pull rate limit";
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "60".parse().unwrap());
        let waits = Answer::new("r.example", StatusCode::TOO_MANY_REQUESTS, &headers, text.as_bytes());
        assert!(waits.is_passing());
        let error = answer(429, text).into_trouble().into_error();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains(text), "{error}");
        for what in ["log in", "again", "mirror"] {
            assert!(error.help_text().is_some_and(|help| help.contains(what)), "{error:?}");
        }
    }
}
