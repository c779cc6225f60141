//! Time as it is written down.

/// RFC 3339 in UTC, to the second: the form of every time in records and reports.
pub fn text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
