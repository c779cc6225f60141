//! Names that become part of file names.

/// How long a label may be: as a label of a domain name, and short enough for every file system.
pub const LABEL_LENGTH_MAX: usize = 63;

/// Whether `text` is a label: `[a-z0-9-]{1,63}`.
pub fn is_label(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=LABEL_LENGTH_MAX).contains(&text.len()) && text.bytes().all(legal)
}
