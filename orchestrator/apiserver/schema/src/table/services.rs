//! Services and their endpoints.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, labels, name, object_age, text_or};
use crate::object::{list, text};

/// Endpoints beyond this number are only counted.
const ENDPOINTS_SHOWN: usize = 3;

pub(super) const SERVICE_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Type", "How the service is reached."),
    Column::text("Cluster-IP", "Address inside the cluster."),
    Column::text("External-IP", "Addresses outside the cluster."),
    Column::text("Port(s)", "Ports and their protocols."),
    AGE,
    Column::text("Selector", "Labels of the pods behind it.").wide(),
];

pub(super) fn service_row(service: &Value, now: Timestamp) -> Vec<Value> {
    let first = list(service, &["spec", "clusterIPs"])
        .first()
        .and_then(Value::as_str);
    let internal = first.unwrap_or_else(|| text_or(service, &["spec", "clusterIP"], "<none>"));
    vec![
        name(service),
        text(service, &["spec", "type"]).into(),
        internal.into(),
        external_address(service).into(),
        ports(service).into(),
        object_age(service, now),
        labels(service, &["spec", "selector"]).into(),
    ]
}

fn joined(items: impl Iterator<Item = String>, absent: &str) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        absent.to_owned()
    } else {
        items.join(",")
    }
}

fn external_address(service: &Value) -> String {
    let given = || {
        list(service, &["spec", "externalIPs"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
    };
    match text(service, &["spec", "type"]) {
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let balancers = list(service, &["status", "loadBalancer", "ingress"]).iter();
            let balancers = balancers.map(|one| text_or(one, &["ip"], text(one, &["hostname"])).to_owned());
            joined(
                balancers.filter(|address| !address.is_empty()).chain(given()),
                "<pending>",
            )
        }
        _ => joined(given(), "<none>"),
    }
}

fn ports(service: &Value) -> String {
    let ports = list(service, &["spec", "ports"]).iter().map(|port| {
        let number = |field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
        let protocol = text(port, &["protocol"]);
        match number("nodePort") {
            ..=0 => format!("{}/{protocol}", number("port")),
            node_port => format!("{}:{node_port}/{protocol}", number("port")),
        }
    });
    joined(ports, "<none>")
}

pub(super) const ENDPOINTS_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Endpoints", "Addresses and ports behind the service."),
    AGE,
];

pub(super) fn endpoints_row(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(endpoints),
        addresses(endpoints).into(),
        object_age(endpoints, now),
    ]
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(endpoints, &["subsets"]) {
        let hosts = || {
            list(subset, &["addresses"])
                .iter()
                .map(|address| text(address, &["ip"]))
        };
        let ports = list(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(hosts().map(str::to_owned));
        }
        for port in ports {
            let port = port.get("port").and_then(Value::as_i64).unwrap_or(0);
            all.extend(hosts().map(|host| {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }));
        }
    }
    let more = all.len().saturating_sub(ENDPOINTS_SHOWN);
    all.truncate(ENDPOINTS_SHOWN);
    match (all.len(), more) {
        _ if list(endpoints, &["subsets"]).is_empty() => "<none>".to_owned(),
        (_, 0) => all.join(","),
        _ => format!("{} + {more} more...", all.join(",")),
    }
}
