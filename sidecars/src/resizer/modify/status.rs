//! The patches of a claim's status, and of its PV, for each step of a modification. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{MODIFYING, Stage};

const ERROR: &str = "ModifyVolumeError";

/// What a failed try leaves in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure<'a> {
    /// The code's name.
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
    /// The driver's answer was no answer: it may go on.
    pub(crate) is_uncertain: bool,
    pub(crate) is_infeasible: bool,
}

/// The class isn't there. What is recorded of an earlier target stays, and so do conditions.
pub(crate) fn pending(claim: &PersistentVolumeClaim) -> Value {
    json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {"modifyVolumeStatus": {"status": Stage::PENDING}},
    })
}

/// The intent: the driver is going to be asked for `target`.
pub(crate) fn begin(claim: &PersistentVolumeClaim, target: &str, now: Timestamp) -> Value {
    let message = format!("Modifying volume to {target:?} is in progress.");
    json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "modifyVolumeStatus": {
                "status": Stage::IN_PROGRESS,
                "targetVolumeAttributesClassName": target,
            },
            "conditions": with(conditions(claim), (MODIFYING, "", &message), now),
        },
    })
}

/// What came of a try that failed. `None` if it is written already: times alone are no reason to write.
pub(crate) fn failed(
    claim: &PersistentVolumeClaim,
    target: &str,
    failure: &Failure<'_>,
    now: Timestamp,
) -> Option<Value> {
    let state = match (failure.is_uncertain, failure.is_infeasible) {
        (true, _) => "is still in progress",
        (false, true) => "is not possible",
        (false, false) => "failed. Waiting for retry",
    };
    let message = format!("Modifying volume to {target:?} {state}.");
    let changed = with(conditions(claim), (MODIFYING, "", &message), now);
    let changed = with(&changed, (ERROR, failure.reason, failure.message), now);
    let word = if failure.is_infeasible {
        Stage::INFEASIBLE
    } else {
        Stage::IN_PROGRESS
    };
    let status = claim.status.as_ref();
    let held = status.and_then(|status| status.modify_volume_status.as_ref());
    let is_same = held.is_some_and(|held| {
        held.status == word && held.target_volume_attributes_class_name.as_deref() == Some(target)
    });
    if is_same && changed == conditions(claim) {
        return None;
    }
    Some(json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "modifyVolumeStatus": {"status": word, "targetVolumeAttributesClassName": target},
            "conditions": changed,
        },
    }))
}

/// Everything is done.
pub(crate) fn finished(claim: &PersistentVolumeClaim, target: &str) -> Value {
    json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "currentVolumeAttributesClassName": target,
            "modifyVolumeStatus": null,
            "conditions": without(claim, &[MODIFYING, ERROR]),
        },
    })
}

/// The user has taken the wish back.
pub(crate) fn called_off(claim: &PersistentVolumeClaim) -> Value {
    json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {"conditions": without(claim, &[MODIFYING])},
    })
}

/// The PV's new class. `None` if it has it.
pub(crate) fn pv_class(pv: &PersistentVolume, target: &str) -> Option<Value> {
    let spec = pv.spec.as_ref();
    let held = spec.and_then(|spec| spec.volume_attributes_class_name.as_deref());
    (held != Some(target)).then(|| json!({"spec": {"volumeAttributesClassName": target}}))
}

/// Whether the claim says that its volume is being modified.
pub(crate) fn is_modifying(claim: &PersistentVolumeClaim) -> bool {
    conditions(claim).iter().any(|held| held.type_ == MODIFYING)
}

/// The conditions with one that is True. Its transition time moves only with its status or reason.
fn with(
    held: &[PersistentVolumeClaimCondition],
    (condition_type, reason, message): (&str, &str, &str),
    now: Timestamp,
) -> Vec<PersistentVolumeClaimCondition> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let mut wanted = PersistentVolumeClaimCondition {
        type_: condition_type.to_string(),
        status: "True".to_string(),
        reason: text(reason),
        message: text(message),
        last_transition_time: Some(Time(now)),
        ..Default::default()
    };
    let mut all = held.to_vec();
    match all.iter_mut().find(|held| held.type_ == condition_type) {
        Some(held) => {
            if held.status == wanted.status && held.reason.as_deref().unwrap_or_default() == reason {
                wanted.last_transition_time = held.last_transition_time.clone();
                wanted.last_probe_time = held.last_probe_time.clone();
                wanted.reason = held.reason.clone();
            }
            *held = wanted;
        }
        None => all.push(wanted),
    }
    all
}

fn without(claim: &PersistentVolumeClaim, removed: &[&str]) -> Vec<PersistentVolumeClaimCondition> {
    conditions(claim)
        .iter()
        .filter(|held| !removed.contains(&held.type_.as_str()))
        .cloned()
        .collect()
}

fn conditions(claim: &PersistentVolumeClaim) -> &[PersistentVolumeClaimCondition] {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, claim, pv};

    const UNCERTAIN: Failure<'static> = Failure {
        reason: "Unavailable",
        message: "gone",
        is_uncertain: true,
        is_infeasible: false,
    };
    const SILVER: &str = "silver";

    fn modifying(stage: &str) -> PersistentVolumeClaim {
        claim(json!({"status": {
            "modifyVolumeStatus": {"status": stage, "targetVolumeAttributesClassName": SILVER},
            "conditions": [
                {"type": "Resizing", "status": "True"},
                {"type": "ModifyingVolume", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            ],
        }}))
    }

    /// The conditions of a patch: type, reason, message, and whether the transition is new.
    fn told(patch: &Value) -> Vec<String> {
        let list = patch["status"]["conditions"].as_array().unwrap();
        list.iter()
            .map(|condition| {
                let word = |key: &str| condition[key].as_str().unwrap_or_default().to_string();
                let is_new = word("lastTransitionTime").starts_with("2027");
                let parts = [word("type"), word("reason"), word("message")].join("|");
                format!("{parts}|{}", if is_new { "new" } else { "old" })
            })
            .collect()
    }

    #[test]
    fn failures_say_what_is_known() {
        let cases = [
            (UNCERTAIN, "InProgress", "is still in progress."),
            (
                Failure {
                    is_uncertain: false,
                    reason: "Internal",
                    ..UNCERTAIN
                },
                "InProgress",
                "failed. Waiting for retry.",
            ),
            (
                Failure {
                    is_uncertain: false,
                    is_infeasible: true,
                    reason: "InvalidArgument",
                    ..UNCERTAIN
                },
                "Infeasible",
                "is not possible.",
            ),
        ];
        for (failure, stage, message) in cases {
            let patch = failed(&modifying("InProgress"), SILVER, &failure, at(0)).expect("a change");
            assert_eq!(
                patch["status"]["modifyVolumeStatus"],
                json!({"status": stage, "targetVolumeAttributesClassName": SILVER})
            );
            let expected = [
                "Resizing|||old".to_string(),
                format!("ModifyingVolume||Modifying volume to \"silver\" {message}|old"),
                format!("ModifyVolumeError|{}|gone|new", failure.reason),
            ];
            assert_eq!(told(&patch), expected);
        }
    }

    #[test]
    fn the_same_failure_is_written_once() {
        let mut held = modifying("InProgress");
        let first = failed(&held, SILVER, &UNCERTAIN, at(0)).expect("a change");
        let conditions = first["status"]["conditions"].clone();
        held.status.as_mut().unwrap().conditions = serde_json::from_value(conditions).unwrap();
        assert_eq!(failed(&held, SILVER, &UNCERTAIN, at(9)), None);
        let other = Failure {
            message: "still gone",
            ..UNCERTAIN
        };
        let second = failed(&held, SILVER, &other, at(9)).expect("a change");
        let since = |patch: &Value| patch["status"]["conditions"][2]["lastTransitionTime"].clone();
        assert_eq!(since(&second), since(&first), "the same reason");
        let gold = failed(&held, "gold", &UNCERTAIN, at(9));
        assert!(gold.is_some(), "another target");
    }

    #[test]
    fn steps_of_a_modification() {
        let held = modifying("Infeasible");
        let begun = begin(&held, "gold", at(0));
        assert_eq!(
            begun["status"]["modifyVolumeStatus"],
            json!({"status": "InProgress", "targetVolumeAttributesClassName": "gold"})
        );
        assert_eq!(begun["metadata"], json!({"resourceVersion": "7"}));
        assert_eq!(
            told(&begun),
            [
                "Resizing|||old",
                "ModifyingVolume||Modifying volume to \"gold\" is in progress.|old"
            ]
        );
        let done = finished(&held, "gold");
        assert_eq!(done["status"]["currentVolumeAttributesClassName"], "gold");
        assert_eq!(done["status"]["modifyVolumeStatus"], Value::Null);
        assert_eq!(told(&done), ["Resizing|||old"]);
        assert_eq!(told(&called_off(&held)), ["Resizing|||old"]);
        assert_eq!(
            pending(&held)["status"],
            json!({"modifyVolumeStatus": {"status": "Pending"}})
        );
        assert!(is_modifying(&held) && !is_modifying(&claim(json!({}))));
    }

    #[test]
    fn pvs_follow() {
        let held = pv(json!({"spec": {"volumeAttributesClassName": "gold"}}));
        assert_eq!(pv_class(&held, "gold"), None);
        let expected = json!({"spec": {"volumeAttributesClassName": "silver"}});
        assert_eq!(pv_class(&held, SILVER), Some(expected.clone()));
        assert_eq!(pv_class(&pv(json!({})), SILVER), Some(expected));
    }
}
