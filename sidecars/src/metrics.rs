//! What a sidecar process tells about its work, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use moorline_runtime::{QueueMetrics, metrics::Metrics};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Of calls to the driver, as upstream.
const CALL_BOUNDS_SECONDS: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0,
];
/// Of whole attempts. Upstream's end at ten seconds, which slow backends exceed every time.
const ATTEMPT_BOUNDS_SECONDS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
];
/// Until discovery has found out.
const UNKNOWN_DRIVER: &str = "unknown-driver";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    driver_name: String,
    method_name: String,
    grpc_status_code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProvisionLabels {
    class: String,
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeleteLabels {
    class: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of a process. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct SidecarMetrics {
    driver_name: Arc<RwLock<String>>,
    calls: Histograms<CallLabels>,
    /// Those of the work queues.
    pub queues: QueueMetrics,
    provisioned: Attempts<ProvisionLabels>,
    deleted: Attempts<DeleteLabels>,
}

/// Attempts at one kind of work.
#[derive(Clone, Debug)]
struct Attempts<L> {
    done: Family<L, Counter>,
    failed: Family<L, Counter>,
    took: Histograms<L>,
}

impl<L: Clone + Eq + std::hash::Hash + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static> Attempts<L> {
    fn register(metrics: &Metrics, name: &str, what: &str) -> Self {
        Self {
            done: metrics.register(name, &format!("{what} that succeeded"), Family::default()),
            failed: metrics.register(
                &format!("{name}_failed"),
                &format!("{what} that failed"),
                Family::default(),
            ),
            took: metrics.register(
                &format!("{name}_duration_seconds"),
                &format!("Duration of {what} that succeeded"),
                Family::new_with_constructor(|| Histogram::new(ATTEMPT_BOUNDS_SECONDS)),
            ),
        }
    }

    fn ended(&self, labels: &L, has_succeeded: bool, took: Duration) {
        if has_succeeded {
            self.done.get_or_create(labels).inc();
            self.took.get_or_create(labels).observe(took.as_secs_f64());
        } else {
            self.failed.get_or_create(labels).inc();
        }
    }
}

impl SidecarMetrics {
    /// Registers them; once for each process.
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            driver_name: Arc::new(RwLock::new(UNKNOWN_DRIVER.to_owned())),
            calls: metrics.register(
                "csi_sidecar_operations_seconds",
                "Duration of calls to the driver, by method and status",
                Family::new_with_constructor(|| Histogram::new(CALL_BOUNDS_SECONDS)),
            ),
            queues: QueueMetrics::register(metrics),
            provisioned: Attempts::register(
                metrics,
                "controller_persistentvolumeclaim_provision",
                "Attempts to provision a volume",
            ),
            deleted: Attempts::register(
                metrics,
                "controller_persistentvolume_delete",
                "Attempts to delete a volume",
            ),
        }
    }

    /// Discovery knows the driver's name now.
    pub(crate) fn set_driver_name(&self, name: &str) {
        *self.driver_name.write() = name.to_owned();
    }

    pub(crate) fn called(&self, method: &str, code: &str, took: Duration) {
        let labels = CallLabels {
            driver_name: self.driver_name.read().clone(),
            method_name: method.to_owned(),
            grpc_status_code: code.to_owned(),
        };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn provisioned(&self, (class, source): (&str, &str), has_succeeded: bool, took: Duration) {
        let labels = ProvisionLabels {
            class: class.to_owned(),
            source: source.to_owned(),
        };
        self.provisioned.ended(&labels, has_succeeded, took);
    }

    pub(crate) fn deleted(&self, class: &str, has_succeeded: bool, took: Duration) {
        let labels = DeleteLabels {
            class: class.to_owned(),
        };
        self.deleted.ended(&labels, has_succeeded, took);
    }
}

impl Default for SidecarMetrics {
    /// Metrics that nobody scrapes.
    fn default() -> Self {
        Self::register(&Metrics::new())
    }
}
