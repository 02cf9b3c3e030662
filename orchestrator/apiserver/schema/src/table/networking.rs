//! Ingresses, network policies, slices of endpoints, addresses of services.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, name, object_age, text_or};
use crate::object::{at, list, text};
use crate::selector::describe;

/// Items beyond this number are only counted.
const SHOWN: usize = 3;

pub(super) const INGRESS_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Class", "Who serves it."),
    Column::text("Hosts", "Names it is for."),
    Column::text("Address", "Where it is reached."),
    Column::text("Ports", "Ports it is reached at."),
    AGE,
];

pub(super) fn ingress_row(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let rules = list(ingress, &["spec", "rules"]).iter();
    let hosts: Vec<&str> = rules
        .map(|rule| text(rule, &["host"]))
        .filter(|host| !host.is_empty())
        .collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        1..=SHOWN => hosts.join(","),
        count => format!("{} + {} more...", hosts[..SHOWN].join(","), count - SHOWN),
    };
    let balancers = list(ingress, &["status", "loadBalancer", "ingress"]).iter();
    let addresses: Vec<&str> = balancers
        .map(|one| text_or(one, &["ip"], text(one, &["hostname"])))
        .collect();
    let ports = if list(ingress, &["spec", "tls"]).is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(ingress),
        text_or(ingress, &["spec", "ingressClassName"], "<none>").into(),
        hosts.into(),
        addresses.join(",").into(),
        ports.into(),
        object_age(ingress, now),
    ]
}

pub(super) const INGRESS_CLASS_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Controller", "Who serves ingresses of this class."),
    Column::text("Parameters", "The object with its settings."),
    AGE,
];

pub(super) fn ingress_class_row(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = at(class, &["spec", "parameters"]).map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let group = text(parameters, &["apiGroup"]);
            let dot = if group.is_empty() { "" } else { "." };
            format!(
                "{}{dot}{group}/{}",
                text(parameters, &["kind"]),
                text(parameters, &["name"])
            )
        },
    );
    vec![
        name(class),
        text(class, &["spec", "controller"]).into(),
        parameters.into(),
        object_age(class, now),
    ]
}

pub(super) const POLICY_COLUMNS: &[Column] =
    &[NAME, Column::text("Pod-Selector", "Which pods it is for."), AGE];

pub(super) fn policy_row(policy: &Value, now: Timestamp) -> Vec<Value> {
    let selector = at(policy, &["spec", "podSelector"])
        .map(describe)
        .unwrap_or_default();
    let selector = if selector.is_empty() {
        "<none>".to_owned()
    } else {
        selector
    };
    vec![name(policy), selector.into(), object_age(policy, now)]
}

pub(super) const SLICE_COLUMNS: &[Column] = &[
    NAME,
    Column::text("AddressType", "What its addresses are."),
    Column::text("Ports", "Ports of the endpoints."),
    Column::text("Endpoints", "Addresses of the endpoints."),
    AGE,
];

pub(super) fn slice_row(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports = list(slice, &["ports"]).iter();
    let ports: Vec<String> = ports
        .map(|port| {
            port.get("port")
                .map_or_else(|| "*".to_owned(), ToString::to_string)
        })
        .collect();
    let addresses = list(slice, &["endpoints"]).iter();
    let addresses: Vec<String> = addresses
        .flat_map(|endpoint| list(endpoint, &["addresses"]))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        name(slice),
        text(slice, &["addressType"]).into(),
        some_of(&ports, "<unset>").into(),
        some_of(&addresses, "<unset>").into(),
        object_age(slice, now),
    ]
}

fn some_of(items: &[String], absent: &str) -> String {
    match items.len() {
        0 => absent.to_owned(),
        1..=SHOWN => items.join(","),
        count => format!("{} + {} more...", items[..SHOWN].join(","), count - SHOWN),
    }
}

pub(super) const ADDRESS_COLUMNS: &[Column] = &[
    NAME,
    Column::text("ParentRef", "The object that has this address."),
];

pub(super) fn address_row(address: &Value, _now: Timestamp) -> Vec<Value> {
    let parent = |field: &str| text(address, &["spec", "parentRef", field]);
    let parts = [
        parent("group"),
        parent("resource"),
        parent("namespace"),
        parent("name"),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    vec![name(address), parts.join("/").into()]
}

pub(super) const RANGE_COLUMNS: &[Column] = &[NAME, Column::text("CIDRs", "The ranges of addresses."), AGE];

pub(super) fn range_row(range: &Value, now: Timestamp) -> Vec<Value> {
    let ranges: Vec<&str> = list(range, &["spec", "cidrs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![name(range), ranges.join(",").into(), object_age(range, now)]
}
