//! How workers treat keys, errors, panics and the end.

use std::collections::HashSet;
use std::convert::Infallible;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::backoff::Backoff;

fn queue() -> Queue<u32> {
    Queue::new(Backoff {
        min: Duration::from_secs(1),
        max: Duration::from_secs(8),
    })
}

/// Runs workers over `queue` for `run_for` of virtual time.
async fn run_for<E, F, Fut>(queue: &Queue<u32>, workers: usize, run_for: Duration, reconcile: F)
where
    E: Display,
    F: Fn(u32) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let ending = async {
        tokio::time::sleep(run_for).await;
        stop.cancel();
    };
    futures::future::join(
        run_workers(queue.clone(), workers, stop.clone(), reconcile),
        ending,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn workers_bound_concurrency_and_never_share_a_key() {
    let queue = queue();
    (0..20).for_each(|key| queue.add(key));
    let running: Arc<Mutex<HashSet<u32>>> = Arc::default();
    let peak: Arc<Mutex<usize>> = Arc::default();
    let (again, at_peak) = (queue.clone(), peak.clone());
    run_for(&queue, 4, Duration::from_secs(60), move |key| {
        let (running, peak, again) = (running.clone(), at_peak.clone(), again.clone());
        async move {
            assert!(running.lock().insert(key), "{key} in two workers");
            if key < 5 {
                again.add(key + 100);
                again.add(key);
            }
            {
                let mut peak = peak.lock();
                *peak = (*peak).max(running.lock().len());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.lock().remove(&key);
            Ok::<_, Infallible>(Outcome::Settled)
        }
    })
    .await;
    assert_eq!(*peak.lock(), 4);
}

#[tokio::test(start_paused = true)]
async fn errors_panics_and_retries_come_back() {
    let queue = queue();
    (0..3).for_each(|key| queue.add(key));
    let tries: Arc<Mutex<Vec<u32>>> = Arc::default();
    let log = tries.clone();
    run_for(&queue, 2, Duration::from_secs(60), move |key| {
        let tries = log.clone();
        async move {
            tries.lock().push(key);
            let count = tries.lock().iter().filter(|tried| **tried == key).count();
            match (key, count) {
                (_, 4) => Ok(Outcome::Settled),
                (0, _) => Err("broken"),
                (1, _) => panic!("broken worse"),
                _ => Ok(Outcome::Retry),
            }
        }
    })
    .await;
    for key in 0..3 {
        assert_eq!(
            tries.lock().iter().filter(|tried| **tried == key).count(),
            4,
            "key {key}"
        );
    }
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_brings_a_key_back_on_time() {
    let queue = queue();
    queue.add(1);
    let start = Instant::now();
    let times: Arc<Mutex<Vec<u64>>> = Arc::default();
    let log = times.clone();
    run_for(&queue, 1, Duration::from_secs(25), move |_| {
        log.lock().push(start.elapsed().as_secs());
        async { Ok::<_, Infallible>(Outcome::After(Duration::from_secs(10))) }
    })
    .await;
    assert_eq!(*times.lock(), [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_running_and_takes_no_more() {
    let queue = queue();
    (0..3).for_each(|key| queue.add(key));
    let done: Arc<Mutex<Vec<u32>>> = Arc::default();
    let log = done.clone();
    run_for(&queue, 1, Duration::from_secs(1), move |key| {
        let done = log.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            done.lock().push(key);
            Ok::<_, Infallible>(Outcome::Settled)
        }
    })
    .await;
    assert_eq!(*done.lock(), [0]);
}
