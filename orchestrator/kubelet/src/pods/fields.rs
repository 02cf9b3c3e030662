//! Values of a pod's fields and resources, for environment variables and downward API files. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use moorline_model::quantity::Amount;

/// What a container may see of its node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeFacts<'a> {
    pub node_ip: IpAddr,
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// Value of the field at `path`; `None` for a path that doesn't exist.
pub(crate) fn field_value(pod: &Pod, path: &str, node: NodeFacts<'_>) -> Option<String> {
    let metadata = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return None,
        };
        return Some(
            map.as_ref()
                .and_then(|map| map.get(key))
                .cloned()
                .unwrap_or_default(),
        );
    }
    let spec = pod.spec.as_ref();
    let ip = node.node_ip.to_string();
    Some(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        // Pods share the network of their node.
        "status.hostIP" | "status.podIP" | "status.hostIPs" | "status.podIPs" => ip,
        _ => return None,
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="value"` per line, values quoted as Go quotes strings.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    quoted.collect::<Vec<_>>().join("\n")
}

/// Value of a container's request or limit in units of the divisor, rounded up. A limit that is not set is what the
/// node has.
pub(crate) fn resource_value(
    pod: &Pod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    node: NodeFacts<'_>,
) -> Result<String, String> {
    let container = match (&selector.container_name, container) {
        (Some(name), _) if !name.is_empty() => super::super::volumes::spec::all_containers(pod)
            .into_iter()
            .find(|container| container.name == *name)
            .ok_or_else(|| format!("container {name} not found"))?,
        (_, Some(container)) => container.clone(),
        (_, None) => return Err("no container is named".into()),
    };
    let (side, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| unsupported(&selector.resource))?;
    let resources = container.resources.unwrap_or_default();
    let map = match side {
        "limits" => resources.limits.unwrap_or_default(),
        "requests" => resources.requests.unwrap_or_default(),
        _ => return Err(unsupported(&selector.resource)),
    };
    let quantity = map.get(resource).or_else(|| {
        (side == "limits")
            .then(|| node.allocatable.get(resource))
            .flatten()
    });
    let amount = quantity.map_or(Ok(Amount::ZERO), amount)?;
    let divisor = selector
        .divisor
        .as_ref()
        .filter(|divisor| divisor.0 != "0" && !divisor.0.is_empty());
    let divisor = divisor.map_or(Ok(Amount::from_bytes(1)), amount_of)?;
    // Thousandths are exact for CPU; of bytes there are never fractions.
    let (value, unit) = if resource == "cpu" {
        (amount.milli(), divisor.milli())
    } else {
        (amount.ceil(), divisor.ceil())
    };
    if unit <= 0 {
        return Err(format!("divisor {unit} is not positive"));
    }
    Ok((value / unit + i64::from(value % unit != 0)).to_string())
}

fn amount(quantity: &Quantity) -> Result<Amount, String> {
    quantity.0.parse::<Amount>().map_err(|error| error.to_string())
}

fn amount_of(quantity: &Quantity) -> Result<Amount, String> {
    amount(quantity)
}

fn unsupported(resource: &str) -> String {
    format!("unsupported container resource : {resource}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "1\"x"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "250m"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields_are_read_by_path() {
        let allocatable = BTreeMap::new();
        let node = NodeFacts {
            node_ip: "10.0.0.1".parse().unwrap(),
            allocatable: &allocatable,
        };
        let cases = [
            ("metadata.name", Some("p")),
            ("metadata.labels", Some("a=\"1\\\"x\"\nb=\"2\"")),
            ("metadata.labels['b']", Some("2")),
            ("metadata.labels['none']", Some("")),
            ("metadata.annotations", Some("")),
            ("spec.nodeName", Some("n1")),
            ("spec.serviceAccountName", Some("sa")),
            ("status.podIP", Some("10.0.0.1")),
            ("spec.containers", None),
        ];
        for (path, want) in cases {
            assert_eq!(field_value(&pod(), path, node).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let allocatable = BTreeMap::from([("cpu".to_owned(), Quantity("2".into()))]);
        let node = NodeFacts {
            node_ip: "10.0.0.1".parse().unwrap(),
            allocatable: &allocatable,
        };
        let cases = [
            ("limits.memory", None, "1073741824"),
            ("limits.memory", Some("1Mi"), "1024"),
            ("requests.cpu", None, "1"),
            ("requests.cpu", Some("1m"), "250"),
            ("limits.cpu", Some("1m"), "2000"),
            ("requests.memory", None, "0"),
        ];
        let pod = pod();
        let container = pod.spec.as_ref().map(|spec| &spec.containers[0]);
        for (resource, divisor, want) in cases {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: divisor.map(|divisor| Quantity(divisor.into())),
                container_name: None,
            };
            assert_eq!(
                resource_value(&pod, container, &selector, node).as_deref(),
                Ok(want),
                "{resource} {divisor:?}"
            );
        }
    }
}
