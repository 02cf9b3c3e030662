//! The reconcile kit: informers, queue, workers, leader election, events, metrics, health.
