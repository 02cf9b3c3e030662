//! What nodes may do: what their role says, and of what is secret or another node's only what their own pods need.
//! Pure: what pods need is asked through [`Needs`].

use std::sync::LazyLock;

use super::User;
use super::bootstrap;
use super::rbac::{Attributes, Rule};

const GROUP: &str = "system:nodes";
const PREFIX: &str = "system:node:";
/// Where nodes keep their leases.
const LEASES: &str = "kube-node-lease";

/// What the pods of a node need.
pub(crate) trait Needs {
    /// Whether one of them needs an object, named by its plural.
    fn needs(&self, node: &str, plural: &str, namespace: &str, name: &str) -> bool;
}

/// The name of the node that somebody is.
pub(crate) fn name(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(PREFIX).filter(|name| !name.is_empty())?;
    user.groups.iter().any(|group| group == GROUP).then_some(name)
}

/// Whether a node may do something.
pub(crate) fn allows(node: &str, wants: &Attributes<'_>, needs: &dyn Needs) -> bool {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| bootstrap::rules_of(bootstrap::NODE_ROLE));
    if !RULES.iter().any(|rule| rule.allows(wants)) {
        return false;
    }
    let is_own = wants.name == node;
    let is_needed =
        || !wants.name.is_empty() && needs.needs(node, wants.resource, wants.namespace, wants.name);
    match (wants.group, wants.resource, wants.subresource) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes", _) => is_needed(),
        // With any other verb than the one that makes a token, accounts are only read.
        ("", "serviceaccounts", _) => is_needed(),
        ("storage.k8s.io", "volumeattachments", _) | ("resource.k8s.io", "resourceclaims", _) => is_needed(),
        ("coordination.k8s.io", "leases", _) => {
            // Which lease is created is seen by admission.
            wants.namespace == LEASES && (is_own || wants.verb == "create")
        }
        ("storage.k8s.io", "csinodes", _) => is_own || wants.verb == "create",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pods;

    impl Needs for Pods {
        fn needs(&self, node: &str, plural: &str, namespace: &str, name: &str) -> bool {
            (node, plural, namespace, name) == ("n", "secrets", "a", "used")
        }
    }

    #[test]
    fn who_is_a_node() {
        let user = |name: &str, group: &str| User::authenticated(name, [group.to_owned()]);
        let cases = [
            (user("system:node:n", GROUP), Some("n")),
            (user("system:node:n", "others"), None),
            (user("n", GROUP), None),
            (user("system:node:", GROUP), None),
        ];
        for (user, expected) in cases {
            assert_eq!(name(&user), expected, "{}", user.name);
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn decisions() {
        let of = |group, resource, subresource| Attributes {
            group,
            resource,
            subresource,
            ..Attributes::default()
        };
        let secret = |verb, name| Attributes {
            verb,
            namespace: "a",
            name,
            ..of("", "secrets", "")
        };
        let lease = |verb, namespace, name| Attributes {
            verb,
            namespace,
            name,
            ..of("coordination.k8s.io", "leases", "")
        };
        let cases = [
            ("a secret of a pod", secret("get", "used"), true),
            ("another secret", secret("get", "other"), false),
            ("all secrets", secret("list", ""), false),
            ("watches a secret of a pod", secret("watch", "used"), true),
            ("writes a secret", secret("update", "used"), false),
            (
                "lists pods",
                Attributes {
                    verb: "list",
                    ..of("", "pods", "")
                },
                true,
            ),
            ("own lease", lease("update", LEASES, "n"), true),
            ("lease of another", lease("update", LEASES, "m"), false),
            ("lease elsewhere", lease("update", "kube-system", "n"), false),
            ("makes its lease", lease("create", LEASES, ""), true),
            (
                "own CSINode",
                Attributes {
                    verb: "patch",
                    name: "n",
                    ..of("storage.k8s.io", "csinodes", "")
                },
                true,
            ),
            (
                "CSINode of another",
                Attributes {
                    verb: "patch",
                    name: "m",
                    ..of("storage.k8s.io", "csinodes", "")
                },
                false,
            ),
            (
                "deletes a node",
                Attributes {
                    verb: "delete",
                    name: "n",
                    ..of("", "nodes", "")
                },
                false,
            ),
            (
                "its status",
                Attributes {
                    verb: "patch",
                    name: "n",
                    ..of("", "nodes", "status")
                },
                true,
            ),
            (
                "workloads",
                Attributes {
                    verb: "list",
                    ..of("apps", "deployments", "")
                },
                false,
            ),
        ];
        for (case, wants, expected) in cases {
            assert_eq!(allows("n", &wants, &Pods), expected, "{case}");
        }
    }
}
