//! Deployments, ReplicaSets, StatefulSets, DaemonSets, their revisions, and the older ReplicationControllers.

use serde_json::{Map, Value};

use super::faults::Faults;
use super::numbers::{at_most_all, count_or_share, is_zero};
use super::templates::{self, Fit};
use super::{metadata, selectors};
use crate::object::{at, map, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
/// What may change in a StatefulSet.
const MAY_CHANGE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const MAY_CHANGE_DETAIL: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
    'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
    'minReadySeconds' are forbidden";
const EMPTY_SELECTOR: &str = "empty selector is invalid for deployment";

fn in_spec<'o>(object: &'o Value, name: &str) -> Option<&'o Value> {
    at(object, &["spec", name])
}

fn non_negative(object: &Value, names: &[&str], faults: &mut Faults) {
    for name in names {
        faults.non_negative(&SPEC.field(name), in_spec(object, name));
    }
}

pub(super) fn pod_template(object: &Value, faults: &mut Faults) {
    let empty = Value::Object(Map::new());
    let template = at(object, &["template"]).unwrap_or(&empty);
    templates::template(&Place::top("template"), template, faults);
}

pub(super) fn deployment(object: &Value, faults: &mut Faults) {
    non_negative(object, &["replicas"], faults);
    replicas_of_template(object, faults);
    deployment_strategy(object, faults);
    non_negative(object, &["minReadySeconds", "revisionHistoryLimit"], faults);
    let place = SPEC.field("progressDeadlineSeconds");
    let deadline = in_spec(object, "progressDeadlineSeconds");
    faults.non_negative(&place, deadline);
    let ready = in_spec(object, "minReadySeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    if let Some(seconds) = deadline
        .and_then(Value::as_i64)
        .filter(|&seconds| seconds <= ready)
    {
        faults.invalid(&place, seconds, "must be greater than minReadySeconds");
    }
}

pub(super) fn replica_set(object: &Value, faults: &mut Faults) {
    non_negative(object, &["replicas", "minReadySeconds"], faults);
    replicas_of_template(object, faults);
}

/// The selector and the template that many pods are made from.
fn replicas_of_template(object: &Value, faults: &mut Faults) {
    let selector = in_spec(object, "selector");
    let place = SPEC.field("selector");
    templates::own_selector(&place, selector, EMPTY_SELECTOR, faults);
    let empty = Value::Object(Map::new());
    let template = in_spec(object, "template").unwrap_or(&empty);
    let here = SPEC.field("template");
    match templates::fit(selector, Some(template)) {
        Fit::Unreadable => {
            faults.invalid(
                &place,
                selector.cloned().unwrap_or_default(),
                "invalid label selector",
            );
            return;
        }
        Fit::Misses => templates::misses(&here, Some(template), faults),
        Fit::Fits => {}
    }
    templates::template(&here, template, faults);
    templates::runs_for_ever(&here, template, "ReplicaSet", faults);
}

fn deployment_strategy(object: &Value, faults: &mut Faults) {
    let place = SPEC.field("strategy");
    let strategy = in_spec(object, "strategy").cloned().unwrap_or_default();
    let rolling = at(&strategy, &["rollingUpdate"]);
    let here = place.field("rollingUpdate");
    match text(&strategy, &["type"]) {
        "Recreate" if rolling.is_some() => {
            faults.forbidden(&here, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => match rolling {
            Some(rolling) => rolling_deployment(&here, rolling, faults),
            None => faults.required(&here, "this should be defaulted and never be nil"),
        },
        _ => faults.not_supported(&place, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_deployment(place: &Place<'_>, rolling: &Value, faults: &mut Faults) {
    let (unavailable, surge) = (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
    let here = place.field("maxUnavailable");
    count_or_share(&here, unavailable, faults);
    count_or_share(&place.field("maxSurge"), surge, faults);
    if is_zero(unavailable) && is_zero(surge) {
        let value = unavailable.cloned().unwrap_or_default();
        faults.invalid(&here, value, "may not be 0 when `maxSurge` is 0");
    }
    at_most_all(&here, unavailable, faults);
}

pub(super) fn stateful_set(object: &Value, faults: &mut Faults) {
    let policies = ["OrderedReady", "Parallel"];
    match text(object, &["spec", "podManagementPolicy"]) {
        "" => faults.required(&SPEC.field("podManagementPolicy"), ""),
        policy if policies.contains(&policy) => {}
        policy => faults.invalid(
            &SPEC.field("podManagementPolicy"),
            policy,
            "must be 'OrderedReady' or 'Parallel'",
        ),
    }
    stateful_update(object, faults);
    claim_retention(object, faults);
    non_negative(
        object,
        &["replicas", "minReadySeconds", "revisionHistoryLimit"],
        faults,
    );
    let ordinals = SPEC.field("ordinals");
    faults.non_negative(
        &ordinals.field("start"),
        at(object, &["spec", "ordinals", "start"]),
    );
    let selector = in_spec(object, "selector");
    let place = SPEC.field("selector");
    templates::own_selector(
        &place,
        selector,
        "empty selector is invalid for statefulset",
        faults,
    );
    let empty = Value::Object(Map::new());
    let template = in_spec(object, "template").unwrap_or(&empty);
    let here = SPEC.field("template");
    match templates::fit(selector, Some(template)) {
        Fit::Unreadable => faults.invalid(&place, selector.cloned().unwrap_or_default(), ""),
        Fit::Misses => templates::misses(&here, Some(template), faults),
        Fit::Fits => {}
    }
    // The volumes of claims are not among those of the template, so that the rest of it can't be checked here.
    templates::labels_and_annotations(&here, template, faults);
    templates::always_restarts(&here, template, faults);
    if let Some(deadline) = at(template, &["spec", "activeDeadlineSeconds"]) {
        let spec = here.field("spec");
        faults.invalid(
            &spec.field("activeDeadlineSeconds"),
            deadline.clone(),
            "must not be specified",
        );
    }
}

fn stateful_update(object: &Value, faults: &mut Faults) {
    let place = SPEC.field("updateStrategy");
    let strategy = in_spec(object, "updateStrategy").cloned().unwrap_or_default();
    let here = place.field("rollingUpdate");
    match (text(&strategy, &["type"]), at(&strategy, &["rollingUpdate"])) {
        ("", _) => faults.required(&place, ""),
        ("OnDelete", Some(rolling)) => faults.invalid(
            &here,
            rolling.clone(),
            "only allowed for updateStrategy 'RollingUpdate'",
        ),
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            faults.non_negative(&here.field("partition"), at(rolling, &["partition"]));
            let unavailable = at(rolling, &["maxUnavailable"]);
            let here = here.field("maxUnavailable");
            count_or_share(&here, unavailable, faults);
            if unavailable.is_some() && is_zero(unavailable) {
                faults.invalid(&here, unavailable.cloned().unwrap_or_default(), "cannot be 0");
            }
            at_most_all(&here, unavailable, faults);
        }
        _ => faults.invalid(&place, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn claim_retention(object: &Value, faults: &mut Faults) {
    let Some(policy) = in_spec(object, "persistentVolumeClaimRetentionPolicy") else {
        return;
    };
    let place = SPEC.field("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        let value = text(policy, &[name]);
        if !matches!(value, "Retain" | "Delete") {
            faults.not_supported(&place.field(name), value, &["Retain", "Delete"]);
        }
    }
}

pub(super) fn stateful_set_update(old: &Value, new: &Value, faults: &mut Faults) {
    let fixed = |object: &Value| -> Map<String, Value> {
        let mut spec = map(object, &["spec"]).cloned().unwrap_or_default();
        spec.retain(|name, value| !MAY_CHANGE.contains(&name.as_str()) && !value.is_null());
        spec
    };
    if fixed(old) != fixed(new) {
        faults.forbidden(&SPEC, MAY_CHANGE_DETAIL);
    }
}

pub(super) fn daemon_set(object: &Value, faults: &mut Faults) {
    let selector = in_spec(object, "selector");
    let place = SPEC.field("selector");
    if let Some(selector) = selector {
        selectors::labels(&place, selector, faults);
    }
    let empty = Value::Object(Map::new());
    let template = in_spec(object, "template").unwrap_or(&empty);
    let here = SPEC.field("template");
    if templates::fit(selector, Some(template)) == Fit::Misses {
        templates::misses(&here, Some(template), faults);
    }
    if let Some(selector) = selector.filter(|selector| templates::is_empty(selector)) {
        faults.invalid(
            &place,
            selector.clone(),
            "empty selector is invalid for daemonset",
        );
    }
    templates::template(&here, template, faults);
    templates::runs_for_ever(&here, template, "DaemonSet", faults);
    non_negative(object, &["minReadySeconds"], faults);
    daemon_update(object, faults);
    non_negative(object, &["revisionHistoryLimit"], faults);
}

fn daemon_update(object: &Value, faults: &mut Faults) {
    let place = SPEC.field("updateStrategy");
    let strategy = in_spec(object, "updateStrategy").cloned().unwrap_or_default();
    let here = place.field("rollingUpdate");
    match (text(&strategy, &["type"]), at(&strategy, &["rollingUpdate"])) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => faults.required(&here, ""),
        ("RollingUpdate", Some(rolling)) => rolling_daemons(&here, rolling, faults),
        _ => faults.not_supported(&place, strategy.clone(), &["RollingUpdate", "OnDelete"]),
    }
}

fn rolling_daemons(place: &Place<'_>, rolling: &Value, faults: &mut Faults) {
    let (unavailable, surge) = (at(rolling, &["maxUnavailable"]), at(rolling, &["maxSurge"]));
    let (here, there) = (place.field("maxUnavailable"), place.field("maxSurge"));
    count_or_share(&here, unavailable, faults);
    count_or_share(&there, surge, faults);
    at_most_all(&here, unavailable, faults);
    at_most_all(&there, surge, faults);
    match (is_zero(unavailable), is_zero(surge)) {
        (false, false) => faults.invalid(
            &there,
            surge.cloned().unwrap_or_default(),
            "may not be set when maxUnavailable is non-zero",
        ),
        (true, true) => faults.required(&here, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

/// Whom a Deployment, ReplicaSet or DaemonSet selects is settled when it is made.
pub(super) fn selector_stays(old: &Value, new: &Value, faults: &mut Faults) {
    faults.immutable(
        &SPEC.field("selector"),
        in_spec(old, "selector"),
        in_spec(new, "selector"),
    );
}

pub(super) fn revision(object: &Value, faults: &mut Faults) {
    if at(object, &["data"]).is_none() {
        faults.required(&Place::top("data"), "data is mandatory");
    }
    faults.non_negative(&Place::top("revision"), at(object, &["revision"]));
}

pub(super) fn revision_update(old: &Value, new: &Value, faults: &mut Faults) {
    faults.immutable(&Place::top("data"), at(old, &["data"]), at(new, &["data"]));
}

pub(super) fn replication_controller(object: &Value, faults: &mut Faults) {
    non_negative(object, &["minReadySeconds"], faults);
    let selector = map(object, &["spec", "selector"]).filter(|selector| !selector.is_empty());
    match selector {
        None => faults.required(&SPEC.field("selector"), ""),
        Some(selector) => metadata::labels(&SPEC.field("selector"), selector, faults),
    }
    non_negative(object, &["replicas"], faults);
    let place = SPEC.field("template");
    let Some(template) = in_spec(object, "template") else {
        return faults.required(&place, "");
    };
    let is_there = |(key, value): (&String, &Value)| {
        map(template, &["metadata", "labels"]).and_then(|labels| labels.get(key)) == Some(value)
    };
    if selector.is_some_and(|selector| !selector.iter().all(is_there)) {
        templates::misses(&place, Some(template), faults);
    }
    templates::template(&place, template, faults);
    templates::runs_for_ever(&place, template, "ReplicationController", faults);
}
