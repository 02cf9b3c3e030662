//! Roles and bindings, evaluated. Pure: the objects come in as trees, the answer is a decision.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::User;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// Plural name; empty for paths outside of the resources.
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The path, for those outside of the resources.
    pub(crate) path: &'a str,
}

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) non_resource_urls: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    metadata: Metadata,
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Debug, Clone, Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct Role {
    metadata: Metadata,
    #[serde(default)]
    rules: Option<Vec<Rule>>,
}

/// All roles and bindings of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// Rules by namespace and name of the role; cluster roles have the empty namespace.
    roles: HashMap<(String, String), Vec<Rule>>,
    bindings: Vec<Binding>,
}

impl Policy {
    /// Objects that make no sense are left out: they allow nothing.
    pub(crate) fn new(roles: impl Iterator<Item = Value>, bindings: impl Iterator<Item = Value>) -> Self {
        let roles = roles.filter_map(|role| serde_json::from_value::<Role>(role).ok());
        Policy {
            roles: roles
                .map(|role| {
                    (
                        (role.metadata.namespace, role.metadata.name),
                        role.rules.unwrap_or_default(),
                    )
                })
                .collect(),
            bindings: bindings
                .filter_map(|binding| serde_json::from_value(binding).ok())
                .collect(),
        }
    }

    /// Whether any rule allows it.
    pub(crate) fn allows(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        self.rules_for(user, attributes.namespace)
            .any(|rule| rule.allows(attributes))
    }

    /// The rules of a role; the empty namespace has the cluster roles.
    pub(crate) fn find_rules(&self, namespace: &str, role: &str) -> Option<&[Rule]> {
        let found = self.roles.get(&(namespace.to_owned(), role.to_owned()));
        found.map(Vec::as_slice)
    }

    fn rules(&self, namespace: &str, role: &str) -> &[Rule] {
        self.find_rules(namespace, role).unwrap_or_default()
    }

    /// Whether somebody may do all that a rule allows.
    pub(crate) fn covers(&self, user: &User, namespace: &str, rule: &Rule) -> bool {
        rule.each(namespace, |attributes| self.allows(user, attributes))
    }

    /// All rules that hold for somebody in a namespace; for the empty one those that hold everywhere.
    pub(crate) fn rules_for<'p>(
        &'p self,
        user: &'p User,
        namespace: &'p str,
    ) -> impl Iterator<Item = &'p Rule> {
        let holds = move |binding: &&Binding| {
            let reaches = binding.metadata.namespace.is_empty() || binding.metadata.namespace == namespace;
            reaches
                && binding
                    .subjects
                    .iter()
                    .any(|subject| subject.is(user, &binding.metadata.namespace))
        };
        self.bindings
            .iter()
            .filter(holds)
            .flat_map(|binding| self.rules_of(binding))
    }

    fn rules_of(&self, binding: &Binding) -> &[Rule] {
        match binding.role_ref.kind.as_str() {
            "Role" => self.rules(&binding.metadata.namespace, &binding.role_ref.name),
            _ => self.rules("", &binding.role_ref.name),
        }
    }
}

impl Subject {
    fn is(&self, user: &User, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.name,
            "Group" => user.groups.contains(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() {
                    binding_namespace
                } else {
                    &self.namespace
                };
                user.name
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'))
                    .is_some_and(|found| found == (namespace, self.name.as_str()))
            }
            _ => false,
        }
    }
}

impl Rule {
    /// Whether `holds` is true for each single thing that the rule allows. Patterns stand for themselves: only an
    /// equal or wider pattern matches them.
    pub(crate) fn each(&self, namespace: &str, holds: impl Fn(&Attributes<'_>) -> bool) -> bool {
        let any_name = [String::new()];
        let names = if self.resource_names.is_empty() {
            &any_name[..]
        } else {
            &self.resource_names[..]
        };
        self.verbs.iter().all(|verb| {
            let of_path = |path: &String| {
                holds(&Attributes {
                    verb,
                    path,
                    ..Attributes::default()
                })
            };
            let of_resource = |group: &String, resource: &String| {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let base = Attributes {
                    verb,
                    group,
                    resource,
                    subresource,
                    namespace,
                    ..Attributes::default()
                };
                names.iter().all(|name| holds(&Attributes { name, ..base }))
            };
            self.non_resource_urls.iter().all(of_path)
                && self
                    .api_groups
                    .iter()
                    .all(|group| self.resources.iter().all(|one| of_resource(group, one)))
        })
    }

    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|one| one == "*" || one == value);
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        if attributes.resource.is_empty() {
            return self
                .non_resource_urls
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => attributes.path.starts_with(prefix),
                    None => pattern == attributes.path,
                });
        }
        has(&self.api_groups, attributes.group)
            && self
                .resources
                .iter()
                .any(|pattern| matches_resource(pattern, attributes))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == attributes.name))
    }
}

fn matches_resource(pattern: &str, attributes: &Attributes<'_>) -> bool {
    match (pattern.split_once('/'), attributes.subresource) {
        _ if pattern == "*" => true,
        (None, "") => pattern == attributes.resource,
        (Some((resource, sub)), wanted) if !wanted.is_empty() => {
            (resource == "*" || resource == attributes.resource) && sub == wanted
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Policy {
        let role = |name: &str, namespace: &str, rules: Value| json!({"metadata": {"name": name, "namespace": namespace}, "rules": rules});
        let binding = |namespace: &str, kind: &str, role: &str, subject: Value| json!({"metadata": {"name": "b", "namespace": namespace}, "roleRef": {"kind": kind, "name": role}, "subjects": [subject]});
        let reader = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        let named =
            json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"]}]);
        let logs = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["*/log"]}]);
        let paths = json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]}]);
        let roles = [
            role("reader", "", reader.clone()),
            role("local", "a", named),
            role("logs", "", logs),
            role("paths", "", paths),
        ];
        let bindings = [
            binding(
                "",
                "ClusterRole",
                "reader",
                json!({"kind": "User", "name": "anna"}),
            ),
            binding(
                "a",
                "ClusterRole",
                "reader",
                json!({"kind": "Group", "name": "devs"}),
            ),
            binding(
                "a",
                "Role",
                "local",
                json!({"kind": "ServiceAccount", "name": "bot", "namespace": "b"}),
            ),
            binding("", "ClusterRole", "logs", json!({"kind": "User", "name": "anna"})),
            binding(
                "",
                "ClusterRole",
                "paths",
                json!({"kind": "User", "name": "anna"}),
            ),
        ];
        Policy::new(roles.into_iter(), bindings.into_iter())
    }

    #[test]
    fn nobody_gives_what_they_do_not_have() {
        let rule = |rule: Value| serde_json::from_value::<Rule>(rule).unwrap();
        let anna = User::authenticated("anna", []);
        let get =
            |resources: &[&str]| rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": resources}));
        let cases = [
            ("own", get(&["pods"]), true),
            ("own, twice", get(&["pods", "pods/log"]), true),
            ("one too many", get(&["pods", "secrets"]), false),
            ("all resources", get(&["*"]), false),
            (
                "another verb",
                rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]})),
                false,
            ),
            (
                "all groups",
                rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods"]})),
                false,
            ),
            (
                "less: one name",
                rule(
                    json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
                ),
                true,
            ),
            (
                "path",
                rule(json!({"verbs": ["get"], "nonResourceURLs": ["/debug/x", "/debug/*"]})),
                true,
            ),
            (
                "wider path",
                rule(json!({"verbs": ["get"], "nonResourceURLs": ["*"]})),
                false,
            ),
        ];
        for (case, rule, expected) in cases {
            assert_eq!(policy().covers(&anna, "x", &rule), expected, "{case}");
        }
    }

    #[test]
    fn decisions() {
        let anna = User::authenticated("anna", []);
        let dev = User::authenticated("dan", ["devs".to_owned()]);
        let bot = User::authenticated("system:serviceaccount:b:bot", []);
        let pods = |verb, namespace| Attributes {
            verb,
            resource: "pods",
            namespace,
            ..Attributes::default()
        };
        let secret = |name| Attributes {
            verb: "update",
            resource: "secrets",
            namespace: "a",
            name,
            ..Attributes::default()
        };
        let log = Attributes {
            subresource: "log",
            ..pods("get", "x")
        };
        let exec = Attributes {
            subresource: "exec",
            ..pods("get", "x")
        };
        let path = |path| Attributes {
            verb: "get",
            path,
            ..Attributes::default()
        };
        let cases = [
            ("everywhere", &anna, pods("get", "x"), true),
            ("cluster-wide", &anna, pods("get", ""), true),
            ("other verb", &anna, pods("list", "x"), false),
            (
                "other group of resources",
                &anna,
                Attributes {
                    group: "apps",
                    ..pods("get", "x")
                },
                false,
            ),
            ("bound in the namespace", &dev, pods("get", "a"), true),
            ("bound elsewhere", &dev, pods("get", "b"), false),
            ("service account, by name", &bot, secret("one"), true),
            ("service account, other name", &bot, secret("two"), false),
            ("service account, no name", &bot, secret(""), false),
            ("subresource of any", &anna, log, true),
            ("other subresource", &anna, exec, false),
            ("path", &anna, path("/metrics"), true),
            ("path below", &anna, path("/debug/x"), true),
            ("other path", &anna, path("/other"), false),
            ("nobody", &User::anonymous(), pods("get", "x"), false),
        ];
        let policy = policy();
        for (case, user, attributes, expected) in cases {
            assert_eq!(policy.allows(user, &attributes), expected, "{case}");
        }
    }
}
