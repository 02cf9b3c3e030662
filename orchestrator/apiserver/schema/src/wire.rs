//! The protobuf wire format: tags, varints and lengths, read from and written to bytes.

/// The first bytes of every protobuf body of Kubernetes.
pub(crate) const MAGIC: &[u8] = b"k8s\0";

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("unexpected end of the message")]
    Truncated,
    #[error("a varint is longer than ten bytes")]
    Varint,
    #[error("wire type {0} is not known")]
    WireType(u8),
    #[error("field number {0} is not allowed")]
    FieldNumber(u64),
    #[error("field {field} has an unexpected wire type")]
    Mismatch { field: u32 },
    #[error("field {field} is not valid UTF-8")]
    Text { field: u32 },
    #[error("field {field} is nested too deeply")]
    Depth { field: u32 },
    #[error("field {field} holds no JSON")]
    Json { field: u32 },
}

/// One field of a message as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Reads the fields of a message one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next field's number and value; nothing at the end.
    pub(crate) fn next_field(&mut self) -> Result<Option<(u32, Wire<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|&number| number != 0);
        let number = number.ok_or(WireError::FieldNumber(tag >> 3))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(WireError::WireType(u8::try_from(other).unwrap_or(u8::MAX))),
        };
        Ok(Some((number, wire)))
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value: u64 = 0;
        for place in 0..10u32 {
            let (&byte, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f).checked_shl(place * 7).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }
}

/// Writes a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Writes a varint field.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

/// Writes a 64-bit field.
pub(crate) fn put_fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a field of bytes: text, bytes, or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_number(&mut out, 1, u64::MAX);
        put_fixed64(&mut out, 2, 7);
        put_bytes(&mut out, 300, b"text");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.next_field(), Ok(Some((1, Wire::Varint(u64::MAX)))));
        assert_eq!(reader.next_field(), Ok(Some((2, Wire::Fixed64(7)))));
        assert_eq!(reader.next_field(), Ok(Some((300, Wire::Bytes(b"text")))));
        assert_eq!(reader.next_field(), Ok(None));
    }

    #[test]
    fn broken_bytes_are_refused() {
        let cases: [(&[u8], WireError); 6] = [
            (&[0x0a, 5, b'a'], WireError::Truncated),
            (&[0x08], WireError::Truncated),
            (
                &[
                    0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
                ],
                WireError::Varint,
            ),
            (&[0x0b], WireError::WireType(3)),
            (&[0x00, 1], WireError::FieldNumber(0)),
            (&[0x09, 1, 2], WireError::Truncated),
        ];
        for (bytes, error) in cases {
            assert_eq!(Reader::new(bytes).next_field(), Err(error), "{bytes:?}");
        }
    }
}
