//! Cases: ranges, reads at a revision, compaction.

use super::*;

pub(super) async fn conform(make: fn() -> Made) {
    cases!(
        make,
        ranges_are_in_byte_order_limited_and_counted,
        an_older_revision_reads_as_it_was,
        pages_at_one_revision_make_up_the_whole,
        the_future_cannot_be_read,
        compaction_keeps_what_lives,
        compaction_of_deleted_keys_lets_them_be_made_again,
    );
}

async fn ranges_are_in_byte_order_limited_and_counted(store: Arc<dyn Store>) {
    for key in ["p/b", "p/a", "q", "p0", "p/", "p"] {
        put(&store, key, "v").await;
    }
    let range = Range {
        limit: Some(2),
        ..Range::prefix(b"p/")
    };
    let found = store.range(range.clone()).await.unwrap();
    assert_eq!(found.kvs, [kv("p/", "v", 5, 5, 1), kv("p/a", "v", 2, 2, 1)]);
    assert_eq!((found.more, found.count, found.revision), (true, 3, Revision(6)));
    let rest = Range {
        start: bytes("p/a\0"),
        keys_only: true,
        ..range
    };
    let found = store.range(rest).await.unwrap();
    assert_eq!(found.kvs, [kv("p/b", "", 1, 1, 1)]);
    assert_eq!((found.more, found.count), (false, 1));
    let all = store.range(Range::default()).await.unwrap();
    let keys: Vec<_> = all.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!(keys, ["p", "p/", "p/a", "p/b", "p0", "q"].map(bytes));
    let empty = Range {
        start: bytes("z"),
        end: bytes("a"),
        ..Range::default()
    };
    assert_eq!(store.range(empty).await.unwrap().count, 0);
    let none = store
        .range(Range {
            limit: Some(0),
            ..Range::default()
        })
        .await
        .unwrap();
    assert_eq!((none.kvs.len(), none.more, none.count), (0, true, 6));
}

async fn an_older_revision_reads_as_it_was(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    put(&store, "b", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "b").await;
    put(&store, "b", "2").await;
    let at = async |revision| {
        let range = Range {
            at: Some(Revision(revision)),
            ..Range::default()
        };
        let found = store.range(range).await.unwrap();
        assert_eq!(found.revision, Revision(5));
        assert_eq!(found.count, found.kvs.len() as u64);
        found.kvs
    };
    assert_eq!(at(0).await, []);
    assert_eq!(at(1).await, [kv("a", "1", 1, 1, 1)]);
    assert_eq!(at(2).await, [kv("a", "1", 1, 1, 1), kv("b", "1", 2, 2, 1)]);
    assert_eq!(at(3).await, [kv("a", "2", 1, 3, 2), kv("b", "1", 2, 2, 1)]);
    assert_eq!(at(4).await, [kv("a", "2", 1, 3, 2)]);
    assert_eq!(at(5).await, [kv("a", "2", 1, 3, 2), kv("b", "2", 5, 5, 1)]);
    let found = store.get(bytes("b"), Some(Revision(3))).await;
    assert_eq!(found, Ok((Revision(5), Some(kv("b", "1", 2, 2, 1)))));
    assert_eq!(
        store.get(bytes("b"), Some(Revision(4))).await,
        Ok((Revision(5), None))
    );
}

async fn pages_at_one_revision_make_up_the_whole(store: Arc<dyn Store>) {
    for number in 0..25 {
        put(&store, &format!("k/{number:02}"), "1").await;
    }
    let at = store.current_revision();
    let whole = store.range(Range::prefix(b"k/")).await.unwrap().kvs;
    let mut pages = Vec::new();
    let mut next = Range {
        limit: Some(4),
        at: Some(at),
        ..Range::prefix(b"k/")
    };
    loop {
        let page = store.range(next.clone()).await.unwrap();
        assert_eq!(page.count, 25 - pages.len() as u64);
        pages.extend(page.kvs);
        // Changes between the pages are not seen.
        put(&store, "k/24", "changed").await;
        delete(&store, &format!("k/{:02}", pages.len() % 25)).await;
        put(&store, &format!("k/{:02}x", pages.len()), "new").await;
        if !page.more {
            break;
        }
        next.start = Bytes::from([pages.last().unwrap().key.as_ref(), b"\0"].concat());
    }
    assert_eq!(pages, whole);
}

async fn the_future_cannot_be_read(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let future = StoreError::FutureRevision {
        requested: Revision(2),
        current: Revision(1),
    };
    assert_eq!(
        store.get(bytes("a"), Some(Revision(2))).await,
        Err(future.clone())
    );
    let range = Range {
        at: Some(Revision(2)),
        ..Range::default()
    };
    assert_eq!(store.range(range).await, Err(future.clone()));
    assert_eq!(store.compact(Revision(2)).await, Err(future));
}

async fn compaction_keeps_what_lives(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    put(&store, "gone", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "gone").await;
    put(&store, "later", "1").await;
    put(&store, "a", "3").await;
    store.compact(Revision(4)).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    assert_eq!(store.compacted_revision(), Revision(4));
    let compacted = StoreError::Compacted {
        compacted: Revision(4),
    };
    assert_eq!(
        store.get(bytes("a"), Some(Revision(3))).await,
        Err(compacted.clone())
    );
    let old = Range {
        at: Some(Revision(3)),
        ..Range::default()
    };
    assert_eq!(store.range(old).await, Err(compacted.clone()));
    assert_eq!(store.watch(bytes(""), Revision(3)).await.err(), Some(compacted));
    let at_four = Range {
        at: Some(Revision(4)),
        ..Range::default()
    };
    assert_eq!(store.range(at_four).await.unwrap().kvs, [kv("a", "2", 1, 3, 2)]);
    let now = store.range(Range::default()).await.unwrap();
    assert_eq!(now.kvs, [kv("a", "3", 1, 6, 3), kv("later", "1", 5, 5, 1)]);
    assert_eq!(now.revision, Revision(6));
}

async fn compaction_of_deleted_keys_lets_them_be_made_again(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    delete(&store, "a").await;
    store.compact(Revision(2)).await.unwrap();
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(store.current_revision(), Revision(2));
    assert_eq!(
        put(&store, "a", "2").await,
        Revision(3),
        "revisions go on though nothing is left"
    );
    assert_eq!(get(&store, "a").await, Some(kv("a", "2", 3, 3, 1)));
    assert_eq!(
        store.get(bytes("a"), Some(Revision(2))).await,
        Ok((Revision(3), None))
    );
}
