//! A token bucket for requests: so many at once, so many per second after that. What `--kube-api-qps` and
//! `--kube-api-burst` mean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The bucket. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Throttle {
    per_second: f64,
    burst: f64,
    level: Arc<Mutex<Level>>,
}

/// Tokens at a moment. Below zero: so many requests are waiting for theirs.
struct Level {
    tokens: f64,
    at: Instant,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("per_second", &self.per_second)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

impl Throttle {
    /// A full bucket. `None` when `per_second` isn't positive: then nothing is held up.
    pub fn new(per_second: f64, burst: usize) -> Option<Self> {
        let burst = f64::from(u32::try_from(burst.max(1)).unwrap_or(u32::MAX));
        let is_limit = per_second.is_finite() && per_second > 0.0;
        is_limit.then(|| Self {
            per_second,
            burst,
            level: Arc::new(Mutex::new(Level {
                tokens: burst,
                at: Instant::now(),
            })),
        })
    }

    /// Takes a token, and waits until it is there. Tokens are given in the order of asking. A wait that is dropped has
    /// used its token up.
    pub async fn take(&self) {
        let wait = self.reserve();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a token that may only be there later, and says how much later.
    fn reserve(&self) -> Duration {
        let now = Instant::now();
        let mut level = self.level.lock();
        let gained = now.duration_since(level.at).as_secs_f64() * self.per_second;
        level.tokens = (level.tokens + gained).min(self.burst) - 1.0;
        level.at = now;
        Duration::try_from_secs_f64(-level.tokens / self.per_second).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_through_and_the_rest_in_its_time() {
        let throttle = Throttle::new(5.0, 10).unwrap();
        let started = Instant::now();
        for number in 1..=15_u32 {
            throttle.take().await;
            let expected = f64::from(number.saturating_sub(10)) / 5.0;
            let took = started.elapsed().as_secs_f64();
            assert!((took - expected).abs() < 0.01, "request {number} after {took}");
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let started = Instant::now();
        futures::future::join_all((0..10).map(|_| throttle.take())).await;
        assert!(
            started.elapsed() < Duration::from_millis(10),
            "the bucket is full again"
        );
    }

    #[test]
    fn no_rate_is_no_limit() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Throttle::new(rate, 10).is_none(), "{rate}");
        }
    }
}
