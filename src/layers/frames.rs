//! zstd streams: frames one after the other, each with a window that has its share before a byte of it is unpacked.

use std::io::Write;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::output::Output;
use super::windows::{Share, Windows};
use super::{WINDOW_MAX, WINDOWS_MAX};

/// The largest block of a frame (RFC 8878, section 3.1.1.2).
const BLOCK_MAX: usize = 128 * 1024;

/// The magic number of a frame (RFC 8878, section 3.1.1).
const MAGIC: u32 = 0xFD2F_B528;

/// Unpacks the frames of a stream.
pub(super) struct Frames<'w> {
    windows: &'w Windows,
    output: Output,
    /// The decoder, and the share that its window has: dropped in this order.
    decoder: Option<(Decoder<'static>, Share<'w>)>,
    /// What is here of the header of the next frame.
    head: Vec<u8>,
    in_frame: bool,
    buffer: Vec<u8>,
    begun: u64,
}

/// What the header of a frame says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    window: u64,
    content: Option<u64>,
}

impl Header {
    /// Reads the header of a frame; `None` while there are too few bytes of it.
    fn parse(head: &[u8]) -> Result<Option<Self>, String> {
        let Some((magic, rest)) = head.split_first_chunk() else { return Ok(None) };
        match u32::from_le_bytes(*magic) {
            MAGIC => Ok(Self::parse_descriptor(rest)),
            // Skippable: zstd:chunked keeps its table of contents in one.
            0x184D_2A50..=0x184D_2A5F => Ok(Some(Header { window: 0, content: None })),
            _ => Err("what stands where a zstd frame should begin is none".into()),
        }
    }

    /// What follows the magic number (RFC 8878, section 3.1.1.1).
    fn parse_descriptor(rest: &[u8]) -> Option<Self> {
        let (&descriptor, rest) = rest.split_first()?;
        let single = descriptor & 0x20 != 0;
        let (window, rest) = if single { (None, rest) } else { (Some(*rest.first()?), rest.get(1..)?) };
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let length = match descriptor >> 6 {
            0 => usize::from(single),
            flag => 1 << flag,
        };
        let content = rest.get(dictionary..)?.get(..length)?;
        let mut bytes = [0; 8];
        bytes.get_mut(..length)?.copy_from_slice(content);
        // Two bytes count from 256 on.
        let content = u64::from_le_bytes(bytes) + if length == 2 { 256 } else { 0 };
        let content = (length > 0).then_some(content);
        let window = window.map_or(content, |byte| {
            let base = 1_u64 << (10 + (byte >> 3));
            Some(base + base / 8 * u64::from(byte & 7))
        });
        Some(Header { window: window?, content })
    }

    /// The memory that the frame needs: its window, or less where its content is shorter.
    fn memory(&self) -> u64 {
        self.content.unwrap_or(u64::MAX).min(self.window)
    }
}

impl<'w> Frames<'w> {
    pub fn new(windows: &'w Windows, output: Output) -> Self {
        let (head, buffer) = (Vec::new(), vec![0; BLOCK_MAX]);
        Frames { windows, output, decoder: None, head, in_frame: false, buffer, begun: 0 }
    }

    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.in_frame {
                bytes = self.run(bytes)?;
                continue;
            }
            bytes = rest;
            self.head.push(first);
            if let Some(header) = Header::parse(&self.head)? {
                self.begin(&header)?;
                let head = std::mem::take(&mut self.head);
                self.run(&head)?;
            }
        }
        Ok(())
    }

    /// Says that all bytes were taken.
    pub fn finish(self) -> Result<Output, String> {
        match (self.begun, self.in_frame || !self.head.is_empty()) {
            (0, false) => Err("it is empty, and not even a zstd frame".into()),
            (_, true) => Err("its last zstd frame ends too early".into()),
            _ => Ok(self.output),
        }
    }

    /// Makes sure that there is a decoder whose window has its share.
    fn begin(&mut self, header: &Header) -> Result<(), String> {
        if header.window > WINDOW_MAX {
            return Err(format!(
                "a zstd frame wants a window of {} bytes, more than the {WINDOW_MAX} that clients take",
                header.window
            ));
        }
        self.output.announce(header.content.unwrap_or(0)).map_err(|error| error.to_string())?;
        let need = Windows::share_of(header.memory());
        if self.decoder.as_ref().is_none_or(|(_, share)| share.size() < need) {
            // First gives back what it has.
            self.decoder = None;
            let share = self.windows.take(header.memory());
            self.decoder = Some((decoder().map_err(|error| error.to_string())?, share));
        }
        (self.in_frame, self.begun) = (true, self.begun + 1);
        Ok(())
    }

    /// Unpacks, to the end of the frame at the most; what is left of `bytes`.
    fn run<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], String> {
        let Some((decoder, _)) = &mut self.decoder else { return Ok(bytes) };
        let mut input = InBuffer::around(bytes);
        loop {
            let mut out = OutBuffer::around(&mut self.buffer[..]);
            let hint =
                decoder.run(&mut input, &mut out).map_err(|error| format!("its zstd stream is damaged: {error}"))?;
            let (count, full) = (out.pos(), out.pos() == out.capacity());
            let piece = self.buffer.get(..count).unwrap_or_default();
            self.output.write_all(piece).map_err(|error| error.to_string())?;
            self.in_frame = hint != 0;
            if !self.in_frame || (input.pos() == bytes.len() && !full) {
                return Ok(bytes.get(input.pos()..).unwrap_or_default());
            }
        }
    }
}

fn decoder() -> std::io::Result<Decoder<'static>> {
    let mut decoder = Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(WINDOWS_MAX.ilog2()))?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use zstd::stream::raw::CParameter;
    use zstd::stream::write::Encoder;

    use super::*;

    fn header_of(set: impl FnOnce(&mut Encoder<'static, Vec<u8>>)) -> Header {
        let mut encoder = Encoder::new(Vec::new(), 3).unwrap();
        set(&mut encoder);
        encoder.write_all(&[7; 3000]).unwrap();
        let bytes = encoder.finish().unwrap();
        let parsed: Vec<_> = (0..18).filter_map(|length| Header::parse(&bytes[..length]).unwrap()).collect();
        assert!(parsed.windows(2).all(|pair| pair[0] == pair[1]), "{parsed:?}");
        parsed.into_iter().next().unwrap()
    }

    #[test]
    fn headers_are_read_as_the_encoder_wrote_them() {
        let header = header_of(|_| {});
        assert_eq!((header.window, header.content), (1 << 21, None));
        let header = header_of(|encoder| encoder.set_parameter(CParameter::WindowLog(27)).unwrap());
        assert_eq!(header.window, 1 << 27);
        let header = header_of(|encoder| encoder.set_pledged_src_size(Some(3000)).unwrap());
        assert_eq!((header.window, header.content, header.memory()), (3000, Some(3000), 3000));
    }

    #[test]
    fn windows_have_an_eighth_of_fractions() {
        // Exponent 31 and mantissa 7: the largest that can be written.
        let huge = Header::parse(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0xff]).unwrap().unwrap();
        assert_eq!(huge.window, (1 << 41) + 7 * (1 << 38));
        assert!(Header::parse(b"PK\x03\x04").is_err());
        assert_eq!(Header::parse(&[0x50, 0x2a, 0x4d]), Ok(None));
    }
}
