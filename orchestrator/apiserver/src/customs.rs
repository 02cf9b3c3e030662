//! The custom resources that are served now: a snapshot that requests read without waiting, made anew when
//! definitions change.
//!
//! ```text
//! definition established -> collection loaded into the caches -> snapshot swapped -> status written
//! definition changed     -> same collection, or a new one if objects are stored or selected otherwise
//! definition gone        -> snapshot swapped -> collection closed: its watches end
//! ```
//! The snapshot comes before the status, so whoever has seen a definition established can use it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use moorline_schema::custom::facts::Interner;
use moorline_schema::custom::openapi::{self, Served as ServedKind};
use moorline_schema::custom::{Definition, Version};
use moorline_schema::registry::GroupFacts;
use moorline_schema::{Registry, ResourceFacts};
use moorline_store::{Store, StoreError};
use serde_json::Value;

use crate::cache::{Caches, Collection};
use crate::objects::{metadata, tree};

/// One version of a custom resource.
#[derive(Debug)]
pub(crate) struct CustomResource {
    pub(crate) facts: &'static ResourceFacts,
    pub(crate) definition: Arc<Definition>,
    /// Place of the version in the definition.
    version: usize,
    pub(crate) collection: Arc<Collection>,
    /// The definition is deleted: nothing new is created.
    pub(crate) is_terminating: bool,
}

impl CustomResource {
    pub(crate) fn version(&self) -> &Version {
        &self.definition.versions[self.version]
    }
}

/// A definition as it is served.
#[derive(Debug)]
struct ServedDefinition {
    uid: String,
    spec: Value,
    is_terminating: bool,
    definition: Arc<Definition>,
    collection: Arc<Collection>,
    resources: Vec<Arc<CustomResource>>,
}

/// Everything that is served at one moment.
#[derive(Debug, Default)]
pub(crate) struct Served {
    definitions: HashMap<String, Arc<ServedDefinition>>,
    by_path: HashMap<(&'static str, &'static str, &'static str), Arc<CustomResource>>,
    /// For discovery.
    pub(crate) groups: Vec<GroupFacts>,
}

impl Served {
    /// Finds a resource by the parts of its path.
    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<CustomResource>> {
        self.by_path.get(&(group, version, plural)).cloned()
    }

    /// Finds a resource by its kind.
    pub(crate) fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<CustomResource>> {
        let mut all = self.by_path.values();
        all.find(|one| (one.facts.group, one.facts.version, one.facts.kind) == (group, version, kind))
    }

    /// The collection and facts under which a definition's objects are stored.
    pub(crate) fn stored(&self, definition: &str) -> Option<Arc<Collection>> {
        let found = self.definitions.get(definition)?;
        Some(Arc::clone(&found.collection))
    }

    /// The OpenAPI document of a group version; nothing where no definition is served.
    pub(crate) fn document(&self, registry: &Registry, group: &str, version: &str) -> Option<Value> {
        let mut found: Vec<&Arc<CustomResource>> = self
            .by_path
            .values()
            .filter(|one| (one.facts.group, one.facts.version) == (group, version))
            .collect();
        found.sort_by_key(|one| one.facts.plural);
        let served: Vec<ServedKind<'_>> = found
            .iter()
            .map(|one| ServedKind {
                facts: one.facts,
                version: one.version(),
            })
            .collect();
        (!served.is_empty()).then(|| openapi::document(registry, group, version, &served))
    }
}

/// Keeps the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Customs {
    interner: Interner,
    served: ArcSwap<Served>,
    /// Held while a new snapshot is made.
    making: tokio::sync::Mutex<()>,
}

impl Customs {
    /// What is served now.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Serves these definitions and no others. Each is the whole object. Those that can't be read are left out.
    ///
    /// # Errors
    /// Those of the store; what was served before goes on to be.
    pub(crate) async fn serve(
        &self,
        registry: &Registry,
        caches: &Caches,
        store: &dyn Store,
        objects: &[Value],
    ) -> Result<(), StoreError> {
        let _making = self.making.lock().await;
        let before = self.served.load_full();
        let mut definitions = HashMap::new();
        for object in objects {
            let name = tree::text(object, &["metadata", "name"]).to_owned();
            let old = before.definitions.get(&name);
            if let Some(same) = old.filter(|old| is_same(old, object)) {
                definitions.insert(name, Arc::clone(same));
                continue;
            }
            let made = self.define(registry, caches, store, object, old).await?;
            if let Some(made) = made {
                definitions.insert(name, Arc::new(made));
            }
        }
        self.swap(caches, &before, definitions);
        Ok(())
    }

    async fn define(
        &self,
        registry: &Registry,
        caches: &Caches,
        store: &dyn Store,
        object: &Value,
        old: Option<&Arc<ServedDefinition>>,
    ) -> Result<Option<ServedDefinition>, StoreError> {
        let definition = match Definition::read(object) {
            Ok(definition) => Arc::new(definition),
            Err(error) => {
                let name = tree::text(object, &["metadata", "name"]);
                tracing::error!(definition = name, %error, "A stored definition cannot be served.");
                return Ok(None);
            }
        };
        let facts = |version: &Version| self.interner.facts(registry, &definition, version);
        let Some(stored) = facts(definition.storage_version()) else {
            return Ok(None);
        };
        let kept = old.filter(|old| {
            old.uid == tree::text(object, &["metadata", "uid"])
                && is_stored_alike(&old.definition, &definition)
                && std::ptr::eq(old.collection.resource, stored)
        });
        let collection = match kept {
            Some(old) => Arc::clone(&old.collection),
            None => {
                let fields = self.interner.fields(&selectable(&definition));
                let collection = Arc::new(Collection::custom(stored, fields, Arc::clone(&definition)));
                caches.add(store, &collection).await?;
                collection
            }
        };
        let is_terminating = metadata::is_deleting(object);
        if is_terminating {
            collection.refuse_new().await;
        }
        let mut resources = Vec::new();
        for (index, version) in definition.versions.iter().enumerate() {
            if let Some(facts) = facts(version).filter(|_| version.served) {
                resources.push(Arc::new(CustomResource {
                    facts,
                    definition: Arc::clone(&definition),
                    version: index,
                    collection: Arc::clone(&collection),
                    is_terminating,
                }));
            }
        }
        Ok(Some(ServedDefinition {
            uid: tree::text(object, &["metadata", "uid"]).to_owned(),
            spec: object["spec"].clone(),
            is_terminating,
            definition,
            collection,
            resources,
        }))
    }

    /// Puts the new snapshot in place, then ends what is not in it.
    fn swap(&self, caches: &Caches, before: &Served, definitions: HashMap<String, Arc<ServedDefinition>>) {
        let mut by_path = HashMap::new();
        for resource in definitions.values().flat_map(|one| &one.resources) {
            let facts = resource.facts;
            // The built-in resource of the same name comes first.
            by_path.insert((facts.group, facts.version, facts.plural), Arc::clone(resource));
        }
        let kept: HashSet<*const Collection> = definitions
            .values()
            .map(|one| Arc::as_ptr(&one.collection))
            .collect();
        let groups = self.interner.groups(by_path.values().map(|one| one.facts));
        self.served.store(Arc::new(Served {
            definitions,
            by_path,
            groups,
        }));
        for old in before.definitions.values() {
            if !kept.contains(&Arc::as_ptr(&old.collection)) {
                caches.remove(&old.collection);
                old.collection.close();
            }
        }
    }
}

fn is_same(served: &ServedDefinition, object: &Value) -> bool {
    served.uid == tree::text(object, &["metadata", "uid"])
        && served.is_terminating == metadata::is_deleting(object)
        && served.spec == object["spec"]
}

/// Whether stored objects look the same under both definitions.
fn is_stored_alike(old: &Definition, new: &Definition) -> bool {
    let (before, after) = (old.storage_version(), new.storage_version());
    before.name == after.name
        && before.schema_source == after.schema_source
        && selectable(old) == selectable(new)
}

/// The fields by which objects of any version can be selected.
fn selectable(definition: &Definition) -> Vec<String> {
    let mut fields = vec!["metadata.name".to_owned(), "metadata.namespace".to_owned()];
    for field in definition.versions.iter().flat_map(|version| &version.selectable) {
        if !fields.contains(field) {
            fields.push(field.clone());
        }
    }
    fields
}
