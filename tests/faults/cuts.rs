//! Streams that are cut at every 4 KiB of their first 64 KiB, and at every MiB after.

use super::pulls::Pulls;
use super::replays::Replays;
use super::support::faults::Passed;
use super::*;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What may be moved again, in each stream.
const CHUNK: u64 = 16 * MIB;

/// The bytes of the layer: two MiB and some, or more than two chunks.
const SMALL: usize = 2 * 1024 * 1024 + 5_000;
const LARGE: usize = 34 * 1024 * 1024 + 5_000;

/// Every third end is also an RST.
const RESETS: usize = 3;

/// Where a stream of `size` bytes is cut, and whether with RST.
fn places(size: u64) -> impl Iterator<Item = (u64, bool)> {
    let early = (0..=16).map(|at| at * 4 * KIB);
    let places = early.chain((1..).map(|at| at * MIB).take_while(move |at| *at < size));
    places.enumerate().flat_map(|(number, at)| {
        let reset = number.is_multiple_of(RESETS).then_some((at, true));
        [(at, false)].into_iter().chain(reset)
    })
}

fn of(passed: &[Passed], blob: &Descriptor) -> Vec<Passed> {
    passed.iter().filter(|passed| is_of(&passed.asked, blob)).cloned().collect()
}

async fn downloads(behind: Behind, size: usize) {
    let pulls = Pulls::new(behind, size).await;
    let layer = &pulls.layer;
    for (at, reset) in places(layer.size) {
        let fault = if reset { Fault::Reset(at) } else { Fault::Cut(at) };
        let (name, blob) = (format!("{fault:?} of {}", layer.size), layer.clone());
        pulls.faults.on(move |asked| is_of(asked, &blob), 1, fault);
        let passed = of(&pulls.disturbed(&name, &[]).await, layer);
        let [first, second] = &passed[..] else { panic!("{name}: {passed:?}") };
        assert_eq!(first.down, at, "{name}");
        let again = first.down + second.down - layer.size;
        assert!(again <= CHUNK, "{name}: {again} bytes came twice");
        // With RST, what was on its way may be lost; otherwise nothing is.
        if !reset {
            let range = (at > 0).then(|| format!("bytes={at}-"));
            assert_eq!((again, &second.asked.range), (0, &range), "{name}");
        }
    }
}

async fn uploads(behind: Behind, size: usize) {
    let resumes = matches!(behind, Behind::Embedded(_));
    let replays = Replays::new(behind, size).await;
    let layer = &replays.layer;
    for (at, reset) in places(layer.size) {
        let fault = if reset { Fault::ResetUpload(at) } else { Fault::CutUpload(at) };
        let (name, blob) = (format!("{fault:?} of {}", layer.size), layer.clone());
        replays.faults.on(move |asked| is_of(asked, &blob), 1, fault);
        let passed = of(&replays.disturbed(&name, &[]).await, layer);
        let up: u64 = passed.iter().map(|passed| passed.up).sum();
        assert_eq!(passed[0].up, at, "{name}: {passed:?}");
        let again = up - layer.size;
        match resumes {
            // What arrived before the cut is not sent again.
            true => assert_eq!(again, 0, "{name}: {passed:?}"),
            false => assert!(again <= at, "{name}: {passed:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_from_the_embedded_registry_go_on() {
    downloads(Behind::embedded().await, SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_from_distribution_go_on() {
    if let Some(behind) = Behind::distribution().await {
        downloads(behind, SMALL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_to_the_embedded_registry_arrive() {
    uploads(Behind::embedded().await, SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_to_distribution_arrive() {
    if let Some(behind) = Behind::distribution().await {
        uploads(behind, SMALL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "moves some GiB"]
async fn large_downloads_go_on() {
    downloads(Behind::embedded().await, LARGE).await;
    if let Some(behind) = Behind::distribution().await {
        downloads(behind, LARGE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "moves some GiB"]
async fn large_uploads_arrive() {
    uploads(Behind::embedded().await, LARGE).await;
    if let Some(behind) = Behind::distribution().await {
        uploads(behind, LARGE).await;
    }
}
