//! The patches of a claim's status, and of its PV, for each step of an expansion. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use moorline_model::{Amount, claim::annotation, keys};
use serde_json::{Value, json};

use super::target::Stage;

/// All conditions that speak of sizes.
const RESIZE_CONDITIONS: [&str; 4] = [
    "Resizing",
    "FileSystemResizePending",
    "ControllerResizeError",
    "NodeResizeError",
];

/// The intent: `target` is going to be asked for.
pub(crate) fn mark(claim: &PersistentVolumeClaim, target: Amount, now: Timestamp) -> Value {
    let mut patch = json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "allocatedResources": {"storage": target.to_quantity()},
            "allocatedResourceStatuses": {"storage": Stage::CONTROLLER_IN_PROGRESS},
            "conditions": with_condition(claim, &RESIZE_CONDITIONS, "Resizing", "", now),
        },
    });
    if annotation(&claim.metadata, keys::NODE_EXPANSION_NOT_REQUIRED).is_some() {
        patch["metadata"]["annotations"] = json!({keys::NODE_EXPANSION_NOT_REQUIRED: null});
    }
    patch
}

/// A final failure. Without resourceVersion: it shall land even if somebody else has written the claim meanwhile.
pub(crate) fn failed(
    claim: &PersistentVolumeClaim,
    message: &str,
    is_infeasible: bool,
    now: Timestamp,
) -> Value {
    let conditions = with_condition(
        claim,
        &["ControllerResizeError"],
        "ControllerResizeError",
        message,
        now,
    );
    let mut patch = json!({"status": {"conditions": conditions}});
    if is_infeasible {
        patch["status"]["allocatedResourceStatuses"] = json!({"storage": Stage::CONTROLLER_INFEASIBLE});
    }
    patch
}

/// The controller is done, the node has work to do.
pub(crate) fn node_pending(claim: &PersistentVolumeClaim, now: Timestamp) -> Value {
    let message = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
    json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "allocatedResourceStatuses": {"storage": Stage::NODE_PENDING},
            "conditions": with_condition(claim, &RESIZE_CONDITIONS, "FileSystemResizePending", message, now),
        },
    })
}

/// Everything is done.
pub(crate) fn finished(claim: &PersistentVolumeClaim, size: Amount) -> Value {
    let conditions: Vec<_> = others(claim, &RESIZE_CONDITIONS);
    json!({
        "metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": {keys::NODE_EXPANSION_NOT_REQUIRED: "true"},
        },
        "status": {
            "capacity": {"storage": size.to_quantity()},
            "allocatedResourceStatuses": {"storage": null},
            "conditions": conditions,
        },
    })
}

/// The PV's new capacity; with node work to come, it remembers the old one. `None` if nothing changes.
pub(crate) fn pv_capacity(
    pv: &PersistentVolume,
    size: Amount,
    old_capacity: Option<Amount>,
) -> Option<Value> {
    let held = pv
        .spec
        .as_ref()
        .and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    let is_same = held.and_then(|held| Amount::try_from(held).ok()) == Some(size);
    let remembered = old_capacity.filter(|_| annotation(&pv.metadata, keys::PRE_RESIZE_CAPACITY).is_none());
    if is_same && remembered.is_none() {
        return None;
    }
    let mut patch = json!({"spec": {"capacity": {"storage": size.to_quantity()}}});
    if let Some(remembered) = remembered {
        patch["metadata"] = json!({"annotations": {keys::PRE_RESIZE_CAPACITY: remembered.to_quantity()}});
    }
    Some(patch)
}

/// The conditions without those in `replaced`, plus one that is True. Its transition time moves only if it wasn't True.
fn with_condition(
    claim: &PersistentVolumeClaim,
    replaced: &[&str],
    condition_type: &str,
    message: &str,
    now: Timestamp,
) -> Vec<PersistentVolumeClaimCondition> {
    let held = conditions(claim)
        .iter()
        .find(|held| held.type_ == condition_type && held.status == "True");
    let since = held
        .and_then(|held| held.last_transition_time.clone())
        .unwrap_or(Time(now));
    let mut result = others(claim, replaced);
    result.push(PersistentVolumeClaimCondition {
        type_: condition_type.to_string(),
        status: "True".to_string(),
        last_transition_time: Some(since),
        message: (!message.is_empty()).then(|| message.to_string()),
        ..Default::default()
    });
    result
}

fn others(claim: &PersistentVolumeClaim, removed: &[&str]) -> Vec<PersistentVolumeClaimCondition> {
    conditions(claim)
        .iter()
        .filter(|held| !removed.contains(&held.type_.as_str()))
        .cloned()
        .collect()
}

fn conditions(claim: &PersistentVolumeClaim) -> &[PersistentVolumeClaimCondition] {
    claim
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
