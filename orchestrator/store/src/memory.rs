//! The engine that keeps everything in memory: for tests, simulation and throw-away clusters. Nothing survives it.
//!
//! Changes happen at once, under one lock, in the order of the calls; there is no committer.

use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{self, BoxFuture};
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hub::{Hub, WatchLimits};
use crate::transition::{self, Transition};
use crate::{
    Event, KeyValue, LeaseId, Range, RangeResult, Revision, Store, StoreError, Txn, TxnOutcome, Watch,
    WatchMessage,
};

mod state;

use state::State;

/// The in-memory engine.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Arc<Inner>,
    leases_watched: Once,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    hub: Arc<Hub>,
    leases_changed: Notify,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::with_limits(WatchLimits::default())
    }

    pub(crate) fn with_limits(limits: WatchLimits) -> MemoryStore {
        let inner = Inner {
            state: Mutex::default(),
            hub: Arc::new(Hub::new(Revision::NONE, limits)),
            leases_changed: Notify::new(),
        };
        MemoryStore {
            inner: Arc::new(inner),
            leases_watched: Once::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The task that ends leases is started with the first one: [`MemoryStore::new`] may run outside of a runtime.
    fn watch_leases(&self) {
        self.leases_watched.call_once(|| {
            let (inner, stop) = (Arc::clone(&self.inner), self.stop.clone());
            self.tasks.spawn(async move {
                stop.run_until_cancelled(inner.end_leases()).await;
            });
        });
        self.inner.leases_changed.notify_one();
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Inner {
    /// Runs `act` on the state unless the store is closed.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        act(&mut state)
    }

    /// As [`Inner::with`], then publishes what `act` recorded before anyone else gets at the state.
    fn change<T>(
        &self,
        act: impl FnOnce(&mut State, &mut Vec<Event>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|state| {
            let mut events = Vec::new();
            let result = act(state, &mut events);
            if !events.is_empty() {
                self.hub.publish(&events, state.revision);
            }
            result
        })
    }

    fn txn(&self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        self.change(|state, published| {
            let revision = state.revision.next();
            Ok(match transition::decide(state, txn, revision)? {
                Transition::Conflict { current } => TxnOutcome::Conflict {
                    revision: state.revision,
                    current,
                },
                Transition::Apply { events, previous } => {
                    state.record(&events);
                    published.extend(events);
                    TxnOutcome::Committed {
                        revision: state.revision,
                        previous,
                    }
                }
            })
        })
    }

    /// Ends each lease when its time has come, for ever.
    async fn end_leases(self: Arc<Self>) {
        loop {
            let next = self.state.lock().next_deadline();
            match next {
                Some(deadline) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(deadline) => {}
                        () = self.leases_changed.notified() => {}
                    }
                }
                None => self.leases_changed.notified().await,
            }
            let now = Instant::now();
            let ended = self.change(|state, published| {
                for lease in state.due(now) {
                    published.extend(state.end_lease(lease));
                }
                Ok(())
            });
            if ended.is_err() {
                return; // Closed: there is nothing left to end.
            }
        }
    }
}

impl Store for MemoryStore {
    fn get(
        &self,
        key: Bytes,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<(Revision, Option<KeyValue>), StoreError>> {
        future::ready(
            self.inner
                .with(|state| Ok((state.revision, state.get(&key, at)?))),
        )
        .boxed()
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>> {
        future::ready(self.inner.with(|state| state.range(&range))).boxed()
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, StoreError>> {
        async move { self.inner.txn(&txn) }.boxed()
    }

    fn watch(&self, prefix: Bytes, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        future::ready(self.inner.with(|state| {
            let past = state.events_after(&prefix, after)?;
            let subscription = self.inner.hub.subscribe(prefix, after)?;
            let revision = subscription.replay_to();
            let replay = (!past.is_empty()).then_some(Ok(WatchMessage::Events {
                revision,
                events: past,
            }));
            Ok(subscription.into_watch(stream::iter(replay).boxed()))
        }))
        .boxed()
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        async move {
            let lease = self.inner.with(|state| Ok(state.grant(ttl, Instant::now())))?;
            self.watch_leases();
            Ok(lease)
        }
        .boxed()
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.inner.with(|state| state.keep_alive(lease, Instant::now()))?;
            self.watch_leases();
            Ok(())
        }
        .boxed()
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.inner.change(|state, published| {
                transition::Current::has_lease(state, lease)?
                    .then(|| published.extend(state.end_lease(lease)))
                    .ok_or(StoreError::LeaseNotFound { lease })
            })
        }
        .boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.inner.with(|state| state.compact(revision)) }.boxed()
    }

    fn current_revision(&self) -> Revision {
        self.inner.hub.published()
    }

    fn compacted_revision(&self) -> Revision {
        self.inner.state.lock().compacted
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.inner.state.lock().closed = true;
            self.inner.hub.close();
            self.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            Ok(())
        }
        .boxed()
    }
}
