//! Ranges of bytes: `Range` of downloads (RFC 9110, section 14) and `Content-Range` of upload chunks
//! (distribution specification, "Pushing a blob in chunks").

/// What of a blob is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: status 200.
    Whole,
    /// These bytes: status 206. The length is at least 1.
    Part {
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// No byte of the range exists: status 416.
    Unsatisfiable,
}

/// What a `Range` header asks of a blob of `size` bytes. A header that is malformed, has another unit or several
/// ranges is passed over, as the rule allows: the whole blob is sent.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header.and_then(single) else { return Wanted::Whole };
    let (offset, end) = match (number(first), number(last)) {
        // The last `n` bytes.
        (None, Some(n)) if first.is_empty() => (size.saturating_sub(n), size),
        (Some(offset), None) if last.is_empty() => (offset, size),
        (Some(offset), Some(last)) if last >= offset => (offset, last.saturating_add(1).min(size)),
        _ => return Wanted::Whole,
    };
    match end.checked_sub(offset) {
        None | Some(0) => Wanted::Unsatisfiable,
        Some(length) => Wanted::Part { offset, length },
    }
}

fn single(header: &str) -> Option<(&str, &str)> {
    let (unit, range) = header.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    (unit.trim().eq_ignore_ascii_case("bytes") && !last.contains(',')).then_some((first, last))
}

/// A `Content-Range` of a chunk, `<first>-<last>`: its first byte and its length. `None` when malformed.
pub(super) fn chunk(header: &str) -> Option<(u64, u64)> {
    let (first, last) = header.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let length = last.checked_sub(first)?.checked_add(1)?;
    Some((first, length))
}

/// Digits and nothing else: `u64::from_str` would take a plus sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_range_means() {
        let part = |offset, length| Wanted::Part { offset, length };
        let rows = [
            ("bytes=0-", 10, part(0, 10)),
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=9-", 10, part(9, 1)),
            ("bytes=3-5", 10, part(3, 3)),
            ("Bytes=3-99", 10, part(3, 7)),
            ("bytes=0-18446744073709551615", 10, part(0, 10)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-99", 10, part(0, 10)),
            ("bytes=10-", 10, Wanted::Unsatisfiable),
            ("bytes=11-12", 10, Wanted::Unsatisfiable),
            ("bytes=-0", 10, Wanted::Unsatisfiable),
            ("bytes=0-", 0, Wanted::Unsatisfiable),
            ("bytes=-1", 0, Wanted::Unsatisfiable),
            ("bytes=5-3", 10, Wanted::Whole),
            ("bytes=0-1,3-4", 10, Wanted::Whole),
            ("bytes=-", 10, Wanted::Whole),
            ("bytes=a-b", 10, Wanted::Whole),
            ("bytes=+1-2", 10, Wanted::Whole),
            ("bytes=99999999999999999999-", 10, Wanted::Whole),
            ("items=0-1", 10, Wanted::Whole),
            ("", 10, Wanted::Whole),
        ];
        for (header, size, expected) in rows {
            assert_eq!(wanted(Some(header), size), expected, "{header:?} of {size}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
    }

    #[test]
    fn what_a_chunk_is() {
        assert_eq!(chunk("0-9"), Some((0, 10)));
        assert_eq!(chunk("10-10"), Some((10, 1)));
        for header in ["", "-", "5-3", "a-b", "bytes 0-9/10", "0-18446744073709551615", "+0-1", "0-9/10"] {
            assert_eq!(chunk(header), None, "{header:?}");
        }
    }
}
