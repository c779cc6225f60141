//! Reading the bodies of answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::host_of;
use super::trouble::Way;
use crate::config::Timeouts;
use crate::registry::retry::Trouble;

/// The longest pause in a body that a test waits for.
const TEST_STALL_MAX: Duration = Duration::from_secs(2);

/// How long a body may be waited for until it has to have brought [`PACE_MIN`] for each second. Lines that carry something
/// only now and then have done so by then.
const PACE_WINDOW: Duration = if cfg!(test) { TEST_STALL_MAX } else { Duration::from_secs(60) };

/// How many bytes a second a body has to bring: less is a line that carries nothing, or a registry that sends a byte
/// before each time-out, for ever.
const PACE_MIN: u64 = 1024;

/// How long was waited for a body, and how much it brought meanwhile. Time in which nobody reads does not count.
#[derive(Clone, Copy, Default)]
struct Pace {
    waited: Duration,
    brought: u64,
}

impl Pace {
    /// Takes note of a piece; how many bytes came in the whole time where that is too slow.
    fn note(&mut self, waited: Duration, brought: u64) -> Result<(), Pace> {
        self.waited += waited;
        self.brought = self.brought.saturating_add(brought);
        if self.waited < PACE_WINDOW {
            return Ok(());
        }
        let all = std::mem::take(self);
        match all.brought < all.waited.as_secs().saturating_mul(PACE_MIN) {
            true => Err(all),
            false => Ok(()),
        }
    }
}

/// The next piece of an answer's body; `None` at its end.
pub(in crate::registry) async fn next_piece(response: &mut Response) -> Result<Option<Bytes>, Trouble> {
    let way = way_of(response);
    let idle = if cfg!(test) { way.idle.min(TEST_STALL_MAX) } else { way.idle };
    let begun = Instant::now();
    match tokio::time::timeout(idle, response.chunk()).await {
        Ok(Ok(Some(piece))) => {
            let pace: &mut Pace = response.extensions_mut().get_or_insert_default();
            match pace.note(begun.elapsed(), piece.len() as u64) {
                Ok(()) => Ok(Some(piece)),
                Err(Pace { waited, brought }) => Err(way.too_slow(waited, brought)),
            }
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error)) => Err(way.trouble(error)),
        Err(_) => Err(way.too_late(idle)),
    }
}

/// The way an answer came; made up where it came past a [`Transport`](super::Transport).
fn way_of(response: &Response) -> Way {
    let made_up = || {
        let (host, Timeouts { connect, idle }) = (host_of(response.url()), Timeouts::default());
        Way { key: host.clone(), home: host.clone(), host, proxy: None, shows: false, connect, idle }
    };
    response.extensions().get::<Way>().cloned().unwrap_or_else(made_up)
}

/// The whole body of an answer; `None` when it has more than `limit` bytes.
pub(in crate::registry) async fn read_body(response: &mut Response, limit: usize) -> Result<Option<Bytes>, Trouble> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Ok(None);
    }
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(response).await? {
        if whole.len() + piece.len() > limit {
            return Ok(None);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole.freeze()))
}

/// What to say of bytes that are not as they should be: that they came with an encoding, which nobody asked for and
/// nobody takes away. Empty where they did not.
pub(in crate::registry) fn encoding_of(headers: &HeaderMap) -> String {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::to_str) {
        None => String::new(),
        Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("identity") => String::new(),
        Some(Ok(encoding)) if encoding.len() <= 20 => {
            format!(" (it came with the Content-Encoding {encoding:?}, which was not asked for)")
        }
        Some(_) => " (it came with a Content-Encoding, which was not asked for)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_to_come_at_a_pace() {
        let least = PACE_WINDOW.as_secs() * PACE_MIN;
        // Each piece: milliseconds of waiting, and bytes; then whether it goes on.
        let rows: [(&[(u64, u64)], bool); 5] = [
            (&[(0, 1), (10, 1), (100, 1)], true),
            (&[(1_000, least), (1_000, 0)], true),
            (&[(1_000, least - 1), (1_000, 0)], false),
            (&[(2_000, least), (1_000, 0), (1_000, 1)], false),
            (&[(2_000, least), (1_999, 0)], true),
        ];
        for (pieces, expected) in rows {
            let mut pace = Pace::default();
            let goes_on =
                pieces.iter().all(|&(waited, brought)| pace.note(Duration::from_millis(waited), brought).is_ok());
            assert_eq!(goes_on, expected, "{pieces:?}");
        }
    }
}
