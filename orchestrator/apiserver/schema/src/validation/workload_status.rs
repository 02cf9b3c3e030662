//! What controllers say of their workloads: counts that can't be below zero, and parts that can't exceed the whole.

use serde_json::Value;

use super::faults::Faults;
use crate::object::at;
use crate::place::Place;

const STATUS: Place<'static> = Place::top("status");

/// Counts of pods: those of the kind, and which of them are parts of `replicas`.
struct Counts {
    all: &'static [&'static str],
    parts: &'static [&'static str],
}

fn counts(kind: &str) -> Option<Counts> {
    let (all, parts): (&[&str], &[&str]) = match kind {
        "Deployment" => (
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "collisionCount",
            ],
            &["updatedReplicas", "readyReplicas", "availableReplicas"],
        ),
        "ReplicaSet" | "ReplicationController" => (
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
            ],
            &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        ),
        "StatefulSet" => (
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ],
            &[
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
            ],
        ),
        "DaemonSet" => (
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
            &[],
        ),
        "Job" => (&["active", "succeeded", "failed", "ready", "terminating"], &[]),
        _ => return None,
    };
    Some(Counts { all, parts })
}

pub(super) fn update(kind: &str, old: &Value, new: &Value, faults: &mut Faults) {
    let Some(counts) = counts(kind) else { return };
    let count =
        |object: &Value, name: &str| at(object, &["status", name]).and_then(Value::as_i64).unwrap_or(0);
    for name in counts.all {
        faults.non_negative(&STATUS.field(name), at(new, &["status", name]));
    }
    for name in counts.parts {
        if count(new, name) > count(new, "replicas") {
            let detail = "cannot be greater than status.replicas";
            faults.invalid(&STATUS.field(name), count(new, name), detail);
        }
    }
    if counts.parts.contains(&"availableReplicas") {
        let (available, ready) = (count(new, "availableReplicas"), count(new, "readyReplicas"));
        if available > ready {
            let detail = "cannot be greater than readyReplicas";
            faults.invalid(&STATUS.field("availableReplicas"), available, detail);
        }
    }
    if count(new, "collisionCount") < count(old, "collisionCount") {
        let detail = "cannot be decremented";
        faults.invalid(
            &STATUS.field("collisionCount"),
            count(new, "collisionCount"),
            detail,
        );
    }
}
