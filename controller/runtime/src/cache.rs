//! A shared, readable copy of all objects of one kind, with change handlers called in order.

use std::fmt;
use std::sync::Arc;

use kube::Resource;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::content::{Content, key_of};

/// What happened to one object of a [`Cache`].
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// The object is new here.
    Added(Arc<K>),
    /// The object was replaced by a newer version of itself (same UID).
    Updated {
        /// What was held before.
        old: Arc<K>,
        /// What is held now.
        new: Arc<K>,
    },
    /// The object is gone; this is the last that was known of it.
    Removed(Arc<K>),
}

impl<K> Change<K> {
    /// The newest known state of the object the change is about.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Added(object) | Change::Updated { new: object, .. } | Change::Removed(object) => object,
        }
    }
}

type Call<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Handler<K> {
    call: Call<K>,
    /// The handler is forgotten once this is cancelled.
    until: Option<CancellationToken>,
}

struct Shared<K> {
    content: RwLock<Content<K>>,
    /// Taken for the whole of a change and its handlers, so that handlers see changes in order. Readers take only
    /// `content`, which is free while handlers run.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// All objects of one kind as the API server last told us. Cheap to clone; clones share the content.
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<K: Resource<DynamicType = ()>> fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("kind", &K::kind(&()))
            .field("synced", &*self.shared.synced.borrow())
            .finish()
    }
}

impl<K: Resource> Cache<K> {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            content: RwLock::new(Content::default()),
            handlers: Mutex::new(Vec::new()),
            synced: watch::Sender::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A cache that nothing feeds but [`Cache::observe`] and [`Cache::forget`]: for a single look at the cluster, and for
    /// tests of what stands on caches.
    pub fn detached() -> Self {
        let cache = Self::new();
        cache.begin_list();
        cache.end_list();
        cache
    }

    /// The object of that name; `namespace` is `None` for cluster-scoped kinds.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.shared.content.read().get(&key_of(namespace, name)).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.content.read().list()
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.shared.content.read().len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list has arrived completely.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the first list has arrived completely.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives as long as `self`, so waiting can't fail.
        synced.wait_for(|synced| *synced).await.ok();
    }

    /// Calls `handler` for everything held (as [`Change::Added`]), then for every change, in order.
    ///
    /// The handler runs on the task that made the change, with all other changes of this cache waiting: it must not
    /// block, and must not call [`Cache::observe`] or [`Cache::on_change`] of the same cache. Reading caches and
    /// adding to queues is what it is for.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.register(Box::new(handler), None);
    }

    /// Like [`Cache::on_change`], until `stop` is cancelled: for parts that come and go while the cache stays.
    pub fn on_change_until(
        &self,
        stop: CancellationToken,
        handler: impl Fn(&Change<K>) + Send + Sync + 'static,
    ) {
        self.register(Box::new(handler), Some(stop));
    }

    fn register(&self, handler: Call<K>, until: Option<CancellationToken>) {
        let mut handlers = self.shared.handlers.lock();
        let held = self.shared.content.read().list();
        for object in held {
            handler(&Change::Added(object));
        }
        handlers.push(Handler { call: handler, until });
    }

    /// Takes the answer of an own write at once, so that the next decision rests on it. Ignored if something newer is
    /// known. For a selected cache: only for objects that match the selection.
    pub fn observe(&self, object: K) {
        self.change(|content| content.observed(object));
    }

    /// Takes at once that an own write has removed `object`: a deletion, or taking the last finalizer away. What the
    /// watch still has to say of it is ignored.
    pub fn forget(&self, object: &K) {
        self.change(|content| content.forget(object));
    }

    pub(crate) fn deleted(&self, object: &K) {
        self.change(|content| content.deleted(object));
    }

    pub(crate) fn begin_list(&self) {
        self.change(|content| {
            content.begin_list();
            Vec::new()
        });
    }

    pub(crate) fn listed(&self, object: K) {
        self.change(|content| content.listed(object));
    }

    pub(crate) fn end_list(&self) {
        self.change(Content::end_list);
        self.shared.synced.send_replace(true);
    }

    pub(crate) fn applied(&self, object: K) {
        self.change(|content| content.applied(object));
    }

    fn change(&self, alter: impl FnOnce(&mut Content<K>) -> Vec<Change<K>>) {
        let mut handlers = self.shared.handlers.lock();
        let changes = alter(&mut self.shared.content.write());
        if changes.is_empty() {
            return;
        }
        handlers.retain(|handler| handler.until.as_ref().is_none_or(|until| !until.is_cancelled()));
        for change in &changes {
            for handler in handlers.iter() {
                (handler.call)(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn node(name: &str, version: u64) -> Node {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some(version.to_string()),
            ..Default::default()
        };
        Node {
            metadata,
            ..Default::default()
        }
    }

    #[test]
    fn handlers_get_the_past_then_the_future() {
        let cache: Cache<Node> = Cache::detached();
        cache.observe(node("a", 1));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reader = cache.clone();
        let sink = seen.clone();
        cache.on_change(move |change| {
            let name = change.object().metadata.name.clone().unwrap_or_default();
            let is_held = reader.get(None, &name).is_some();
            sink.lock()
                .push((matches!(change, Change::Added(_)), name, is_held));
        });
        cache.observe(node("b", 2));
        cache.observe(node("a", 3));
        cache.forget(&node("b", 4));
        let expected = [
            (true, "a", true),
            (true, "b", true),
            (false, "a", true),
            (false, "b", false),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(added, name, held)| (*added, name.to_string(), *held))
            .collect();
        assert_eq!(*seen.lock(), expected);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_handler_whose_part_has_ended_is_forgotten() {
        let cache: Cache<Node> = Cache::detached();
        let stop = CancellationToken::new();
        let seen = Arc::new(Mutex::new(0));
        let sink = seen.clone();
        cache.on_change_until(stop.clone(), move |_| *sink.lock() += 1);
        cache.observe(node("a", 1));
        stop.cancel();
        cache.observe(node("b", 2));
        assert_eq!((*seen.lock(), Arc::strong_count(&seen)), (1, 1));
    }

    #[tokio::test]
    async fn synced_waits_for_the_first_list() {
        let cache: Cache<Node> = Cache::new();
        assert!(!cache.is_synced());
        let waiter = cache.clone();
        let waiting = std::pin::pin!(waiter.synced());
        let both = futures::future::join(waiting, async {
            cache.begin_list();
            cache.listed(node("a", 1));
            assert!(!cache.is_synced());
            cache.end_list();
        });
        both.await;
        assert!(cache.is_synced());
    }
}
