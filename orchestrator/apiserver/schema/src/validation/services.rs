//! Services and their endpoints, as data.

use std::net::IpAddr;

use serde_json::Value;

use super::faults::Faults;
use super::metadata;
use crate::names;
use crate::object::{at, list, map, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

/// A port's number, required.
pub(super) fn port_number(place: &Place<'_>, number: Option<&Value>, faults: &mut Faults) {
    let number = number.and_then(Value::as_i64).unwrap_or(0);
    if !(1..=65_535).contains(&number) {
        faults.invalid(place, number, PORT_RANGE);
    }
}

/// A port by number or by name.
pub(super) fn port_reference(place: &Place<'_>, port: Option<&Value>, faults: &mut Faults) {
    match port {
        Some(Value::String(name)) => faults.invalid_each(place, name, &names::port_name(name)),
        port => port_number(place, port, faults),
    }
}

pub(super) fn service(service: &Value, faults: &mut Faults) {
    let kind = text(service, &["spec", "type"]);
    faults.one_of(&SPEC.field("type"), kind, &TYPES);
    faults.one_of(
        &SPEC.field("sessionAffinity"),
        text(service, &["spec", "sessionAffinity"]),
        &["ClientIP", "None"],
    );
    if let Some(selector) = map(service, &["spec", "selector"]) {
        metadata::labels(&SPEC.field("selector"), selector, faults);
    }
    let ports = list(service, &["spec", "ports"]);
    let is_headless = text(service, &["spec", "clusterIP"]) == "None";
    if ports.is_empty() && !is_headless && kind != "ExternalName" {
        faults.required(&SPEC.field("ports"), "");
    }
    self::ports(ports, faults);
    if kind == "ExternalName" {
        let name = text(service, &["spec", "externalName"]).trim_end_matches('.');
        match name {
            "" => faults.required(&SPEC.field("externalName"), ""),
            name => faults.invalid_each(&SPEC.field("externalName"), name, &names::dns1123_subdomain(name)),
        }
    }
    super::service_fields::check(service, faults);
    let address = text(service, &["spec", "clusterIP"]);
    if !matches!(address, "" | "None") && address.parse::<IpAddr>().is_err() {
        let place = SPEC.field("clusterIPs");
        faults.invalid(
            &place.index(0),
            address,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}

fn ports(ports: &[Value], faults: &mut Faults) {
    let place = SPEC.field("ports");
    for (index, port) in ports.iter().enumerate() {
        let here = place.index(index);
        let name = text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            faults.required(&here.field("name"), "");
        } else if !name.is_empty() {
            faults.invalid_each(&here.field("name"), name, &names::dns1123_label(name));
            if ports[..index].iter().any(|other| text(other, &["name"]) == name) {
                faults.duplicate(&here.field("name"), name);
            }
        }
        port_number(&here.field("port"), at(port, &["port"]), faults);
        faults.one_of(&here.field("protocol"), text(port, &["protocol"]), &PROTOCOLS);
        port_reference(&here.field("targetPort"), at(port, &["targetPort"]), faults);
        let is_same = |other: &Value| {
            ["port", "protocol"]
                .iter()
                .all(|field| other.get(field) == port.get(field))
        };
        if ports[..index].iter().any(is_same) {
            faults.duplicate(&here, port.clone());
        }
    }
}

pub(super) fn update(old: &Value, new: &Value, faults: &mut Faults) {
    let is_internal = |service| text(service, &["spec", "type"]) != "ExternalName";
    let path = ["spec", "clusterIP"];
    if is_internal(old)
        && is_internal(new)
        && !text(old, &path).is_empty()
        && at(old, &path) != at(new, &path)
    {
        let place = SPEC.field("clusterIPs");
        faults.invalid(&place.index(0), text(new, &path), "may not change once set");
    }
}

pub(super) fn endpoints(endpoints: &Value, faults: &mut Faults) {
    let place = Place::top("subsets");
    for (index, subset) in list(endpoints, &["subsets"]).iter().enumerate() {
        let here = place.index(index);
        let (ready, unready) = (list(subset, &["addresses"]), list(subset, &["notReadyAddresses"]));
        if ready.is_empty() && unready.is_empty() {
            faults.required(&here, "must specify `addresses` or `notReadyAddresses`");
        }
        for (name, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
            let place = here.field(name);
            for (at, address) in addresses.iter().enumerate() {
                let ip = text(address, &["ip"]);
                if ip.parse::<IpAddr>().is_err() {
                    let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                    faults.invalid(&place.index(at).field("ip"), ip, detail);
                }
            }
        }
        let place = here.field("ports");
        let ports = list(subset, &["ports"]);
        for (at_port, port) in ports.iter().enumerate() {
            let here = place.index(at_port);
            let name = text(port, &["name"]);
            if name.is_empty() && ports.len() > 1 {
                faults.required(&here.field("name"), "");
            } else if !name.is_empty() {
                faults.invalid_each(&here.field("name"), name, &names::dns1123_label(name));
            }
            port_number(&here.field("port"), at(port, &["port"]), faults);
            faults.one_of(&here.field("protocol"), text(port, &["protocol"]), &PROTOCOLS);
        }
    }
}
