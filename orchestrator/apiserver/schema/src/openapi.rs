//! OpenAPI v3 documents, one for each group version, built when asked for.
//!
//! Made for what clients read: kubectl looks for `fieldValidation` and `dryRun` among the parameters of a kind's patch
//! operation; `explain` and typed merges read the schemas with their markers.

mod operations;
mod schemas;

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::object::api_version;
use crate::registry::{GroupFacts, Registry, ResourceFacts};

/// Where a group version's resources stand, without the leading slash: `api/v1`, `apis/storage.k8s.io/v1`.
#[must_use]
pub fn v3_path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// The answer to `GET /openapi/v3`: one path for each group version, with its hash. Builds every document when it is
/// asked for the first time.
///
/// `custom_hash` gives the hashes of the documents of definitions; `custom` says which there are.
#[must_use]
pub fn v3_index(
    registry: &Registry,
    custom: &[GroupFacts],
    custom_hash: impl Fn(&str, &str) -> Option<String>,
) -> Value {
    let served = crate::discovery::group_versions(registry, custom);
    let entries = served.into_iter().map(|(group, version)| {
        let path = v3_path(group, version);
        let hash = custom_hash(group, version).unwrap_or_else(|| v3_hash(registry, group, version));
        (
            path.clone(),
            json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }),
        )
    });
    let paths: Map<String, Value> = entries.collect();
    json!({ "paths": paths })
}

/// The hash of a group version's document; changes whenever the document does. Goes through the whole document when it
/// is asked for the first time.
#[must_use]
pub fn v3_hash(registry: &Registry, group: &str, version: &str) -> String {
    let computed = || {
        let mut hasher = Hasher(Sha256::new());
        // Writing into a hasher can't fail.
        write_document(registry, group, version, &mut hasher).ok();
        hex::encode_upper(hasher.0.finalize())
    };
    let facts = registry.version(group, version);
    facts
        .map(|facts| facts.openapi_hash.get_or_init(computed).clone())
        .unwrap_or_default()
}

/// The hash of a document made by definitions; `make` gives its text when it is asked for the first time.
#[must_use]
pub fn custom_hash(
    custom: &[GroupFacts],
    group: &str,
    version: &str,
    make: impl FnOnce() -> String,
) -> Option<String> {
    let facts = custom.iter().find(|facts| facts.name == group)?;
    let facts = facts.versions.iter().find(|one| one.version == version)?;
    let computed = || hex::encode_upper(Sha256::digest(make()));
    Some(facts.openapi_hash.get_or_init(computed).clone())
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The answer to `GET /openapi/v3/api/v1` and `/openapi/v3/apis/{group}/{version}`, as text; nothing where that isn't
/// served. A few hundred kB: compress it, drop it.
#[must_use]
pub fn v3_document(registry: &Registry, group: &str, version: &str) -> Option<Box<RawValue>> {
    registry.served_in(group, version).next()?;
    let mut text = Vec::new();
    write_document(registry, group, version, &mut text).ok()?;
    RawValue::from_string(String::from_utf8(text).ok()?).ok()
}

/// The name of a schema made by a definition: the group's parts from last to first, version, kind.
pub(crate) fn kind_name(group: &str, version: &str, kind: &str) -> String {
    let group: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", group.join("."))
}

/// The document of a group version of definitions; `schemas` are those of its kinds.
pub(crate) fn custom_document(
    registry: &Registry,
    group: &str,
    version: &str,
    resources: &[&ResourceFacts],
    mut schemas: Map<String, Value>,
) -> Value {
    let mut paths = Map::new();
    let mut roots = BTreeSet::new();
    let shared = [
        "meta/v1.DeleteOptions",
        "meta/v1.Status",
        "meta/v1.Patch",
        "meta/v1.ObjectMeta",
        "meta/v1.ListMeta",
    ];
    roots.extend(shared.iter().filter_map(|id| registry.type_by_id(id)));
    for resource in resources {
        operations::add_paths(registry, resource, &mut paths);
        let scale = resource.subresources.iter().filter(|sub| sub.name == "scale");
        roots.extend(scale.map(|sub| sub.type_id));
    }
    let add = |name: &str, schema: Value| {
        schemas.insert(name.to_owned(), schema);
        Ok::<(), std::convert::Infallible>(())
    };
    // Infallible.
    schemas::each_reachable(registry, roots, add).ok();
    json!({
        "openapi": "3.0.0",
        "info": {
            "title": format!("Moorline {}", api_version(group, version)),
            "version": concat!("v", env!("CARGO_PKG_VERSION")),
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

/// Writes a document piece by piece: as a tree the whole of it would take many times its text's memory.
fn write_document(registry: &Registry, group: &str, version: &str, out: &mut impl Write) -> io::Result<()> {
    let info = json!({
        "title": format!("Moorline {}", api_version(group, version)),
        "version": concat!("v", env!("CARGO_PKG_VERSION")),
    });
    write!(out, r#"{{"openapi":"3.0.0","info":{info},"paths":{{"#)?;
    let mut roots = BTreeSet::new();
    roots.extend(
        ["meta/v1.DeleteOptions", "meta/v1.Status", "meta/v1.Patch"]
            .iter()
            .filter_map(|id| registry.type_by_id(id)),
    );
    let mut entries = Entries { out, is_first: true };
    for resource in registry.served_in(group, version) {
        roots.insert(resource.type_id);
        roots.extend(resource.list_type_id);
        roots.extend(
            resource
                .subresources
                .iter()
                .filter(|sub| sub.served)
                .map(|sub| sub.type_id),
        );
        let mut paths = Map::new();
        operations::add_paths(registry, resource, &mut paths);
        for (path, operations) in &paths {
            entries.put(path, operations)?;
        }
    }
    entries.out.write_all(br#"},"components":{"schemas":{"#)?;
    entries.is_first = true;
    schemas::each_reachable(registry, roots, |name, schema| entries.put(name, &schema))?;
    entries.out.write_all(b"}}}")
}

/// Writes the entries of an object.
struct Entries<'w, W> {
    out: &'w mut W,
    is_first: bool,
}

impl<W: Write> Entries<'_, W> {
    fn put(&mut self, name: &str, value: &Value) -> io::Result<()> {
        let comma = if std::mem::take(&mut self.is_first) {
            ""
        } else {
            ","
        };
        write!(self.out, "{comma}{}:{value}", Value::from(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Value {
        document("", "v1")
    }

    fn document(group: &str, version: &str) -> Value {
        let text = v3_document(Registry::builtin(), group, version).unwrap();
        serde_json::from_str(text.get()).unwrap()
    }

    /// What kubectl does before `create` and `apply`.
    fn patch_parameters(document: &Value, kind: &str) -> Vec<String> {
        let paths = document["paths"].as_object().unwrap();
        let mut patches = paths.values().filter_map(|path| path.get("patch"));
        let found = patches
            .find(|patch| patch["x-kubernetes-group-version-kind"]["kind"] == kind)
            .unwrap();
        found["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn kubectl_finds_field_validation_and_dry_run_for_every_patchable_kind() {
        let registry = Registry::builtin();
        for resource in registry.resources().filter(|resource| resource.allows("patch")) {
            let document = document(resource.group, resource.version);
            let parameters = patch_parameters(&document, resource.kind);
            for needed in ["fieldValidation", "dryRun", "fieldManager", "force"] {
                assert!(
                    parameters.iter().any(|name| name == needed),
                    "{} {needed}",
                    resource.kind
                );
            }
        }
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(name)) = object.get("$ref") {
                        found.insert(name.clone());
                    }
                    object.values().for_each(|inner| references(inner, found));
                }
                Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
                _ => {}
            }
        }
        let registry = Registry::builtin();
        for (group, version) in registry.served_group_versions() {
            let document = document(group, version);
            let mut found = BTreeSet::new();
            references(&document, &mut found);
            for name in found {
                let schema = name.strip_prefix("#/components/schemas/").unwrap();
                assert!(
                    document["components"]["schemas"].get(schema).is_some(),
                    "{group}/{version}: {name}"
                );
            }
        }
    }

    #[test]
    fn schemas_carry_the_markers() {
        let document = core();
        let schemas = &document["components"]["schemas"];
        let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["required"], json!(["containers"]));
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(
            containers["items"]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.Container"
        );
        assert_eq!(spec["properties"]["restartPolicy"]["type"], "string");
        let pod = &schemas["io.k8s.api.core.v1.Pod"];
        assert_eq!(
            pod["x-kubernetes-group-version-kind"],
            json!([{"group": "", "version": "v1", "kind": "Pod"}])
        );
        let quantity = &schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"];
        assert_eq!(
            quantity,
            &json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
        );
        assert_eq!(
            schemas["io.k8s.api.core.v1.Secret"]["properties"]["data"]["additionalProperties"]["format"],
            "byte"
        );
    }

    #[test]
    fn paths_and_actions_follow_the_verbs() {
        let document = core();
        let action = |path: &str, verb: &str| document["paths"][path][verb]["x-kubernetes-action"].clone();
        assert_eq!(action("/api/v1/namespaces/{namespace}/pods", "get"), "list");
        assert_eq!(action("/api/v1/pods", "get"), "list");
        assert_eq!(action("/api/v1/namespaces/{namespace}/pods/{name}", "put"), "put");
        assert_eq!(
            action("/api/v1/namespaces/{namespace}/pods/{name}/status", "patch"),
            "patch"
        );
        assert_eq!(action("/api/v1/nodes/{name}", "delete"), "delete");
        assert_eq!(action("/api/v1/pods", "post"), Value::Null);
        let token = &document["paths"]["/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"]["post"];
        assert_eq!(token["x-kubernetes-group-version-kind"]["kind"], "TokenRequest");
        let ids = document["paths"].as_object().unwrap().values();
        let ids: Vec<&str> = ids
            .flat_map(|path| path.as_object().unwrap().values())
            .filter_map(|one| one["operationId"].as_str())
            .collect();
        assert_eq!(
            ids.iter().collect::<BTreeSet<_>>().len(),
            ids.len(),
            "an operation id twice"
        );
    }

    #[test]
    fn the_index_has_a_stable_hash_for_each_document() {
        let registry = Registry::builtin();
        let index = v3_index(registry, &[], |_, _| None);
        let url = index["paths"]["apis/storage.k8s.io/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap()
            .to_owned();
        let hash = v3_hash(registry, "storage.k8s.io", "v1");
        assert_eq!(url, format!("/openapi/v3/apis/storage.k8s.io/v1?hash={hash}"));
        assert_eq!(
            index["paths"].as_object().unwrap().len(),
            registry.served_group_versions().count()
        );
        assert!(v3_document(registry, "apps", "v1beta1").is_none());
    }
}
