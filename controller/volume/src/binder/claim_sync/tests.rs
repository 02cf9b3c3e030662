//! The rows of the claim table, each under its number in the behaviour reference.

use serde_json::{Value, json};

use super::*;
use crate::testing::{claim, class, pv};

fn seen(claim: Arc<PersistentVolumeClaim>, pv: Option<Arc<PersistentVolume>>) -> ClaimSeen {
    ClaimSeen {
        claim,
        pv,
        class: None,
        default_class: None,
        unscheduled_pods: Vec::new(),
        unreadable: None,
        is_provisioning_on: true,
    }
}

fn link(uid: &str) -> Value {
    json!({"spec": {"claimRef": {"namespace": "ns", "name": "c", "uid": uid}}})
}

fn linked_and_bound() -> Value {
    let mut value = link("u");
    value["status"] = json!({"phase": "Bound"});
    value
}

/// A claim that was bound to `pv1`.
fn completed(status: Value) -> Arc<PersistentVolumeClaim> {
    claim(json!({
        "metadata": {"annotations": {keys::BIND_COMPLETED: "yes"}}, "spec": {"volumeName": "pv1"}, "status": status,
    }))
}

fn bound_status() -> Value {
    json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}})
}

fn check(cases: Vec<(&str, ClaimSeen, ClaimNext)>) {
    for (name, seen, expected) in cases {
        assert_eq!(decide(&seen), expected, "{name}");
    }
}

#[test]
fn unbound_claim_with_a_match() {
    let with = |other: Value| seen(claim(json!({})), Some(pv(other)));
    check(vec![
        ("U1: first the PV is linked", with(json!({})), Do(Step::LinkPv)),
        (
            "U1: reserved by name, the uid is filled in",
            with(link("")),
            Do(Step::LinkPv),
        ),
        (
            "U1: crash after write 1",
            with(link("u")),
            Do(Step::SetPvPhase(PvPhase::Bound)),
        ),
        (
            "U1: crash after write 2",
            with(linked_and_bound()),
            Do(Step::LinkClaim),
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn unbound_claim_without_a_match() {
    let fast = json!({"spec": {"storageClassName": "fast"}});
    let of_fast = |class: Option<Arc<StorageClass>>| ClaimSeen {
        class,
        ..seen(claim(fast.clone()), None)
    };
    let delayed = || class(json!({"volumeBindingMode": "WaitForFirstConsumer"}));
    let with_default = |other: Value| ClaimSeen {
        default_class: Some("std".to_string()),
        ..seen(claim(other), None)
    };
    let mut selected = fast.clone();
    selected["metadata"] = json!({"annotations": {keys::SELECTED_NODE: "n1"}});
    let mut named = fast.clone();
    named["metadata"] = json!({"annotations": {keys::STORAGE_PROVISIONER: "csi.example.com"}});
    let provisioner = || "csi.example.com".to_string();
    let in_tree = class(json!({"provisioner": "kubernetes.io/no-provisioner"}));
    let stale = claim(json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}));
    check(vec![
        (
            "U2: default class",
            with_default(json!({})),
            Do(Step::AssignClass("std".to_string())),
        ),
        (
            "U2: empty class is kept",
            with_default(json!({"spec": {"storageClassName": ""}})),
            Wait(Why::NoMatchNoClass),
        ),
        (
            "U2: empty beta class is kept",
            with_default(json!({"metadata": {"annotations": {keys::STORAGE_CLASS_BETA: ""}}})),
            Wait(Why::NoMatchNoClass),
        ),
        (
            "U3: nobody wants it",
            of_fast(Some(delayed())),
            Wait(Why::NoConsumer),
        ),
        (
            "U3: a pod waits for its node",
            ClaimSeen {
                unscheduled_pods: vec!["web".to_string()],
                ..of_fast(Some(delayed()))
            },
            Wait(Why::PodsNotScheduled(vec!["web".to_string()])),
        ),
        (
            "U4: immediate",
            of_fast(Some(class(json!({})))),
            Do(Step::NameProvisioner(provisioner())),
        ),
        (
            "U4: delayed, node selected",
            ClaimSeen {
                class: Some(delayed()),
                ..seen(claim(selected), None)
            },
            Do(Step::NameProvisioner(provisioner())),
        ),
        (
            "U4: provisioner named",
            ClaimSeen {
                class: Some(class(json!({}))),
                ..seen(claim(named), None)
            },
            Wait(Why::Provisioning {
                provisioner: provisioner(),
            }),
        ),
        (
            "U4: class missing",
            of_fast(None),
            Wait(Why::ClassMissing {
                class: "fast".to_string(),
            }),
        ),
        (
            "U4: nobody provisions",
            of_fast(Some(in_tree)),
            Wait(Why::ProvisionerUnknown {
                provisioner: "kubernetes.io/no-provisioner".to_string(),
            }),
        ),
        (
            "U4: provisioning is off",
            ClaimSeen {
                is_provisioning_on: false,
                ..of_fast(Some(class(json!({}))))
            },
            Wait(Why::ProvisioningOff),
        ),
        (
            "U5: no class",
            seen(claim(json!({})), None),
            Wait(Why::NoMatchNoClass),
        ),
        ("U5: stale status", seen(stale, None), Do(Step::ResetClaim)),
        (
            "unreadable selector",
            ClaimSeen {
                unreadable: Some("label selector".to_string()),
                ..with_default(json!({}))
            },
            Wait(Why::RequestUnreadable("label selector".to_string())),
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn unbound_claim_that_names_a_pv() {
    let naming = |other: Value| {
        let mut value = json!({"spec": {"volumeName": "pv1"}});
        crate::testing::merge(&mut value, &other);
        claim(value)
    };
    let plain = || naming(json!({}));
    let own = naming(json!({"metadata": {"annotations": {keys::BOUND_BY_CONTROLLER: "yes"}}}));
    let stale = naming(json!({"status": bound_status()}));
    let unfit = |mismatch| Why::PvUnfit {
        pv: "pv1".to_string(),
        mismatch,
    };
    let taken = |is_own_link| Why::PvTaken {
        pv: "pv1".to_string(),
        is_own_link,
    };
    let small = json!({"spec": {"capacity": {"storage": "1Mi"}}});
    let labelled = naming(json!({"spec": {"selector": {"matchLabels": {"k": "v"}}}}));
    let missing = || {
        Wait(Why::PvNotThere {
            pv: "pv1".to_string(),
        })
    };
    let mut linked_small = link("");
    crate::testing::merge(&mut linked_small, &small);
    check(vec![
        ("U6: PV missing", seen(plain(), None), missing()),
        (
            "U6: PV missing, stale status",
            seen(stale, None),
            Do(Step::ResetClaim),
        ),
        (
            "U7: too small",
            seen(plain(), Some(pv(small))),
            Wait(unfit(volume_match::Mismatch::TooSmall)),
        ),
        (
            "U7: other class",
            seen(plain(), Some(pv(json!({"spec": {"storageClassName": "fast"}})))),
            Wait(unfit(volume_match::Mismatch::Class)),
        ),
        (
            "U7: other attributes class",
            seen(
                plain(),
                Some(pv(json!({"spec": {"volumeAttributesClassName": "gold"}}))),
            ),
            Wait(unfit(volume_match::Mismatch::AttributesClass)),
        ),
        (
            "U7: block",
            seen(plain(), Some(pv(json!({"spec": {"volumeMode": "Block"}})))),
            Wait(unfit(volume_match::Mismatch::VolumeMode)),
        ),
        (
            "U8: PV free",
            seen(plain(), Some(pv(json!({})))),
            Do(Step::LinkPv),
        ),
        (
            "U8: selector is ignored",
            seen(labelled, Some(pv(json!({})))),
            Do(Step::LinkPv),
        ),
        (
            "U9: reserved by name",
            seen(plain(), Some(pv(link("")))),
            Do(Step::LinkPv),
        ),
        (
            "U9: reserved by name, size is not asked",
            seen(plain(), Some(pv(linked_small))),
            Do(Step::LinkPv),
        ),
        (
            "U9: crash after write 1",
            seen(plain(), Some(pv(link("u")))),
            Do(Step::SetPvPhase(PvPhase::Bound)),
        ),
        (
            "U9: crash after write 2",
            seen(plain(), Some(pv(linked_and_bound()))),
            Do(Step::LinkClaim),
        ),
        (
            "U10: taken, user's choice",
            seen(plain(), Some(pv(link("other")))),
            Wait(taken(false)),
        ),
        (
            "U11: taken, own choice",
            seen(own, Some(pv(link("other")))),
            Refuse(taken(true)),
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn claim_that_was_bound() {
    let nameless =
        claim(json!({"metadata": {"annotations": {keys::BIND_COMPLETED: "yes"}}, "status": bound_status()}));
    let bound = || completed(bound_status());
    let at_rest = || Some(pv(linked_and_bound()));
    let pending = || completed(json!({}));
    let lost = || completed(json!({"phase": "Lost"}));
    let pv1 = || "pv1".to_string();
    let selector = json!({"spec": {"selector": {"matchLabels": {"k": "v"}}}});
    let mut picky = json!({"metadata": {"annotations": {keys::BIND_COMPLETED: "yes"}}, "spec": {"volumeName": "pv1"}, "status": bound_status()});
    crate::testing::merge(&mut picky, &selector);
    let mut many_modes = linked_and_bound();
    many_modes["spec"]["accessModes"] = json!(["ReadWriteOnce", "ReadOnlyMany"]);
    let mut sizeless = linked_and_bound();
    sizeless["spec"]["capacity"] = Value::Null;
    check(vec![
        (
            "B1: name gone",
            seen(nameless, None),
            Do(Step::LoseClaim(Why::NameLost)),
        ),
        (
            "B2: PV gone",
            seen(bound(), None),
            Do(Step::LoseClaim(Why::PvLost { pv: pv1() })),
        ),
        ("B2: told already", seen(lost(), None), Settled),
        (
            "B3: PV lost its link",
            seen(bound(), Some(pv(json!({})))),
            Do(Step::LinkPv),
        ),
        (
            "B3: lost claim, PV is back",
            seen(lost(), Some(pv(json!({})))),
            Do(Step::LinkPv),
        ),
        ("B4: at rest", seen(bound(), at_rest()), Settled),
        (
            "B4: crash after write 3",
            seen(pending(), at_rest()),
            Do(Step::MarkClaimBound),
        ),
        (
            "B4: lost claim, PV is back with the link",
            seen(lost(), at_rest()),
            Do(Step::MarkClaimBound),
        ),
        (
            "B4: PV's phase is behind",
            seen(bound(), Some(pv(link("u")))),
            Do(Step::SetPvPhase(PvPhase::Bound)),
        ),
        ("B4: selector is ignored", seen(claim(picky), at_rest()), Settled),
        (
            "B4: modes differ",
            seen(bound(), Some(pv(many_modes))),
            Do(Step::MarkClaimBound),
        ),
        (
            "B4: PV without capacity",
            seen(pending(), Some(pv(sizeless.clone()))),
            Refuse(Why::PvWithoutCapacity { pv: pv1() }),
        ),
        (
            "B4: PV without capacity, bound before",
            seen(bound(), Some(pv(sizeless))),
            Settled,
        ),
        (
            "B5: PV of another claim",
            seen(bound(), Some(pv(link("other")))),
            Do(Step::LoseClaim(Why::Misbound { pv: pv1() })),
        ),
        (
            "B5: PV reserved by name only",
            seen(bound(), Some(pv(link("")))),
            Do(Step::LoseClaim(Why::Misbound { pv: pv1() })),
        ),
        ("B5: told already", seen(lost(), Some(pv(link("other")))), Settled),
    ]);
}

/// Name, facts, the answer.
type WhyCase<'a> = (&'a str, ClaimSeen, Option<Why>);

#[test]
fn why_says_the_same_before_and_after_the_status_is_written() {
    let pv1 = || "pv1".to_string();
    let of = |patch: Value, pv: Option<Arc<PersistentVolume>>| seen(claim(patch), pv);
    let new = json!({"status": null});
    let stale = json!({"status": {"phase": "Pending", "capacity": {"storage": "1Gi"}}});
    let lost = || completed(json!({"phase": "Lost"}));
    let bound = || completed(bound_status());
    let missing_class = json!({"spec": {"storageClassName": "fast"}});
    let cases: Vec<WhyCase<'_>> = vec![
        ("Pending", of(json!({}), None), Some(Why::NoMatchNoClass)),
        ("not written yet", of(new, None), Some(Why::NoMatchNoClass)),
        ("to be written anew", of(stale, None), Some(Why::NoMatchNoClass)),
        (
            "class is missing",
            of(missing_class, None),
            Some(Why::ClassMissing {
                class: "fast".to_string(),
            }),
        ),
        ("losing", seen(bound(), None), Some(Why::PvLost { pv: pv1() })),
        ("lost", seen(lost(), None), Some(Why::PvLost { pv: pv1() })),
        (
            "lost to another claim",
            seen(lost(), Some(pv(link("other")))),
            Some(Why::Misbound { pv: pv1() }),
        ),
        ("bound", seen(bound(), Some(pv(linked_and_bound()))), None),
        ("about to be bound", of(json!({}), Some(pv(json!({})))), None),
    ];
    for (name, seen, expected) in cases {
        assert_eq!(why(&seen), expected, "{name}");
    }
}
