//! OpenAPI v3 of custom resources: one document for each group version, built when it is asked for.

use serde_json::{Map, Value, json};

use super::Version;
use crate::openapi::{custom_document, kind_name};
use crate::registry::{Registry, ResourceFacts};

/// One custom resource in a document.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// How it is served.
    pub facts: &'a ResourceFacts,
    /// Its version with the schema.
    pub version: &'a Version,
}

/// The document of a group version, as text, and whether anything is in it.
#[must_use]
pub fn document(registry: &Registry, group: &str, version: &str, served: &[Served<'_>]) -> Value {
    let mut schemas = Map::new();
    for one in served {
        let name = kind_name(group, version, one.facts.kind);
        let gvk = |kind: &str| json!([{ "group": group, "version": version, "kind": kind }]);
        schemas.insert(
            name.clone(),
            object(&one.version.schema_source, gvk(one.facts.kind)),
        );
        if let Some(list_kind) = one.facts.list_kind {
            schemas.insert(kind_name(group, version, list_kind), list(&name, gvk(list_kind)));
        }
    }
    let facts: Vec<&ResourceFacts> = served.iter().map(|one| one.facts).collect();
    custom_document(registry, group, version, &facts, schemas)
}

const META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1";

fn object(source: &Value, gvk: Value) -> Value {
    let mut schema = published(source);
    schema["type"] = "object".into();
    schema["x-kubernetes-group-version-kind"] = gvk;
    let properties = &mut schema["properties"];
    properties["apiVersion"] =
        json!({ "type": "string", "description": "Version of the form of this object." });
    properties["kind"] = json!({ "type": "string", "description": "What this object is." });
    properties["metadata"] = json!({
        "allOf": [{ "$ref": format!("{META}.ObjectMeta") }],
        "description": "Standard metadata of objects.",
    });
    schema
}

fn list(item: &str, gvk: Value) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "allOf": [{ "$ref": format!("{META}.ListMeta") }] },
            "items": { "type": "array", "items": { "allOf": [{ "$ref": format!("#/components/schemas/{item}") }] } },
        },
        "x-kubernetes-group-version-kind": gvk,
    })
}

/// A schema as OpenAPI has it: without nulls, and with open objects said to be so.
fn published(source: &Value) -> Value {
    match source {
        Value::Object(map) => {
            let known = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                known
                    .map(|(name, value)| (name.clone(), published(value)))
                    .collect(),
            )
        }
        Value::Array(list) => list.iter().map(published).collect(),
        other => other.clone(),
    }
}
