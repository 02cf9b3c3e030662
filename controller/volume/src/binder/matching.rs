//! The PVs in matching order, shared by workers that choose at the same time.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use moorline_model::{Candidates, ClaimRequest, volume};
use parking_lot::Mutex;

use crate::key::ObjectKey;

#[derive(Default)]
struct State {
    candidates: Candidates,
    /// Free PVs that a worker has chosen and is about to link, with the claim. Without this, workers that choose at
    /// the same time would all choose the same PV, and all but one would have their write refused.
    taken: HashMap<String, ObjectKey>,
}

/// Finds PVs for claims. Cheap to clone; clones share the PVs.
#[derive(Clone, Default)]
pub(super) struct Matching {
    state: Arc<Mutex<State>>,
}

/// Keeps a chosen PV from being chosen for another claim, until dropped.
pub(super) struct Taken {
    state: Arc<Mutex<State>>,
    pv_name: String,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.state.lock().taken.remove(&self.pv_name);
    }
}

impl Matching {
    pub(super) fn upsert(&self, pv: Arc<PersistentVolume>) {
        self.state.lock().candidates.upsert(pv);
    }

    pub(super) fn remove(&self, name: &str) {
        self.state.lock().candidates.remove(name);
    }

    /// Names of the PVs that name the claim in their reference, whatever the UID.
    pub(super) fn reserved_for(&self, claim: &ObjectKey) -> Vec<String> {
        let state = self.state.lock();
        let reserved = state.candidates.reserved_for(&claim.namespace, &claim.name);
        reserved.map(|pv| pv.name_any()).collect()
    }

    /// The PV for a claim, and the guard that keeps others off it if it is still free.
    pub(super) fn choose(
        &self,
        request: &ClaimRequest,
        is_delayed: bool,
    ) -> Option<(Arc<PersistentVolume>, Option<Taken>)> {
        let claim = ObjectKey::new(request.namespace.clone(), request.name.clone());
        let mut state = self.state.lock();
        let is_taken = |pv: &PersistentVolume| {
            let taker = pv.metadata.name.as_ref().and_then(|name| state.taken.get(name));
            taker.is_some_and(|taker| *taker != claim)
        };
        let found = state
            .candidates
            .find_for_claim(request, is_delayed, is_taken)?
            .clone();
        if volume::claim_ref(&found).is_some() {
            return Some((found, None));
        }
        let pv_name = found.name_any();
        state.taken.insert(pv_name.clone(), claim);
        let taken = Taken {
            state: self.state.clone(),
            pv_name,
        };
        Some((found, Some(taken)))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PersistentVolumeClaim;
    use serde_json::json;

    use super::*;

    fn matching(pvs: &[&str]) -> Matching {
        let matching = Matching::default();
        for name in pvs {
            let pv = json!({
                "metadata": {"name": name},
                "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
                "status": {"phase": "Available"},
            });
            matching.upsert(Arc::new(serde_json::from_value(pv).unwrap()));
        }
        matching
    }

    fn request(name: &str) -> ClaimRequest {
        let claim = json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name},
            "spec": {"accessModes": ["ReadWriteOnce"]},
        });
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        ClaimRequest::try_from(&claim).unwrap()
    }

    #[test]
    fn claims_that_choose_at_the_same_time_get_different_pvs() {
        let matching = matching(&["a", "b"]);
        let first = matching.choose(&request("c1"), false).unwrap();
        let second = matching.choose(&request("c2"), false).unwrap();
        assert_eq!(
            (first.0.name_any().as_str(), second.0.name_any().as_str()),
            ("a", "b")
        );
        assert!(matching.choose(&request("c3"), false).is_none());
        drop(first);
        let third = matching.choose(&request("c3"), false).unwrap();
        assert_eq!(third.0.name_any(), "a");
    }

    #[test]
    fn a_linked_pv_needs_no_guard() {
        let matching = matching(&["a"]);
        let pv = json!({
            "metadata": {"name": "r"},
            "spec": {"accessModes": ["ReadWriteOnce"], "claimRef": {"namespace": "ns", "name": "c1"}},
        });
        matching.upsert(Arc::new(serde_json::from_value(pv).unwrap()));
        let (pv, taken) = matching.choose(&request("c1"), true).unwrap();
        assert_eq!((pv.name_any().as_str(), taken.is_none()), ("r", true));
        assert_eq!(matching.reserved_for(&ObjectKey::new("ns", "c1")), ["r"]);
    }
}
