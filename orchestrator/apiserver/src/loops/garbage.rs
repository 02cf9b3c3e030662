//! The garbage collector: what belongs to something that is gone goes too.
//!
//! Dependents are indexed by the uid of their owners, from the changes in the caches. Whether an owner is there is
//! looked up in the caches at the time of the decision; [`decide`] itself is pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Caller;
use crate::cache::entry::Owner;
use crate::cache::{Collection, Entry};
use crate::http::Failure;
use crate::objects::tree;
use serde_json::{Value, json};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const CHANGES_TAKEN_MAX: usize = 1024;
/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// An object, by the place of its collection and its path in it.
type Place = (usize, Arc<str>);

/// Where an owner stands, from the view of a dependent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerState {
    Present,
    Gone,
    /// It waits for its dependents to go first.
    Waiting,
}

/// What is to be done about a dependent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Keep,
    /// Some owners are gone, others not.
    Release {
        gone: Vec<String>,
    },
    Delete {
        policy: &'static str,
    },
}

fn decide(owners: &[(String, OwnerState)]) -> Next {
    let has = |state| owners.iter().any(|(_, found)| *found == state);
    let gone = || {
        owners
            .iter()
            .filter(|(_, state)| *state != OwnerState::Present)
            .map(|(uid, _)| uid.clone())
            .collect()
    };
    match (
        has(OwnerState::Present),
        has(OwnerState::Gone),
        has(OwnerState::Waiting),
    ) {
        // Nobody owns it, or all owners are there.
        (_, false, false) => Next::Keep,
        // One owner is enough to live.
        (true, _, _) => Next::Release { gone: gone() },
        // An owner waits, so what belongs to this one goes first as well.
        (false, _, true) => Next::Delete { policy: "Foreground" },
        (false, true, false) => Next::Delete { policy: "Background" },
    }
}

/// Follows all collections, for as long as it is polled.
pub(crate) async fn run(caller: Caller) {
    let mut collector = Collector {
        positions: Vec::new(),
        caller,
        collections: Vec::new(),
        dependents: HashMap::new(),
        work: BTreeSet::new(),
    };
    let mut any_change = collector.caller.api.caches.follow();
    loop {
        any_change.borrow_and_update();
        collector.read_changes();
        let failed = collector.work_off().await;
        let wait = async {
            if failed {
                tokio::time::sleep(RETRY_INTERVAL).await;
            } else {
                any_change.changed().await.ok();
            }
        };
        wait.await;
    }
}

struct Collector {
    caller: Caller,
    /// Those of custom resources come and go; a place that is free is used again.
    collections: Vec<Option<Arc<Collection>>>,
    /// The number of the next change of each collection; nothing before the first look.
    positions: Vec<Option<u64>>,
    /// Who belongs to an owner, by its uid.
    dependents: HashMap<Box<str>, HashSet<Place>>,
    work: BTreeSet<Place>,
}

impl Collector {
    fn read_changes(&mut self) {
        self.add_new_collections();
        for index in 0..self.collections.len() {
            let Some(collection) = self.collections[index].clone() else {
                continue;
            };
            // Before its changes are read: nothing comes behind them then.
            let is_closed = collection.is_closed();
            // Nothing is held by events, and nothing belongs to them.
            if collection.resource.plural == "events" && !collection.resource.custom {
                continue;
            }
            let mut next = match self.positions[index] {
                Some(next) => next,
                None => self.read_all(index, &collection),
            };
            loop {
                match collection.changes(next, CHANGES_TAKEN_MAX, || 0) {
                    Ok((changes, _)) if changes.is_empty() => break,
                    Ok((changes, _)) => {
                        next += changes.len() as u64;
                        for change in &changes {
                            self.note(index, change.old.as_deref(), change.new.as_deref());
                        }
                    }
                    Err(_) => next = self.read_all(index, &collection),
                }
            }
            self.positions[index] = Some(next);
            if is_closed {
                self.forget(index);
            }
        }
    }

    fn add_new_collections(&mut self) {
        for collection in self.caller.api.caches.all() {
            if self.index_of(&collection).is_some() {
                continue;
            }
            match self.collections.iter().position(Option::is_none) {
                Some(free) => self.collections[free] = Some(collection),
                None => {
                    self.collections.push(Some(collection));
                    self.positions.push(None);
                }
            }
        }
    }

    fn index_of(&self, collection: &Arc<Collection>) -> Option<usize> {
        let is_it = |known: &Option<Arc<Collection>>| {
            known.as_ref().is_some_and(|known| Arc::ptr_eq(known, collection))
        };
        self.collections.iter().position(is_it)
    }

    /// Drops a collection that is no longer fed, with all places in it.
    fn forget(&mut self, index: usize) {
        self.collections[index] = None;
        self.positions[index] = None;
        self.work.retain(|(place, _)| *place != index);
        self.dependents.retain(|_, places| {
            places.retain(|(place, _)| *place != index);
            !places.is_empty()
        });
    }

    fn read_all(&mut self, index: usize, collection: &Collection) -> u64 {
        let snapshot = collection.snapshot("", || 0);
        for entry in &snapshot.entries {
            self.note(index, None, Some(entry));
        }
        snapshot.next
    }

    /// Keeps the index and marks what a change may concern.
    fn note(&mut self, index: usize, old: Option<&Entry>, new: Option<&Entry>) {
        for (entry, is_new) in old
            .map(|entry| (entry, false))
            .into_iter()
            .chain(new.map(|entry| (entry, true)))
        {
            let place = (index, Arc::clone(&entry.path));
            for owner in &entry.facts.owners {
                let places = self.dependents.entry(owner.uid.as_str().into()).or_default();
                if is_new {
                    places.insert(place.clone());
                } else {
                    places.remove(&place);
                }
                if places.is_empty() {
                    self.dependents.remove(owner.uid.as_str());
                }
                // An owner may wait for this one to go.
                if !is_new && let Some((owner_index, path)) = self.place_of(entry.namespace(), owner) {
                    self.work.insert((owner_index, path));
                }
            }
            if is_new && (!entry.facts.owners.is_empty() || waits(entry)) {
                self.work.insert(place);
            }
        }
        let became_absent =
            old.filter(|old| new.is_none_or(|new| new.facts.uid != old.facts.uid || waits(new)));
        let uid = became_absent.map(|old| &old.facts.uid);
        if let Some(places) = uid.and_then(|uid| self.dependents.get(uid)) {
            self.work.extend(places.iter().cloned());
        }
    }

    /// True if something has to be tried again.
    async fn work_off(&mut self) -> bool {
        let mut failed = BTreeSet::new();
        while let Some(place) = self.work.pop_first() {
            if let Err(failure) = self.settle(&place).await {
                // Gone or changed meanwhile: that change is looked at next.
                if !matches!(failure.code().as_u16(), 404 | 409) {
                    tracing::warn!(path = &*place.1, %failure, "Garbage cannot be collected; it is tried again.");
                    failed.insert(place);
                }
            }
        }
        let any = !failed.is_empty();
        self.work = failed;
        any
    }

    async fn settle(&self, place: &Place) -> Result<(), Failure> {
        let Some(collection) = &self.collections[place.0] else {
            return Ok(());
        };
        let Some(entry) = collection.get(&place.1) else {
            return Ok(());
        };
        if waits(&entry) {
            self.settle_owner(collection, &entry).await?;
        }
        let owners = entry.facts.owners.iter();
        let owners: Vec<(String, OwnerState)> = owners
            .map(|owner| (owner.uid.clone(), self.state_of(&entry, owner)))
            .collect();
        match decide(&owners) {
            Next::Keep => Ok(()),
            Next::Delete { .. } if entry.facts.is_deleting => Ok(()),
            Next::Delete { policy } => {
                self.caller
                    .delete(
                        collection.resource,
                        &entry.path,
                        Some(&*entry.facts.uid),
                        Some(policy),
                    )
                    .await
            }
            Next::Release { gone } => self.release(collection, &entry.path, &gone).await,
        }
    }

    /// An owner that is deleted in the foreground or leaves orphans.
    async fn settle_owner(&self, collection: &Collection, entry: &Entry) -> Result<(), Failure> {
        let places = self.dependents.get(&entry.facts.uid).cloned().unwrap_or_default();
        let is_orphaning = has_finalizer(entry, ORPHAN);
        let mut blocked = false;
        for (index, path) in &places {
            let Some(collection) = &self.collections[*index] else {
                continue;
            };
            let Some(dependent) = collection.get(path) else {
                continue;
            };
            let own = |owner: &&Owner| *owner.uid == *entry.facts.uid;
            let Some(reference) = dependent.facts.owners.iter().find(own) else {
                continue;
            };
            if is_orphaning {
                let gone = [entry.facts.uid.to_string()];
                self.release(collection, path, &gone).await?;
            } else {
                blocked |= reference.block_owner_deletion;
                let policy = Some("Foreground");
                if !dependent.facts.is_deleting && self.is_last_owner(&dependent) {
                    self.caller
                        .delete(collection.resource, path, Some(&*dependent.facts.uid), policy)
                        .await?;
                }
            }
        }
        if blocked {
            return Ok(());
        }
        let done = if is_orphaning { ORPHAN } else { FOREGROUND };
        self.caller
            .change(collection.resource, &entry.path, |value| {
                let metadata = tree::map_mut(value, &["metadata"]);
                metadata.remove("resourceVersion");
                if let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
                    list.retain(|one| *one != json!(done));
                }
            })
            .await
    }

    fn is_last_owner(&self, dependent: &Entry) -> bool {
        let states = dependent
            .facts
            .owners
            .iter()
            .map(|owner| self.state_of(dependent, owner));
        states.into_iter().all(|state| state != OwnerState::Present)
    }

    async fn release(&self, collection: &Collection, path: &str, gone: &[String]) -> Result<(), Failure> {
        self.caller
            .change(collection.resource, path, |value| {
                let metadata = tree::map_mut(value, &["metadata"]);
                metadata.remove("resourceVersion");
                if let Some(list) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
                    list.retain(|one| !gone.iter().any(|uid| one["uid"] == **uid));
                    if list.is_empty() {
                        metadata.remove("ownerReferences");
                    }
                }
            })
            .await
    }

    fn state_of(&self, dependent: &Entry, owner: &Owner) -> OwnerState {
        let Some((index, path)) = self.place_of(dependent.namespace(), owner) else {
            // Of a kind that is not served here: nobody can say that it is gone.
            return OwnerState::Present;
        };
        let collection = self.collections[index].as_ref();
        match collection
            .and_then(|collection| collection.get(&path))
            .filter(|entry| *entry.facts.uid == *owner.uid)
        {
            None => OwnerState::Gone,
            Some(entry) if has_finalizer(&entry, FOREGROUND) && entry.facts.is_deleting => {
                OwnerState::Waiting
            }
            Some(_) => OwnerState::Present,
        }
    }

    /// Where an owner must be: in the dependent's namespace, or nowhere.
    fn place_of(&self, namespace: &str, owner: &Owner) -> Option<Place> {
        let (group, version) = owner
            .api_version
            .split_once('/')
            .unwrap_or(("", &owner.api_version));
        let api = &self.caller.api;
        let facts = match api.registry.resource_by_kind(group, version, &owner.kind) {
            Some(facts) => facts,
            None => api.customs.served().by_kind(group, version, &owner.kind)?.facts,
        };
        let found = api.caches.collection(facts)?;
        let index = self.index_of(&found)?;
        let path = if facts.namespaced {
            format!("{namespace}/{}", owner.name)
        } else {
            owner.name.clone()
        };
        Some((index, path.into()))
    }
}

fn has_finalizer(entry: &Entry, finalizer: &str) -> bool {
    entry.facts.finalizers.iter().any(|one| **one == *finalizer)
}

/// Whether a deleted object waits for its dependents.
fn waits(entry: &Entry) -> bool {
    entry.facts.is_deleting && (has_finalizer(entry, FOREGROUND) || has_finalizer(entry, ORPHAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        use OwnerState::*;
        let cases: [(&str, &[OwnerState], Next); 7] = [
            ("no owner", &[], Next::Keep),
            ("owner there", &[Present], Next::Keep),
            ("owner gone", &[Gone], Next::Delete { policy: "Background" }),
            ("owner waits", &[Waiting], Next::Delete { policy: "Foreground" }),
            (
                "one gone, one waits",
                &[Gone, Waiting],
                Next::Delete { policy: "Foreground" },
            ),
            (
                "one gone, one there",
                &[Gone, Present],
                Next::Release {
                    gone: vec!["0".into()],
                },
            ),
            (
                "one there, one waits",
                &[Present, Waiting],
                Next::Release {
                    gone: vec!["1".into()],
                },
            ),
        ];
        for (case, states, expected) in cases {
            let owners: Vec<(String, OwnerState)> = states
                .iter()
                .enumerate()
                .map(|(index, state)| (index.to_string(), *state))
                .collect();
            assert_eq!(decide(&owners), expected, "{case}");
        }
    }
}
