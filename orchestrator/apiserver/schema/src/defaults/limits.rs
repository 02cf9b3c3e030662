//! Limits, priorities, and shares of the server's time.

use serde_json::{Map, Value};

use super::{child, elements, existing};
use crate::object::{set_default, set_if_empty};

pub(super) fn limit_range(object: &mut Map<String, Value>) {
    let Some(spec) = existing(object, "spec") else {
        return;
    };
    for item in elements(spec, "limits") {
        if item.get("type").and_then(Value::as_str) != Some("Container") {
            continue;
        }
        // What may be had at most is had if nothing is said; what is had is asked for; or else the least.
        fill(item, "default", "max");
        fill(item, "defaultRequest", "default");
        fill(item, "defaultRequest", "min");
    }
}

/// Copies amounts from one map to another that lacks them.
fn fill(item: &mut Map<String, Value>, to: &str, from: &str) {
    let given = item.get(from).and_then(Value::as_object).cloned();
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return;
    };
    let Some(target) = child(item, to) else { return };
    for (name, amount) in given {
        set_default(target, &name, amount);
    }
}

pub(super) fn priority_class(object: &mut Map<String, Value>) {
    set_default(object, "preemptionPolicy", "PreemptLowerPriority");
}

pub(super) fn flow_schema(object: &mut Map<String, Value>) {
    if let Some(spec) = child(object, "spec") {
        set_if_empty(spec, "matchingPrecedence", 1000);
    }
}

pub(super) fn priority_level(object: &mut Map<String, Value>) {
    let Some(spec) = child(object, "spec") else { return };
    if let Some(exempt) = existing(spec, "exempt") {
        set_default(exempt, "nominalConcurrencyShares", 0);
        set_default(exempt, "lendablePercent", 0);
    }
    let Some(limited) = existing(spec, "limited") else {
        return;
    };
    set_default(limited, "nominalConcurrencyShares", 30);
    set_default(limited, "lendablePercent", 0);
    let queuing = existing(limited, "limitResponse").and_then(|response| existing(response, "queuing"));
    if let Some(queuing) = queuing {
        set_if_empty(queuing, "queues", 64);
        set_if_empty(queuing, "handSize", 8);
        set_if_empty(queuing, "queueLengthLimit", 50);
    }
}
