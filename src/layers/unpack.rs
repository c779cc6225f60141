//! [`Unpacker`]: a layer goes in piece by piece, what it holds is hashed.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use flate2::write::MultiGzDecoder;

use super::frames::Frames;
use super::output::Output;
use super::{Compression, Windows};
use crate::oci::Digest;

/// How many bytes tell gzip, zstd and others apart.
const HEAD: usize = 4;

/// Unpacks one layer.
pub struct Unpacker<'w> {
    said: Compression,
    /// The first bytes, as far as they have come.
    head: Vec<u8>,
    stage: Stage<'w>,
}

enum Stage<'w> {
    /// Not all of the first bytes are here.
    Head(Output, &'w Windows),
    Plain(Output),
    Gzip(Box<MultiGzDecoder<Output>>),
    Zstd(Box<Frames<'w>>),
}

/// What came out of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// How many bytes.
    pub bytes: u64,
    /// Their digests, one for each algorithm that was asked for.
    pub digests: Vec<Digest>,
    /// What the layer looks like, where that is not what its media type says.
    pub looks_like: Option<&'static str>,
}

impl<'w> Unpacker<'w> {
    /// For a layer that is packed as its media type says. What comes out is hashed with the algorithms of `like`, and may
    /// have `limit` bytes.
    pub fn new(said: Compression, like: &[Digest], limit: u64, windows: &'w Windows) -> Self {
        Unpacker { said, head: Vec::new(), stage: Stage::Head(Output::new(like, limit), windows) }
    }

    /// Lets what comes beyond the limit be taken from `free`, which layers share. Only before the first byte.
    #[must_use]
    pub fn sharing(mut self, free: &Arc<AtomicU64>) -> Self {
        if let Stage::Head(output, _) = &mut self.stage {
            output.share(free);
        }
        self
    }

    /// Takes the next bytes of the layer. After an error, no more are to come.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if !matches!(self.stage, Stage::Head(..)) {
            return self.feed(bytes);
        }
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD.saturating_sub(self.head.len())));
        self.head.extend_from_slice(head);
        if self.head.len() < HEAD {
            return Ok(());
        }
        self.begin()?;
        self.feed(rest)
    }

    /// Says that all bytes were taken.
    pub fn finish(mut self) -> Result<Unpacked, String> {
        if matches!(self.stage, Stage::Head(..)) {
            self.begin()?;
        }
        let looks_like = self.looks_like();
        let output = match self.stage {
            Stage::Head(output, _) | Stage::Plain(output) => output,
            Stage::Gzip(mut decoder) => {
                // The last bytes come out only now.
                let outcome = decoder.try_finish().map_err(|error| gzip_text(&error, looks_like));
                bounded(outcome, decoder.get_ref().exceeded())?;
                decoder.finish().map_err(|error| gzip_text(&error, looks_like))?
            }
            Stage::Zstd(frames) => frames.finish().map_err(|error| with_look(error, looks_like))?,
        };
        Ok(Unpacked { bytes: output.written(), digests: output.finish(), looks_like })
    }

    /// Chooses how to unpack, and unpacks the first bytes.
    fn begin(&mut self) -> Result<(), String> {
        let how = if self.said == Compression::Unsaid { Compression::looks_like(&self.head) } else { self.said };
        let stage = std::mem::replace(&mut self.stage, Stage::Plain(Output::new(&[], 0)));
        self.stage = match stage {
            Stage::Head(output, windows) => match how {
                Compression::Gzip => Stage::Gzip(Box::new(MultiGzDecoder::new(output))),
                Compression::Zstd => Stage::Zstd(Box::new(Frames::new(windows, output))),
                Compression::None | Compression::Unsaid => Stage::Plain(output),
            },
            other => other,
        };
        let head = self.head.clone();
        self.feed(&head)
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        let looks_like = self.looks_like();
        let (outcome, exceeded) = match &mut self.stage {
            Stage::Head(output, _) | Stage::Plain(output) => {
                (output.write_all(bytes).map_err(|error| error.to_string()), output.exceeded())
            }
            Stage::Gzip(decoder) => {
                let outcome = decoder.write_all(bytes).map_err(|error| gzip_text(&error, looks_like));
                (outcome, decoder.get_ref().exceeded())
            }
            Stage::Zstd(frames) => {
                (frames.push(bytes).map_err(|error| with_look(error, looks_like)), frames.output().exceeded())
            }
        };
        bounded(outcome, exceeded)
    }

    /// What the layer looks like, where that is not what its media type says.
    fn looks_like(&self) -> Option<&'static str> {
        let found = Compression::looks_like(&self.head);
        (self.said != Compression::Unsaid && found != self.said).then(|| found.name())
    }
}

/// That too much came is the reason of whatever went wrong.
fn bounded(outcome: Result<(), String>, exceeded: Option<u64>) -> Result<(), String> {
    match exceeded {
        Some(limit) => Err(format!("more than {limit} bytes come out of it: it is taken for a bomb")),
        None => outcome,
    }
}

fn gzip_text(error: &std::io::Error, looks_like: Option<&str>) -> String {
    with_look(
        format!("its gzip stream is damaged, or ends too early, or is followed by other bytes: {error}"),
        looks_like,
    )
}

fn with_look(text: String, looks_like: Option<&str>) -> String {
    match looks_like {
        Some(found) => format!("by its first bytes it is {found}, which is not what its media type says: {text}"),
        None => text,
    }
}
