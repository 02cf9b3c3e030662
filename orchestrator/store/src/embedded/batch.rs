//! What one batch of changes does inside one write transaction.

use std::time::Duration;

use redb::{ReadableTable, WriteTransaction};

use super::io;
use super::queue::{Answer, Change};
use super::tables::{self, META_COMPACTED, META_LEASES_MADE, META_SWEPT, Tables};
use crate::transition::{self, Current, Transition};
use crate::{ErrorClass, Event, LeaseId, Revision, StoreError, Txn, TxnOutcome};

/// Keys that one ending lease deletes in one batch, so that a big lease does not hold up other changes for long.
const LEASE_KEYS_AT_ONCE: usize = 512;
/// Log records that one batch looks at for compaction, for the same reason.
const SWEEP_RECORDS: usize = 2_000;

/// A lease's end as the batch leaves it; `None`: the lease is gone.
pub(super) type LeaseEnd = (LeaseId, Option<i64>);

/// What a batch has done, to be made known once it is durable.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) answers: Vec<Result<Answer, StoreError>>,
    pub(super) events: Vec<Event>,
    pub(super) lease_ends: Vec<LeaseEnd>,
    pub(super) compacted: Revision,
    pub(super) swept: Revision,
    /// Whether anything was written at all.
    pub(super) changed: bool,
}

/// A batch in the making.
pub(super) struct Batch<'t> {
    tables: Tables<'t>,
    revision: Revision,
    now_ms: i64,
    done: Done,
}

impl<'t> Batch<'t> {
    pub(super) fn begin(write: &'t WriteTransaction, now_ms: i64) -> Result<Batch<'t>, StoreError> {
        let tables = Tables::open(write).map_err(io("open tables"))?;
        let compacted = Revision(tables::meta(&tables.meta, META_COMPACTED)?);
        let swept = Revision(tables::meta(&tables.meta, META_SWEPT)?);
        let revision = tables::current_revision(&tables.log, compacted)?;
        let done = Done {
            compacted,
            swept,
            ..Done::default()
        };
        Ok(Batch {
            tables,
            revision,
            now_ms,
            done,
        })
    }

    /// Ends the transaction's use of its tables.
    pub(super) fn finish(self) -> Done {
        self.done
    }

    /// Does one change and keeps its answer.
    ///
    /// # Errors
    /// Only those after which the whole batch has to be given up.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), StoreError> {
        let answer = match change {
            Change::Txn(txn) => self.txn(txn).map(Answer::Txn),
            Change::Grant(ttl) => self.grant(*ttl).map(Answer::Lease),
            Change::KeepAlive(lease) => self.keep_alive(*lease).map(|()| Answer::Done),
            Change::Revoke(lease) => self.revoke(*lease).map(|()| Answer::Done),
            Change::Compact(revision) => self.compact(*revision).map(|()| Answer::Done),
        };
        match answer {
            Err(error) if error.class() != ErrorClass::Final => Err(error),
            answer => {
                self.done.answers.push(answer);
                Ok(())
            }
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        match transition::decide(&self.tables, txn, self.revision.next())? {
            Transition::Conflict { current } => Ok(TxnOutcome::Conflict {
                revision: self.revision,
                current,
            }),
            Transition::Apply { events, previous } => {
                self.record(events)?;
                Ok(TxnOutcome::Committed {
                    revision: self.revision,
                    previous,
                })
            }
        }
    }

    /// Takes over the events of one transaction; none takes no revision.
    fn record(&mut self, events: Vec<Event>) -> Result<(), StoreError> {
        let Some(first) = events.first() else {
            return Ok(());
        };
        self.revision = first.kv.mod_revision;
        self.tables.record(&events)?;
        self.done.events.extend(events);
        self.done.changed = true;
        Ok(())
    }

    fn grant(&mut self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let made = tables::meta(&self.tables.meta, META_LEASES_MADE)? + 1;
        self.tables.set_meta(META_LEASES_MADE, made)?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.set_lease(LeaseId(made), ttl_ms)?;
        Ok(LeaseId(made))
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let ttl_ms = self.live_lease(lease)?;
        self.set_lease(lease, ttl_ms)
    }

    /// A lease's time to live. One whose time is up counts as gone, though its keys may still wait for deletion.
    fn live_lease(&self, lease: LeaseId) -> Result<u64, StoreError> {
        let found = self.tables.lease.get(lease.0).map_err(io("read lease"))?;
        let (ttl_ms, end_ms) = found
            .map(|found| found.value())
            .ok_or(StoreError::LeaseNotFound { lease })?;
        if end_ms <= self.now_ms {
            return Err(StoreError::LeaseNotFound { lease });
        }
        Ok(ttl_ms)
    }

    fn set_lease(&mut self, lease: LeaseId, ttl_ms: u64) -> Result<(), StoreError> {
        let end_ms = self
            .now_ms
            .saturating_add(i64::try_from(ttl_ms).unwrap_or(i64::MAX));
        self.tables
            .lease
            .insert(lease.0, (ttl_ms, end_ms))
            .map_err(io("write lease"))?;
        self.done.lease_ends.push((lease, Some(end_ms)));
        self.done.changed = true;
        Ok(())
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if !self.tables.has_lease(lease)? {
            return Err(StoreError::LeaseNotFound { lease });
        }
        self.delete_keys(lease, usize::MAX)?;
        self.remove_lease(lease)
    }

    /// Deletes keys of a lease whose time is up, and the lease itself with the last of them.
    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if self.delete_keys(lease, LEASE_KEYS_AT_ONCE)? < LEASE_KEYS_AT_ONCE {
            self.remove_lease(lease)?;
        }
        Ok(())
    }

    fn delete_keys(&mut self, lease: LeaseId, limit: usize) -> Result<usize, StoreError> {
        let keys = self.tables.lease_keys(lease, limit)?;
        for key in &keys {
            let Some(before) = self.tables.current(key)? else {
                let found = format!("lease {lease} holds the key {key:?}, which does not exist");
                return Err(StoreError::Corrupt { found });
            };
            self.record(vec![transition::deletion(before, self.revision.next())])?;
        }
        Ok(keys.len())
    }

    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.tables.lease.remove(lease.0).map_err(io("remove lease"))?;
        self.done.lease_ends.push((lease, None));
        self.done.changed = true;
        Ok(())
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::FutureRevision {
                requested: revision,
                current: self.revision,
            });
        }
        if revision > self.done.compacted {
            self.tables.set_meta(META_COMPACTED, revision.0)?;
            self.done.compacted = revision;
            self.done.changed = true;
        }
        Ok(())
    }

    /// Removes a part of what earlier batches compacted.
    pub(super) fn sweep(&mut self) -> Result<(), StoreError> {
        self.done.swept = self
            .tables
            .sweep(self.done.swept, self.done.compacted, SWEEP_RECORDS)?;
        self.done.changed = true;
        Ok(())
    }
}
