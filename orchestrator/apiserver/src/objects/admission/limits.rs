//! The limits of a namespace: what containers are given that say nothing, and what pods and claims may ask for. Pure.

use moorline_schema::quantity::Quantity;
use serde_json::Value;

use crate::objects::pod_resources::{self, Amounts, Side, amounts};
use crate::objects::tree;

const NOTE: &str = "kubernetes.io/limit-ranger";

fn limits(ranges: &[Value]) -> impl Iterator<Item = &Value> {
    ranges
        .iter()
        .flat_map(|range| tree::list(range, &["spec", "limits"]))
}

/// Gives the containers of a new pod what the namespace's limits say for those that say nothing.
pub(super) fn set_defaults(pod: &mut Value, ranges: &[Value]) {
    let mut notes = Vec::new();
    for limit in limits(ranges).filter(|limit| tree::text(limit, &["type"]) == "Container") {
        let sides = [("limits", "default"), ("requests", "defaultRequest")];
        let sides = sides.map(|(side, from)| (side, tree::at(limit, &[from]).cloned()));
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                complete(container, &sides, what, &mut notes);
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        tree::map_mut(pod, &["metadata", "annotations"]).insert(NOTE.to_owned(), text.into());
    }
}

fn complete(container: &mut Value, sides: &[(&str, Option<Value>); 2], what: &str, notes: &mut Vec<String>) {
    let name = tree::text(container, &["name"]).to_owned();
    let mut told = Vec::new();
    for (side, given) in sides {
        let given = given.as_ref().and_then(Value::as_object);
        let mut set = Vec::new();
        for (resource, amount) in given.into_iter().flatten() {
            if tree::at(container, &["resources", side, resource]).is_some() {
                continue;
            }
            tree::map_mut(container, &["resources", side]).insert(resource.clone(), amount.clone());
            set.push(resource.clone());
        }
        if !set.is_empty() {
            set.sort();
            let singular = side.trim_end_matches('s');
            told.push(format!("{} {singular} for {what} {name}", set.join(", ")));
        }
    }
    // Requests are told of first.
    notes.extend(told.into_iter().rev());
}

/// Refuses a pod or claim that goes beyond the limits of its namespace.
pub(super) fn check(plural: &str, object: &Value, ranges: &[Value]) -> Result<(), String> {
    let mut faults = Vec::new();
    for limit in limits(ranges) {
        match (plural, tree::text(limit, &["type"])) {
            ("pods", "Container") => {
                let containers = ["containers", "initContainers"].into_iter();
                for container in containers.flat_map(|list| tree::list(object, &["spec", list])) {
                    let side = |name: &str| amounts(tree::at(container, &["resources", name]));
                    check_usage(limit, &side("requests"), &side("limits"), &mut faults);
                }
            }
            ("pods", "Pod") => {
                let requests = pod_resources::total(object, Side::Requests);
                let most = pod_resources::total(object, Side::Limits);
                check_usage(limit, &requests, &most, &mut faults);
            }
            ("persistentvolumeclaims", "PersistentVolumeClaim") => check_claim(limit, object, &mut faults),
            _ => {}
        }
    }
    match faults.len() {
        0 => Ok(()),
        1 => Err(faults.concat()),
        _ => Err(format!("[{}]", faults.join(", "))),
    }
}

fn check_usage(limit: &Value, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    let kind = tree::text(limit, &["type"]);
    for (name, least) in amounts(tree::at(limit, &["min"])) {
        faults.extend(below(kind, &name, least, requests.get(&name), limits.get(&name)));
    }
    for (name, most) in amounts(tree::at(limit, &["max"])) {
        faults.extend(above(kind, &name, most, requests.get(&name), limits.get(&name)));
    }
    for (name, ratio) in amounts(tree::at(limit, &["maxLimitRequestRatio"])) {
        faults.extend(beyond_ratio(
            kind,
            &name,
            ratio,
            requests.get(&name),
            limits.get(&name),
        ));
    }
}

fn check_claim(limit: &Value, claim: &Value, faults: &mut Vec<String>) {
    let kind = tree::text(limit, &["type"]);
    let requests = amounts(tree::at(claim, &["spec", "resources", "requests"]));
    for (name, least) in amounts(tree::at(limit, &["min"])) {
        faults.extend(below(kind, &name, least, requests.get(&name), None));
    }
    for (name, most) in amounts(tree::at(limit, &["max"])) {
        let head = format!("maximum {name} usage per {kind} is {most}");
        match requests.get(&name) {
            None => faults.push(format!("{head}.  No request is specified")),
            Some(request) if *request > most => faults.push(format!("{head}, but request is {request}")),
            Some(_) => {}
        }
    }
}

fn below(
    kind: &str,
    name: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {least}");
    match (request, limit) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{head}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{head}, but limit is {limit}")),
        _ => None,
    }
}

fn above(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {most}");
    match (request, limit) {
        (_, None) => Some(format!("{head}.  No limit is specified")),
        (_, Some(limit)) if *limit > most => Some(format!("{head}, but limit is {limit}")),
        (Some(request), _) if *request > most => Some(format!("{head}, but request is {request}")),
        _ => None,
    }
}

fn beyond_ratio(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {most}");
    let some = |amount: Option<&Quantity>| amount.map(Quantity::milli_value).filter(|milli| *milli != 0);
    let Some(request) = some(request) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(limit) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    // Ratios are of everyday size: what is lost beyond 53 bits doesn't matter.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let (ratio, allowed) = (limit as f64 / request as f64, most.milli_value() as f64 / 1000.0);
    (ratio > allowed).then(|| format!("{head}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(kind: &str, limit: Value) -> Value {
        let mut limit = limit;
        limit["type"] = json!(kind);
        json!({"spec": {"limits": [limit]}})
    }

    fn pod(requests: Value, limits: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
    }

    #[test]
    fn containers_are_completed() {
        let ranges = [range(
            "Container",
            json!({"default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m"}}),
        )];
        let mut silent = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "2"}}}]}});
        set_defaults(&mut silent, &ranges);
        let resources = |list: &str| silent["spec"][list][0]["resources"].clone();
        assert_eq!(
            resources("containers"),
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
        );
        assert_eq!(
            resources("initContainers"),
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
        );
        assert_eq!(
            silent["metadata"]["annotations"][NOTE],
            "LimitRanger plugin set: cpu request for container c; cpu, memory limit for container c; cpu request for init container i; memory limit for init container i"
        );
        let mut speaking = pod(json!({"cpu": "1"}), json!({"cpu": "1", "memory": "1Mi"}));
        let before = speaking.clone();
        set_defaults(&mut speaking, &ranges);
        assert_eq!(speaking, before);
    }

    #[test]
    fn refusals() {
        let cpu = |amount: &str| json!({"cpu": amount});
        let none = || json!({});
        let cases = [
            (
                "within",
                range("Container", json!({"min": cpu("100m"), "max": cpu("2")})),
                pod(cpu("1"), cpu("2")),
                "",
            ),
            (
                "too small",
                range("Container", json!({"min": cpu("200m")})),
                pod(cpu("100m"), none()),
                "minimum cpu usage per Container is 200m, but request is 100m",
            ),
            (
                "nothing asked for",
                range("Container", json!({"min": cpu("200m")})),
                pod(none(), none()),
                "minimum cpu usage per Container is 200m.  No request is specified",
            ),
            (
                "no limit",
                range("Container", json!({"max": cpu("2")})),
                pod(cpu("1"), none()),
                "maximum cpu usage per Container is 2.  No limit is specified",
            ),
            (
                "too large",
                range("Container", json!({"max": cpu("2")})),
                pod(cpu("1"), cpu("3")),
                "maximum cpu usage per Container is 2, but limit is 3",
            ),
            (
                "the pod in all",
                range("Pod", json!({"max": cpu("2")})),
                pod(cpu("1"), cpu("3")),
                "maximum cpu usage per Pod is 2, but limit is 3",
            ),
            (
                "ratio",
                range("Container", json!({"maxLimitRequestRatio": cpu("2")})),
                pod(cpu("1"), cpu("3")),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                "both",
                range("Container", json!({"min": cpu("2"), "max": cpu("1")})),
                pod(cpu("1"), cpu("3")),
                "[minimum cpu usage per Container is 2, but request is 1, maximum cpu usage per Container is 1, but limit is 3]",
            ),
            (
                "of claims",
                range("PersistentVolumeClaim", json!({"max": cpu("1")})),
                pod(cpu("2"), none()),
                "",
            ),
        ];
        for (case, range, pod, expected) in cases {
            let found = check("pods", &pod, &[range]).err().unwrap_or_default();
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn claims() {
        let storage = |amount: &str| json!({"storage": amount});
        let ranges = [range(
            "PersistentVolumeClaim",
            json!({"min": storage("1Gi"), "max": storage("2Gi")}),
        )];
        let cases = [
            ("2Gi", ""),
            (
                "512Mi",
                "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi",
            ),
            (
                "3Gi",
                "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi",
            ),
        ];
        for (amount, expected) in cases {
            let claim = json!({"spec": {"resources": {"requests": storage(amount)}}});
            let found = check("persistentvolumeclaims", &claim, &ranges)
                .err()
                .unwrap_or_default();
            assert_eq!(found, expected, "{amount}");
        }
    }
}
