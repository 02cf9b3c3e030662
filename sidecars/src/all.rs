//! All controller sidecars of one driver in one process: one connection, one discovery, one watch per kind.

use std::sync::Arc;

use futures::future::join3;
use moorline_runtime::Informers;
use tokio_util::sync::CancellationToken;

use crate::attacher::{self, AttacherConfig};
use crate::connection::DriverConnection;
use crate::driver::{Driver, supervise};
use crate::provisioner::{self, Memory, ProvisionerConfig};
use crate::resizer::{self, ResizerConfig};
use crate::{SidecarError, discovery::PluginService};

/// Settings of all of them. The addresses inside the parts are not used: there is one connection.
#[derive(Clone, Debug)]
pub struct AllConfig {
    /// The driver's socket, a path or `unix://` URL.
    pub csi_address: String,
    /// Settings of the provisioner; its timeout also holds for discovery.
    pub provisioner: ProvisionerConfig,
    /// Settings of the attacher.
    pub attacher: AttacherConfig,
    /// Settings of the resizer.
    pub resizer: ResizerConfig,
}

impl AllConfig {
    /// Upstream's defaults, for a driver at that address.
    pub fn new(csi_address: impl Into<String>) -> Self {
        let csi_address = csi_address.into();
        Self {
            provisioner: ProvisionerConfig::new(&*csi_address),
            attacher: AttacherConfig::new(&*csi_address),
            resizer: ResizerConfig::new(&*csi_address),
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
    let memory = Arc::new(Memory::default());
    let timeout = config.provisioner.timeout;
    supervise(&connection, timeout, &stop, |driver, stop| {
        serve(config.clone(), driver, informers.clone(), memory.clone(), stop)
    })
    .await?;
    Ok(())
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
        if has_controller {
            provisioner::serve(
                config.provisioner,
                driver.clone(),
                informers.clone(),
                memory,
                stop.clone(),
            )
            .await;
        }
    };
    let attaching = attacher::serve(config.attacher, driver.clone(), informers.clone(), stop.clone());
    let resizing = resizer::serve(config.resizer, driver.clone(), informers.clone(), stop.clone());
    join3(provisioning, attaching, resizing).await;
    // A driver for which nothing was to do: wait for another one.
    stop.cancelled().await;
}
