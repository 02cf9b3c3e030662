//! Roles and their bindings.

use serde_json::Value;

use super::faults::Faults;
use super::selectors;
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(role: &Value, is_namespaced: bool, faults: &mut Faults) {
    let place = Place::top("rules");
    for (index, rule) in list(role, &["rules"]).iter().enumerate() {
        self::rule(&place.index(index), rule, is_namespaced, faults);
    }
    let aggregated = Place::top("aggregationRule");
    let place = aggregated.field("clusterRoleSelectors");
    for (index, selector) in list(role, &["aggregationRule", "clusterRoleSelectors"])
        .iter()
        .enumerate()
    {
        selectors::labels(&place.index(index), selector, faults);
    }
}

fn rule(place: &Place<'_>, rule: &Value, is_namespaced: bool, faults: &mut Faults) {
    let has = |name| !list(rule, &[name]).is_empty();
    if !has("verbs") {
        faults.required(&place.field("verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        let urls = || Value::Array(list(rule, &["nonResourceURLs"]).to_vec());
        if is_namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            faults.invalid(&place.field("nonResourceURLs"), urls(), detail);
        }
        if ["apiGroups", "resources", "resourceNames"]
            .iter()
            .any(|name| has(name))
        {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            faults.invalid(&place.field("nonResourceURLs"), urls(), detail);
        }
        return;
    }
    if !has("apiGroups") {
        faults.required(
            &place.field("apiGroups"),
            "resource rules must supply at least one api group",
        );
    }
    if !has("resources") {
        faults.required(
            &place.field("resources"),
            "resource rules must supply at least one resource",
        );
    }
}

pub(super) fn binding(binding: &Value, is_namespaced: bool, faults: &mut Faults) {
    let place = Place::top("roleRef");
    let group = text(binding, &["roleRef", "apiGroup"]);
    if group != RBAC_GROUP {
        faults.not_supported(&place.field("apiGroup"), group, &[RBAC_GROUP]);
    }
    let kinds: &[&str] = if is_namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let kind = text(binding, &["roleRef", "kind"]);
    if !kinds.contains(&kind) {
        faults.not_supported(&place.field("kind"), kind, kinds);
    }
    match text(binding, &["roleRef", "name"]) {
        "" => faults.required(&place.field("name"), ""),
        name => faults.invalid_each(&place.field("name"), name, &names::path_segment(name)),
    }
    let place = Place::top("subjects");
    for (index, subject) in list(binding, &["subjects"]).iter().enumerate() {
        self::subject(&place.index(index), subject, is_namespaced, faults);
    }
}

fn subject(place: &Place<'_>, subject: &Value, is_namespaced: bool, faults: &mut Faults) {
    let (name, group) = (text(subject, &["name"]), text(subject, &["apiGroup"]));
    if name.is_empty() {
        faults.required(&place.field("name"), "");
    }
    match text(subject, &["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                faults.invalid_each(&place.field("name"), name, &names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                faults.not_supported(&place.field("apiGroup"), group, &[""]);
            }
            if !is_namespaced && text(subject, &["namespace"]).is_empty() {
                faults.required(&place.field("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != RBAC_GROUP {
                faults.not_supported(&place.field("apiGroup"), group, &[RBAC_GROUP]);
            }
        }
        kind => faults.not_supported(&place.field("kind"), kind, &["ServiceAccount", "User", "Group"]),
    }
}

pub(super) fn binding_update(old: &Value, new: &Value, faults: &mut Faults) {
    let (before, after) = (at(old, &["roleRef"]), at(new, &["roleRef"]));
    if before != after {
        faults.invalid(
            &Place::top("roleRef"),
            after.cloned().unwrap_or_default(),
            "cannot change roleRef",
        );
    }
}
