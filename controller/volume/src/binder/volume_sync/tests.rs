//! The rows of the PV table, each under its number in the behaviour reference.

use serde_json::{Value, json};

use super::*;
use crate::testing::{claim, merge, pv};

fn linked(mut value: Value) -> Arc<PersistentVolume> {
    let link = json!({"spec": {"claimRef": {"namespace": "ns", "name": "c", "uid": "u"}}});
    merge(&mut value, &link);
    pv(value)
}

fn phase(phase: &str) -> Value {
    json!({"status": {"phase": phase}})
}

fn policy(policy: &str, phase: &str) -> Value {
    json!({"spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}})
}

fn naming(pv_name: &str) -> Option<Arc<PersistentVolumeClaim>> {
    Some(claim(json!({"spec": {"volumeName": pv_name}})))
}

/// Name, PV, claim, expected.
type Case<'a> = (
    &'a str,
    Arc<PersistentVolume>,
    Option<Arc<PersistentVolumeClaim>>,
    VolumeNext,
);

fn check(cases: Vec<Case<'_>>) {
    for (name, pv, claim, expected) in cases {
        assert_eq!(decide(&VolumeSeen { pv, claim }), expected, "{name}");
    }
}

#[test]
fn pv_without_a_claims_uid() {
    let reserved = |phase: &str| json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"}}, "status": {"phase": phase}});
    let available = || Do(Step::SetPvPhase(PvPhase::Available));
    check(vec![
        ("V1: new", pv(phase("Pending")), None, available()),
        ("V1: free", pv(phase("Available")), None, Settled),
        ("V1: freed by an admin", pv(phase("Released")), None, available()),
        ("V1: link undone", pv(phase("Bound")), None, available()),
        (
            "V1: failed, freed by an admin",
            pv(phase("Failed")),
            None,
            available(),
        ),
        ("V2: reserved, new", pv(reserved("Pending")), None, available()),
        ("V2: reserved", pv(reserved("Available")), None, Settled),
    ]);
}

#[test]
fn pv_of_a_claim_that_is_gone() {
    let released = || Do(Step::SetPvPhase(PvPhase::Released));
    let fail = |why| Do(Step::FailPv(why));
    let host_path = |phase: &str| {
        let mut value = policy("Delete", phase);
        value["spec"]["csi"] = Value::Null;
        value["spec"]["hostPath"] = json!({"path": "/srv"});
        value
    };
    let by = |provisioner: &str| {
        let mut value = host_path("Released");
        value["metadata"] = json!({"annotations": {keys::PROVISIONED_BY: provisioner}});
        value
    };
    let mut migrated = host_path("Released");
    migrated["metadata"] = json!({"annotations": {keys::MIGRATED_TO: "csi.example.com"}});
    check(vec![
        ("V3: was Bound", linked(phase("Bound")), None, released()),
        ("V3: was Available", linked(phase("Available")), None, released()),
        ("V3: was Pending", linked(phase("Pending")), None, released()),
        (
            "V3: Failed stays",
            linked(policy("Delete", "Failed")),
            None,
            Settled,
        ),
        ("Retain", linked(policy("Retain", "Released")), None, Settled),
        ("Delete, CSI", linked(policy("Delete", "Released")), None, Settled),
        (
            "Delete, external provisioner",
            linked(by("csi.example.com")),
            None,
            Settled,
        ),
        (
            "Delete, in-tree provisioner",
            linked(by("kubernetes.io/host-path")),
            None,
            fail(Why::NoDeleter),
        ),
        (
            "Delete, nobody's",
            linked(host_path("Released")),
            None,
            fail(Why::NoDeleter),
        ),
        ("Delete, migrated", linked(migrated), None, Settled),
        (
            "Recycle",
            linked(policy("Recycle", "Released")),
            None,
            fail(Why::NoRecycler),
        ),
        (
            "unknown policy",
            linked(policy("Shred", "Released")),
            None,
            fail(Why::PolicyUnknown),
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn pv_of_a_living_claim() {
    let block = json!({"spec": {"volumeMode": "Block"}});
    let unbound = || Some(claim(json!({})));
    let dynamic = |reclaim: &str, phase: &str| {
        let mut value = policy(reclaim, phase);
        value["metadata"] = json!({"annotations": {keys::PROVISIONED_BY: "csi.example.com"}});
        linked(value)
    };
    let by_controller = json!({"metadata": {"annotations": {keys::BOUND_BY_CONTROLLER: "yes"}}});
    let elsewhere = || naming("pv2");
    check(vec![
        (
            "V4: volume modes differ",
            linked(block.clone()),
            unbound(),
            Refuse(Why::VolumeModeDiffers),
        ),
        (
            "V4: volume modes agree",
            linked(block.clone()),
            Some(claim(block)),
            AwaitClaim,
        ),
        ("V5: claim's turn", linked(json!({})), unbound(), AwaitClaim),
        (
            "V6: phase follows",
            linked(phase("Pending")),
            naming("pv1"),
            Do(Step::SetPvPhase(PvPhase::Bound)),
        ),
        ("V6: at rest", linked(phase("Bound")), naming("pv1"), Settled),
        (
            "V6: claim has come back",
            linked(phase("Released")),
            naming("pv1"),
            Do(Step::SetPvPhase(PvPhase::Bound)),
        ),
        (
            "V7: spare",
            dynamic("Delete", "Bound"),
            elsewhere(),
            Do(Step::SetPvPhase(PvPhase::Released)),
        ),
        (
            "V7: spare, released",
            dynamic("Delete", "Released"),
            elsewhere(),
            Settled,
        ),
        (
            "V7: spare, failed",
            dynamic("Delete", "Failed"),
            elsewhere(),
            Settled,
        ),
        (
            "V8: dynamic but to be kept",
            dynamic("Retain", "Bound"),
            elsewhere(),
            Do(Step::UnlinkPv),
        ),
        (
            "V8: linked by the controller",
            linked(by_controller),
            elsewhere(),
            Do(Step::UnlinkPv),
        ),
        (
            "V8: linked by a user",
            linked(json!({})),
            elsewhere(),
            Do(Step::UnlinkPv),
        ),
    ]);
}

#[test]
fn certainty_about_the_claim() {
    use Confirmation::*;
    let other_uid = || Some(claim(json!({"metadata": {"uid": "u2"}})));
    let found = claim(json!({}));
    let cases = [
        ("no link", pv(json!({})), None, Absent),
        (
            "seen",
            linked(json!({})),
            Some(found.clone()),
            Present(found.clone()),
        ),
        (
            "seen, released before",
            linked(phase("Released")),
            Some(found.clone()),
            Present(found),
        ),
        ("not seen", linked(phase("Bound")), None, AskServer),
        ("not seen, Available", linked(phase("Available")), None, AskServer),
        (
            "not seen, released before",
            linked(phase("Released")),
            None,
            Absent,
        ),
        ("not seen, failed before", linked(phase("Failed")), None, Absent),
        (
            "another of that name",
            linked(phase("Bound")),
            other_uid(),
            AskServer,
        ),
        (
            "another of that name, released before",
            linked(phase("Released")),
            other_uid(),
            AskServer,
        ),
    ];
    for (name, pv, cached, expected) in cases {
        assert_eq!(confirm(&pv, cached), expected, "{name}");
    }
}

#[test]
fn why_says_the_same_before_and_after_the_status_is_written() {
    let recycle = |phase: &str| linked(policy("Recycle", phase));
    let block = || linked(json!({"spec": {"volumeMode": "Block"}}));
    let cases = [
        ("free", pv(json!({})), None, None),
        ("bound", linked(phase("Bound")), naming("pv1"), None),
        (
            "kept",
            linked(policy("Retain", "Released")),
            None,
            Some(Why::Retained),
        ),
        (
            "going",
            linked(policy("Delete", "Released")),
            None,
            Some(Why::Deleting),
        ),
        (
            "going, failed once",
            linked(policy("Delete", "Failed")),
            None,
            Some(Why::Deleting),
        ),
        ("failing", recycle("Released"), None, Some(Why::NoRecycler)),
        ("failed", recycle("Failed"), None, Some(Why::NoRecycler)),
        (
            "modes differ",
            block(),
            Some(claim(json!({}))),
            Some(Why::VolumeModeDiffers),
        ),
        ("about to be released", linked(phase("Bound")), None, None),
        (
            "the claim's turn",
            linked(json!({})),
            Some(claim(json!({}))),
            None,
        ),
    ];
    for (name, pv, claim, expected) in cases {
        assert_eq!(why(&VolumeSeen { pv, claim }), expected, "{name}");
    }
}
