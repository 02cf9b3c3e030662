//! Selectors inside objects: by labels, by nodes, by topology.

use serde_json::Value;

use super::faults::Faults;
use super::metadata;
use crate::names;
use crate::object::{list, map, text};
use crate::place::Place;

/// A `LabelSelector`.
pub(super) fn labels(place: &Place<'_>, selector: &Value, faults: &mut Faults) {
    if let Some(labels) = map(selector, &["matchLabels"]) {
        metadata::labels(&place.field("matchLabels"), labels, faults);
    }
    let place = place.field("matchExpressions");
    for (index, expression) in list(selector, &["matchExpressions"]).iter().enumerate() {
        let place = place.index(index);
        let values = list(expression, &["values"]);
        match text(expression, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                faults.required(
                    &place.field("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                faults.forbidden(&place.field("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => faults.invalid(&place.field("operator"), other, "not a valid selector operator"),
        }
        let key = text(expression, &["key"]);
        faults.invalid_each(&place.field("key"), key, &names::qualified_name(key));
        for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
            faults.invalid_each(
                &place.field("values").index(at),
                value,
                &names::label_value(value),
            );
        }
    }
}

/// A `NodeSelector`.
pub(super) fn nodes(place: &Place<'_>, selector: &Value, faults: &mut Faults) {
    let terms = list(selector, &["nodeSelectorTerms"]);
    let place = place.field("nodeSelectorTerms");
    if terms.is_empty() {
        faults.required(&place, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(&place.index(index), term, faults);
    }
}

/// One term of a `NodeSelector`.
pub(super) fn node_term(place: &Place<'_>, term: &Value, faults: &mut Faults) {
    let expressions = place.field("matchExpressions");
    for (index, requirement) in list(term, &["matchExpressions"]).iter().enumerate() {
        node_requirement(&expressions.index(index), requirement, faults);
    }
    let fields = place.field("matchFields");
    for (index, requirement) in list(term, &["matchFields"]).iter().enumerate() {
        node_field(&fields.index(index), requirement, faults);
    }
}

fn node_requirement(place: &Place<'_>, requirement: &Value, faults: &mut Faults) {
    let values = list(requirement, &["values"]);
    let at = place.field("values");
    match text(requirement, &["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            faults.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            faults.forbidden(
                &at,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            );
        }
        "Gt" | "Lt" if values.len() != 1 => {
            faults.required(
                &at,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            );
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => faults.invalid(&place.field("operator"), other, "not a valid selector operator"),
    }
    let key = text(requirement, &["key"]);
    faults.invalid_each(&place.field("key"), key, &names::qualified_name(key));
}

fn node_field(place: &Place<'_>, requirement: &Value, faults: &mut Faults) {
    match text(requirement, &["operator"]) {
        "In" | "NotIn" if list(requirement, &["values"]).len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            faults.required(&place.field("values"), detail);
        }
        "In" | "NotIn" => {}
        other => faults.invalid(&place.field("operator"), other, "not a valid selector operator"),
    }
    match text(requirement, &["key"]) {
        "metadata.name" => {}
        other => faults.invalid(&place.field("key"), other, "not a valid field selector key"),
    }
}

/// The `allowedTopologies` of a class.
pub(super) fn topologies(place: &Place<'_>, terms: &[Value], faults: &mut Faults) {
    let mut seen: Vec<Vec<(&str, Vec<&str>)>> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let here = place.index(index);
        let expressions = here.field("matchLabelExpressions");
        let mut entries: Vec<(&str, Vec<&str>)> = Vec::new();
        for (at, expression) in list(term, &["matchLabelExpressions"]).iter().enumerate() {
            let place = expressions.index(at);
            let (key, values) = (text(expression, &["key"]), list(expression, &["values"]));
            if values.is_empty() {
                faults.required(&place.field("values"), "");
            }
            let mut values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            for (nth, value) in values
                .iter()
                .enumerate()
                .filter(|(nth, value)| values[..*nth].contains(value))
            {
                faults.duplicate(&place.field("values").index(nth), *value);
            }
            faults.invalid_each(&place.field("key"), key, &names::qualified_name(key));
            if entries.iter().any(|(other, _)| *other == key) {
                faults.duplicate(&place.field("key"), key);
            }
            values.sort_unstable();
            entries.push((key, values));
        }
        entries.sort();
        if seen.contains(&entries) {
            faults.duplicate(&expressions, "");
        }
        seen.push(entries);
    }
}
