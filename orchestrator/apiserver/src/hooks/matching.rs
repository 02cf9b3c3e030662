//! Which requests a webhook or policy is about. Pure.

use moorline_schema::selector::LabelSelector;
use serde_json::{Map, Value};

use crate::objects::tree;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As reviews and rules write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A resource, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'p> {
    pub(crate) group: &'p str,
    pub(crate) version: &'p str,
    pub(crate) plural: &'p str,
    pub(crate) subresource: &'p str,
}

/// What is matched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'r> {
    pub(crate) operation: Operation,
    pub(crate) place: Place<'r>,
    /// Other versions of the same objects: group and version.
    pub(crate) equivalents: &'r [(&'r str, &'r str)],
    /// Whether the object lives in a namespace.
    pub(crate) is_namespaced: bool,
    pub(crate) name: &'r str,
    pub(crate) object: Option<&'r Value>,
    pub(crate) old: Option<&'r Value>,
    /// The labels of the object's namespace; of a namespace its own. Absent for other cluster-wide objects.
    pub(crate) namespace_labels: Option<&'r Map<String, Value>>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    operations: Vec<String>,
    names: Vec<String>,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Namespaced,
    Cluster,
}

fn texts(object: &Value, field: &str) -> Vec<String> {
    let list = tree::list(object, &[field]).iter();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Rule {
    fn read(rule: &Value) -> Rule {
        Rule {
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources"),
            operations: texts(rule, "operations"),
            names: texts(rule, "resourceNames"),
            scope: match tree::text(rule, &["scope"]) {
                "Namespaced" => Scope::Namespaced,
                "Cluster" => Scope::Cluster,
                _ => Scope::All,
            },
        }
    }

    fn matches(&self, request: &Request<'_>, group: &str, version: &str) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|one| one == "*" || one == value);
        let is_in_scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => request.is_namespaced,
            Scope::Cluster => !request.is_namespaced,
        };
        let place = request.place;
        let is_resource = |pattern: &String| {
            let (plural, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
            (plural == "*" || plural == place.plural)
                && (subresource == "*" || subresource == place.subresource)
        };
        is_in_scope
            && has(&self.operations, request.operation.name())
            && has(&self.groups, group)
            && has(&self.versions, version)
            && self.resources.iter().any(is_resource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
    }
}

/// What a webhook, a policy or a binding says it is about.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    rules: Vec<Rule>,
    /// What is left out all the same.
    excluded: Vec<Rule>,
    /// Only requests of the very version that a rule names.
    is_exact: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
    /// Without a rule, everything matches: so for bindings.
    is_open: bool,
}

impl Matcher {
    /// Of a webhook.
    pub(crate) fn of_webhook(webhook: &Value) -> Matcher {
        Matcher::read(webhook, "rules", false)
    }

    /// Of a policy (`matchConstraints`), or of a binding (`matchResources`), which may say nothing.
    pub(crate) fn of_policy(constraints: Option<&Value>, is_binding: bool) -> Matcher {
        Matcher::read(constraints.unwrap_or(&Value::Null), "resourceRules", is_binding)
    }

    fn read(object: &Value, rules: &str, is_open: bool) -> Matcher {
        let read = |field: &str| {
            tree::list(object, &[field])
                .iter()
                .map(Rule::read)
                .collect::<Vec<Rule>>()
        };
        let selector = |field: &str| {
            let stated = tree::at(object, &[field]);
            stated.map(LabelSelector::from_object).unwrap_or_default()
        };
        Matcher {
            rules: read(rules),
            excluded: read("excludeResourceRules"),
            is_exact: tree::text(object, &["matchPolicy"]) == "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            is_open,
        }
    }

    /// The group and version in which a request matches, if it does.
    pub(crate) fn find<'r>(&self, request: &Request<'r>) -> Option<(&'r str, &'r str)> {
        let own = (request.place.group, request.place.version);
        if !self.selects(request) || self.excludes(request) {
            return None;
        }
        if self.is_open && self.rules.is_empty() {
            return Some(own);
        }
        if self.rules.iter().any(|rule| rule.matches(request, own.0, own.1)) {
            return Some(own);
        }
        let others: &'r [(&'r str, &'r str)] = if self.is_exact { &[] } else { request.equivalents };
        // Earlier rules come first.
        self.rules.iter().find_map(|rule| {
            let mut others = others.iter();
            others
                .find(|(group, version)| rule.matches(request, group, version))
                .copied()
        })
    }

    fn excludes(&self, request: &Request<'_>) -> bool {
        let own = [(request.place.group, request.place.version)];
        let all = own
            .iter()
            .chain(request.equivalents.iter().filter(|_| !self.is_exact));
        let mut all = all.copied();
        all.any(|(group, version)| {
            self.excluded
                .iter()
                .any(|rule| rule.matches(request, group, version))
        })
    }

    fn selects(&self, request: &Request<'_>) -> bool {
        let is_in_namespace = match request.namespace_labels {
            None => true,
            Some(labels) => self.namespaces.matches(Some(labels)),
        };
        let labels = |object: Option<&'_ Value>| {
            object.is_some_and(|object| {
                let labels = tree::at(object, &["metadata", "labels"]).and_then(Value::as_object);
                self.objects.matches(labels)
            })
        };
        is_in_namespace && (self.objects.is_empty() || labels(request.object) || labels(request.old))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(more: Value) -> Value {
        let mut rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE"]});
        for (name, value) in more.as_object().unwrap() {
            rule[name] = value.clone();
        }
        json!({"rules": [rule], "matchPolicy": "Equivalent"})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut webhook = rule(json!({}));
        webhook[field] = value;
        webhook
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn requests_that_match() {
        let object = json!({"metadata": {"name": "d", "labels": {"a": "b"}}});
        let labels = json!({"env": "prod"});
        let place = |version, subresource| Place {
            group: "apps",
            version,
            plural: "deployments",
            subresource,
        };
        let request = |place| Request {
            operation: Operation::Create,
            place,
            equivalents: &[("apps", "v1"), ("apps", "v2")],
            is_namespaced: true,
            name: "d",
            object: Some(&object),
            old: None,
            namespace_labels: labels.as_object(),
        };
        let own = request(place("v1", ""));
        let mut exact = rule(json!({}));
        exact["matchPolicy"] = json!("Exact");
        let cases = [
            ("its own rule", rule(json!({})), own, Some("v1")),
            (
                "another operation",
                rule(json!({"operations": ["DELETE"]})),
                own,
                None,
            ),
            (
                "any operation",
                rule(json!({"operations": ["*"]})),
                own,
                Some("v1"),
            ),
            (
                "any group and version",
                rule(json!({"apiGroups": ["*"], "apiVersions": ["*"]})),
                own,
                Some("v1"),
            ),
            ("another group", rule(json!({"apiGroups": [""]})), own, None),
            (
                "a subresource needs a rule",
                rule(json!({})),
                request(place("v1", "scale")),
                None,
            ),
            (
                "all subresources",
                rule(json!({"resources": ["deployments/*"]})),
                request(place("v1", "scale")),
                Some("v1"),
            ),
            (
                "everything",
                rule(json!({"resources": ["*/*"]})),
                request(place("v1", "scale")),
                Some("v1"),
            ),
            (
                "resources alone",
                rule(json!({"resources": ["*"]})),
                request(place("v1", "scale")),
                None,
            ),
            ("cluster-wide alone", rule(json!({"scope": "Cluster"})), own, None),
            (
                "in namespaces alone",
                rule(json!({"scope": "Namespaced"})),
                own,
                Some("v1"),
            ),
            (
                "an equivalent version",
                rule(json!({})),
                request(place("v2", "")),
                Some("v1"),
            ),
            ("only the same version", exact, request(place("v2", "")), None),
            (
                "label of the namespace",
                with("namespaceSelector", json!({"matchLabels": {"env": "prod"}})),
                own,
                Some("v1"),
            ),
            (
                "other namespaces",
                with("namespaceSelector", json!({"matchLabels": {"env": "dev"}})),
                own,
                None,
            ),
            (
                "label of the object",
                with("objectSelector", json!({"matchLabels": {"a": "b"}})),
                own,
                Some("v1"),
            ),
            (
                "other objects",
                with("objectSelector", json!({"matchLabels": {"a": "c"}})),
                own,
                None,
            ),
            (
                "what was there before",
                with("objectSelector", json!({"matchLabels": {"a": "b"}})),
                Request {
                    object: None,
                    old: Some(&object),
                    ..own
                },
                Some("v1"),
            ),
        ];
        for (case, webhook, request, expected) in cases {
            let found = Matcher::of_webhook(&webhook).find(&request);
            assert_eq!(found.map(|(_, version)| version), expected, "{case}");
        }
    }

    #[test]
    fn policies_leave_out_and_bindings_are_open() {
        let object = json!({"metadata": {"name": "kube-root-ca.crt"}});
        let request = Request {
            operation: Operation::Update,
            place: Place {
                group: "",
                version: "v1",
                plural: "configmaps",
                subresource: "",
            },
            equivalents: &[],
            is_namespaced: true,
            name: "kube-root-ca.crt",
            object: Some(&object),
            old: None,
            namespace_labels: None,
        };
        let all = json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]});
        let mut named = all.clone();
        named["resourceNames"] = json!(["kube-root-ca.crt"]);
        let policy = |included: &Value, excluded: Option<&Value>| {
            let excluded: Vec<&Value> = excluded.into_iter().collect();
            Matcher::of_policy(
                Some(&json!({"resourceRules": [included], "excludeResourceRules": excluded})),
                false,
            )
        };
        assert!(policy(&all, None).find(&request).is_some());
        assert!(policy(&all, Some(&named)).find(&request).is_none());
        assert!(policy(&named, None).find(&request).is_some());
        assert!(
            policy(&named, None)
                .find(&Request {
                    name: "other",
                    ..request
                })
                .is_none()
        );
        assert!(Matcher::of_policy(None, true).find(&request).is_some());
        assert!(Matcher::of_policy(None, false).find(&request).is_none());
    }
}
