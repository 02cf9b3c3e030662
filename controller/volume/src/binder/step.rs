//! The single writes that binding consists of, as merge patches that hold only for the version they were decided on.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use moorline_model::claim::ClaimPhase;
use moorline_model::volume::PvPhase;
use moorline_model::{keys, volume};
use serde_json::{Value, json};

use super::why::Why;

/// One write to one object. Each can be repeated and each can be the last one before a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// First write of a bind: the PV's claim reference.
    LinkPv,
    /// Phase of the PV; second write of a bind.
    SetPvPhase(PvPhase),
    /// The PV can't be reclaimed; users are told.
    FailPv(Why),
    /// Takes back the PV's link, or only the UID in it if a user made the link.
    UnlinkPv,
    /// Third write of a bind: the claim's volume name and the mark that it was bound.
    LinkClaim,
    /// Fourth write of a bind: phase, capacity and access modes of the claim.
    MarkClaimBound,
    /// The claim isn't bound: phase Pending, nothing else in the status.
    ResetClaim,
    /// The claim has lost its PV; users are told.
    LoseClaim(Why),
    /// Gives a claim without class the default one.
    AssignClass(String),
    /// Names the provisioner that shall act.
    NameProvisioner(String),
}

/// Which object a [`Step`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The PV itself.
    Pv,
    /// The PV's status.
    PvStatus,
    /// The claim itself.
    Claim,
    /// The claim's status.
    ClaimStatus,
}

impl Step {
    /// Which object is written.
    pub fn target(&self) -> Target {
        match self {
            Step::LinkPv | Step::UnlinkPv => Target::Pv,
            Step::SetPvPhase(_) | Step::FailPv(_) => Target::PvStatus,
            Step::LinkClaim | Step::AssignClass(_) | Step::NameProvisioner(_) => Target::Claim,
            Step::MarkClaimBound | Step::ResetClaim | Step::LoseClaim(_) => Target::ClaimStatus,
        }
    }

    /// The merge patch for the PV. `claim` is the one to link to.
    pub(super) fn pv_patch(&self, pv: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Value {
        let change = match self {
            Step::LinkPv => {
                let claim = claim.expect("a link has two ends");
                link_pv(pv, claim)
            }
            Step::UnlinkPv if volume::is_bound_by_controller(pv) => {
                let annotations = without_annotation(pv, keys::BOUND_BY_CONTROLLER);
                json!({"metadata": {"annotations": annotations}, "spec": {"claimRef": null}})
            }
            // A user's reservation stands; only the claim that had it is forgotten.
            Step::UnlinkPv => json!({"spec": {"claimRef": {"uid": null}}}),
            Step::SetPvPhase(phase) => {
                json!({"status": {"phase": phase.as_str(), "message": null, "reason": null}})
            }
            Step::FailPv(why) => {
                json!({"status": {"phase": PvPhase::Failed.as_str(), "message": why.message()}})
            }
            Step::LinkClaim
            | Step::MarkClaimBound
            | Step::ResetClaim
            | Step::LoseClaim(_)
            | Step::AssignClass(_)
            | Step::NameProvisioner(_) => json!({}),
        };
        guarded(change, pv)
    }

    /// The merge patch for the claim. `pv` is the one it is bound to.
    pub(super) fn claim_patch(&self, claim: &PersistentVolumeClaim, pv: Option<&PersistentVolume>) -> Value {
        let change = match self {
            Step::LinkClaim => link_claim(claim, pv.expect("a link has two ends")),
            Step::MarkClaimBound => mark_bound(claim, pv.expect("a bound claim has a PV")),
            Step::ResetClaim => unbound_status(ClaimPhase::Pending),
            Step::LoseClaim(_) => unbound_status(ClaimPhase::Lost),
            Step::AssignClass(class) => json!({"spec": {"storageClassName": class}}),
            Step::NameProvisioner(provisioner) => {
                let annotations = json!({
                    keys::STORAGE_PROVISIONER: provisioner,
                    keys::STORAGE_PROVISIONER_BETA: provisioner,
                });
                json!({"metadata": {"annotations": annotations}})
            }
            Step::LinkPv | Step::SetPvPhase(_) | Step::FailPv(_) | Step::UnlinkPv => json!({}),
        };
        guarded(change, claim)
    }
}

/// Makes the patch fail on any other version of the object than the one the decision rests on.
fn guarded<K: ResourceExt>(mut change: Value, object: &K) -> Value {
    change["metadata"]["resourceVersion"] = json!(object.resource_version());
    change
}

fn link_pv(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> Value {
    let reference = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": claim.metadata.namespace,
        "name": claim.metadata.name,
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
    });
    let mut change = json!({"spec": {"claimRef": reference}});
    if !volume::is_linked_to(pv, claim) {
        change["metadata"]["annotations"] = json!({keys::BOUND_BY_CONTROLLER: keys::YES});
    }
    change
}

fn link_claim(claim: &PersistentVolumeClaim, pv: &PersistentVolume) -> Value {
    let name = pv.name_any();
    let mut annotations = json!({keys::BIND_COMPLETED: keys::YES});
    if moorline_model::claim::volume_name(claim) == Some(name.as_str()) {
        return json!({"metadata": {"annotations": annotations}});
    }
    annotations[keys::BOUND_BY_CONTROLLER] = json!(keys::YES);
    json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": name}})
}

fn mark_bound(claim: &PersistentVolumeClaim, pv: &PersistentVolume) -> Value {
    let spec = pv.spec.as_ref();
    let mut status = json!({"accessModes": spec.and_then(|spec| spec.access_modes.clone())});
    let phase = moorline_model::claim::phase(claim);
    if phase != Some(ClaimPhase::Bound) {
        status["phase"] = json!(ClaimPhase::Bound.as_str());
        // A filesystem that has yet to grow to the PV's size counts with the size it has.
        let pre_resize = moorline_model::claim::annotation(&pv.metadata, keys::PRE_RESIZE_CAPACITY);
        let capacity = volume::capacity_quantity(pv).map(|quantity| quantity.0.as_str());
        status["capacity"] = json!({"storage": pre_resize.or(capacity)});
    }
    // Unset counts as Pending: the API server sets it on creation.
    if matches!(phase, None | Some(ClaimPhase::Pending)) {
        let class = spec.and_then(|spec| spec.volume_attributes_class_name.clone());
        status["currentVolumeAttributesClassName"] = json!(class);
    }
    json!({"status": status})
}

fn unbound_status(phase: ClaimPhase) -> Value {
    json!({"status": {
        "phase": phase.as_str(),
        "accessModes": null,
        "capacity": null,
        "currentVolumeAttributesClassName": null,
    }})
}

/// The annotations as a merge patch that removes one, and the whole map with the last one.
fn without_annotation(pv: &PersistentVolume, key: &str) -> Value {
    if pv.annotations().len() <= 1 {
        Value::Null
    } else {
        json!({key: null})
    }
}

#[cfg(test)]
mod tests;
