//! What to do next about one PV.
//!
//! ```text
//!  Pending --> Available <------------------- UnlinkPv (claim bound elsewhere) ------+
//!     |            | claim sync links both                                           |
//!     |            v                                                                 |
//!     +--------> Bound --- claim gone, or bound elsewhere and the PV is spare --> Released --> Failed
//! ```

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use moorline_model::volume::{PvPhase, ReclaimPolicy};
use moorline_model::{claim, keys, mutant, volume};

use super::step::Step;
use super::why::Why;

/// Everything a decision about a PV rests on.
#[derive(Clone, Debug)]
pub struct VolumeSeen {
    /// The PV.
    pub pv: Arc<PersistentVolume>,
    /// The claim whose UID the PV's reference has. `None`: it is certain that there is none (see [`confirm`]), or the
    /// reference has no UID.
    pub claim: Option<Arc<PersistentVolumeClaim>>,
}

/// What a look into the cache says about the claim of a PV.
#[derive(Clone, Debug, PartialEq)]
pub enum Confirmation {
    /// It is this one.
    Present(Arc<PersistentVolumeClaim>),
    /// It is gone for certain.
    Absent,
    /// Only the API server can tell: the cache may be behind.
    AskServer,
}

/// Whether the claim that the PV's reference names by UID exists, judging by the cache.
///
/// Being wrong here would release a volume in use, so a miss is confirmed by the API server; only a PV that has been
/// released before trusts the cache.
pub fn confirm(pv: &PersistentVolume, cached: Option<Arc<PersistentVolumeClaim>>) -> Confirmation {
    let Some(uid) = volume::claim_uid(pv) else {
        return Confirmation::Absent;
    };
    let is_given_up = matches!(volume::phase(pv), PvPhase::Released | PvPhase::Failed);
    match cached {
        Some(claim) if claim.metadata.uid.as_deref() == Some(uid) => Confirmation::Present(claim),
        // Another claim of the same name: an old copy, or the successor of the deleted one.
        Some(_) => Confirmation::AskServer,
        None if is_given_up => Confirmation::Absent,
        None => Confirmation::AskServer,
    }
}

/// What to do next about a PV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeNext {
    /// Nothing until something changes.
    Settled,
    /// This write; its result is part of the next `VolumeSeen`.
    Do(Step),
    /// The claim's turn: look at it.
    AwaitClaim,
    /// Claim and PV can't come together; users are told on both.
    Refuse(Why),
}

use VolumeNext::{AwaitClaim, Do, Refuse, Settled};

/// How a claim that exists stands to the PV that names its UID.
enum Bond {
    /// The claim names no PV yet.
    Open,
    /// The claim names this PV.
    Mutual,
    /// The claim names another PV.
    Elsewhere,
}

/// What to do next about one PV. Pure: no client, no clock, no log, same answer for the same input.
pub fn decide(seen: &VolumeSeen) -> VolumeNext {
    let pv = &*seen.pv;
    if volume::claim_uid(pv).is_none() {
        // Free, or reserved by a user for a claim that hasn't come.
        return settle_phase(pv, PvPhase::Available);
    }
    let Some(claim) = &seen.claim else {
        if mutant::is_on("never-release") {
            return Settled;
        }
        return release(pv);
    };
    let is_spare = volume::is_dynamic(pv) && volume::reclaim_policy(pv) == Some(ReclaimPolicy::Delete);
    match (bond(pv, claim), is_spare) {
        (Bond::Open, _) if volume::is_block(pv) != claim::is_block(claim) => Refuse(Why::VolumeModeDiffers),
        (Bond::Open, _) => AwaitClaim,
        (Bond::Mutual, _) => settle_phase(pv, PvPhase::Bound),
        // Made for the claim, which got another one: nobody will ever want it.
        (Bond::Elsewhere, true) => release(pv),
        (Bond::Elsewhere, false) => Do(Step::UnlinkPv),
    }
}

/// Why the PV is neither free nor in use, whatever of its status is already written. What [`decide`] says or said
/// while it wrote, for people who ask later.
pub fn why(seen: &VolumeSeen) -> Option<Why> {
    match decide(seen) {
        Refuse(why) | Do(Step::FailPv(why)) => Some(why),
        Settled => match (volume::phase(&seen.pv), volume::reclaim_policy(&seen.pv)) {
            (PvPhase::Failed, _) => why(&released(seen)),
            (PvPhase::Released, Some(ReclaimPolicy::Delete)) => Some(Why::Deleting),
            (PvPhase::Released, _) => Some(Why::Retained),
            (PvPhase::Pending | PvPhase::Available | PvPhase::Bound, _) => None,
        },
        AwaitClaim | Do(_) => None,
    }
}

/// The same before its policy was tried.
fn released(seen: &VolumeSeen) -> VolumeSeen {
    let mut pv = PersistentVolume::clone(&seen.pv);
    pv.status.get_or_insert_default().phase = Some(PvPhase::Released.as_str().to_string());
    VolumeSeen {
        pv: Arc::new(pv),
        claim: seen.claim.clone(),
    }
}

fn bond(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> Bond {
    match claim::volume_name(claim) {
        None => Bond::Open,
        Some(name) if Some(name) == pv.metadata.name.as_deref() => Bond::Mutual,
        Some(_) => Bond::Elsewhere,
    }
}

fn settle_phase(pv: &PersistentVolume, phase: PvPhase) -> VolumeNext {
    if volume::phase(pv) == phase {
        Settled
    } else {
        Do(Step::SetPvPhase(phase))
    }
}

/// The claim is gone for good: the PV is Released, then its policy is carried out.
fn release(pv: &PersistentVolume) -> VolumeNext {
    let is_migrated = claim::annotation(&pv.metadata, keys::MIGRATED_TO).is_some();
    let fail = |why| Do(Step::FailPv(why));
    match (volume::phase(pv), volume::reclaim_policy(pv)) {
        (PvPhase::Pending | PvPhase::Available | PvPhase::Bound, _) => {
            Do(Step::SetPvPhase(PvPhase::Released))
        }
        // Told once; an admin has to act.
        (PvPhase::Failed, _) => Settled,
        (PvPhase::Released, _) if is_migrated => Settled,
        (PvPhase::Released, Some(ReclaimPolicy::Retain)) => Settled,
        (PvPhase::Released, Some(ReclaimPolicy::Delete)) if has_external_deleter(pv) => Settled,
        (PvPhase::Released, Some(ReclaimPolicy::Delete)) => fail(Why::NoDeleter),
        (PvPhase::Released, Some(ReclaimPolicy::Recycle)) => fail(Why::NoRecycler),
        (PvPhase::Released, None) => fail(Why::PolicyUnknown),
    }
}

/// Whether a provisioner outside of this process deletes the volume when it sees the phase Released.
fn has_external_deleter(pv: &PersistentVolume) -> bool {
    let provisioner = claim::annotation(&pv.metadata, keys::PROVISIONED_BY);
    let is_external = provisioner.is_some_and(|name| !name.starts_with(keys::IN_TREE_PREFIX));
    is_external || pv.spec.as_ref().is_some_and(|spec| spec.csi.is_some())
}

#[cfg(test)]
mod tests;
