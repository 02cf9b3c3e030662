//! Runs reconcilers over a queue, a bounded number at a time.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::queue::Queue;

/// What a reconcile without error wants for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until something changes.
    Settled,
    /// Another look after this time.
    After(Duration),
    /// Another look after the key's backoff, as after a failure, but without a log line.
    Retry,
}

/// Calls `reconcile` for each key of `queue`, up to `workers` at once and never twice at once for the same key.
///
/// An error is logged (at warn when it differs from the key's last one, else at debug) and the key retried after its
/// backoff; so does a panic. When `stop` is cancelled no further key is taken; returns when the running ones are done.
pub async fn run_workers<K, E, F, Fut>(queue: Queue<K>, workers: usize, stop: CancellationToken, reconcile: F)
where
    K: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    E: Display,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(workers.max(1)));
    loop {
        // Dropping either future loses nothing: a slot is given back, a key is only taken when returned.
        let next = async {
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (slot, queue.next().await)
        };
        let (slot, key) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            next = next => next,
        };
        let reconciling = AssertUnwindSafe(reconcile(key.clone())).catch_unwind();
        let queue = queue.clone();
        tasks.spawn(async move {
            settle(&queue, &key, reconciling.await);
            drop(slot);
        });
    }
    tasks.close();
    tasks.wait().await;
}

fn settle<K, E>(queue: &Queue<K>, key: &K, result: std::thread::Result<Result<Outcome, E>>)
where
    K: Clone + Eq + Hash + Debug,
    E: Display,
{
    match result {
        Ok(Ok(Outcome::Settled)) => queue.finish(key, None),
        Ok(Ok(Outcome::After(delay))) => queue.finish(key, Some(delay)),
        Ok(Ok(Outcome::Retry)) => {
            queue.fail(key, "");
        }
        Ok(Err(error)) => {
            let error = error.to_string();
            let (failures, is_new) = queue.fail(key, &error);
            if is_new {
                tracing::warn!(?key, error, failures, "Reconcile failed, will retry");
            } else {
                tracing::debug!(?key, error, failures, "Reconcile failed again");
            }
        }
        Err(panic) => {
            let (failures, _) = queue.fail(key, "panic");
            let text = panic_text(panic.as_ref());
            tracing::error!(?key, panic = text, failures, "Reconcile panicked, will retry");
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests;
