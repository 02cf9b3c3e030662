//! What may change in a pod once it is there.

use serde_json::{Map, Value};

use super::faults::Faults;
use crate::object::{at, list, map, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn update(old: &Value, new: &Value, faults: &mut Faults) {
    let empty = Map::new();
    let before = map(old, &["spec"]).unwrap_or(&empty);
    let after = map(new, &["spec"]).unwrap_or(&empty);
    if before == after {
        return;
    }
    for name in ["containers", "initContainers"] {
        if list(old, &["spec", name]).len() != list(new, &["spec", name]).len() {
            let which = if name == "containers" {
                "containers"
            } else {
                "init containers"
            };
            return faults.forbidden(
                &SPEC.field(name),
                &format!("pod updates may not add or remove {which}"),
            );
        }
    }
    deadline(old, new, faults);
    tolerations(old, new, faults);
    gates(old, new, faults);
    if comparable(after, old) != *before {
        faults.forbidden(&SPEC, MAY_CHANGE);
    }
}

/// The new spec with everything that may have changed put back to what it was.
fn comparable(after: &Map<String, Value>, old: &Value) -> Map<String, Value> {
    let mut comparable = after.clone();
    for name in ["containers", "initContainers"] {
        let olds = list(old, &["spec", name]);
        let news = comparable
            .get_mut(name)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for (new, old) in news.filter_map(Value::as_object_mut).zip(olds) {
            restore(new, old, "image");
        }
    }
    let spec = at(old, &["spec"]).unwrap_or(&Value::Null);
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(&mut comparable, spec, name);
    }
    let grace = |spec: &Map<String, Value>| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    let was_negative = map(old, &["spec"])
        .and_then(grace)
        .is_some_and(|seconds| seconds < 0);
    if was_negative && grace(&comparable) == Some(1) {
        restore(&mut comparable, spec, "terminationGracePeriodSeconds");
    }
    // A pod that must not be scheduled yet may still be narrowed down to fewer nodes.
    if !list(old, &["spec", "schedulingGates"]).is_empty() {
        restore(&mut comparable, spec, "nodeSelector");
        restore(&mut comparable, spec, "affinity");
    }
    comparable
}

fn restore(object: &mut Map<String, Value>, old: &Value, name: &str) {
    match old.get(name) {
        Some(value) => object.insert(name.to_owned(), value.clone()),
        None => object.remove(name),
    };
}

/// A deadline may be set, and made shorter.
fn deadline(old: &Value, new: &Value, faults: &mut Faults) {
    let path = ["spec", "activeDeadlineSeconds"];
    let Some(before) = at(old, &path).and_then(Value::as_i64) else {
        return;
    };
    let place = SPEC.field("activeDeadlineSeconds");
    match at(new, &path).and_then(Value::as_i64) {
        None => faults.invalid(
            &place,
            Value::Null,
            "must not update from a positive integer to nil value",
        ),
        Some(after) if after > before => {
            faults.invalid(&place, after, "must be less than or equal to previous value");
        }
        Some(_) => {}
    }
}

/// Tolerations may be added; an existing one may only get another time.
fn tolerations(old: &Value, new: &Value, faults: &mut Faults) {
    let path = ["spec", "tolerations"];
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(fields) = toleration.as_object_mut() {
            fields.remove("tolerationSeconds");
        }
        toleration
    };
    let news: Vec<Value> = list(new, &path).iter().map(without_time).collect();
    if list(old, &path)
        .iter()
        .any(|one| !news.contains(&without_time(one)))
    {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        faults.forbidden(&SPEC.field("tolerations"), detail);
    }
}

/// Gates may be taken away only.
fn gates(old: &Value, new: &Value, faults: &mut Faults) {
    let path = ["spec", "schedulingGates"];
    let before = list(old, &path);
    let place = SPEC.field("schedulingGates");
    let gates = list(new, &path).iter().enumerate();
    for (index, gate) in gates.filter(|(_, gate)| !before.contains(gate)) {
        let name = text(gate, &["name"]);
        let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
        faults.forbidden(&place.index(index).field("name"), &detail);
    }
}

/// A container that ended for good does not run again.
pub(super) fn status(old: &Value, new: &Value, faults: &mut Faults) {
    let policy = text(new, &["spec", "restartPolicy"]);
    if policy == "Always" {
        return;
    }
    let status = Place::top("status");
    let name = "containerStatuses";
    let place = status.field(name);
    for before in list(old, &["status", name]) {
        let Some(exit) = at(before, &["state", "terminated"]) else {
            continue;
        };
        let failed = at(exit, &["exitCode"]).and_then(Value::as_i64).unwrap_or(0) != 0;
        if policy == "OnFailure" && failed {
            continue;
        }
        let container = text(before, &["name"]);
        let mut news = list(new, &["status", name]).iter().enumerate();
        let after = news.find(|(_, one)| text(one, &["name"]) == container);
        if let Some((index, after)) = after
            && at(after, &["state", "terminated"]).is_none()
            && at(after, &["state"]).is_some()
        {
            faults.forbidden(
                &place.index(index).field("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}
