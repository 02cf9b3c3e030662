//! Keeps pods away from nodes that are not ready or short of something: conditions of a node become its taints.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Caller;
use crate::objects::{metadata, tree};

const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, its status, and the taint that follows.
const CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
const NO_SCHEDULE: &str = "NoSchedule";

/// Looks at all nodes after each change of one, for as long as it is polled.
pub(crate) async fn run(caller: Caller) {
    let Ok(nodes) = caller.collection("", "nodes") else {
        return;
    };
    let mut changed = nodes.subscribe();
    loop {
        changed.borrow_and_update();
        let mut failed = false;
        for entry in nodes.snapshot("", || 0).entries {
            if taints(&entry.value()).is_none() {
                continue;
            }
            let change = caller.change(nodes.resource, entry.name(), |node| {
                tree::map_mut(node, &["metadata"]).remove("resourceVersion");
                if let Some(taints) = taints(node) {
                    let taints = (!taints.is_empty()).then(|| Value::Array(with_times(taints)));
                    tree::set(tree::map_mut(node, &["spec"]), "taints", taints);
                }
            });
            match change.await {
                Err(failure) if !matches!(failure.code().as_u16(), 404 | 409) => {
                    tracing::warn!(node = entry.name(), %failure, "A node's taints cannot be set; it is tried again.");
                    failed = true;
                }
                _ => {}
            }
        }
        if failed {
            tokio::time::sleep(RETRY_INTERVAL).await;
        } else {
            changed.changed().await.ok();
        }
    }
}

/// The taints that a new node has until its state is known.
pub(crate) fn first_taint() -> Value {
    json!({ "key": CONDITIONS[0].2, "effect": NO_SCHEDULE })
}

/// The taint of a node that is not ready.
pub(crate) fn is_not_ready(taint: &Value) -> bool {
    tree::text(taint, &["key"]) == CONDITIONS[0].2 && tree::text(taint, &["effect"]) == NO_SCHEDULE
}

fn with_times(taints: Vec<Value>) -> Vec<Value> {
    let now = tree::time(Timestamp::now());
    let taints = taints.into_iter().map(|mut taint| {
        // Those that were there keep theirs, and those of others need none.
        if taint.get("timeAdded") == Some(&Value::Null) {
            taint["timeAdded"] = now.clone();
        }
        taint
    });
    taints.collect()
}

/// The taints a node should have, if they are not those it has. What follows from conditions comes and goes with them;
/// all others stay. Pure.
fn taints(node: &Value) -> Option<Vec<Value>> {
    if metadata::is_deleting(node) {
        return None;
    }
    let conditions = tree::list(node, &["status", "conditions"]);
    let status = |kind: &str| {
        let mut conditions = conditions.iter();
        conditions
            .find(|condition| tree::text(condition, &["type"]) == kind)
            .map(|condition| tree::text(condition, &["status"]))
    };
    let mut due: Vec<&str> = CONDITIONS
        .iter()
        .filter(|(kind, wanted, _)| status(kind) == Some(*wanted))
        .map(|(.., taint)| *taint)
        .collect();
    if tree::at(node, &["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        due.push(UNSCHEDULABLE);
    }
    // Of a node that has said nothing yet, nothing is known.
    let is_silent = status("Ready").is_none();
    let is_ours = |taint: &Value| {
        let key = tree::text(taint, &["key"]);
        let is_known = key == UNSCHEDULABLE || CONDITIONS.iter().any(|(.., known)| *known == key);
        let is_first = is_silent && is_not_ready(taint);
        is_known && !is_first && tree::text(taint, &["effect"]) == NO_SCHEDULE
    };
    let before = tree::list(node, &["spec", "taints"]);
    let mut after: Vec<Value> = before
        .iter()
        .filter(|taint| !is_ours(taint) || due.contains(&tree::text(taint, &["key"])))
        .cloned()
        .collect();
    for key in due {
        let has = after
            .iter()
            .any(|taint| tree::text(taint, &["key"]) == key && tree::text(taint, &["effect"]) == NO_SCHEDULE);
        if !has {
            after.push(json!({ "key": key, "effect": NO_SCHEDULE, "timeAdded": null }));
        }
    }
    (after != before).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_follow_conditions() {
        let node = |ready: &str, taints: Value, unschedulable: bool| {
            let mut node = json!({"spec": {"taints": taints}, "status": {}});
            if !ready.is_empty() {
                node["status"]["conditions"] = json!([{"type": "Ready", "status": ready}]);
            }
            if unschedulable {
                node["spec"]["unschedulable"] = json!(true);
            }
            node
        };
        let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
        let added = |key: &str| json!({"key": key, "effect": "NoSchedule", "timeAdded": null});
        let (not_ready, unreachable) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
        let own = json!({"key": "own", "effect": "NoSchedule"});
        let evicts = json!({"key": not_ready, "effect": "NoExecute"});
        let cases = [
            ("ready", node("True", json!([]), false), None),
            (
                "has become ready",
                node("True", json!([own, taint(not_ready)]), false),
                Some(json!([own])),
            ),
            (
                "said nothing yet",
                node("", json!([taint(not_ready)]), false),
                None,
            ),
            (
                "not ready",
                node("False", json!([own]), false),
                Some(json!([own, added(not_ready)])),
            ),
            (
                "still not ready",
                node("False", json!([taint(not_ready)]), false),
                None,
            ),
            (
                "away",
                node("Unknown", json!([taint(not_ready)]), false),
                Some(json!([added(unreachable)])),
            ),
            ("other effects stay", node("True", json!([evicts]), false), None),
            (
                "cordoned",
                node("True", json!([]), true),
                Some(json!([added(UNSCHEDULABLE)])),
            ),
            (
                "free again",
                node("True", json!([taint(UNSCHEDULABLE)]), false),
                Some(json!([])),
            ),
        ];
        for (case, node, expected) in cases {
            assert_eq!(taints(&node).map(Value::Array), expected, "{case}");
        }
    }
}
