//! From the site as written to the site as meant.

use std::path::PathBuf;

use super::file::{RewriteFile, SiteFile, StubsWord};
use super::rewrite::Wrong;
use super::{KIND, Rewrite, Site, Stubs};
use crate::oci::{Registry, Repository};
use crate::yaml::{At, Diagnostics, Document, Fault, LABEL_LENGTH_MAX, is_label};

/// The site that `document` means.
pub(super) fn site(document: &Document) -> Result<Site, Diagnostics> {
    let file: SiteFile = document.deserialize(KIND)?;
    document.check(|at| {
        let name = name(at.key("name"), &file.name);
        let registry: Option<Registry> = at.key("registry").parsed(&file.registry);
        let prefix = prefix(at.key("prefix"), file.prefix.as_deref().unwrap_or_default(), registry.as_ref());
        let rewrite = rewrite(at.key("rewrite"), &file.rewrite);
        let keys = keys(at.key("keys"), &file.keys);
        refuse(at, &file);
        Some(Site {
            name: name?,
            registry: registry?,
            prefix: prefix?,
            rewrite: rewrite?,
            keys: keys?,
            stubs: match file.stubs {
                Some(StubsWord::Never) => Stubs::Never,
                Some(StubsWord::Allow) | None => Stubs::Allow,
            },
            tag_children: file.tag_children.unwrap_or_default(),
        })
    })
}

fn name(at: At<'_>, text: &str) -> Option<String> {
    if !is_label(text) {
        let expected = format!("1 to {LABEL_LENGTH_MAX} lower-case letters, digits and dashes, for example enclave-a");
        at.wrong(Fault::new(format!("{text:?} is no name")).expected(expected));
        return None;
    }
    Some(text.to_owned())
}

fn prefix(at: At<'_>, text: &str, registry: Option<&Registry>) -> Option<String> {
    if !text.is_empty()
        && let Err(error) = Repository::new(registry?.clone(), text)
    {
        at.wrong(Fault::new(error.to_string()).expected("path parts, for example mirror"));
        return None;
    }
    Some(text.to_owned())
}

fn rewrite(at: At<'_>, files: &[RewriteFile]) -> Option<Vec<Rewrite>> {
    let mut rules: Vec<Rewrite> = Vec::new();
    let mut legal = true;
    for (i, file) in files.iter().enumerate() {
        let at = at.item(i);
        match Rewrite::new(&file.from, &file.to) {
            Ok(rule) if rules.iter().any(|other| other.from == rule.from) => {
                at.key("from").wrong(Fault::new("never reached: a rule above has the same `from`"));
            }
            Ok(rule) => rules.push(rule),
            Err(wrong) => {
                legal = false;
                match wrong {
                    Wrong::From(why) => {
                        at.key("from").wrong(Fault::new(why).expected("for example docker.io/library/*"))
                    }
                    Wrong::To(why) => at.key("to").wrong(Fault::new(why).expected("for example hub/*")),
                }
            }
        }
    }
    legal.then_some(rules)
}

fn keys(at: At<'_>, files: &[String]) -> Option<Vec<PathBuf>> {
    if files.is_empty() {
        at.wrong_key(Fault::new("`keys` is empty: no bundle would be accepted").expected("at least one .pub file"));
    }
    for (i, file) in files.iter().enumerate() {
        if file.is_empty() {
            at.item(i).wrong(Fault::new("the path is empty").expected("a file with a public key"));
        }
    }
    Some(files.iter().map(|file| at.document().resolve(file)).collect())
}

fn refuse(at: At<'_>, file: &SiteFile) {
    if file.threshold.is_some_and(|threshold| threshold != 1) {
        at.key("threshold").not_honoured("a threshold other than 1", "`threshold: 1`, or leave it out");
    }
    if file.trust.is_some() {
        at.key("trust").not_honoured("trust", "the signature on the bundle (`keys`), and leave trust out");
    }
}
