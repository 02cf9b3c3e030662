//! Finds objects of a cache by something other than their name.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use kube::Resource;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Change};

type Slots<I, K> = HashMap<I, Vec<Arc<K>>>;

/// Objects of a [`Cache`] by the values that a function derives from each of them. Always as current as the cache
/// for handlers registered after the index was made.
pub struct Index<I, K> {
    slots: Arc<RwLock<Slots<I, K>>>,
}

impl<I, K> Clone for Index<I, K> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
        }
    }
}

impl<I, K> fmt::Debug for Index<I, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("values", &self.slots.read().len())
            .finish()
    }
}

impl<I, K> Index<I, K>
where
    I: Eq + Hash + Send + Sync + 'static,
    K: Resource + Send + Sync + 'static,
{
    /// Indexes `cache` by what `values_of` derives from each object.
    pub fn new(cache: &Cache<K>, values_of: impl Fn(&K) -> Vec<I> + Send + Sync + 'static) -> Self {
        let slots: Arc<RwLock<Slots<I, K>>> = Arc::default();
        let shared = slots.clone();
        cache.on_change(move |change| follow(&shared, change, &values_of));
        Self { slots }
    }

    /// Like [`Index::new`]; doesn't follow the cache any more once `stop` is cancelled.
    pub fn new_until(
        cache: &Cache<K>,
        stop: CancellationToken,
        values_of: impl Fn(&K) -> Vec<I> + Send + Sync + 'static,
    ) -> Self {
        let slots: Arc<RwLock<Slots<I, K>>> = Arc::default();
        let shared = slots.clone();
        cache.on_change_until(stop, move |change| follow(&shared, change, &values_of));
        Self { slots }
    }

    /// The objects from which `value` was derived, in no order.
    pub fn get<Q>(&self, value: &Q) -> Vec<Arc<K>>
    where
        I: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.slots.read().get(value).cloned().unwrap_or_default()
    }
}

fn follow<I: Eq + Hash, K: Resource>(
    slots: &RwLock<Slots<I, K>>,
    change: &Change<K>,
    values_of: impl Fn(&K) -> Vec<I>,
) {
    let mut slots = slots.write();
    match change {
        Change::Added(new) => insert(&mut slots, values_of(new), new),
        Change::Updated { old, new } => {
            remove(&mut slots, values_of(old), old);
            insert(&mut slots, values_of(new), new);
        }
        Change::Removed(old) => remove(&mut slots, values_of(old), old),
    }
}

fn insert<I: Eq + Hash, K>(slots: &mut Slots<I, K>, values: Vec<I>, object: &Arc<K>) {
    for value in values {
        slots.entry(value).or_default().push(object.clone());
    }
}

fn remove<I: Eq + Hash, K: Resource>(slots: &mut Slots<I, K>, values: Vec<I>, object: &Arc<K>) {
    for value in values {
        if let Some(held) = slots.get_mut(&value) {
            held.retain(|other| !Arc::ptr_eq(other, object));
            if held.is_empty() {
                slots.remove(&value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn follows_adds_updates_and_removals() {
        let node = |name: &str, zone: &str, version: u64| Node {
            metadata: ObjectMeta {
                name: Some(name.into()),
                resource_version: Some(version.to_string()),
                labels: Some([("zone".to_string(), zone.to_string())].into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let cache = Cache::detached();
        cache.observe(node("a", "east", 1));
        let index: Index<String, Node> = Index::new(&cache, |node| {
            node.metadata
                .labels
                .iter()
                .flat_map(|l| l.values().cloned())
                .collect()
        });
        cache.observe(node("b", "east", 2));
        cache.observe(node("a", "west", 3));
        let names = |zone: &str| -> Vec<String> {
            index
                .get(zone)
                .iter()
                .filter_map(|node| node.metadata.name.clone())
                .collect()
        };
        assert_eq!(
            (names("east"), names("west")),
            (vec!["b".to_string()], vec!["a".to_string()])
        );
        cache.forget(&node("b", "east", 4));
        assert!(names("east").is_empty());
    }
}
