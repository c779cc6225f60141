//! What the registries do not have: other places, and what becomes of an image in the end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Needed;
use crate::content::{Limits, Source, Work, copy};
use crate::error::{Error, Kind, Problem, Side};
use crate::image::Image;
use crate::monitor::Monitor;
use crate::oci::elsewhere::{NotAsked, URLS_MAX};
use crate::oci::{Digest, LayerUrl};
use crate::plan::{Plan, PlannedImage};
use crate::store::Store;
use crate::store::records::Failure;

/// The errors of how many places are told beside that of the last one.
const TOLD_MAX: usize = 3;

/// A blob that could not be had.
pub(super) struct Missing {
    pub digest: Digest,
    pub size: u64,
    /// The images, by place in the plan, that need it.
    pub images: Vec<usize>,
    pub error: Error,
}

/// A blob that one place did not give, and what is left to try.
struct Sought {
    work: Work,
    images: Vec<usize>,
    left: std::vec::IntoIter<Result<LayerUrl, NotAsked>>,
    errors: Vec<Error>,
}

/// Fetches what is needed: from its repositories, then from its addresses, one after the other. A place that has it damaged
/// is passed over as one that does not have it; a disk that is full is nobody's fault but ours.
pub(super) async fn fetch<S: Source>(
    needed: Needed,
    source: &S,
    store: &Arc<Store>,
    limits: Limits,
    monitor: &dyn Monitor,
) -> Vec<Missing> {
    let Needed { work, images, elsewhere } = needed;
    let failures = copy(&work, source, store, limits, monitor).await;
    let mut errors: HashMap<usize, Error> = failures.into_iter().collect();
    let items = work.into_iter().zip(images).zip(elsewhere).enumerate();
    let mut open: Vec<Sought> = items
        .filter_map(|(at, ((work, images), elsewhere))| {
            let errors = vec![errors.remove(&at)?];
            Some(Sought { work, images, left: elsewhere.into_iter(), errors })
        })
        .collect();
    let mut missing = Vec::new();
    // Each round asks one more address of every layer, and none has more.
    for _ in 0..=URLS_MAX {
        let (again, over): (Vec<_>, Vec<_>) = open.into_iter().map(Sought::next).partition(|(go_on, _)| *go_on);
        missing.extend(over.into_iter().map(|(_, sought)| sought.give_up()));
        open = again.into_iter().map(|(_, sought)| sought).collect();
        if open.is_empty() {
            break;
        }
        open = round(open, source, store, limits, monitor).await;
    }
    missing
}

/// Asks the next place of each; what is left could not be had there either.
async fn round<S: Source>(
    open: Vec<Sought>,
    source: &S,
    store: &Arc<Store>,
    limits: Limits,
    monitor: &dyn Monitor,
) -> Vec<Sought> {
    let work: Vec<Work> = open.iter().map(|sought| sought.work.clone()).collect();
    let mut errors: HashMap<usize, Error> = copy(&work, source, store, limits, monitor).await.into_iter().collect();
    let failed = open.into_iter().enumerate().filter_map(|(at, mut sought)| {
        sought.errors.push(errors.remove(&at)?);
        Some(sought)
    });
    failed.collect()
}

impl Sought {
    /// Turns to the next place, if there is one and it could help.
    fn next(mut self) -> (bool, Self) {
        if self.errors.last().is_some_and(is_ours) {
            return (false, self);
        }
        for place in self.left.by_ref() {
            match place {
                Ok(address) => {
                    self.work = Work::at(address, self.work.descriptor);
                    return (true, self);
                }
                Err(why) => self.errors.push(not_asked(&why)),
            }
        }
        (false, self)
    }

    /// The errors of all places as one. Of what can be done, the last place's is said: the others had it no more.
    fn give_up(self) -> Missing {
        let Sought { work, images, mut errors, .. } = self;
        let last = errors.pop().unwrap_or_else(|| Error::failed("it was not tried"));
        let error = match errors.is_empty() {
            true => last,
            false => {
                let kind = Kind::first_of(errors.iter().chain([&last]).map(Error::kind)).unwrap_or(Kind::Failed);
                let told = errors.iter().take(TOLD_MAX).map(ToString::to_string);
                let more = errors.len().checked_sub(TOLD_MAX).filter(|&more| more > 0);
                let more = more.map(|more| format!("{more} more places"));
                let texts: Vec<String> = told.chain(more).chain([last.to_string()]).collect();
                let joined = Error::new(kind, texts.join("; then "));
                match last.help_text() {
                    Some(help) => joined.help(help),
                    None => joined,
                }
            }
        };
        Missing { digest: work.descriptor.digest, size: work.descriptor.size, images, error }
    }
}

fn not_asked(why: &NotAsked) -> Error {
    let error = Error::failed(format!("its url is not asked: {why}")).on(Side::Source);
    match why {
        NotAsked::Unnamed(host) => {
            error.help(format!("if {host} may be asked for it, add that to `hosts` of foreignLayers in the spec"))
        }
        _ => error.help("an image may name anything: ask its vendor; `policy: skip` leaves the layer there"),
    }
}

/// Whether it went wrong on this machine, so that no other place would help.
fn is_ours(error: &Error) -> bool {
    error.side() == Some(Side::Store)
}

/// What became of images of which something is missing.
#[derive(Default)]
pub(super) struct Settled {
    /// Images that are carried otherwise than they were planned, by their place in the plan.
    pub images: HashMap<usize, Image>,
    /// Foreign layers that were to come along.
    pub left_behind: Vec<Failure>,
}

/// Decides for each image of which something is missing: a foreign layer that it can be without stays behind, and its record
/// says so; anything else is a problem of the image.
pub(super) fn settle(
    plan: &Plan,
    store: &Store,
    missing: Vec<Missing>,
    problems: &mut HashMap<usize, Problem>,
    monitor: &dyn Monitor,
) -> Settled {
    let mut by_image: HashMap<usize, Vec<&Missing>> = HashMap::new();
    for one in &missing {
        monitor.problem(&one.error);
        for image in &one.images {
            by_image.entry(*image).or_default().push(one);
        }
    }
    let mut settled = Settled::default();
    for (at, planned) in plan.images.iter().enumerate() {
        let Some(missing) = by_image.get(&at) else { continue };
        let Some(image) = without(planned, store, missing) else {
            if let Some(first) = missing.iter().find(|one| !may_stay(planned, one)).or(missing.first()) {
                problems.entry(at).or_insert_with(|| Problem::from(&first.error));
            }
            continue;
        };
        settled.images.insert(at, image);
        settled.left_behind.extend(missing.iter().map(|one| Failure::new(subject(planned, one), &one.error)));
    }
    settled
}

/// Whether the spec says that the image may be carried without it.
fn may_stay(planned: &PlannedImage, missing: &Missing) -> bool {
    let foreign = planned.image.foreign.iter().any(|layer| layer.descriptor.digest == missing.digest);
    foreign && !planned.urls.required.contains(&missing.digest) && !is_ours(&missing.error)
}

/// The image with those layers left behind; `None` where it cannot be without one of them.
fn without(planned: &PlannedImage, store: &Store, missing: &[&Missing]) -> Option<Image> {
    if !missing.iter().all(|one| may_stay(planned, one)) {
        return None;
    }
    let digests: HashSet<Digest> = missing.iter().map(|one| one.digest).collect();
    let mut image = planned.image.clone();
    image.leave_behind(&digests);
    // The same bytes may be an ordinary layer of another manifest.
    let needed = store.needed(&image).ok()?;
    (!needed.iter().any(|blob| digests.contains(&blob.digest))).then_some(image)
}

fn subject(planned: &PlannedImage, missing: &Missing) -> String {
    let names = planned.tags.iter().map(|tag| format!("{}:{tag}", planned.image.repository)).collect::<Vec<_>>();
    format!("foreign layer {} of {}", missing.digest.short(), names.join(", "))
}
