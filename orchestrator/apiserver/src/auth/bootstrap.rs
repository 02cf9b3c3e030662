//! The roles and bindings that every cluster has, from the facts beside this crate, and what stored ones lack of them. Pure.

use serde_json::{Map, Value, json};

use super::rbac::Rule;
use crate::objects::tree;

const FACTS: &str = include_str!("../../facts/bootstrap-roles.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";
const CONTROLLERS: &str = "system:controller:";
/// With the value `false`, an object is left as it is.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const READS: [&str; 3] = ["get", "list", "watch"];
const WRITES: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
/// The rights of nodes.
pub(crate) const NODE_ROLE: &str = "system:node";

/// An object that there has to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Such as `clusterroles`.
    pub(crate) plural: &'static str,
    pub(crate) namespace: Option<&'static str>,
    pub(crate) object: Value,
}

impl Wanted {
    /// Where the object is in its collection.
    pub(crate) fn path(&self) -> String {
        let name = tree::text(&self.object, &["metadata", "name"]);
        match self.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        }
    }
}

/// A role as the facts have it.
struct Role {
    name: &'static str,
    namespace: Option<&'static str>,
    label: Option<&'static str>,
    from: Option<&'static str>,
    /// Absent: there is no binding.
    subjects: Option<Vec<&'static str>>,
    binding: &'static str,
    rules: Vec<Rule>,
}

/// All roles, then all bindings. Roles that are made of others have the rules of those.
pub(crate) fn wanted() -> Vec<Wanted> {
    let roles = roles();
    let mut objects: Vec<Wanted> = roles.iter().map(|role| role.object(&roles)).collect();
    objects.extend(roles.iter().filter_map(Role::binding));
    objects
}

/// The rules of a role of the facts.
pub(crate) fn rules_of(name: &str) -> Vec<Rule> {
    let found = roles().into_iter().find(|role| role.name == name);
    found.map_or_else(Vec::new, |role| role.rules)
}

fn roles() -> Vec<Role> {
    let mut roles: Vec<Role> = Vec::new();
    for line in FACTS.lines() {
        if let Some(head) = line.strip_prefix("role ") {
            roles.push(Role::read(head));
        } else if let Some(role) = roles.last_mut()
            && line.starts_with("  ")
        {
            role.rules.push(rule(line.trim()));
        }
    }
    roles
}

impl Role {
    fn read(head: &'static str) -> Role {
        let mut words = head.split_whitespace();
        let name = words.next().unwrap_or_default();
        let mut role = Role {
            name,
            namespace: None,
            label: None,
            from: None,
            subjects: None,
            binding: name,
            rules: Vec::new(),
        };
        while let Some(word) = words.next() {
            match word {
                "in" => role.namespace = words.next(),
                "label" => role.label = words.next(),
                "from" => role.from = words.next(),
                "binding" => role.binding = words.next().unwrap_or(name),
                "bind" => role.subjects = Some(words.by_ref().filter(|word| *word != "nobody").collect()),
                _ => {}
            }
        }
        role
    }

    /// The rules it has itself and those of the roles it is made of, each once, in the order of the roles' names.
    fn all_rules(&self, all: &[Role]) -> Vec<Rule> {
        let mut parts: Vec<&Role> = all
            .iter()
            .filter(|role| self.from.is_some() && role.label == self.from && role.name != self.name)
            .collect();
        parts.sort_by_key(|role| role.name);
        let mut rules = self.rules.clone();
        for rule in parts.into_iter().flat_map(|part| part.all_rules(all)) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    fn object(&self, all: &[Role]) -> Wanted {
        let kind = if self.namespace.is_some() {
            "Role"
        } else {
            "ClusterRole"
        };
        let mut object = json!({ "apiVersion": VERSION, "kind": kind, "metadata": self.metadata(self.name) });
        if let Some(label) = self.label {
            object["metadata"]["labels"][format!("{GROUP}/{label}")] = json!("true");
        }
        if let Some(label) = self.from {
            let labels = Map::from_iter([(format!("{GROUP}/{label}"), json!("true"))]);
            object["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": labels }] });
        }
        object["rules"] = json!(self.all_rules(all));
        Wanted {
            plural: if self.namespace.is_some() {
                "roles"
            } else {
                "clusterroles"
            },
            namespace: self.namespace,
            object,
        }
    }

    fn binding(&self) -> Option<Wanted> {
        let own = self
            .name
            .strip_prefix(CONTROLLERS)
            .filter(|_| self.namespace.is_none());
        let subjects: Vec<Value> = match (&self.subjects, own) {
            (Some(subjects), _) => subjects.iter().copied().map(subject).collect(),
            (None, Some(account)) => vec![subject_account("kube-system", account)],
            (None, None) => return None,
        };
        let (kind, role_kind) = match self.namespace {
            Some(_) => ("RoleBinding", "Role"),
            None => ("ClusterRoleBinding", "ClusterRole"),
        };
        let mut object = json!({
            "apiVersion": VERSION, "kind": kind, "metadata": self.metadata(self.binding),
            "roleRef": { "apiGroup": GROUP, "kind": role_kind, "name": self.name },
        });
        if !subjects.is_empty() {
            object["subjects"] = subjects.into();
        }
        Some(Wanted {
            plural: if self.namespace.is_some() {
                "rolebindings"
            } else {
                "clusterrolebindings"
            },
            namespace: self.namespace,
            object,
        })
    }

    fn metadata(&self, name: &str) -> Value {
        let mut metadata = json!({
            "name": name,
            "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
            "annotations": { AUTO_UPDATE: "true" },
        });
        if let Some(namespace) = self.namespace {
            metadata["namespace"] = namespace.into();
        }
        metadata
    }
}

fn subject(text: &str) -> Value {
    match text.split_once(':') {
        Some(("user", name)) => json!({ "apiGroup": GROUP, "kind": "User", "name": name }),
        Some(("group", name)) => json!({ "apiGroup": GROUP, "kind": "Group", "name": name }),
        Some((_, path)) => {
            let (namespace, name) = path.split_once('/').unwrap_or(("", path));
            subject_account(namespace, name)
        }
        None => Value::Null,
    }
}

fn subject_account(namespace: &str, name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name })
}

fn rule(text: &str) -> Rule {
    if text == "events" {
        return rule("create patch update | core events.k8s.io | events");
    }
    let parts: Vec<&str> = text.split('|').map(str::trim).collect();
    let words = |index: usize| {
        let found = parts.get(index).copied().unwrap_or_default();
        found.split_whitespace().map(str::to_owned)
    };
    let sorted = |index: usize| {
        let mut found: Vec<String> = words(index).collect();
        found.sort();
        found
    };
    let verbs = words(0).flat_map(|verb| match verb.as_str() {
        "R" => READS.map(str::to_owned).to_vec(),
        "W" => WRITES.map(str::to_owned).to_vec(),
        _ => vec![verb],
    });
    let mut rule = Rule {
        verbs: verbs.collect(),
        ..Rule::default()
    };
    rule.verbs.sort();
    rule.verbs.dedup();
    if parts.get(1) == Some(&"url") {
        rule.non_resource_urls = sorted(2);
        return rule;
    }
    rule.api_groups = words(1)
        .map(|group| if group == "core" { String::new() } else { group })
        .collect();
    rule.resources = sorted(2);
    rule.resource_names = sorted(3);
    rule
}

/// Whether rules allow everything that another one does.
pub(crate) fn cover(rules: &[Rule], wanted: &Rule) -> bool {
    wanted.each("", |attributes| rules.iter().any(|rule| rule.allows(attributes)))
}

/// What a stored object lacks.
#[derive(Debug, PartialEq)]
pub(crate) enum Lack {
    /// Nothing, or it is to be left alone.
    Nothing,
    /// It is changed to this.
    Change(Value),
    /// It binds another role: it is made anew.
    Replace,
}

/// Compares a stored object with the one that there has to be. What somebody added stays.
pub(crate) fn lack(stored: &Value, wanted: &Value) -> Lack {
    if tree::text(stored, &["metadata", "annotations", AUTO_UPDATE]) == "false" {
        return Lack::Nothing;
    }
    let role_ref =
        |object: &Value| ["kind", "name"].map(|field| tree::text(object, &["roleRef", field]).to_owned());
    if role_ref(stored) != role_ref(wanted) {
        return Lack::Replace;
    }
    let mut changed = stored.clone();
    for field in ["labels", "annotations"] {
        let wanted = tree::at(wanted, &["metadata", field]).and_then(Value::as_object);
        for (key, value) in wanted.into_iter().flatten() {
            // The annotation was looked at above; whoever set another value than `false` keeps it.
            let map = tree::map_mut(&mut changed, &["metadata", field]);
            map.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    add_selectors(&mut changed, wanted);
    // Rules of roles that are made of others are those of these.
    if tree::at(wanted, &["aggregationRule"]).is_none() {
        add_rules(&mut changed, wanted);
    }
    add_items(&mut changed, wanted, &["subjects"]);
    if changed == *stored {
        Lack::Nothing
    } else {
        Lack::Change(changed)
    }
}

fn add_selectors(changed: &mut Value, wanted: &Value) {
    add_items(changed, wanted, &["aggregationRule", "clusterRoleSelectors"]);
}

fn add_items(changed: &mut Value, wanted: &Value, path: &[&str]) {
    let before = tree::list(changed, path).to_vec();
    let more = tree::list(wanted, path)
        .iter()
        .filter(|one| !before.contains(one));
    let all: Vec<Value> = before.iter().chain(more).cloned().collect();
    if let (true, Some((last, outer))) = (all.len() > before.len(), path.split_last()) {
        tree::map_mut(changed, outer).insert((*last).to_owned(), all.into());
    }
}

fn add_rules(changed: &mut Value, wanted: &Value) {
    let read = |object: &Value| -> Vec<Rule> {
        serde_json::from_value(object.get("rules").cloned().unwrap_or_default()).unwrap_or_default()
    };
    let stored = read(changed);
    let missing = read(wanted).into_iter().filter(|rule| !cover(&stored, rule));
    let missing: Vec<Value> = missing.map(|rule| json!(rule)).collect();
    if missing.is_empty() {
        return;
    }
    let mut rules = tree::list(changed, &["rules"]).to_vec();
    rules.extend(missing);
    tree::map_mut(changed, &[]).insert("rules".to_owned(), rules.into());
}

#[cfg(test)]
mod tests;
