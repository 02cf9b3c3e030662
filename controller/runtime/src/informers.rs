//! One watch per kind and process, feeding shared caches.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::cache::Cache;

/// Kinds that can be cached: any type of k8s-openapi, and any `CustomResource`.
pub trait Watchable:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}
impl<K> Watchable for K where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
}

/// Pause before a failed watch is started again.
const WATCH_BACKOFF: Backoff = Backoff {
    min: Duration::from_millis(200),
    max: Duration::from_secs(15),
};

struct Inner {
    client: Client,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Kind and field selector to its `Cache<K>`.
    caches: Mutex<HashMap<(TypeId, String), Box<dyn Any + Send + Sync>>>,
}

/// The caches of this process. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Informers {
    inner: Arc<Inner>,
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informers")
            .field("caches", &self.inner.caches.lock().len())
            .finish_non_exhaustive()
    }
}

impl Informers {
    /// Nothing is watched until a cache is asked for. All watches end when `stop` is cancelled.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        let inner = Inner {
            client,
            stop: stop.child_token(),
            tasks: TaskTracker::new(),
            caches: Mutex::new(HashMap::new()),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The client that the watches use.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The cache of all objects of a kind. Its watch starts with the first call.
    pub fn cache<K: Watchable>(&self) -> Cache<K> {
        self.cache_selected("")
    }

    /// The cache of the objects that match a field selector such as `spec.nodeName=n1`, with a watch of its own.
    pub fn cache_selected<K: Watchable>(&self, fields: &str) -> Cache<K> {
        let mut caches = self.inner.caches.lock();
        let slot = caches
            .entry((TypeId::of::<K>(), fields.to_string()))
            .or_insert_with(|| {
                let cache = Cache::<K>::new();
                self.inner.tasks.spawn(feed(
                    Api::<K>::all(self.inner.client.clone()),
                    fields.to_string(),
                    cache.clone(),
                    self.inner.stop.clone(),
                ));
                Box::new(cache)
            });
        slot.downcast_ref::<Cache<K>>()
            .expect("the key holds the type")
            .clone()
    }

    /// Ends all watches and waits for their tasks. Caches keep what they hold.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// Keeps `cache` equal to what the API server has, until `stop`.
async fn feed<K: Watchable>(api: Api<K>, fields: String, cache: Cache<K>, stop: CancellationToken) {
    let kind = K::kind(&()).into_owned();
    let mut config = watcher::Config::default().streaming_lists();
    if !fields.is_empty() {
        config = config.fields(&fields);
    }
    let mut failures = 0;
    loop {
        let end = follow(&api, &config, &cache, &kind, &mut failures, &stop).await;
        match end {
            FollowEnd::Stopped => return,
            // An API server that doesn't know WatchList: list in pages, then watch.
            FollowEnd::StreamingListRefused => {
                tracing::debug!(kind, "Streaming lists are refused, listing in pages");
                config.initial_list_strategy = watcher::InitialListStrategy::ListWatch;
            }
        }
    }
}

enum FollowEnd {
    Stopped,
    StreamingListRefused,
}

async fn follow<K: Watchable>(
    api: &Api<K>,
    config: &watcher::Config,
    cache: &Cache<K>,
    kind: &str,
    failures: &mut u32,
    stop: &CancellationToken,
) -> FollowEnd {
    let mut events = std::pin::pin!(watcher(api.clone(), config.clone()));
    let mut is_listing = false;
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return FollowEnd::Stopped,
            event = events.next() => event,
        };
        let failed = match event {
            Some(Ok(watcher::Event::Init)) => {
                // A second Init without an end in between: the server closed the stream in mid-list.
                let is_interrupted = std::mem::replace(&mut is_listing, true);
                cache.begin_list();
                is_interrupted.then(|| "the list was cut off".to_string())
            }
            Some(Ok(event)) => {
                if matches!(event, watcher::Event::InitDone) {
                    is_listing = false;
                }
                take(event, cache);
                recovered(kind, failures);
                None
            }
            Some(Err(error)) if is_streaming_refused(&error, config) => {
                return FollowEnd::StreamingListRefused;
            }
            Some(Err(error)) => {
                is_listing = false;
                Some(describe(&error))
            }
            None => Some("the watch ended".to_string()),
        };
        if let Some(error) = failed {
            *failures += 1;
            if *failures == 1 {
                tracing::warn!(kind, error, "Watch failed, starting it again");
            } else {
                tracing::debug!(kind, error, failures, "Watch failed again");
            }
            tokio::select! {
                () = stop.cancelled() => return FollowEnd::Stopped,
                () = tokio::time::sleep(WATCH_BACKOFF.delay(*failures)) => {}
            }
        }
    }
}

fn take<K: Watchable>(event: watcher::Event<K>, cache: &Cache<K>) {
    match event {
        watcher::Event::Init => cache.begin_list(),
        watcher::Event::InitApply(object) => cache.listed(object),
        watcher::Event::InitDone => cache.end_list(),
        watcher::Event::Apply(object) => cache.applied(object),
        watcher::Event::Delete(object) => cache.deleted(&object),
    }
}

fn recovered(kind: &str, failures: &mut u32) {
    if *failures > 0 {
        tracing::info!(kind, failures = *failures, "Watch works again");
        *failures = 0;
    }
}

fn is_streaming_refused(error: &watcher::Error, config: &watcher::Config) -> bool {
    let is_streaming = config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    is_streaming && matches!(status.code, 400 | 422)
}

/// The error with its causes, joined once for the log.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
