//! What queues tell about themselves, under the names that all Kubernetes controllers use.

use std::collections::HashMap;
use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Powers of ten from ten nanoseconds on, as upstream.
const BOUNDS_SECONDS: [f64; 10] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    name: String,
}

type Histograms = Family<QueueLabel, Histogram, fn() -> Histogram>;

/// The metrics of all queues of a process. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    depth: Family<QueueLabel, Gauge>,
    adds: Family<QueueLabel, Counter>,
    retries: Family<QueueLabel, Counter>,
    queued: Histograms,
    worked: Histograms,
}

impl QueueMetrics {
    /// Registers them; once for each process.
    pub fn register(metrics: &Metrics) -> Self {
        let histograms = || Histograms::new_with_constructor(|| Histogram::new(BOUNDS_SECONDS));
        Self {
            depth: metrics.register(
                "workqueue_depth",
                "Keys that are ready to be worked on",
                Family::default(),
            ),
            adds: metrics.register("workqueue_adds", "Keys that became ready", Family::default()),
            retries: metrics.register(
                "workqueue_retries",
                "Keys that failed and come back",
                Family::default(),
            ),
            queued: metrics.register(
                "workqueue_queue_duration_seconds",
                "From ready to the start of the work",
                histograms(),
            ),
            worked: metrics.register(
                "workqueue_work_duration_seconds",
                "From the start of the work to its end",
                histograms(),
            ),
        }
    }

    pub(crate) fn of<K>(&self, name: &str) -> Observed<K> {
        let label = QueueLabel {
            name: name.to_owned(),
        };
        Observed {
            depth: self.depth.get_or_create(&label).clone(),
            adds: self.adds.get_or_create(&label).clone(),
            retries: self.retries.get_or_create(&label).clone(),
            queued: self.queued.get_or_create(&label).clone(),
            worked: self.worked.get_or_create(&label).clone(),
            ready_since: HashMap::new(),
            running_since: HashMap::new(),
        }
    }
}

/// One queue's own, and the moments that its durations begin at.
pub(crate) struct Observed<K> {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    queued: Histogram,
    worked: Histogram,
    ready_since: HashMap<K, Instant>,
    running_since: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Observed<K> {
    pub(crate) fn became_ready(&mut self, key: &K) {
        self.adds.inc();
        self.depth.inc();
        self.ready_since.insert(key.clone(), Instant::now());
    }

    pub(crate) fn was_taken(&mut self, key: &K) {
        self.depth.dec();
        let now = Instant::now();
        if let Some(since) = self.ready_since.remove(key) {
            self.queued.observe(now.duration_since(since).as_secs_f64());
        }
        self.running_since.insert(key.clone(), now);
    }

    pub(crate) fn ended(&mut self, key: &K) {
        if let Some(since) = self.running_since.remove(key) {
            self.worked.observe(since.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn failed(&self) {
        self.retries.inc();
    }
}

impl<K> Drop for Observed<K> {
    /// The queue is gone, and what was ready in it is nobody's any more.
    fn drop(&mut self) {
        let ready = i64::try_from(self.ready_since.len()).unwrap_or(i64::MAX);
        self.depth.dec_by(ready);
    }
}
