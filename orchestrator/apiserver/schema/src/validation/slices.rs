//! Slices of the endpoints of a service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::faults::Faults;
use super::services::PROTOCOLS;
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const KINDS: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

pub(super) fn slice(slice: &Value, faults: &mut Faults) {
    let kind = text(slice, &["addressType"]);
    faults.one_of(&Place::top("addressType"), kind, &KINDS);
    let place = Place::top("endpoints");
    let endpoints = list(slice, &["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        faults.too_many(&place, endpoints.len() as u64, ENDPOINTS_MAX as u64);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        self::endpoint(&place.index(index), endpoint, kind, faults);
    }
    ports(list(slice, &["ports"]), faults);
}

fn endpoint(place: &Place<'_>, endpoint: &Value, kind: &str, faults: &mut Faults) {
    let here = place.field("addresses");
    let addresses = list(endpoint, &["addresses"]);
    if addresses.is_empty() {
        faults.required(&here, "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES_MAX {
        faults.too_many(&here, addresses.len() as u64, ADDRESSES_MAX as u64);
    }
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        self::address(&here.index(index), address, kind, faults);
    }
    let host = text(endpoint, &["hostname"]);
    if !host.is_empty() {
        faults.invalid_each(&place.field("hostname"), host, &names::dns1123_label(host));
    }
}

fn address(place: &Place<'_>, address: &str, kind: &str, faults: &mut Faults) {
    match kind {
        "IPv4" if address.parse::<Ipv4Addr>().is_err() => {
            faults.invalid(place, address, "must be a valid IPv4 address");
        }
        "IPv6" if address.parse::<Ipv6Addr>().is_err() => {
            faults.invalid(place, address, "must be a valid IPv6 address");
        }
        "FQDN" => faults.invalid_each(place, address, &names::dns1123_subdomain(address)),
        "IPv4" | "IPv6" => {
            let is_special = address.parse::<IpAddr>().is_ok_and(|address| {
                address.is_unspecified() || address.is_loopback() || address.is_multicast()
            });
            if is_special {
                let detail = "may not be in the unspecified, loopback or multicast range";
                faults.invalid(place, address, detail);
            }
        }
        _ => {}
    }
}

fn ports(ports: &[Value], faults: &mut Faults) {
    let place = Place::top("ports");
    if ports.len() > PORTS_MAX {
        faults.too_many(&place, ports.len() as u64, PORTS_MAX as u64);
    }
    for (index, port) in ports.iter().enumerate() {
        let here = place.index(index);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            faults.invalid_each(&here.field("name"), name, &names::dns1123_label(name));
        }
        if ports[..index].iter().any(|other| text(other, &["name"]) == name) {
            faults.duplicate(&here.field("name"), name);
        }
        faults.one_of(&here.field("protocol"), text(port, &["protocol"]), &PROTOCOLS);
        if at(port, &["port"]).is_some() {
            super::services::port_number(&here.field("port"), at(port, &["port"]), faults);
        }
    }
}

pub(super) fn update(old: &Value, new: &Value, faults: &mut Faults) {
    let kind = |slice| at(slice, &["addressType"]);
    faults.immutable(&Place::top("addressType"), kind(old), kind(new));
}
