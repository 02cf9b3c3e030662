//! The patches, written out.

use serde_json::json;

use super::*;
use crate::testing::{at, claim, pv};

fn gib(count: i64) -> Amount {
    Amount::from_bytes(count << 30)
}

#[test]
fn a_transition_time_moves_only_with_a_transition() {
    let held = claim(json!({"status": {"conditions": [
        {"type": "Resizing", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "NodeResizeError", "status": "True"},
        {"type": "ModifyingVolume", "status": "True"},
    ]}}));
    let patch = mark(&held, gib(2), at(0));
    let expected = json!([
        {"type": "ModifyingVolume", "status": "True"},
        {"type": "Resizing", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]);
    assert_eq!(patch["status"]["conditions"], expected);
    assert_eq!(patch["status"]["allocatedResources"], json!({"storage": "2Gi"}));
    assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
}

#[test]
fn the_mark_takes_back_that_nodes_need_not_expand() {
    let held = claim(json!({"metadata": {"annotations": {keys::NODE_EXPANSION_NOT_REQUIRED: "true"}}}));
    let patch = mark(&held, gib(2), at(0));
    assert_eq!(
        patch["metadata"]["annotations"],
        json!({keys::NODE_EXPANSION_NOT_REQUIRED: null})
    );
}

#[test]
fn failures_keep_what_others_wrote() {
    let held = claim(json!({"status": {"conditions": [{"type": "Resizing", "status": "True"}]}}));
    let patch = failed(&held, "no room", false, at(0));
    let conditions = patch["status"]["conditions"].as_array().expect("conditions");
    assert_eq!(
        (conditions.len(), &conditions[1]["message"]),
        (2, &json!("no room"))
    );
    assert_eq!(
        (&patch["metadata"], &patch["status"]["allocatedResourceStatuses"]),
        (&json!(null), &json!(null))
    );
    let patch = failed(&held, "no room", true, at(0));
    assert_eq!(
        patch["status"]["allocatedResourceStatuses"],
        json!({"storage": "ControllerResizeInfeasible"})
    );
}

#[test]
fn finishing_removes_every_mark() {
    let held = claim(json!({"status": {"conditions": [{"type": "Resizing", "status": "True"}]}}));
    let patch = finished(&held, gib(2));
    let expected = json!({
        "capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": null}, "conditions": [],
    });
    assert_eq!(patch["status"], expected);
}

#[test]
fn the_pv_is_written_only_if_something_changes() {
    let held = pv(json!({}));
    assert_eq!(pv_capacity(&held, gib(1), None), None);
    let grown = pv_capacity(&held, gib(2), Some(gib(1))).expect("a patch");
    let expected = json!({
        "metadata": {"annotations": {keys::PRE_RESIZE_CAPACITY: "1Gi"}}, "spec": {"capacity": {"storage": "2Gi"}},
    });
    assert_eq!(grown, expected);
    let remembering = pv(json!({"metadata": {"annotations": {keys::PRE_RESIZE_CAPACITY: "1Gi"}}}));
    assert_eq!(pv_capacity(&remembering, gib(1), Some(gib(1))), None);
}
