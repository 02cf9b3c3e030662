//! The registry: types and their fields, resources and what of them is served.
//!
//! `facts/types.json` holds one type after another; at start only the places of the types are noted. A type's fields
//! are decoded when it is asked for the first time and then stay. All names point into the embedded facts.

mod facts;
mod resources;
mod types;

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

pub use resources::{GroupFacts, ResourceFacts, Stability, SubresourceFacts, VersionFacts};
pub use types::{Cardinality, Field, JsonField, Kind, ListType, Patch, ProtoField, Type};

/// Names a type of the registry. Only the registry makes them, so one is always valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(u16);

/// Group, version and kind; the core group is the empty string.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Gvk<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// Version, such as `v1`.
    pub version: &'a str,
    /// Kind, such as `Pod`.
    pub kind: &'a str,
}

impl<'a> Gvk<'a> {
    /// Splits an `apiVersion` (`v1`, `storage.k8s.io/v1`) and adds the kind.
    #[must_use]
    pub fn new(api_version: &'a str, kind: &'a str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Gvk { group, version, kind }
    }
}

/// All facts about the built-in API.
#[derive(Debug)]
pub struct Registry {
    places: Vec<facts::Place>,
    by_id: HashMap<&'static str, TypeId>,
    by_gvk: HashMap<(&'static str, &'static str, &'static str), TypeId>,
    decoded: Box<[OnceLock<Box<Type>>]>,
    groups: Vec<GroupFacts>,
}

impl Registry {
    /// The registry of the built-in API, made at first use.
    #[must_use]
    pub fn builtin() -> &'static Registry {
        static BUILTIN: LazyLock<Registry> = LazyLock::new(Registry::load);
        &BUILTIN
    }

    fn load() -> Registry {
        let places = facts::places();
        let by_id: HashMap<_, _> = (0u16..)
            .zip(&places)
            .map(|(index, place)| (place.id, TypeId(index)))
            .collect();
        let mut by_gvk = HashMap::new();
        for (index, place) in (0u16..).zip(&places) {
            for gvk in place.gvks() {
                by_gvk.insert(gvk, TypeId(index));
            }
        }
        for kind in [
            "DeleteOptions",
            "PartialObjectMetadata",
            "PartialObjectMetadataList",
        ] {
            if let Some(&id) = by_id.get(&*format!("meta/v1.{kind}")) {
                by_gvk.insert(("meta.k8s.io", "v1", kind), id);
            }
        }
        let groups = resources::load(&by_id);
        for resource in groups.iter().flat_map(GroupFacts::resources) {
            let gv = (resource.group, resource.version);
            by_gvk
                .entry((gv.0, gv.1, resource.kind))
                .or_insert(resource.type_id);
            for sub in &resource.subresources {
                by_gvk
                    .entry((sub.group, sub.version, sub.kind))
                    .or_insert(sub.type_id);
            }
        }
        let decoded = places.iter().map(|_| OnceLock::new()).collect();
        Registry {
            places,
            by_id,
            by_gvk,
            decoded,
            groups,
        }
    }

    /// The facts of a type; decoded now if it is its first use.
    #[must_use]
    pub fn get(&self, id: TypeId) -> &Type {
        let index = usize::from(id.0);
        self.decoded[index].get_or_init(|| Box::new(types::decode(self, id, &self.places[index])))
    }

    /// All types, each decoded: for documents and tests, not for requests.
    pub fn types(&self) -> impl Iterator<Item = &Type> {
        (0u16..)
            .take(self.places.len())
            .map(|index| self.get(TypeId(index)))
    }

    /// Finds a type by its name in the facts, such as `core/v1.Pod`.
    #[must_use]
    pub fn type_by_id(&self, id: &str) -> Option<TypeId> {
        self.by_id.get(id).copied()
    }

    /// Finds the type of an `apiVersion` and `kind`, served or not; also option kinds such as `DeleteOptions`.
    #[must_use]
    pub fn type_by_gvk(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        self.by_gvk.get(&(group, version, kind)).copied()
    }

    /// All groups of the facts, core first, then in the order in which discovery lists them.
    #[must_use]
    pub fn groups(&self) -> &[GroupFacts] {
        &self.groups
    }

    /// The served resources, in the order of discovery.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceFacts> {
        self.all_resources().filter(|resource| resource.served)
    }

    /// All resources of the facts, served or not.
    pub fn all_resources(&self) -> impl Iterator<Item = &ResourceFacts> {
        self.groups.iter().flat_map(GroupFacts::resources)
    }

    /// Finds a served resource by the parts of its path.
    #[must_use]
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&ResourceFacts> {
        self.served_in(group, version)
            .find(|resource| resource.plural == plural)
    }

    /// Finds a served resource by its kind.
    #[must_use]
    pub fn resource_by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&ResourceFacts> {
        self.served_in(group, version)
            .find(|resource| resource.kind == kind)
    }

    /// The facts of one group version.
    #[must_use]
    pub fn version(&self, group: &str, version: &str) -> Option<&VersionFacts> {
        let group = self.groups.iter().find(|facts| facts.name == group)?;
        group.versions.iter().find(|one| one.version == version)
    }

    /// The served resources of one group version, by name.
    pub fn served_in(&self, group: &str, version: &str) -> impl Iterator<Item = &ResourceFacts> {
        let version = self.version(group, version);
        version
            .into_iter()
            .flat_map(|one| &one.resources)
            .filter(|resource| resource.served)
    }

    /// The group versions in which something is served, in the order of discovery.
    pub fn served_group_versions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.groups.iter().flat_map(|group| {
            let served = group
                .versions
                .iter()
                .filter(|version| version.resources.iter().any(|r| r.served));
            served.map(|version| (group.name, version.version))
        })
    }
}

#[cfg(test)]
mod tests;
