//! Following `Link: <…>; rel="next"` (RFC 8288), never to another host.

use reqwest::header::{HeaderMap, LINK};
use url::Url;

use crate::error::{Error, Kind, Result};

/// How many pages in a row may bring nothing new. Filters of a registry leave some of them empty; a list that goes in a
/// circle, or on for ever, has no others.
const IDLE_PAGES_MAX: usize = 10;

/// Whether the pages of a list bring something.
#[derive(Default)]
pub(super) struct Progress {
    known: usize,
    idle: usize,
}

impl Progress {
    /// Takes note of how many entries are known after a page; the error text when it goes nowhere.
    pub fn check(&mut self, known: usize) -> Result<(), String> {
        self.idle = if known > self.known { 0 } else { self.idle + 1 };
        self.known = known;
        match self.idle > IDLE_PAGES_MAX {
            true => Err(format!("more than {IDLE_PAGES_MAX} pages in a row that bring nothing new")),
            false => Ok(()),
        }
    }
}

/// The address of the next page after `current`; `None` on the last one.
///
/// Only path and query are taken from the header: registries behind a proxy name the wrong scheme or port. A
/// link to another host is an error, for a list that ends early is not the list.
pub(super) fn next(current: &Url, headers: &HeaderMap) -> Result<Option<Url>> {
    let lines = headers.get_all(LINK).iter().filter_map(|line| line.to_str().ok());
    let Some(target) = lines.flat_map(links).find(|(_, parameters)| is_next(parameters)).map(|(target, _)| target)
    else {
        return Ok(None);
    };
    let linked = current.join(target).map_err(|_| Error::failed("the link to the next page is no address"))?;
    if linked.host_str() != current.host_str() {
        let host = linked.host_str().unwrap_or("nowhere");
        return Err(Error::new(Kind::Refused, format!("the link to the next page leads to another host, {host}")));
    }
    let mut next = current.clone();
    next.set_path(linked.path());
    next.set_query(linked.query());
    Ok(Some(next))
}

/// The targets of one header line with the text of their parameters.
fn links(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, parameters)) = after.split_once('>') else { break };
        // A `<` begins the next link; none is in the parameters that matter here.
        let end = parameters.find('<').unwrap_or(parameters.len());
        let (own, tail) = parameters.split_at(end);
        found.push((target, own));
        rest = tail;
    }
    found
}

fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).any(|parameter| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            let relations = value.trim().trim_matches('"').to_ascii_lowercase();
            name.trim().eq_ignore_ascii_case("rel") && relations.split_ascii_whitespace().any(|r| r == "next")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_brings_nothing_new_ends() {
        let mut progress = Progress::default();
        assert!((0..100).all(|known| (0..5).all(|_| progress.check(known / 2).is_ok())));
        let ends = (0..100).position(|_| progress.check(49).is_err());
        assert!(ends.is_some_and(|pages| pages < IDLE_PAGES_MAX), "{ends:?}");
    }

    #[test]
    fn links_to_the_next_page() {
        let current: Url = "https://r.example:5000/v2/a/tags/list?n=2".parse().unwrap();
        let rows = [
            (
                r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
                Ok(Some("https://r.example:5000/v2/a/tags/list?last=b&n=2")),
            ),
            (
                "<http://r.example/v2/a/tags/list?last=b>; rel=next",
                Ok(Some("https://r.example:5000/v2/a/tags/list?last=b")),
            ),
            (
                r#"</first>; rel="first", <?last=c>; title="x"; rel="x next""#,
                Ok(Some("https://r.example:5000/v2/a/tags/list?last=c")),
            ),
            ("<https://evil.example/v2/a/tags/list>; rel=next", Err(())),
            ("</x>; rel=prev", Ok(None)),
            ("nonsense", Ok(None)),
        ];
        for (line, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, line.parse().unwrap());
            let found = next(&current, &headers).map(|url| url.map(String::from)).map_err(|_| ());
            assert_eq!(found, expected.map(|url| url.map(str::to_owned)), "{line}");
        }
    }
}
