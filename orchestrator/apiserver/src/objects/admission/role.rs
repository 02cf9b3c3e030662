//! Admission of roles and bindings: nobody gives rights that they do not have themselves. Pure.

use serde_json::Value;

use crate::auth::User;
use crate::auth::escalation;
use crate::auth::rbac::{Attributes, Policy, Rule};
use crate::objects::tree;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Why a role or binding is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It gives more than its writer has.
    Forbidden(String),
    /// The role it binds, `plural` and name, is not there.
    NoRole(&'static str, String),
}

/// Who writes what.
#[derive(Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) policy: &'a Policy,
    pub(super) user: &'a User,
    /// Such as `roles`.
    pub(super) plural: &'a str,
    /// Before the write; absent: it is created.
    pub(super) old: Option<&'a Value>,
    pub(super) new: &'a Value,
}

/// Refuses a role or binding that gives more than its writer has.
pub(super) fn check(write: &Write<'_>) -> Result<(), Refusal> {
    let is_same = write
        .old
        .is_some_and(|old| only_collection_differs(old, write.new));
    if write.user.is_master() || is_same {
        return Ok(());
    }
    match write.plural {
        "roles" | "clusterroles" => role(write),
        "rolebindings" | "clusterrolebindings" => binding(write),
        _ => Ok(()),
    }
}

/// Whether only what garbage collection needs was changed.
fn only_collection_differs(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        let metadata = tree::map_mut(&mut object, &["metadata"]);
        for field in [
            "ownerReferences",
            "finalizers",
            "managedFields",
            "resourceVersion",
        ] {
            metadata.remove(field);
        }
        object
    };
    bare(old) == bare(new)
}

fn role(write: &Write<'_>) -> Result<(), Refusal> {
    let name = tree::text(write.new, &["metadata", "name"]);
    if write.may("escalate", write.plural, name) {
        return Ok(());
    }
    // Rules that cannot be read allow nothing.
    let rules: Vec<Rule> =
        serde_json::from_value(write.new.get("rules").cloned().unwrap_or_default()).unwrap_or_default();
    write.must_have(&rules)?;
    // Roles that are made of others could gather anything, and could not be tightened.
    let aggregates = |object: &Value| tree::at(object, &["aggregationRule"]).is_some();
    let is_made_of_others = aggregates(write.new) || write.old.is_some_and(aggregates);
    if is_made_of_others && !escalation::has_everything(write.policy, write.user, write.namespace()) {
        let why = "must have cluster-admin privileges to use an aggregationRule";
        return Err(Refusal::Forbidden(why.to_owned()));
    }
    Ok(())
}

fn binding(write: &Write<'_>) -> Result<(), Refusal> {
    let name = tree::text(write.new, &["roleRef", "name"]);
    let (plural, namespace) = match tree::text(write.new, &["roleRef", "kind"]) {
        "Role" => ("roles", write.namespace()),
        _ => ("clusterroles", ""),
    };
    if write.may("bind", plural, name) {
        return Ok(());
    }
    match write.policy.find_rules(namespace, name) {
        Some(rules) => write.must_have(rules),
        None => Err(Refusal::NoRole(plural, name.to_owned())),
    }
}

impl Write<'_> {
    fn namespace(&self) -> &str {
        tree::text(self.new, &["metadata", "namespace"])
    }

    fn may(&self, verb: &str, resource: &str, name: &str) -> bool {
        let attributes = Attributes {
            verb,
            group: GROUP,
            resource,
            namespace: self.namespace(),
            name,
            ..Attributes::default()
        };
        self.policy.allows(self.user, &attributes)
    }

    fn must_have(&self, rules: &[Rule]) -> Result<(), Refusal> {
        let missing = escalation::missing(self.policy, self.user, self.namespace(), rules);
        if missing.is_empty() {
            return Ok(());
        }
        Err(Refusal::Forbidden(escalation::refusal(self.user, &missing)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(name: &str, rules: &Value) -> Value {
        json!({"metadata": {"name": name}, "rules": rules})
    }

    fn binding(role: &str, user: &str) -> Value {
        json!({"metadata": {"name": role}, "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}]})
    }

    fn pods() -> Value {
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
    }

    fn all() -> Value {
        json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}])
    }

    fn policy() -> Policy {
        let binder = json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["all", "none"]}]);
        let raiser = json!([{"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["clusterroles"]}]);
        let roles = [
            role("pods", &pods()),
            role("all", &all()),
            role("binder", &binder),
            role("raiser", &raiser),
        ];
        let bindings = [
            binding("pods", "anna"),
            binding("binder", "bert"),
            binding("all", "carl"),
            binding("raiser", "dora"),
        ];
        Policy::new(roles.into_iter(), bindings.into_iter())
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn who_may_give_what() {
        let policy = policy();
        let mut gathers = role("new", &json!([]));
        gathers["aggregationRule"] = json!({"clusterRoleSelectors": [{}]});
        let cases = [
            ("own rules", "anna", "clusterroles", role("new", &pods()), "yes"),
            ("more rules", "anna", "clusterroles", role("new", &all()), "no"),
            (
                "everything allows escalation",
                "carl",
                "clusterroles",
                role("new", &all()),
                "yes",
            ),
            ("may escalate", "dora", "clusterroles", role("new", &all()), "yes"),
            (
                "gathers, without having everything",
                "anna",
                "clusterroles",
                gathers.clone(),
                "no",
            ),
            ("gathers", "carl", "clusterroles", gathers, "yes"),
            (
                "binds own rules",
                "anna",
                "clusterrolebindings",
                binding("pods", "x"),
                "yes",
            ),
            (
                "binds more",
                "anna",
                "clusterrolebindings",
                binding("all", "anna"),
                "no",
            ),
            (
                "may bind that role",
                "bert",
                "clusterrolebindings",
                binding("all", "x"),
                "yes",
            ),
            (
                "may bind a role that is not there",
                "bert",
                "clusterrolebindings",
                binding("none", "x"),
                "yes",
            ),
            (
                "may not bind another",
                "bert",
                "clusterrolebindings",
                binding("pods", "x"),
                "no",
            ),
            (
                "binds nothing",
                "anna",
                "clusterrolebindings",
                binding("nothing", "x"),
                "no role",
            ),
            ("master", "m", "clusterroles", role("new", &all()), "yes"),
        ];
        for (case, name, plural, new, expected) in cases {
            let groups = (name == "m").then(|| "system:masters".to_owned());
            let user = User::authenticated(name, groups);
            let write = Write {
                policy: &policy,
                user: &user,
                plural,
                old: None,
                new: &new,
            };
            let found = match check(&write) {
                Ok(()) => "yes",
                Err(Refusal::Forbidden(_)) => "no",
                Err(Refusal::NoRole(..)) => "no role",
            };
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn what_garbage_collection_needs_may_change() {
        let policy = policy();
        let user = User::authenticated("gc", []);
        let old = role("r", &all());
        let mut finalized = old.clone();
        finalized["metadata"]["finalizers"] = json!(["x"]);
        let mut labelled = old.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        for (case, new, expected) in [("finalizers", finalized, true), ("labels", labelled, false)] {
            let write = Write {
                policy: &policy,
                user: &user,
                plural: "clusterroles",
                old: Some(&old),
                new: &new,
            };
            assert_eq!(check(&write).is_ok(), expected, "{case}");
        }
    }
}
