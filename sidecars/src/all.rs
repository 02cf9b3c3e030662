//! All controller sidecars of one driver in one process: one connection, one discovery, one watch per kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join5;
use moorline_runtime::Informers;
use tokio_util::sync::CancellationToken;

use crate::attacher::{self, AttacherConfig};
use crate::connection::DriverConnection;
use crate::driver::{Driver, supervise};
use crate::health_monitor::{self, HealthMonitorConfig};
use crate::provisioner::{self, Memory, ProvisionerConfig};
use crate::resizer::{self, ResizerConfig};
use crate::snapshotter::{self, SnapshotterConfig};
use crate::{DiscoveryError, SidecarError, discovery::PluginService};

/// A controller sidecar that can be one of several in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// [`crate::provisioner`]
    Provisioner,
    /// [`crate::attacher`]
    Attacher,
    /// [`crate::resizer`]
    Resizer,
    /// [`crate::snapshotter`]
    Snapshotter,
    /// [`crate::health_monitor`]
    HealthMonitor,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 5] = [
        Part::Provisioner,
        Part::Attacher,
        Part::Resizer,
        Part::Snapshotter,
        Part::HealthMonitor,
    ];

    /// Those that run where none is named: all that the work on volumes needs.
    pub const DEFAULT: [Part; 4] = [
        Part::Provisioner,
        Part::Attacher,
        Part::Resizer,
        Part::Snapshotter,
    ];

    /// Its name, as `--run` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioner => "provisioner",
            Self::Attacher => "attacher",
            Self::Resizer => "resizer",
            Self::Snapshotter => "snapshotter",
            Self::HealthMonitor => "health-monitor",
        }
    }
}

/// Settings of all of them. The addresses inside the parts are not used: there is one connection.
#[derive(Clone, Debug)]
pub struct AllConfig {
    /// The driver's socket, a path or `unix://` URL.
    pub csi_address: String,
    /// Those that run, as far as the driver can do what they need.
    pub parts: BTreeSet<Part>,
    /// Settings of the provisioner; its timeout also holds for discovery.
    pub provisioner: ProvisionerConfig,
    /// Settings of the attacher.
    pub attacher: AttacherConfig,
    /// Settings of the resizer.
    pub resizer: ResizerConfig,
    /// Settings of the snapshotter.
    pub snapshotter: SnapshotterConfig,
    /// Settings of the health monitor.
    pub health_monitor: HealthMonitorConfig,
}

impl AllConfig {
    /// Upstream's defaults, for a driver at that address.
    pub fn new(csi_address: impl Into<String>) -> Self {
        let csi_address = csi_address.into();
        Self {
            parts: Part::DEFAULT.into(),
            provisioner: ProvisionerConfig::new(&*csi_address),
            attacher: AttacherConfig::new(&*csi_address),
            resizer: ResizerConfig::new(&*csi_address),
            snapshotter: SnapshotterConfig::new(&*csi_address),
            health_monitor: HealthMonitorConfig::new(&*csi_address),
            csi_address,
        }
    }
}

/// Runs what applies to the driver's capabilities until `stop`. A driver that goes away is waited for; one that comes
/// back with other capabilities is served accordingly.
///
/// # Errors
/// Final: the driver's address is wrong, or it refuses discovery.
pub async fn run(
    config: AllConfig,
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
    config: AllConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    let memory = Arc::new(Memory::default());
    let timeout = config.provisioner.timeout;
    supervise(connection, timeout, &stop, |driver, stop| {
        Box::pin(serve(
            config.clone(),
            driver,
            informers.clone(),
            memory.clone(),
            stop,
        ))
    })
    .await
}

async fn serve(
    config: AllConfig,
    driver: Driver,
    informers: Informers,
    memory: Arc<Memory>,
    stop: CancellationToken,
) {
    let has_controller = driver.facts.has_service(PluginService::ControllerService);
    let provisioning = async {
        if has_controller && config.parts.contains(&Part::Provisioner) {
            let serving = provisioner::serve(
                config.provisioner,
                driver.clone(),
                informers.clone(),
                memory,
                stop.clone(),
            );
            // All of them are large, and so is what holds them.
            Box::pin(serving).await;
        }
    };
    let attaching = async {
        if config.parts.contains(&Part::Attacher) {
            let serving = attacher::serve(config.attacher, driver.clone(), informers.clone(), stop.clone());
            Box::pin(serving).await;
        }
    };
    let resizing = async {
        if config.parts.contains(&Part::Resizer) {
            let serving = resizer::serve(config.resizer, driver.clone(), informers.clone(), stop.clone());
            Box::pin(serving).await;
        }
    };
    let snapshotting = async {
        if config.parts.contains(&Part::Snapshotter) {
            let serving = snapshotter::serve(
                config.snapshotter,
                driver.clone(),
                informers.clone(),
                stop.clone(),
            );
            Box::pin(serving).await;
        }
    };
    let monitoring = async {
        if config.parts.contains(&Part::HealthMonitor) {
            let serving = health_monitor::serve(
                config.health_monitor,
                driver.clone(),
                informers.clone(),
                stop.clone(),
            );
            Box::pin(serving).await;
        }
    };
    join5(provisioning, attaching, resizing, snapshotting, monitoring).await;
    // A driver for which nothing was to do: wait for another one.
    stop.cancelled().await;
}
