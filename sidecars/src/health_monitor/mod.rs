//! `csi-external-health-monitor-controller`: asks the driver how its volumes are, and tells users of those that aren't well,
//! as events on their claims; where asked for, also of nodes that fail under volumes in use.
//!
//! `condition` and `node` decide what is told, `shell` asks and tells. What was told is known in memory; at the start the
//! events that are still there say what an earlier process had told.

mod condition;
mod node;
mod nodes;
mod shell;

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use moorline_runtime::{Informers, Recorder};
use tokio_util::sync::CancellationToken;

use crate::connection::DriverConnection;
use crate::discovery::{ControllerCapability, DriverFacts};
use crate::driver::{Driver, supervise};
use crate::{DiscoveryError, SidecarError};
use nodes::Nodes;
use shell::Volumes;

/// Settings of one monitor. Names and defaults are those of upstream's flags.
#[derive(Clone, Debug)]
pub struct HealthMonitorConfig {
    /// The driver's socket, a path or `unix://` URL.
    pub csi_address: String,
    /// Deadline of each call to the driver; where the driver lists volumes, of one whole list.
    pub timeout: Duration,
    /// Between two lists, where the driver lists volumes.
    pub list_volumes_interval: Duration,
    /// Between the beginnings of two rounds over all volumes, where the driver is asked for each.
    pub monitor_interval: Duration,
    /// Volumes asked for at once.
    pub worker_threads: usize,
    /// Nodes that fail are told, too.
    pub watches_nodes: bool,
    /// How long a node is not ready before it counts as failed.
    pub node_patience: Duration,
}

impl HealthMonitorConfig {
    /// Upstream's defaults, for a driver at that address.
    pub fn new(csi_address: impl Into<String>) -> Self {
        Self {
            csi_address: csi_address.into(),
            timeout: Duration::from_secs(15),
            list_volumes_interval: Duration::from_secs(300),
            monitor_interval: Duration::from_secs(60),
            worker_threads: 10,
            watches_nodes: false,
            node_patience: Duration::from_secs(300),
        }
    }
}

/// Runs the monitor for one driver until `stop`, with a connection of its own. A driver that knows nothing of its volumes'
/// condition is left alone.
///
/// # Errors
/// Final: the driver's address is wrong, or it refuses discovery.
pub async fn run(
    config: HealthMonitorConfig,
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
    config: HealthMonitorConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    supervise(connection, config.timeout, &stop, |driver, stop| {
        serve(config.clone(), driver, informers.clone(), stop)
    })
    .await
}

/// Whether there is anything to ask the driver.
fn can_ask(facts: &DriverFacts) -> bool {
    let can_look = facts.can(ControllerCapability::ListVolumes) || facts.can(ControllerCapability::GetVolume);
    can_look && facts.can(ControllerCapability::VolumeCondition)
}

/// Runs the monitor for a discovered driver until `stop`.
pub(crate) async fn serve(
    config: HealthMonitorConfig,
    driver: Driver,
    informers: Informers,
    stop: CancellationToken,
) {
    if !can_ask(&driver.facts) {
        tracing::info!("The driver doesn't say how its volumes are: nothing to monitor");
        stop.cancelled().await;
        return;
    }
    let component = format!("csi-pv-monitor-controller-{}", driver.facts.driver_name);
    let recorder = Recorder::new(informers.client().clone(), &component, "", stop.clone());
    let pvs = informers.cache::<PersistentVolume>();
    let claims = informers.cache::<PersistentVolumeClaim>();
    let synced = async { tokio::join!(pvs.synced(), claims.synced()) };
    if stop.run_until_cancelled(synced).await.is_none() {
        return;
    }
    let on_nodes = async {
        if config.watches_nodes {
            let nodes = Nodes::new(&config, &driver, &informers, &recorder);
            nodes.run(stop.clone()).await;
        }
    };
    let volumes = Volumes::new(config.clone(), driver.clone(), &informers, recorder.clone());
    futures::future::join(volumes.run(&stop), on_nodes).await;
    recorder.stopped().await;
}
