//! Following a copy that takes long: it is logged, counted, and broken off when the driver stops.

use std::{ops::ControlFlow, time::Duration};

use prometheus_client::{
    metrics::counter::Counter,
    registry::{Registry, Unit},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the log tells how far a copy is.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes that all copies have moved since the start: the metric `moorline_driver_copy_bytes_total`. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopiedBytes(Counter);

impl CopiedBytes {
    /// Adds the metric to a registry.
    pub(crate) fn register(registry: &mut Registry, driver_name: &str) -> Self {
        let copied = CopiedBytes::default();
        let driver = ("driver_name".into(), driver_name.to_owned().into());
        registry.sub_registry_with_label(driver).register_with_unit(
            "moorline_driver_copy",
            "Bytes copied for snapshots and clones that could not share them",
            Unit::Bytes,
            copied.0.clone(),
        );
        copied
    }
}

/// One copy under way.
#[derive(Debug)]
pub(crate) struct Copying {
    stop: CancellationToken,
    total: CopiedBytes,
    started: Instant,
    logged: Instant,
    /// Not beyond this moment, if writes are frozen meanwhile.
    deadline: Option<Instant>,
    copied_bytes: u64,
}

impl Copying {
    pub(crate) fn new(stop: CancellationToken, total: CopiedBytes) -> Self {
        let now = Instant::now();
        Copying {
            stop,
            total,
            started: now,
            logged: now,
            deadline: None,
            copied_bytes: 0,
        }
    }

    /// Breaks the copy off after `duration`.
    pub(crate) fn not_longer_than(&mut self, duration: Duration) {
        self.deadline = Some(Instant::now() + duration);
    }

    /// Has the time run out that [`Copying::not_longer_than`] gave?
    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    /// Is the driver stopping?
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// A new copy begins, as part of the same operation.
    pub(crate) fn begin_another(&mut self) {
        self.copied_bytes = 0;
    }

    /// Takes note of `copied_bytes` in all, of `total_bytes` if that is known; says whether to go on.
    pub(crate) fn note(&mut self, copied_bytes: u64, total_bytes: Option<u64>) -> ControlFlow<()> {
        let more = copied_bytes.saturating_sub(self.copied_bytes);
        self.copied_bytes = copied_bytes;
        self.total.0.inc_by(more);
        if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            tracing::info!(copied_bytes, total_bytes, duration = ?self.started.elapsed(), "Still copying");
        }
        if self.stop.is_cancelled() || self.is_overdue() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_counted_and_ends_with_the_driver_or_its_time() {
        let (stop, total) = (CancellationToken::new(), CopiedBytes::default());
        let mut copying = Copying::new(stop.clone(), total.clone());
        assert!(copying.note(10, Some(100)).is_continue());
        assert!(copying.note(30, None).is_continue());
        assert_eq!(total.0.get(), 30);
        let mut other = Copying::new(stop.clone(), total.clone());
        other.not_longer_than(Duration::ZERO);
        while !other.is_overdue() {
            std::hint::spin_loop();
        }
        assert!(other.note(5, None).is_break());
        assert_eq!(total.0.get(), 35);
        stop.cancel();
        assert!(copying.note(31, None).is_break());
    }
}
