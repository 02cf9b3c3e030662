//! Quotas of namespaces, and limits of what is in them.

use serde_json::{Map, Value};

use super::faults::Faults;
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;
use crate::quantity::Quantity;

const SPEC: Place<'static> = Place::top("spec");
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Scopes that leave nothing if both are asked for.
const CONFLICTING: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// Objects that are counted: no fraction of one can be had.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const MEASURED: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::parse(value.as_str()?).ok()
}

pub(super) fn quota(quota: &Value, faults: &mut Faults) {
    let place = SPEC.field("hard");
    for (name, limit) in map(quota, &["spec", "hard"]).into_iter().flatten() {
        let here = place.key(name);
        quota_name(&here, name, faults);
        let limit_amount = amount(limit);
        if limit_amount.is_none_or(|limit| limit.signum() < 0) {
            faults.invalid(&here, limit.clone(), "must be greater than or equal to 0");
        }
        let is_counted = COUNTED.contains(&name.as_str()) || name.starts_with("count/");
        if is_counted && limit_amount.is_some_and(|limit| !limit.is_whole()) {
            faults.invalid(&here, limit.clone(), "must be an integer");
        }
    }
    scopes(quota, faults);
}

fn quota_name(place: &Place<'_>, name: &str, faults: &mut Faults) {
    faults.invalid_each(place, name, &names::qualified_name(name));
    let is_standard = COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || ["hugepages-", "requests.hugepages-", "limits.hugepages-"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    if !name.contains('/') && !is_standard {
        faults.invalid(place, name, "must be a standard resource for quotas");
    }
}

fn scopes(quota: &Value, faults: &mut Faults) {
    let scopes: Vec<&str> = list(quota, &["spec", "scopes"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let place = SPEC.field("scopes");
    let all = || Value::from(scopes.clone());
    if scopes.iter().any(|scope| !SCOPES.contains(scope)) {
        faults.invalid(&place, all(), "unsupported scope");
    }
    if CONFLICTING
        .iter()
        .any(|pair| pair.iter().all(|scope| scopes.contains(scope)))
    {
        faults.invalid(&place, all(), "conflicting scopes");
    }
    let outer = SPEC.field("scopeSelector");
    let place = outer.field("matchExpressions");
    let expressions = list(quota, &["spec", "scopeSelector", "matchExpressions"]);
    for (index, expression) in expressions.iter().enumerate() {
        let here = place.index(index);
        let scope = text(expression, &["scopeName"]);
        if !SCOPES.contains(&scope) {
            faults.invalid(&here.field("scopeName"), scope, "unsupported scope");
        }
        let values = list(expression, &["values"]);
        match text(expression, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => faults.required(
                &here.field("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => faults.invalid(
                &here.field("values"),
                Value::Array(values.to_vec()),
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => faults.invalid(&here.field("operator"), other, "not a valid selector operator"),
        }
    }
}

/// What a quota is about is settled when it is made.
pub(super) fn quota_update(old: &Value, new: &Value, faults: &mut Faults) {
    let scopes = |quota: &Value| {
        let mut scopes = list(quota, &["spec", "scopes"]).to_vec();
        scopes.sort_by_key(ToString::to_string);
        scopes
    };
    if scopes(old) != scopes(new) {
        let all = Value::Array(scopes(new));
        faults.invalid(&SPEC.field("scopes"), all, "field is immutable");
    }
}

pub(super) fn limit_range(range: &Value, faults: &mut Faults) {
    let place = SPEC.field("limits");
    let items = list(range, &["spec", "limits"]);
    for (index, item) in items.iter().enumerate() {
        let here = place.index(index);
        let kind = text(item, &["type"]);
        faults.invalid_each(&here.field("type"), kind, &names::qualified_name(kind));
        if items[..index].iter().any(|other| text(other, &["type"]) == kind) {
            faults.duplicate(&here.field("type"), kind);
        }
        if kind == "Pod" {
            for name in ["default", "defaultRequest"] {
                if map(item, &[name]).is_some_and(|map| !map.is_empty()) {
                    faults.forbidden(&here.field(name), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        let asks = |name: &str| at(item, &[name, "storage"]).is_some();
        if kind == "PersistentVolumeClaim" && !asks("min") && !asks("max") {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            faults.required(&place.index(index), detail);
        }
        limits(&here, item, faults);
    }
}

fn limits(place: &Place<'_>, item: &Value, faults: &mut Faults) {
    const ORDERED: [(&str, &str); 5] = [
        ("min", "max"),
        ("min", "defaultRequest"),
        ("defaultRequest", "max"),
        ("defaultRequest", "default"),
        ("default", "max"),
    ];
    let empty = Map::new();
    let of = |name: &str| map(item, &[name]).unwrap_or(&empty);
    for name in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        for (resource, value) in of(name) {
            let here = place.field(name);
            let here = here.key(resource);
            faults.invalid_each(&here, resource, &names::qualified_name(resource));
            let least = if name == "maxLimitRequestRatio" { "1" } else { "0" };
            let is_less = amount(value)
                .zip(Quantity::parse(least).ok())
                .is_none_or(|(value, least)| value < least);
            if is_less {
                let text = value.as_str().unwrap_or_default();
                let detail = if least == "1" {
                    format!("ratio {text} is less than 1")
                } else {
                    "must be greater than or equal to 0".to_owned()
                };
                faults.invalid(&here, value.clone(), &detail);
            }
        }
    }
    for (lower, upper) in ORDERED {
        for (resource, low) in of(lower) {
            let Some(high) = of(upper).get(resource) else {
                continue;
            };
            if let (Some(least), Some(most)) = (amount(low), amount(high))
                && least > most
            {
                let here = place.field(lower);
                let words = |name: &str| match name {
                    "default" => "default limit",
                    "defaultRequest" => "default request",
                    "min" => "min",
                    _ => "max",
                };
                let detail = format!(
                    "{} value {least} is greater than {} value {most}",
                    words(lower),
                    words(upper)
                );
                faults.invalid(&here.key(resource), low.clone(), &detail);
            }
        }
    }
}
