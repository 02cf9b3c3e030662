//! What the server knows of its store: every object once, as the JSON bytes that clients get, and recent changes.
//!
//! ```text
//! store --watch--> feed --> Collection (one per stored resource) --> lists, gets, watches
//! ```
//! The feed applies changes in the order of revisions; [`Caches::reached`] waits until it has come so far. A writer
//! waits for its own revision before it answers, so whatever was answered is seen by every later read.

pub(crate) mod collection;
pub(crate) mod entry;
pub(crate) mod feed;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use moorline_schema::{Registry, ResourceFacts};
use moorline_store::{Range, Revision, Store, StoreError};
use tokio::sync::{Mutex, MutexGuard, watch};

pub(crate) use collection::{Change, Collection, Lost};
pub(crate) use entry::Entry;

/// Below this stands everything.
pub(crate) const ROOT: &str = "/registry/";

/// All collections of the server.
#[derive(Debug)]
pub(crate) struct Caches {
    /// By storage path, such as `pods` or `services/specs`.
    by_path: ArcSwap<HashMap<String, Arc<Collection>>>,
    /// Held while changes are applied, and while a collection is added: the store's changes stand still for it.
    feeding: Mutex<()>,
    /// The revision up to which all changes are in the collections.
    applied: watch::Sender<u64>,
}

impl Caches {
    /// One empty collection for each resource that is stored.
    pub(crate) fn new(registry: &'static Registry) -> Self {
        let stored = registry.resources().filter(|facts| is_stored(facts));
        let by_path = stored
            .map(|facts| (storage_path(facts), Arc::new(Collection::new(facts))))
            .collect::<HashMap<_, _>>();
        Caches {
            by_path: ArcSwap::from_pointee(by_path),
            feeding: Mutex::default(),
            applied: watch::Sender::new(0),
        }
    }

    /// The collection a resource is stored in; events of both groups share one.
    pub(crate) fn collection(&self, facts: &ResourceFacts) -> Option<Arc<Collection>> {
        self.by_path.load().get(&storage_path(facts)).cloned()
    }

    /// Adds a collection of custom objects with all that the store has of them; it replaces one of the same path. The
    /// feed waits meanwhile, so nothing is missed and nothing comes twice.
    ///
    /// # Errors
    /// Those of the store; then nothing was added.
    pub(crate) async fn add(
        &self,
        store: &dyn Store,
        collection: &Arc<Collection>,
    ) -> Result<(), StoreError> {
        let _feeding = self.feeding.lock().await;
        let revision = self.revision();
        let whole = Range::prefix(collection.prefix.as_bytes());
        let found = store
            .range(Range {
                at: Some(Revision(revision)),
                ..whole
            })
            .await?;
        let entries = found.kvs.iter().filter_map(|kv| {
            let path = std::str::from_utf8(&kv.key)
                .ok()?
                .strip_prefix(&*collection.prefix)?;
            Some(collection.entry(path, &kv.value, kv.mod_revision.0))
        });
        collection.reset(entries.collect(), revision);
        let path = storage_path(collection.resource);
        self.replace(|by_path| by_path.insert(path.clone(), Arc::clone(collection)));
        Ok(())
    }

    /// Takes a collection out, if it is still there.
    pub(crate) fn remove(&self, collection: &Arc<Collection>) {
        let path = storage_path(collection.resource);
        self.replace(|by_path| {
            let is_it = by_path
                .get(&path)
                .is_some_and(|found| Arc::ptr_eq(found, collection));
            if is_it { by_path.remove(&path) } else { None }
        });
    }

    fn replace<T>(&self, change: impl Fn(&mut HashMap<String, Arc<Collection>>) -> T) {
        self.by_path.rcu(|by_path| {
            let mut by_path = HashMap::clone(by_path);
            change(&mut by_path);
            by_path
        });
    }

    /// Keeps collections from being added while changes are applied.
    pub(crate) async fn feeding(&self) -> MutexGuard<'_, ()> {
        self.feeding.lock().await
    }

    /// All collections.
    pub(crate) fn all(&self) -> Vec<Arc<Collection>> {
        self.by_path.load().values().cloned().collect()
    }

    /// Finds the collection of a key and the object's path in it.
    pub(crate) fn locate<'k>(&self, key: &'k str) -> Option<(Arc<Collection>, &'k str)> {
        let by_path = self.by_path.load();
        let rest = key.strip_prefix(ROOT)?;
        let first = rest.find('/')?;
        if let Some(found) = by_path.get(&rest[..first]) {
            return Some((Arc::clone(found), &rest[first + 1..]));
        }
        let second = first + 1 + rest[first + 1..].find('/')?;
        by_path
            .get(&rest[..second])
            .map(|found| (Arc::clone(found), &rest[second + 1..]))
    }

    /// The revision up to which everything is known here.
    pub(crate) fn revision(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Tells of every change of anything.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn set_revision(&self, revision: u64) {
        self.applied.send_if_modified(|applied| {
            let newer = revision > *applied;
            if newer {
                *applied = revision;
            }
            newer
        });
    }

    /// Waits until everything up to `revision` is known here; false after `limit`.
    pub(crate) async fn reached(&self, revision: u64, limit: Duration) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut applied = self.applied.subscribe();
        let wait = applied.wait_for(|&applied| applied >= revision);
        matches!(tokio::time::timeout(limit, wait).await, Ok(Ok(_)))
    }
}

/// Whether objects of a resource are kept; reviews and bindings are only asked or done.
fn is_stored(facts: &ResourceFacts) -> bool {
    let elsewhere = match (facts.group, facts.version, facts.plural) {
        // Stored as events of the core group, and as autoscalers of v2.
        ("events.k8s.io", ..) | ("autoscaling", "v1", _) => true,
        // Asked anew each time.
        ("", _, "componentstatuses") => true,
        _ => false,
    };
    facts.custom || (facts.allows("list") && !elsewhere)
}

/// Where upstream stores a resource; mostly below its plural name.
fn storage_path(facts: &ResourceFacts) -> String {
    match (facts.group, facts.plural) {
        ("", "nodes") => "minions".to_owned(),
        ("", "services") => "services/specs".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        (group, plural) if facts.custom || group == moorline_schema::custom::GROUP => {
            format!("{group}/{plural}")
        }
        (_, plural) => plural.to_owned(),
    }
}
