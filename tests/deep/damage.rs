//! Whatever is done to the bytes of a layer, unpacking says so or gives what it gave before. It never panics.

use std::sync::LazyLock;

use proptest::prelude::*;
use sealift::layers::{Compression, Unpacked, Unpacker, WINDOWS_MAX, Windows};
use sealift::oci::Digest;
use zstd::stream::raw::CParameter;

use crate::made::{archive, gzip, skippable, zeros_frame, zstd, zstd_with};

/// The most that may come out.
const LIMIT: u64 = 1 << 20;

fn unpack(how: Compression, pieces: &[&[u8]]) -> Result<Unpacked, String> {
    let windows = Windows::new(WINDOWS_MAX);
    let mut unpacker = Unpacker::new(how, &[Digest::of(b"")], LIMIT, &windows);
    pieces.iter().try_for_each(|piece| unpacker.push(piece))?;
    unpacker.finish()
}

/// Streams of every sort, of about 20 kB each.
static STREAMS: LazyLock<Vec<(Compression, Vec<u8>)>> = LazyLock::new(|| {
    let (one, other) = (archive(1, 20_000), archive(2, 9_000));
    let long = zstd_with(&one, &[CParameter::WindowLog(27), CParameter::ChecksumFlag(true)]);
    vec![
        (Compression::Gzip, gzip(&one)),
        (Compression::Gzip, [gzip(&one), gzip(b""), gzip(&other)].concat()),
        (Compression::Zstd, zstd(&one)),
        (Compression::Zstd, [skippable(b"x"), zstd(&one), skippable(b""), zstd(&other)].concat()),
        (Compression::Zstd, [zstd(&other), long].concat()),
        (Compression::Zstd, zeros_frame(20, 7)),
        (Compression::Unsaid, gzip(&other)),
        (Compression::Unsaid, zstd(&other)),
        (Compression::Unsaid, other),
    ]
});

#[test]
fn how_a_stream_is_cut_into_pieces_does_not_matter() {
    for (number, (how, stream)) in STREAMS.iter().enumerate() {
        let whole = unpack(*how, &[stream]).unwrap();
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(unpack(*how, &bytes).unwrap(), whole, "stream {number}, byte by byte");
        for at in (0..stream.len()).step_by(97).chain(0..stream.len().min(40)) {
            let (before, after) = stream.split_at(at);
            assert_eq!(unpack(*how, &[before, b"", after]).unwrap(), whole, "stream {number}, at {at}");
        }
    }
}

#[test]
fn no_beginning_of_a_stream_is_taken_for_the_whole() {
    for (number, (how, stream)) in STREAMS.iter().enumerate().filter(|(_, (how, _))| *how != Compression::Unsaid) {
        let whole = unpack(*how, &[stream]).unwrap();
        for length in (0..stream.len()).step_by(61).chain(0..stream.len().min(30)) {
            let cut = unpack(*how, &[&stream[..length]]);
            assert!(cut.as_ref().map_or(true, |cut| cut.digests != whole.digests), "stream {number}, {length} bytes");
        }
    }
}

#[test]
fn a_bomb_is_given_up_at_the_limit() {
    let zeros = vec![0; usize::try_from(LIMIT).unwrap() + 1];
    let rows = [
        ("gzip", Compression::Gzip, gzip(&zeros)),
        ("gzip in members", Compression::Gzip, gzip(&zeros[..LIMIT as usize / 2]).repeat(3)),
        ("zstd", Compression::Zstd, zstd(&zeros)),
        ("zstd, 128 KiB in four bytes", Compression::Zstd, zeros_frame(23, 9)),
        ("zstd in frames", Compression::Zstd, zeros_frame(23, 2).repeat(5)),
        ("zstd that no media type announced", Compression::Unsaid, zeros_frame(23, 9)),
        ("a tar", Compression::None, zeros.clone()),
    ];
    for (name, how, stream) in rows {
        let problem = unpack(how, &[&stream]).unwrap_err();
        assert_eq!(problem, format!("more than {LIMIT} bytes come out of it: it is taken for a bomb"), "{name}");
    }
    assert_eq!(unpack(Compression::Gzip, &[&gzip(&zeros[1..])]).unwrap().bytes, LIMIT, "as much as may come");
    assert_eq!(unpack(Compression::Zstd, &[&zeros_frame(23, 8)]).unwrap().bytes, LIMIT, "as much as may come");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_damage_makes_it_panic(
        which in 0..STREAMS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        twice in any::<bool>(),
    ) {
        let (how, stream) = &STREAMS[which];
        let mut bytes = stream.clone();
        for (at, mask) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        if twice {
            bytes = bytes.repeat(2);
        }
        match unpack(*how, &[&bytes]) {
            Ok(unpacked) => prop_assert!(unpacked.bytes <= LIMIT),
            Err(problem) => prop_assert!(!problem.is_empty() && !problem.contains('\n')),
        }
    }

    #[test]
    fn no_bytes_make_it_panic(magic in 0..4_usize, bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let magic: &[u8] = [&[][..], &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]][magic];
        for how in [Compression::Gzip, Compression::Zstd, Compression::Unsaid, Compression::None] {
            if let Err(problem) = unpack(how, &[magic, &bytes]) {
                prop_assert!(!problem.is_empty() && !problem.contains('\n'));
            }
        }
    }
}
