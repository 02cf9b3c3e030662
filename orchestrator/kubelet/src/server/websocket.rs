//! The server's side of WebSocket (RFC 6455): messages from frames, and frames of messages.
//!
//! Clients mask what they send and may cut a message into several frames; what this side sends is neither.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What the protocol adds to a client's key before hashing it.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longer messages end the connection: clients send input in pieces of some kilobytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest frame that is no message.
const CONTROL_BYTES_MAX: usize = 125;

/// The code of an orderly end.
pub(crate) const NORMAL: u16 = 1000;

/// The answer to a client's `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{KEY_SUFFIX}").as_bytes());
    STANDARD.encode(hash)
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Text or bytes.
    Data(Bytes),
    /// To be answered by a pong with the same content.
    Ping(Bytes),
    /// It is done.
    Close,
}

/// A frame of data.
pub(crate) fn data(content: &[u8]) -> Bytes {
    frame(0x2, content)
}

/// The answer to a ping.
pub(crate) fn pong(content: &[u8]) -> Bytes {
    frame(0xa, content)
}

/// The last frame.
pub(crate) fn close(code: u16) -> Bytes {
    frame(0x8, &code.to_be_bytes())
}

fn frame(opcode: u8, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(content.len() + 10);
    out.put_u8(0x80 | opcode);
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(length), _) if length < 126 => out.put_u8(length),
        (_, Ok(length)) => {
            out.put_u8(126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(content.len() as u64);
        }
    }
    out.put_slice(content);
    out.freeze()
}

/// One frame as it came.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    is_last: bool,
    opcode: u8,
    content: Bytes,
}

/// Why a client is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame is not masked")]
    NotMasked,
    #[error("a frame has reserved bits or an unknown kind")]
    Unknown,
    #[error("a message is too long")]
    TooLong,
    #[error("a message is continued that was not begun, or the other way round")]
    Order,
}

/// Takes the first whole frame off `buffer`; nothing while it isn't all there.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let [first, second, rest @ ..] = &buffer[..] else {
        return Ok(None);
    };
    let (first, second) = (*first, *second);
    if first & 0x70 != 0 {
        return Err(FrameError::Unknown);
    }
    if second & 0x80 == 0 {
        return Err(FrameError::NotMasked);
    }
    let (length, extra) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    let opcode = first & 0x0f;
    let limit = if opcode >= 8 {
        CONTROL_BYTES_MAX
    } else {
        MESSAGE_BYTES_MAX
    };
    let length = usize::try_from(length).ok().filter(|length| *length <= limit);
    let length = length.ok_or(FrameError::TooLong)?;
    let head = 2 + extra + 4;
    if buffer.len() < head + length {
        return Ok(None);
    }
    let mask: [u8; 4] = std::array::from_fn(|index| buffer[2 + extra + index]);
    buffer.advance(head);
    let mut content = buffer.split_to(length);
    for (byte, mask) in content.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(Frame {
        is_last: first & 0x80 != 0,
        opcode,
        content: content.freeze(),
    }))
}

/// Puts messages together.
#[derive(Debug, Default)]
struct Assembler {
    buffer: BytesMut,
    /// A message whose last frame hasn't come.
    begun: Option<BytesMut>,
}

impl Assembler {
    fn next(&mut self) -> Result<Option<Message>, FrameError> {
        while let Some(frame) = take_frame(&mut self.buffer)? {
            match (frame.opcode, &mut self.begun) {
                (0x8, _) => return Ok(Some(Message::Close)),
                (0x9, _) => return Ok(Some(Message::Ping(frame.content))),
                (0xa, _) => {}
                (0x1 | 0x2, None) if frame.is_last => return Ok(Some(Message::Data(frame.content))),
                (0x1 | 0x2, begun @ None) => *begun = Some(BytesMut::from(&frame.content[..])),
                (0x0, Some(begun)) => {
                    if begun.len() + frame.content.len() > MESSAGE_BYTES_MAX {
                        return Err(FrameError::TooLong);
                    }
                    begun.put_slice(&frame.content);
                    if frame.is_last {
                        let whole = self.begun.take().unwrap_or_default();
                        return Ok(Some(Message::Data(whole.freeze())));
                    }
                }
                (0x0..=0x2, _) => return Err(FrameError::Order),
                _ => return Err(FrameError::Unknown),
            }
        }
        Ok(None)
    }
}

/// Reads a client's messages.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    assembler: Assembler,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Reader {
            inner,
            assembler: Assembler::default(),
        }
    }

    /// The next message; nothing when the connection has ended. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.assembler.next().map_err(io::Error::other)? {
                return Ok(Some(message));
            }
            if self.inner.read_buf(&mut self.assembler.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a client sends it.
    fn masked(first: u8, content: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let plain = frame(0, content);
        let head = plain.len() - content.len();
        let mut out = plain[..head].to_vec();
        out[0] = first;
        out[1] |= 0x80;
        out.extend(mask);
        out.extend(
            content
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        out
    }

    #[test]
    fn the_key_of_the_specification() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_arrive() {
        let long = vec![7; 70_000];
        let middle = vec![8; 300];
        let bytes = [
            masked(0x82, b"one"),
            masked(0x02, b"t"),
            masked(0x89, b"ping"),
            masked(0x00, b"w"),
            masked(0x8a, b""),
            masked(0x80, b"o"),
            masked(0x82, &long),
            masked(0x81, &middle),
            masked(0x88, &NORMAL.to_be_bytes()),
        ]
        .concat();
        let expected = [
            Message::Data(Bytes::from_static(b"one")),
            Message::Ping(Bytes::from_static(b"ping")),
            Message::Data(Bytes::from_static(b"two")),
            Message::Data(long.into()),
            Message::Data(middle.into()),
            Message::Close,
        ];
        for chunk in [1, 7, 4096, bytes.len()] {
            let (mut assembler, mut seen) = (Assembler::default(), Vec::new());
            for part in bytes.chunks(chunk) {
                assembler.buffer.extend_from_slice(part);
                while let Some(message) = assembler.next().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, expected, "chunks of {chunk}");
        }
    }

    #[test]
    fn strange_frames_are_refused() {
        let too_long = [0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
        let cases = [
            ("not masked", vec![0x82, 0x01, b'a'], FrameError::NotMasked),
            ("reserved bits", masked(0xc2, b"a"), FrameError::Unknown),
            ("unknown kind", masked(0x83, b"a"), FrameError::Unknown),
            ("too long", too_long.to_vec(), FrameError::TooLong),
            ("long ping", masked(0x89, &[0; 126]), FrameError::TooLong),
            ("nothing to continue", masked(0x80, b"a"), FrameError::Order),
            (
                "begun twice",
                [masked(0x02, b"a"), masked(0x02, b"b")].concat(),
                FrameError::Order,
            ),
        ];
        for (case, bytes, expected) in cases {
            let mut assembler = Assembler::default();
            assembler.buffer.extend_from_slice(&bytes);
            assert_eq!(assembler.next(), Err(expected), "{case}");
        }
    }

    #[test]
    fn lengths_of_frames() {
        for (length, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(data(&vec![0; length]).len(), head + length, "{length}");
        }
    }
}
