//! Addresses and ports of services: which ones a service needs, keeps, and gets. Pure.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::http::Cause;
use crate::objects::tree;

/// The range of the cluster's services, kubeadm's.
pub(crate) const RANGE: &str = "10.96.0.0/12";
const RANGE_FIRST: u32 = u32::from_be_bytes([10, 96, 0, 0]);
const RANGE_BITS: u32 = 12;
/// The lowest addresses are left to those who choose one by hand, as long as there are others.
const BY_HAND: u32 = 256;
/// The ports of nodes under which services are reached, upstream's.
const PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;

/// What other services have already.
#[derive(Debug, Default)]
pub(crate) struct Used {
    pub(crate) addresses: HashSet<IpAddr>,
    pub(crate) ports: HashSet<i64>,
}

fn kind(service: &Value) -> &str {
    tree::text(service, &["spec", "type"])
}

fn address(service: &Value) -> &str {
    tree::text(service, &["spec", "clusterIP"])
}

/// Whether a service has an address inside the cluster.
fn needs_address(service: &Value) -> bool {
    kind(service) != "ExternalName" && address(service) != "None"
}

/// Whether a service is reached at ports of the nodes.
fn needs_ports(service: &Value) -> bool {
    let allocates = tree::at(service, &["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool);
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => allocates.unwrap_or(true),
        _ => false,
    }
}

/// Whether a balancer asks the nodes at a port of its own whether they have an endpoint.
fn needs_health_port(service: &Value) -> bool {
    let policy = tree::text(service, &["spec", "externalTrafficPolicy"]);
    kind(service) == "LoadBalancer" && policy == "Local"
}

/// The addresses that a service holds.
pub(crate) fn addresses(service: &Value) -> Vec<IpAddr> {
    let all = tree::list(service, &["spec", "clusterIPs"])
        .iter()
        .filter_map(Value::as_str);
    all.chain([address(service)])
        .filter_map(|address| address.parse().ok())
        .collect::<HashSet<IpAddr>>()
        .into_iter()
        .collect()
}

/// The ports of nodes that a service holds.
pub(crate) fn node_ports(service: &Value) -> impl Iterator<Item = i64> {
    let ports = tree::list(service, &["spec", "ports"]).iter();
    let ports = ports.filter_map(|port| port.get("nodePort").and_then(Value::as_i64));
    let health = tree::at(service, &["spec", "healthCheckNodePort"]).and_then(Value::as_i64);
    ports.chain(health).filter(|&port| port != 0)
}

/// Takes over what was given to the service before, drops what it no longer needs, and says the same in all fields.
pub(super) fn complete(old: Option<&Value>, new: &mut Value) {
    if let Some(old) = old {
        keep(old, new);
        drop_unneeded(old, new);
    }
    if kind(new) == "ExternalName" {
        return;
    }
    let first = address(new).to_owned();
    let spec = tree::map_mut(new, &["spec"]);
    if !first.is_empty() && tree::is_empty(spec.get("clusterIPs")) {
        spec.insert("clusterIPs".to_owned(), json!([first]));
    }
    for (field, value) in [
        ("ipFamilies", json!(["IPv4"])),
        ("ipFamilyPolicy", json!("SingleStack")),
    ] {
        if tree::is_empty(spec.get(field)) {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// A client that leaves out what the server chose doesn't want it changed.
fn keep(old: &Value, new: &mut Value) {
    if needs_address(old) && needs_address(new) && address(new).is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            let value = tree::at(old, &["spec", field]).cloned();
            tree::set(tree::map_mut(new, &["spec"]), field, value);
        }
    }
    if needs_health_port(old) && needs_health_port(new) {
        let spec = tree::map_mut(new, &["spec"]);
        if tree::is_empty(spec.get("healthCheckNodePort")) {
            let value = tree::at(old, &["spec", "healthCheckNodePort"]).cloned();
            tree::set(spec, "healthCheckNodePort", value);
        }
    }
    if !(needs_ports(old) && needs_ports(new)) {
        return;
    }
    let same = |one: &Value, other: &Value| {
        ["protocol", "port"]
            .iter()
            .all(|field| one.get(field) == other.get(field))
    };
    for port in ports_mut(new) {
        let before = tree::list(old, &["spec", "ports"])
            .iter()
            .find(|other| same(port, other));
        if is_unset(port)
            && let Some(number) = before.and_then(|before| before.get("nodePort"))
        {
            port["nodePort"] = number.clone();
        }
    }
}

/// What belongs to the old type of a service goes with it, unless the client changed it too.
fn drop_unneeded(old: &Value, new: &mut Value) {
    let same_address = address(old) == address(new);
    if needs_address(old) && kind(new) == "ExternalName" && same_address {
        let spec = tree::map_mut(new, &["spec"]);
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            spec.remove(field);
        }
    }
    if needs_ports(old) && !needs_ports(new) {
        let before: Vec<i64> = node_ports(old).collect();
        for port in ports_mut(new) {
            let is_old = port
                .get("nodePort")
                .and_then(Value::as_i64)
                .is_some_and(|port| before.contains(&port));
            if let Some(port) = port.as_object_mut().filter(|_| is_old) {
                port.remove("nodePort");
            }
        }
    }
    if needs_health_port(old) && !needs_health_port(new) {
        tree::map_mut(new, &["spec"]).remove("healthCheckNodePort");
    }
}

fn ports_mut(service: &mut Value) -> impl Iterator<Item = &mut Value> {
    let ports = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    ports.into_iter().flatten()
}

fn is_unset(port: &Value) -> bool {
    port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) == 0
}

fn invalid(field: String, value: &Value, detail: &str) -> Cause {
    Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {value}: {detail}"),
        field,
    }
}

/// Gives a service the numbers it lacks, and checks those it chose itself; `old` had its own before.
pub(crate) fn assign(
    old: Option<&Value>,
    service: &mut Value,
    used: &Used,
    random: u32,
) -> Result<(), Vec<Cause>> {
    let mut causes = Vec::new();
    if needs_address(service) {
        causes.extend(assign_address(old, service, used, random).err());
    }
    let own: HashSet<i64> = old.into_iter().flat_map(node_ports).collect();
    let mut taken: HashSet<i64> = used
        .ports
        .union(&node_ports(service).collect())
        .copied()
        .collect();
    if needs_ports(service) {
        for (index, port) in ports_mut(service).enumerate() {
            let place = format!("spec.ports[{index}].nodePort");
            causes.extend(assign_port(port, (&place, used, &own), &mut taken, random).err());
        }
    }
    if needs_health_port(service) {
        let mut port = json!({ "nodePort": tree::at(service, &["spec", "healthCheckNodePort"]) });
        let place = "spec.healthCheckNodePort";
        causes.extend(assign_port(&mut port, (place, used, &own), &mut taken, random).err());
        tree::map_mut(service, &["spec"]).insert("healthCheckNodePort".to_owned(), port["nodePort"].clone());
    }
    if causes.is_empty() { Ok(()) } else { Err(causes) }
}

fn assign_address(old: Option<&Value>, service: &mut Value, used: &Used, random: u32) -> Result<(), Cause> {
    let chosen = address(service).to_owned();
    let refuse = |why: &str| {
        let all = json!([chosen]);
        let detail = format!("failed to allocate IP {chosen}: {why}");
        invalid("spec.clusterIPs".to_owned(), &all, &detail)
    };
    if chosen.is_empty() {
        let Some(free) = free_address(used, random) else {
            return Err(refuse(&format!("range is full: {RANGE}")));
        };
        let spec = tree::map_mut(service, &["spec"]);
        spec.insert("clusterIP".to_owned(), json!(free.to_string()));
        spec.insert("clusterIPs".to_owned(), json!([free.to_string()]));
        return Ok(());
    }
    // What is no address is told of by validation.
    let Ok(chosen_address) = chosen.parse::<IpAddr>() else {
        return Ok(());
    };
    if old.is_some_and(|old| addresses(old).contains(&chosen_address)) {
        return Ok(());
    }
    if !is_in_range(chosen_address) {
        return Err(refuse(&format!(
            "the provided IP ({chosen}) is not in the valid range. The range of valid IPs is {RANGE}"
        )));
    }
    if used.addresses.contains(&chosen_address) {
        return Err(refuse("provided IP is already allocated"));
    }
    Ok(())
}

/// Whether an address can be a service's: of the range, and not its first or last one.
fn is_in_range(address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else {
        return false;
    };
    let offset = u32::from(address).wrapping_sub(RANGE_FIRST);
    (1..size() - 1).contains(&offset)
}

const fn size() -> u32 {
    1 << (32 - RANGE_BITS)
}

/// The first free address from a random one on; those that are chosen by hand come last.
fn free_address(used: &Used, random: u32) -> Option<Ipv4Addr> {
    let count = size() - 1 - BY_HAND;
    let start = random % count;
    let upper = (0..count).map(|step| BY_HAND + (start + step) % count);
    upper
        .chain(1..BY_HAND)
        .map(|offset| Ipv4Addr::from(RANGE_FIRST + offset))
        .find(|address| !used.addresses.contains(&IpAddr::V4(*address)))
}

fn assign_port(
    port: &mut Value,
    (place, used, own): (&str, &Used, &HashSet<i64>),
    taken: &mut HashSet<i64>,
    random: u32,
) -> Result<(), Cause> {
    let number = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
    let refuse = |why: &str| invalid(place.to_owned(), &json!(number), why);
    if number == 0 {
        let count = PORTS.end() - PORTS.start() + 1;
        let start = i64::from(random) % count;
        let mut all = (0..count).map(|step| PORTS.start() + (start + step) % count);
        let free = all.find(|port| !taken.contains(port));
        let free = free.ok_or_else(|| refuse("failed to allocate a nodePort: range is full"))?;
        taken.insert(free);
        port["nodePort"] = json!(free);
        return Ok(());
    }
    if own.contains(&number) {
        return Ok(());
    }
    if !PORTS.contains(&number) {
        let (first, last) = (PORTS.start(), PORTS.end());
        return Err(refuse(&format!(
            "provided port is not in the valid range. The range of valid ports is {first}-{last}"
        )));
    }
    if used.ports.contains(&number) {
        return Err(refuse("provided port is already allocated"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "s"}, "spec": spec})
    }

    fn used(addresses: &[&str], ports: &[i64]) -> Used {
        Used {
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            ports: ports.iter().copied().collect(),
        }
    }

    #[test]
    fn what_was_given_is_kept_and_what_is_not_needed_goes() {
        let given = json!({"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        let with = |more: Value| {
            let mut spec = given.clone();
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().cloned().unwrap());
            service(spec)
        };
        let ports = |number: Value| json!([{"port": 80, "protocol": "TCP", "nodePort": number}]);
        let plain = json!([{"port": 80, "protocol": "TCP"}]);
        let cases = [
            (
                "left out",
                with(json!({"type": "ClusterIP"})),
                json!({"type": "ClusterIP"}),
                with(json!({"type": "ClusterIP"})),
            ),
            (
                "becomes a name",
                with(json!({"type": "ClusterIP"})),
                json!({"type": "ExternalName", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"]}),
                service(json!({"type": "ExternalName"})),
            ),
            (
                "port of nodes left out",
                with(json!({"type": "NodePort", "ports": ports(json!(30_001))})),
                json!({"type": "NodePort", "ports": plain}),
                with(json!({"type": "NodePort", "ports": ports(json!(30_001))})),
            ),
            (
                "no ports of nodes any more",
                with(json!({"type": "NodePort", "ports": ports(json!(30_001))})),
                json!({"type": "ClusterIP", "ports": ports(json!(30_001))}),
                with(json!({"type": "ClusterIP", "ports": plain})),
            ),
        ];
        for (case, old, spec, expected) in cases {
            let mut new = service(spec);
            complete(Some(&old), &mut new);
            assert_eq!(new, expected, "{case}");
        }
        let mut headless = service(json!({"type": "ClusterIP", "clusterIP": "None"}));
        complete(None, &mut headless);
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn numbers_are_given_once() {
        let told = |outcome: Result<(), Vec<Cause>>| -> Vec<String> {
            let causes = outcome.err().unwrap_or_default();
            causes
                .into_iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect()
        };
        let cases = [
            ("any", json!({"type": "ClusterIP"}), "10.96.1.2", vec![]),
            (
                "by hand",
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.9"}),
                "10.96.0.9",
                vec![],
            ),
            (
                "headless",
                json!({"type": "ClusterIP", "clusterIP": "None"}),
                "None",
                vec![],
            ),
            ("a name", json!({"type": "ExternalName"}), "", vec![]),
            (
                "taken",
                json!({"type": "ClusterIP", "clusterIP": "10.96.1.1"}),
                "10.96.1.1",
                vec![
                    r#"spec.clusterIPs: Invalid value: ["10.96.1.1"]: failed to allocate IP 10.96.1.1: provided IP is already allocated"#,
                ],
            ),
            (
                "elsewhere",
                json!({"type": "ClusterIP", "clusterIP": "10.112.0.1"}),
                "10.112.0.1",
                vec![
                    r#"spec.clusterIPs: Invalid value: ["10.112.0.1"]: failed to allocate IP 10.112.0.1: the provided IP (10.112.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12"#,
                ],
            ),
        ];
        for (case, spec, expected, faults) in cases {
            let mut new = service(spec);
            let outcome = assign(None, &mut new, &used(&["10.96.1.1"], &[]), 1);
            assert_eq!(
                (told(outcome), address(&new)),
                (faults.iter().map(|&fault| fault.to_owned()).collect(), expected),
                "{case}"
            );
        }
        let mut ports = service(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 1}, {"port": 2}, {"port": 3, "nodePort": 30_003}]}),
        );
        assign(None, &mut ports, &used(&[], &[30_001]), 1).unwrap();
        assert_eq!(node_ports(&ports).collect::<Vec<_>>(), [30_002, 30_004, 30_003]);
        let mut ports = service(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 1, "nodePort": 30_001}, {"port": 2, "nodePort": 80}]}),
        );
        let expected = [
            "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated",
            "spec.ports[1].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ];
        assert_eq!(
            told(assign(None, &mut ports.clone(), &used(&[], &[30_001]), 1)),
            expected
        );
        // Its own, from before.
        let old = ports.clone();
        assert_eq!(
            told(assign(Some(&old), &mut ports, &used(&[], &[30_001]), 1)),
            Vec::<String>::new()
        );
    }
}
