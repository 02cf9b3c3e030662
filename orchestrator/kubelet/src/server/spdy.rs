//! The frames of SPDY/3.1 as far as Kubernetes uses them: streams with headers, data, and their ends. Pure.
//!
//! No flow control, as its only clients know none. Header blocks of one direction are one zlib stream with a dictionary
//! of the protocol; what this side sends is not compressed, which that format allows.

mod dictionary;
mod headers;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) use headers::HeaderReader;
use headers::HeaderWriter;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

const FLAG_FIN: u8 = 1;
/// Stream numbers have 31 bits.
const STREAM_MASK: u32 = 0x7fff_ffff;
/// Longer frames end the connection; a frame's own limit is 16 MiB.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Data is cut into frames of this.
pub(crate) const DATA_BYTES_MAX: usize = 32 << 10;

/// Names and values, names in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// What the other side says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It begins a stream.
    Open { stream: u32, headers: Headers },
    /// It sends on a stream.
    Data { stream: u32, content: Bytes },
    /// It sends no more on a stream.
    End { stream: u32 },
    /// It wants no more of a stream, either way.
    Reset { stream: u32 },
    /// To be sent back.
    Ping { id: u32 },
    /// It begins no more streams.
    GoAway,
}

/// Why the other side is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpdyError {
    #[error("a frame is too long")]
    TooLong,
    #[error("a frame is too short for its kind")]
    TooShort,
    #[error("version {0} is not spoken here")]
    Version(u16),
    #[error("headers: {0}")]
    Headers(&'static str),
}

/// Reads frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pub(crate) buffer: BytesMut,
    headers: HeaderReader,
    /// The end of a stream that came with its last data.
    pending: Option<Event>,
}

impl Decoder {
    /// The next event; nothing while no whole frame is there.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, SpdyError> {
        if let Some(event) = self.pending.take() {
            return Ok(Some(event));
        }
        loop {
            let Some(head) = self.buffer.first_chunk::<8>() else {
                return Ok(None);
            };
            let [a, b, c, d, flags, length @ ..] = *head;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(SpdyError::TooLong);
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            self.buffer.advance(8);
            let content = self.buffer.split_to(length).freeze();
            let first = u32::from_be_bytes([a, b, c, d]);
            let event = if first & !STREAM_MASK == 0 {
                self.data(first, flags, content)
            } else {
                let version = u16::from_be_bytes([a & 0x7f, b]);
                if version != VERSION {
                    return Err(SpdyError::Version(version));
                }
                self.control(u16::from_be_bytes([c, d]), flags, content)?
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn data(&mut self, stream: u32, flags: u8, content: Bytes) -> Option<Event> {
        let end = (flags & FLAG_FIN != 0).then_some(Event::End { stream });
        if content.is_empty() {
            return end;
        }
        self.pending = end;
        Some(Event::Data { stream, content })
    }

    fn control(&mut self, kind: u16, flags: u8, mut content: Bytes) -> Result<Option<Event>, SpdyError> {
        let number = |content: &mut Bytes| content.try_get_u32().map_err(|_| SpdyError::TooShort);
        Ok(match kind {
            SYN_STREAM => {
                let stream = number(&mut content)? & STREAM_MASK;
                number(&mut content)?; // the stream it belongs to
                content.try_get_u16().map_err(|_| SpdyError::TooShort)?; // its priority
                let headers = self.headers.read(&content)?;
                if flags & FLAG_FIN != 0 {
                    self.pending = Some(Event::End { stream });
                }
                Some(Event::Open { stream, headers })
            }
            RST_STREAM => Some(Event::Reset {
                stream: number(&mut content)? & STREAM_MASK,
            }),
            PING => Some(Event::Ping {
                id: number(&mut content)?,
            }),
            GOAWAY => Some(Event::GoAway),
            // Their headers are part of the one zlib stream.
            SYN_REPLY | 8 => {
                number(&mut content)?;
                self.headers.read(&content)?;
                None
            }
            _ => None,
        })
    }
}

/// Writes frames.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    headers: HeaderWriter,
}

impl Encoder {
    /// Accepts a stream.
    pub(crate) fn reply(&mut self, stream: u32) -> Bytes {
        let mut content = BytesMut::new();
        content.put_u32(stream);
        self.headers.write(&mut content, &[]);
        control(SYN_REPLY, &content)
    }
}

/// Sends on a stream.
pub(crate) fn data(stream: u32, content: &[u8]) -> Bytes {
    data_frame(stream, 0, content)
}

/// Sends no more on a stream.
pub(crate) fn end(stream: u32) -> Bytes {
    data_frame(stream, FLAG_FIN, &[])
}

/// Sends a ping back.
pub(crate) fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    // What this side sends is cut far below the limit of 24 bits.
    let [_, length @ ..] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out.put_u8(flags);
    out.put_slice(&length);
}

fn data_frame(stream: u32, flags: u8, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + content.len());
    out.put_u32(stream & STREAM_MASK);
    put_length(&mut out, flags, content.len());
    out.put_slice(content);
    out.freeze()
}

fn control(kind: u16, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + content.len());
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(&mut out, 0, content.len());
    out.put_slice(content);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(headers: &mut HeaderWriter, stream: u32, flags: u8, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut content = BytesMut::new();
        content.put_u32(stream);
        content.put_u32(0);
        content.put_u16(0);
        headers.write(&mut content, pairs);
        let mut frame = control(SYN_STREAM, &content).to_vec();
        frame[4] = flags;
        frame
    }

    fn pairs(pairs: &[(&str, &str)]) -> Headers {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn streams_from_their_beginning_to_their_end() {
        let error = [("streamtype", "error"), ("port", "80"), ("requestid", "0")];
        let data_stream = [("streamtype", "data"), ("port", "80"), ("requestid", "0")];
        let mut headers = HeaderWriter::default();
        let bytes = [
            open(&mut headers, 1, FLAG_FIN, &error),
            open(&mut headers, 3, 0, &data_stream),
            data(3, b"hello").to_vec(),
            data_frame(3, FLAG_FIN, b"bye").to_vec(),
            end(5).to_vec(),
            ping(9).to_vec(),
            control(4, &[0; 4]).to_vec(), // settings
            control(RST_STREAM, &[0, 0, 0, 3, 0, 0, 0, 5]).to_vec(),
            control(GOAWAY, &[0; 8]).to_vec(),
        ]
        .concat();
        let content = |content: &'static [u8]| Event::Data {
            stream: 3,
            content: Bytes::from_static(content),
        };
        let expected = [
            Event::Open {
                stream: 1,
                headers: pairs(&error),
            },
            Event::End { stream: 1 },
            Event::Open {
                stream: 3,
                headers: pairs(&data_stream),
            },
            content(b"hello"),
            content(b"bye"),
            Event::End { stream: 3 },
            Event::End { stream: 5 },
            Event::Ping { id: 9 },
            Event::Reset { stream: 3 },
            Event::GoAway,
        ];
        for chunk in [1, 5, 64, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for part in bytes.chunks(chunk) {
                decoder.buffer.extend_from_slice(part);
                while let Some(event) = decoder.next().unwrap() {
                    seen.push(event);
                }
            }
            assert_eq!(seen, expected, "chunks of {chunk}");
        }
    }

    #[test]
    fn strange_frames_are_refused() {
        let mut other = control(PING, &[0; 4]).to_vec();
        other[1] = 2;
        let cases = [
            ("another version", other, SpdyError::Version(2)),
            ("too long", vec![0, 0, 0, 1, 0, 0xff, 0, 0], SpdyError::TooLong),
            ("short ping", control(PING, &[0]).to_vec(), SpdyError::TooShort),
            (
                "short stream",
                control(SYN_STREAM, &[0; 9]).to_vec(),
                SpdyError::TooShort,
            ),
        ];
        for (case, bytes, expected) in cases {
            let mut decoder = Decoder::default();
            decoder.buffer.extend_from_slice(&bytes);
            assert_eq!(decoder.next(), Err(expected), "{case}");
        }
    }
}
