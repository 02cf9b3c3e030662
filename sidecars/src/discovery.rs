//! What a driver is and can: asked once per connection, before any work is given to it.

use std::collections::BTreeSet;
use std::time::Duration;

use moorline_proto::csi::controller_service_capability::{self, rpc};
use moorline_proto::csi::group_controller_service_capability;
use moorline_proto::csi::node_service_capability;
use moorline_proto::csi::plugin_capability::{self, service};
use moorline_proto::csi::{
    ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, GetPluginInfoRequest,
    GroupControllerGetCapabilitiesRequest, NodeGetCapabilitiesRequest, ProbeRequest,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::connection::{DriverConnection, call};

pub use rpc::Type as ControllerCapability;
pub use service::Type as PluginService;

/// Between two probes of a driver that isn't there or isn't ready.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// The interval grows up to this.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// A line is logged about a driver that keeps us waiting, this often.
const WAIT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Discovery found something that work can't start with.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// One of the discovery calls was refused.
    #[error("ask driver for its {what}: {}", crate::rpc_class::describe(.status))]
    Call {
        /// What was asked for.
        what: &'static str,
        /// The driver's answer.
        status: Box<Status>,
    },
    /// `GetPluginInfo` answered without a name.
    #[error("driver gives no name")]
    NoName,
    /// The process ends before the driver was ready.
    #[error("stopped while waiting for the driver")]
    Stopped,
}

/// What a driver said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverFacts {
    /// The CSI driver name.
    pub driver_name: String,
    /// From `GetPluginCapabilities`.
    pub services: BTreeSet<i32>,
    /// From `ControllerGetCapabilities`; empty without a controller service.
    pub controller: BTreeSet<i32>,
    /// Whether `NodeGetCapabilities`, asked on the same socket, has EXPAND_VOLUME.
    pub node_expands: bool,
    /// Whether it takes, deletes and describes group snapshots: from `GroupControllerGetCapabilities`.
    pub takes_groups: bool,
}

impl DriverFacts {
    /// Whether the plugin has that service.
    pub fn has_service(&self, service: PluginService) -> bool {
        self.services.contains(&(service as i32))
    }

    /// Whether the controller service can do that.
    pub fn can(&self, capability: ControllerCapability) -> bool {
        self.has_service(PluginService::ControllerService) && self.controller.contains(&(capability as i32))
    }

    /// From here on the driver's volumes count as reachable from everywhere.
    pub(crate) fn forget_topology(&mut self) {
        self.services
            .remove(&(PluginService::VolumeAccessibilityConstraints as i32));
    }

    /// Whether volumes of the driver are reachable from some nodes only.
    pub fn has_topology(&self) -> bool {
        self.has_service(PluginService::VolumeAccessibilityConstraints)
    }
}

/// Waits until the driver is there and ready, then asks who it is and what it can.
///
/// A driver that isn't there yet, has no answer in time or isn't ready is waited for without limit; a line is logged
/// now and then.
///
/// # Errors
/// Final: the driver refuses one of the calls, or has no name. Also when `stop` is cancelled.
pub async fn discover(
    connection: &DriverConnection,
    timeout: Duration,
    stop: &CancellationToken,
) -> Result<DriverFacts, DiscoveryError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(DiscoveryError::Stopped),
        facts = persist(|| async {
            wait_until_ready(connection, timeout).await?;
            ask(connection, timeout).await
        }) => facts,
    }
}

/// Like [`discover`], for those who need the name alone (no controller service is asked).
///
/// # Errors
/// As [`discover`].
pub async fn discover_name(
    connection: &DriverConnection,
    timeout: Duration,
    stop: &CancellationToken,
) -> Result<String, DiscoveryError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(DiscoveryError::Stopped),
        name = persist(|| async {
            wait_until_ready(connection, timeout).await?;
            ask_name(connection, timeout).await
        }) => name,
    }
}

/// Asks again from the start when the driver goes away in the middle of it.
async fn persist<T, F, Fut>(ask: F) -> Result<T, DiscoveryError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, DiscoveryError>>,
{
    loop {
        match ask().await {
            Err(DiscoveryError::Call { status, .. }) if is_worth_waiting(&status) => {
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
            answer => return answer,
        }
    }
}

async fn wait_until_ready(connection: &DriverConnection, timeout: Duration) -> Result<(), DiscoveryError> {
    let mut logged = tokio::time::Instant::now();
    let mut interval = PROBE_INTERVAL;
    loop {
        let why = match probe(connection, timeout).await {
            Ok(true) => return Ok(()),
            Ok(false) => "not ready".to_string(),
            Err(status) if is_worth_waiting(&status) => status.message().to_string(),
            Err(status) => {
                return Err(DiscoveryError::Call {
                    what: "readiness",
                    status: Box::new(status),
                });
            }
        };
        if logged.elapsed() >= WAIT_LOG_INTERVAL {
            tracing::info!(path = %connection.path().display(), why, "Waiting for the driver");
            logged = tokio::time::Instant::now();
        }
        tokio::time::sleep(interval).await;
        interval = (interval * 2).min(PROBE_INTERVAL_MAX);
    }
}

/// Whether the driver says it is ready; no word counts as yes.
pub(crate) async fn probe(connection: &DriverConnection, timeout: Duration) -> Result<bool, Status> {
    let mut client = connection.identity();
    let answer = call(timeout, ProbeRequest {}, |request| client.probe(request)).await?;
    Ok(answer.ready.unwrap_or(true))
}

/// Not there, gone, or slow: all of this passes. Any other answer is the driver's own and won't change by asking.
fn is_worth_waiting(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        || matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
        )
}

async fn ask(connection: &DriverConnection, timeout: Duration) -> Result<DriverFacts, DiscoveryError> {
    let driver_name = ask_name(connection, timeout).await?;
    let mut identity = connection.identity();
    let answer = call(timeout, GetPluginCapabilitiesRequest {}, |r| {
        identity.get_plugin_capabilities(r)
    })
    .await
    .map_err(|status| DiscoveryError::Call {
        what: "plugin capabilities",
        status: Box::new(status),
    })?;
    let services: BTreeSet<i32> = answer.capabilities.iter().filter_map(service_of).collect();
    let mut facts = DriverFacts {
        driver_name,
        services,
        controller: BTreeSet::new(),
        node_expands: false,
        takes_groups: false,
    };
    if facts.has_service(PluginService::ControllerService) {
        let mut controller = connection.controller();
        let request = ControllerGetCapabilitiesRequest {};
        let answer = call(timeout, request, |r| controller.controller_get_capabilities(r))
            .await
            .map_err(|status| DiscoveryError::Call {
                what: "controller capabilities",
                status: Box::new(status),
            })?;
        facts.controller = answer.capabilities.iter().filter_map(rpc_of).collect();
    }
    facts.node_expands = ask_node_expands(connection, timeout).await?;
    if facts.has_service(PluginService::GroupControllerService) {
        facts.takes_groups = ask_takes_groups(connection, timeout).await?;
    }
    Ok(facts)
}

async fn ask_name(connection: &DriverConnection, timeout: Duration) -> Result<String, DiscoveryError> {
    let mut identity = connection.identity();
    let info = call(timeout, GetPluginInfoRequest {}, |request| {
        identity.get_plugin_info(request)
    })
    .await
    .map_err(|status| DiscoveryError::Call {
        what: "name",
        status: Box::new(status),
    })?;
    if info.name.is_empty() {
        return Err(DiscoveryError::NoName);
    }
    connection.metrics().set_driver_name(&info.name);
    Ok(info.name)
}

/// A controller plugin commonly has no node service on its socket; that is a no, not an error.
async fn ask_node_expands(connection: &DriverConnection, timeout: Duration) -> Result<bool, DiscoveryError> {
    let mut node = connection.node();
    let answer = call(timeout, NodeGetCapabilitiesRequest {}, |r| {
        node.node_get_capabilities(r)
    })
    .await;
    let capabilities = match answer {
        Ok(answer) => answer.capabilities,
        Err(status) if is_worth_waiting(&status) => {
            return Err(DiscoveryError::Call {
                what: "node capabilities",
                status: Box::new(status),
            });
        }
        Err(_) => Vec::new(),
    };
    Ok(capabilities.iter().any(|capability| match &capability.r#type {
        Some(node_service_capability::Type::Rpc(rpc)) => {
            rpc.r#type == node_service_capability::rpc::Type::ExpandVolume as i32
        }
        None => false,
    }))
}

async fn ask_takes_groups(connection: &DriverConnection, timeout: Duration) -> Result<bool, DiscoveryError> {
    let mut groups = connection.groups();
    let request = GroupControllerGetCapabilitiesRequest {};
    let answer = call(timeout, request, |r| groups.group_controller_get_capabilities(r))
        .await
        .map_err(|status| DiscoveryError::Call {
            what: "group controller capabilities",
            status: Box::new(status),
        })?;
    let wanted = group_controller_service_capability::rpc::Type::CreateDeleteGetVolumeGroupSnapshot as i32;
    Ok(answer
        .capabilities
        .iter()
        .any(|capability| match &capability.r#type {
            Some(group_controller_service_capability::Type::Rpc(rpc)) => rpc.r#type == wanted,
            None => false,
        }))
}

fn service_of(capability: &moorline_proto::csi::PluginCapability) -> Option<i32> {
    match &capability.r#type {
        Some(plugin_capability::Type::Service(service)) => Some(service.r#type),
        Some(plugin_capability::Type::VolumeExpansion(_)) | None => None,
    }
}

fn rpc_of(capability: &moorline_proto::csi::ControllerServiceCapability) -> Option<i32> {
    let controller_service_capability::Type::Rpc(rpc) = capability.r#type.as_ref()?;
    Some(rpc.r#type)
}
