//! Discovery documents, legacy and aggregated, of what is served.

use serde_json::{Map, Value, json};

use crate::object::api_version;
use crate::registry::{GroupFacts, Registry, ResourceFacts, SubresourceFacts, VersionFacts};

/// Which of the two discovery roots is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// `/api`: the core group.
    Api,
    /// `/apis`: all other groups.
    Apis,
}

/// The answer to `GET /api`: the versions of the core group. `server_address` is `host:port`.
#[must_use]
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// The answer to `GET /apis`: all groups but core.
#[must_use]
pub fn api_group_list(registry: &Registry, custom: &[GroupFacts]) -> Value {
    let groups = served_groups(registry, custom).into_iter();
    let groups: Vec<Value> = groups
        .filter(|group| !group.name.is_empty())
        .map(|group| group_document(&group))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// The answer to `GET /apis/{group}`; nothing where the group isn't served.
#[must_use]
pub fn api_group(registry: &Registry, custom: &[GroupFacts], group: &str) -> Option<Value> {
    let mut groups = served_groups(registry, custom).into_iter();
    let facts = groups.find(|facts| facts.name == group && !group.is_empty())?;
    let mut document = group_document(&facts);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Some(document)
}

/// The answer to `GET /api/v1` and `GET /apis/{group}/{version}`; nothing where that isn't served.
#[must_use]
pub fn api_resource_list(
    registry: &Registry,
    custom: &[GroupFacts],
    group: &str,
    version: &str,
) -> Option<Value> {
    let mut rows = Vec::new();
    for resource in served_in(registry, custom, group, version) {
        rows.push(legacy_row(resource));
        let subresources = resource.subresources.iter().filter(|sub| sub.served);
        rows.extend(subresources.map(|sub| legacy_subresource_row(resource, sub)));
    }
    let found = !rows.is_empty();
    found.then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version(group, version),
            "resources": rows,
        })
    })
}

/// The answer to `GET /api` or `GET /apis` for those who ask for `APIGroupDiscoveryList` v2.
#[must_use]
pub fn aggregated(registry: &Registry, custom: &[GroupFacts], root: Root) -> Value {
    let groups = served_groups(registry, custom).into_iter();
    let items: Vec<Value> = groups
        .filter(|group| group.name.is_empty() == (root == Root::Api))
        .map(|group| aggregated_group(&group))
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

/// A group with what is served of it, built-in versions before those of definitions.
struct Group<'a> {
    name: &'a str,
    preferred_version: &'a str,
    versions: Vec<&'a VersionFacts>,
}

/// All groups of which something is served: built-in ones, then those of definitions.
fn served_groups<'a>(registry: &'a Registry, custom: &'a [GroupFacts]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for facts in registry.groups().iter().chain(custom) {
        let is_served = |version: &&VersionFacts| version.resources.iter().any(|resource| resource.served);
        let versions: Vec<&VersionFacts> = facts.versions.iter().filter(is_served).collect();
        match groups.iter_mut().find(|group| group.name == facts.name) {
            Some(group) => {
                for version in versions {
                    if !group
                        .versions
                        .iter()
                        .any(|known| known.version == version.version)
                    {
                        group.versions.push(version);
                    }
                }
            }
            None if versions.is_empty() => {}
            None => groups.push(Group {
                name: facts.name,
                preferred_version: facts.preferred_version,
                versions,
            }),
        }
    }
    groups
}

/// The served resources of one group version.
pub(crate) fn served_in<'a>(
    registry: &'a Registry,
    custom: &'a [GroupFacts],
    group: &str,
    version: &str,
) -> Vec<&'a ResourceFacts> {
    let own = custom.iter().filter(|facts| facts.name == group);
    let own = own
        .flat_map(|facts| &facts.versions)
        .filter(|facts| facts.version == version);
    let builtin = registry.served_in(group, version);
    builtin.chain(own.flat_map(|facts| &facts.resources)).collect()
}

/// The group versions in which something is served, in the order of discovery.
#[must_use]
pub fn group_versions<'a>(registry: &'a Registry, custom: &'a [GroupFacts]) -> Vec<(&'a str, &'a str)> {
    let groups = served_groups(registry, custom).into_iter();
    groups
        .flat_map(|group| {
            group
                .versions
                .into_iter()
                .map(move |version| (group.name, version.version))
        })
        .collect()
}

fn group_document(group: &Group<'_>) -> Value {
    let entry =
        |version: &str| json!({ "groupVersion": api_version(group.name, version), "version": version });
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| entry(version.version))
        .collect();
    let preferred = group
        .versions
        .iter()
        .find(|version| version.version == group.preferred_version);
    let preferred = preferred.map_or_else(
        || versions.first().cloned(),
        |version| Some(entry(version.version)),
    );
    json!({ "name": group.name, "versions": versions, "preferredVersion": preferred })
}

fn legacy_row(resource: &ResourceFacts) -> Value {
    let mut row = Map::new();
    row.insert("name".into(), resource.plural.into());
    row.insert("singularName".into(), resource.singular.into());
    row.insert("namespaced".into(), resource.namespaced.into());
    row.insert("kind".into(), resource.kind.into());
    row.insert("verbs".into(), resource.verbs.to_vec().into());
    add_names(&mut row, resource);
    if let Some(hash) = resource.storage_version_hash {
        row.insert("storageVersionHash".into(), hash.into());
    }
    Value::Object(row)
}

fn add_names(row: &mut Map<String, Value>, resource: &ResourceFacts) {
    if !resource.short_names.is_empty() {
        row.insert("shortNames".into(), resource.short_names.to_vec().into());
    }
    if !resource.categories.is_empty() {
        row.insert("categories".into(), resource.categories.to_vec().into());
    }
}

fn legacy_subresource_row(resource: &ResourceFacts, sub: &SubresourceFacts) -> Value {
    let mut row = json!({
        "name": format!("{}/{}", resource.plural, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind,
        "verbs": sub.verbs,
    });
    if (sub.group, sub.version) != (resource.group, resource.version) {
        row["group"] = json!(sub.group);
        row["version"] = json!(sub.version);
    }
    row
}

fn aggregated_group(group: &Group<'_>) -> Value {
    let metadata = if group.name.is_empty() {
        json!({})
    } else {
        json!({ "name": group.name })
    };
    let versions = group.versions.iter().map(|version| {
        let resources = version.resources.iter().filter(|resource| resource.served);
        let resources: Vec<Value> = resources.map(aggregated_resource).collect();
        json!({ "version": version.version, "freshness": "Current", "resources": resources })
    });
    let versions: Vec<Value> = versions.collect();
    json!({ "metadata": metadata, "versions": versions })
}

fn aggregated_resource(resource: &ResourceFacts) -> Value {
    let mut row = Map::new();
    row.insert("resource".into(), resource.plural.into());
    row.insert(
        "responseKind".into(),
        kind_entry(resource.group, resource.version, resource.kind),
    );
    row.insert(
        "scope".into(),
        if resource.namespaced {
            "Namespaced"
        } else {
            "Cluster"
        }
        .into(),
    );
    row.insert("singularResource".into(), resource.singular.into());
    row.insert("verbs".into(), resource.verbs.to_vec().into());
    add_names(&mut row, resource);
    let subresources = resource.subresources.iter().filter(|sub| sub.served).map(|sub| {
        json!({
            "subresource": sub.name,
            "responseKind": kind_entry(sub.group, sub.version, sub.kind),
            "verbs": sub.verbs,
        })
    });
    let subresources: Vec<Value> = subresources.collect();
    if !subresources.is_empty() {
        row.insert("subresources".into(), subresources.into());
    }
    Value::Object(row)
}

fn kind_entry(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> &'static Registry {
        Registry::builtin()
    }

    fn named<'v>(list: &'v Value, field: &str, name: &str) -> &'v Value {
        list.as_array()
            .unwrap()
            .iter()
            .find(|one| one[field] == name)
            .unwrap_or_else(|| panic!("{name} is missing"))
    }

    #[test]
    fn groups_are_listed_in_upstreams_order_without_core() {
        let list = api_group_list(registry(), &[]);
        let names: Vec<&str> = list["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        let expected = [
            "apps",
            "events.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "autoscaling",
            "batch",
            "certificates.k8s.io",
            "networking.k8s.io",
            "policy",
            "rbac.authorization.k8s.io",
            "storage.k8s.io",
            "admissionregistration.k8s.io",
            "apiextensions.k8s.io",
            "scheduling.k8s.io",
            "coordination.k8s.io",
            "node.k8s.io",
            "discovery.k8s.io",
            "flowcontrol.apiserver.k8s.io",
            "apiregistration.k8s.io",
            "resource.k8s.io",
        ];
        assert_eq!(names, expected);
        let group = api_group(registry(), &[], "storage.k8s.io").unwrap();
        let v1 = json!({"groupVersion": "storage.k8s.io/v1", "version": "v1"});
        let expected = json!({"kind": "APIGroup", "apiVersion": "v1", "name": "storage.k8s.io", "versions": [v1], "preferredVersion": v1});
        assert_eq!(group, expected);
        assert_eq!(
            (
                api_group(registry(), &[], ""),
                api_group(registry(), &[], "nonsense")
            ),
            (None, None)
        );
        assert_eq!(
            api_versions("1.2.3.4:6443")["serverAddressByClientCIDRs"][0]["serverAddress"],
            "1.2.3.4:6443"
        );
    }

    #[test]
    fn resources_are_listed_with_names_verbs_and_subresources() {
        let list = api_resource_list(registry(), &[], "", "v1").unwrap();
        let claims = json!({
            "name": "persistentvolumeclaims", "singularName": "persistentvolumeclaim", "namespaced": true, "kind": "PersistentVolumeClaim",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": ["pvc"], "storageVersionHash": "QWTyNDq0dC4=",
        });
        assert_eq!(
            named(&list["resources"], "name", "persistentvolumeclaims"),
            &claims
        );
        let token = json!({"name": "serviceaccounts/token", "singularName": "", "namespaced": true, "kind": "TokenRequest",
            "group": "authentication.k8s.io", "version": "v1", "verbs": ["create"]});
        assert_eq!(named(&list["resources"], "name", "serviceaccounts/token"), &token);
        assert_eq!(
            named(&list["resources"], "name", "pods/eviction")["kind"],
            "Eviction"
        );
        // What drain and the sidecars look for.
        let storage = api_resource_list(registry(), &[], "storage.k8s.io", "v1").unwrap();
        assert_eq!(
            named(&storage["resources"], "name", "volumeattributesclasses")["shortNames"],
            json!(["vac"])
        );
        assert_eq!(
            named(&storage["resources"], "name", "volumeattachments/status")["kind"],
            "VolumeAttachment"
        );
        assert_eq!(api_resource_list(registry(), &[], "apps", "v1beta1"), None);
    }

    #[test]
    fn aggregated_documents_say_the_same() {
        for (root, groups) in [(Root::Api, 1), (Root::Apis, 20)] {
            let list = aggregated(registry(), &[], root);
            assert_eq!(
                (&list["kind"], &list["apiVersion"]),
                (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
            );
            let items = list["items"].as_array().unwrap();
            assert_eq!(items.len(), groups);
            for group in items {
                let name = group["metadata"]
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                for version in group["versions"].as_array().unwrap() {
                    let legacy =
                        api_resource_list(registry(), &[], name, version["version"].as_str().unwrap())
                            .unwrap();
                    let rows = version["resources"].as_array().unwrap();
                    let subresources: usize = rows
                        .iter()
                        .map(|row| row["subresources"].as_array().map_or(0, Vec::len))
                        .sum();
                    assert_eq!(
                        legacy["resources"].as_array().unwrap().len(),
                        rows.len() + subresources,
                        "{name}"
                    );
                }
            }
        }
        let core = aggregated(registry(), &[], Root::Api);
        let pods = named(&core["items"][0]["versions"][0]["resources"], "resource", "pods");
        assert_eq!(
            pods["responseKind"],
            json!({"group": "", "version": "v1", "kind": "Pod"})
        );
        assert_eq!(
            (&pods["scope"], &pods["singularResource"]),
            (&json!("Namespaced"), &json!("pod"))
        );
        assert_eq!(
            named(&pods["subresources"], "subresource", "eviction")["responseKind"]["group"],
            "policy"
        );
    }
}
