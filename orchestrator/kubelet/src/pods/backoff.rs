//! How long a crashed container or a failed image waits before the next try. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// First and longest wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub min: Duration,
    pub max: Duration,
}

/// The wait in force since an event, such as the end of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartBackoff {
    pub delay: Duration,
    pub since: Timestamp,
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX))
        .unwrap_or(Timestamp::MAX)
}

impl RestartBackoff {
    /// When a container that ended at `finished_at` may start again; `None` when now.
    pub(crate) fn until(held: Option<Self>, finished_at: Timestamp, limits: Limits) -> Option<Timestamp> {
        let held = held.filter(|held| !held.is_expired(finished_at, limits))?;
        Some(later(finished_at, held.delay))
    }

    /// The state after another try because of an end at `finished_at`.
    pub(crate) fn next(held: Option<Self>, finished_at: Timestamp, limits: Limits) -> Self {
        let delay = match held {
            Some(held) if !held.is_expired(finished_at, limits) => (held.delay * 2).min(limits.max),
            Some(_) | None => limits.min,
        };
        Self {
            delay,
            since: finished_at,
        }
    }

    /// What ran twice the longest wait is taken for healthy.
    fn is_expired(self, at: Timestamp, limits: Limits) -> bool {
        at > later(self.since, limits.max * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_start_anew_after_a_good_run() {
        let limits = Limits {
            min: Duration::from_secs(10),
            max: Duration::from_secs(300),
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(
            RestartBackoff::until(None, at(0), limits),
            None,
            "the first restart is immediate"
        );
        let mut held = None;
        let mut delays = Vec::new();
        for crash in 0..7 {
            let next = RestartBackoff::next(held, at(crash * 60), limits);
            delays.push(next.delay.as_secs());
            held = Some(next);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(RestartBackoff::until(held, at(400), limits), Some(at(700)));
        assert_eq!(
            RestartBackoff::until(held, at(360 + 601), limits),
            None,
            "ran ten minutes"
        );
        assert_eq!(
            RestartBackoff::next(held, at(360 + 601), limits).delay,
            limits.min
        );
    }
}
