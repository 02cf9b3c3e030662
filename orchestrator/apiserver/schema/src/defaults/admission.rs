//! Webhooks, admission policies, and servers behind this one.

use serde_json::{Map, Value};

use super::{child, elements, existing};
use crate::object::{set_default, set_if_empty};

const HTTPS: i32 = 443;
const TIMEOUT_SECONDS: i32 = 10;

pub(super) fn webhooks(object: &mut Map<String, Value>, may_change: bool) {
    for webhook in elements(object, "webhooks") {
        set_if_empty(webhook, "failurePolicy", "Fail");
        set_default(webhook, "timeoutSeconds", TIMEOUT_SECONDS);
        if may_change {
            set_if_empty(webhook, "reinvocationPolicy", "Never");
        }
        matching(webhook);
        scopes(webhook, "rules");
        if let Some(config) = existing(webhook, "clientConfig") {
            service(config);
        }
    }
}

fn service(config: &mut Map<String, Value>) {
    if let Some(service) = existing(config, "service") {
        set_default(service, "port", HTTPS);
    }
}

/// Which objects are meant: all, unless it says otherwise.
fn matching(object: &mut Map<String, Value>) {
    set_if_empty(object, "matchPolicy", "Equivalent");
    set_default(object, "namespaceSelector", Map::new());
    set_default(object, "objectSelector", Map::new());
}

fn scopes(object: &mut Map<String, Value>, rules: &str) {
    for rule in elements(object, rules) {
        set_if_empty(rule, "scope", "*");
    }
}

pub(super) fn policy(object: &mut Map<String, Value>) {
    let Some(spec) = child(object, "spec") else { return };
    set_if_empty(spec, "failurePolicy", "Fail");
    if let Some(constraints) = existing(spec, "matchConstraints") {
        constraint(constraints);
    }
}

pub(super) fn policy_binding(object: &mut Map<String, Value>) {
    let resources = existing(object, "spec").and_then(|spec| existing(spec, "matchResources"));
    if let Some(resources) = resources {
        constraint(resources);
    }
}

fn constraint(constraint: &mut Map<String, Value>) {
    matching(constraint);
    scopes(constraint, "resourceRules");
    scopes(constraint, "excludeResourceRules");
}

pub(super) fn api_service(object: &mut Map<String, Value>) {
    if let Some(spec) = existing(object, "spec") {
        service(spec);
    }
}
