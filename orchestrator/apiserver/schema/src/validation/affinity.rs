//! Where a pod may run: affinity, tolerations, spreading.

use serde_json::Value;

use super::faults::Faults;
use super::selectors;
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");

pub(super) fn pod(spec: &Value, faults: &mut Faults) {
    tolerations(list(spec, &["tolerations"]), faults);
    let affinity = SPEC.field("affinity");
    if let Some(node) = at(spec, &["affinity", "nodeAffinity"]) {
        node_affinity(&affinity.field("nodeAffinity"), node, faults);
    }
    for name in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = at(spec, &["affinity", name]) {
            pod_affinity(&affinity.field(name), pods, faults);
        }
    }
    spreading(list(spec, &["topologySpreadConstraints"]), faults);
}

fn tolerations(tolerations: &[Value], faults: &mut Faults) {
    let place = SPEC.field("tolerations");
    for (index, toleration) in tolerations.iter().enumerate() {
        let here = place.index(index);
        let (key, operator) = (text(toleration, &["key"]), text(toleration, &["operator"]));
        let (value, effect) = (text(toleration, &["value"]), text(toleration, &["effect"]));
        if !key.is_empty() {
            faults.invalid_each(&here.field("key"), key, &names::qualified_name(key));
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            faults.invalid(&here.field("operator"), operator, detail);
        }
        if at(toleration, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            faults.invalid(&here.field("effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => faults.invalid_each(&here.field("operator"), value, &names::label_value(value)),
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    faults.invalid(&here.field("operator"), toleration.clone(), detail);
                }
            }
            other => faults.not_supported(&here.field("operator"), other, &["Equal", "Exists"]),
        }
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        faults.one_of_if_set(&here.field("effect"), effect, &effects);
    }
}

fn weight(place: &Place<'_>, preferred: &Value, faults: &mut Faults) {
    let weight = at(preferred, &["weight"]).and_then(Value::as_i64).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        faults.invalid(&place.field("weight"), weight, "must be in the range 1-100");
    }
}

fn node_affinity(place: &Place<'_>, affinity: &Value, faults: &mut Faults) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    if let Some(selector) = at(affinity, &[required]) {
        selectors::nodes(&place.field(required), selector, faults);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let here = place.field(preferred);
    for (index, one) in list(affinity, &[preferred]).iter().enumerate() {
        let here = here.index(index);
        weight(&here, one, faults);
        if let Some(term) = at(one, &["preference"]) {
            selectors::node_term(&here.field("preference"), term, faults);
        }
    }
}

fn pod_affinity(place: &Place<'_>, affinity: &Value, faults: &mut Faults) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let here = place.field(required);
    for (index, term) in list(affinity, &[required]).iter().enumerate() {
        pod_term(&here.index(index), term, faults);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let here = place.field(preferred);
    for (index, one) in list(affinity, &[preferred]).iter().enumerate() {
        let here = here.index(index);
        weight(&here, one, faults);
        match at(one, &["podAffinityTerm"]) {
            Some(term) => pod_term(&here.field("podAffinityTerm"), term, faults),
            None => faults.required(
                &here.field("podAffinityTerm").field("topologyKey"),
                "can not be empty",
            ),
        }
    }
}

fn pod_term(place: &Place<'_>, term: &Value, faults: &mut Faults) {
    for name in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = at(term, &[name]) {
            selectors::labels(&place.field(name), selector, faults);
        }
    }
    let key = text(term, &["topologyKey"]);
    if key.is_empty() {
        faults.required(&place.field("topologyKey"), "can not be empty");
    }
    faults.invalid_each(&place.field("topologyKey"), key, &names::qualified_name(key));
}

fn spreading(constraints: &[Value], faults: &mut Faults) {
    let place = SPEC.field("topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let here = place.index(index);
        let skew = at(constraint, &["maxSkew"]).and_then(Value::as_i64).unwrap_or(0);
        if skew <= 0 {
            faults.invalid(&here.field("maxSkew"), skew, "must be greater than zero");
        }
        match text(constraint, &["topologyKey"]) {
            "" => faults.required(&here.field("topologyKey"), "can not be empty"),
            key => faults.invalid_each(&here.field("topologyKey"), key, &names::qualified_name(key)),
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        let action = text(constraint, &["whenUnsatisfiable"]);
        if !actions.contains(&action) {
            faults.not_supported(&here.field("whenUnsatisfiable"), action, &actions);
        }
        if let Some(selector) = at(constraint, &["labelSelector"]) {
            selectors::labels(&here.field("labelSelector"), selector, faults);
        }
    }
}
