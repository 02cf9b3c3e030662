//! A kubelet without a machine, for the simulator: no port, no plugin directory, and nothing that blocks on another
//! thread. Pods, volumes, leases and the Node's status are the real parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use moorline_container_runtime::{ContainerRuntime, ImageService};
use moorline_runtime::Informers;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::{Error, Given, Parts, make_directories};
use crate::config::Config;
use crate::csi::client::NodeClient;
use crate::csi::drivers::{Driver, Drivers};
use crate::node::object::Machine;
use crate::paths::Layout;
use crate::volumes::{error, reconcile};

/// Between two tries to find out what the driver can do.
const RETRY: Duration = Duration::from_secs(1);

/// A driver's node service that is there from the start.
#[derive(Clone, Debug)]
pub struct GivenDriver {
    /// The driver's name.
    pub name: String,
    /// What it calls this node.
    pub node_id: String,
    /// The connection to it.
    pub channel: Channel,
}

/// From now on, file system work that this thread would leave to another one is done at once.
pub fn stay_on_this_thread() {
    error::stay_on_this_thread();
}

/// Runs a kubelet until `stop` is cancelled, or its future dropped.
///
/// # Errors
/// As [`super::run`].
pub async fn run(
    config: Config,
    informers: Informers,
    runtime: Arc<dyn ContainerRuntime>,
    images: Arc<dyn ImageService>,
    driver: GivenDriver,
    stop: CancellationToken,
) -> Result<(), Error> {
    let config = Arc::new(config);
    let layout = Layout::new(config.root_dir.clone(), config.log_dir.clone());
    make_directories(&config, &layout).await?;
    let given = Given {
        config: config.clone(),
        machine: machine(),
        informers,
        runtime,
        images,
    };
    let parts = Parts::new(given, config.listen, &stop).await?;
    let tasks = TaskTracker::new();
    let node = parts.register(&config).await?;
    parts.report(node, &config, &tasks, &stop);
    let stop_volumes = CancellationToken::new();
    tasks.spawn(reconcile::run(parts.volumes.clone(), stop_volumes.clone()));
    let (drivers, timeout) = (parts.registrar.drivers.clone(), config.timings.csi_call_timeout);
    tasks.spawn(async move { stop.run_until_cancelled(register(drivers, driver, timeout)).await });
    let looked = parts.pods.clone().run().await;
    stop_volumes.cancel();
    tasks.close();
    tasks.wait().await;
    parts.recorder.flush().await;
    looked?;
    Ok(())
}

/// The same for everybody: the real one's size has no place in a run that is to be repeated elsewhere.
fn machine() -> Machine {
    Machine {
        cpus: 64,
        memory_bytes: 64 << 30,
        disk_bytes: 100 << 30,
        ..Machine::default()
    }
}

async fn register(drivers: Arc<Drivers>, given: GivenDriver, timeout: Duration) {
    let client = NodeClient::over(given.channel, timeout);
    loop {
        match client.capabilities().await {
            Ok(capabilities) => {
                drivers.insert(Driver {
                    name: given.name,
                    endpoint: PathBuf::new(),
                    node_id: given.node_id,
                    capabilities,
                    client,
                });
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "Driver can't be asked, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
