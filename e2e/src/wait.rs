//! Waiting for a condition, with a deadline and a message of what was last seen. Tests never sleep for luck.

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

/// How often a condition that can't wake us is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until `look` gives `Ok`, and panics with its last answer after `limit`.
pub fn until<T, E: Debug>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("waited {limit:?} for {what}; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// The same for a look that is asynchronous.
pub async fn until_async<T, E: Debug, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("waited {limit:?} for {what}; last seen: {seen:?}")
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
