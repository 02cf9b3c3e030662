//! Cases: compare-and-swap, revisions, what a transaction answers.

use moorline_store::Compare;

use super::*;

pub(super) async fn conform(make: fn() -> Made) {
    cases!(
        make,
        create_update_delete_count_versions,
        a_failed_compare_changes_nothing_and_answers_what_is_there,
        operations_of_one_transaction_share_its_revision,
        a_transaction_that_changes_nothing_takes_no_revision,
        a_key_made_again_begins_anew,
        of_many_writers_of_one_key_one_wins_each_round,
        refused_transactions_leave_no_trace,
        a_closed_store_answers_closed,
    );
}

async fn create_update_delete_count_versions(store: Arc<dyn Store>) {
    assert_eq!(store.current_revision(), Revision(0));
    let created = store
        .txn(Txn::create(bytes("a"), bytes("1"), None))
        .await
        .unwrap();
    assert_eq!(
        created,
        TxnOutcome::Committed {
            revision: Revision(1),
            previous: vec![None]
        }
    );
    let updated = store
        .txn(Txn::put_if(bytes("a"), Revision(1), bytes("2"), None))
        .await
        .unwrap();
    let first = kv("a", "1", 1, 1, 1);
    assert_eq!(
        updated,
        TxnOutcome::Committed {
            revision: Revision(2),
            previous: vec![Some(first)]
        }
    );
    let second = kv("a", "2", 1, 2, 2);
    assert_eq!(
        store.get(bytes("a"), None).await,
        Ok((Revision(2), Some(second.clone())))
    );
    let deleted = store.txn(Txn::delete_if(bytes("a"), Revision(2))).await.unwrap();
    assert_eq!(
        deleted,
        TxnOutcome::Committed {
            revision: Revision(3),
            previous: vec![Some(second)]
        }
    );
    assert_eq!(store.get(bytes("a"), None).await, Ok((Revision(3), None)));
    assert_eq!(store.current_revision(), Revision(3));
}

async fn a_failed_compare_changes_nothing_and_answers_what_is_there(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let txn = Txn {
        compare: vec![
            Compare {
                key: bytes("a"),
                mod_revision: Revision(1),
            },
            Compare {
                key: bytes("b"),
                mod_revision: Revision(7),
            },
        ],
        ops: vec![put_op("a", "2"), put_op("b", "2")],
    };
    let current = vec![Some(kv("a", "1", 1, 1, 1)), None];
    assert_eq!(
        store.txn(txn).await,
        Ok(TxnOutcome::Conflict {
            revision: Revision(1),
            current
        })
    );
    let exists = store.txn(Txn::create(bytes("a"), bytes("2"), None)).await;
    let current = vec![Some(kv("a", "1", 1, 1, 1))];
    assert_eq!(
        exists,
        Ok(TxnOutcome::Conflict {
            revision: Revision(1),
            current
        })
    );
    assert_eq!(
        store.range(Range::default()).await.unwrap().kvs,
        [kv("a", "1", 1, 1, 1)]
    );
}

async fn operations_of_one_transaction_share_its_revision(store: Arc<dyn Store>) {
    put(&store, "old", "1").await;
    let ops = vec![
        put_op("b", "1"),
        Op::Delete { key: bytes("old") },
        put_op("a", "1"),
    ];
    assert_eq!(committed(&store, Txn { compare: vec![], ops }).await, Revision(2));
    let found = store.range(Range::default()).await.unwrap();
    assert_eq!(found.kvs, [kv("a", "1", 2, 2, 1), kv("b", "1", 2, 2, 1)]);
}

async fn a_transaction_that_changes_nothing_takes_no_revision(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    assert_eq!(delete(&store, "absent").await, Revision(1));
    assert_eq!(committed(&store, Txn::default()).await, Revision(1));
    assert_eq!(
        put(&store, "a", "1").await,
        Revision(2),
        "the same value again is a change"
    );
}

async fn a_key_made_again_begins_anew(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    delete(&store, "a").await;
    put(&store, "a", "2").await;
    assert_eq!(get(&store, "a").await, Some(kv("a", "2", 3, 3, 1)));
}

async fn of_many_writers_of_one_key_one_wins_each_round(store: Arc<dyn Store>) {
    put(&store, "counter", "0").await;
    let increments = (0..8).map(|_writer| {
        let store = Arc::clone(&store);
        async move {
            for _round in 0..20 {
                increment(&store).await;
            }
        }
    });
    futures::future::join_all(increments).await;
    let counter = get(&store, "counter").await.unwrap();
    assert_eq!((counter.value, counter.version), (bytes("160"), 161));
}

async fn increment(store: &Arc<dyn Store>) {
    let mut found = get(store, "counter").await.unwrap();
    loop {
        let count: u64 = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
        let next = bytes(&(count + 1).to_string());
        match store
            .txn(Txn::put_if(bytes("counter"), found.mod_revision, next, None))
            .await
            .unwrap()
        {
            TxnOutcome::Committed { .. } => return,
            TxnOutcome::Conflict { mut current, .. } => found = current.remove(0).unwrap(),
        }
    }
}

async fn refused_transactions_leave_no_trace(store: Arc<dyn Store>) {
    let twice = Txn {
        compare: vec![],
        ops: vec![put_op("a", "1"), Op::Delete { key: bytes("a") }],
    };
    assert_eq!(store.txn(twice).await, Err(StoreError::DuplicateKey));
    let big = Txn::create(bytes("a"), Bytes::from(vec![0; 2 << 20]), None);
    assert!(matches!(store.txn(big).await, Err(StoreError::TooLarge { .. })));
    let leased = Op::Put {
        key: bytes("b"),
        value: bytes("1"),
        lease: Some(LeaseId(99)),
    };
    let unknown_lease = Txn {
        compare: vec![],
        ops: vec![put_op("a", "1"), leased],
    };
    let refused = store.txn(unknown_lease).await;
    assert_eq!(refused, Err(StoreError::LeaseNotFound { lease: LeaseId(99) }));
    assert_eq!(store.range(Range::default()).await.unwrap().count, 0);
    assert_eq!(store.current_revision(), Revision(0));
}

async fn a_closed_store_answers_closed(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    store.close().await.unwrap();
    assert_eq!(store.get(bytes("a"), None).await, Err(StoreError::Closed));
    assert_eq!(store.txn(Txn::default()).await, Err(StoreError::Closed));
    assert_eq!(store.compact(Revision(1)).await, Err(StoreError::Closed));
    assert_eq!(
        store.watch(bytes(""), Revision(0)).await.err(),
        Some(StoreError::Closed)
    );
    assert_eq!(store.lease_grant(DEADLINE).await, Err(StoreError::Closed));
}
