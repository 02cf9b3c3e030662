//! What each write contains.

use super::*;
use crate::testing::{claim, pv};

fn reference() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "namespace": "ns", "name": "c", "uid": "u", "resourceVersion": "7",
    })
}

#[test]
fn link_of_a_free_pv_is_marked_as_ours() {
    let patch = Step::LinkPv.pv_patch(&pv(json!({})), Some(&claim(json!({}))));
    let expected = json!({
        "metadata": {"resourceVersion": "9", "annotations": {keys::BOUND_BY_CONTROLLER: "yes"}},
        "spec": {"claimRef": reference()},
    });
    assert_eq!(patch, expected);
}

#[test]
fn link_of_a_reserved_pv_stays_the_users() {
    let reserved = pv(json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"}}}));
    let patch = Step::LinkPv.pv_patch(&reserved, Some(&claim(json!({}))));
    assert_eq!(
        patch,
        json!({"metadata": {"resourceVersion": "9"}, "spec": {"claimRef": reference()}})
    );
}

#[test]
fn phases_of_a_pv() {
    let patch = Step::SetPvPhase(PvPhase::Released).pv_patch(&pv(json!({})), None);
    let expected = json!({
        "metadata": {"resourceVersion": "9"}, "status": {"phase": "Released", "message": null, "reason": null},
    });
    assert_eq!(patch, expected);
    let patch = Step::FailPv(Why::NoRecycler).pv_patch(&pv(json!({})), None);
    assert_eq!(patch["status"]["phase"], "Failed");
    assert_eq!(patch["status"]["message"], json!(Why::NoRecycler.message()));
}

#[test]
fn unlinking_takes_back_what_we_made_and_only_that() {
    let linked = |annotations: Value| {
        let reference = json!({"namespace": "ns", "name": "c", "uid": "u"});
        pv(json!({"metadata": {"annotations": annotations}, "spec": {"claimRef": reference}}))
    };
    let cases = [
        (
            linked(json!({keys::BOUND_BY_CONTROLLER: "yes"})),
            json!({"metadata": {"resourceVersion": "9", "annotations": null}, "spec": {"claimRef": null}}),
        ),
        (
            linked(json!({keys::BOUND_BY_CONTROLLER: "yes", "other": "x"})),
            json!({
                "metadata": {"resourceVersion": "9", "annotations": {keys::BOUND_BY_CONTROLLER: null}},
                "spec": {"claimRef": null},
            }),
        ),
        (
            linked(json!({"other": "x"})),
            json!({"metadata": {"resourceVersion": "9"}, "spec": {"claimRef": {"uid": null}}}),
        ),
    ];
    for (pv, expected) in cases {
        assert_eq!(Step::UnlinkPv.pv_patch(&pv, None), expected);
    }
}

#[test]
fn claim_is_marked_as_ours_only_if_we_chose_the_pv() {
    let chosen = Step::LinkClaim.claim_patch(&claim(json!({})), Some(&pv(json!({}))));
    let expected = json!({
        "metadata": {
            "resourceVersion": "7",
            "annotations": {keys::BIND_COMPLETED: "yes", keys::BOUND_BY_CONTROLLER: "yes"},
        },
        "spec": {"volumeName": "pv1"},
    });
    assert_eq!(chosen, expected);
    let named = claim(json!({"spec": {"volumeName": "pv1"}}));
    let named = Step::LinkClaim.claim_patch(&named, Some(&pv(json!({}))));
    let expected =
        json!({"metadata": {"resourceVersion": "7", "annotations": {keys::BIND_COMPLETED: "yes"}}});
    assert_eq!(named, expected);
}

#[test]
fn status_of_a_bound_claim() {
    let gold = json!({"spec": {"volumeAttributesClassName": "gold"}});
    let shrunk = json!({"metadata": {"annotations": {keys::PRE_RESIZE_CAPACITY: "8Gi"}}});
    let status = |claim_status: Value, other: Value| {
        let claim = claim(json!({"status": claim_status}));
        Step::MarkClaimBound.claim_patch(&claim, Some(&pv(other)))["status"].clone()
    };
    let modes = json!(["ReadWriteOnce"]);
    let cases = [
        (
            "becoming Bound",
            status(json!({"phase": "Pending"}), gold.clone()),
            json!({
                "phase": "Bound", "accessModes": modes, "capacity": {"storage": "10Gi"},
                "currentVolumeAttributesClassName": "gold",
            }),
        ),
        (
            "not grown yet",
            status(json!({"phase": "Pending"}), shrunk),
            json!({
                "phase": "Bound", "accessModes": modes, "capacity": {"storage": "8Gi"},
                "currentVolumeAttributesClassName": null,
            }),
        ),
        (
            "coming back from Lost",
            status(json!({"phase": "Lost"}), gold.clone()),
            json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": "10Gi"}}),
        ),
        (
            "size and class belong to the resizer later",
            status(json!({"phase": "Bound"}), gold),
            json!({"accessModes": modes}),
        ),
    ];
    for (name, found, expected) in cases {
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn status_of_an_unbound_claim_is_bare() {
    for (step, phase) in [
        (Step::ResetClaim, "Pending"),
        (Step::LoseClaim(Why::NameLost), "Lost"),
    ] {
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "status": {
                "phase": phase, "accessModes": null, "capacity": null, "currentVolumeAttributesClassName": null,
            },
        });
        assert_eq!(step.claim_patch(&claim(json!({})), None), expected);
    }
}

#[test]
fn both_keys_name_the_provisioner() {
    let patch = Step::NameProvisioner("p".to_string()).claim_patch(&claim(json!({})), None);
    let annotations = json!({keys::STORAGE_PROVISIONER: "p", keys::STORAGE_PROVISIONER_BETA: "p"});
    assert_eq!(
        patch,
        json!({"metadata": {"resourceVersion": "7", "annotations": annotations}})
    );
    let patch = Step::AssignClass("fast".to_string()).claim_patch(&claim(json!({})), None);
    assert_eq!(
        patch,
        json!({"metadata": {"resourceVersion": "7"}, "spec": {"storageClassName": "fast"}})
    );
}
