//! Admission of roles and bindings: nobody gives rights that they do not have themselves.

use serde_json::Value;

use crate::auth::User;
use crate::auth::rbac::{Attributes, Policy, Rule};
use crate::objects::tree;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding that gives more than its writer has. `plural` says which it is.
pub(super) fn check(policy: &Policy, user: &User, plural: &str, object: &Value) -> Result<(), String> {
    if user.is_master() {
        return Ok(());
    }
    let namespace = tree::text(object, &["metadata", "namespace"]);
    let may = |verb, resource, name| {
        policy.allows(
            user,
            &Attributes {
                verb,
                group: GROUP,
                resource,
                namespace,
                name,
                ..Attributes::default()
            },
        )
    };
    let rules: Vec<Rule> = match plural {
        "roles" | "clusterroles" if may("escalate", plural, tree::text(object, &["metadata", "name"])) => {
            return Ok(());
        }
        // Rules that cannot be read allow nothing.
        "roles" | "clusterroles" => serde_json::from_value(object["rules"].clone()).unwrap_or_default(),
        "rolebindings" | "clusterrolebindings" => {
            let name = tree::text(object, &["roleRef", "name"]);
            let (role_plural, role_namespace) = match tree::text(object, &["roleRef", "kind"]) {
                "Role" => ("roles", namespace),
                _ => ("clusterroles", ""),
            };
            if may("bind", role_plural, name) {
                return Ok(());
            }
            policy.rules(role_namespace, name).to_vec()
        }
        _ => return Ok(()),
    };
    if rules.iter().all(|rule| policy.covers(user, namespace, rule)) {
        return Ok(());
    }
    let (name, groups) = (&user.name, &user.groups);
    Err(format!(
        "user {name:?} (groups={groups:?}) is attempting to grant RBAC permissions not currently held"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_may_give_what() {
        let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
        let binding = |role: &str, user: &str| {
            json!({"metadata": {"name": role}, "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": user}]})
        };
        let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        let binder = json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["all"]}]);
        let roles = [
            role("pods", pods.clone()),
            role("all", all.clone()),
            role("binder", binder),
        ];
        let bindings = [
            binding("pods", "anna"),
            binding("binder", "bert"),
            binding("all", "carl"),
        ];
        let policy = Policy::new(roles.into_iter(), bindings.into_iter());
        let user = |name| User::authenticated(name, []);
        let master = User::authenticated("m", ["system:masters".to_owned()]);
        let cases = [
            ("own rules", user("anna"), "clusterroles", role("new", pods), true),
            (
                "more rules",
                user("anna"),
                "clusterroles",
                role("new", all.clone()),
                false,
            ),
            (
                "everything allows escalation",
                user("carl"),
                "clusterroles",
                role("new", all.clone()),
                true,
            ),
            (
                "binds own rules",
                user("anna"),
                "clusterrolebindings",
                binding("pods", "x"),
                true,
            ),
            (
                "binds more",
                user("anna"),
                "clusterrolebindings",
                binding("all", "anna"),
                false,
            ),
            (
                "may bind that role",
                user("bert"),
                "clusterrolebindings",
                binding("all", "x"),
                true,
            ),
            (
                "may not bind another",
                user("bert"),
                "clusterrolebindings",
                binding("pods", "x"),
                false,
            ),
            ("master", master, "clusterroles", role("new", all), true),
        ];
        for (case, user, plural, object, expected) in cases {
            assert_eq!(check(&policy, &user, plural, &object).is_ok(), expected, "{case}");
        }
    }
}
