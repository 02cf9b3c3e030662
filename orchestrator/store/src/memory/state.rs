//! The in-memory engine's data: every kept version of every key, the event log, and the leases.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::range::check_readable;
use crate::transition::{self, Current};
use crate::{Event, EventKind, KeyValue, LeaseId, Range, RangeResult, Revision, StoreError};

/// All of a store's state. No locks, no watchers, no clock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) closed: bool,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// Each key's versions, oldest first.
    versions: BTreeMap<Bytes, Vec<Version>>,
    log: BTreeMap<Revision, Vec<Event>>,
    leases: BTreeMap<LeaseId, Lease>,
    leases_made: u64,
}

#[derive(Debug)]
struct Version {
    kind: EventKind,
    kv: KeyValue,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

impl Current for State {
    fn current(&self, key: &Bytes) -> Result<Option<KeyValue>, StoreError> {
        Ok(self
            .versions
            .get(key)
            .and_then(|versions| newest(versions, self.revision))
            .cloned())
    }

    fn has_lease(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(self.leases.contains_key(&lease))
    }
}

impl State {
    /// Takes over the events of one transaction; none leaves everything as it is.
    pub(super) fn record(&mut self, events: &[Event]) {
        let Some(first) = events.first() else { return };
        self.revision = first.kv.mod_revision;
        self.log.insert(self.revision, events.to_vec());
        for event in events {
            self.attach(event);
            let version = Version {
                kind: event.kind,
                kv: event.kv.clone(),
            };
            self.versions
                .entry(event.kv.key.clone())
                .or_default()
                .push(version);
        }
    }

    fn attach(&mut self, event: &Event) {
        let old = event.previous.as_ref().and_then(|previous| previous.lease);
        if let Some(lease) = old.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(&event.kv.key);
        }
        if let Some(lease) = event.kv.lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.insert(event.kv.key.clone());
        }
    }

    pub(super) fn get(&self, key: &Bytes, at: Option<Revision>) -> Result<Option<KeyValue>, StoreError> {
        let at = check_readable(at, self.compacted, self.revision)?;
        Ok(self
            .versions
            .get(key)
            .and_then(|versions| newest(versions, at))
            .cloned())
    }

    pub(super) fn range(&self, range: &Range) -> Result<RangeResult, StoreError> {
        let at = check_readable(range.at, self.compacted, self.revision)?;
        let mut result = RangeResult {
            revision: self.revision,
            ..RangeResult::default()
        };
        let limit = range.limit.unwrap_or(usize::MAX);
        if !range.end.is_empty() && range.start >= range.end {
            return Ok(result);
        }
        let end = if range.end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(range.end.clone())
        };
        for versions in self
            .versions
            .range((Bound::Included(range.start.clone()), end))
            .map(|(_, v)| v)
        {
            let Some(kv) = newest(versions, at) else { continue };
            result.count += 1;
            if result.kvs.len() < limit {
                let mut kv = kv.clone();
                if range.keys_only {
                    kv.value = Bytes::new();
                }
                result.kvs.push(kv);
            }
        }
        result.more = result.kvs.len() as u64 != result.count;
        Ok(result)
    }

    pub(super) fn events_after(&self, prefix: &Bytes, after: Revision) -> Result<Vec<Event>, StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted {
                compacted: self.compacted,
            });
        }
        let later = self.log.range((Bound::Excluded(after), Bound::Unbounded));
        let events = later.flat_map(|(_, events)| events);
        Ok(events
            .filter(|event| event.kv.key.starts_with(prefix))
            .cloned()
            .collect())
    }

    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::FutureRevision {
                requested: revision,
                current: self.revision,
            });
        }
        if revision <= self.compacted {
            return Ok(());
        }
        self.compacted = revision;
        self.log = self.log.split_off(&revision.next());
        self.versions.retain(|_, versions| {
            let old = versions.partition_point(|version| version.kv.mod_revision <= revision);
            let lives = old > 0 && versions[old - 1].kind == EventKind::Put;
            versions.drain(..old - usize::from(lives));
            !versions.is_empty()
        });
        Ok(())
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.leases_made += 1;
        let lease = LeaseId(self.leases_made);
        self.leases.insert(
            lease,
            Lease {
                ttl,
                deadline: now + ttl,
                keys: BTreeSet::new(),
            },
        );
        lease
    }

    pub(super) fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        let found = self
            .leases
            .get_mut(&lease)
            .ok_or(StoreError::LeaseNotFound { lease })?;
        found.deadline = now + found.ttl;
        Ok(())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.deadline).min()
    }

    pub(super) fn due(&self, now: Instant) -> Vec<LeaseId> {
        let due = self.leases.iter().filter(|(_, lease)| lease.deadline <= now);
        due.map(|(id, _)| *id).collect()
    }

    /// Removes a lease and its keys, each key with a revision of its own.
    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Vec<Event> {
        let keys = self
            .leases
            .remove(&lease)
            .map(|lease| lease.keys)
            .unwrap_or_default();
        let mut events = Vec::with_capacity(keys.len());
        for key in keys {
            let before = self
                .versions
                .get(&key)
                .and_then(|versions| newest(versions, self.revision));
            let before = before.cloned().expect("a lease holds only keys that exist");
            let event = transition::deletion(before, self.revision.next());
            self.record(std::slice::from_ref(&event));
            events.push(event);
        }
        events
    }
}

/// The version that was current at a revision; none if the key did not exist then.
fn newest(versions: &[Version], at: Revision) -> Option<&KeyValue> {
    let upto = versions.partition_point(|version| version.kv.mod_revision <= at);
    let version = versions[..upto].last()?;
    (version.kind == EventKind::Put).then_some(&version.kv)
}
