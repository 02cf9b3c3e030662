//! The conformance suite: what it means to be a store. Each case gets a fresh one; both engines run all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use moorline_store::{
    EmbeddedOptions, EmbeddedStore, Event, EventKind, KeyValue, LeaseId, MemoryStore, Op, Range, Revision,
    Store, StoreError, Txn, TxnOutcome, Watch, WatchMessage,
};

mod leases;
mod reads;
mod transactions;
mod watches;

/// A store, and what has to live as long as it.
type Made = (Arc<dyn Store>, Option<tempfile::TempDir>);

fn memory() -> Made {
    (Arc::new(MemoryStore::new()), None)
}

fn embedded() -> Made {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = EmbeddedStore::open(&path, EmbeddedOptions::default()).unwrap();
    (Arc::new(store), Some(directory))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_engine_conforms() {
    conforms(memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_engine_conforms() {
    conforms(embedded).await;
}

/// Long enough for any machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs all cases against the stores of `make`.
async fn conforms(make: fn() -> Made) {
    transactions::conform(make).await;
    reads::conform(make).await;
    watches::conform(make).await;
    leases::conform(make).await;
}

/// Runs each named case with a fresh store, naming it if it fails.
macro_rules! cases {
    ($make:expr, $($case:ident),+ $(,)?) => {
        $(
            eprintln!("case {}", stringify!($case));
            let (store, _keep) = $make();
            tokio::time::timeout(DEADLINE, $case(std::sync::Arc::clone(&store)))
                .await
                .expect(concat!("deadline passed in ", stringify!($case)));
            store.close().await.unwrap();
        )+
    };
}
use cases;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put_op(key: &str, value: &str) -> Op {
    Op::Put {
        key: bytes(key),
        value: bytes(value),
        lease: None,
    }
}

/// Puts without a condition; answers the revision.
async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    committed(
        store,
        Txn {
            compare: vec![],
            ops: vec![put_op(key, value)],
        },
    )
    .await
}

async fn delete(store: &Arc<dyn Store>, key: &str) -> Revision {
    committed(
        store,
        Txn {
            compare: vec![],
            ops: vec![Op::Delete { key: bytes(key) }],
        },
    )
    .await
}

async fn committed(store: &Arc<dyn Store>, txn: Txn) -> Revision {
    match store.txn(txn).await {
        Ok(TxnOutcome::Committed { revision, .. }) => revision,
        other => panic!("not committed: {other:?}"),
    }
}

async fn get(store: &Arc<dyn Store>, key: &str) -> Option<KeyValue> {
    store.get(bytes(key), None).await.unwrap().1
}

fn kv(key: &str, value: &str, create: u64, modified: u64, version: u64) -> KeyValue {
    KeyValue {
        key: bytes(key),
        value: bytes(value),
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
        lease: None,
    }
}

fn put_event(kv: KeyValue, previous: Option<KeyValue>) -> Event {
    Event {
        kind: EventKind::Put,
        kv,
        previous,
    }
}

fn delete_event(key: &str, revision: u64, previous: KeyValue) -> Event {
    Event {
        kind: EventKind::Delete,
        kv: kv(key, "", 0, revision, 0),
        previous: Some(previous),
    }
}

/// The next `count` events of a watch, however they are spread over messages.
async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match watch.next().await {
            Some(Ok(WatchMessage::Events { revision, events })) => {
                assert!(!events.is_empty());
                assert!(events.iter().all(|event| event.kv.mod_revision <= revision));
                seen.extend(events);
            }
            Some(Ok(WatchMessage::Progress(_))) => {}
            other => panic!("watch ended with {other:?} after {seen:?}"),
        }
    }
    seen
}
