//! Rules of pods: quality of service and the time they are given to end. Pure.

use serde_json::{Value, json};

use crate::objects::tree;

const GRACE_SECONDS: i64 = 30;
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// How long a pod may take to end. One that never ran or has ended needs no time.
pub(super) fn grace_seconds(pod: &Value, asked: Option<i64>) -> i64 {
    let phase = tree::text(pod, &["status", "phase"]);
    let is_placed = !tree::text(pod, &["spec", "nodeName"]).is_empty();
    if !is_placed || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let own = tree::at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    // A negative time in the spec means: as soon as it goes regularly.
    asked.unwrap_or_else(|| own.unwrap_or(GRACE_SECONDS).max(1))
}

/// The class by which the node decides whom to hurt first.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let containers = tree::list(pod, &["spec", "containers"]).iter();
    let containers: Vec<&Value> = containers
        .chain(tree::list(pod, &["spec", "initContainers"]))
        .collect();
    let value = |container: &Value, kind: &str, name: &str| {
        tree::at(container, &["resources", kind, name])
            .filter(|value| **value != json!("0"))
            .cloned()
    };
    let sets_any = |container: &&Value| {
        RESOURCES.iter().any(|name| {
            value(container, "requests", name).is_some() || value(container, "limits", name).is_some()
        })
    };
    if !containers.iter().any(sets_any) {
        return "BestEffort";
    }
    let is_fixed = |container: &&Value| {
        RESOURCES.iter().all(|name| {
            let limit = value(container, "limits", name);
            let request = value(container, "requests", name);
            limit.is_some() && (request.is_none() || request == limit)
        })
    };
    if containers.iter().all(is_fixed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// The class is decided once, at creation; kubelets that leave it out do not take it away.
pub(super) fn keep_qos_class(old: &Value, new: &mut Value) {
    if let Some(class) = tree::at(old, &["status", "qosClass"]).cloned() {
        tree::map_mut(new, &["status"]).insert("qosClass".to_owned(), class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        let cases = [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
                "Burstable",
            ),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
        ];
        for (resources, expected) in cases {
            assert_eq!(qos_class(&pod(resources.clone())), expected, "{resources}");
        }
    }

    #[test]
    fn graces() {
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}, "status": {"phase": "Running"}});
        let done = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}});
        let waiting = json!({"spec": {"terminationGracePeriodSeconds": 5}, "status": {"phase": "Pending"}});
        let cases = [
            ("own time", &running, None, 5),
            ("asked time", &running, Some(2), 2),
            ("by force", &running, Some(0), 0),
            ("ended", &done, None, 0),
            ("not placed", &waiting, Some(9), 0),
        ];
        for (case, pod, asked, expected) in cases {
            assert_eq!(grace_seconds(pod, asked), expected, "{case}");
        }
    }
}
