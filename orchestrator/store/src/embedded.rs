//! The embedded durable engine: one redb file, one committing thread, reads from durable snapshots.
//!
//! The parts: `open` finds or makes the file, `record` and `tables` are its format, `queue` holds the changes that
//! wait, `committer` and `batch` write them, `snapshot` reads.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::{Mutex, RwLock};
use redb::{Database, DatabaseError};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::hub::{Hub, WatchLimits};
use crate::{
    KeyValue, LeaseId, Range, RangeResult, Revision, Store, StoreError, Txn, TxnOutcome, Watch, WatchMessage,
};

mod batch;
mod committer;
mod open;
mod queue;
mod record;
mod snapshot;
mod tables;

pub use open::OpenError;

use committer::Committer;
use queue::{Answer, Change, Queue};
use snapshot::Snapshot;

/// Reads at once. Each may block a thread on the disk; more would not make the disk faster.
const READS_MAX: usize = 8;
/// Log records that a watch's replay reads at once, between which writers and other readers get their turn.
const REPLAY_RECORDS: usize = 500;

/// How an [`EmbeddedStore`] is opened.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Memory for pages of the file. Small by default: the API server keeps current objects itself.
    pub cache_bytes: usize,
    /// Verify the whole file before using it. Costs one read of the file; without it, damage is found when it is met.
    pub check: bool,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        EmbeddedOptions {
            cache_bytes: 8 << 20,
            check: true,
        }
    }
}

/// The embedded engine. Dropping it without [`Store::close`] finishes what waits and blocks for that long.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// What committer and readers share.
struct Shared {
    /// Empty once closed, and while a failed file does not open again. Written only to exchange the database;
    /// reads and commits hold it shared.
    database: RwLock<Option<Database>>,
    opener: Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>,
    hub: Arc<Hub>,
    compacted: AtomicU64,
    queue: Queue,
    reads: Semaphore,
    read_tasks: TaskTracker,
}

impl EmbeddedStore {
    /// Opens the store at `path`, or makes an empty one if there is no file. Blocks while the file is verified.
    ///
    /// # Errors
    /// See [`OpenError`]; the file is left as it is.
    pub fn open(path: &Path, options: EmbeddedOptions) -> Result<EmbeddedStore, OpenError> {
        let database = open::open(path, options.cache_bytes, options.check)?;
        let again = path.to_owned();
        let opener = Box::new(move || open::reopen(&again, options.cache_bytes));
        EmbeddedStore::start(database, opener, WatchLimits::default()).map_err(|error| OpenError::NotAStore {
            path: path.to_owned(),
            found: error.to_string(),
        })
    }

    fn start(
        database: Database,
        opener: Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>,
        limits: WatchLimits,
    ) -> Result<EmbeddedStore, StoreError> {
        let snapshot = Snapshot::begin(&database)?;
        let (revision, compacted) = (snapshot.revision, snapshot.compacted);
        drop(snapshot);
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(database)),
            opener,
            hub: Arc::new(Hub::new(revision, limits)),
            compacted: AtomicU64::new(compacted.0),
            queue: Queue::new(),
            reads: Semaphore::new(READS_MAX),
            read_tasks: TaskTracker::new(),
        });
        let committer = Committer::new(Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("store-commit".to_owned());
        let committer = thread
            .spawn(move || committer.run())
            .map_err(|error| StoreError::Io {
                attempt: "start the committing thread",
                cause: error.to_string(),
            })?;
        Ok(EmbeddedStore {
            shared,
            committer: Mutex::new(Some(committer)),
        })
    }
}

impl Shared {
    fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    fn set_compacted(&self, compacted: Revision) {
        self.compacted.store(compacted.0, Ordering::Release);
    }

    /// Runs a read on a thread that may block.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.reads.acquire().await.map_err(|_closed| StoreError::Closed)?;
        let shared = Arc::clone(self);
        let task = self.read_tasks.spawn_blocking(move || {
            let slot = shared.database.read();
            match slot.as_ref() {
                Some(database) => read(&Snapshot::begin(database)?),
                None if shared.reads.is_closed() => Err(StoreError::Closed),
                None => Err(StoreError::Io {
                    attempt: "read",
                    cause: "the store is closed after a failure of the disk".to_owned(),
                }),
            }
        });
        // A read is never aborted, so this is the runtime's end or a panic, which the runtime has reported.
        task.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn watch(self: &Arc<Self>, prefix: Bytes, after: Revision) -> Result<Watch, StoreError> {
        let compacted = self.compacted();
        if after < compacted {
            return Err(StoreError::Compacted { compacted });
        }
        let subscription = self.hub.subscribe(prefix.clone(), after)?;
        let upto = subscription.replay_to();
        let replay = Replay {
            shared: Arc::clone(self),
            prefix,
            after,
            upto,
        };
        let messages = stream::try_unfold(replay, Replay::next).try_filter_map(async |message| Ok(message));
        Ok(subscription.into_watch(messages.boxed()))
    }

    /// Stops the committer, then lets the file go. Blocks.
    fn shut_down(&self, committer: Option<JoinHandle<()>>) -> Result<(), StoreError> {
        self.queue.close();
        let ended = committer.map_or(Ok(()), JoinHandle::join);
        self.reads.close();
        self.queue.fail(&StoreError::Closed);
        self.hub.close();
        let database = self.database.write().take();
        let closed = database
            .map_or(Ok(()), Database::close)
            .map_err(io("close the store"));
        ended.map_err(|_panic| StoreError::Io {
            attempt: "stop the committing thread",
            cause: "it has panicked".to_owned(),
        })?;
        closed
    }
}

/// Where a watch's replay of the past stands.
struct Replay {
    shared: Arc<Shared>,
    prefix: Bytes,
    after: Revision,
    upto: Revision,
}

impl Replay {
    /// The next part of the past: no message if it holds nothing for the watcher, the stream's end if it is over.
    async fn next(mut self) -> Result<Option<(Option<WatchMessage>, Replay)>, StoreError> {
        if self.after >= self.upto {
            return Ok(None);
        }
        let (prefix, after, upto) = (self.prefix.clone(), self.after, self.upto);
        let read = move |snapshot: &Snapshot| snapshot.events(&prefix, after, upto, REPLAY_RECORDS);
        let (events, revision) = self.shared.read(read).await?;
        self.after = revision;
        let message = (!events.is_empty()).then_some(WatchMessage::Events { revision, events });
        Ok(Some((message, self)))
    }
}

impl Store for EmbeddedStore {
    fn get(
        &self,
        key: Bytes,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<(Revision, Option<KeyValue>), StoreError>> {
        self.shared
            .read(move |snapshot| Ok((snapshot.revision, snapshot.get(&key, at)?)))
            .boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>> {
        self.shared.read(move |snapshot| snapshot.range(&range)).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, StoreError>> {
        async move {
            match self.shared.queue.submit(Change::Txn(txn)).await? {
                Answer::Txn(outcome) => Ok(outcome),
                other => Err(wrong_answer(&other)),
            }
        }
        .boxed()
    }

    fn watch(&self, prefix: Bytes, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        self.shared.watch(prefix, after).boxed()
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        async move {
            match self.shared.queue.submit(Change::Grant(ttl)).await? {
                Answer::Lease(lease) => Ok(lease),
                other => Err(wrong_answer(&other)),
            }
        }
        .boxed()
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared
            .queue
            .submit(Change::KeepAlive(lease))
            .map(|answer| answer.map(drop))
            .boxed()
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared
            .queue
            .submit(Change::Revoke(lease))
            .map(|answer| answer.map(drop))
            .boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared
            .queue
            .submit(Change::Compact(revision))
            .map(|answer| answer.map(drop))
            .boxed()
    }

    fn current_revision(&self) -> Revision {
        self.shared.hub.published()
    }

    fn compacted_revision(&self) -> Revision {
        self.shared.compacted()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let committer = self.committer.lock().take();
            let shared = Arc::clone(&self.shared);
            let closing = self
                .shared
                .read_tasks
                .spawn_blocking(move || shared.shut_down(committer));
            let closed = closing.await.unwrap_or(Err(StoreError::Closed));
            self.shared.read_tasks.close();
            self.shared.read_tasks.wait().await;
            closed
        }
        .boxed()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Some(committer) = self.committer.get_mut().take()
            && let Err(error) = self.shared.shut_down(Some(committer))
        {
            tracing::error!(%error, "Could not close the store cleanly");
        }
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EmbeddedStore")
            .field("revision", &self.current_revision())
            .field("compacted", &self.compacted_revision())
            .finish_non_exhaustive()
    }
}

/// Says what was tried in an error of the engine.
fn io<E: Into<redb::Error>>(attempt: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| match error.into() {
        redb::Error::Corrupted(found) => StoreError::Corrupt { found },
        error => StoreError::Io {
            attempt,
            cause: error.to_string(),
        },
    }
}

fn wrong_answer(answer: &Answer) -> StoreError {
    StoreError::Corrupt {
        found: format!("the committer gave the wrong kind of answer: {answer:?}"),
    }
}

#[cfg(test)]
mod tests;
