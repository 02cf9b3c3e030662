//! Attaches volumes to the nodes whose pods want them, and detaches them when nobody does.
//!
//! What is wanted follows from pods, claims and PVs ([`demand`]); what is follows from VolumeAttachments and node
//! status. Nothing but timers is remembered, so a restart changes nothing. [`attachment`] decides about one volume on
//! one node; [`node_report`] makes the list in the node's status. One worker looks at a PV with all its nodes, so
//! that a volume for one node only is never asked for twice at once; another brings node status up to date.

pub mod attachment;
pub mod demand;
pub mod explain;
#[cfg(test)]
mod histories;
pub mod node_report;
mod observation;
mod shell;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use moorline_runtime::{Backoff, Informers, Queue, Recorder, run_workers};
use tokio_util::sync::CancellationToken;

/// Upstream's name for this controller in events.
const COMPONENT: &str = "attachdetach-controller";

/// Settings of the attach/detach controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// PVs worked on at once.
    pub workers: usize,
    /// Nodes whose status is worked on at once.
    pub node_workers: usize,
    /// How long an unhealthy node's word that it uses a volume counts after nobody wants the volume there; `None`:
    /// for ever (`--disable-force-detach-on-timeout`).
    pub force_detach_after: Option<Duration>,
    /// How long the attacher may take before users are told that it is silent.
    pub attach_patience: Duration,
    /// Delay before a PV or node whose write failed is looked at again.
    pub backoff: Backoff,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 16,
            node_workers: 8,
            force_detach_after: Some(Duration::from_secs(360)),
            attach_patience: Duration::from_secs(120),
            backoff: Backoff {
                min: Duration::from_millis(100),
                max: Duration::from_secs(122),
            },
        }
    }
}

/// Runs the controller until `stop`; writes under way are finished.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) {
    let pods = informers.cache::<Pod>();
    let claims = informers.cache::<PersistentVolumeClaim>();
    let pvs = informers.cache::<PersistentVolume>();
    let nodes = informers.cache::<Node>();
    let attachments = informers.cache::<VolumeAttachment>();
    let drivers = informers.cache::<CSIDriver>();
    let all_synced = async {
        tokio::join!(pods.synced(), claims.synced(), pvs.synced());
        tokio::join!(nodes.synced(), attachments.synced(), drivers.synced());
    };
    // Acting on half of the picture would detach what is wanted.
    if stop.run_until_cancelled(all_synced).await.is_none() {
        return;
    }
    let recorder = Recorder::new(informers.client().clone(), COMPONENT, "", stop.clone());
    let controller = Arc::new(shell::AttachDetach {
        client: informers.client().clone(),
        pods_by_claim: crate::binder::pods_by_claim(&pods),
        pods_by_node: watch::pods_by_node(&pods),
        pvs_by_driver: watch::pvs_by_driver(&pvs),
        attachments_by_pv: watch::attachments_by_pv(&attachments),
        attachments_by_node: watch::attachments_by_node(&attachments),
        claims,
        pvs,
        nodes,
        attachments,
        drivers,
        pv_queue: Queue::new(config.backoff),
        node_queue: Queue::new(config.backoff),
        unwanted_since: parking_lot::Mutex::default(),
        told: crate::told::Told::default(),
        recorder,
        config: config.clone(),
    });
    watch::start(&controller, &pods);
    let by_pv = controller.clone();
    let by_node = controller.clone();
    let pv_workers = run_workers(
        controller.pv_queue.clone(),
        config.workers,
        stop.clone(),
        move |name| {
            let controller = by_pv.clone();
            async move { controller.sync_pv(&name).await }
        },
    );
    let node_workers = run_workers(
        controller.node_queue.clone(),
        config.node_workers,
        stop,
        move |name| {
            let controller = by_node.clone();
            async move { controller.sync_node(&name).await }
        },
    );
    tokio::join!(pv_workers, node_workers);
    controller.recorder.flush().await;
}

#[cfg(test)]
mod tests;
