//! Services and their endpoints.

use serde_json::{Map, Value};

use super::{child, elements};
use crate::object::{is_empty, set_default, set_if_empty};

/// How long a client stays with an endpoint: three hours.
const AFFINITY_SECONDS: i32 = 10_800;

pub(super) fn service(service: &mut Map<String, Value>) {
    let Some(spec) = child(service, "spec") else {
        return;
    };
    set_if_empty(spec, "sessionAffinity", "None");
    set_if_empty(spec, "type", "ClusterIP");
    let is = |spec: &Map<String, Value>, field: &str, wanted: &str| {
        spec.get(field).and_then(Value::as_str) == Some(wanted)
    };
    if is(spec, "sessionAffinity", "ClientIP") {
        let config = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP"));
        if let Some(client) = config {
            set_if_empty(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
    }
    for port in elements(spec, "ports") {
        set_if_empty(port, "protocol", "TCP");
        let target = port.get("targetPort");
        if is_empty(target)
            && let Some(own) = port.get("port").cloned()
        {
            port.insert("targetPort".to_owned(), own);
        }
    }
    let (node_port, balancer) = (is(spec, "type", "NodePort"), is(spec, "type", "LoadBalancer"));
    let is_cluster = is(spec, "type", "ClusterIP");
    if node_port || balancer || (is_cluster && !is_empty(spec.get("externalIPs"))) {
        set_if_empty(spec, "externalTrafficPolicy", "Cluster");
    }
    if node_port || balancer || is_cluster {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if balancer {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

pub(super) fn endpoints(endpoints: &mut Map<String, Value>) {
    for subset in elements(endpoints, "subsets") {
        for port in elements(subset, "ports") {
            set_if_empty(port, "protocol", "TCP");
        }
    }
}
