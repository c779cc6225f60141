//! [`Secret`]: a text that no log, error or debug output shows; and [`masked`], for texts that others wrote, who may repeat
//! what they were shown.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Url, form_urlencoded};

/// Shorter texts are parts of words, and protect nothing.
const LENGTH_MIN: usize = 6;

/// How many tokens are remembered: those of the last minutes, whoever repeats them.
const TOKENS_MAX: usize = 1_000;

/// The variables that name proxies; their addresses may hold a password (curl(1), "ENVIRONMENT").
const PROXY_VARIABLES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// What stands in the place of a secret.
const MASK: &str = "…";

/// What this process has to keep to itself. Of the whole process, for whoever repeats a secret need not be the one who got
/// it from sealift.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(|| Mutex::new(Known::of_proxies()));

#[derive(Default)]
struct Known {
    /// From files, as many as there are.
    kept: BTreeSet<String>,
    /// From token servers, the newest last.
    tokens: VecDeque<String>,
}

impl Known {
    fn of_proxies() -> Self {
        let mut known = Self::default();
        let urls = PROXY_VARIABLES.iter().filter_map(|name| Url::parse(&std::env::var(name).ok()?).ok());
        for url in urls {
            let Some(password) = url.password() else { continue };
            let user = decoded(url.username());
            // As it stands there, and as the header of a proxy has it.
            let header = STANDARD.encode(format!("{user}:{}", decoded(password)));
            [password, &decoded(password), &header].into_iter().for_each(|secret| known.keep(secret));
        }
        known
    }

    fn keep(&mut self, secret: &str) {
        self.kept.extend(forms(secret));
    }

    fn remember(&mut self, shown: &str) {
        for form in forms(shown) {
            if !self.tokens.contains(&form) {
                self.tokens.push_back(form);
            }
        }
        while self.tokens.len() > TOKENS_MAX {
            self.tokens.pop_front();
        }
    }

    fn masked(&self, text: &str) -> String {
        let mut all: Vec<&String> =
            self.kept.iter().chain(&self.tokens).filter(|secret| text.contains(*secret)).collect();
        // The longest first: one may hold another.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }
}

/// As it is, and as it is written in an address or a form.
fn forms(secret: &str) -> impl Iterator<Item = String> {
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    [secret.to_owned(), encoded].into_iter().filter(|text| text.len() >= LENGTH_MIN)
}

/// A part of an address without its `%`.
fn decoded(part: &str) -> String {
    // Those of a form are decoded by the crate that is here; the two that mean something else there are told first.
    let text = part.replace('+', "%2B").replace('&', "%26");
    form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// Remembers what is shown to a registry for a while, such as a token or the text of a `Basic` header.
pub(super) fn remember(shown: &str) {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).remember(shown);
}

/// `text` without any secret that this process knows.
pub(super) fn masked(text: &str) -> String {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).masked(text)
}

/// A password or a token. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).keep(&text);
        Secret(text)
    }

    /// The text itself, for the one place that puts it into a request.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_addresses() {
        for (part, expected) in [("a%40b", "a@b"), ("a+b&c", "a+b&c"), ("%C3%A9%3D", "é="), ("", "")] {
            assert_eq!(decoded(part), expected);
        }
    }

    #[test]
    fn what_others_repeat_is_masked() {
        let mut known = Known::default();
        ["long/secret+1", "long/secret", "short"].into_iter().for_each(|secret| known.keep(secret));
        known.remember("a-token-of-the-test");
        let rows = [
            ("you sent long/secret+1", "you sent …"),
            ("refresh_token=long%2Fsecret%2B1&x", "refresh_token=…&x"),
            ("a-token-of-the-testa-token-of-the-test", "……"),
            ("short is no secret", "short is no secret"),
        ];
        for (text, expected) in rows {
            assert_eq!(known.masked(text), expected);
        }
    }
}
