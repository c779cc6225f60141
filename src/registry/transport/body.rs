//! Reading the bodies of answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};

use super::host_of;
use super::trouble::Way;
use crate::config::Timeouts;
use crate::registry::retry::Trouble;

/// The longest pause in a body that a test waits for.
const TEST_STALL_MAX: Duration = Duration::from_secs(2);

/// The next piece of an answer's body; `None` at its end.
pub(in crate::registry) async fn next_piece(response: &mut Response) -> Result<Option<Bytes>, Trouble> {
    let way = way_of(response);
    let idle = if cfg!(test) { way.idle.min(TEST_STALL_MAX) } else { way.idle };
    match tokio::time::timeout(idle, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(way.trouble(error)),
        Err(_) => Err(way.too_late(idle)),
    }
}

/// The way an answer came; made up where it came past a [`Transport`](super::Transport).
fn way_of(response: &Response) -> Way {
    let made_up = || {
        let (host, Timeouts { connect, idle }) = (host_of(response.url()), Timeouts::default());
        Way {
            key: host.clone(),
            home: host.clone(),
            host,
            proxy: None,
            shows: false,
            named_by_image: false,
            connect,
            idle,
        }
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
