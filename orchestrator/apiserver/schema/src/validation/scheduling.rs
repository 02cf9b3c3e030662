//! Classes of priority and of runtimes.

use serde_json::Value;

use super::faults::Faults;
use crate::names;
use crate::object::{at, map, text};
use crate::place::Place;

const METADATA: Place<'static> = Place::top("metadata");
/// Above it are the server's own classes.
const PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

pub(super) fn priority_class(class: &Value, faults: &mut Faults) {
    let name = text(class, &["metadata", "name"]);
    let value = at(class, &["value"]).and_then(Value::as_i64).unwrap_or(0);
    let is_system = SYSTEM.contains(&(name, value));
    if name.starts_with("system-") && !is_system {
        let detail = "priority class names with 'system-' prefix are reserved for system use only. error: the class \
            is not a known system priority class";
        faults.forbidden(&METADATA.field("name"), detail);
    }
    if value > PRIORITY_MAX && !is_system {
        let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        faults.forbidden(&Place::top("value"), &detail);
    }
}

pub(super) fn priority_class_update(old: &Value, new: &Value, faults: &mut Faults) {
    let value = |class| at(class, &["value"]).and_then(Value::as_i64).unwrap_or(0);
    if value(old) != value(new) {
        faults.forbidden(&Place::top("value"), "may not be changed in an update.");
    }
    let policy = |class| at(class, &["preemptionPolicy"]);
    faults.immutable(&Place::top("preemptionPolicy"), policy(old), policy(new));
}

pub(super) fn runtime_class(class: &Value, faults: &mut Faults) {
    let handler = text(class, &["handler"]);
    if !handler.is_empty() {
        faults.invalid_each(&Place::top("handler"), handler, &names::dns1123_label(handler));
    }
    let overhead = Place::top("overhead");
    let place = overhead.field("podFixed");
    for (resource, amount) in map(class, &["overhead", "podFixed"]).into_iter().flatten() {
        super::resources::non_negative(&place.key(resource), amount, faults);
    }
}

pub(super) fn runtime_class_update(old: &Value, new: &Value, faults: &mut Faults) {
    let handler = |class| at(class, &["handler"]);
    faults.immutable(&Place::top("handler"), handler(old), handler(new));
}
