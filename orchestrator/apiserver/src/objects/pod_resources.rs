//! What a pod asks for in all, and what it may have at most. Pure.

use std::collections::BTreeMap;

use moorline_schema::quantity::Quantity;
use serde_json::Value;

use super::tree;

/// Amounts by the name of the resource.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The amounts in a map of an object. Those that can't be read are left out.
pub(crate) fn amounts(map: Option<&Value>) -> Amounts {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text.as_str()?).ok()?)))
        .collect()
}

/// Nothing of anything.
pub(crate) fn zero() -> Quantity {
    Quantity::parse("0").expect("zero is an amount")
}

/// The sum, in the form of the amount that is not zero.
pub(crate) fn sum(one: &Quantity, other: &Quantity) -> Quantity {
    if one.signum() == 0 {
        other.plus(one)
    } else {
        one.plus(other)
    }
}

/// Adds amounts to others.
pub(crate) fn add(all: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let before = all.get(name).copied().unwrap_or_else(zero);
        all.insert(name.clone(), sum(&before, amount));
    }
}

fn raise(all: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let before = all.get(name).copied().unwrap_or_else(zero);
        all.insert(name.clone(), before.max(*amount));
    }
}

/// Which of the two a container states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Limits,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Requests => "requests",
            Side::Limits => "limits",
        }
    }
}

/// What all containers of a pod state together. Containers that run before the others count as long as they run.
pub(crate) fn total(pod: &Value, side: Side) -> Amounts {
    let of = |container: &Value| amounts(tree::at(container, &["resources", side.name()]));
    let mut total = Amounts::new();
    for container in tree::list(pod, &["spec", "containers"]) {
        add(&mut total, &of(container));
    }
    let (mut beside, mut before) = (Amounts::new(), Amounts::new());
    for container in tree::list(pod, &["spec", "initContainers"]) {
        let own = of(container);
        if tree::text(container, &["restartPolicy"]) == "Always" {
            add(&mut total, &own);
            add(&mut beside, &own);
            raise(&mut before, &beside);
        } else {
            let mut at_once = own;
            add(&mut at_once, &beside);
            raise(&mut before, &at_once);
        }
    }
    raise(&mut total, &before);
    // What is stated for the whole pod takes the place of the sum.
    total.extend(amounts(tree::at(pod, &["spec", "resources", side.name()])));
    let mut overhead = amounts(tree::at(pod, &["spec", "overhead"]));
    if side == Side::Limits {
        // What has no limit gets none from the overhead.
        overhead.retain(|name, _| total.get(name).is_some_and(|limit| limit.signum() > 0));
    }
    add(&mut total, &overhead);
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn totals() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let cases = [
            (
                "containers add up",
                json!({"containers": [container("1"), container("500m")]}),
                "1500m",
            ),
            (
                "one before them counts if it is larger",
                json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]}),
                "3",
            ),
            (
                "sidecars run all the time",
                json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("2")]}),
                "3",
            ),
            (
                "a smaller one does not",
                json!({"containers": [container("2")], "initContainers": [container("1")]}),
                "2",
            ),
            (
                "overhead",
                json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}),
                "1250m",
            ),
            (
                "stated for the pod",
                json!({"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}}),
                "4",
            ),
        ];
        for (case, spec, expected) in cases {
            let total = total(&json!({"spec": spec}), Side::Requests);
            assert_eq!(total["cpu"].to_string(), expected, "{case}");
        }
        let spec = json!({"containers": [{"resources": {"limits": {"memory": "1Gi"}}}], "overhead": {"cpu": "1", "memory": "1Gi"}});
        let limits = total(&json!({"spec": spec}), Side::Limits);
        assert_eq!(
            (limits.len(), limits["memory"].to_string()),
            (1, "2Gi".to_owned())
        );
    }
}
