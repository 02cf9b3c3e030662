//! The reconcile kit: informers, queue, workers, leader election, events, metrics, health.
//!
//! Thin over kube-runtime: what its `watcher` does is not written again. This crate adds what the controllers of the
//! workspace share. Start reading at [`Informers`] (what is known of the cluster), go on to [`Queue`] and
//! [`run_workers`] (what shall be looked at), then [`Recorder`] (what users are told).

#![forbid(unsafe_code)]

mod backoff;
mod cache;
mod content;
pub mod goflag;
pub mod health;
mod index;
mod informers;
pub mod lease;
pub mod metrics;
mod queue;
mod queue_metrics;
mod recorder;
mod served;
mod throttle;
mod workers;

pub use backoff::Backoff;
pub use cache::{Cache, Change};
pub use index::Index;
pub use informers::{Informers, Watchable};
pub use lease::LeaderElection;
pub use queue::Queue;
pub use queue_metrics::QueueMetrics;
pub use recorder::{EventType, Recorder};
pub use served::{are_served, until_served};
pub use throttle::Throttle;
pub use workers::{Outcome, run_workers};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
