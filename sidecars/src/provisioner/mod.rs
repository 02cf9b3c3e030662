//! `csi-provisioner`: turns claims into volumes and PVs, and deletes the volumes of released PVs.
//!
//! [`claim`] decides about claims, [`volume`] about PVs; [`provision`] and [`delete`] do what they decide. Each claim
//! costs one write, that of its PV.

mod capacity;
mod claim;
mod class_parameters;
mod config;
mod delete;
mod memory;
mod outcome;
mod plan;
mod provision;
mod segments;
mod source;
mod topology;
mod volume;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::Client;
use moorline_runtime::{Cache, Change, Index, Informers, Queue, Recorder, run_workers};
use tokio_util::sync::CancellationToken;

pub use config::{CapacityConfig, ProvisionerConfig};
pub(crate) use memory::Memory;

use crate::connection::DriverConnection;
use crate::discovery::ControllerCapability;
use crate::driver::{Driver, supervise};
use crate::{SidecarError, recorder_component};
use capacity::CapacityProducer;
use provision::ClaimKey;
use segments::NodeTopology;

/// Runs the provisioner for one driver until `stop`, with a connection of its own.
///
/// # Errors
/// Final: the driver's address is wrong, or it refuses discovery.
pub async fn run(
    config: ProvisionerConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), SidecarError> {
    let connection = DriverConnection::new(&config.csi_address)?;
    let memory = Arc::new(Memory::default());
    supervise(&connection, config.timeout, &stop, |driver, stop| {
        serve(config.clone(), driver, informers.clone(), memory.clone(), stop)
    })
    .await?;
    Ok(())
}

/// Everything that work on claims and volumes needs.
pub(crate) struct Provisioner {
    driver: Driver,
    config: ProvisionerConfig,
    client: Client,
    /// Marks what this process made, for people who look for traces.
    identity: String,
    claims: Cache<PersistentVolumeClaim>,
    pvs: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    /// By PV name; only if the driver attaches.
    attachments: Option<Index<String, VolumeAttachment>>,
    /// Only if the driver has topology.
    topology: Option<NodeTopology>,
    /// Only if capacity is published.
    capacity: Option<Arc<CapacityProducer>>,
    recorder: Recorder,
    memory: Arc<Memory>,
}

/// Runs the provisioner for a discovered driver until `stop`.
pub(crate) async fn serve(
    config: ProvisionerConfig,
    driver: Driver,
    informers: Informers,
    memory: Arc<Memory>,
    stop: CancellationToken,
) {
    let workers = config.worker_threads;
    let claim_queue = Queue::new(config.retry_interval);
    let volume_queue = Queue::new(config.retry_interval);
    let driver_name = driver.facts.driver_name.clone();
    let component = recorder_component(&driver_name);
    let recorder = Recorder::new(informers.client().clone(), &component, "", stop.clone());
    let attaches = driver.facts.can(ControllerCapability::PublishUnpublishVolume);
    let attachment_cache = attaches.then(|| informers.cache::<VolumeAttachment>());
    let has_topology = driver.facts.has_topology();
    let topology =
        has_topology.then(|| NodeTopology::new(&driver_name, informers.cache(), informers.cache(), &stop));
    let can_tell = driver.facts.can(ControllerCapability::GetCapacity);
    let capacity = config.capacity.clone().filter(|_| can_tell).map(|capacity| {
        Arc::new(CapacityProducer::new(
            driver.clone(),
            (&config, capacity),
            &informers,
            topology.clone(),
        ))
    });
    let provisioner = Provisioner {
        client: informers.client().clone(),
        identity: identity(&driver_name),
        claims: informers.cache(),
        pvs: informers.cache(),
        classes: informers.cache(),
        attachments: attachment_cache
            .as_ref()
            .map(|cache| Index::new(cache, pv_name_of)),
        topology,
        capacity: capacity.clone(),
        recorder: recorder.clone(),
        memory,
        driver,
        config,
    };
    let synced = async {
        provisioner.synced().await;
        if let Some(attachments) = &attachment_cache {
            attachments.synced().await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = synced => {}
    }
    let provisioner = Arc::new(provisioner);
    provisioner.feed(&claim_queue, &volume_queue, attachment_cache.as_ref(), &stop);
    let on_volumes = provisioner.clone();
    let claims = run_workers(claim_queue, workers, stop.clone(), move |key| {
        let provisioner = provisioner.clone();
        async move { provisioner.reconcile_claim(key).await }
    });
    let volumes = run_workers(volume_queue, workers, stop.clone(), move |name| {
        let provisioner = on_volumes.clone();
        async move { provisioner.reconcile_volume(name).await }
    });
    let telling = async {
        if let Some(capacity) = capacity {
            capacity.serve(stop.clone()).await;
        }
    };
    futures::future::join3(claims, volumes, telling).await;
    recorder.stopped().await;
}

impl Provisioner {
    async fn synced(&self) {
        self.claims.synced().await;
        self.pvs.synced().await;
        self.classes.synced().await;
        if let Some(topology) = &self.topology {
            topology.synced().await;
        }
    }

    /// Puts into the queues what changes, now and until `stop`.
    fn feed(
        &self,
        claims: &Queue<ClaimKey>,
        volumes: &Queue<String>,
        attachments: Option<&Cache<VolumeAttachment>>,
        stop: &CancellationToken,
    ) {
        let driver_name = self.driver.facts.driver_name.clone();
        let (queue, name) = (claims.clone(), driver_name.clone());
        self.claims
            .on_change_until(stop.clone(), move |change| match change {
                Change::Added(claim) if provision::is_candidate(claim, &name) => {
                    queue.add(ClaimKey::of(claim))
                }
                Change::Updated { old, new } if provision::is_candidate(new, &name) => {
                    if provision::is_worth_hurry(old, new) {
                        queue.add(ClaimKey::of(new));
                    } else {
                        queue.add_unless_failing(ClaimKey::of(new));
                    }
                }
                Change::Added(_) | Change::Updated { .. } | Change::Removed(_) => {}
            });
        let (queue, name, waiting) = (claims.clone(), driver_name.clone(), self.claims.clone());
        self.classes.on_change_until(stop.clone(), move |change| {
            let Change::Added(class) = change else {
                return;
            };
            let held = waiting.list();
            let ours = held.iter().filter(|claim| provision::is_candidate(claim, &name));
            ours.filter(|claim| provision::waits_for(claim, class))
                .for_each(|claim| queue.add(ClaimKey::of(claim)));
        });
        let (queue, name) = (volumes.clone(), driver_name);
        self.pvs
            .on_change_until(stop.clone(), move |change| match change {
                Change::Added(pv) | Change::Updated { new: pv, .. } if delete::is_candidate(pv, &name) => {
                    queue.add_unless_failing(pv.metadata.name.clone().unwrap_or_default());
                }
                Change::Added(_) | Change::Updated { .. } | Change::Removed(_) => {}
            });
        if let Some(attachments) = attachments {
            let (queue, pvs) = (volumes.clone(), self.pvs.clone());
            attachments.on_change_until(stop.clone(), move |change| {
                let Change::Removed(attachment) = change else {
                    return;
                };
                // Its volume may have been waiting for this.
                let names = pv_name_of(attachment)
                    .into_iter()
                    .filter(|name| pvs.get(None, name).is_some());
                names.for_each(|name| queue.add(name));
            });
        }
    }
}

fn pv_name_of(attachment: &VolumeAttachment) -> Vec<String> {
    attachment
        .spec
        .source
        .persistent_volume_name
        .clone()
        .into_iter()
        .collect()
}

fn identity(driver_name: &str) -> String {
    let millis = jiff::Timestamp::now().as_millisecond();
    format!(
        "{millis}-{}-{driver_name}",
        uuid::Uuid::new_v4().as_u128() % 10_000
    )
}
