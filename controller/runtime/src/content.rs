//! What a cache holds, and the rules by which watch, list and own writes change it. No locks, no tasks, no client.
//!
//! Two sources feed one map: the watch (ordered, complete, late) and `observed` answers of own writes (early, single).
//! The rules keep the newest of both:
//!
//! - An object is replaced only by one with a higher resourceVersion. So the watch, which still has to deliver what
//!   came before an own write, never rolls that write back.
//! - An observed object that isn't held and whose resourceVersion the watch has already passed was deleted meanwhile;
//!   it is ignored rather than brought back to life.
//! - A list replaces everything, whatever its versions (the store may have been restored from a backup), except what
//!   was observed since that list began.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::Resource;

use crate::cache::Change;

/// Key of an object inside a cache: namespace and name, joined by a character that neither may contain.
pub(crate) fn key_of(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{}", namespace.unwrap_or_default(), name)
}

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    version: u64,
    /// The list generation in which this object came from an own write; 0 if the watch delivered it.
    observed_in: u64,
}

/// The objects of one kind, as far as known.
#[derive(Debug)]
pub(crate) struct Content<K> {
    entries: HashMap<String, Entry<K>>,
    /// Keys delivered by the list that is under way.
    listing: Option<HashSet<String>>,
    /// Counts lists, starting at 1 with the first one.
    generation: u64,
    /// The highest resourceVersion that list or watch delivered since the last list began.
    watched_version: u64,
    /// UIDs, by key, of objects that an own write has removed while the watch still has to say so.
    forgotten: HashMap<String, Option<String>>,
}

impl<K> Default for Content<K> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            listing: None,
            generation: 0,
            watched_version: 0,
            forgotten: HashMap::new(),
        }
    }
}

impl<K: Resource> Content<K> {
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<K>> {
        self.entries.get(key).map(|entry| &entry.object)
    }

    pub(crate) fn list(&self) -> Vec<Arc<K>> {
        self.entries.values().map(|entry| entry.object.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A list begins; what it doesn't deliver until [`Content::end_list`] is gone.
    pub(crate) fn begin_list(&mut self) {
        self.listing = Some(HashSet::new());
        self.forgotten.clear();
        self.generation += 1;
        self.watched_version = 0;
    }

    /// The list under way delivered `object`.
    pub(crate) fn listed(&mut self, object: K) -> Vec<Change<K>> {
        let key = key_of_object(&object);
        let version = version_of(&object);
        self.watched_version = self.watched_version.max(version);
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        if let Some(held) = self.entries.get(&key) {
            let is_observed_since = held.observed_in == self.generation;
            let is_same = held.version == version && held.object.meta().uid == object.meta().uid;
            if is_same || (is_observed_since && held.version > version) {
                return Vec::new();
            }
        }
        self.put(key, object, version, 0)
    }

    /// The list under way is complete.
    pub(crate) fn end_list(&mut self) -> Vec<Change<K>> {
        let Some(listing) = self.listing.take() else {
            return Vec::new();
        };
        let generation = self.generation;
        let gone: Vec<String> = self
            .entries
            .iter()
            .filter(|(key, entry)| !listing.contains(*key) && entry.observed_in != generation)
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter()
            .filter_map(|key| self.entries.remove(key))
            .map(|entry| Change::Removed(entry.object))
            .collect()
    }

    /// The watch delivered `object` as added or modified.
    pub(crate) fn applied(&mut self, object: K) -> Vec<Change<K>> {
        let key = key_of_object(&object);
        let version = version_of(&object);
        self.watched_version = self.watched_version.max(version);
        if self
            .forgotten
            .get(&key)
            .is_some_and(|uid| *uid == object.meta().uid)
        {
            return Vec::new();
        }
        match self.entries.get(&key) {
            Some(held) if version != 0 && version <= held.version => Vec::new(),
            Some(_) | None => self.put(key, object, version, 0),
        }
    }

    /// The watch delivered the deletion of `object`, whose resourceVersion is that of the deletion.
    pub(crate) fn deleted(&mut self, object: &K) -> Vec<Change<K>> {
        let key = key_of_object(object);
        let version = version_of(object);
        self.watched_version = self.watched_version.max(version);
        if self
            .forgotten
            .get(&key)
            .is_some_and(|uid| *uid == object.meta().uid)
        {
            self.forgotten.remove(&key);
        }
        let is_gone = self
            .entries
            .get(&key)
            .is_some_and(|held| held.object.meta().uid == object.meta().uid || held.version <= version);
        if !is_gone {
            // Unknown, or a successor of the same name that was observed before its predecessor's deletion arrived.
            return Vec::new();
        }
        self.entries
            .remove(&key)
            .map(|entry| Change::Removed(entry.object))
            .into_iter()
            .collect()
    }

    /// An own write has removed `object`: what the watch still has to say of its life is ignored.
    pub(crate) fn forget(&mut self, object: &K) -> Vec<Change<K>> {
        let key = key_of_object(object);
        let uid = &object.meta().uid;
        if self
            .entries
            .get(&key)
            .is_none_or(|held| held.object.meta().uid != *uid)
        {
            // The watch was faster.
            return Vec::new();
        }
        self.forgotten.insert(key.clone(), uid.clone());
        self.entries
            .remove(&key)
            .map(|entry| Change::Removed(entry.object))
            .into_iter()
            .collect()
    }

    /// An own write was answered with `object`.
    pub(crate) fn observed(&mut self, object: K) -> Vec<Change<K>> {
        let key = key_of_object(&object);
        let version = version_of(&object);
        let is_newer = match self.entries.get(&key) {
            Some(held) => version > held.version,
            None => version > self.watched_version,
        };
        if !is_newer {
            return Vec::new();
        }
        let generation = self.generation;
        self.put(key, object, version, generation)
    }

    fn put(&mut self, key: String, mut object: K, version: u64, observed_in: u64) -> Vec<Change<K>> {
        // Nobody reads them here, and they are often larger than the object.
        object.meta_mut().managed_fields = None;
        let new = Arc::new(object);
        let entry = Entry {
            object: new.clone(),
            version,
            observed_in,
        };
        match self.entries.insert(key, entry).map(|entry| entry.object) {
            None => vec![Change::Added(new)],
            Some(old) if old.meta().uid == new.meta().uid => vec![Change::Updated { old, new }],
            // Deleted and made again under the same name: two lives, so two changes.
            Some(old) => vec![Change::Removed(old), Change::Added(new)],
        }
    }
}

fn key_of_object<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    key_of(
        meta.namespace.as_deref(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// The resourceVersion as a number; 0 if it isn't one, which means "replace always".
fn version_of<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
