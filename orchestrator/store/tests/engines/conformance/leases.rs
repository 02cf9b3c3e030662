//! Cases: keys that end with their lease.

use super::*;

pub(super) async fn conform(make: fn() -> Made) {
    cases!(
        make,
        keys_go_when_their_lease_ends,
        a_lease_that_is_kept_alive_stays,
        revoking_deletes_the_keys_each_with_its_own_revision,
        a_key_belongs_to_the_lease_of_its_last_put,
        leases_that_are_gone_are_refused,
    );
}

const LONG: Duration = Duration::from_secs(3_600);

fn leased(key: &str, lease: LeaseId) -> Txn {
    Txn {
        compare: vec![],
        ops: vec![Op::Put {
            key: bytes(key),
            value: bytes("v"),
            lease: Some(lease),
        }],
    }
}

async fn keys_go_when_their_lease_ends(store: Arc<dyn Store>) {
    put(&store, "stays", "1").await;
    let lease = store.lease_grant(Duration::from_millis(1_000)).await.unwrap();
    let mut watch = store.watch(bytes(""), Revision(0)).await.unwrap();
    committed(&store, leased("a", lease)).await;
    let seen = events(&mut watch, 3).await;
    let previous = KeyValue {
        lease: Some(lease),
        ..kv("a", "v", 2, 2, 1)
    };
    assert_eq!(seen[2], delete_event("a", 3, previous));
    assert_eq!(get(&store, "a").await, None);
    let refused = store.txn(leased("a", lease)).await;
    assert_eq!(refused, Err(StoreError::LeaseNotFound { lease }));
}

async fn a_lease_that_is_kept_alive_stays(store: Arc<dyn Store>) {
    let kept = store.lease_grant(Duration::from_millis(2_500)).await.unwrap();
    committed(&store, leased("kept", kept)).await;
    // Two leases in a row, together longer than the first one's time.
    for number in 0..2 {
        let clock = store.lease_grant(Duration::from_millis(1_500)).await.unwrap();
        committed(&store, leased("clock", clock)).await;
        store.lease_keep_alive(kept).await.unwrap();
        let mut watch = store
            .watch(bytes("clock"), store.current_revision())
            .await
            .unwrap();
        events(&mut watch, 1).await;
        assert!(get(&store, "kept").await.is_some(), "round {number}");
    }
    let mut watch = store
        .watch(bytes("kept"), store.current_revision())
        .await
        .unwrap();
    assert_eq!(events(&mut watch, 1).await[0].kind, EventKind::Delete);
}

async fn revoking_deletes_the_keys_each_with_its_own_revision(store: Arc<dyn Store>) {
    let lease = store.lease_grant(LONG).await.unwrap();
    for key in ["b", "a", "c"] {
        committed(&store, leased(key, lease)).await;
    }
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(store.current_revision(), Revision(6));
    assert_eq!(store.range(Range::default()).await.unwrap().count, 0);
    let mut watch = store.watch(bytes(""), Revision(3)).await.unwrap();
    let mut deleted: Vec<_> = events(&mut watch, 3)
        .await
        .into_iter()
        .map(|event| (event.kv.key, event.kv.mod_revision.0))
        .collect();
    deleted.sort();
    assert_eq!(deleted, [(bytes("a"), 4), (bytes("b"), 5), (bytes("c"), 6)]);
}

async fn a_key_belongs_to_the_lease_of_its_last_put(store: Arc<dyn Store>) {
    let first = store.lease_grant(LONG).await.unwrap();
    let second = store.lease_grant(LONG).await.unwrap();
    assert_ne!(first, second);
    for key in ["moved", "freed", "deleted"] {
        committed(&store, leased(key, first)).await;
    }
    committed(&store, leased("moved", second)).await;
    put(&store, "freed", "1").await;
    delete(&store, "deleted").await;
    store.lease_revoke(first).await.unwrap();
    assert_eq!(store.range(Range::default()).await.unwrap().count, 2);
    store.lease_revoke(second).await.unwrap();
    assert_eq!(get(&store, "moved").await, None);
    assert_eq!(get(&store, "freed").await.unwrap().lease, None);
}

async fn leases_that_are_gone_are_refused(store: Arc<dyn Store>) {
    let lease = store.lease_grant(LONG).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    let gone = Err(StoreError::LeaseNotFound { lease });
    assert_eq!(store.lease_revoke(lease).await, gone);
    assert_eq!(store.lease_keep_alive(lease).await, gone);
    assert_ne!(
        store.lease_grant(LONG).await.unwrap(),
        lease,
        "numbers are not given twice"
    );
}
