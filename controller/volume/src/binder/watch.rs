//! Which claims and PVs a change makes worth a look.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use moorline_model::claim::ClaimPhase;
use moorline_model::volume::PvPhase;
use moorline_model::{ClaimRequest, claim, pod, volume, volume_match};
use moorline_runtime::{Cache, Change, Index};

use super::shell::Binder;
use crate::key::ObjectKey;

/// Pods by the claims they use, as `namespace/name`.
pub(crate) fn pods_by_claim(pods: &Cache<Pod>) -> Index<String, Pod> {
    Index::new(pods, |pod| {
        let namespace = pod.namespace().unwrap_or_default();
        pod::claim_volumes(pod)
            .into_iter()
            .map(|volume| format!("{namespace}/{}", volume.claim_name))
            .collect()
    })
}

/// Claims by the PV they name.
pub(super) fn claims_by_pv(claims: &Cache<PersistentVolumeClaim>) -> Index<String, PersistentVolumeClaim> {
    Index::new(claims, |claim| {
        claim::volume_name(claim)
            .map(str::to_string)
            .into_iter()
            .collect()
    })
}

/// Has everything that exists looked at, then everything that changes.
pub(super) fn start(binder: &Arc<Binder>) {
    let pvs = binder.pvs.clone();
    let claims = binder.claims.clone();
    let classes = binder.classes.clone();
    // The caches outlive this controller: they must not keep it alive.
    // PVs first: claims are matched against them.
    let on_pv = Arc::downgrade(binder);
    pvs.on_change(move |change| {
        if let Some(binder) = on_pv.upgrade() {
            binder.pv_changed(change);
        }
    });
    let on_claim = Arc::downgrade(binder);
    claims.on_change(move |change| {
        if let Some(binder) = on_claim.upgrade() {
            binder.claim_changed(change);
        }
    });
    let on_class = Arc::downgrade(binder);
    classes.on_change(move |change| {
        if let Some(binder) = on_class.upgrade() {
            binder.class_changed(change);
        }
    });
}

impl Binder {
    fn pv_changed(&self, change: &Change<PersistentVolume>) {
        let pv = change.object();
        let name = pv.name_any();
        match change {
            Change::Added(pv) | Change::Updated { new: pv, .. } => {
                self.matching.upsert(pv.clone());
                self.pv_queue.add(name.clone());
                self.offer(pv);
            }
            Change::Removed(pv) => {
                self.matching.remove(&name);
                self.told.forget(pv.metadata.uid.as_deref().unwrap_or_default());
                self.wake_claim_of(pv);
            }
        }
        // Usually the one claim that is bound to it and has nothing to do.
        let naming = self.claims_by_pv.get(&name);
        let is_gone = matches!(change, Change::Removed(_));
        for claim in naming.iter().filter(|claim| is_gone || !is_at_rest(claim, pv)) {
            self.claim_queue.add(ObjectKey::of(&**claim));
        }
    }

    /// Wakes a waiting claim that a free PV suits.
    fn offer(&self, pv: &PersistentVolume) {
        let is_free = volume::claim_ref(pv).is_none()
            && volume::phase(pv) == PvPhase::Available
            && pv.metadata.deletion_timestamp.is_none();
        if !is_free {
            return;
        }
        let suits = |key: &ObjectKey| {
            let claim = self.claims.get(Some(&key.namespace), &key.name);
            claim
                .and_then(|claim| ClaimRequest::try_from(&*claim).ok())
                .is_some_and(|request| {
                    volume_match::check_chosen(pv, &request).is_ok()
                        && request.selector.matches(pv.metadata.labels.as_ref())
                })
        };
        let woken = self.unmatched.lock().take_for(volume::class_name(pv), suits);
        if let Some(claim) = woken {
            self.claim_queue.add(claim);
        }
    }

    fn wake_claim_of(&self, pv: &PersistentVolume) {
        if let Some(reference) = volume::claim_ref(pv) {
            let namespace = reference.namespace.clone().unwrap_or_default();
            self.claim_queue.add(ObjectKey::new(
                namespace,
                reference.name.clone().unwrap_or_default(),
            ));
        }
    }

    fn claim_changed(&self, change: &Change<PersistentVolumeClaim>) {
        let claim = change.object();
        let key = ObjectKey::of(&**claim);
        self.claim_queue.add(key.clone());
        let has_new_pv = match change {
            Change::Added(_) => false,
            Change::Updated { old, new } => claim::volume_name(old) != claim::volume_name(new),
            Change::Removed(claim) => {
                self.told
                    .forget(claim.metadata.uid.as_deref().unwrap_or_default());
                if let Some(pv_name) = claim::volume_name(claim) {
                    self.pv_queue.add(pv_name.to_string());
                }
                true
            }
        };
        if has_new_pv {
            // Those that were reserved for the claim and not chosen, or whose claim is gone.
            for pv_name in self.matching.reserved_for(&key) {
                self.pv_queue.add(pv_name);
            }
        }
    }

    fn class_changed(&self, change: &Change<StorageClass>) {
        let class = change.object();
        let unmatched = self.unmatched.lock();
        let mut waiting = unmatched.of_class(&class.name_any());
        if claim::is_default_class(class) {
            waiting.extend(unmatched.of_class(""));
        }
        drop(unmatched);
        for claim in waiting {
            self.claim_queue.add(claim);
        }
    }
}

/// Whether claim and PV are bound to each other and nothing is left to do for either.
fn is_at_rest(claim: &PersistentVolumeClaim, pv: &PersistentVolume) -> bool {
    claim::is_bind_completed(claim)
        && claim::phase(claim) == Some(ClaimPhase::Bound)
        && volume::claim_uid(pv) == claim.metadata.uid.as_deref()
        && volume::phase(pv) == PvPhase::Bound
}
