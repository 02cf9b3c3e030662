//! Nodes, namespaces, configuration, identities and leases.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, flag, name, object_age, text_or};
use crate::object::{list, map, text};

pub(super) const NODE_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Status", "Whether the node is ready and takes pods."),
    Column::text("Roles", "What the node is for, from its labels."),
    AGE,
    Column::text("Version", "Version of the kubelet."),
    Column::text("Internal-IP", "Address inside the cluster.").wide(),
    Column::text("External-IP", "Address outside the cluster.").wide(),
    Column::text("OS-Image", "Operating system.").wide(),
    Column::text("Kernel-Version", "Version of the kernel.").wide(),
    Column::text("Container-Runtime", "Container runtime and its version.").wide(),
];

pub(super) fn node_row(node: &Value, now: Timestamp) -> Vec<Value> {
    let info = |field: &str| text_or(node, &["status", "nodeInfo", field], "<unknown>");
    vec![
        name(node),
        node_status(node).into(),
        node_roles(node).into(),
        object_age(node, now),
        text(node, &["status", "nodeInfo", "kubeletVersion"]).into(),
        node_address(node, "InternalIP").into(),
        node_address(node, "ExternalIP").into(),
        info("osImage").into(),
        kernel(node).into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn kernel(node: &Value) -> String {
    let version = text_or(node, &["status", "nodeInfo", "kernelVersion"], "<unknown>");
    match text(node, &["status", "nodeInfo", "architecture"]) {
        "" => version.to_owned(),
        architecture => format!("{version} ({architecture})"),
    }
}

fn node_status(node: &Value) -> String {
    let mut conditions = list(node, &["status", "conditions"]).iter();
    let ready = conditions.find(|one| text(one, &["type"]) == "Ready");
    let status = match ready.map(|one| text(one, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if flag(node, &["spec", "unschedulable"], false) {
        format!("{status},SchedulingDisabled")
    } else {
        status.to_owned()
    }
}

fn node_roles(node: &Value) -> String {
    let labels = map(node, &["metadata", "labels"]).into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn node_address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let mut addresses = list(node, &["status", "addresses"]).iter();
    let found = addresses.find(|one| text(one, &["type"]) == kind);
    found.map_or("<none>", |one| text_or(one, &["address"], "<none>"))
}

pub(super) const NAMESPACE_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Status", "Whether the namespace is in use or going away."),
    AGE,
];

pub(super) fn namespace_row(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(namespace),
        text(namespace, &["status", "phase"]).into(),
        object_age(namespace, now),
    ]
}

pub(super) const CONFIG_MAP_COLUMNS: &[Column] =
    &[NAME, Column::text("Data", "How many keys there are."), AGE];

pub(super) fn config_map_row(config: &Value, now: Timestamp) -> Vec<Value> {
    let keys = entries(config, "data") + entries(config, "binaryData");
    vec![name(config), keys.into(), object_age(config, now)]
}

fn entries(object: &Value, field: &str) -> usize {
    map(object, &[field]).map_or(0, serde_json::Map::len)
}

pub(super) const SECRET_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Type", "What the secret is for."),
    Column::text("Data", "How many keys there are."),
    AGE,
];

pub(super) fn secret_row(secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(secret),
        text(secret, &["type"]).into(),
        entries(secret, "data").into(),
        object_age(secret, now),
    ]
}

pub(super) const SERVICE_ACCOUNT_COLUMNS: &[Column] = &[NAME, AGE];

pub(super) fn service_account_row(account: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(account), object_age(account, now)]
}

pub(super) const LEASE_COLUMNS: &[Column] = &[NAME, Column::text("Holder", "Who holds the lease."), AGE];

pub(super) fn lease_row(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(lease),
        text(lease, &["spec", "holderIdentity"]).into(),
        object_age(lease, now),
    ]
}

pub(super) const COMPONENT_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Status", "Whether the component is well."),
    Column::text("Message", "What it says of itself."),
    Column::text("Error", "What is wrong with it."),
];

pub(super) fn component_row(component: &Value, _now: Timestamp) -> Vec<Value> {
    let mut conditions = list(component, &["conditions"]).iter();
    let healthy = conditions.find(|one| text(one, &["type"]) == "Healthy");
    let status = match healthy.map(|one| text(one, &["status"])) {
        Some("True") => "Healthy",
        Some("False") => "Unhealthy",
        _ => "Unknown",
    };
    let of = |field: &str| healthy.map_or("", |one| text(one, &[field]));
    vec![
        name(component),
        status.into(),
        of("message").into(),
        of("error").into(),
    ]
}
