//! Listing tags.

use std::collections::BTreeSet;
use std::fmt;

use reqwest::Method;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use super::endpoint::Call;
use super::link::{self, Progress};
use super::remote::{Door, Read};
use super::scope::Scope;
use super::transport::encoding_of;
use crate::error::{Error, Result};
use crate::oci::{Tag, json};

/// The most tags of one repository. The largest public ones have some ten thousand; this many of the longest take 30 MiB.
pub const TAGS_MAX: usize = 150_000;

/// How many tags are asked for at once. Registries that know `n` give fewer when that is too many for them.
const PAGE_LENGTH: usize = 1_000;

/// The most pages of one list: [`TAGS_MAX`] in pages of 100, the least that common registries give.
const PAGES_MAX: usize = 1_500;

/// The largest page. distribution 2.x knows no pages: all tags come at once. [`TAGS_MAX`] of 50 characters fit.
const PAGE_SIZE_MAX: usize = 8 * 1024 * 1024;

#[derive(serde::Deserialize)]
struct Page {
    // distribution says `null` of a repository without tags.
    tags: Option<Tags>,
}

/// The tags of a page: sorted, each once, and kept as nothing else on the way.
struct Tags(BTreeSet<Tag>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tags")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tags, A::Error> {
                let mut tags = BTreeSet::new();
                while let Some(text) = list.next_element::<String>()? {
                    match text.parse() {
                        Ok(tag) => _ = tags.insert(tag),
                        Err(error) => tracing::debug!(%error, "the registry lists a tag that cannot be one"),
                    }
                    if tags.len() > TAGS_MAX {
                        return Err(A::Error::custom(format_args!("it has more than {TAGS_MAX} tags")));
                    }
                }
                Ok(Tags(tags))
            }
        }

        deserializer.deserialize_seq(All)
    }
}

impl Door {
    pub async fn tags(&self) -> Result<Option<Vec<Tag>>> {
        let mut url = self.endpoint.url(&self.path, "tags/list")?;
        url.set_query(Some(&format!("n={PAGE_LENGTH}")));
        let mut tags = BTreeSet::new();
        let mut progress = Progress::default();
        for page in 0..PAGES_MAX {
            let call = Call::new(Method::GET, url.clone(), &self.path, Scope::pull(&self.path));
            let read = match self.read(&call, PAGE_SIZE_MAX).await? {
                Ok(read) => read,
                Err(answer) if answer.is_absent() && page == 0 => return Ok(None),
                Err(answer) => return Err(answer.into_error()),
            };
            let next = link::next(&url, &read.headers)?;
            self.add(read, &mut tags)?;
            progress.check(tags.len()).map_err(|what| self.error(format_args!("lists tags on {what}")))?;
            match next {
                // A link to the page itself would go on for ever.
                Some(next) if next != url => url = next,
                _ => return Ok(Some(tags.into_iter().collect())),
            }
        }
        Err(self.error(format_args!("lists tags on more than {PAGES_MAX} pages")))
    }

    fn add(&self, read: Read, tags: &mut BTreeSet<Tag>) -> Result<()> {
        let page: Page = json::parse(&read.body).map_err(|why| {
            let (host, encoding) = (self.endpoint.host(), encoding_of(&read.headers));
            Error::failed(format!("{host} answered with what is no list of tags: {why}{encoding}"))
        })?;
        // The text is not kept while the lists are put together.
        drop(read);
        if let Some(Tags(mut more)) = page.tags {
            tags.append(&mut more);
        }
        if tags.len() > TAGS_MAX {
            return Err(self.error(format_args!("lists more than {TAGS_MAX} tags")));
        }
        Ok(())
    }
}
