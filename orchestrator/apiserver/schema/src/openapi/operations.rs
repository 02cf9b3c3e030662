//! Paths and operations of a resource, from its verbs.

use serde_json::{Map, Value, json};

use super::{schemas, v3_path};
use crate::registry::{Registry, ResourceFacts, TypeId};

/// What a client can send and get.
const MEDIA_TYPES: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const FORCE: &[(&str, &str)] = &[("force", "boolean")];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// One verb of a resource as an operation of a path.
struct Operation {
    verb: &'static str,
    method: &'static str,
    action: &'static str,
    id: &'static str,
    parameters: &'static [&'static [(&'static str, &'static str)]],
}

/// Verbs on a collection, then on one object.
const COLLECTION: &[Operation] = &[
    Operation {
        verb: "list",
        method: "get",
        action: "list",
        id: "list",
        parameters: &[LIST],
    },
    Operation {
        verb: "create",
        method: "post",
        action: "post",
        id: "create",
        parameters: &[WRITE],
    },
    Operation {
        verb: "deletecollection",
        method: "delete",
        action: "deletecollection",
        id: "deleteCollection",
        parameters: &[LIST, DELETE],
    },
];
const OBJECT: &[Operation] = &[
    Operation {
        verb: "get",
        method: "get",
        action: "get",
        id: "read",
        parameters: &[],
    },
    Operation {
        verb: "update",
        method: "put",
        action: "put",
        id: "replace",
        parameters: &[WRITE],
    },
    Operation {
        verb: "patch",
        method: "patch",
        action: "patch",
        id: "patch",
        parameters: &[WRITE, FORCE],
    },
    Operation {
        verb: "delete",
        method: "delete",
        action: "delete",
        id: "delete",
        parameters: &[DELETE],
    },
];

/// What the operations of one path have in common.
struct Target<'a> {
    registry: &'a Registry,
    group_version: (&'a str, &'a str),
    gvk: Value,
    body: TypeId,
    list: Option<TypeId>,
    /// Kind and list kind where a definition makes them.
    custom: Option<(&'a str, &'a str)>,
    /// Such as `CoreV1NamespacedPodStatus`.
    id: String,
}

/// Adds the paths of a resource and its subresources.
pub(super) fn add_paths(registry: &Registry, resource: &ResourceFacts, paths: &mut Map<String, Value>) {
    let root = format!("/{}", v3_path(resource.group, resource.version));
    let scope = if resource.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{root}{scope}/{}", resource.plural);
    let scope_id = if resource.namespaced { "Namespaced" } else { "" };
    let version_id = format!("{}{}", group_id(resource.group), capitalised(resource.version));
    let target = |kind: (&'static str, &'static str, &'static str), body, id| Target {
        registry,
        group_version: (resource.group, resource.version),
        gvk: json!({ "group": kind.0, "version": kind.1, "kind": kind.2 }),
        body,
        list: resource.list_type_id,
        custom: resource
            .list_kind
            .filter(|_| resource.custom)
            .map(|list| (resource.kind, list)),
        id,
    };
    let own = (resource.group, resource.version, resource.kind);
    let object = target(
        own,
        resource.type_id,
        format!("{version_id}{scope_id}{}", resource.kind),
    );
    insert(
        paths,
        &collection,
        object.path(COLLECTION, &resource.verbs),
        resource.namespaced,
        false,
    );
    insert(
        paths,
        &format!("{collection}/{{name}}"),
        object.path(OBJECT, &resource.verbs),
        resource.namespaced,
        true,
    );
    if resource.namespaced && resource.allows("list") {
        let all = target(
            own,
            resource.type_id,
            format!("{version_id}{}ForAllNamespaces", resource.kind),
        );
        insert(
            paths,
            &format!("{root}/{}", resource.plural),
            all.path(COLLECTION, &["list"]),
            false,
            false,
        );
    }
    for sub in resource.subresources.iter().filter(|sub| sub.served) {
        let kind = (sub.group, sub.version, sub.kind);
        let id = format!("{version_id}{scope_id}{}{}", resource.kind, capitalised(sub.name));
        let target = target(kind, sub.type_id, id);
        let mut operations = target.path(OBJECT, &sub.verbs);
        operations.extend(target.path(COLLECTION, &sub.verbs));
        insert(
            paths,
            &format!("{collection}/{{name}}/{}", sub.name),
            operations,
            resource.namespaced,
            true,
        );
    }
}

/// Adds a path with the parameters that stand in it.
fn insert(
    paths: &mut Map<String, Value>,
    path: &str,
    mut operations: Map<String, Value>,
    namespaced: bool,
    named: bool,
) {
    if operations.is_empty() {
        return;
    }
    let in_path = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } });
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name"));
    }
    if namespaced {
        parameters.push(in_path("namespace"));
    }
    parameters.push(in_query("pretty", "string"));
    operations.insert("parameters".into(), parameters.into());
    paths.insert(path.to_owned(), operations.into());
}

fn in_query(name: &str, json_type: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": { "type": json_type, "uniqueItems": true } })
}

impl Target<'_> {
    fn path(&self, operations: &[Operation], verbs: &[&str]) -> Map<String, Value> {
        let allowed = operations
            .iter()
            .filter(|operation| verbs.contains(&operation.verb));
        allowed
            .map(|operation| (operation.method.to_owned(), self.operation(operation)))
            .collect()
    }

    fn operation(&self, operation: &Operation) -> Value {
        let parameters = operation.parameters.iter().flat_map(|list| list.iter());
        let parameters: Vec<Value> = parameters
            .map(|(name, json_type)| in_query(name, json_type))
            .collect();
        let mut result = json!({
            "tags": [self.tag()],
            "operationId": format!("{}{}", operation.id, self.id),
            "responses": self.responses(operation),
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": self.gvk,
        });
        if !parameters.is_empty() {
            result["parameters"] = parameters.into();
        }
        if let Some(body) = self.body(operation) {
            result["requestBody"] = body;
        }
        result
    }

    /// The schema of the object, or of a list of them.
    fn own(&self, is_list: bool) -> Value {
        let (group, version) = self.group_version;
        let own = self.custom.filter(|(kind, _)| self.gvk["kind"] == **kind);
        match (own, self.list.filter(|_| is_list)) {
            (Some((kind, list)), _) => {
                let name = super::kind_name(group, version, if is_list { list } else { kind });
                json!({ "$ref": format!("#/components/schemas/{name}") })
            }
            (None, Some(list)) => schemas::reference(self.registry, list),
            (None, None) => schemas::reference(self.registry, self.body),
        }
    }

    fn tag(&self) -> String {
        let (group, version) = self.group_version;
        let group = group
            .split('.')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("core");
        format!("{group}_{version}")
    }

    /// Custom objects have no protobuf form.
    fn media_types(&self) -> &'static [&'static str] {
        &MEDIA_TYPES[..if self.custom.is_some() { 2 } else { 3 }]
    }

    /// Custom objects have no strategic merge.
    fn patch_types(&self) -> &'static [&'static str] {
        &PATCH_TYPES[..if self.custom.is_some() { 2 } else { 3 }]
    }

    fn meta(&self, id: &str) -> Value {
        let found = self
            .registry
            .type_by_id(id)
            .map(|type_id| schemas::reference(self.registry, type_id));
        found.unwrap_or_else(|| json!({ "type": "object" }))
    }

    fn body(&self, operation: &Operation) -> Option<Value> {
        let own = || self.own(false);
        match operation.method {
            "post" | "put" => {
                Some(json!({ "required": true, "content": content(self.media_types(), &own()) }))
            }
            "patch" => Some(
                json!({ "required": true, "content": content(self.patch_types(), &self.meta("meta/v1.Patch")) }),
            ),
            "delete" => {
                Some(json!({ "content": content(&MEDIA_TYPES, &self.meta("meta/v1.DeleteOptions")) }))
            }
            _ => None,
        }
    }

    fn responses(&self, operation: &Operation) -> Value {
        let schema = match operation.action {
            "delete" | "deletecollection" => self.meta("meta/v1.Status"),
            action => self.own(action == "list"),
        };
        let answer = |description: &str| json!({ "description": description, "content": content(self.media_types(), &schema) });
        let mut responses = Map::new();
        responses.insert("200".into(), answer("OK"));
        if matches!(operation.method, "post" | "put" | "patch") {
            responses.insert("201".into(), answer("Created"));
        }
        responses.insert("401".into(), json!({ "description": "Unauthorized" }));
        responses.into()
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    let entries = types
        .iter()
        .map(|media_type| ((*media_type).to_owned(), json!({ "schema": schema })));
    Value::Object(entries.collect())
}

/// `storage.k8s.io` becomes `Storage`, the core group `Core`.
fn group_id(group: &str) -> String {
    let name = group
        .split('.')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or("core");
    capitalised(name)
}

fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(chars)
        .collect()
}
