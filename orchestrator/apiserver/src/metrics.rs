//! The server's metrics, under upstream's names where upstream has them.

use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cache::Caches;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    method: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

const DURATION_BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0,
];

/// All metrics of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    answers: Family<AnswerLabels, Counter>,
    durations: Histogram,
    watches: Family<ResourceLabels, Gauge>,
    objects: Family<ResourceLabels, Gauge>,
}

/// Counts a running watch until it is dropped.
#[derive(Debug)]
pub(crate) struct WatchGuard(Gauge);

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Metrics {
            registry: Mutex::default(),
            answers: Family::default(),
            durations: Histogram::new(DURATION_BOUNDS),
            watches: Family::default(),
            objects: Family::default(),
        };
        let mut registry = metrics.registry.lock();
        registry.register("apiserver_request", "Answered requests", metrics.answers.clone());
        let help = "Time from a request to the head of its answer in seconds";
        registry.register(
            "apiserver_request_duration_seconds",
            help,
            metrics.durations.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Running watches",
            metrics.watches.clone(),
        );
        registry.register(
            "apiserver_storage_objects",
            "Stored objects",
            metrics.objects.clone(),
        );
        drop(registry);
        metrics
    }

    pub(crate) fn answered(&self, method: &Method, code: StatusCode, duration: Duration) {
        // Methods are chosen by the client; only known ones become labels.
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        let method = if known.contains(&method.as_str()) {
            method.as_str()
        } else {
            "other"
        };
        let labels = AnswerLabels {
            method: method.to_owned(),
            code: code.as_u16(),
        };
        self.answers.get_or_create(&labels).inc();
        self.durations.observe(duration.as_secs_f64());
    }

    pub(crate) fn watch_started(&self, resource: &str) -> WatchGuard {
        let gauge = self.watches.get_or_create_owned(&ResourceLabels {
            resource: resource.to_owned(),
        });
        gauge.inc();
        WatchGuard(gauge)
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, caches: &Caches) -> String {
        for collection in caches.all() {
            let facts = collection.resource;
            let resource = if facts.custom {
                format!("{}.{}", facts.plural, facts.group)
            } else {
                facts.plural.to_owned()
            };
            let labels = ResourceLabels { resource };
            self.objects
                .get_or_create(&labels)
                .set(i64::try_from(collection.len()).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing to memory cannot fail.
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()).ok();
        text
    }
}
