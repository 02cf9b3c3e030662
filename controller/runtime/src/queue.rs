//! Keys to look at: each once, the failed ones later, none in two hands.
//!
//! ```text
//!            add                 next              done, Settled
//!  (absent) -----> ready ---------------> running ---------------> (absent)
//!     | add_after    ^                    |  ^  | done, Retry or After
//!     +--> waiting --+   add while running |  |  +---------> waiting --> ready
//!           (due)                          +--+ (marked: ready again when done)
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::queue_metrics::{Observed, QueueMetrics};

/// How often a key failed in a row, and with what.
#[derive(Clone, Debug, Default)]
struct Failures {
    count: u32,
    last_error: String,
}

struct State<K> {
    ready: VecDeque<K>,
    /// The keys in `ready`.
    is_ready: HashSet<K>,
    running: HashSet<K>,
    /// Keys added while they were running.
    again: HashSet<K>,
    /// Keys by the time at which they become ready; the number tells keys of the same instant apart.
    waiting: BTreeMap<(Instant, u64), K>,
    /// The place of each key in `waiting`: its earliest.
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, Failures>,
    sequence: u64,
    observed: Option<Observed<K>>,
}

/// A queue of keys for [`crate::run_workers`]. Cheap to clone; clones share the keys.
pub struct Queue<K> {
    state: Arc<Mutex<State<K>>>,
    changed: Arc<Notify>,
    backoff: Backoff,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            changed: self.changed.clone(),
            backoff: self.backoff,
        }
    }
}

impl<K> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Queue")
            .field("ready", &state.ready.len())
            .field("running", &state.running.len())
            .field("waiting", &state.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue whose failed keys come back after `backoff`.
    pub fn new(backoff: Backoff) -> Self {
        let state = State {
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            waiting: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            observed: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(Notify::new()),
            backoff,
        }
    }

    /// The same queue, seen in `metrics` under `name`.
    #[must_use]
    pub fn observed(self, metrics: &QueueMetrics, name: &str) -> Self {
        self.state.lock().observed = Some(metrics.of(name));
        self
    }

    /// Has the key looked at as soon as possible; if it is being looked at, then once more afterwards.
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Like [`Queue::add`], unless the key's last try failed: then its backoff goes on. For change handlers whose
    /// events are often of the reconciler's own making.
    pub fn add_unless_failing(&self, key: K) {
        let mut state = self.state.lock();
        let is_backing_off = state.failures.contains_key(&key) && state.due.contains_key(&key);
        if !is_backing_off {
            state.add(key);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Has the key looked at after `delay`, or earlier if something else asks for that.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            self.add(key);
            return;
        }
        self.state.lock().add_at(key, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// How many keys are ready or waiting, without those being worked on.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.ready.len() + state.waiting.len()
    }

    /// Whether no key is ready or waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often the key failed in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.state
            .lock()
            .failures
            .get(key)
            .map_or(0, |failures| failures.count)
    }

    /// Takes the next ready key; it counts as running until `finish` or `fail`.
    ///
    /// Cancel safe: a key is taken only together with returning it.
    pub(crate) async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let (key, due) = self.state.lock().take(Instant::now());
            if let Some(key) = key {
                return key;
            }
            match due {
                Some(due) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// The running key is done without failure; `after` brings it back.
    pub(crate) fn finish(&self, key: &K, after: Option<Duration>) {
        let mut state = self.state.lock();
        state.failures.remove(key);
        if let Some(after) = after {
            state.add_at(key.clone(), Instant::now() + after);
        }
        state.stop_running(key);
        drop(state);
        self.changed.notify_one();
    }

    /// The running key failed with `error`; it comes back after its backoff. Returns the failures in a row and
    /// whether the error differs from the last one.
    pub(crate) fn fail(&self, key: &K, error: &str) -> (u32, bool) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        failures.count = failures.count.saturating_add(1);
        let is_new = failures.last_error != error;
        if is_new {
            failures.last_error = error.to_string();
        }
        let count = failures.count;
        if let Some(observed) = &state.observed {
            observed.failed();
        }
        let at = Instant::now() + self.backoff.delay(count);
        state.add_at(key.clone(), at);
        state.stop_running(key);
        drop(state);
        self.changed.notify_one();
        (count, is_new)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.is_ready.insert(key.clone()) {
            if let Some(observed) = &mut self.observed {
                observed.became_ready(&key);
            }
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if let Some(place) = self.due.get(&key) {
            if place.0 <= at {
                return;
            }
            self.waiting.remove(place);
        }
        self.sequence += 1;
        let place = (at, self.sequence);
        self.due.insert(key.clone(), place);
        self.waiting.insert(place, key);
    }

    /// The next ready key, or else the time at which one becomes ready.
    fn take(&mut self, now: Instant) -> (Option<K>, Option<Instant>) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
        let Some(key) = self.ready.pop_front() else {
            return (None, self.waiting.keys().next().map(|(at, _)| *at));
        };
        self.is_ready.remove(&key);
        self.running.insert(key.clone());
        if let Some(observed) = &mut self.observed {
            observed.was_taken(&key);
        }
        (Some(key), None)
    }

    fn stop_running(&mut self, key: &K) {
        self.running.remove(key);
        if let Some(observed) = &mut self.observed {
            observed.ended(key);
        }
        if self.again.remove(key) {
            self.add(key.clone());
        }
    }
}

#[cfg(test)]
mod tests;
