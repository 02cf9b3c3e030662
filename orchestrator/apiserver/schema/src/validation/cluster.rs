//! Configuration, nodes, identities, leases and events.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::faults::Faults;
use super::resources;
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;

/// All values of a ConfigMap or Secret together.
const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Events: the text, and the parts that say who tells it.
const EVENT_NOTE_BYTES_MAX: usize = 1024;
const SPEC: Place<'static> = Place::top("spec");

fn data(object: &Value, name: &str, faults: &mut Faults) -> usize {
    let place = Place::top(name);
    let mut bytes = 0;
    for (key, value) in map(object, &[name]).into_iter().flatten() {
        faults.invalid_each(&place.key(key), key, &names::config_key(key));
        bytes += value.as_str().map_or(0, str::len);
    }
    bytes
}

pub(super) fn config_map(config: &Value, faults: &mut Faults) {
    let texts = data(config, "data", faults);
    // Base64 has four characters for three bytes.
    let binary = data(config, "binaryData", faults) / 4 * 3;
    for key in map(config, &["data"]).into_iter().flatten().map(|(key, _)| key) {
        if at(config, &["binaryData", key]).is_some() {
            let place = Place::top("data");
            faults.invalid(
                &place.key(key),
                key.as_str(),
                "duplicate of key present in binaryData",
            );
        }
    }
    if texts + binary > DATA_BYTES_MAX {
        // The whole object is meant; upstream has no better name for it.
        faults.too_long(&Place::top("[]"), DATA_BYTES_MAX);
    }
}

pub(super) fn secret(secret: &Value, faults: &mut Faults) {
    let bytes = data(secret, "data", faults) / 4 * 3;
    if bytes > DATA_BYTES_MAX {
        faults.too_long(&Place::top("data"), DATA_BYTES_MAX);
    }
    let place = Place::top("data");
    let has = |key: &str| at(secret, &["data", key]).is_some();
    let is_json = |key: &str| {
        let bytes = STANDARD.decode(text(secret, &["data", key])).unwrap_or_default();
        serde_json::from_slice::<Value>(&bytes).is_ok()
    };
    match text(secret, &["type"]) {
        "kubernetes.io/service-account-token"
            if text(
                secret,
                &["metadata", "annotations", "kubernetes.io/service-account.name"],
            )
            .is_empty() =>
        {
            let place = Place::top("metadata");
            faults.required(
                &place
                    .field("annotations")
                    .key("kubernetes.io/service-account.name"),
                "",
            );
        }
        kind @ ("kubernetes.io/dockerconfigjson" | "kubernetes.io/dockercfg") => {
            let key = if kind.ends_with("json") {
                ".dockerconfigjson"
            } else {
                ".dockercfg"
            };
            if !has(key) {
                faults.required(&place.key(key), "");
            } else if !is_json(key) {
                faults.invalid(
                    &place.key(key),
                    "<secret contents redacted>",
                    "invalid character in JSON",
                );
            }
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            faults.required(&place.key("username"), "");
            faults.required(&place.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if text(secret, &["data", "ssh-privatekey"]).is_empty() => {
            faults.required(&place.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                faults.required(&place.key(key), "");
            }
        }
        _ => {}
    }
}

/// ConfigMaps and Secrets: once immutable, always immutable; a Secret never changes its type.
pub(super) fn immutable_data(old: &Value, new: &Value, faults: &mut Faults) {
    faults.immutable(&Place::top("type"), at(old, &["type"]), at(new, &["type"]));
    if at(old, &["immutable"]).and_then(Value::as_bool) != Some(true) {
        return;
    }
    if at(new, &["immutable"]).and_then(Value::as_bool) != Some(true) {
        faults.forbidden(
            &Place::top("immutable"),
            "field is immutable when `immutable` is set",
        );
    }
    for name in ["data", "binaryData"] {
        if at(old, &[name]) != at(new, &[name]) {
            faults.forbidden(&Place::top(name), "field is immutable when `immutable` is set");
        }
    }
}

pub(super) fn node(node: &Value, faults: &mut Faults) {
    // Upstream names them so.
    let place = Place::top("metadata");
    let place = place.field("taints");
    let taints = list(node, &["spec", "taints"]);
    for (index, taint) in taints.iter().enumerate() {
        let here = place.index(index);
        let (key, value) = (text(taint, &["key"]), text(taint, &["value"]));
        faults.invalid_each(&here.field("key"), key, &names::qualified_name(key));
        faults.invalid_each(&here.field("value"), value, &names::label_value(value));
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        faults.one_of(&here.field("effect"), text(taint, &["effect"]), &effects);
        let is_same = |other: &Value| {
            ["key", "effect"]
                .iter()
                .all(|field| other.get(field) == taint.get(field))
        };
        if taints[..index].iter().any(is_same) {
            faults.duplicate_by(
                &here,
                taint.clone(),
                "taints must be unique by key and effect pair",
            );
        }
    }
    node_status(node, faults);
}

pub(super) fn node_status(node: &Value, faults: &mut Faults) {
    let status = Place::top("status");
    for name in ["capacity", "allocatable"] {
        let place = status.field(name);
        for (resource, amount) in map(node, &["status", name]).into_iter().flatten() {
            resources::non_negative(&place.field(resource), amount, faults);
        }
    }
    let addresses = list(node, &["status", "addresses"]);
    let place = status.field("addresses");
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            faults.duplicate(&place.index(index), address.clone());
        }
    }
}

pub(super) fn service_account(account: &Value, faults: &mut Faults) {
    for name in ["secrets", "imagePullSecrets"] {
        let place = Place::top(name);
        for (index, secret) in list(account, &[name]).iter().enumerate() {
            let secret = text(secret, &["name"]);
            if !secret.is_empty() {
                faults.invalid_each(
                    &place.index(index).field("name"),
                    secret,
                    &names::dns1123_subdomain(secret),
                );
            }
        }
    }
}

pub(super) fn lease(lease: &Value, faults: &mut Faults) {
    let duration = at(lease, &["spec", "leaseDurationSeconds"]).and_then(Value::as_i64);
    if let Some(seconds) = duration.filter(|&seconds| seconds <= 0) {
        faults.invalid(
            &SPEC.field("leaseDurationSeconds"),
            seconds,
            "must be greater than 0",
        );
    }
    faults.non_negative(
        &SPEC.field("leaseTransitions"),
        at(lease, &["spec", "leaseTransitions"]),
    );
}

pub(super) fn event(event: &Value, faults: &mut Faults) {
    let object = Place::top("involvedObject");
    let (own, about) = (
        text(event, &["metadata", "namespace"]),
        text(event, &["involvedObject", "namespace"]),
    );
    // Events on objects without a namespace live in the default one.
    let fits = if about.is_empty() {
        matches!(own, "default" | "kube-system") || own.is_empty()
    } else {
        own == about
    };
    if !fits {
        faults.invalid(
            &object.field("namespace"),
            about,
            "does not match event.namespace",
        );
    }
    // Only events in the newer form, which have an exact time, are held to the rest.
    if at(event, &["eventTime"]).is_none() {
        return;
    }
    let controller = text(event, &["reportingComponent"]);
    if controller.is_empty() {
        faults.required(&Place::top("reportingComponent"), "");
    } else {
        faults.invalid_each(
            &Place::top("reportingComponent"),
            controller,
            &names::qualified_name(controller),
        );
    }
    for (name, bytes_max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        match text(event, &[name]) {
            "" => faults.required(&Place::top(name), ""),
            value if value.len() > bytes_max => {
                faults.invalid(
                    &Place::top(name),
                    "",
                    &format!("can have at most {bytes_max} characters"),
                );
            }
            _ => {}
        }
    }
    if text(event, &["message"]).len() > EVENT_NOTE_BYTES_MAX {
        let detail = format!("can have at most {EVENT_NOTE_BYTES_MAX} characters");
        faults.invalid(&Place::top("message"), "", &detail);
    }
    faults.one_of_if_set(
        &Place::top("type"),
        text(event, &["type"]),
        &["Normal", "Warning"],
    );
}
