//! Tests of `hub`: cutting off slow watchers, progress, and what stays registered.

use futures::FutureExt;

use super::*;
use crate::{EventKind, KeyValue};

fn event(key: &'static str, revision: u64) -> Event {
    let kv = KeyValue {
        key: Bytes::from(key),
        value: Bytes::from("0123456789"),
        create_revision: Revision(revision),
        mod_revision: Revision(revision),
        version: 1,
        lease: None,
    };
    Event {
        kind: EventKind::Put,
        kv,
        previous: None,
    }
}

fn hub(events: usize, bytes: usize) -> Arc<Hub> {
    Arc::new(Hub::new(Revision::NONE, WatchLimits { events, bytes }))
}

fn publish(hub: &Hub, key: &'static str, revision: u64) {
    hub.publish(&[event(key, revision)], Revision(revision));
}

fn ready(subscription: &mut Subscription) -> Vec<Result<WatchMessage, StoreError>> {
    let mut items = Vec::new();
    while let Some(Some(item)) = subscription.next().now_or_never() {
        let ended = item.is_err();
        items.push(item);
        if ended {
            break;
        }
    }
    items
}

fn one(key: &'static str, revision: u64) -> Result<WatchMessage, StoreError> {
    Ok(WatchMessage::Events {
        revision: Revision(revision),
        events: vec![event(key, revision)],
    })
}

#[test]
fn a_slow_watcher_gets_what_fitted_and_then_lagged() {
    for (name, hub) in [("by events", hub(2, 1_000)), ("by bytes", hub(1_000, 25))] {
        let mut slow = hub.subscribe(Bytes::new(), Revision::NONE).unwrap();
        let mut busy = hub.subscribe(Bytes::new(), Revision::NONE).unwrap();
        for revision in 1..=4 {
            publish(&hub, "a", revision);
            assert_eq!(
                ready(&mut busy),
                [one("a", revision)],
                "{name}: reading makes room again"
            );
        }
        let lagged = Err(StoreError::Lagged { seen: Revision(2) });
        assert_eq!(ready(&mut slow), [one("a", 1), one("a", 2), lagged], "{name}");
        assert_eq!(
            hub.state.lock().watchers.len(),
            1,
            "{name}: the slow one is forgotten"
        );
    }
}

#[test]
fn a_batch_bigger_than_the_buffer_reaches_a_watcher_that_keeps_up() {
    let hub = hub(2, 1_000);
    let mut watcher = hub.subscribe(Bytes::new(), Revision::NONE).unwrap();
    let batch: Vec<_> = (1..=5).map(|revision| event("a", revision)).collect();
    hub.publish(&batch, Revision(5));
    assert_eq!(
        ready(&mut watcher),
        [Ok(WatchMessage::Events {
            revision: Revision(5),
            events: batch
        })]
    );
}

#[test]
fn of_a_batch_only_what_comes_after_the_start_is_seen() {
    let hub = hub(100, 1_000);
    let mut watcher = hub.subscribe(Bytes::new(), Revision(3)).unwrap();
    let batch: Vec<_> = (1..=5).map(|revision| event("a", revision)).collect();
    hub.publish(&batch, Revision(5));
    let events = batch[3..].to_vec();
    assert_eq!(
        ready(&mut watcher),
        [Ok(WatchMessage::Events {
            revision: Revision(5),
            events
        })]
    );
}

#[test]
fn progress_takes_one_place_only() {
    let hub = hub(2, 1_000);
    let mut watcher = hub.subscribe(Bytes::from("a"), Revision(3)).unwrap();
    for revision in 1..=7 {
        publish(&hub, "b", revision);
    }
    publish(&hub, "a", 8);
    publish(&hub, "b", 9);
    let expected = [
        Ok(WatchMessage::Progress(Revision(7))),
        one("a", 8),
        Ok(WatchMessage::Progress(Revision(9))),
    ];
    assert_eq!(ready(&mut watcher), expected);
}

#[test]
fn a_dropped_watch_leaves_nothing_behind() {
    let hub = hub(2, 1_000);
    drop(hub.subscribe(Bytes::new(), Revision::NONE).unwrap());
    assert!(hub.state.lock().watchers.is_empty());
}

#[test]
fn a_closed_hub_refuses_and_ends_watches() {
    let hub = hub(2, 1_000);
    let mut watcher = hub.subscribe(Bytes::new(), Revision::NONE).unwrap();
    hub.close();
    assert_eq!(ready(&mut watcher), [Err(StoreError::Closed)]);
    assert_eq!(
        hub.subscribe(Bytes::new(), Revision::NONE).err(),
        Some(StoreError::Closed)
    );
}
