//! What a provisioner remembers between tries. Nothing here is needed after a restart but the plans of calls whose end is
//! unknown, which a restart finds in the ledger.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::claim::Slow;
use super::plan::Plan;
use super::source::SourceKey;

/// Shared by the claim side and the deletion side of one provisioner; survives re-discovery of the driver.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    in_progress: Mutex<HashMap<String, Arc<Plan>>>,
    slow: Mutex<HashMap<String, Slow>>,
    busy: Mutex<HashSet<String>>,
    bids: Mutex<HashMap<String, Bidding>>,
}

/// When this node bids for a claim that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bidding {
    /// Bids that came to nothing.
    pub(crate) tries: u32,
    pub(crate) due: Timestamp,
    /// The user was told that there is no room here.
    pub(crate) is_told: bool,
}

impl Memory {
    /// The plan whose call had an unknown end, by claim UID.
    pub(crate) fn in_progress(&self, uid: &str) -> Option<Arc<Plan>> {
        self.in_progress.lock().get(uid).cloned()
    }

    /// Whether a call whose end is unknown fills a volume from that source.
    pub(crate) fn is_source(&self, source: &SourceKey) -> bool {
        let plans = self.in_progress.lock();
        plans.values().any(|plan| plan.source.as_ref() == Some(source))
    }

    pub(crate) fn keep(&self, uid: &str, plan: Arc<Plan>) {
        self.in_progress.lock().insert(uid.to_string(), plan);
    }

    pub(crate) fn drop_plan(&self, uid: &str) {
        self.in_progress.lock().remove(uid);
    }

    /// The bidding for a claim; the first call for it begins one.
    pub(crate) fn bidding(&self, uid: &str, begin: impl FnOnce() -> Bidding) -> Bidding {
        *self.bids.lock().entry(uid.to_string()).or_insert_with(begin)
    }

    pub(crate) fn set_bidding(&self, uid: &str, bidding: Option<Bidding>) {
        let mut all = self.bids.lock();
        match bidding {
            Some(bidding) => {
                all.insert(uid.to_string(), bidding);
            }
            None => {
                all.remove(uid);
            }
        }
    }

    pub(crate) fn slow(&self, uid: &str) -> Option<Slow> {
        self.slow.lock().get(uid).cloned()
    }

    pub(crate) fn set_slow(&self, uid: &str, slow: Option<Slow>) {
        let mut all = self.slow.lock();
        match slow {
            Some(slow) => {
                all.insert(uid.to_string(), slow);
            }
            None => {
                all.remove(uid);
            }
        }
    }

    /// Takes the right to create or delete the volume of that name; `None` while somebody else has it. Creating and
    /// deleting the same volume at once could leave one without PV.
    pub(crate) fn begin(self: &Arc<Self>, volume_name: &str) -> Option<Busy> {
        let is_free = self.busy.lock().insert(volume_name.to_string());
        is_free.then(|| Busy {
            memory: self.clone(),
            volume_name: volume_name.to_string(),
        })
    }
}

/// The right to work on one volume, until dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    memory: Arc<Memory>,
    volume_name: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.memory.busy.lock().remove(&self.volume_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_per_volume() {
        let memory = Arc::new(Memory::default());
        let first = memory.begin("a");
        assert!(first.is_some());
        assert!(memory.begin("a").is_none());
        assert!(memory.begin("b").is_some());
        drop(first);
        assert!(memory.begin("a").is_some());
    }
}
