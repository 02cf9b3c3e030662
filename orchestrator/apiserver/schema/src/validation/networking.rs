//! Ingresses and their classes, network policies, ranges and addresses of services.

use std::net::IpAddr;

use serde_json::Value;

use super::faults::Faults;
use super::{selectors, services};
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");

/// Whether a text is an address range such as `10.0.0.0/8`.
pub(super) fn is_range(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let bits_max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
}

const RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub(super) fn ingress(ingress: &Value, faults: &mut Faults) {
    let rules = list(ingress, &["spec", "rules"]);
    let default = at(ingress, &["spec", "defaultBackend"]);
    if rules.is_empty() && default.is_none() {
        let spec = at(ingress, &["spec"]).cloned().unwrap_or_default();
        let detail = "either `defaultBackend` or `rules` must be specified";
        faults.invalid(&SPEC, spec, detail);
    }
    if let Some(backend) = default {
        self::backend(&SPEC.field("defaultBackend"), backend, faults);
    }
    let place = SPEC.field("rules");
    for (index, rule) in rules.iter().enumerate() {
        ingress_rule(&place.index(index), rule, faults);
    }
    let class = text(ingress, &["spec", "ingressClassName"]);
    if !class.is_empty() {
        let place = SPEC.field("ingressClassName");
        faults.invalid_each(&place, class, &names::dns1123_subdomain(class));
    }
}

fn ingress_rule(place: &Place<'_>, rule: &Value, faults: &mut Faults) {
    let host = text(rule, &["host"]);
    if host.parse::<IpAddr>().is_ok() {
        faults.invalid(
            &place.field("host"),
            host,
            "must be a DNS name, not an IP address",
        );
    } else if !host.is_empty() {
        let plain = host.strip_prefix("*.").unwrap_or(host);
        faults.invalid_each(&place.field("host"), host, &names::dns1123_subdomain(plain));
    }
    let Some(http) = at(rule, &["http"]) else { return };
    let place = place.field("http");
    let place = place.field("paths");
    let paths = list(http, &["paths"]);
    if paths.is_empty() {
        faults.required(&place, "");
    }
    for (index, path) in paths.iter().enumerate() {
        let here = place.index(index);
        let value = text(path, &["path"]);
        let is_free = text(path, &["pathType"]) == "ImplementationSpecific" && value.is_empty();
        if !value.starts_with('/') && !is_free {
            faults.invalid(&here.field("path"), value, "must be an absolute path");
        }
        if let Some(backend) = at(path, &["backend"]) {
            self::backend(&here.field("backend"), backend, faults);
        }
    }
}

fn backend(place: &Place<'_>, backend: &Value, faults: &mut Faults) {
    let service = at(backend, &["service"]);
    match (service, at(backend, &["resource"])) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            return faults.invalid(place, "", detail);
        }
        (None, None) => return faults.required(place, "resource or service backend is required"),
        _ => {}
    }
    let Some(service) = service else { return };
    let place = place.field("service");
    let name = text(service, &["name"]);
    if !name.is_empty() {
        faults.invalid_each(&place.field("name"), name, &names::dns1035_label(name));
    }
    let place = place.field("port");
    match (at(service, &["port", "name"]), at(service, &["port", "number"])) {
        (Some(_), Some(_)) => faults.invalid(&place, "", "cannot set both port name & port number"),
        (Some(name), None) => {
            services::port_reference(&place.field("name"), Some(name), faults);
        }
        (None, Some(number)) => services::port_number(&place.field("number"), Some(number), faults),
        (None, None) => faults.required(&place, "port name or number is required"),
    }
}

pub(super) fn ingress_class(class: &Value, faults: &mut Faults) {
    let controller = text(class, &["spec", "controller"]);
    let place = SPEC.field("controller");
    if controller.is_empty() {
        return faults.required(&place, "");
    }
    if !controller.contains('/') {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        faults.invalid(&place, controller, detail);
    }
}

pub(super) fn ingress_class_update(old: &Value, new: &Value, faults: &mut Faults) {
    let controller = |class| at(class, &["spec", "controller"]);
    faults.immutable(&SPEC.field("controller"), controller(old), controller(new));
}

pub(super) fn network_policy(policy: &Value, faults: &mut Faults) {
    if let Some(selector) = at(policy, &["spec", "podSelector"]) {
        selectors::labels(&SPEC.field("podSelector"), selector, faults);
    }
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        let place = SPEC.field(rules);
        for (index, rule) in list(policy, &["spec", rules]).iter().enumerate() {
            let here = place.index(index);
            let place = here.field("ports");
            for (at_port, port) in list(rule, &["ports"]).iter().enumerate() {
                if at(port, &["port"]).is_some() {
                    let place = place.index(at_port);
                    services::port_reference(&place.field("port"), at(port, &["port"]), faults);
                }
            }
            let place = here.field(peers);
            for (at_peer, peer) in list(rule, &[peers]).iter().enumerate() {
                self::peer(&place.index(at_peer), peer, faults);
            }
        }
    }
    let kinds = list(policy, &["spec", "policyTypes"]);
    let place = SPEC.field("policyTypes");
    if kinds.len() > 2 {
        let all = Value::Array(kinds.to_vec());
        faults.invalid(&place, all, "may not specify more than two policyTypes");
    }
}

fn peer(place: &Place<'_>, peer: &Value, faults: &mut Faults) {
    let selects = ["podSelector", "namespaceSelector"]
        .iter()
        .filter_map(|name| Some((name, at(peer, &[name])?)));
    let mut count = 0;
    for (name, selector) in selects {
        count += 1;
        selectors::labels(&place.field(name), selector, faults);
    }
    let Some(block) = at(peer, &["ipBlock"]) else {
        if count == 0 {
            faults.required(place, "must specify a peer");
        }
        return;
    };
    if count > 0 {
        faults.forbidden(place, "may not specify both ipBlock and another peer");
    }
    let place = place.field("ipBlock");
    let range = text(block, &["cidr"]);
    if !range.is_empty() && !is_range(range) {
        faults.invalid(&place.field("cidr"), range, RANGE);
    }
    let place = place.field("except");
    for (index, range) in list(block, &["except"])
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        if !is_range(range) {
            faults.invalid(&place.index(index), range, RANGE);
        }
    }
}

pub(super) fn service_range(range: &Value, faults: &mut Faults) {
    let place = SPEC.field("cidrs");
    let ranges = list(range, &["spec", "cidrs"]);
    if ranges.is_empty() {
        faults.required(&place, "at least one CIDR required");
    }
    for (index, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        if !is_range(range) {
            faults.invalid(&place.index(index), range, RANGE);
        }
    }
}

pub(super) fn service_range_update(old: &Value, new: &Value, faults: &mut Faults) {
    let ranges = |range| at(range, &["spec", "cidrs"]);
    faults.immutable(&SPEC.field("cidrs"), ranges(old), ranges(new));
}

pub(super) fn address(address: &Value, faults: &mut Faults) {
    let name = text(address, &["metadata", "name"]);
    if name.parse::<IpAddr>().is_err() {
        let metadata = Place::top("metadata");
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        faults.invalid(&metadata.field("name"), name, detail);
    }
}

pub(super) fn address_update(old: &Value, new: &Value, faults: &mut Faults) {
    let parent = |address| at(address, &["spec", "parentRef"]);
    faults.immutable(&SPEC.field("parentRef"), parent(old), parent(new));
}
