//! NodePorts: a host port is given once per node, address and protocol.

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::{
    snapshot::{Candidate, PodFacts},
    verdict::{Rejection, Verdict},
};

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.host_port.unwrap_or(0) > 0)
}

fn address(port: &ContainerPort) -> &str {
    port.host_ip
        .as_deref()
        .filter(|ip| !ip.is_empty())
        .unwrap_or("0.0.0.0")
}

fn collide(a: &ContainerPort, b: &ContainerPort) -> bool {
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let everywhere = |port: &ContainerPort| address(port) == "0.0.0.0";
    a.host_port == b.host_port
        && protocol(a) == protocol(b)
        && (everywhere(a) || everywhere(b) || address(a) == address(b))
}

/// Refuses nodes where another pod has one of the wanted host ports.
pub fn filter(pod: &PodFacts<'_>, candidate: &Candidate<'_>) -> Verdict {
    let taken = candidate
        .in_use
        .iter()
        .flat_map(|in_use| in_use.pods.values())
        .flat_map(|pod| host_ports(pod));
    let mut taken = taken.peekable();
    if taken.peek().is_some() && taken.any(|theirs| host_ports(pod.pod).any(|mine| collide(mine, theirs))) {
        return Err(Rejection::because(
            "node(s) didn't have free ports for the requested pod ports",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_collide_on_the_same_number_protocol_and_overlapping_address() {
        let port = |value| serde_json::from_value::<ContainerPort>(value).unwrap();
        let mine = port(json!({"containerPort": 1, "hostPort": 80}));
        for (name, theirs, expected) in [
            ("same", json!({"containerPort": 9, "hostPort": 80}), true),
            ("another port", json!({"containerPort": 1, "hostPort": 81}), false),
            (
                "another protocol",
                json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"}),
                false,
            ),
            (
                "one address of all",
                json!({"containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1"}),
                true,
            ),
        ] {
            assert_eq!(collide(&mine, &port(theirs)), expected, "{name}");
        }
    }
}
