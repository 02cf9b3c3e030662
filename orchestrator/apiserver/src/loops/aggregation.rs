//! Keeps the rules of ClusterRoles that are made of others up to date.

use std::time::Duration;

use moorline_schema::selector::LabelSelector;
use serde_json::Value;

use super::Caller;
use crate::http::Failure;
use crate::objects::{metadata, tree};

const GROUP: &str = "rbac.authorization.k8s.io";
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at all ClusterRoles after each change of one, for as long as it is polled.
pub(crate) async fn run(caller: Caller) {
    let Ok(roles) = caller.collection(GROUP, "clusterroles") else {
        return;
    };
    let mut changed = roles.subscribe();
    loop {
        changed.borrow_and_update();
        let snapshot = roles.snapshot("", || 0);
        let objects: Vec<Value> = snapshot.entries.iter().map(|entry| entry.value()).collect();
        let mut outcome = Ok(());
        for (name, rules) in due(&objects) {
            let change = caller.change(roles.resource, &name, |role| {
                tree::map_mut(role, &["metadata"]).remove("resourceVersion");
                tree::map_mut(role, &[]).insert("rules".to_owned(), rules.clone().into());
            });
            outcome = outcome.and(change.await);
        }
        match outcome {
            // One that went meanwhile is no concern of ours.
            Err(failure) if !is_passing(&failure) => {
                tracing::warn!(%failure, "The rules of a ClusterRole cannot be gathered; it is tried again.");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            _ => {
                changed.changed().await.ok();
            }
        }
    }
}

fn is_passing(failure: &Failure) -> bool {
    matches!(failure.code().as_u16(), 404 | 409)
}

/// The roles whose rules are not those of the roles they are made of, with the right ones. `roles` are in the order of
/// their names. Pure.
fn due(roles: &[Value]) -> Vec<(String, Vec<Value>)> {
    let gathering = roles
        .iter()
        .filter(|role| tree::at(role, &["aggregationRule"]).is_some() && !metadata::is_deleting(role));
    gathering
        .filter_map(|role| {
            let rules = gathered(role, roles);
            (tree::list(role, &["rules"]) != rules)
                .then(|| (tree::text(role, &["metadata", "name"]).to_owned(), rules))
        })
        .collect()
}

/// The rules of all roles that one is made of, each once.
fn gathered(role: &Value, roles: &[Value]) -> Vec<Value> {
    let name = tree::text(role, &["metadata", "name"]);
    let selectors: Vec<LabelSelector> = tree::list(role, &["aggregationRule", "clusterRoleSelectors"])
        .iter()
        .map(LabelSelector::from_object)
        .collect();
    let mut rules: Vec<Value> = Vec::new();
    for part in roles {
        let labels = tree::at(part, &["metadata", "labels"]).and_then(Value::as_object);
        let is_part = selectors.iter().any(|selector| selector.matches(labels));
        if tree::text(part, &["metadata", "name"]) == name || !is_part {
            continue;
        }
        for rule in tree::list(part, &["rules"]) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(name: &str, label: &str, from: Option<&str>, rules: &[&str]) -> Value {
        let rules: Vec<Value> = rules
            .iter()
            .map(|resource| json!({"resources": [resource]}))
            .collect();
        let mut role = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules});
        if let Some(from) = from {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {from: "true"}}]});
        }
        role
    }

    #[test]
    fn rules_are_gathered() {
        let rules = |names: &[&str]| -> Vec<Value> {
            names.iter().map(|name| json!({"resources": [name]})).collect()
        };
        type Due = Vec<(String, Vec<Value>)>;
        let cases: [(&str, Vec<Value>, Due); 5] = [
            ("no role gathers", vec![role("a", "x", None, &["pods"])], vec![]),
            (
                "up to date",
                vec![
                    role("a", "x", None, &["pods"]),
                    role("all", "", Some("x"), &["pods"]),
                ],
                vec![],
            ),
            (
                "a new part, a rule twice",
                vec![
                    role("a", "x", None, &["pods"]),
                    role("all", "", Some("x"), &["pods"]),
                    role("b", "x", None, &["pods", "nodes"]),
                ],
                vec![("all".to_owned(), rules(&["pods", "nodes"]))],
            ),
            (
                "a part is gone",
                vec![role("all", "", Some("x"), &["pods"])],
                vec![("all".to_owned(), vec![])],
            ),
            (
                "not of itself",
                vec![
                    role("a", "x", None, &["pods"]),
                    role("all", "x", Some("x"), &["pods"]),
                ],
                vec![],
            ),
        ];
        for (case, roles, expected) in cases {
            assert_eq!(due(&roles), expected, "{case}");
        }
    }
}
