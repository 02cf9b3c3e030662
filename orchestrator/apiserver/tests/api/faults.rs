//! A store that falters: the server answers what it can and goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use moorline_store::{
    KeyValue, LeaseId, MemoryStore, Range, RangeResult, Revision, Store, StoreError, Txn, TxnOutcome, Watch,
};
use serde_json::json;

use crate::harness::{PATIENCE, Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Faults in front of a real store.
#[derive(Default)]
struct Faults {
    inner: MemoryStore,
    /// Transactions are done, but their answers are lost.
    loses_answers: AtomicBool,
    /// Watches end after so many messages, saying that they fell behind.
    watch_messages: AtomicUsize,
    watches: AtomicUsize,
    /// The next watch finds its revisions compacted away.
    is_compacted: AtomicBool,
}

type Outcome<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

impl Store for Faults {
    fn get(&self, key: Bytes, at: Option<Revision>) -> Outcome<'_, (Revision, Option<KeyValue>)> {
        self.inner.get(key, at)
    }

    fn range(&self, range: Range) -> Outcome<'_, RangeResult> {
        self.inner.range(range)
    }

    fn txn(&self, txn: Txn) -> Outcome<'_, TxnOutcome> {
        async move {
            let outcome = self.inner.txn(txn).await;
            if self.loses_answers.load(Ordering::Relaxed) {
                futures::future::pending::<()>().await;
            }
            outcome
        }
        .boxed()
    }

    fn watch(&self, prefix: Bytes, after: Revision) -> Outcome<'_, Watch> {
        async move {
            self.watches.fetch_add(1, Ordering::Relaxed);
            if self.is_compacted.swap(false, Ordering::Relaxed) {
                return Err(StoreError::Compacted {
                    compacted: self.inner.current_revision(),
                });
            }
            let watch = self.inner.watch(prefix, after).await?;
            let count = self.watch_messages.load(Ordering::Relaxed);
            if count == 0 {
                return Ok(watch);
            }
            let behind = futures::stream::iter([Err(StoreError::Lagged { seen: after })]);
            Ok(Watch::new(watch.take(count).chain(behind).boxed()))
        }
        .boxed()
    }

    fn lease_grant(&self, ttl: Duration) -> Outcome<'_, LeaseId> {
        self.inner.lease_grant(ttl)
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> Outcome<'_, ()> {
        self.inner.lease_keep_alive(lease)
    }

    fn lease_revoke(&self, lease: LeaseId) -> Outcome<'_, ()> {
        self.inner.lease_revoke(lease)
    }

    fn compact(&self, revision: Revision) -> Outcome<'_, ()> {
        self.inner.compact(revision)
    }

    fn current_revision(&self) -> Revision {
        self.inner.current_revision()
    }

    fn compacted_revision(&self) -> Revision {
        self.inner.compacted_revision()
    }

    fn close(&self) -> Outcome<'_, ()> {
        self.inner.close()
    }
}

#[tokio::test]
async fn a_lost_answer_is_a_timeout_and_the_write_may_be_done() {
    let store = Arc::new(Faults::default());
    let server = Server::start_on(store.clone(), |config| {
        config.request_timeout = Duration::from_millis(300)
    })
    .await;
    store.loses_answers.store(true, Ordering::Relaxed);
    let reply = server.post(MAPS, &config_map("a")).await;
    assert_eq!(
        (reply.code.as_u16(), &reply.json["reason"]),
        (504, &json!("Timeout")),
        "{}",
        reply.text
    );
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 200);
    store.loses_answers.store(false, Ordering::Relaxed);
    assert_eq!(server.post(MAPS, &config_map("a")).await.code, 409);
    server.shut_down().await;
}

#[tokio::test]
async fn caches_that_fall_behind_catch_up() {
    let store = Arc::new(Faults::default());
    store.watch_messages.store(20, Ordering::Relaxed);
    let server = Server::start_on(store.clone(), |_| {}).await;
    for index in 0..40 {
        let name = format!("m{index}");
        assert_eq!(server.post(MAPS, &config_map(&name)).await.code, 201);
        assert_eq!(server.get(&format!("{MAPS}/{name}")).await.code, 200);
    }
    assert!(
        store.watches.load(Ordering::Relaxed) > 1,
        "the watch never fell behind"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn caches_that_lost_the_thread_read_everything_again_and_say_so() {
    let store = Arc::new(Faults::default());
    store.watch_messages.store(30, Ordering::Relaxed);
    let server = Server::start_on(store.clone(), |_| {}).await;
    let request = http::Request::get(format!("{MAPS}?watch=true&resourceVersion=0"));
    let answer = server
        .admin()
        .send(request.body(kube::client::Body::empty()).unwrap())
        .await
        .unwrap();
    store.is_compacted.store(true, Ordering::Relaxed);
    let mut made = 0;
    while store.is_compacted.load(Ordering::Relaxed) {
        made += 1;
        assert_eq!(
            server.post(MAPS, &config_map(&format!("m{made}"))).await.code,
            201
        );
    }
    let bytes = tokio::time::timeout(PATIENCE, answer.into_body().collect_bytes())
        .await
        .unwrap()
        .unwrap();
    let last = String::from_utf8_lossy(&bytes).lines().last().unwrap().to_owned();
    assert!(
        last.contains("\"type\":\"ERROR\"") && last.contains("\"code\":410"),
        "{last}"
    );
    let list = server.get(MAPS).await.json;
    let count = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|map| map["metadata"]["name"] != "kube-root-ca.crt")
        .count();
    assert_eq!(count, made);
    server.shut_down().await;
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = Server::start_on(Arc::clone(&store), |_| {}).await;
    let before = first.post(MAPS, &config_map("a")).await.json;
    first.shut_down().await;
    let second = Server::start_on(store, |_| {}).await;
    assert_eq!(second.get(&format!("{MAPS}/a")).await.json, before);
    let endpoints = second
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await
        .json;
    assert_eq!(
        endpoints["subsets"][0]["ports"][0]["port"],
        second.server.local_addr().port()
    );
    second.shut_down().await;
}
