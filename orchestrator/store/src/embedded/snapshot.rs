//! Reads at one durable point in time: keys, ranges at a revision, and the log.

use std::ops::Bound;

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::io;
use super::record::{Head, POSITION_BYTES, Position, Record, corrupt};
use super::tables::{self, CUR, LOG, META, META_COMPACTED};
use crate::range::check_readable;
use crate::{Event, EventKind, KeyValue, Range, RangeResult, Revision, StoreError};

/// What a read sees. Holding one keeps old pages of the file from being used again, so it is held for one read only.
pub(super) struct Snapshot {
    log: ReadOnlyTable<&'static [u8; POSITION_BYTES], &'static [u8]>,
    cur: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

impl Snapshot {
    pub(super) fn begin(database: &Database) -> Result<Snapshot, StoreError> {
        let read = database.begin_read().map_err(io("begin reading"))?;
        let log = read.open_table(LOG).map_err(io("open log"))?;
        let cur = read.open_table(CUR).map_err(io("open keys"))?;
        let meta = read.open_table(META).map_err(io("open store numbers"))?;
        let compacted = Revision(tables::meta(&meta, META_COMPACTED)?);
        let revision = tables::current_revision(&log, compacted)?;
        Ok(Snapshot {
            log,
            cur,
            revision,
            compacted,
        })
    }

    pub(super) fn get(&self, key: &Bytes, at: Option<Revision>) -> Result<Option<KeyValue>, StoreError> {
        let at = check_readable(at, self.compacted, self.revision)?;
        let Some(head) = tables::head(&self.cur, key)? else {
            return Ok(None);
        };
        let Some(head) = self.visible(head, at)? else {
            return Ok(None);
        };
        tables::version(&self.log, head.position).map(Some)
    }

    pub(super) fn range(&self, range: &Range) -> Result<RangeResult, StoreError> {
        let at = check_readable(range.at, self.compacted, self.revision)?;
        let mut result = RangeResult {
            revision: self.revision,
            ..RangeResult::default()
        };
        let limit = range.limit.unwrap_or(usize::MAX);
        if !range.end.is_empty() && range.start >= range.end {
            return Ok(result);
        }
        let start = Bound::Included(range.start.as_ref());
        let end = match range.end.as_ref() {
            [] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        for item in self.cur.range::<&[u8]>((start, end)).map_err(io("read keys"))? {
            let (key, head) = item.map_err(io("read keys"))?;
            let Some(head) = self.visible(Head::decode(head.value())?, at)? else {
                continue;
            };
            result.count += 1;
            if result.kvs.len() >= limit {
                continue;
            }
            result.kvs.push(if range.keys_only {
                head.to_key_value(Bytes::copy_from_slice(key.value()), Bytes::new())
            } else {
                tables::version(&self.log, head.position)?
            });
        }
        result.more = result.kvs.len() as u64 != result.count;
        Ok(result)
    }

    /// The version of a key that was current at a revision, found backwards from its newest one; none if the key did
    /// not exist then.
    fn visible(&self, head: Head, at: Revision) -> Result<Option<Head>, StoreError> {
        let mut head = head;
        while head.position.revision > at {
            let Some(found) = self
                .log
                .get(&head.position.encode())
                .map_err(io("read version"))?
            else {
                return Err(corrupt(format!(
                    "no version at {:?}, though it can be read",
                    head.position
                )));
            };
            let previous = Record::decode(found.value())?.previous;
            if previous.is_none() {
                return Ok(None);
            }
            let Some(record) = self.log.get(&previous.encode()).map_err(io("read version"))? else {
                return self.swept_away(previous).map(|()| None);
            };
            let record = Record::decode(record.value())?;
            head = Head {
                position: previous,
                create_revision: record.create_revision,
                version: record.version,
                lease: record.lease,
            };
        }
        Ok((!head.is_deleted()).then_some(head))
    }

    /// A version that an older one leads to may be missing only where compaction removed it. A readable revision
    /// leads to such a place only over a compacted deletion.
    fn swept_away(&self, position: Position) -> Result<(), StoreError> {
        if position.revision <= self.compacted {
            Ok(())
        } else {
            Err(corrupt(format!(
                "no version at {position:?}, though it is not compacted"
            )))
        }
    }

    /// The events under a prefix after one revision up to another, about `limit` log records of them. Also answers
    /// up to which revision the log was read; a revision is never split.
    pub(super) fn events(
        &self,
        prefix: &[u8],
        after: Revision,
        upto: Revision,
        limit: usize,
    ) -> Result<(Vec<Event>, Revision), StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted {
                compacted: self.compacted,
            });
        }
        let mut events = Vec::new();
        let from = Position::first_of(after.next()).encode();
        let to = Position::first_of(upto.next()).encode();
        for (count, item) in self
            .log
            .range::<&[u8; POSITION_BYTES]>(&from..&to)
            .map_err(io("read log"))?
            .enumerate()
        {
            let (position, record) = item.map_err(io("read log"))?;
            let position = Position::decode(position.value())?;
            if count >= limit && position.index == 0 {
                return Ok((events, Revision(position.revision.0 - 1)));
            }
            let record = Record::decode(record.value())?;
            if record.key.starts_with(prefix) {
                events.push(self.event(&record, position.revision)?);
            }
        }
        Ok((events, upto))
    }

    fn event(&self, record: &Record<'_>, revision: Revision) -> Result<Event, StoreError> {
        let previous = if record.previous.is_none() {
            None
        } else {
            self.before(record.previous)?
        };
        Ok(Event {
            kind: record.kind,
            kv: record.to_key_value(revision),
            previous,
        })
    }

    fn before(&self, position: Position) -> Result<Option<KeyValue>, StoreError> {
        let Some(found) = self.log.get(&position.encode()).map_err(io("read version"))? else {
            return self.swept_away(position).map(|()| None);
        };
        let record = Record::decode(found.value())?;
        Ok((record.kind == EventKind::Put).then(|| record.to_key_value(position.revision)))
    }
}
