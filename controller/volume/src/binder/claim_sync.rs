//! What to do next about one claim.
//!
//! ```text
//!            match or provision                 LinkPv, SetPvPhase, LinkClaim, MarkClaimBound
//!  Pending ---------------------> PV is known ------------------------------------------------> Bound
//!     ^                                                                                          |  ^
//!     | (never: bind-completed stays for ever)              PV gone, or linked to somebody else  v  | PV back
//!                                                                                               Lost
//! ```
//!
//! The four writes go PV first. After a crash between two of them the next look at the claim finds the half that was
//! done and goes on from there; nothing about a bind is remembered.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus};
use k8s_openapi::api::storage::v1::StorageClass;
use moorline_model::claim::ClaimPhase;
use moorline_model::volume::PvPhase;
use moorline_model::{ClaimRequest, claim, keys, mutant, volume, volume_match};

use super::step::Step;
use super::why::Why;

/// Everything a decision about a claim rests on.
#[derive(Clone, Debug)]
pub struct ClaimSeen {
    /// The claim.
    pub claim: Arc<PersistentVolumeClaim>,
    /// The PV that `spec.volumeName` names or, if it names none, the one that matching found.
    pub pv: Option<Arc<PersistentVolume>>,
    /// The StorageClass that the claim names, if it exists.
    pub class: Option<Arc<StorageClass>>,
    /// The name of the default class, if there is one.
    pub default_class: Option<String>,
    /// Names of pods that use the claim and have no node yet.
    pub unscheduled_pods: Vec<String>,
    /// What is wrong with the claim's request, if it can't be read; then matching found nothing.
    pub unreadable: Option<String>,
    /// Whether provisioners may be asked.
    pub is_provisioning_on: bool,
}

/// What to do next about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimNext {
    /// Nothing until something changes.
    Settled,
    /// This write; its result is part of the next `ClaimSeen`.
    Do(Step),
    /// Somebody else has to act first.
    Wait(Why),
    /// It can't go on like this; looked at again later.
    Refuse(Why),
}

use ClaimNext::{Do, Refuse, Settled, Wait};

/// What to do next about one claim. Pure: no client, no clock, no log, same answer for the same input.
pub fn decide(seen: &ClaimSeen) -> ClaimNext {
    let name = claim::volume_name(&seen.claim);
    match (claim::is_bind_completed(&seen.claim), name, &seen.pv) {
        // Never bound, no PV chosen.
        (false, None, Some(found)) => bind(&seen.claim, found),
        (false, None, None) => without_match(seen),
        // Never bound, PV chosen by a user or by an interrupted bind of old.
        (false, Some(name), None) => unbound(&seen.claim, Why::PvNotThere { pv: name.to_string() }),
        (false, Some(name), Some(pv)) => chosen(&seen.claim, name, pv),
        // Bound once.
        (true, None, _) => lost(&seen.claim, Why::NameLost),
        (true, Some(name), None) => lost(&seen.claim, Why::PvLost { pv: name.to_string() }),
        (true, Some(name), Some(pv)) => bound_once(&seen.claim, name, pv),
    }
}

/// Why the claim isn't bound, whatever of its status is already written; `None`: it is, or it is about to be. What
/// [`decide`] would say while it writes, for people who ask later.
pub fn why(seen: &ClaimSeen) -> Option<Why> {
    match decide(seen) {
        Wait(why) | Refuse(why) | Do(Step::LoseClaim(why)) => Some(why),
        Settled if claim::phase(&seen.claim) == Some(ClaimPhase::Lost) => why(&pending(seen)),
        // With the status that this would write.
        Do(Step::ResetClaim) => why(&pending(seen)),
        Settled | Do(_) => None,
    }
}

/// The same with a status that says only that it is Pending.
fn pending(seen: &ClaimSeen) -> ClaimSeen {
    let mut claim = PersistentVolumeClaim::clone(&seen.claim);
    claim.status = Some(PersistentVolumeClaimStatus {
        phase: Some(ClaimPhase::Pending.as_str().to_string()),
        ..Default::default()
    });
    ClaimSeen {
        claim: Arc::new(claim),
        ..seen.clone()
    }
}

/// No PV matches: who could make one?
fn without_match(seen: &ClaimSeen) -> ClaimNext {
    let claim = &seen.claim;
    if let Some(problem) = &seen.unreadable {
        return unbound(claim, Why::RequestUnreadable(problem.clone()));
    }
    let explicit = claim::explicit_class_name(claim);
    let is_delayed = seen.class.as_ref().is_some_and(|class| claim::is_delayed(class));
    match (explicit, &seen.default_class) {
        (None, Some(default)) => Do(Step::AssignClass(default.clone())),
        (None | Some(""), _) => unbound(claim, Why::NoMatchNoClass),
        (Some(_), _) if is_delayed && claim::selected_node(claim).is_none() => {
            let why = if seen.unscheduled_pods.is_empty() {
                Why::NoConsumer
            } else {
                Why::PodsNotScheduled(seen.unscheduled_pods.clone())
            };
            unbound(claim, why)
        }
        (Some(name), _) => provision(seen, name),
    }
}

/// Hands the claim to the provisioner of its class.
fn provision(seen: &ClaimSeen, class_name: &str) -> ClaimNext {
    if !seen.is_provisioning_on {
        return Wait(Why::ProvisioningOff);
    }
    let Some(class) = &seen.class else {
        return Wait(Why::ClassMissing {
            class: class_name.to_string(),
        });
    };
    let provisioner = class.provisioner.clone();
    if provisioner.starts_with(keys::IN_TREE_PREFIX) {
        return Wait(Why::ProvisionerUnknown { provisioner });
    }
    let named = claim::annotation(&seen.claim.metadata, keys::STORAGE_PROVISIONER);
    if named == Some(provisioner.as_str()) {
        Wait(Why::Provisioning { provisioner })
    } else {
        Do(Step::NameProvisioner(provisioner))
    }
}

/// Never bound, and `spec.volumeName` names an existing PV.
fn chosen(claim: &PersistentVolumeClaim, name: &str, pv: &PersistentVolume) -> ClaimNext {
    let pv_name = || name.to_string();
    if volume::is_linked_to(pv, claim) {
        // Both sides agree, so size, class and mode are no longer asked about.
        return bind(claim, pv);
    }
    if volume::claim_ref(pv).is_none() {
        let request = match ClaimRequest::try_from(claim) {
            Ok(request) => request,
            Err(error) => return unbound(claim, Why::RequestUnreadable(describe(&error))),
        };
        return match volume_match::check_chosen(pv, &request) {
            Ok(()) => bind(claim, pv),
            Err(mismatch) => unbound(
                claim,
                Why::PvUnfit {
                    pv: pv_name(),
                    mismatch,
                },
            ),
        };
    }
    let is_own_link = claim::annotation(&claim.metadata, keys::BOUND_BY_CONTROLLER).is_some();
    let why = Why::PvTaken {
        pv: pv_name(),
        is_own_link,
    };
    if is_own_link {
        Refuse(why)
    } else {
        unbound(claim, why)
    }
}

/// Bound once, and `spec.volumeName` names an existing PV.
fn bound_once(claim: &PersistentVolumeClaim, name: &str, pv: &PersistentVolume) -> ClaimNext {
    let is_same_uid = volume::claim_uid(pv).is_some_and(|uid| claim.metadata.uid.as_deref() == Some(uid));
    match (volume::claim_ref(pv), is_same_uid) {
        // The PV's half was undone: bound again without any question.
        (None, _) | (Some(_), true) => bind(claim, pv),
        (Some(_), false) => lost(claim, Why::Misbound { pv: name.to_string() }),
    }
}

/// The first of the four writes that isn't done yet.
fn bind(claim: &PersistentVolumeClaim, pv: &PersistentVolume) -> ClaimNext {
    let is_pv_linked = volume::is_linked_to(pv, claim) && volume::claim_uid(pv).is_some();
    let is_claim_linked =
        claim::is_bind_completed(claim) && claim::volume_name(claim) == pv.metadata.name.as_deref();
    if mutant::is_on("claim-before-pv") && !is_claim_linked {
        return Do(Step::LinkClaim);
    }
    if mutant::is_on("claim-before-pv") && !is_status_bound(claim, pv) {
        return Do(Step::MarkClaimBound);
    }
    if !is_pv_linked {
        return Do(Step::LinkPv);
    }
    if volume::phase(pv) != PvPhase::Bound {
        return Do(Step::SetPvPhase(PvPhase::Bound));
    }
    if !is_claim_linked {
        return Do(Step::LinkClaim);
    }
    if is_status_bound(claim, pv) {
        return Settled;
    }
    let is_becoming_bound = claim::phase(claim) != Some(ClaimPhase::Bound);
    if is_becoming_bound && volume::capacity_quantity(pv).is_none() {
        let pv = pv.metadata.name.clone().unwrap_or_default();
        return Refuse(Why::PvWithoutCapacity { pv });
    }
    Do(Step::MarkClaimBound)
}

fn is_status_bound(claim: &PersistentVolumeClaim, pv: &PersistentVolume) -> bool {
    let modes_of_claim = claim
        .status
        .as_ref()
        .and_then(|status| status.access_modes.as_ref());
    let modes_of_pv = pv.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    claim::phase(claim) == Some(ClaimPhase::Bound) && modes_of_claim == modes_of_pv
}

/// The claim waits without a PV: its status says so, then users are told why.
fn unbound(claim: &PersistentVolumeClaim, why: Why) -> ClaimNext {
    if is_status_bare(claim, ClaimPhase::Pending) {
        Wait(why)
    } else {
        Do(Step::ResetClaim)
    }
}

/// The claim was bound and isn't: users are told once, when its phase changes.
fn lost(claim: &PersistentVolumeClaim, why: Why) -> ClaimNext {
    if is_status_bare(claim, ClaimPhase::Lost) {
        Settled
    } else {
        Do(Step::LoseClaim(why))
    }
}

fn is_status_bare(claim: &PersistentVolumeClaim, phase: ClaimPhase) -> bool {
    claim::phase(claim) == Some(phase)
        && claim.status.as_ref().is_some_and(|status| {
            status.access_modes.as_ref().is_none_or(Vec::is_empty)
                && status
                    .capacity
                    .as_ref()
                    .is_none_or(|capacity| capacity.is_empty())
                && status.current_volume_attributes_class_name.is_none()
        })
}

/// The chain of errors in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
