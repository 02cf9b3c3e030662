//! Cases: replay, live events, progress, compaction under a watch, closing.

use super::*;

pub(super) async fn conform(make: fn() -> Made) {
    cases!(
        make,
        a_watch_replays_then_goes_on_live,
        a_watch_sees_its_prefix_only_and_progress_for_the_rest,
        a_watch_may_begin_in_the_future,
        events_of_one_transaction_come_in_one_message,
        watchers_begun_amid_writes_see_each_event_once,
        previous_versions_survive_compaction_below_them,
        closing_ends_watches,
    );
}

async fn watch(store: &Arc<dyn Store>, prefix: &str, after: u64) -> Watch {
    store.watch(bytes(prefix), Revision(after)).await.unwrap()
}

async fn a_watch_replays_then_goes_on_live(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let mut all = watch(&store, "", 0).await;
    let mut later = watch(&store, "", 1).await;
    delete(&store, "a").await;
    put(&store, "a", "3").await;
    let (first, second) = (kv("a", "1", 1, 1, 1), kv("a", "2", 1, 2, 2));
    let expected = [
        put_event(first.clone(), None),
        put_event(second.clone(), Some(first)),
        delete_event("a", 3, second),
        put_event(kv("a", "3", 4, 4, 1), None),
    ];
    assert_eq!(events(&mut all, 4).await, expected);
    assert_eq!(events(&mut later, 3).await, expected[1..]);
}

async fn a_watch_sees_its_prefix_only_and_progress_for_the_rest(store: Arc<dyn Store>) {
    put(&store, "b/1", "1").await;
    let mut only_a = watch(&store, "a/", 0).await;
    let replayed = only_a.next().await.unwrap();
    assert_eq!(
        replayed,
        Ok(WatchMessage::Progress(Revision(1))),
        "the replay found nothing and says so"
    );
    put(&store, "b/2", "1").await;
    assert_eq!(
        only_a.next().await.unwrap(),
        Ok(WatchMessage::Progress(Revision(2)))
    );
    put(&store, "b/3", "1").await;
    put(&store, "b/4", "1").await;
    assert_eq!(
        only_a.next().await.unwrap(),
        Ok(WatchMessage::Progress(Revision(4))),
        "only the newest is kept"
    );
    put(&store, "a/1", "1").await;
    let events = vec![put_event(kv("a/1", "1", 5, 5, 1), None)];
    assert_eq!(
        only_a.next().await.unwrap(),
        Ok(WatchMessage::Events {
            revision: Revision(5),
            events
        })
    );
}

async fn a_watch_may_begin_in_the_future(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let mut future = watch(&store, "", 3).await;
    for value in ["2", "3", "4", "5"] {
        put(&store, "a", value).await;
    }
    let seen = events(&mut future, 2).await;
    let revisions: Vec<_> = seen.iter().map(|event| event.kv.mod_revision.0).collect();
    assert_eq!(revisions, [4, 5]);
}

async fn events_of_one_transaction_come_in_one_message(store: Arc<dyn Store>) {
    let mut live = watch(&store, "", 0).await;
    let ops = (0..20)
        .map(|number| put_op(&format!("{number:02}"), "1"))
        .collect();
    committed(&store, Txn { compare: vec![], ops }).await;
    let mut replayed = watch(&store, "", 0).await;
    for watch in [&mut live, &mut replayed] {
        let message = loop {
            match watch.next().await.unwrap().unwrap() {
                WatchMessage::Progress(_) => {}
                WatchMessage::Events { events, .. } => break events,
            }
        };
        let keys: Vec<_> = message.into_iter().map(|event| event.kv.key).collect();
        let expected: Vec<_> = (0..20).map(|number| bytes(&format!("{number:02}"))).collect();
        assert_eq!(keys, expected);
    }
}

/// Writers run while watches begin at random revisions; each has to see exactly what came after its own.
async fn watchers_begun_amid_writes_see_each_event_once(store: Arc<dyn Store>) {
    const WRITES: u64 = 1_200;
    let write = async {
        let writers = (0..4).map(|writer| {
            let store = Arc::clone(&store);
            async move {
                for number in 0..WRITES / 4 {
                    put(&store, &format!("{writer}/{}", number % 10), "v").await;
                }
            }
        });
        futures::future::join_all(writers).await;
    };
    let watch_on = (0..30_u64).map(|number| {
        let store = Arc::clone(&store);
        async move {
            while store.current_revision().0 < number * WRITES / 30 {
                tokio::task::yield_now().await;
            }
            let after = store.current_revision().0 / (1 + number % 3);
            let mut watch = watch(&store, "", after).await;
            let seen = events(&mut watch, usize::try_from(WRITES - after).unwrap()).await;
            let revisions: Vec<_> = seen.iter().map(|event| event.kv.mod_revision.0).collect();
            let expected: Vec<_> = (after + 1..=WRITES).collect();
            assert_eq!(revisions, expected, "watch after {after}");
        }
    });
    futures::join!(write, futures::future::join_all(watch_on));
}

async fn previous_versions_survive_compaction_below_them(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    put(&store, "other", "1").await;
    put(&store, "a", "3").await;
    store.compact(Revision(3)).await.unwrap();
    let mut watch = watch(&store, "", 3).await;
    let expected = put_event(kv("a", "3", 1, 4, 3), Some(kv("a", "2", 1, 2, 2)));
    assert_eq!(events(&mut watch, 1).await, [expected]);
}

async fn closing_ends_watches(store: Arc<dyn Store>) {
    let mut watch = watch(&store, "", 0).await;
    put(&store, "a", "1").await;
    store.close().await.unwrap();
    assert_eq!(
        events(&mut watch, 1).await.len(),
        1,
        "what was published is still delivered"
    );
    let end = loop {
        match watch.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert_eq!(end, Some(Err(StoreError::Closed)));
    assert_eq!(watch.next().await, None);
}
