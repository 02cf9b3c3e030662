//! The objects of one stored resource, and a window of their recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use moorline_schema::custom::Definition;
use moorline_schema::{ResourceFacts, selector};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::entry::{self, Entry};
use super::{ROOT, storage_path};

/// The window keeps so many changes for any time, and more only for so long. A watcher that falls out of it starts anew.
const CHANGES_KEPT_MIN: usize = 128;
const CHANGES_KEPT_MAX: usize = 20_000;
const CHANGES_KEPT_FOR: Duration = Duration::from_secs(90);

/// A change of one object. `old` and `new` say which: created, modified, deleted.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    /// The state before, under its own revision.
    pub(crate) old: Option<Arc<Entry>>,
    /// The state now.
    pub(crate) new: Option<Arc<Entry>>,
    seen: Instant,
}

/// The changes a watcher asks for are no longer in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The oldest revision after which all changes are known.
    pub(crate) oldest: u64,
}

/// The objects of one stored resource.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) resource: &'static ResourceFacts,
    /// The keys' common beginning, such as `/registry/pods/`.
    pub(crate) prefix: String,
    /// What all stored objects begin with.
    pub(crate) head: Bytes,
    /// The fields whose values each entry's facts hold.
    pub(crate) fields: Box<[&'static str]>,
    /// For custom objects: what their definition says of them.
    definition: Option<Arc<Definition>>,
    /// The collection is no longer fed; another may have taken its place.
    is_closed: AtomicBool,
    /// Whether new objects are refused. Held while one is stored.
    refuses_new: tokio::sync::RwLock<bool>,
    state: RwLock<State>,
    /// The number of changes so far.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    changes: VecDeque<Arc<Change>>,
    /// The number of the window's first change.
    first: u64,
    /// Every change after this revision is in the window.
    complete_after: u64,
    /// Revision of the last change.
    revision: u64,
}

/// All objects at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<Arc<Entry>>,
    /// The revision of the read.
    pub(crate) revision: u64,
    /// The number of the next change: where a watch goes on.
    pub(crate) next: u64,
}

impl Collection {
    pub(super) fn new(resource: &'static ResourceFacts) -> Self {
        let fields = selector::selectable(resource.group, resource.version, resource.plural);
        Collection::of(resource, fields.into(), None)
    }

    /// An empty collection of custom objects, which are brought under `definition` as they come.
    pub(crate) fn custom(
        resource: &'static ResourceFacts,
        fields: Vec<&'static str>,
        definition: Arc<Definition>,
    ) -> Self {
        Collection::of(resource, fields.into(), Some(definition))
    }

    fn of(
        resource: &'static ResourceFacts,
        fields: Box<[&'static str]>,
        definition: Option<Arc<Definition>>,
    ) -> Self {
        Collection {
            resource,
            prefix: format!("{ROOT}{}/", storage_path(resource)),
            head: entry::head(&resource.api_version(), resource.kind),
            fields,
            definition,
            is_closed: AtomicBool::new(false),
            refuses_new: tokio::sync::RwLock::new(false),
            state: RwLock::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// The store's key of an object.
    pub(crate) fn key(&self, path: &str) -> Bytes {
        Bytes::from(format!("{}{path}", self.prefix))
    }

    /// Builds the entry for stored bytes.
    pub(crate) fn entry(&self, path: &str, stored: &[u8], revision: u64) -> Entry {
        let normal = self.normalised(stored);
        let json = entry::with_revision(&self.head, normal.as_deref().unwrap_or(stored), revision);
        let facts = Arc::new(entry::facts(&json, path, &self.fields));
        Entry {
            path: path.into(),
            revision,
            json,
            facts,
            is_stale: normal.is_some(),
        }
    }

    /// The bytes of a custom object under today's definition, if they are not those that are stored.
    fn normalised(&self, stored: &[u8]) -> Option<Bytes> {
        let definition = self.definition.as_ref()?;
        let mut value: Value = serde_json::from_slice(stored).ok()?;
        moorline_schema::custom::object::normalise(definition.storage_version(), &mut value);
        let encoded = entry::encode(&self.head, &value);
        (encoded != stored).then_some(encoded)
    }

    /// Ends all watches; nothing comes any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.announce();
    }

    /// Whether another collection has taken its place.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Takes no new objects any more. Those that are being stored are there when this returns.
    pub(crate) async fn refuse_new(&self) {
        *self.refuses_new.write().await = true;
    }

    /// Held while a new object is stored; holds true if that is refused.
    pub(crate) async fn may_refuse(&self) -> tokio::sync::RwLockReadGuard<'_, bool> {
        self.refuses_new.read().await
    }

    /// The object as it is now.
    pub(crate) fn get(&self, path: &str) -> Option<Arc<Entry>> {
        self.state.read().entries.get(path).cloned()
    }

    /// Whether there are objects in a namespace, or any at all for the empty prefix.
    pub(crate) fn has_any(&self, path_prefix: &str) -> bool {
        let state = self.state.read();
        let mut range = state
            .entries
            .range::<str, _>((Bound::Included(path_prefix), Bound::Unbounded));
        range
            .next()
            .is_some_and(|(path, _)| path.starts_with(path_prefix))
    }

    /// All objects whose path begins with `path_prefix`. `applied` is read under the lock: all changes up to it are in.
    pub(crate) fn snapshot(&self, path_prefix: &str, applied: impl FnOnce() -> u64) -> Snapshot {
        let state = self.state.read();
        let range = state
            .entries
            .range::<str, _>((Bound::Included(path_prefix), Bound::Unbounded));
        let entries = range.take_while(|(path, _)| path.starts_with(path_prefix));
        Snapshot {
            entries: entries.map(|(_, entry)| Arc::clone(entry)).collect(),
            revision: state.revision.max(applied()),
            next: state.next(),
        }
    }

    /// Revision of the last change.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// The number of objects.
    pub(crate) fn len(&self) -> usize {
        self.state.read().entries.len()
    }

    /// The number of the first change after `revision`.
    pub(crate) fn position_after(&self, revision: u64) -> Result<u64, Lost> {
        let state = self.state.read();
        if revision < state.complete_after {
            return Err(Lost {
                oldest: state.complete_after,
            });
        }
        let index = state
            .changes
            .partition_point(|change| change.revision <= revision);
        Ok(state.first + index as u64)
    }

    /// Up to `limit` changes from number `next` on. With none left, `applied` says up to which revision that holds.
    pub(crate) fn changes(
        &self,
        next: u64,
        limit: usize,
        applied: impl FnOnce() -> u64,
    ) -> Result<(Vec<Arc<Change>>, u64), Lost> {
        let state = self.state.read();
        let Some(skip) = next.checked_sub(state.first) else {
            return Err(Lost {
                oldest: state.complete_after,
            });
        };
        let skip = usize::try_from(skip)
            .unwrap_or(usize::MAX)
            .min(state.changes.len());
        let found: Vec<Arc<Change>> = state.changes.range(skip..).take(limit).cloned().collect();
        let revision = match found.last() {
            Some(change) => change.revision,
            None => state.revision.max(applied()),
        };
        Ok((found, revision))
    }

    /// Tells of changes; holds the number of the next one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes over a change from the store. Only the feed calls this, in the order of revisions.
    pub(super) fn apply(&self, path: &str, stored: Option<&[u8]>, revision: u64) {
        let now = Instant::now();
        let new = stored.map(|stored| Arc::new(self.entry(path, stored, revision)));
        let mut state = self.state.write();
        let old = match &new {
            Some(new) => state.entries.insert(Arc::clone(&new.path), Arc::clone(new)),
            None => state.entries.remove(path),
        };
        state.revision = revision;
        if old.is_some() || new.is_some() {
            state.changes.push_back(Arc::new(Change {
                revision,
                old,
                new,
                seen: now,
            }));
            state.prune(now);
        }
    }

    /// Wakes the watchers; once after several changes.
    pub(super) fn announce(&self) {
        let next = self.state.read().next();
        self.changed.send_replace(next);
    }

    /// Replaces the content by what a fresh read gave; whoever watches has to start anew.
    pub(crate) fn reset(&self, entries: Vec<Entry>, revision: u64) {
        let mut state = self.state.write();
        state.entries = entries
            .into_iter()
            .map(|entry| (Arc::clone(&entry.path), Arc::new(entry)))
            .collect();
        // One number is left out, so that a watcher that had seen everything notices too.
        state.first = state.next() + 1;
        state.changes.clear();
        state.complete_after = revision;
        state.revision = revision;
    }

    /// Drops changes that nobody should still need.
    pub(crate) fn prune(&self) {
        self.state.write().prune(Instant::now());
    }
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    fn prune(&mut self, now: Instant) {
        while self.changes.len() > CHANGES_KEPT_MIN {
            let Some(first) = self.changes.front() else { return };
            let is_old = now.duration_since(first.seen) > CHANGES_KEPT_FOR;
            if !is_old && self.changes.len() <= CHANGES_KEPT_MAX {
                return;
            }
            self.complete_after = first.revision;
            self.changes.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use moorline_schema::Registry;

    use super::*;

    fn collection() -> Collection {
        Collection::new(Registry::builtin().resource("", "v1", "configmaps").unwrap())
    }

    fn put(collection: &Collection, path: &str, revision: u64) {
        let (_, name) = path.split_once('/').unwrap();
        let stored =
            format!("{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"{name}\"}}}}");
        collection.apply(path, Some(stored.as_bytes()), revision);
    }

    #[test]
    fn a_namespace_is_a_range() {
        let collection = collection();
        for (path, revision) in [("a/x", 1), ("ab/x", 2), ("b/x", 3)] {
            put(&collection, path, revision);
        }
        let snapshot = collection.snapshot("a/", || 7);
        assert_eq!(
            snapshot
                .entries
                .iter()
                .map(|entry| &*entry.path)
                .collect::<Vec<_>>(),
            ["a/x"]
        );
        assert_eq!(snapshot.revision, 7);
        assert!(collection.has_any("b/") && !collection.has_any("c/"));
    }

    #[test]
    fn changes_after_a_revision() {
        let collection = collection();
        for revision in [2, 4, 6] {
            put(&collection, "a/x", revision);
        }
        let cases = [(0, vec![2, 4, 6]), (2, vec![4, 6]), (3, vec![4, 6]), (6, vec![])];
        for (after, expected) in cases {
            let next = collection.position_after(after).unwrap();
            let (changes, _) = collection.changes(next, 10, || 6).unwrap();
            assert_eq!(
                changes.iter().map(|change| change.revision).collect::<Vec<_>>(),
                expected,
                "{after}"
            );
        }
    }

    #[test]
    fn old_changes_are_lost_and_that_is_said() {
        let collection = collection();
        let many = CHANGES_KEPT_MAX as u64 + 10;
        for revision in 1..=many {
            put(&collection, "a/x", revision);
        }
        assert_eq!(collection.position_after(3), Err(Lost { oldest: 10 }));
        assert!(collection.position_after(10).is_ok());
        assert!(collection.changes(2, 1, || 0).is_err());
    }

    #[test]
    fn a_reset_ends_all_watches() {
        let collection = collection();
        put(&collection, "a/x", 5);
        let next = collection.position_after(5).unwrap();
        collection.reset(Vec::new(), 9);
        assert!(collection.changes(next, 1, || 9).is_err());
        assert_eq!(collection.position_after(5), Err(Lost { oldest: 9 }));
        assert!(collection.position_after(9).is_ok());
    }
}
