//! The tables of the file, and how one write transaction changes them.
//!
//! `log` holds every kept version at its position, with its value. `cur` holds each key's head; a deleted key keeps
//! one until the deletion is compacted. `lease` holds each lease's time to live and its end, `lease_key` the keys of
//! each lease, `meta` a few numbers. The current revision is not stored: it is that of the log's last record, or the
//! compacted one if compaction took the last record away.

use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::io;
use super::record::{Head, POSITION_BYTES, Position, Record, corrupt};
use crate::transition::Current;
use crate::{Event, EventKind, KeyValue, LeaseId, Revision, StoreError};

/// Versions by position.
pub(super) const LOG: TableDefinition<'_, &[u8; POSITION_BYTES], &[u8]> = TableDefinition::new("log");
/// Heads by key.
pub(super) const CUR: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cur");
/// Time to live and end (both in milliseconds, the end since the epoch) by lease.
pub(super) const LEASE: TableDefinition<'_, u64, (u64, i64)> = TableDefinition::new("lease");
/// The keys of each lease.
pub(super) const LEASE_KEY: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("lease_key");
/// Numbers by name: see the constants of this module.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of the format that this code reads and writes.
pub(super) const META_FORMAT: &str = "moorline-store format";
/// The oldest readable revision.
pub(super) const META_COMPACTED: &str = "compacted";
/// How far the versions that compaction gave up have been removed.
pub(super) const META_SWEPT: &str = "swept";
/// How many leases were made.
pub(super) const META_LEASES_MADE: &str = "leases made";

/// A number of `meta`; 0 if it was never written.
pub(super) fn meta(table: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, StoreError> {
    Ok(table
        .get(name)
        .map_err(io("read store numbers"))?
        .map_or(0, |number| number.value()))
}

/// The newest version of a key, deletions included.
pub(super) fn head(
    cur: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Head>, StoreError> {
    let found = cur.get(key).map_err(io("read key"))?;
    found.map(|head| Head::decode(head.value())).transpose()
}

/// The version at a position that must be there.
pub(super) fn version(
    log: &impl ReadableTable<&'static [u8; POSITION_BYTES], &'static [u8]>,
    position: Position,
) -> Result<KeyValue, StoreError> {
    let Some(found) = log.get(&position.encode()).map_err(io("read version"))? else {
        return Err(corrupt(format!(
            "no version at {position:?}, which a key or a later version names"
        )));
    };
    Ok(Record::decode(found.value())?.to_key_value(position.revision))
}

/// The newest revision.
pub(super) fn current_revision(
    log: &impl ReadableTable<&'static [u8; POSITION_BYTES], &'static [u8]>,
    compacted: Revision,
) -> Result<Revision, StoreError> {
    let last = log.last().map_err(io("read newest version"))?;
    let last = last
        .map(|(position, _)| Position::decode(position.value()))
        .transpose()?;
    Ok(last.map_or(compacted, |last| last.revision.max(compacted)))
}

/// The tables of one open write transaction.
pub(super) struct Tables<'t> {
    pub(super) log: Table<'t, &'static [u8; POSITION_BYTES], &'static [u8]>,
    pub(super) cur: Table<'t, &'static [u8], &'static [u8]>,
    pub(super) lease: Table<'t, u64, (u64, i64)>,
    pub(super) lease_key: Table<'t, (u64, &'static [u8]), ()>,
    pub(super) meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    /// Opens, and in a new file makes, the tables.
    pub(super) fn open(write: &'t WriteTransaction) -> Result<Tables<'t>, redb::TableError> {
        Ok(Tables {
            log: write.open_table(LOG)?,
            cur: write.open_table(CUR)?,
            lease: write.open_table(LEASE)?,
            lease_key: write.open_table(LEASE_KEY)?,
            meta: write.open_table(META)?,
        })
    }

    pub(super) fn set_meta(&mut self, name: &str, number: u64) -> Result<(), StoreError> {
        self.meta
            .insert(name, number)
            .map_err(io("write store numbers"))?;
        Ok(())
    }

    /// Writes the events of one transaction.
    pub(super) fn record(&mut self, events: &[Event]) -> Result<(), StoreError> {
        for (index, event) in (0..).zip(events) {
            self.record_event(event, index)?;
        }
        Ok(())
    }

    fn record_event(&mut self, event: &Event, index: u32) -> Result<(), StoreError> {
        let kv = &event.kv;
        let next = Head::of(kv, index);
        let before = head(&self.cur, &kv.key)?;
        let record = Record {
            kind: event.kind,
            previous: before.map(|before| before.position).unwrap_or_default(),
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            key: &kv.key,
            value: &kv.value,
        };
        self.log
            .insert(&next.position.encode(), record.encode().as_slice())
            .map_err(io("write version"))?;
        self.cur
            .insert(kv.key.as_ref(), next.encode().as_slice())
            .map_err(io("write key"))?;
        self.attach(&kv.key, before.and_then(|before| before.lease), kv.lease)
    }

    fn attach(&mut self, key: &[u8], old: Option<LeaseId>, new: Option<LeaseId>) -> Result<(), StoreError> {
        if old == new {
            return Ok(());
        }
        if let Some(old) = old {
            self.lease_key
                .remove((old.0, key))
                .map_err(io("write lease's key"))?;
        }
        if let Some(new) = new {
            self.lease_key
                .insert((new.0, key), ())
                .map_err(io("write lease's key"))?;
        }
        Ok(())
    }

    /// Up to `limit` keys of a lease.
    pub(super) fn lease_keys(&self, lease: LeaseId, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let none: &[u8] = &[];
        let keys = self.lease_key.range((lease.0, none)..(lease.0 + 1, none));
        let keys = keys.map_err(io("read lease's keys"))?.take(limit);
        keys.map(|key| {
            let (key, _) = key.map_err(io("read lease's keys"))?;
            Ok(Bytes::copy_from_slice(key.value().1))
        })
        .collect()
    }

    /// Removes versions that no readable revision can see, for about `records` log records, up to `compacted`.
    /// Answers how far it came.
    ///
    /// Each record up to the compacted revision makes the one before it of the same key invisible; a deletion is
    /// invisible itself.
    pub(super) fn sweep(
        &mut self,
        swept: Revision,
        compacted: Revision,
        records: usize,
    ) -> Result<Revision, StoreError> {
        let mut reached = compacted;
        let mut invisible = Vec::new();
        let mut deleted = Vec::new();
        let from = Position::first_of(swept.next()).encode();
        let upto = Position::first_of(compacted.next()).encode();
        for (count, item) in self
            .log
            .range::<&[u8; POSITION_BYTES]>(&from..&upto)
            .map_err(io("read log"))?
            .enumerate()
        {
            let (position, record) = item.map_err(io("read log"))?;
            let position = Position::decode(position.value())?;
            if count >= records && position.index == 0 {
                reached = Revision(position.revision.0 - 1);
                break;
            }
            let record = Record::decode(record.value())?;
            if !record.previous.is_none() {
                invisible.push(record.previous);
            }
            if record.kind == EventKind::Delete {
                invisible.push(position);
                deleted.push((position, Bytes::copy_from_slice(record.key)));
            }
        }
        for position in invisible {
            self.log
                .remove(&position.encode())
                .map_err(io("remove version"))?;
        }
        for (position, key) in deleted {
            if head(&self.cur, &key)?.is_some_and(|head| head.position == position) {
                self.cur.remove(key.as_ref()).map_err(io("remove key"))?;
            }
        }
        self.set_meta(META_SWEPT, reached.0)?;
        Ok(reached)
    }
}

impl Current for Tables<'_> {
    fn current(&self, key: &Bytes) -> Result<Option<KeyValue>, StoreError> {
        match head(&self.cur, key)? {
            Some(head) if !head.is_deleted() => version(&self.log, head.position).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    fn has_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(self.lease.get(lease.0).map_err(io("read lease"))?.is_some())
    }
}
