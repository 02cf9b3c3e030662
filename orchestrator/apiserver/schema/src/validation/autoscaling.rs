//! HorizontalPodAutoscalers.

use serde_json::Value;

use super::faults::Faults;
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
/// The kinds of metrics, and the field that tells of each.
const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

pub(super) fn autoscaler(object: &Value, faults: &mut Faults) {
    let number = |name: &str| at(object, &["spec", name]).and_then(Value::as_i64);
    let (least, most) = (number("minReplicas"), number("maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|&least| least < 1) {
        faults.invalid(
            &SPEC.field("minReplicas"),
            least,
            "must be greater than or equal to 1",
        );
    }
    let place = SPEC.field("maxReplicas");
    if most < 1 {
        faults.invalid(&place, most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        faults.invalid(&place, most, "must be greater than or equal to `minReplicas`");
    }
    let target = SPEC.field("scaleTargetRef");
    for name in ["kind", "name"] {
        let value = text(object, &["spec", "scaleTargetRef", name]);
        if !value.is_empty() {
            faults.invalid_each(&target.field(name), value, &names::path_segment(value));
        }
    }
    metrics(list(object, &["spec", "metrics"]), faults);
}

fn metrics(metrics: &[Value], faults: &mut Faults) {
    let place = SPEC.field("metrics");
    for (index, metric) in metrics.iter().enumerate() {
        let here = place.index(index);
        let kind = text(metric, &["type"]);
        for (name, field) in METRICS {
            match (name == kind, at(metric, &[field]).is_some()) {
                (true, false) => faults.required(
                    &here.field(field),
                    "must populate information for the given metric source",
                ),
                (false, true) => {
                    faults.forbidden(&here.field(field), "must populate the given metric source only")
                }
                _ => {}
            }
        }
    }
}
