//! Brings the events of committed transactions to watchers, in order and with bounded buffers. Both engines use it.
//!
//! A watch has two parts. At [`Hub::subscribe`] the hub notes up to which revision events were already published;
//! the engine replays the past up to exactly there from its log, and everything later comes live through the
//! subscription's queue. So there is neither a gap nor a repeat, whatever is committed meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use crate::{Event, Revision, StoreError, Watch, WatchMessage};

/// How much may wait for one watcher before it is cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchLimits {
    /// Events. A burst of some thousand changes must not cut off a reader that is merely busy.
    pub(crate) events: usize,
    /// Bytes of keys and values, because waiting events keep old values in memory.
    pub(crate) bytes: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        WatchLimits {
            events: 16_384,
            bytes: 32 << 20,
        }
    }
}

/// The watchers of one store.
#[derive(Debug)]
pub(crate) struct Hub {
    published: AtomicU64,
    limits: WatchLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    watchers_made: u64,
    watchers: BTreeMap<u64, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    prefix: Bytes,
    after: Revision,
    queue: Arc<Queue>,
}

impl Hub {
    /// A hub of a store whose past ends at `published`.
    pub(crate) fn new(published: Revision, limits: WatchLimits) -> Hub {
        Hub {
            published: AtomicU64::new(published.0),
            limits,
            state: Mutex::default(),
        }
    }

    /// The newest revision that was published.
    pub(crate) fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// Hands events to the watchers. `revision` is that of the last event; calls come in the order of revisions.
    pub(crate) fn publish(&self, events: &[Event], revision: Revision) {
        let mut state = self.state.lock();
        self.published.store(revision.0, Ordering::Release);
        state
            .watchers
            .retain(|_, watcher| watcher.offer(events, revision, self.limits));
    }

    /// Begins a watch of the changes after both `after` and what was published so far.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        prefix: Bytes,
        after: Revision,
    ) -> Result<Subscription, StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        state.watchers_made += 1;
        let number = state.watchers_made;
        let published = self.published();
        let queue = Arc::new(Queue::new(published.max(after)));
        state.watchers.insert(
            number,
            Watcher {
                prefix,
                after,
                queue: Arc::clone(&queue),
            },
        );
        Ok(Subscription {
            hub: Arc::clone(self),
            number,
            queue,
            published,
            after,
        })
    }

    /// Ends all watches, and refuses new ones.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for watcher in std::mem::take(&mut state.watchers).into_values() {
            watcher.queue.end(StoreError::Closed);
        }
    }
}

impl Watcher {
    /// Queues what of a batch is for this watcher; false if it is cut off by that.
    fn offer(&self, events: &[Event], revision: Revision, limits: WatchLimits) -> bool {
        if revision <= self.after {
            return true;
        }
        let wanted =
            |event: &&Event| event.kv.mod_revision > self.after && event.kv.key.starts_with(&self.prefix);
        let events: Vec<Event> = events.iter().filter(wanted).cloned().collect();
        if events.is_empty() {
            self.queue.push_progress(revision);
            true
        } else {
            self.queue.push_events(events, revision, limits)
        }
    }
}

/// A registered watcher: the live part of a watch. Dropping it ends the registration.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    number: u64,
    queue: Arc<Queue>,
    published: Revision,
    after: Revision,
}

impl Subscription {
    /// The revision up to which the past has to be replayed.
    pub(crate) fn replay_to(&self) -> Revision {
        self.published
    }

    /// Puts the replayed past, one item per message, and the live part together.
    pub(crate) fn into_watch(self, replay: BoxStream<'static, Result<WatchMessage, StoreError>>) -> Watch {
        let seen = self.published.max(self.after);
        let replay_ended = futures::stream::once(async move { Ok(WatchMessage::Progress(seen)) });
        Watch::new(replay.chain(replay_ended).chain(self).boxed())
    }
}

impl Stream for Subscription {
    type Item = Result<WatchMessage, StoreError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Registered before looking: a message that comes in between wakes us again.
        self.queue.waker.register(context.waker());
        match self.queue.pop() {
            Some(item) => Poll::Ready(Some(item)),
            None => Poll::Pending,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.state.lock().watchers.remove(&self.number);
    }
}

/// What waits for one watcher.
#[derive(Debug)]
struct Queue {
    waker: AtomicWaker,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    messages: VecDeque<WatchMessage>,
    events: usize,
    bytes: usize,
    seen: Revision,
    end: Option<StoreError>,
}

impl Queue {
    fn new(seen: Revision) -> Queue {
        let waiting = Waiting {
            messages: VecDeque::new(),
            events: 0,
            bytes: 0,
            seen,
            end: None,
        };
        Queue {
            waker: AtomicWaker::new(),
            waiting: Mutex::new(waiting),
        }
    }

    /// False if there is no room; the queue then ends with what it holds. A batch for which an empty queue has no
    /// room is let in: its size is bounded by the committer, and the watcher is not slow.
    fn push_events(&self, events: Vec<Event>, revision: Revision, limits: WatchLimits) -> bool {
        let mut waiting = self.waiting.lock();
        let (count, bytes) = (events.len(), size_of(&events));
        let full = waiting.events + count > limits.events || waiting.bytes + bytes > limits.bytes;
        let fits = waiting.events == 0 || !full;
        if fits {
            waiting.events += count;
            waiting.bytes += bytes;
            waiting.seen = revision;
            waiting
                .messages
                .push_back(WatchMessage::Events { revision, events });
        } else {
            waiting.end = Some(StoreError::Lagged { seen: waiting.seen });
        }
        drop(waiting);
        self.waker.wake();
        fits
    }

    fn push_progress(&self, revision: Revision) {
        let mut waiting = self.waiting.lock();
        waiting.seen = revision;
        if let Some(WatchMessage::Progress(last)) = waiting.messages.back_mut() {
            *last = revision;
            return; // Its reader was woken when the message came in.
        }
        waiting.messages.push_back(WatchMessage::Progress(revision));
        drop(waiting);
        self.waker.wake();
    }

    fn end(&self, error: StoreError) {
        self.waiting.lock().end = Some(error);
        self.waker.wake();
    }

    fn pop(&self) -> Option<Result<WatchMessage, StoreError>> {
        let mut waiting = self.waiting.lock();
        let Some(message) = waiting.messages.pop_front() else {
            return waiting.end.clone().map(Err);
        };
        if let WatchMessage::Events { events, .. } = &message {
            waiting.events -= events.len();
            waiting.bytes -= size_of(events);
        }
        Some(Ok(message))
    }
}

fn size_of(events: &[Event]) -> usize {
    let size = |event: &Event| {
        let previous = event.previous.as_ref().map_or(0, |previous| previous.value.len());
        event.kv.key.len() + event.kv.value.len() + previous
    };
    events.iter().map(size).sum()
}

#[cfg(test)]
mod tests;
