//! The queue's rules under paused time, and a property over random histories.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn queue() -> Queue<u32> {
    Queue::new(Backoff {
        min: SECOND,
        max: 60 * SECOND,
    })
}

/// The next key if one is ready within `wait` of (virtual) time.
async fn next_within(queue: &Queue<u32>, wait: Duration) -> Option<u32> {
    tokio::time::timeout(wait, queue.next()).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_key_is_queued_once() {
    let queue = queue();
    queue.add(1);
    queue.add(2);
    queue.add(1);
    assert_eq!(queue.len(), 2);
    assert_eq!((queue.next().await, queue.next().await), (1, 2));
    assert_eq!(next_within(&queue, SECOND).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_running_comes_again_only_after_it() {
    let queue = queue();
    queue.add(1);
    assert_eq!(queue.next().await, 1);
    queue.add(1);
    queue.add(1);
    assert_eq!(next_within(&queue, SECOND).await, None);
    queue.finish(&1, None);
    assert_eq!(next_within(&queue, SECOND).await, Some(1));
    queue.finish(&1, None);
    assert_eq!(next_within(&queue, SECOND).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_key_comes_at_its_earliest_time() {
    let queue = queue();
    queue.add_after(1, 20 * SECOND);
    queue.add_after(1, 10 * SECOND);
    queue.add_after(1, 30 * SECOND);
    assert_eq!(queue.len(), 1);
    let start = Instant::now();
    assert_eq!(queue.next().await, 1);
    assert_eq!(start.elapsed(), 10 * SECOND);
    queue.finish(&1, None);
    assert_eq!(next_within(&queue, 60 * SECOND).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_key_delayed_while_running_waits_for_both() {
    let queue = queue();
    queue.add(1);
    queue.next().await;
    queue.add_after(1, SECOND);
    assert_eq!(next_within(&queue, 5 * SECOND).await, None);
    queue.finish(&1, None);
    assert_eq!(next_within(&queue, SECOND).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_success_resets_them() {
    let queue = queue();
    queue.add(1);
    for failure in 1..=10 {
        let start = Instant::now();
        assert_eq!(queue.next().await, 1);
        let bound = Backoff {
            min: SECOND,
            max: 60 * SECOND,
        }
        .bound(failure);
        assert!(
            start.elapsed() <= bound,
            "failure {failure}: {:?}",
            start.elapsed()
        );
        assert_eq!(queue.fail(&1, "broken").0, failure);
    }
    queue.next().await;
    queue.finish(&1, None);
    assert_eq!(queue.failures(&1), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_error_is_not_new() {
    let queue = queue();
    queue.add(1);
    let mut seen = Vec::new();
    for error in ["a", "a", "b", "a"] {
        queue.next().await;
        seen.push(queue.fail(&1, error).1);
    }
    assert_eq!(seen, [true, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_is_not_hurried_by_its_own_events() {
    let queue = queue();
    queue.add_unless_failing(1);
    queue.next().await;
    queue.fail(&1, "broken");
    queue.add_unless_failing(1);
    assert_eq!(queue.state.lock().ready.len(), 0);
    queue.add(1);
    assert_eq!(queue.state.lock().ready.len(), 1);
}

proptest! {
    /// For all histories: no key is handed out twice at once, and none that was added last gets lost.
    #[test]
    fn no_key_is_lost_or_doubled(steps in prop::collection::vec((0..5_u8, 0..4_u32), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().expect("runtime");
        runtime.block_on(async move {
            let queue = queue();
            let mut running: HashSet<u32> = HashSet::new();
            let mut wanted: HashSet<u32> = HashSet::new();
            for (step, key) in steps {
                match step {
                    0 => { queue.add(key); wanted.insert(key); }
                    1 => { queue.add_after(key, SECOND); wanted.insert(key); }
                    2 => if let Some(key) = next_within(&queue, 2 * SECOND).await {
                        assert!(running.insert(key), "{key} handed out twice");
                        wanted.remove(&key);
                    },
                    3 => if running.remove(&key) { queue.finish(&key, None); },
                    _ => if running.remove(&key) { queue.fail(&key, "x"); wanted.insert(key); },
                }
            }
            for key in running.drain() { queue.finish(&key, None); }
            while let Some(key) = next_within(&queue, 100 * SECOND).await {
                wanted.remove(&key);
                queue.finish(&key, None);
            }
            assert!(wanted.is_empty(), "lost {wanted:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_with_a_name_is_seen_in_the_metrics() {
    let metrics = crate::metrics::Metrics::new();
    let all = crate::QueueMetrics::register(&metrics);
    let queue = Queue::new(Backoff::default()).observed(&all, "claims");
    let line = |start: &str| {
        let text = metrics.encode().expect("encodes");
        let found = text.lines().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("no {start} in {text}"))
            .to_string()
    };
    queue.add("a");
    queue.add("a");
    queue.add("b");
    assert_eq!(line("workqueue_depth"), "workqueue_depth{name=\"claims\"} 2");
    assert_eq!(line("workqueue_adds"), "workqueue_adds_total{name=\"claims\"} 2");
    tokio::time::advance(Duration::from_secs(2)).await;
    let key = queue.next().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    queue.fail(&key, "broken");
    assert_eq!(line("workqueue_depth"), "workqueue_depth{name=\"claims\"} 1");
    assert_eq!(
        line("workqueue_retries"),
        "workqueue_retries_total{name=\"claims\"} 1"
    );
    let sum = |what: &str| line(&format!("workqueue_{what}_duration_seconds_sum"));
    assert_eq!(
        sum("queue"),
        "workqueue_queue_duration_seconds_sum{name=\"claims\"} 2.0"
    );
    assert_eq!(
        sum("work"),
        "workqueue_work_duration_seconds_sum{name=\"claims\"} 3.0"
    );
    drop(queue);
    assert_eq!(line("workqueue_depth"), "workqueue_depth{name=\"claims\"} 0");
}
