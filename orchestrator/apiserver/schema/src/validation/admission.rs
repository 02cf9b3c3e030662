//! Admission webhooks and policies, as data: nothing is called or evaluated here.

use serde_json::Value;

use super::faults::Faults;
use super::selectors;
use crate::cel::names::{OF_POLICY, OF_POLICY_CONDITION, OF_WEBHOOK_CONDITION};
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const NAME_SEGMENTS_MIN: usize = 3;

pub(super) fn webhooks(object: &Value, may_change: bool, faults: &mut Faults) {
    let place = Place::top("webhooks");
    let webhooks = list(object, &["webhooks"]);
    for (index, webhook) in webhooks.iter().enumerate() {
        let here = place.index(index);
        let name = text(webhook, &["name"]);
        if webhooks[..index]
            .iter()
            .any(|other| text(other, &["name"]) == name)
        {
            faults.duplicate(&here.field("name"), name);
        }
        self::webhook(&here, webhook, faults);
        if may_change {
            faults.one_of_if_set(
                &here.field("reinvocationPolicy"),
                text(webhook, &["reinvocationPolicy"]),
                &["IfNeeded", "Never"],
            );
        }
    }
}

fn webhook(place: &Place<'_>, webhook: &Value, faults: &mut Faults) {
    qualified(&place.field("name"), text(webhook, &["name"]), faults);
    rules(&place.field("rules"), list(webhook, &["rules"]), faults);
    client(&place.field("clientConfig"), webhook, faults);
    review_versions(&place.field("admissionReviewVersions"), webhook, faults);
    faults.one_of(
        &place.field("sideEffects"),
        text(webhook, &["sideEffects"]),
        &["None", "NoneOnDryRun"],
    );
    faults.one_of_if_set(
        &place.field("failurePolicy"),
        text(webhook, &["failurePolicy"]),
        &["Fail", "Ignore"],
    );
    let seconds = at(webhook, &["timeoutSeconds"]).and_then(Value::as_i64);
    if let Some(seconds) = seconds.filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        faults.invalid(&place.field("timeoutSeconds"), seconds, detail);
    }
    matching(place, webhook, faults);
    conditions(
        &place.field("matchConditions"),
        webhook,
        OF_WEBHOOK_CONDITION,
        faults,
    );
}

fn qualified(place: &Place<'_>, name: &str, faults: &mut Faults) {
    if name.is_empty() {
        return faults.required(place, "");
    }
    faults.invalid_each(place, name, &names::dns1123_subdomain(name));
    if name.split('.').count() < NAME_SEGMENTS_MIN {
        let detail = "should be a domain with at least three segments separated by dots";
        faults.invalid(place, name, detail);
    }
}

fn rules(place: &Place<'_>, rules: &[Value], faults: &mut Faults) {
    for (index, rule) in rules.iter().enumerate() {
        let here = place.index(index);
        for name in ["apiGroups", "apiVersions", "resources", "operations"] {
            if list(rule, &[name]).is_empty() {
                faults.required(&here.field(name), "");
            }
        }
        let operations = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        for (at, operation) in list(rule, &["operations"]).iter().enumerate() {
            let operation = operation.as_str().unwrap_or_default();
            if !operations.contains(&operation) {
                let all = here.field("operations");
                faults.not_supported(&all.index(at), operation, &operations);
            }
        }
        faults.one_of_if_set(
            &here.field("scope"),
            text(rule, &["scope"]),
            &["*", "Cluster", "Namespaced"],
        );
    }
}

fn client(place: &Place<'_>, webhook: &Value, faults: &mut Faults) {
    let url = at(webhook, &["clientConfig", "url"]).and_then(Value::as_str);
    let service = at(webhook, &["clientConfig", "service"]);
    match (url, service) {
        (None, None) | (Some(_), Some(_)) => {
            faults.required(place, "exactly one of url or service is required");
        }
        (Some(url), None) => {
            if !url.starts_with("https://") {
                let detail = "'https' is the only allowed URL scheme";
                faults.invalid(&place.field("url"), url, detail);
            }
        }
        (None, Some(service)) => {
            let place = place.field("service");
            for (name, detail) in [
                ("name", "service name is required"),
                ("namespace", "service namespace is required"),
            ] {
                if text(service, &[name]).is_empty() {
                    faults.required(&place.field(name), detail);
                }
            }
            super::services::port_number(&place.field("port"), at(service, &["port"]), faults);
            let path = text(service, &["path"]);
            if !path.is_empty() && !path.starts_with('/') {
                faults.invalid(&place.field("path"), path, "must start with a '/'");
            }
        }
    }
}

fn review_versions(place: &Place<'_>, webhook: &Value, faults: &mut Faults) {
    let versions = list(webhook, &["admissionReviewVersions"]);
    let is_known = |version: &Value| REVIEW_VERSIONS.iter().any(|known| version == known);
    if versions.is_empty() {
        faults.required(place, "must specify one of v1, v1beta1");
    } else if !versions.iter().any(is_known) {
        let all = Value::Array(versions.to_vec());
        faults.invalid(place, all, "must include at least one of v1, v1beta1");
    }
}

fn matching(place: &Place<'_>, object: &Value, faults: &mut Faults) {
    faults.one_of_if_set(
        &place.field("matchPolicy"),
        text(object, &["matchPolicy"]),
        &["Equivalent", "Exact"],
    );
    for name in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = at(object, &[name]) {
            selectors::labels(&place.field(name), selector, faults);
        }
    }
}

fn conditions(place: &Place<'_>, object: &Value, names: &[&str], faults: &mut Faults) {
    let conditions = list(object, &["matchConditions"]);
    for (index, condition) in conditions.iter().enumerate() {
        let here = place.index(index);
        let name = text(condition, &["name"]);
        if name.is_empty() {
            faults.required(&here.field("name"), "");
        } else {
            faults.invalid_each(&here.field("name"), name, &names::qualified_name(name));
        }
        let source = text(condition, &["expression"]);
        if source.trim().is_empty() {
            faults.required(&here.field("expression"), "");
        } else {
            expression(&here.field("expression"), source, names, false, faults);
        }
        if conditions[..index]
            .iter()
            .any(|other| text(other, &["name"]) == name)
        {
            faults.duplicate(&here.field("name"), name);
        }
    }
}

/// A policy; `validates` or else it changes objects.
pub(super) fn policy(policy: &Value, validates: bool, faults: &mut Faults) {
    let empty = Value::Object(serde_json::Map::new());
    let spec = at(policy, &["spec"]).unwrap_or(&empty);
    faults.one_of_if_set(
        &SPEC.field("failurePolicy"),
        text(spec, &["failurePolicy"]),
        &["Fail", "Ignore"],
    );
    if let Some(kind) = at(spec, &["paramKind"]) {
        for name in ["apiVersion", "kind"] {
            if text(kind, &[name]).is_empty() {
                faults.required(&SPEC.field("paramKind").field(name), "");
            }
        }
    }
    let place = SPEC.field("matchConstraints");
    match at(spec, &["matchConstraints"]) {
        None => faults.required(&place, ""),
        Some(constraints) => {
            let here = place.field("resourceRules");
            if list(constraints, &["resourceRules"]).is_empty() {
                faults.required(&here, "");
            }
            rules(&here, list(constraints, &["resourceRules"]), faults);
            matching(&place, constraints, faults);
        }
    }
    conditions(&SPEC.field("matchConditions"), spec, OF_POLICY_CONDITION, faults);
    variables(spec, faults);
    if validates {
        validations(spec, faults);
    } else {
        mutations(spec, faults);
    }
    if validates {
        return;
    }
    if list(spec, &["mutations"]).is_empty() {
        faults.required(
            &SPEC.field("mutations"),
            "mutations must contain at least one item",
        );
    }
}

fn variables(spec: &Value, faults: &mut Faults) {
    let place = SPEC.field("variables");
    for (index, variable) in list(spec, &["variables"]).iter().enumerate() {
        let here = place.index(index);
        let (name, source) = (text(variable, &["name"]), text(variable, &["expression"]));
        if name.is_empty() {
            faults.required(&here.field("name"), "name is not specified");
        }
        if source.trim().is_empty() {
            faults.required(&here.field("expression"), "expression is not specified");
        } else {
            expression(&here.field("expression"), source, OF_POLICY, true, faults);
        }
    }
}

fn mutations(spec: &Value, faults: &mut Faults) {
    let place = SPEC.field("mutations");
    for (index, mutation) in list(spec, &["mutations"]).iter().enumerate() {
        let here = place.index(index);
        let field = match text(mutation, &["patchType"]) {
            "JSONPatch" => "jsonPatch",
            "ApplyConfiguration" => "applyConfiguration",
            other => {
                faults.one_of(
                    &here.field("patchType"),
                    other,
                    &["ApplyConfiguration", "JSONPatch"],
                );
                continue;
            }
        };
        let here = here.field(field);
        let here = here.field("expression");
        match text(mutation, &[field, "expression"]) {
            source if source.trim().is_empty() => faults.required(&here, "expression is not specified"),
            source => expression(&here, source, OF_POLICY, true, faults),
        }
    }
}

/// An expression has to compile.
fn expression(place: &Place<'_>, source: &str, names: &[&str], makes_objects: bool, faults: &mut Faults) {
    if let Err(why) = crate::cel::Program::compile(source, names, makes_objects) {
        faults.invalid(place, source, &why);
    }
}

fn validations(spec: &Value, faults: &mut Faults) {
    let place = SPEC.field("validations");
    let validations = list(spec, &["validations"]);
    if validations.is_empty() && list(spec, &["auditAnnotations"]).is_empty() {
        faults.required(&place, "validations or auditAnnotations must be non-empty");
    }
    for (index, validation) in validations.iter().enumerate() {
        let here = place.index(index);
        let source = text(validation, &["expression"]);
        if source.trim().is_empty() {
            faults.required(&here.field("expression"), "expression is not specified");
        } else {
            expression(&here.field("expression"), source, OF_POLICY, false, faults);
        }
        let source = text(validation, &["messageExpression"]);
        if !source.trim().is_empty() {
            expression(&here.field("messageExpression"), source, OF_POLICY, false, faults);
        }
        faults.one_of_if_set(
            &here.field("reason"),
            text(validation, &["reason"]),
            &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"],
        );
    }
}

pub(super) fn policy_binding(binding: &Value, validates: bool, faults: &mut Faults) {
    let name = text(binding, &["spec", "policyName"]);
    if name.is_empty() {
        faults.required(&SPEC.field("policyName"), "");
    } else {
        faults.invalid_each(&SPEC.field("policyName"), name, &names::dns1123_subdomain(name));
    }
    if !validates {
        return;
    }
    let actions = list(binding, &["spec", "validationActions"]);
    let place = SPEC.field("validationActions");
    if actions.is_empty() {
        faults.required(&place, "at least one validation action is required");
    }
    for (index, action) in actions.iter().enumerate() {
        let text = action.as_str().unwrap_or_default();
        if !["Audit", "Deny", "Warn"].contains(&text) {
            faults.not_supported(&place.index(index), text, &["Audit", "Deny", "Warn"]);
        }
        if actions[..index].contains(action) {
            faults.duplicate(&place.index(index), text);
        }
    }
    let has = |name: &str| actions.iter().any(|action| action == name);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
            API response and headers serves no purpose)";
        faults.invalid(&place, Value::Array(actions.to_vec()), detail);
    }
}
