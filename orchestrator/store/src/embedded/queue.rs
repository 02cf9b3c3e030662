//! The changes that wait for the committer, and how callers wait for their answers.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use std::sync::Arc;

use crate::{LeaseId, Revision, StoreError, Txn, TxnOutcome};

/// Changes that may wait at once; more callers wait for room. Bounds memory to some thousand objects.
const WAITING_MAX: usize = 2_048;

/// One change, as asked for.
#[derive(Debug)]
pub(super) enum Change {
    Txn(Txn),
    Grant(Duration),
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
}

/// What a change answers.
#[derive(Debug)]
pub(super) enum Answer {
    Txn(TxnOutcome),
    Lease(LeaseId),
    Done,
}

/// A change with the caller that waits for it. A caller that has gone is not missed.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) change: Change,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl Request {
    pub(super) fn answer(self, answer: Result<Answer, StoreError>) {
        self.answer.send(answer).ok(); // The caller has gone; the change stands.
    }
}

/// What the committer finds.
#[derive(Debug)]
pub(super) enum Taken {
    /// Everything that waited, up to the batch's size; nothing if the time was up first.
    Batch(Vec<Request>),
    /// The queue is closed and empty.
    Closed,
}

/// Changes in the order in which they came.
#[derive(Debug)]
pub(super) struct Queue {
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    requests: VecDeque<Request>,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            waiting: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Waits for room, queues the change and waits for its answer.
    ///
    /// # Cancel safety
    /// Dropped while waiting for room, nothing is queued; later, the change happens.
    pub(super) async fn submit(&self, change: Change) -> Result<Answer, StoreError> {
        let room = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|_closed| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(StoreError::Closed);
            }
            waiting.requests.push_back(Request {
                change,
                answer,
                _room: room,
            });
        }
        self.arrived.notify_one();
        // The committer answers every request that it took; only its panic drops one.
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes what waits. If nothing does, waits for the first change, at most for `patience`.
    pub(super) fn take(&self, limit: usize, patience: Option<Duration>) -> Taken {
        let mut waiting = self.waiting.lock();
        if waiting.requests.is_empty() && !waiting.closed {
            match patience {
                Some(patience) => {
                    self.arrived.wait_for(&mut waiting, patience);
                }
                None => self.arrived.wait(&mut waiting),
            }
        }
        if waiting.requests.is_empty() && waiting.closed {
            return Taken::Closed;
        }
        let count = waiting.requests.len().min(limit);
        Taken::Batch(waiting.requests.drain(..count).collect())
    }

    /// Refuses new changes; those that wait are still taken.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.room.close();
        self.arrived.notify_one();
    }

    /// Answers what is left with `error`, when nobody will take it any more.
    pub(super) fn fail(&self, error: &StoreError) {
        let left = std::mem::take(&mut self.waiting.lock().requests);
        for request in left {
            request.answer(Err(error.clone()));
        }
    }
}
