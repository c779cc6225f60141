//! [`check`]: unpacks every layer once, on all cores, and compares.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::claims::Layer;
use super::{Claims, Compression, DeepReport, LIMITS, Unpacked, Unpacker, WINDOWS_MAX, Windows};
use crate::content::in_parallel;
use crate::oci::Digest;

/// How the reading of a layer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All of it was handed over, and has its digest.
    Whole,
    /// Not all of it could be had, or it was not what it must be; whoever reads reports that.
    Lost,
    /// All of it was what was signed, and still has another digest than its name: this one.
    Other(Digest),
}

/// Reads the content of a digest from its beginning, and hands it over in pieces.
pub type Read<'r> = dyn Fn(&Digest, &mut dyn FnMut(&[u8])) -> Reading + Sync + 'r;

/// What became of one layer.
struct Outcome {
    reading: Reading,
    unpacked: Result<Unpacked, String>,
}

/// Unpacks the layers of `claims`, the largest first, each once, and compares what comes out with what every image says.
pub fn check(mut claims: Claims, read: &Read<'_>) -> DeepReport {
    let (windows, free) = (Windows::new(WINDOWS_MAX), Arc::new(AtomicU64::new(LIMITS.free)));
    let mut layers: Vec<_> = std::mem::take(&mut claims.layers).into_iter().collect();
    layers.sort_by_key(|((digest, compression), layer)| (Reverse(layer.size), *digest, *compression));
    let jobs: Vec<usize> = (0..layers.len()).collect();
    let outcomes = in_parallel(
        &jobs,
        || (),
        |(), &at| layers.get(at).map(|((digest, how), layer)| (at, unpack(digest, *how, layer, read, &windows, &free))),
    );
    let (mut good, mut bytes) = (0, 0_u64);
    for (at, outcome) in outcomes.into_iter().flatten() {
        let Some(((digest, _), layer)) = layers.get(at) else { continue };
        if compare(&mut claims, digest, layer, &outcome) {
            good += 1;
            bytes = bytes.saturating_add(outcome.unpacked.map_or(0, |unpacked| unpacked.bytes));
        }
    }
    claims.report(good, bytes)
}

fn unpack(
    digest: &Digest,
    how: Compression,
    layer: &Layer,
    read: &Read<'_>,
    windows: &Windows,
    free: &Arc<AtomicU64>,
) -> Outcome {
    // One for each algorithm; nearly always that is one.
    let mut like: Vec<Digest> = layer.claims.iter().map(|claim| claim.diff_id).collect();
    like.sort_by_key(Digest::algorithm);
    like.dedup_by_key(|diff_id| diff_id.algorithm());
    let limit = if how == Compression::None { u64::MAX } else { LIMITS.of(layer.size) };
    let mut unpacker = Some(Unpacker::new(how, &like, limit, windows).sharing(free));
    let mut failed = None;
    let reading = read(digest, &mut |piece| {
        // What failed is read to its end all the same: whether it is what it must be is asked of all of it.
        if let Some(Err(problem)) = unpacker.as_mut().map(|unpacker| unpacker.push(piece)) {
            failed = Some(problem);
            unpacker = None;
        }
    });
    let unpacked = match (failed, unpacker) {
        (None, Some(unpacker)) => unpacker.finish(),
        (failed, _) => Err(failed.unwrap_or_default()),
    };
    Outcome { reading, unpacked }
}

/// Whether the layer is what every image says.
fn compare(claims: &mut Claims, digest: &Digest, layer: &Layer, outcome: &Outcome) -> bool {
    let mut good = true;
    for claim in &layer.claims {
        let (found, problem) = match (outcome.reading, &outcome.unpacked) {
            (Reading::Lost, _) => {
                claims.lost(digest, &layer.media_type);
                return false;
            }
            (Reading::Other(found), _) => (None, format!("its bytes have the digest {found}")),
            (Reading::Whole, Err(problem)) => (None, problem.clone()),
            (Reading::Whole, Ok(unpacked)) => {
                let same = |found: &&Digest| found.algorithm() == claim.diff_id.algorithm();
                let found = unpacked.digests.iter().find(same).copied();
                if found == Some(claim.diff_id) {
                    continue;
                }
                (found, other_text(unpacked))
            }
        };
        good = false;
        claims.fail(digest, claim, found, problem);
    }
    good
}

fn other_text(unpacked: &Unpacked) -> String {
    let other = "what comes out has another digest than its image says".to_owned();
    match unpacked.looks_like {
        Some(found) => format!("by its first bytes it is {found}, which is not what its media type says: {other}"),
        None => other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::layers::{Place, Why};
    use crate::oci::{Descriptor, Manifest, MediaType};

    /// What an image with one layer, a plain archive of these bytes, says.
    fn claims(archive: &[u8]) -> Claims {
        let layer = Descriptor::of(MediaType::new("application/vnd.oci.image.layer.v1.tar"), archive);
        let config = json!({ "rootfs": { "diff_ids": [layer.digest] } });
        let config = Bytes::from(config.to_string());
        let manifest = json!({ "config": Descriptor::of(MediaType::OCI_CONFIG, &config), "layers": [layer] });
        let manifest = Manifest::parse(&MediaType::OCI_MANIFEST, manifest.to_string().as_bytes()).unwrap();
        let place = Place { image: "team/app:1".into(), manifest: Digest::of(b"manifest") };
        let mut claims = Claims::default();
        let size = archive.len() as u64;
        claims
            .add(place, &manifest, |_| Ok(config.clone()), |digest| (*digest == layer.digest).then_some(size))
            .unwrap();
        claims
    }

    fn read(ended: Reading) -> DeepReport {
        check(claims(b"archive"), &|_, take| {
            take(b"arch");
            take(b"ive");
            ended
        })
    }

    #[test]
    fn what_was_unpacked_counts_only_when_the_reading_was_whole() {
        let whole = read(Reading::Whole);
        assert_eq!((whole.layers, whole.unpacked_bytes, whole.failures.len()), (1, 7, 0));
        let lost = read(Reading::Lost);
        assert_eq!((lost.layers, lost.not_checked[0].why, lost.failures.len()), (0, Why::Lost, 0));
        let other = read(Reading::Other(Digest::of(b"other")));
        assert_eq!((other.layers, other.failures.len()), (0, 1));
        assert!(other.failures[0].problem.starts_with("its bytes have the digest sha256:"), "{other:?}");
    }
}
