//! The fields that services of some types have and others must not have.

use std::net::IpAddr;

use serde_json::Value;

use super::faults::Faults;
use super::networking::is_range;
use crate::object::{at, list, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
/// A client stays with an endpoint for a day at most.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn check(service: &Value, faults: &mut Faults) {
    let kind = text(service, &["spec", "type"]);
    addresses(service, kind, faults);
    balancer(service, kind, faults);
    policies(service, kind, faults);
    affinity(service, faults);
    for (index, port) in list(service, &["spec", "ports"]).iter().enumerate() {
        let number = at(port, &["nodePort"]).and_then(Value::as_i64).unwrap_or(0);
        if number != 0 && !matches!(kind, "NodePort" | "LoadBalancer") {
            let place = SPEC.field("ports");
            let detail = format!("may not be used when `type` is '{kind}'");
            faults.forbidden(&place.index(index).field("nodePort"), &detail);
        }
    }
}

fn addresses(service: &Value, kind: &str, faults: &mut Faults) {
    let all = list(service, &["spec", "clusterIPs"]);
    let first = text(service, &["spec", "clusterIP"]);
    let place = SPEC.field("clusterIPs");
    match (kind, first) {
        ("ExternalName", address) if !address.is_empty() => {
            faults.forbidden(&place, "may not be set when `type` is 'ExternalName'");
        }
        ("LoadBalancer" | "NodePort", "None") => {
            let detail = format!("may not be set to 'None' for {kind} services");
            faults.invalid(&place.index(0), "None", &detail);
        }
        _ => {}
    }
    if all.first().is_some_and(|address| address.as_str() != Some(first)) {
        let all = Value::Array(all.to_vec());
        faults.invalid(&place, all, "first value must match `clusterIP`");
    }
    if kind != "ExternalName" {
        families(service, faults);
    }
    let place = SPEC.field("externalIPs");
    let external = list(service, &["spec", "externalIPs"])
        .iter()
        .filter_map(Value::as_str);
    for (index, address) in external.enumerate() {
        if address.parse::<IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.invalid(&place.index(index), address, detail);
        }
    }
}

/// The cluster has addresses of one family.
fn families(service: &Value, faults: &mut Faults) {
    let place = SPEC.field("ipFamilies");
    let families = list(service, &["spec", "ipFamilies"])
        .iter()
        .filter_map(Value::as_str);
    for (index, family) in families.enumerate().filter(|(_, family)| *family != "IPv4") {
        faults.invalid(&place.index(index), family, "not configured on this cluster");
    }
    let policy = text(service, &["spec", "ipFamilyPolicy"]);
    let place = SPEC.field("ipFamilyPolicy");
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        faults.invalid(&place, policy, detail);
    } else {
        faults.one_of_if_set(
            &place,
            policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        );
    }
}

fn balancer(service: &Value, kind: &str, faults: &mut Faults) {
    let ranges = list(service, &["spec", "loadBalancerSourceRanges"]);
    let place = SPEC.field("loadBalancerSourceRanges");
    for (index, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        if !is_range(range) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            faults.invalid(&place.index(index), range, detail);
        }
    }
    if kind == "LoadBalancer" {
        return;
    }
    let only = "may only be used when `type` is 'LoadBalancer'";
    if !ranges.is_empty() {
        faults.forbidden(&place, only);
    }
    for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if at(service, &["spec", name]).is_some() {
            faults.forbidden(&SPEC.field(name), only);
        }
    }
}

fn policies(service: &Value, kind: &str, faults: &mut Faults) {
    let external = text(service, &["spec", "externalTrafficPolicy"]);
    let place = SPEC.field("externalTrafficPolicy");
    let is_external = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !list(service, &["spec", "externalIPs"]).is_empty());
    if is_external {
        faults.one_of(&place, external, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        faults.invalid(&place, external, detail);
    }
    let health = at(service, &["spec", "healthCheckNodePort"]).and_then(Value::as_i64);
    if let Some(port) = health.filter(|&port| port != 0 && (kind, external) != ("LoadBalancer", "Local")) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        faults.invalid(&SPEC.field("healthCheckNodePort"), port, detail);
    }
    faults.one_of_if_set(
        &SPEC.field("internalTrafficPolicy"),
        text(service, &["spec", "internalTrafficPolicy"]),
        &["Cluster", "Local"],
    );
}

fn affinity(service: &Value, faults: &mut Faults) {
    let config = at(service, &["spec", "sessionAffinityConfig"]);
    let place = SPEC.field("sessionAffinityConfig");
    match text(service, &["spec", "sessionAffinity"]) {
        "None" if config.is_some() => {
            faults.forbidden(&place, "must not be set when session affinity is None");
        }
        "ClientIP" => {
            let seconds = at(
                service,
                &["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"],
            );
            let seconds = seconds.and_then(Value::as_i64).unwrap_or(0);
            if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) {
                let inner = place.field("clientIP");
                let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                faults.invalid(&inner.field("timeoutSeconds"), seconds, &detail);
            }
        }
        _ => {}
    }
}
