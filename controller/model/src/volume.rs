//! What a PV says about itself: class, size, phase, and whom it is linked to.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::access_mode::AccessModes;
use crate::claim::annotation;
use crate::keys;
use crate::quantity::{Amount, ParseAmountError};

/// `status.phase` of a PV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PvPhase {
    /// Not looked at yet.
    Pending,
    /// Free, or kept for a claim by a user.
    Available,
    /// Linked to a living claim.
    Bound,
    /// Its claim is gone; it is being reclaimed or kept.
    Released,
    /// Reclaiming it failed.
    Failed,
}

impl PvPhase {
    /// All of them.
    pub const ALL: [PvPhase; 5] = [
        PvPhase::Pending,
        PvPhase::Available,
        PvPhase::Bound,
        PvPhase::Released,
        PvPhase::Failed,
    ];

    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            PvPhase::Pending => "Pending",
            PvPhase::Available => "Available",
            PvPhase::Bound => "Bound",
            PvPhase::Released => "Released",
            PvPhase::Failed => "Failed",
        }
    }
}

/// The phase; unset and unknown words count as Pending.
pub fn phase(pv: &PersistentVolume) -> PvPhase {
    let word = pv.status.as_ref().and_then(|status| status.phase.as_deref());
    PvPhase::ALL
        .into_iter()
        .find(|phase| Some(phase.as_str()) == word)
        .unwrap_or(PvPhase::Pending)
}

/// What happens to a PV whose claim is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReclaimPolicy {
    /// It is kept.
    Retain,
    /// It is deleted with its data.
    Delete,
    /// Its content is deleted, then it is free again (deprecated).
    Recycle,
}

/// The reclaim policy, `None` for an unknown one. Unset means Retain, as the API server defaults it.
pub fn reclaim_policy(pv: &PersistentVolume) -> Option<ReclaimPolicy> {
    let word = pv
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    match word {
        None | Some("" | "Retain") => Some(ReclaimPolicy::Retain),
        Some("Delete") => Some(ReclaimPolicy::Delete),
        Some("Recycle") => Some(ReclaimPolicy::Recycle),
        Some(_) => None,
    }
}

/// The reference to a claim, if there is one.
pub fn claim_ref(pv: &PersistentVolume) -> Option<&ObjectReference> {
    pv.spec.as_ref()?.claim_ref.as_ref()
}

/// The UID in the claim reference, if not empty.
pub fn claim_uid(pv: &PersistentVolume) -> Option<&str> {
    let uid = claim_ref(pv)?.uid.as_deref()?;
    (!uid.is_empty()).then_some(uid)
}

/// Whether the PV's reference names this claim: namespace and name, and the UID unless the reference has none.
pub fn is_linked_to(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = claim_ref(pv) else {
        return false;
    };
    let is_same_name =
        reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace;
    let is_same_uid = match claim_uid(pv) {
        None => true,
        Some(uid) => claim.metadata.uid.as_deref() == Some(uid),
    };
    is_same_name && is_same_uid
}

/// The class: beta annotation, else field, else empty.
pub fn class_name(pv: &PersistentVolume) -> &str {
    let field = || pv.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&pv.metadata, keys::STORAGE_CLASS_BETA)
        .or_else(field)
        .unwrap_or_default()
}

/// `spec.capacity.storage` as it is written.
pub fn capacity_quantity(pv: &PersistentVolume) -> Option<&Quantity> {
    pv.spec.as_ref()?.capacity.as_ref()?.get("storage")
}

/// `spec.capacity.storage`; nothing if absent.
///
/// # Errors
/// Final: it is no quantity.
pub fn capacity(pv: &PersistentVolume) -> Result<Amount, ParseAmountError> {
    capacity_quantity(pv).map_or(Ok(Amount::ZERO), Amount::try_from)
}

/// The modes the PV can be used in.
pub fn access_modes(pv: &PersistentVolume) -> AccessModes {
    let words = pv.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    AccessModes::parse(words.unwrap_or_default())
}

/// Whether the PV is a raw block device.
pub fn is_block(pv: &PersistentVolume) -> bool {
    let mode = pv.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    mode == Some("Block")
}

/// The VolumeAttributesClass; empty and absent are the same.
pub fn attributes_class_name(pv: &PersistentVolume) -> &str {
    let name = pv
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_attributes_class_name.as_deref());
    name.unwrap_or_default()
}

/// Whether a provisioner made it (as opposed to an admin).
pub fn is_dynamic(pv: &PersistentVolume) -> bool {
    annotation(&pv.metadata, keys::PROVISIONED_BY).is_some()
}

/// Whether the link was made by software, which may undo it.
pub fn is_bound_by_controller(pv: &PersistentVolume) -> bool {
    annotation(&pv.metadata, keys::BOUND_BY_CONTROLLER).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn link_is_by_name_and_by_uid_if_given() {
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "c", "uid": "u1"}}))
                .unwrap();
        let cases = [
            (json!(null), false),
            (json!({"namespace": "ns", "name": "c"}), true),
            (json!({"namespace": "ns", "name": "c", "uid": ""}), true),
            (json!({"namespace": "ns", "name": "c", "uid": "u1"}), true),
            (json!({"namespace": "ns", "name": "c", "uid": "u2"}), false),
            (json!({"namespace": "other", "name": "c", "uid": "u1"}), false),
            (json!({"namespace": "ns", "name": "d"}), false),
        ];
        for (reference, expected) in cases {
            let pv: PersistentVolume =
                serde_json::from_value(json!({"spec": {"claimRef": reference}})).unwrap();
            assert_eq!(is_linked_to(&pv, &claim), expected, "{pv:?}");
        }
    }

    #[test]
    fn unset_and_unknown_words() {
        let pv = |value: Value| -> PersistentVolume { serde_json::from_value(value).unwrap() };
        assert_eq!(phase(&pv(json!({}))), PvPhase::Pending);
        assert_eq!(phase(&pv(json!({"status": {"phase": "Odd"}}))), PvPhase::Pending);
        assert_eq!(
            phase(&pv(json!({"status": {"phase": "Released"}}))),
            PvPhase::Released
        );
        assert_eq!(reclaim_policy(&pv(json!({}))), Some(ReclaimPolicy::Retain));
        assert_eq!(
            reclaim_policy(&pv(json!({"spec": {"persistentVolumeReclaimPolicy": "Burn"}}))),
            None
        );
    }
}
