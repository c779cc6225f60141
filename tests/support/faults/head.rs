//! [`Head`]: the first lines of a request or of an answer, as they came, with what has to be changed in them.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer heads are nobody's: neither sealift nor a registry sends them.
const HEAD_LENGTH_MAX: usize = 64 * 1024;

/// The lines before a body.
#[derive(Clone, Debug)]
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads one, and what came of the body with it; `None` where the connection ends before.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<(Self, Vec<u8>)> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let body = bytes.split_off(end + 4);
                return Some((Head::of(&String::from_utf8_lossy(&bytes)), body));
            }
            assert!(bytes.len() < HEAD_LENGTH_MAX, "a head of more than {HEAD_LENGTH_MAX} bytes");
            match from.read_buf(&mut bytes).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
    }

    fn of(text: &str) -> Self {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Head { first, headers: lines.filter_map(header).collect() }
    }

    /// A word of the first line.
    pub fn word(&self, at: usize) -> &str {
        self.first.split(' ').nth(at).unwrap_or_default()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_string()));
    }

    pub fn content_length(&self) -> u64 {
        self.get("content-length").map_or(0, |value| value.parse().unwrap())
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{lines}\r\n", self.first).into_bytes()
    }
}
