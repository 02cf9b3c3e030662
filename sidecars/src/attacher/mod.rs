//! `csi-attacher`: fulfils VolumeAttachment objects. Writes no events: all feedback goes into their status.

mod attachment;
mod explain;
mod shell;

pub(crate) use explain::refusal;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{CSINode, VolumeAttachment};
use kube::Client;
use moorline_runtime::{Backoff, Cache, Change, Index, Informers, Queue, run_workers};
use tokio_util::sync::CancellationToken;

use crate::connection::DriverConnection;
use crate::driver::{Driver, supervise};
use crate::{DiscoveryError, SidecarError};

/// Settings of one attacher. Names and defaults are those of upstream's flags.
#[derive(Clone, Debug)]
pub struct AttacherConfig {
    /// The driver's socket, a path or `unix://` URL.
    pub csi_address: String,
    /// Deadline of each call to the driver.
    pub timeout: Duration,
    /// Attachments worked on at once, and as many PVs.
    pub worker_threads: usize,
    /// Between the tries for one attachment.
    pub retry_interval: Backoff,
    /// Filesystem type where the PV names none.
    pub default_fs_type: String,
}

impl AttacherConfig {
    /// Upstream's defaults, for a driver at that address.
    pub fn new(csi_address: impl Into<String>) -> Self {
        Self {
            csi_address: csi_address.into(),
            timeout: Duration::from_secs(15),
            worker_threads: 10,
            retry_interval: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(300),
            },
            default_fs_type: String::new(),
        }
    }
}

/// Runs the attacher for one driver until `stop`, with a connection of its own.
///
/// # Errors
/// Final: the driver's address is wrong, or it refuses discovery.
pub async fn run(
    config: AttacherConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), SidecarError> {
    let connection = DriverConnection::new(&config.csi_address)?;
    run_on(&connection, config, informers, stop).await?;
    Ok(())
}

/// The same, over a connection that is there; the address in `config` is not used.
///
/// # Errors
/// Final: the driver refuses discovery.
pub async fn run_on(
    connection: &DriverConnection,
    config: AttacherConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    supervise(connection, config.timeout, &stop, |driver, stop| {
        serve(config.clone(), driver, informers.clone(), stop)
    })
    .await
}

/// Everything that work on attachments needs.
pub(crate) struct Attacher {
    driver: Driver,
    config: AttacherConfig,
    client: Client,
    attachments: Cache<VolumeAttachment>,
    by_pv: Index<String, VolumeAttachment>,
    pvs: Cache<PersistentVolume>,
    csi_nodes: Cache<CSINode>,
}

/// Runs the attacher for a discovered driver until `stop`.
pub(crate) async fn serve(
    config: AttacherConfig,
    driver: Driver,
    informers: Informers,
    stop: CancellationToken,
) {
    let workers = config.worker_threads;
    let queues = &driver.connection.metrics().queues;
    let attachment_queue = Queue::new(config.retry_interval).observed(queues, "csi-attacher-va");
    let pv_queue = Queue::new(config.retry_interval).observed(queues, "csi-attacher-pv");
    let attachments = informers.cache::<VolumeAttachment>();
    let attacher = Arc::new(Attacher {
        client: informers.client().clone(),
        by_pv: Index::new_until(&attachments, stop.clone(), |held| {
            pv_name_of(held).into_iter().collect()
        }),
        attachments,
        pvs: informers.cache(),
        csi_nodes: informers.cache(),
        driver,
        config,
    });
    let synced = async {
        attacher.attachments.synced().await;
        attacher.pvs.synced().await;
        attacher.csi_nodes.synced().await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = synced => {}
    }
    attacher.feed(&attachment_queue, &pv_queue, &stop);
    let on_pvs = attacher.clone();
    let attachments = run_workers(attachment_queue, workers, stop.clone(), move |name| {
        let attacher = attacher.clone();
        async move { attacher.reconcile_attachment(name).await }
    });
    let pvs = run_workers(pv_queue, workers, stop.clone(), move |name| {
        let attacher = on_pvs.clone();
        async move { attacher.reconcile_pv(name).await }
    });
    futures::future::join(attachments, pvs).await;
}

impl Attacher {
    /// Puts into the queues what changes, now and until `stop`.
    fn feed(&self, attachments: &Queue<String>, pvs: &Queue<String>, stop: &CancellationToken) {
        let (queue, pv_queue) = (attachments.clone(), pvs.clone());
        let driver_name = self.driver.facts.driver_name.clone();
        self.attachments.on_change_until(stop.clone(), move |change| {
            let name = change.object().metadata.name.clone().unwrap_or_default();
            match change {
                Change::Added(held) if held.spec.attacher == driver_name => queue.add(name),
                Change::Updated { old, new } if new.spec.attacher == driver_name && is_news(old, new) => {
                    queue.add(name);
                }
                // The PV may be waiting for its last attachment to go.
                Change::Removed(held) => pv_name_of(held).into_iter().for_each(|name| pv_queue.add(name)),
                Change::Added(_) | Change::Updated { .. } => {}
            }
        });
        let (queue, waiting) = (attachments.clone(), self.attachments.clone());
        let driver_name = self.driver.facts.driver_name.clone();
        self.csi_nodes.on_change_until(stop.clone(), move |change| {
            // Attachments that failed may have been waiting for the driver to appear on the node.
            let node_name = change.object().metadata.name.as_deref().unwrap_or_default();
            for held in waiting.list() {
                let name = held.metadata.name.clone().unwrap_or_default();
                let is_here = held.spec.attacher == driver_name && held.spec.node_name == node_name;
                if is_here && queue.failures(&name) > 0 {
                    queue.add(name);
                }
            }
        });
        let queue = pvs.clone();
        self.pvs
            .on_change_until(stop.clone(), move |change| match change {
                Change::Added(pv) | Change::Updated { new: pv, .. }
                    if pv.metadata.deletion_timestamp.is_some() =>
                {
                    queue.add_unless_failing(pv.metadata.name.clone().unwrap_or_default());
                }
                Change::Added(_) | Change::Updated { .. } | Change::Removed(_) => {}
            });
    }
}

fn pv_name_of(attachment: &VolumeAttachment) -> Option<String> {
    attachment.spec.source.persistent_volume_name.clone()
}

/// Errors in the status are of our own writing: taking them for news would defeat the backoff.
fn is_news(old: &VolumeAttachment, new: &VolumeAttachment) -> bool {
    let is_attached = |held: &VolumeAttachment| held.status.as_ref().is_some_and(|status| status.attached);
    old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.finalizers != new.metadata.finalizers
        || old.metadata.annotations != new.metadata.annotations
        || is_attached(old) != is_attached(new)
}
