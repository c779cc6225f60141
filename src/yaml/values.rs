//! Values that several kinds of documents have: paths, sizes, durations, time zones.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo};

use super::{At, Fault};

impl At<'_> {
    /// A path that may be relative to the document. `what` says what it should lead to.
    pub fn path(self, text: &str, what: &str) -> Option<PathBuf> {
        if text.is_empty() {
            self.wrong(Fault::new("the path is empty").expected(what));
            return None;
        }
        Some(self.document().resolve(text))
    }

    /// A number of bytes in words: `4095MiB`, `64GB`.
    pub fn size(self, text: &str) -> Option<u64> {
        let size = text.parse::<ByteSize>().ok().map(|size| size.as_u64());
        if size.is_none() {
            self.wrong(Fault::new(format!("{text:?} is no size")).expected("for example 4095MiB or 64GiB"));
        }
        size
    }

    /// A duration in words: `10m`, `24h`, `1h 30m`, `7d`. A day is 24 hours.
    pub fn duration(self, text: &str) -> Option<Duration> {
        let span = text.parse::<Span>().ok();
        let parsed = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let parsed = parsed.and_then(|duration| Duration::try_from(duration).ok());
        if parsed.is_none() {
            self.wrong(Fault::new(format!("{text:?} is no duration")).expected("for example 10m, 24h or 7d"));
        }
        parsed
    }

    /// A time zone by its IANA name.
    pub fn timezone(self, name: &str) -> Option<TimeZone> {
        let found = TimeZone::get(name).ok();
        if found.is_none() {
            let fault = Fault::new(format!("unknown time zone {name:?}"));
            self.wrong(fault.expected("an IANA name, for example Europe/Berlin"));
        }
        found
    }
}
