//! Header blocks: one zlib stream in each direction, flushed after each block.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::dictionary::{DICTIONARY, SUM};
use super::{Headers, SpdyError};

/// How far back a zlib stream may refer.
const WINDOW_BYTES: usize = 32 << 10;
/// A block is no longer than this when unpacked.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Method and window; then flags: a dictionary is named. Together a multiple of 31.
const HEAD: [u8; 2] = [0x78, 0x20];
/// Flag in the second byte: a dictionary is named.
const NAMES_DICTIONARY: u8 = 0x20;
/// Longest stored block of the format.
const STORED_BYTES_MAX: usize = 0xffff;

/// Unpacks blocks.
pub(crate) struct HeaderReader {
    inflate: Box<DecompressorOxide>,
    /// What was unpacked last, in a ring; at the beginning, the dictionary.
    window: Vec<u8>,
    position: usize,
    is_begun: bool,
}

impl std::fmt::Debug for HeaderReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeaderReader")
            .field("is_begun", &self.is_begun)
            .finish_non_exhaustive()
    }
}

impl Default for HeaderReader {
    fn default() -> Self {
        let mut window = vec![0; WINDOW_BYTES];
        window[..DICTIONARY.len()].copy_from_slice(&DICTIONARY);
        HeaderReader {
            inflate: Box::default(),
            position: DICTIONARY.len(),
            window,
            is_begun: false,
        }
    }
}

impl HeaderReader {
    /// Reads one block.
    pub(crate) fn read(&mut self, mut packed: &[u8]) -> Result<Headers, SpdyError> {
        if !self.is_begun && !packed.is_empty() {
            packed = begin(packed)?;
            self.is_begun = true;
        }
        parse(self.unpack(packed)?)
    }

    fn unpack(&mut self, mut packed: &[u8]) -> Result<Bytes, SpdyError> {
        let mut block = BytesMut::new();
        loop {
            let start = self.position;
            let (status, read, written) = decompress(
                &mut self.inflate,
                packed,
                &mut self.window,
                start,
                TINFL_FLAG_HAS_MORE_INPUT,
            );
            packed = &packed[read..];
            block.put_slice(&self.window[start..start + written]);
            self.position = (start + written) % WINDOW_BYTES;
            if block.len() > BLOCK_BYTES_MAX {
                return Err(SpdyError::Headers("too long"));
            }
            match status {
                TINFLStatus::NeedsMoreInput => return Ok(block.freeze()),
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(SpdyError::Headers("not in zlib's format")),
            }
        }
    }
}

/// Takes off the stream's head, which has to name the dictionary.
fn begin(packed: &[u8]) -> Result<&[u8], SpdyError> {
    let wrong = SpdyError::Headers("packed without the protocol's dictionary");
    match packed {
        [method, flags, sum @ ..] if method & 0x0f == 8 && flags & NAMES_DICTIONARY != 0 => {
            let (sum, rest) = sum.split_first_chunk::<4>().ok_or(wrong.clone())?;
            if u32::from_be_bytes(*sum) == SUM {
                Ok(rest)
            } else {
                Err(wrong)
            }
        }
        _ => Err(wrong),
    }
}

fn parse(mut block: Bytes) -> Result<Headers, SpdyError> {
    let short = |_| SpdyError::Headers("cut off");
    let count = block.try_get_u32().map_err(short)?;
    let mut text = || {
        let length = block.try_get_u32().map_err(short)? as usize;
        if block.len() < length {
            return Err(SpdyError::Headers("cut off"));
        }
        Ok(String::from_utf8_lossy(&block.split_to(length)).into_owned())
    };
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text()?;
        headers.push((name.to_lowercase(), text()?));
    }
    Ok(headers)
}

/// Packs blocks.
#[derive(Debug, Default)]
pub(crate) struct HeaderWriter {
    is_begun: bool,
}

impl HeaderWriter {
    pub(crate) fn write(&mut self, out: &mut BytesMut, headers: &[(&str, &str)]) {
        if !std::mem::replace(&mut self.is_begun, true) {
            out.put_slice(&HEAD);
            out.put_u32(SUM);
        }
        let mut block = BytesMut::new();
        let length = |text: &[u8]| u32::try_from(text.len()).unwrap_or(u32::MAX);
        block.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(length(text.as_bytes()));
            block.put_slice(text.as_bytes());
        }
        for piece in block.chunks(STORED_BYTES_MAX) {
            put_stored(out, piece);
        }
        // The mark of a flush. Go's reader gives out what came before only when it sees it.
        put_stored(out, &[]);
    }
}

/// A stored block of the format.
fn put_stored(out: &mut BytesMut, piece: &[u8]) {
    let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
    out.put_u8(0);
    out.put_u16_le(length);
    out.put_u16_le(!length);
    out.put_slice(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_other_programs_are_read() {
        // Packed with the dictionary by zlib: {"streamtype": "data", "port": "8080", "requestid": "0"}, twice.
        let first = hex::decode(include_str!("../testdata/spdy-block-1.hex").trim()).unwrap();
        let second = hex::decode(include_str!("../testdata/spdy-block-2.hex").trim()).unwrap();
        let expected: Headers = [("streamtype", "data"), ("port", "8080"), ("requestid", "0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let mut reader = HeaderReader::default();
        assert_eq!(reader.read(&first).unwrap(), expected);
        assert_eq!(reader.read(&second).unwrap(), expected);
    }

    #[test]
    fn many_blocks_go_round_the_window() {
        let (mut writer, mut reader) = (HeaderWriter::default(), HeaderReader::default());
        for number in 0..3000 {
            let value = number.to_string();
            let mut packed = BytesMut::new();
            writer.write(&mut packed, &[("Port", &value), ("x", &"y".repeat(50))]);
            let headers = reader.read(&packed).unwrap();
            assert_eq!(headers[0], ("port".to_owned(), value));
        }
    }

    #[test]
    fn a_block_ends_with_the_mark_of_a_flush() {
        let mut writer = HeaderWriter::default();
        for _ in 0..2 {
            let mut packed = BytesMut::new();
            writer.write(&mut packed, &[]);
            assert!(
                packed.ends_with(&[0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
                "{packed:x?}"
            );
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let cases: [(&str, &[u8]); 4] = [
            ("no dictionary", &[0x78, 0x9c, 0, 0, 0, 0]),
            ("another dictionary", &[0x78, 0x20, 1, 2, 3, 4]),
            ("cut off", &[0x78, 0x20, 0xe3]),
            ("no zlib", &[0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2, 0xff]),
        ];
        for (case, packed) in cases {
            assert!(HeaderReader::default().read(packed).is_err(), "{case}");
        }
    }
}
