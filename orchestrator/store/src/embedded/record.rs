//! How heads and log records look on disk. Pure; format version 1.
//!
//! ```text
//! position  revision u64, index u32                                  big endian, so that bytes sort as positions do
//! head      position, create_revision u64, version u64, lease u64    version 0: the key is deleted
//! record    kind u8, previous position, create_revision u64, version u64, lease u64, key length u32, key, value
//! ```

use bytes::Bytes;

use crate::{EventKind, KeyValue, LeaseId, Revision, StoreError};

/// Bytes of a position.
pub(super) const POSITION_BYTES: usize = 12;
const HEAD_BYTES: usize = POSITION_BYTES + 24;
const RECORD_HEADER_BYTES: usize = 1 + POSITION_BYTES + 24 + 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// Where in the log a version stands: its revision, and which of its transaction's changes it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Position {
    pub(super) revision: Revision,
    pub(super) index: u32,
}

impl Position {
    /// The first position of a revision.
    pub(super) fn first_of(revision: Revision) -> Position {
        Position { revision, index: 0 }
    }

    /// No position: before the first version of a key.
    pub(super) fn is_none(self) -> bool {
        self.revision == Revision::NONE
    }

    pub(super) fn encode(self) -> [u8; POSITION_BYTES] {
        let mut bytes = [0; POSITION_BYTES];
        bytes[..8].copy_from_slice(&self.revision.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Position, StoreError> {
        let mut reader = Reader { bytes };
        let position = reader.position()?;
        reader.end()?;
        Ok(position)
    }
}

/// The newest version of a key, without its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) position: Position,
    pub(super) create_revision: Revision,
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
}

impl Head {
    /// The head that a change of a key leaves.
    pub(super) fn of(kv: &KeyValue, index: u32) -> Head {
        Head {
            position: Position {
                revision: kv.mod_revision,
                index,
            },
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.version == 0
    }

    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..POSITION_BYTES].copy_from_slice(&self.position.encode());
        bytes[12..20].copy_from_slice(&self.create_revision.0.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.version.to_be_bytes());
        bytes[28..].copy_from_slice(&lease_number(self.lease).to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Head, StoreError> {
        let mut reader = Reader { bytes };
        let head = Head {
            position: reader.position()?,
            create_revision: Revision(reader.u64()?),
            version: reader.u64()?,
            lease: lease(reader.u64()?),
        };
        reader.end()?;
        Ok(head)
    }

    /// The version itself, given its value.
    pub(super) fn to_key_value(self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            value,
            create_revision: self.create_revision,
            mod_revision: self.position.revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// One version in the log, borrowed from where it is stored.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: EventKind,
    /// The version of the same key before this one, deletions included.
    pub(super) previous: Position,
    pub(super) create_revision: Revision,
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + self.key.len() + self.value.len());
        bytes.push(match self.kind {
            EventKind::Put => PUT,
            EventKind::Delete => DELETE,
        });
        bytes.extend_from_slice(&self.previous.encode());
        bytes.extend_from_slice(&self.create_revision.0.to_be_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&lease_number(self.lease).to_be_bytes());
        let key_length = u32::try_from(self.key.len()).expect("a transaction's size is limited");
        bytes.extend_from_slice(&key_length.to_be_bytes());
        bytes.extend_from_slice(self.key);
        bytes.extend_from_slice(self.value);
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Record<'a>, StoreError> {
        let mut reader = Reader { bytes };
        let kind = match reader.take(1)? {
            [PUT] => EventKind::Put,
            [DELETE] => EventKind::Delete,
            other => return Err(corrupt(format!("log record of unknown kind {other:?}"))),
        };
        let previous = reader.position()?;
        let create_revision = Revision(reader.u64()?);
        let version = reader.u64()?;
        let lease = lease(reader.u64()?);
        let key_length = usize::try_from(reader.u32()?).map_err(|error| corrupt(error.to_string()))?;
        let key = reader.take(key_length)?;
        Ok(Record {
            kind,
            previous,
            create_revision,
            version,
            lease,
            key,
            value: reader.bytes,
        })
    }

    /// The version as callers see it.
    pub(super) fn to_key_value(&self, mod_revision: Revision) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key),
            value: Bytes::copy_from_slice(self.value),
            create_revision: self.create_revision,
            mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(corrupt(format!(
                "stored item ends {} bytes early",
                count - self.bytes.len()
            )));
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        let bytes = self.take(8)?.try_into().expect("took as many bytes");
        Ok(u64::from_be_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        let bytes = self.take(4)?.try_into().expect("took as many bytes");
        Ok(u32::from_be_bytes(bytes))
    }

    fn position(&mut self) -> Result<Position, StoreError> {
        Ok(Position {
            revision: Revision(self.u64()?),
            index: self.u32()?,
        })
    }

    fn end(&self) -> Result<(), StoreError> {
        match self.bytes.len() {
            0 => Ok(()),
            more => Err(corrupt(format!("stored item has {more} bytes too many"))),
        }
    }
}

fn lease(number: u64) -> Option<LeaseId> {
    (number != 0).then_some(LeaseId(number))
}

fn lease_number(lease: Option<LeaseId>) -> u64 {
    lease.map_or(0, |lease| lease.0)
}

/// The error for stored data that contradicts itself.
pub(super) fn corrupt(found: String) -> StoreError {
    StoreError::Corrupt { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            kind: EventKind::Put,
            previous: Position {
                revision: Revision(7),
                index: 2,
            },
            create_revision: Revision(3),
            version: 9,
            lease: Some(LeaseId(5)),
            key: b"/registry/pods/a",
            value: b"value",
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = record().encode();
        assert_eq!(Record::decode(&bytes), Ok(record()));
        let head = Head {
            position: Position {
                revision: Revision(12),
                index: 1,
            },
            create_revision: Revision(3),
            version: 4,
            lease: None,
        };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn positions_sort_as_their_bytes() {
        let at = |revision, index| Position {
            revision: Revision(revision),
            index,
        };
        let sorted = [
            at(1, 0),
            at(1, 255),
            at(1, 256),
            at(255, 9),
            at(256, 0),
            at(u64::MAX, 0),
        ];
        assert!(sorted.is_sorted_by_key(|position| position.encode()));
    }

    #[test]
    fn cut_off_items_are_corrupt() {
        let bytes = record().encode();
        for length in 0..RECORD_HEADER_BYTES + record().key.len() {
            let found = Record::decode(&bytes[..length]);
            assert!(
                matches!(found, Err(StoreError::Corrupt { .. })),
                "{length} bytes: {found:?}"
            );
        }
        assert!(matches!(
            Head::decode(&[0; HEAD_BYTES + 1]),
            Err(StoreError::Corrupt { .. })
        ));
        assert!(matches!(
            Record::decode(&[9; 64]),
            Err(StoreError::Corrupt { .. })
        ));
    }
}
