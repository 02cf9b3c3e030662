//! The resources: groups, versions, what is served under which path, and how discovery describes it.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::TypeId;

const RESOURCES: &str = include_str!("../../facts/resources.json");

/// Groups in the order in which discovery lists them; the others follow in the order of their names.
const GROUP_ORDER: &[&str] = &[
    "",
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
];

/// Stable versions are served, as the reference server does unless it is told otherwise.
fn is_served(stability: Stability) -> bool {
    stability == Stability::Stable
}

/// Subresources that every served resource has, if the facts give it one.
const COMMON_SUBRESOURCES: [&str; 2] = ["scale", "status"];

/// Further subresources that are served; those of the facts that are not here need parts that don't exist yet.
const SERVED_SUBRESOURCES: &[(&str, &str)] = &[
    ("certificatesigningrequests", "approval"),
    ("namespaces", "finalize"),
    ("pods", "attach"),
    ("pods", "binding"),
    ("pods", "eviction"),
    ("pods", "exec"),
    ("pods", "log"),
    ("pods", "portforward"),
    ("serviceaccounts", "token"),
];

fn serves_subresource(plural: &str, name: &str) -> bool {
    COMMON_SUBRESOURCES.contains(&name) || SERVED_SUBRESOURCES.contains(&(plural, name))
}

/// How far a version may be relied on, from its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stability {
    /// Such as `v1`.
    Stable,
    /// Such as `v1beta1`.
    Beta,
    /// Such as `v1alpha1`.
    Alpha,
}

/// An API group.
#[derive(Debug)]
pub struct GroupFacts {
    /// Name, empty for core.
    pub name: &'static str,
    /// Version that clients should use.
    pub preferred_version: &'static str,
    /// Versions in order of preference.
    pub versions: Vec<VersionFacts>,
}

impl GroupFacts {
    /// All resources of all versions.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceFacts> {
        self.versions.iter().flat_map(|version| &version.resources)
    }
}

/// A version of a group.
#[derive(Debug)]
pub struct VersionFacts {
    /// Such as `v1`.
    pub version: &'static str,
    /// How far it may be relied on.
    pub stability: Stability,
    /// Its resources by plural name.
    pub resources: Vec<ResourceFacts>,
    /// Hash of its OpenAPI document, once somebody asked.
    pub(crate) openapi_hash: OnceLock<String>,
}

/// A resource: what stands under one path.
#[derive(Clone, Debug)]
pub struct ResourceFacts {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Name in paths, such as `pods`.
    pub plural: &'static str,
    /// Such as `pod`.
    pub singular: &'static str,
    /// Such as `Pod`.
    pub kind: &'static str,
    /// Such as `PodList`; absent where it can't be listed.
    pub list_kind: Option<&'static str>,
    /// Type of one object.
    pub type_id: TypeId,
    /// Type of the list.
    pub list_type_id: Option<TypeId>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Such as `po`.
    pub short_names: Box<[&'static str]>,
    /// Such as `all`.
    pub categories: Box<[&'static str]>,
    /// What can be done, sorted.
    pub verbs: Box<[&'static str]>,
    /// Group version in which objects are stored; absent: nothing is stored.
    pub storage_version: Option<&'static str>,
    /// Hash of that, as discovery shows it.
    pub storage_version_hash: Option<&'static str>,
    /// Parts of the object under paths of their own.
    pub subresources: Box<[SubresourceFacts]>,
    /// Whether this server serves it.
    pub served: bool,
    /// Whether a CustomResourceDefinition made it.
    pub custom: bool,
}

impl ResourceFacts {
    /// The `apiVersion` of the resource's objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        crate::object::api_version(self.group, self.version)
    }

    /// Whether a verb is allowed on it.
    #[must_use]
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Finds a served subresource.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&SubresourceFacts> {
        self.subresources
            .iter()
            .find(|sub| sub.name == name && sub.served)
    }
}

/// A subresource, such as `pods/log`.
#[derive(Clone, Debug)]
pub struct SubresourceFacts {
    /// Such as `status`.
    pub name: &'static str,
    /// Kind of its body.
    pub kind: &'static str,
    /// Group of its body.
    pub group: &'static str,
    /// Version of its body.
    pub version: &'static str,
    /// Type of its body.
    pub type_id: TypeId,
    /// What can be done, sorted.
    pub verbs: Box<[&'static str]>,
    /// Whether this server serves it.
    pub served: bool,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'static"))]
struct RawFacts {
    groups: Vec<RawGroup>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawGroup {
    #[serde(borrow)]
    group: &'static str,
    #[serde(borrow)]
    preferred_version: &'static str,
    versions: Vec<RawVersion>,
}

#[derive(Deserialize)]
struct RawVersion {
    #[serde(borrow)]
    version: &'static str,
    stability: Stability,
    resources: Vec<RawResource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResource {
    #[serde(borrow)]
    plural: &'static str,
    #[serde(borrow)]
    singular: &'static str,
    #[serde(borrow)]
    kind: &'static str,
    #[serde(borrow, rename = "type")]
    type_name: &'static str,
    #[serde(borrow)]
    list: Option<&'static str>,
    namespaced: bool,
    #[serde(borrow, default)]
    short_names: Vec<&'static str>,
    #[serde(borrow, default)]
    categories: Vec<&'static str>,
    #[serde(borrow)]
    verbs: Vec<&'static str>,
    #[serde(borrow)]
    storage_version: Option<&'static str>,
    #[serde(borrow)]
    storage_version_hash: Option<&'static str>,
    #[serde(default)]
    subresources: Vec<RawSubresource>,
}

#[derive(Deserialize)]
struct RawSubresource {
    #[serde(borrow)]
    name: &'static str,
    #[serde(borrow)]
    kind: &'static str,
    #[serde(borrow)]
    gv: Option<&'static str>,
    #[serde(borrow, rename = "type")]
    type_name: &'static str,
    #[serde(borrow)]
    verbs: Vec<&'static str>,
}

/// Reads the embedded facts. They are part of the program and every test reads them.
pub(super) fn load(types: &HashMap<&'static str, TypeId>) -> Vec<GroupFacts> {
    let raw: RawFacts = serde_json::from_str(RESOURCES).expect("embedded facts are well-formed");
    let mut groups: Vec<GroupFacts> = raw
        .groups
        .into_iter()
        .map(|group| group_facts(group, types))
        .collect();
    let place = |name: &str| {
        GROUP_ORDER
            .iter()
            .position(|&known| known == name)
            .unwrap_or(GROUP_ORDER.len())
    };
    groups.sort_by_key(|group| (place(group.name), group.name));
    groups
}

fn group_facts(raw: RawGroup, types: &HashMap<&'static str, TypeId>) -> GroupFacts {
    let group = raw.group;
    let versions = raw.versions.into_iter().map(|raw| VersionFacts {
        version: raw.version,
        stability: raw.stability,
        openapi_hash: OnceLock::new(),
        resources: {
            let (version, stability) = (raw.version, raw.stability);
            let resources = raw.resources.into_iter();
            resources
                .filter_map(|resource| resource_facts(group, (version, stability), resource, types))
                .collect()
        },
    });
    GroupFacts {
        name: group,
        preferred_version: raw.preferred_version,
        versions: versions.collect(),
    }
}

fn resource_facts(
    group: &'static str,
    (version, stability): (&'static str, Stability),
    raw: RawResource,
    types: &HashMap<&'static str, TypeId>,
) -> Option<ResourceFacts> {
    let served = is_served(stability);
    let plural = raw.plural;
    let subresources = raw.subresources.into_iter().filter_map(|sub| {
        let own = sub.gv.map(|gv| gv.split_once('/').unwrap_or(("", gv)));
        let (group, version) = own.unwrap_or((group, version));
        Some(SubresourceFacts {
            name: sub.name,
            kind: sub.kind,
            group,
            version,
            type_id: *types.get(sub.type_name)?,
            verbs: sub.verbs.into(),
            served: served && serves_subresource(plural, sub.name),
        })
    });
    let subresources = subresources.collect();
    Some(ResourceFacts {
        group,
        version,
        plural,
        singular: raw.singular,
        kind: raw.kind,
        list_kind: raw.list.and_then(|id| id.rsplit_once('.')).map(|(_, kind)| kind),
        type_id: *types.get(raw.type_name)?,
        list_type_id: raw.list.and_then(|id| types.get(id)).copied(),
        namespaced: raw.namespaced,
        short_names: raw.short_names.into(),
        categories: raw.categories.into(),
        verbs: raw.verbs.into(),
        storage_version: raw.storage_version,
        storage_version_hash: raw.storage_version_hash,
        subresources,
        served,
        custom: false,
    })
}
