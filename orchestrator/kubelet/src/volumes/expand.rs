//! Growing a published volume: whether, with which size, and what the claim is told. Pure but for nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use moorline_model::keys::NODE_EXPANSION_NOT_REQUIRED;
use moorline_model::quantity::Amount;
use serde_json::{Value, json};

const STORAGE: &str = "storage";
/// The resizer did its part.
const PENDING: &str = "NodeResizePending";
/// A kubelet is at it.
const IN_PROGRESS: &str = "NodeResizeInProgress";
const INFEASIBLE: &str = "NodeResizeInfeasible";

/// What to do about the size of a published volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Say that a kubelet is at it, then grow.
    MarkThenExpand {
        size: String,
    },
    Expand {
        size: String,
    },
    /// A volume shared by nodes that is the right size in the API grows on each of them.
    ExpandOnly {
        size: String,
    },
}

fn storage(map: Option<&BTreeMap<String, Quantity>>) -> Option<(String, Amount)> {
    let quantity = map?.get(STORAGE)?;
    Some((quantity.0.clone(), quantity.0.parse().ok()?))
}

/// The allocated-resource status of the claim's storage.
fn resize_status(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim
        .status
        .as_ref()?
        .allocated_resource_statuses
        .as_ref()?
        .get(STORAGE)
        .map(String::as_str)
}

/// Compares PV and claim. `grown_to` is what this kubelet already grew the volume to on this node.
pub(crate) fn decide(pv: &PersistentVolume, claim: &PersistentVolumeClaim, grown_to: Option<u64>) -> Next {
    let Some((pv_size, pv_amount)) = storage(pv.spec.as_ref().and_then(|spec| spec.capacity.as_ref())) else {
        return Next::Nothing;
    };
    let status = claim.status.as_ref();
    let held = storage(status.and_then(|status| status.capacity.as_ref())).map(|(_, amount)| amount);
    let allocated =
        storage(status.and_then(|status| status.allocated_resources.as_ref())).map(|(size, _)| size);
    match resize_status(claim) {
        Some(PENDING) => Next::MarkThenExpand {
            size: allocated.unwrap_or(pv_size),
        },
        Some(IN_PROGRESS) => Next::Expand {
            size: allocated.unwrap_or(pv_size),
        },
        // The controller's turn, or it failed for good: somebody else acts first.
        Some(_) => Next::Nothing,
        None => {
            let is_behind = held.is_some_and(|held| held < pv_amount);
            if is_behind {
                return Next::MarkThenExpand {
                    size: allocated.unwrap_or(pv_size),
                };
            }
            let modes = pv
                .spec
                .as_ref()
                .and_then(|spec| spec.access_modes.clone())
                .unwrap_or_default();
            let is_shared = modes.iter().any(|mode| mode == "ReadWriteMany");
            let annotations = claim.metadata.annotations.as_ref();
            let is_needless = annotations.is_some_and(|held| held.contains_key(NODE_EXPANSION_NOT_REQUIRED));
            let is_new = grown_to.is_some_and(|grown| grown < pv_amount.bytes());
            if is_shared && !is_needless && is_new {
                Next::ExpandOnly { size: pv_size }
            } else {
                Next::Nothing
            }
        }
    }
}

/// Bytes of a size as written in an object.
pub(crate) fn bytes(size: &str) -> u64 {
    size.parse::<Amount>().map_or(0, Amount::bytes)
}

fn with_version(claim: &PersistentVolumeClaim, status: Value) -> Value {
    json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status})
}

/// Status patch: a kubelet is at it.
pub(crate) fn in_progress_patch(claim: &PersistentVolumeClaim) -> Value {
    with_version(
        claim,
        json!({"allocatedResourceStatuses": {STORAGE: IN_PROGRESS}}),
    )
}

/// Status patch: the volume has its size.
pub(crate) fn done_patch(claim: &PersistentVolumeClaim, size: &str) -> Value {
    let conditions: Vec<_> =
        conditions_without(claim, &["Resizing", "FileSystemResizePending", "NodeResizeError"]);
    let statuses = claim
        .status
        .as_ref()
        .and_then(|status| status.allocated_resource_statuses.as_ref());
    let is_only_one = statuses.is_none_or(|statuses| statuses.keys().all(|key| key == STORAGE));
    let statuses = if is_only_one {
        Value::Null
    } else {
        json!({STORAGE: null})
    };
    with_version(
        claim,
        json!({"capacity": {STORAGE: size}, "allocatedResourceStatuses": statuses, "conditions": conditions}),
    )
}

/// Status patch: the driver refused.
pub(crate) fn failed_patch(
    claim: &PersistentVolumeClaim,
    is_infeasible: bool,
    message: &str,
    now: Timestamp,
) -> Value {
    let mut conditions = conditions_without(claim, &["NodeResizeError"]);
    conditions.push(PersistentVolumeClaimCondition {
        type_: "NodeResizeError".into(),
        status: "True".into(),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        ..Default::default()
    });
    let status = if is_infeasible { INFEASIBLE } else { IN_PROGRESS };
    with_version(
        claim,
        json!({"allocatedResourceStatuses": {STORAGE: status}, "conditions": conditions}),
    )
}

fn conditions_without(claim: &PersistentVolumeClaim, kinds: &[&str]) -> Vec<PersistentVolumeClaimCondition> {
    let held = claim
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    held.into_iter()
        .filter(|condition| !kinds.contains(&condition.type_.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pv(size: &str, mode: &str) -> PersistentVolume {
        serde_json::from_value(json!({"spec": {"capacity": {"storage": size}, "accessModes": [mode]}}))
            .unwrap()
    }

    fn claim(
        capacity: &str,
        allocated: Option<&str>,
        status: Option<&str>,
        annotated: bool,
    ) -> PersistentVolumeClaim {
        let allocated = allocated.map(|size| json!({"storage": size}));
        let status = status.map(|status| json!({"storage": status}));
        let annotations = if annotated {
            json!({NODE_EXPANSION_NOT_REQUIRED: "true"})
        } else {
            json!({})
        };
        serde_json::from_value(
            json!({"metadata": {"resourceVersion": "5", "annotations": annotations},
            "status": {"capacity": {"storage": capacity}, "allocatedResources": allocated,
                "allocatedResourceStatuses": status}}),
        )
        .unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn node_part_of_an_expansion() {
        let mark = |size: &str| Next::MarkThenExpand { size: size.into() };
        let (rwo, rwx) = ("ReadWriteOnce", "ReadWriteMany");
        let cases = [
            (
                "sizes agree",
                pv("1Gi", rwo),
                claim("1Gi", None, None, false),
                None,
                Next::Nothing,
            ),
            (
                "same in other words",
                pv("1024Mi", rwo),
                claim("1Gi", None, None, false),
                None,
                Next::Nothing,
            ),
            (
                "pending",
                pv("2Gi", rwo),
                claim("1Gi", Some("2Gi"), Some(PENDING), false),
                None,
                mark("2Gi"),
            ),
            (
                "cut off in the middle",
                pv("2Gi", rwo),
                claim("1Gi", Some("2Gi"), Some(IN_PROGRESS), false),
                None,
                Next::Expand { size: "2Gi".into() },
            ),
            (
                "controller is at it",
                pv("1Gi", rwo),
                claim("1Gi", Some("2Gi"), Some("ControllerResizeInProgress"), false),
                None,
                Next::Nothing,
            ),
            (
                "infeasible",
                pv("2Gi", rwo),
                claim("1Gi", Some("2Gi"), Some(INFEASIBLE), false),
                None,
                Next::Nothing,
            ),
            (
                "grown without a pod",
                pv("2Gi", rwo),
                claim("1Gi", None, None, false),
                None,
                mark("2Gi"),
            ),
            (
                "shared, not grown here",
                pv("2Gi", rwx),
                claim("2Gi", None, None, false),
                Some(bytes("1Gi")),
                Next::ExpandOnly { size: "2Gi".into() },
            ),
            (
                "shared, needless",
                pv("2Gi", rwx),
                claim("2Gi", None, None, true),
                Some(bytes("1Gi")),
                Next::Nothing,
            ),
            (
                "shared, grown here",
                pv("2Gi", rwx),
                claim("2Gi", None, None, false),
                Some(bytes("2Gi")),
                Next::Nothing,
            ),
        ];
        for (name, pv, claim, grown_to, want) in cases {
            assert_eq!(decide(&pv, &claim, grown_to), want, "{name}");
        }
    }

    #[test]
    fn done_clears_what_the_expansion_left() {
        let mut held = claim("1Gi", Some("2Gi"), Some(IN_PROGRESS), false);
        let condition = |kind: &str| PersistentVolumeClaimCondition {
            type_: kind.into(),
            status: "True".into(),
            ..Default::default()
        };
        if let Some(status) = &mut held.status {
            status.conditions = Some(vec![
                condition("FileSystemResizePending"),
                condition("ModifyingVolume"),
            ]);
        }
        let patch = done_patch(&held, "2Gi");
        assert_eq!(patch["metadata"]["resourceVersion"], json!("5"));
        assert_eq!(patch["status"]["capacity"]["storage"], json!("2Gi"));
        assert_eq!(patch["status"]["allocatedResourceStatuses"], Value::Null);
        assert_eq!(patch["status"]["conditions"].as_array().map(Vec::len), Some(1));
    }
}
