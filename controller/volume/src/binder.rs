//! Binds claims to PVs and keeps the phases of both.
//!
//! [`claim_sync`] and [`volume_sync`] decide, [`step`] says what a single write contains, [`why`] what users are told.
//! `shell` gathers and writes; `watch` turns changes into keys to look at. Claims are worked on by many workers:
//! each key is in one hand only, a free PV is given to one claim at a time (`matching`), and every write holds only
//! for the version it was decided on, so a second instance costs conflicts but no correctness.

pub mod claim_sync;
mod matching;
mod shell;
pub mod step;
mod unmatched;
pub mod volume_sync;
mod watch;
pub mod why;

#[cfg(test)]
mod histories;

pub(crate) use watch::pods_by_claim;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use moorline_runtime::{Backoff, Informers, Queue, Recorder, run_workers};
use tokio_util::sync::CancellationToken;

/// Upstream's name for this controller, in events and field managers.
pub(crate) const COMPONENT: &str = "persistentvolume-controller";

/// Settings of the binder.
#[derive(Clone, Debug)]
pub struct Config {
    /// Claims, and separately PVs, worked on at once. Most of their time is waiting for the API server.
    pub workers: usize,
    /// A claim that waits is looked at again after this time, whatever happens.
    pub resync_interval: Duration,
    /// Waiting as planned (for a pod, for a provisioner) is told as an event only when it lasts this long.
    pub patience: Duration,
    /// Whether provisioners are asked for volumes.
    pub is_provisioning_on: bool,
    /// Delay before a failed claim or PV is looked at again.
    pub backoff: Backoff,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 32,
            resync_interval: Duration::from_secs(15),
            patience: Duration::from_millis(500),
            is_provisioning_on: true,
            backoff: Backoff {
                min: Duration::from_millis(50),
                max: Duration::from_secs(122),
            },
        }
    }
}

/// Runs the binder until `stop`; writes under way are finished.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) {
    let claims = informers.cache::<PersistentVolumeClaim>();
    let pvs = informers.cache::<PersistentVolume>();
    let classes = informers.cache::<StorageClass>();
    let pods = informers.cache::<Pod>();
    let all_synced = async {
        tokio::join!(claims.synced(), pvs.synced(), classes.synced(), pods.synced());
    };
    // Nothing is half done yet, so dropping the wait loses nothing.
    if stop.run_until_cancelled(all_synced).await.is_none() {
        return;
    }
    let recorder = Recorder::new(informers.client().clone(), COMPONENT, "", stop.clone());
    let binder = Arc::new(shell::Binder {
        client: informers.client().clone(),
        pods: watch::pods_by_claim(&pods),
        claims_by_pv: watch::claims_by_pv(&claims),
        claims,
        pvs,
        classes,
        matching: matching::Matching::default(),
        unmatched: Arc::default(),
        claim_queue: Queue::new(config.backoff),
        pv_queue: Queue::new(config.backoff),
        recorder,
        told: crate::told::Told::default(),
        config: config.clone(),
    });
    watch::start(&binder);
    tracing::debug!("Binder starts");
    let by_claim = binder.clone();
    let by_pv = binder.clone();
    let claim_workers = run_workers(
        binder.claim_queue.clone(),
        config.workers,
        stop.clone(),
        move |key| {
            let binder = by_claim.clone();
            async move { binder.sync_claim(&key).await }
        },
    );
    let pv_workers = run_workers(binder.pv_queue.clone(), config.workers, stop, move |name| {
        let binder = by_pv.clone();
        async move { binder.sync_pv(&name).await }
    });
    tokio::join!(claim_workers, pv_workers);
    binder.recorder.flush().await;
}

#[cfg(test)]
mod tests;
