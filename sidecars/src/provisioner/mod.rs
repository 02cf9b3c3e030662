//! `csi-provisioner`: turns claims into volumes and PVs, and deletes the volumes of released PVs.
//!
//! `claim` decides about claims, `volume` about PVs; `provision` and `delete` do what they decide. Each claim
//! costs the write of its PV, and its share of a write to the `ledger`, which makes plans outlive the process.

mod bidding;
mod capacity;
mod claim;
mod class_parameters;
mod config;
mod delete;
pub(crate) mod explain;
mod feed;
mod grants;
mod ledger;
mod memory;
mod outcome;
mod plan;
mod provision;
mod segments;
mod source;
mod source_protection;
mod topology;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::Client;
use moorline_proto::csi::NodeGetInfoRequest;
use moorline_runtime::{Cache, Index, Informers, Queue, Recorder, run_workers};
use tokio_util::sync::CancellationToken;

pub use config::{CapacityConfig, ProvisionerConfig};
pub(crate) use memory::Memory;

use crate::connection::{DriverConnection, call};
use crate::discovery::ControllerCapability;
use crate::driver::{Driver, supervise};
use crate::rpc_class::describe;
use crate::{DiscoveryError, SidecarError, recorder_component};
use capacity::CapacityProducer;
use ledger::Ledger;
use provision::ClaimKey;
use segments::{ClusterTopology, NodeTopology};
use source::SourceKey;
use topology::Segment;

/// Between two questions where the driver is.
const NODE_INFO_INTERVAL: Duration = Duration::from_secs(1);

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
    run_on(&connection, config, informers, stop).await?;
    Ok(())
}

/// The same, over a connection that is there; the address in `config` is not used.
///
/// # Errors
/// Final: the driver refuses discovery.
pub async fn run_on(
    connection: &DriverConnection,
    config: ProvisionerConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    let memory = Arc::new(Memory::default());
    Box::pin(supervise(connection, config.timeout, &stop, |driver, stop| {
        serve(config.clone(), driver, informers.clone(), memory.clone(), stop)
    }))
    .await
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
    attachments: Option<(Index<String, VolumeAttachment>, Cache<VolumeAttachment>)>,
    /// Only if the driver has topology.
    topology: Option<NodeTopology>,
    /// One provisioner per node: where the driver says that it is.
    node: Option<Segment>,
    /// Only if capacity is published.
    capacity: Option<Arc<CapacityProducer>>,
    recorder: Recorder,
    memory: Arc<Memory>,
    ledger: Ledger,
    /// Claims by what their volumes are filled from.
    by_source: Index<SourceKey, PersistentVolumeClaim>,
    /// Sources that may not be needed any more.
    sources: Queue<SourceKey>,
}

/// Runs the provisioner for a discovered driver until `stop`.
pub(crate) async fn serve(
    config: ProvisionerConfig,
    mut driver: Driver,
    informers: Informers,
    memory: Arc<Memory>,
    stop: CancellationToken,
) {
    if !config.topology {
        driver.facts.forget_topology();
    }
    let workers = config.worker_threads;
    let queues = &driver.connection.metrics().queues;
    let claim_queue = Queue::new(config.retry_interval).observed(queues, "claims");
    let volume_queue = Queue::new(config.retry_interval).observed(queues, "volumes");
    let mut node = None;
    if config.node_name.is_some() {
        match own_segment(&driver, config.timeout, &stop).await {
            Some(segment) => node = segment,
            None => return,
        }
    }
    let provisioner = Provisioner::new(config, (driver, node), &informers, memory, &stop);
    let provisioner = Arc::new(provisioner);
    tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = provisioner.synced() => {}
    }
    if !provisioner.resume(&claim_queue, &stop).await {
        return;
    }
    provisioner.feed_claims(&claim_queue, &stop);
    provisioner.feed_volumes(&volume_queue, &stop);
    provisioner.feed_sources(&claim_queue, &stop);
    let on_snapshots =
        provisioner
            .clone()
            .follow_snapshots(claim_queue.clone(), informers.clone(), stop.clone());
    let on_sources = provisioner.clone();
    let sources = run_workers(provisioner.sources.clone(), 1, stop.clone(), move |key| {
        let provisioner = on_sources.clone();
        async move { provisioner.reconcile_source(key).await }
    });
    let protecting = futures::future::join(on_snapshots, sources);
    let waking = provisioner
        .clone()
        .wake_on_topology(claim_queue.clone(), stop.clone());
    let on_claims = provisioner.clone();
    let claims = run_workers(claim_queue, workers, stop.clone(), move |key| {
        let provisioner = on_claims.clone();
        async move { provisioner.reconcile_claim(key).await }
    });
    let on_volumes = provisioner.clone();
    let volumes = run_workers(volume_queue, workers, stop.clone(), move |name| {
        let provisioner = on_volumes.clone();
        async move { provisioner.reconcile_volume(name).await }
    });
    let telling = async {
        if let Some(capacity) = provisioner.capacity.clone() {
            capacity.serve(stop.clone()).await;
        }
    };
    let closed = CancellationToken::new();
    let working = async {
        futures::future::join5(claims, volumes, telling, waking, protecting).await;
        // Only now: work that is still running may wait for a write.
        closed.cancel();
    };
    futures::future::join(working, provisioner.ledger.serve(&closed)).await;
    provisioner.recorder.stopped().await;
}

impl Provisioner {
    fn new(
        config: ProvisionerConfig,
        (driver, node): (Driver, Option<Segment>),
        informers: &Informers,
        memory: Arc<Memory>,
        stop: &CancellationToken,
    ) -> Self {
        let client = informers.client().clone();
        let driver_name = driver.facts.driver_name.clone();
        let attaches = driver.facts.can(ControllerCapability::PublishUnpublishVolume);
        let has_topology = driver.facts.has_topology();
        let topology = has_topology.then(|| match &config.node_name {
            Some(node_name) => NodeTopology::fixed(node_name, node.as_ref().unwrap_or(&Segment::new())),
            None => NodeTopology::Cluster(ClusterTopology::new(
                &driver_name,
                informers.cache(),
                informers.cache(),
                stop,
            )),
        });
        let can_tell = driver.facts.can(ControllerCapability::GetCapacity);
        let capacity = config.capacity.clone().filter(|_| can_tell).map(|capacity| {
            let config = (&config, capacity);
            Arc::new(CapacityProducer::new(
                driver.clone(),
                config,
                informers,
                topology.clone(),
            ))
        });
        let ledger = Ledger::new(
            client.clone(),
            config.ledger_namespace.as_deref(),
            &driver_name,
            config.node_name.as_deref(),
        );
        Self {
            ledger,
            recorder: Recorder::new(
                client.clone(),
                &recorder_component(&driver_name),
                "",
                stop.clone(),
            ),
            client,
            identity: identity(&driver_name, config.node_name.as_deref()),
            node,
            sources: Queue::new(config.retry_interval),
            by_source: Index::new_until(&informers.cache(), stop.clone(), |claim| {
                source::key_of(claim).into_iter().collect()
            }),
            claims: informers.cache(),
            pvs: informers.cache(),
            classes: informers.cache(),
            attachments: attaches.then(|| {
                let cache = informers.cache::<VolumeAttachment>();
                (Index::new_until(&cache, stop.clone(), pv_name_of), cache)
            }),
            topology,
            capacity,
            memory,
            driver,
            config,
        }
    }

    /// Takes up what an earlier process left: plans without PV, whose volume may exist. False when stopped.
    async fn resume(&self, claims: &Queue<ClaimKey>, stop: &CancellationToken) -> bool {
        let has_pv = |volume_name: &str| self.pvs.get(None, volume_name).is_some();
        let Some(plans) = self.ledger.load(has_pv, stop).await else {
            return false;
        };
        for plan in plans {
            let key = ClaimKey::referred(&plan.claim);
            tracing::info!(pv.name = plan.volume_name(), claim = ?key, "Asking again for a volume that may exist");
            if self.memory.in_progress(&key.uid).is_none() {
                self.memory.keep(&key.uid, Arc::new(plan));
            }
            claims.add(key);
        }
        true
    }

    async fn synced(&self) {
        self.claims.synced().await;
        self.pvs.synced().await;
        self.classes.synced().await;
        if let Some(topology) = &self.topology {
            topology.synced().await;
        }
        if let Some((_, attachments)) = &self.attachments {
            attachments.synced().await;
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

fn identity(driver_name: &str, node_name: Option<&str>) -> String {
    let millis = jiff::Timestamp::now().as_millisecond();
    let number = uuid::Uuid::new_v4().as_u128() % 10_000;
    let node = node_name.map(|name| format!("-{name}")).unwrap_or_default();
    format!("{millis}-{number}-{driver_name}{node}")
}

/// Where the driver says that it is, asked until it answers; `None` inside for a driver that is anywhere. `None` when
/// stopped.
async fn own_segment(
    driver: &Driver,
    timeout: Duration,
    stop: &CancellationToken,
) -> Option<Option<Segment>> {
    loop {
        let mut node = driver.connection.node();
        let asking = call(timeout, NodeGetInfoRequest {}, |request| {
            node.node_get_info(request)
        });
        match stop.run_until_cancelled(asking).await? {
            Ok(answer) => {
                let topology = answer.accessible_topology;
                return Some(topology.map(|topology| topology.segments.into_iter().collect()));
            }
            Err(status) => {
                tracing::warn!(
                    error = describe(&status),
                    "The driver doesn't say where it is; one provisioner per node needs its node service on the same socket"
                );
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(NODE_INFO_INTERVAL))
            .await?;
    }
}
