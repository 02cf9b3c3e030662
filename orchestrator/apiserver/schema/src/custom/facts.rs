//! Custom resources in the form of the built-in ones, so that one set of handlers and documents serves both.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::definition::{Definition, Version};
use crate::registry::{GroupFacts, Registry, ResourceFacts, Stability, SubresourceFacts, VersionFacts};

/// Keeps the facts of custom resources. They live as long as the process, like those of built-in ones, so handlers
/// treat both alike; the same definition gives the same facts again, so that only definitions never seen before cost
/// memory (about 1 kB each; schemas and objects are not kept here).
#[derive(Debug, Default)]
pub struct Interner {
    texts: Mutex<HashMap<String, &'static str>>,
    facts: Mutex<HashMap<String, &'static ResourceFacts>>,
}

impl Interner {
    fn text(&self, text: &str) -> &'static str {
        let mut texts = self.texts.lock();
        if let Some(found) = texts.get(text) {
            return found;
        }
        let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
        texts.insert(text.to_owned(), kept);
        kept
    }

    /// The fields of a collection that stays as long as its facts.
    pub fn fields(&self, fields: &[String]) -> Vec<&'static str> {
        fields.iter().map(|field| self.text(field)).collect()
    }

    /// The facts of one version of a definition.
    #[must_use]
    pub fn facts(
        &self,
        registry: &Registry,
        definition: &Definition,
        version: &Version,
    ) -> Option<&'static ResourceFacts> {
        let made = self.make(registry, definition, version)?;
        let key = format!("{made:?}");
        let mut facts = self.facts.lock();
        Some(facts.entry(key).or_insert_with(|| Box::leak(Box::new(made))))
    }

    fn make(&self, registry: &Registry, definition: &Definition, version: &Version) -> Option<ResourceFacts> {
        let names = &definition.names;
        let texts = |list: &[String]| list.iter().map(|one| self.text(one)).collect();
        let (group, name) = (self.text(&definition.group), self.text(&version.name));
        let kind = self.text(&names.kind);
        let own = registry.type_by_id("meta/v1.PartialObjectMetadata")?;
        let verbs: [&'static str; 3] = ["get", "patch", "update"];
        let mut subresources = Vec::new();
        if version.has_status {
            subresources.push(SubresourceFacts {
                name: "status",
                kind,
                group,
                version: name,
                type_id: own,
                verbs: verbs.into(),
                served: true,
            });
        }
        if version.scale.is_some() {
            subresources.push(SubresourceFacts {
                name: "scale",
                kind: "Scale",
                group: "autoscaling",
                version: "v1",
                type_id: registry.type_by_id("autoscaling/v1.Scale")?,
                verbs: verbs.into(),
                served: true,
            });
        }
        let storage = format!("{}/{}", definition.group, definition.storage_version().name);
        let hash = Sha256::digest(format!("{storage}/{}", names.kind));
        Some(ResourceFacts {
            group,
            version: name,
            plural: self.text(&names.plural),
            singular: self.text(&names.singular),
            kind,
            list_kind: Some(self.text(&names.list_kind)),
            type_id: own,
            list_type_id: None,
            namespaced: definition.namespaced,
            short_names: texts(&names.short_names),
            categories: texts(&names.categories),
            verbs: [
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ]
            .into(),
            storage_version_hash: Some(self.text(&BASE64_STANDARD.encode(&hash[..8]))),
            storage_version: Some(self.text(&storage)),
            subresources: subresources.into(),
            served: true,
            custom: true,
        })
    }

    /// Groups of custom resources for discovery: by name, versions in Kubernetes' order of preference.
    #[must_use]
    pub fn groups<'f>(&self, facts: impl Iterator<Item = &'f ResourceFacts>) -> Vec<GroupFacts> {
        let mut groups: Vec<GroupFacts> = Vec::new();
        for one in facts {
            let place = groups
                .iter()
                .position(|group| group.name == one.group)
                .unwrap_or(groups.len());
            if place == groups.len() {
                groups.push(GroupFacts {
                    name: one.group,
                    preferred_version: one.version,
                    versions: Vec::new(),
                });
            }
            let versions = &mut groups[place].versions;
            let at = versions
                .iter()
                .position(|version| version.version == one.version)
                .unwrap_or(versions.len());
            if at == versions.len() {
                versions.push(VersionFacts {
                    version: one.version,
                    stability: Stability::Stable,
                    resources: Vec::new(),
                    openapi_hash: OnceLock::new(),
                });
            }
            versions[at].resources.push(one.clone());
        }
        for group in &mut groups {
            group
                .versions
                .sort_by_key(|version| std::cmp::Reverse(priority(version.version)));
            for version in &mut group.versions {
                version.resources.sort_by_key(|resource| resource.plural);
            }
            if let Some(first) = group.versions.first() {
                group.preferred_version = first.version;
            }
        }
        groups.sort_by_key(|group| group.name);
        groups
    }
}

/// Kubernetes' order of versions: `v2` over `v1` over `v1beta2` over `v1alpha1`, then others from a to z.
pub(crate) fn priority(version: &str) -> (bool, u8, u64, u64, std::cmp::Reverse<String>) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u64 = rest[..digits].parse().ok()?;
        let (stage, minor) = match &rest[digits..] {
            "" => (2, ""),
            rest => (if rest.starts_with("beta") { 1 } else { 0 }, {
                rest.strip_prefix("beta").or_else(|| rest.strip_prefix("alpha"))?
            }),
        };
        let minor = if stage == 2 { 0 } else { minor.parse().ok()? };
        Some((stage, major, minor))
    });
    let other = std::cmp::Reverse(if parsed.is_none() {
        version.to_owned()
    } else {
        String::new()
    });
    let (stage, major, minor) = parsed.unwrap_or_default();
    (parsed.is_some(), stage, major, minor, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = [
            "foo10",
            "v1alpha1",
            "v10",
            "v2beta1",
            "v2",
            "v11beta2",
            "v10beta3",
            "foo1",
            "v1beta",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "v1",
        ];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        let expected = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v2beta1",
            "v12alpha1",
            "v11alpha2",
            "v1alpha1",
            "foo1",
            "foo10",
            "v1beta",
        ];
        assert_eq!(versions, expected);
    }
}
