//! Claims of devices.

use serde_json::{Map, Value};

use super::{elements, existing};
use crate::object::set_if_empty;

/// The spec of a claim, also inside a template.
pub(super) fn claim(spec: &mut Map<String, Value>) {
    let Some(devices) = existing(spec, "devices") else {
        return;
    };
    for request in elements(devices, "requests") {
        if let Some(exactly) = existing(request, "exactly") {
            count(exactly);
        }
        elements(request, "firstAvailable").for_each(count);
    }
}

fn count(request: &mut Map<String, Value>) {
    set_if_empty(request, "allocationMode", "ExactCount");
    if request.get("allocationMode").and_then(Value::as_str) == Some("ExactCount") {
        set_if_empty(request, "count", 1);
    }
}
