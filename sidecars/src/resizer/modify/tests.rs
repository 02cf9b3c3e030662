//! The table of what is done about claims that ask for another class.

use serde_json::{Value, json};

use super::*;
use crate::testing::{DRIVER, at, claim, driver, merged, object, pv};

/// A bound claim with class gold that asks for `wish`.
fn wishing(wish: &str, patch: Value) -> PersistentVolumeClaim {
    let base = json!({
        "spec": {"volumeName": "pvc-u1", "volumeAttributesClassName": wish},
        "status": {"phase": "Bound", "currentVolumeAttributesClassName": "gold"},
    });
    claim(merged(base, patch))
}

fn marked(stage: &str, target: &str) -> Value {
    json!({"status": {
        "modifyVolumeStatus": {"status": stage, "targetVolumeAttributesClassName": target},
        "conditions": [{"type": "ModifyingVolume", "status": "True"}],
    }})
}

/// A class of the driver named `name`.
fn class(name: &str, driver: &str) -> VolumeAttributesClass {
    object(json!({"metadata": {"name": name}, "driverName": driver, "parameters": {"iops": name}}))
}

fn failed(target: &str) -> Marks {
    Marks {
        failed: Some(target.into()),
        ..Marks::default()
    }
}

fn render(next: Next) -> String {
    match next {
        Next::Settled => "settled".into(),
        Next::CallOff => "call off".into(),
        Next::Pend { target } => format!("pend {target}"),
        Next::Begin { target } => format!("begin {target}"),
        Next::Modify(modification) => {
            let parameter = &modification.request.mutable_parameters["iops"];
            assert_eq!(parameter, &modification.target);
            format!("modify {parameter}")
        }
        Next::Reject { target, refusal } => format!("reject {target}: {refusal}"),
        Next::Wait { until } => format!("wait {}", until.duration_since(at(0)).as_secs()),
        Next::Refuse(refusal) => format!("refuse: {refusal}"),
    }
}

/// Classes gold, silver and bronze are there, foreign is another driver's.
fn next_with(
    claim: &PersistentVolumeClaim,
    pv: Option<&PersistentVolume>,
    marks: Marks,
    facts: &DriverFacts,
) -> Next {
    let known = ["gold", "silver", "bronze"].map(|name| class(name, DRIVER));
    let known: Vec<_> = known
        .into_iter()
        .chain([class("foreign", "other.example")])
        .collect();
    let find = |name: Option<&str>| {
        let is_named = |class: &&VolumeAttributesClass| class.metadata.name.as_deref() == name;
        known.iter().find(is_named)
    };
    let seen = Seen {
        claim: Some(claim),
        pv,
        wished: find(wished(claim)),
        recorded: find(recorded(claim)),
        marks,
        driver: facts,
        has_extra_metadata: false,
    };
    decide(&seen, at(0))
}

fn next(claim: &PersistentVolumeClaim, marks: Marks) -> String {
    let facts = driver(&[ControllerCapability::ModifyVolume]);
    render(next_with(claim, Some(&pv(json!({}))), marks, &facts))
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn wishes_and_what_is_done_about_them() {
    let none = Marks::default;
    let resting = || Marks {
        slow_until: Some(at(60)),
        ..failed("silver")
    };
    let rested = || Marks {
        slow_until: Some(at(-1)),
        ..failed("silver")
    };
    let plain = || json!({});
    let never_had = json!({"status": {"currentVolumeAttributesClassName": null}});
    let no_condition = |stage, target| merged(marked(stage, target), json!({"status": {"conditions": null}}));
    let cases = [
        ("has what it asks for", "gold", plain(), none(), "settled"),
        (
            "asks for nothing, has nothing",
            "",
            never_had.clone(),
            none(),
            "settled",
        ),
        ("asks for its first", "silver", never_had, none(), "begin silver"),
        ("asks for another", "silver", plain(), none(), "begin silver"),
        ("asks for none any more", "", plain(), none(), "settled"),
        ("class missing", "tin", plain(), none(), "pend tin"),
        (
            "class missing, told",
            "tin",
            marked("Pending", ""),
            none(),
            "settled",
        ),
        (
            "class missing, after another was infeasible",
            "tin",
            marked("Infeasible", "silver"),
            none(),
            "pend tin",
        ),
        (
            "class has come",
            "silver",
            marked("Pending", ""),
            none(),
            "begin silver",
        ),
        (
            "back to the class that it has, while pending",
            "gold",
            marked("Pending", "tin"),
            none(),
            "begin gold",
        ),
        (
            "marked",
            "silver",
            marked("InProgress", "silver"),
            none(),
            "modify silver",
        ),
        (
            "another wish while it may be under way",
            "bronze",
            marked("InProgress", "silver"),
            none(),
            "modify silver",
        ),
        (
            "a missing class while it may be under way",
            "tin",
            marked("InProgress", "silver"),
            none(),
            "modify silver",
        ),
        (
            "no wish while it may be under way",
            "",
            marked("InProgress", "silver"),
            none(),
            "modify silver",
        ),
        (
            "back while it may be under way",
            "gold",
            marked("InProgress", "silver"),
            none(),
            "modify silver",
        ),
        (
            "failed for good: again",
            "silver",
            marked("InProgress", "silver"),
            failed("silver"),
            "modify silver",
        ),
        (
            "failed for good: another wish is taken up",
            "bronze",
            marked("InProgress", "silver"),
            failed("silver"),
            "begin bronze",
        ),
        (
            "failed for good: rolled back",
            "gold",
            marked("InProgress", "silver"),
            failed("silver"),
            "begin gold",
        ),
        (
            "failed for good: no wish left, the record is finished",
            "",
            marked("InProgress", "silver"),
            failed("silver"),
            "modify silver",
        ),
        (
            "an older target's failure says nothing of this one",
            "bronze",
            marked("InProgress", "silver"),
            failed("gold"),
            "modify silver",
        ),
        (
            "recorded class is gone while it may be under way",
            "silver",
            marked("InProgress", "tin"),
            none(),
            "refuse: volume attributes class \"tin\" does not exist",
        ),
        (
            "infeasible, just now",
            "silver",
            marked("Infeasible", "silver"),
            resting(),
            "wait 60",
        ),
        (
            "infeasible, a while ago",
            "silver",
            marked("Infeasible", "silver"),
            rested(),
            "begin silver",
        ),
        (
            "infeasible before a restart",
            "silver",
            marked("Infeasible", "silver"),
            none(),
            "begin silver",
        ),
        (
            "infeasible: another wish at once",
            "bronze",
            marked("Infeasible", "silver"),
            resting(),
            "begin bronze",
        ),
        (
            "infeasible: rolled back",
            "gold",
            marked("Infeasible", "silver"),
            resting(),
            "begin gold",
        ),
        (
            "infeasible: no wish left",
            "",
            marked("Infeasible", "silver"),
            resting(),
            "call off",
        ),
        (
            "no wish left, told",
            "",
            no_condition("Infeasible", "silver"),
            none(),
            "settled",
        ),
        (
            "no wish left while pending",
            "",
            marked("Pending", "tin"),
            none(),
            "call off",
        ),
        (
            "another driver's class",
            "foreign",
            plain(),
            none(),
            "reject foreign: volume attributes class \"foreign\" is for driver \"other.example\"",
        ),
        (
            "another driver's class, told",
            "foreign",
            marked("Infeasible", "foreign"),
            none(),
            "settled",
        ),
        (
            "a word of the future",
            "silver",
            marked("Dreaming", "silver"),
            none(),
            "begin silver",
        ),
    ];
    for (name, wish, patch, marks, expected) in cases {
        assert_eq!(next(&wishing(wish, patch), marks), expected, "{name}");
    }
}

#[test]
fn whose_claims_are_touched() {
    let can = driver(&[ControllerCapability::ModifyVolume]);
    let can_not = driver(&[ControllerCapability::ExpandVolume]);
    assert!(can_modify(&can) && !can_modify(&can_not));
    let incapable = "refuse: CSI driver can't modify volumes: it lacks MODIFY_VOLUME";
    let pv_with = |patch: Value| Some(pv(patch));
    let cases = [
        ("ours", json!({}), pv_with(json!({})), &can, "begin silver"),
        ("driver can't", json!({}), pv_with(json!({})), &can_not, incapable),
        (
            "driver no longer can",
            marked("InProgress", "silver"),
            pv_with(json!({})),
            &can_not,
            incapable,
        ),
        (
            "no volume yet",
            json!({"spec": {"volumeName": null}}),
            None,
            &can,
            "settled",
        ),
        (
            "PV unknown",
            json!({}),
            None,
            &can,
            "refuse: persistentvolume \"pvc-u1\" not found",
        ),
        (
            "not bound",
            json!({"status": {"phase": "Lost"}}),
            pv_with(json!({})),
            &can,
            "settled",
        ),
        (
            "another driver's volume",
            json!({}),
            pv_with(json!({"spec": {"csi": {"driver": "other.example"}}})),
            &can,
            "settled",
        ),
        (
            "another claim's volume",
            json!({}),
            pv_with(json!({"spec": {"claimRef": {"uid": "u9"}}})),
            &can,
            "settled",
        ),
    ];
    for (name, patch, pv, facts, expected) in cases {
        let found = next_with(&wishing("silver", patch), pv.as_ref(), Marks::default(), facts);
        assert_eq!(render(found), expected, "{name}");
    }
    let gone = Seen {
        claim: None,
        pv: None,
        wished: None,
        recorded: None,
        marks: Marks::default(),
        driver: &can,
        has_extra_metadata: false,
    };
    assert_eq!(decide(&gone, at(0)), Next::Settled);
}

#[test]
fn what_the_driver_is_asked() {
    let held = wishing("silver", marked("InProgress", "silver"));
    let facts = driver(&[ControllerCapability::ModifyVolume]);
    let silver = class("silver", DRIVER);
    let asked = |pv: &PersistentVolume, has_extra_metadata| {
        let seen = Seen {
            claim: Some(&held),
            pv: Some(pv),
            wished: Some(&silver),
            recorded: Some(&silver),
            marks: Marks::default(),
            driver: &facts,
            has_extra_metadata,
        };
        match decide(&seen, at(0)) {
            Next::Modify(modification) => *modification,
            other => panic!("{other:?}"),
        }
    };
    let plain = asked(&pv(json!({})), false);
    assert_eq!(plain.request.volume_id, "vol-1");
    assert_eq!(
        plain.request.mutable_parameters,
        HashMap::from([("iops".to_string(), "silver".to_string())])
    );
    assert_eq!(plain.secret, None);
    let told = asked(&pv(json!({})), true).request.mutable_parameters;
    let of_metadata = [METADATA_CLAIM_NAME, METADATA_CLAIM_NAMESPACE, METADATA_PV_NAME];
    assert_eq!(
        of_metadata.map(|key| told[key].as_str()),
        ["data", "ns", "pvc-u1"]
    );
    assert_eq!(told["iops"], "silver");

    let expand = json!({"spec": {"csi": {"controllerExpandSecretRef": {"name": "e", "namespace": "ens"}}}});
    let modify = |name: &str, namespace: &str| json!({"metadata": {"annotations": {keys::MODIFY_SECRET_NAME: name, keys::MODIFY_SECRET_NAMESPACE: namespace}}});
    let cases = [
        ("its own", merged(expand.clone(), modify("m", "mns")), "mns/m"),
        (
            "half of its own",
            merged(expand.clone(), modify("m", "")),
            "ens/e",
        ),
        ("the one for expansions", expand, "ens/e"),
    ];
    for (name, patch, expected) in cases {
        let secret = asked(&pv(patch), false).secret.expect("a secret");
        let parts = [secret.namespace, secret.name].map(Option::unwrap_or_default);
        assert_eq!(parts.join("/"), expected, "{name}");
    }
}

#[test]
fn only_claims_with_a_wish_or_a_record_are_looked_at() {
    let cases = [
        ("gold", json!({}), false),
        ("silver", json!({}), true),
        ("silver", json!({"spec": {"volumeName": null}}), false),
        ("gold", marked("Infeasible", "silver"), true),
    ];
    for (wish, patch, expected) in cases {
        assert_eq!(
            is_candidate(&wishing(wish, patch.clone())),
            expected,
            "{wish} {patch}"
        );
    }
}
