//! Network policies, ingress classes, slices of endpoints.

use serde_json::{Map, Value};

use super::{child, elements, existing};
use crate::object::{is_empty, set_default, set_if_empty};

pub(super) fn network_policy(object: &mut Map<String, Value>) {
    let Some(spec) = child(object, "spec") else { return };
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in elements(spec, list) {
            for port in elements(rule, "ports") {
                set_default(port, "protocol", "TCP");
            }
            // An empty list of peers is none at all.
            if is_empty(rule.get(peers)) {
                rule.remove(peers);
            }
        }
    }
    let kinds: &[&str] = if is_empty(spec.get("egress")) {
        &["Ingress"]
    } else {
        &["Ingress", "Egress"]
    };
    set_if_empty(spec, "policyTypes", kinds.to_vec());
}

pub(super) fn ingress_class(object: &mut Map<String, Value>) {
    let parameters = existing(object, "spec").and_then(|spec| existing(spec, "parameters"));
    if let Some(parameters) = parameters {
        set_default(parameters, "scope", "Cluster");
    }
}

pub(super) fn endpoint_slice(object: &mut Map<String, Value>) {
    for port in elements(object, "ports") {
        set_default(port, "name", "");
        set_default(port, "protocol", "TCP");
    }
}
