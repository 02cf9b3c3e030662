//! Probes and lifecycle hooks.

use serde_json::Value;

use super::faults::Faults;
use super::services;
use crate::object::{at, text};
use crate::place::Place;

/// Probes and hooks of a container.
pub(super) fn all(place: &Place<'_>, container: &Value, faults: &mut Faults) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = at(container, &[name]) {
            self::probe(&place.field(name), name, probe, faults);
        }
    }
    let lifecycle = place.field("lifecycle");
    for name in ["postStart", "preStop"] {
        if let Some(hook) = at(container, &["lifecycle", name]) {
            handler(
                &lifecycle.field(name),
                hook,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                faults,
            );
        }
    }
}

fn probe(place: &Place<'_>, name: &str, probe: &Value, faults: &mut Faults) {
    handler(place, probe, &["exec", "httpGet", "tcpSocket", "grpc"], faults);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        faults.non_negative(&place.field(field), at(probe, &[field]));
    }
    let successes = at(probe, &["successThreshold"])
        .and_then(Value::as_i64)
        .unwrap_or(1);
    if name != "readinessProbe" && successes != 1 {
        faults.invalid(&place.field("successThreshold"), successes, "must be 1");
    }
    let grace = at(probe, &["terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    if let Some(seconds) = grace.filter(|&seconds| seconds <= 0) {
        faults.invalid(
            &place.field("terminationGracePeriodSeconds"),
            seconds,
            "must be greater than 0",
        );
    }
    if name == "readinessProbe" && grace.is_some() {
        faults.invalid(
            &place.field("terminationGracePeriodSeconds"),
            grace,
            "must not be set for readinessProbes",
        );
    }
}

fn handler(place: &Place<'_>, handler: &Value, kinds: &[&str], faults: &mut Faults) {
    let mut given = kinds
        .iter()
        .filter_map(|kind| Some((*kind, at(handler, &[kind])?)));
    let Some((kind, action)) = given.next() else {
        return faults.required(place, "must specify a handler type");
    };
    for (other, _) in given {
        faults.forbidden(&place.field(other), "may not specify more than 1 handler type");
    }
    let here = place.field(kind);
    match kind {
        "exec" => {
            if crate::object::list(action, &["command"]).is_empty() {
                faults.required(&here.field("command"), "");
            }
        }
        "httpGet" => {
            if text(action, &["path"]).is_empty() {
                faults.required(&here.field("path"), "");
            }
            services::port_reference(&here.field("port"), at(action, &["port"]), faults);
            faults.one_of_if_set(
                &here.field("scheme"),
                text(action, &["scheme"]),
                &["HTTP", "HTTPS"],
            );
        }
        "tcpSocket" => services::port_reference(&here.field("port"), at(action, &["port"]), faults),
        "grpc" => services::port_number(&here.field("port"), at(action, &["port"]), faults),
        _ => {
            let seconds = at(action, &["seconds"]).and_then(Value::as_i64).unwrap_or(0);
            if seconds < 0 {
                faults.invalid(
                    &here.field("seconds"),
                    seconds,
                    "must be greater than or equal to 0",
                );
            }
        }
    }
}
