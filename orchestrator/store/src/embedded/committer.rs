//! The one writer: a thread that commits whatever waits in one write transaction with one fsync.
//!
//! ```text
//! take what waits -> evaluate in order -> commit (fsync) -> publish to watchers -> answer the callers -> again
//!                          |                   |
//!                          +---- failure ------+-> answer all with it -> open the file again -> publish what
//!                                                                        did become durable after all
//! ```
//!
//! Nothing waits while the committer is idle; while it syncs, the next batch gathers by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redb::{ReadableDatabase, ReadableTable};
use tracing::{error, info, warn};

use super::batch::{Batch, Done, LeaseEnd};
use super::queue::{Request, Taken};
use super::snapshot::Snapshot;
use super::tables::{LEASE, META, META_SWEPT};
use super::{Shared, io, tables};
use crate::{LeaseId, Revision, StoreError};

/// Changes in one batch. More would only make the first callers of a batch wait longer.
const BATCH_MAX: usize = 512;
/// How long a lease's end may go unseen when the clock is set.
const LEASE_CHECK_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How often the committer tries by itself after a failure. Callers' changes are tried as they come.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Log records that are published at once after a failure.
const REPUBLISH_RECORDS: usize = 1_000;

/// The committer's own state; what readers need is in [`Shared`].
pub(super) struct Committer {
    shared: Arc<Shared>,
    leases: LeaseEnds,
    swept: Revision,
    /// The last batch failed: what nobody asked for (lease ends, sweeping) waits a little before it is tried again.
    failed: bool,
}

impl Committer {
    /// Reads from the file what the committer keeps in memory.
    pub(super) fn new(shared: Arc<Shared>) -> Result<Committer, StoreError> {
        let mut committer = Committer {
            shared,
            leases: LeaseEnds::default(),
            swept: Revision::NONE,
            failed: false,
        };
        committer.load()?;
        Ok(committer)
    }

    fn load(&mut self) -> Result<(), StoreError> {
        let slot = self.shared.database.read();
        let database = slot.as_ref().ok_or_else(not_open)?;
        let read = database.begin_read().map_err(io("begin reading"))?;
        let meta = read.open_table(META).map_err(io("open store numbers"))?;
        self.swept = Revision(tables::meta(&meta, META_SWEPT)?);
        self.leases = LeaseEnds::default();
        let leases = read.open_table(LEASE).map_err(io("open leases"))?;
        for item in leases.iter().map_err(io("read leases"))? {
            let (lease, end) = item.map_err(io("read leases"))?;
            self.leases.set((LeaseId(lease.value()), Some(end.value().1)));
        }
        Ok(())
    }

    /// Commits until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            let patience = self.patience();
            match self.shared.queue.take(BATCH_MAX, patience) {
                Taken::Batch(requests) => self.commit(requests),
                Taken::Closed => return,
            }
        }
    }

    /// How long the committer may sleep; `None` is until somebody writes.
    fn patience(&self) -> Option<Duration> {
        if self.failed {
            return Some(RETRY_INTERVAL);
        }
        if self.swept < self.shared.compacted() {
            return Some(Duration::ZERO);
        }
        let next_ms = self.leases.next_ms()?;
        let wait_ms = next_ms.saturating_sub(Timestamp::now().as_millisecond());
        Some(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)).min(LEASE_CHECK_INTERVAL_MAX))
    }

    fn commit(&mut self, requests: Vec<Request>) {
        match self.reopened().and_then(|()| self.write(&requests)) {
            Ok(done) => {
                self.failed = false;
                self.publish(&done);
                for (request, answer) in requests.into_iter().zip(done.answers) {
                    request.answer(answer);
                }
            }
            Err(error) => {
                // The callers are told; the log is for the ones who look after the disk.
                error!(%error, waiting = requests.len(), "Could not commit to the store");
                for request in requests {
                    request.answer(Err(error.clone()));
                }
                self.failed = true;
                self.let_go();
            }
        }
    }

    /// One write transaction. Nothing of it is visible to anyone before it is durable.
    fn write(&self, requests: &[Request]) -> Result<Done, StoreError> {
        let slot = self.shared.database.read();
        let database = slot.as_ref().ok_or_else(not_open)?;
        let now_ms = Timestamp::now().as_millisecond();
        let write = database.begin_write().map_err(io("begin writing"))?;
        let mut batch = Batch::begin(&write, now_ms)?;
        for lease in self.leases.due(now_ms) {
            batch.end_lease(lease)?;
        }
        for request in requests {
            batch.apply(&request.change)?;
        }
        if self.swept < self.shared.compacted() {
            batch.sweep()?;
        }
        let done = batch.finish();
        if done.changed {
            write.commit().map_err(io("commit"))?;
        } else {
            write.abort().map_err(io("end an empty transaction"))?;
        }
        Ok(done)
    }

    fn publish(&mut self, done: &Done) {
        self.swept = done.swept;
        self.shared.set_compacted(done.compacted);
        for end in &done.lease_ends {
            self.leases.set(*end);
        }
        if let Some(last) = done.events.last() {
            self.shared.hub.publish(&done.events, last.kv.mod_revision);
        }
    }

    /// Gives up a database that failed: it refuses everything from then on, and its state in memory may be ahead of
    /// the file. Tries at once to open the file again.
    fn let_go(&mut self) {
        drop(self.shared.database.write().take());
        if let Err(error) = self.reopened() {
            warn!(%error, "The store does not open again yet; trying on");
        }
    }

    /// Opens the file again if a failure closed it. A commit whose sync failed may have become durable after all:
    /// then its events are published now, since readers see it.
    fn reopened(&mut self) -> Result<(), StoreError> {
        if self.shared.database.read().is_some() {
            return Ok(());
        }
        let database = (self.shared.opener)().map_err(io("open the store again"))?;
        *self.shared.database.write() = Some(database);
        let republished = self.load().and_then(|()| self.republish());
        if republished.is_err() {
            drop(self.shared.database.write().take());
        } else {
            info!(
                revision = self.shared.hub.published().0,
                "The store is open again"
            );
        }
        republished
    }

    fn republish(&self) -> Result<(), StoreError> {
        let slot = self.shared.database.read();
        let snapshot = Snapshot::begin(slot.as_ref().ok_or_else(not_open)?)?;
        self.shared.set_compacted(snapshot.compacted);
        let mut after = self.shared.hub.published();
        if snapshot.revision < after {
            let found = format!(
                "the file ends at revision {}, though {after} was durable",
                snapshot.revision
            );
            return Err(StoreError::Corrupt { found });
        }
        while after < snapshot.revision {
            let (events, upto) = snapshot.events(b"", after, snapshot.revision, REPUBLISH_RECORDS)?;
            self.shared.hub.publish(&events, upto);
            after = upto;
        }
        Ok(())
    }
}

fn not_open() -> StoreError {
    StoreError::Io {
        attempt: "use the store",
        cause: "it is closed after a failure of the disk".to_owned(),
    }
}

/// When each lease ends, in milliseconds since the epoch.
#[derive(Debug, Default)]
struct LeaseEnds {
    by_lease: BTreeMap<LeaseId, i64>,
    by_end: BTreeSet<(i64, LeaseId)>,
}

impl LeaseEnds {
    fn set(&mut self, (lease, end_ms): LeaseEnd) {
        if let Some(old_ms) = self.by_lease.remove(&lease) {
            self.by_end.remove(&(old_ms, lease));
        }
        if let Some(end_ms) = end_ms {
            self.by_lease.insert(lease, end_ms);
            self.by_end.insert((end_ms, lease));
        }
    }

    fn next_ms(&self) -> Option<i64> {
        self.by_end.first().map(|(end_ms, _)| *end_ms)
    }

    fn due(&self, now_ms: i64) -> Vec<LeaseId> {
        self.by_end
            .iter()
            .take_while(|(end_ms, _)| *end_ms <= now_ms)
            .map(|(_, lease)| *lease)
            .collect()
    }
}
