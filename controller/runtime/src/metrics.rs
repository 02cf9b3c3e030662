//! The process's metrics: one registry that parts add to, encoded for Prometheus.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// The media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry shared by the parts of a process. Cheap to clone; passed to constructors, never global.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers `metric` under `name` (without `_total`, which counters get when encoded) and returns it for use.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.registry.lock().register(name, help, metric.clone());
        metric
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// A metric's own encoding failed: a bug in that metric.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn registered_metrics_are_encoded_with_their_values() {
        let metrics = Metrics::new();
        let counter: Counter = metrics.register("moorline_test_things", "Things counted", Counter::default());
        counter.inc();
        let text = metrics.encode().expect("encodes");
        assert!(text.contains("moorline_test_things_total 1\n"), "{text}");
        assert!(
            text.contains("# HELP moorline_test_things Things counted"),
            "{text}"
        );
    }
}
