//! `foreignLayers`: merged key by key, from `defaults` to each image.

use super::file::{ForeignLayersFile, ForeignWord};
use super::{ForeignLayers, ForeignPolicy};
use crate::oci::UrlHost;
use crate::oci::elsewhere::URLS_MAX;
use crate::yaml::{At, Fault};

/// The longest text of `acknowledge`: a few pages. It stands beside each layer in each bundle; a licence that is longer is
/// better named than quoted.
const ACKNOWLEDGE_LENGTH_MAX: usize = 4096;

/// The most hosts of one list. Who has more has not looked at each of them.
const HOSTS_MAX: usize = 8 * URLS_MAX;

/// What is written at `at`, and `unsaid` for what is not.
///
/// What is wrong is reported there; the value stands in until the check ends.
pub(super) fn layers(at: At<'_>, file: Option<&ForeignLayersFile>, unsaid: &ForeignLayers) -> ForeignLayers {
    let Some(written) = file else { return unsaid.clone() };
    let mut made = unsaid.clone();
    made.policy = written.policy.map_or(unsaid.policy, policy);
    if let Some(texts) = &written.hosts {
        made.elsewhere.hosts = hosts(at.key("hosts"), texts);
    }
    if let Some(texts) = &written.allow_private {
        made.elsewhere.allow_private = hosts(at.key("allowPrivate"), texts);
        check_private(at.key("allowPrivate"), texts, &made.elsewhere.hosts);
    }
    if let Some(text) = &written.acknowledge {
        made.acknowledge = acknowledge(at.key("acknowledge"), text);
    }
    if made.policy != ForeignPolicy::Skip && made.acknowledge.is_none() && written.acknowledge.is_none() {
        let place = if written.policy.is_some() { at.key("policy") } else { at };
        let fault = Fault::new("foreign layers are to come along, and nothing says that this is allowed");
        place.wrong(fault.expected("`acknowledge` beside it").help(
            "their vendor has marked them as not to be distributed: write the licence or the ticket that allows it into `acknowledge`",
        ));
    }
    made
}

fn policy(word: ForeignWord) -> ForeignPolicy {
    match word {
        ForeignWord::Skip => ForeignPolicy::Skip,
        ForeignWord::Include => ForeignPolicy::Include,
        ForeignWord::Require => ForeignPolicy::Require,
    }
}

fn hosts(at: At<'_>, texts: &[String]) -> Vec<UrlHost> {
    if texts.len() > HOSTS_MAX {
        at.wrong_key(Fault::new(format!("{} hosts are named", texts.len())).expected(format!("at most {HOSTS_MAX}")));
        return Vec::new();
    }
    let mut made: Vec<UrlHost> = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        match text.parse::<UrlHost>() {
            Ok(host) if made.contains(&host) => {
                at.item(i).wrong(Fault::new(format!("{host} stands in this list already")));
            }
            Ok(host) => made.push(host),
            Err(error) => {
                at.item(i).wrong(Fault::new(error.to_string()).expected("host or host:port, as in the urls"));
            }
        }
    }
    made
}

/// Opening a host that is not asked is a mistake in one of the two lists.
fn check_private(at: At<'_>, texts: &[String], hosts: &[UrlHost]) {
    for (i, text) in texts.iter().enumerate() {
        let Ok(host) = text.parse::<UrlHost>() else { continue };
        if !hosts.contains(&host) {
            let fault = Fault::new(format!("{host} is not in `hosts`, so nothing is fetched from it"));
            at.item(i).wrong(fault.expected("a host that is in `hosts` too"));
        }
    }
}

fn acknowledge(at: At<'_>, text: &str) -> Option<String> {
    let text = text.trim();
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let fault = match text.chars().count() {
        0 => Fault::new("`acknowledge` is empty"),
        length if length > ACKNOWLEDGE_LENGTH_MAX => Fault::new(format!("`acknowledge` has {length} characters"))
            .help(format!("name the licence instead of quoting it: at most {ACKNOWLEDGE_LENGTH_MAX} characters")),
        _ if text.contains(odd) => Fault::new("`acknowledge` holds control characters"),
        _ => return Some(text.to_owned()),
    };
    at.wrong(fault.expected("the licence or the ticket that allows it"));
    None
}
