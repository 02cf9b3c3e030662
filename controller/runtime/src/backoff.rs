//! How long to wait before the next try: exponential with full jitter.

use std::time::Duration;

/// Exponential delays between `min` and `max`; the actual delay is drawn evenly from zero to the exponential bound, so
/// that many keys that failed together don't come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first delay.
    pub min: Duration,
    /// Bound that no delay exceeds.
    pub max: Duration,
}

impl Backoff {
    /// The upper bound of the delay after `failures` failures in a row (1 for the first one).
    pub fn bound(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.min.saturating_mul(1 << doublings).min(self.max)
    }

    /// A delay drawn for `failures` failures in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        self.bound(failures).mul_f64(rand::random::<f64>())
    }
}

impl Default for Backoff {
    /// What most upstream controllers use for a key: doubling from a few milliseconds up to minutes; ours starts
    /// higher because jitter makes the first tries shorter anyway.
    fn default() -> Self {
        Self {
            min: Duration::from_millis(100),
            max: Duration::from_secs(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_doubles_up_to_the_ceiling() {
        let backoff = Backoff {
            min: Duration::from_secs(1),
            max: Duration::from_secs(300),
        };
        let bounds: Vec<u64> = [0, 1, 2, 3, 9, 10, 11, 40, u32::MAX]
            .iter()
            .map(|n| backoff.bound(*n).as_secs())
            .collect();
        assert_eq!(bounds, [1, 1, 2, 4, 256, 300, 300, 300, 300]);
    }

    #[test]
    fn delays_stay_below_the_bound_and_differ() {
        let backoff = Backoff {
            min: Duration::from_secs(1),
            max: Duration::from_secs(60),
        };
        let delays: Vec<Duration> = (0..100).map(|_| backoff.delay(4)).collect();
        assert!(delays.iter().all(|d| *d <= Duration::from_secs(8)), "{delays:?}");
        assert!(delays.iter().any(|d| *d != delays[0]), "no jitter: {delays:?}");
    }
}
