//! Lists by pages: `n`, `last` and `Link` (distribution specification, "Listing Tags").

use axum::http::StatusCode;

use super::fault::{Code, Fault};
use super::query::Query;

/// The most items of one answer, also when a client asks for more or for all. The rest is behind `Link`.
pub(super) const PAGE_MAX: usize = 1000;

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The items.
    pub items: Vec<String>,
    /// The value of the `Link` header, when more follow.
    pub link: Option<String>,
}

/// The page of `items` that `query` asks for. `path` is what the next page is asked at.
pub(super) fn cut(mut items: Vec<String>, query: &Query, path: &str) -> Result<Page, Fault> {
    let asked = match query.get("n") {
        Some(text) => Some(text.parse::<usize>().map_err(|_| no_number())?),
        None => None,
    };
    items.sort_by_cached_key(|item| order(item));
    if let Some(last) = query.get("last") {
        let last = order(last);
        let seen = items.partition_point(|item| order(item) <= last);
        items.drain(..seen);
    }
    let length = asked.unwrap_or(PAGE_MAX).min(PAGE_MAX);
    let more = items.len() > length;
    items.truncate(length);
    // A page of nothing has no last item that the next page could begin after.
    let link = match items.last() {
        Some(last) if more => Some(format!("<{path}?n={length}&last={last}>; rel=\"next\"")),
        _ => None,
    };
    Ok(Page { items, link })
}

/// The specification has no code for it.
fn no_number() -> Fault {
    Fault::new(Code::Unsupported, "n is no number").status(StatusCode::BAD_REQUEST)
}

/// "Lexical order (i.e. case-insensitive alphanumeric order)"; where only the case differs, byte order, so that
/// the order is total and no page skips an item.
fn order(item: &str) -> (String, String) {
    (item.to_ascii_lowercase(), item.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> (String, Option<String>) {
        let items = ["b", "B", "a", "c", "A"].map(str::to_owned).to_vec();
        let page = cut(items, &Query::parse(Some(query)), "/v2/x/tags/list").unwrap();
        (page.items.concat(), page.link)
    }

    #[test]
    fn pages_follow_each_other() {
        let next = |last: &str| Some(format!("</v2/x/tags/list?n=2&last={last}>; rel=\"next\""));
        assert_eq!(page(""), ("AaBbc".into(), None));
        assert_eq!(page("n=2"), ("Aa".into(), next("a")));
        assert_eq!(page("n=2&last=a"), ("Bb".into(), next("b")));
        assert_eq!(page("n=2&last=b"), ("c".into(), None));
        assert_eq!(page("last=aa"), ("Bbc".into(), None));
        assert_eq!(page("n=0"), (String::new(), None));
    }

    #[test]
    fn a_page_is_bounded_and_its_number_a_number() {
        let many: Vec<String> = (0..PAGE_MAX + 1).map(|n| format!("{n:06}")).collect();
        for query in ["", "n=999999"] {
            let page = cut(many.clone(), &Query::parse(Some(query)), "/p").unwrap();
            assert_eq!(page.items.len(), PAGE_MAX);
            assert!(page.link.is_some());
        }
        for query in ["n=", "n=-1", "n=x", "n=99999999999999999999999"] {
            assert!(cut(many.clone(), &Query::parse(Some(query)), "/p").is_err(), "{query}");
        }
    }
}
