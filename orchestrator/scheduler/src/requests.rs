//! What a pod asks of a node, and what a node has: cpu, memory, ephemeral storage, pods, and whatever else is counted.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use moorline_model::quantity::Amount;

/// Amounts by resource name: cpu in thousandths, all else in whole units (bytes for memory and storage).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, i64>);

impl Resources {
    /// Reads a map of quantities. What can't be read counts as nothing; the API server lets no such thing in.
    pub fn read(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let amounts = quantities.into_iter().flatten().filter_map(|(name, quantity)| {
            let amount: Amount = quantity.0.parse().ok()?;
            let value = if name == "cpu" {
                amount.milli()
            } else {
                amount.ceil()
            };
            Some((name.clone(), value))
        });
        Self(amounts.collect())
    }

    /// The amount of a resource, 0 if it is not named.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds `other` to these, `sign` times.
    pub fn add(&mut self, other: &Resources, sign: i64) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(amount.saturating_mul(sign));
        }
    }

    /// Raises each amount to at least that of `other`.
    fn raise_to(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}

fn of_container(container: &Container) -> Resources {
    Resources::read(
        container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref()),
    )
}

fn goes_on(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a pod needs at its most: all containers together, or the neediest moment of its initialisation, plus overhead.
pub fn of_pod(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of_container(container), 1);
    }
    // An init container that goes on (a sidecar) is still there when the later ones run.
    let mut staying = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = staying.clone();
        moment.add(&of_container(container), 1);
        if goes_on(container) {
            staying = moment.clone();
        }
        peak.raise_to(&moment);
    }
    sum.add(&staying, 1);
    sum.raise_to(&peak);
    sum.add(&Resources::read(spec.overhead.as_ref()), 1);
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn container(cpu: &str, policy: Option<&str>) -> serde_json::Value {
        json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}})
    }

    #[test]
    fn a_pods_request_is_its_neediest_moment() {
        for (name, spec, cpu) in [
            (
                "containers add up",
                json!({"containers": [container("100m", None), container("1", None)]}),
                1100,
            ),
            (
                "a larger init container counts alone",
                json!({"containers": [container("1", None)], "initContainers": [container("3", None), container("2", None)]}),
                3000,
            ),
            (
                "a sidecar stays beside containers and later init containers",
                json!({"containers": [container("1", None)],
                       "initContainers": [container("500m", Some("Always")), container("2", None)]}),
                2500,
            ),
            (
                "overhead comes on top",
                json!({"containers": [container("1", None)], "overhead": {"cpu": "250m"}}),
                1250,
            ),
            (
                "nothing asked is nothing needed",
                json!({"containers": [{"name": "c"}]}),
                0,
            ),
        ] {
            assert_eq!(of_pod(&pod(spec)).get("cpu"), cpu, "{name}");
        }
    }
}
