//! The handshake with one registration socket: who is there, can we speak to it, tell the cluster, answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use moorline_proto::pluginregistration::registration_client::RegistrationClient;
use moorline_proto::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus};

use super::node_facts::{self, DriverFacts, FactsError};
use crate::csi::client::{RpcError, channel};
use crate::csi::drivers::{Driver, Drivers, connect};

/// Attempts at a write that others may get in the way of.
const WRITE_ATTEMPTS: u32 = 4;
const INFO_TIMEOUT: Duration = Duration::from_secs(1);
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a plugin could not be registered. All of it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrationError {
    #[error("ask {} who it is: {status}", .socket.display())]
    GetInfo { socket: PathBuf, status: tonic::Status },
    #[error("plugin type {0:?} is not supported")]
    UnknownType(String),
    #[error("plugin has no name")]
    NoName,
    #[error("driver {driver_name} supports none of the versions this kubelet speaks (1.x): {versions:?}")]
    Version {
        driver_name: String,
        versions: Vec<String>,
    },
    #[error("driver {driver_name} is already registered at {}", .endpoint.display())]
    AlreadyRegistered { driver_name: String, endpoint: PathBuf },
    #[error(transparent)]
    Driver(#[from] RpcError),
    #[error("driver {0} reports an empty node id")]
    NoNodeId(String),
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error("{action}: {source}")]
    Api {
        action: &'static str,
        #[source]
        source: kube::Error,
    },
    #[error("{0}: others keep changing it")]
    Contended(&'static str),
    #[error("tell {} that it is registered: {status}", .socket.display())]
    Notify { socket: PathBuf, status: tonic::Status },
}

impl RegistrationError {
    /// The socket exists but nobody listens on it.
    pub(crate) fn is_nobody_there(&self) -> bool {
        matches!(self, Self::GetInfo { status, .. } if status.code() == tonic::Code::Unavailable)
    }
}

/// What is needed to register drivers on one node.
#[derive(Debug)]
pub(crate) struct Registrar {
    pub client: ApiOf,
    pub node_name: String,
    pub drivers: Arc<Drivers>,
    pub csi_call_timeout: Duration,
    /// One driver at a time changes Node and CSINode.
    pub writing: tokio::sync::Mutex<()>,
}

/// A client that prints nothing of itself.
#[derive(Clone)]
pub(crate) struct ApiOf(pub Client);

impl std::fmt::Debug for ApiOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiOf")
    }
}

/// Checks what a plugin says about itself and names the socket its driver listens on.
pub(crate) fn validate(info: &PluginInfo, socket: &Path) -> Result<PathBuf, RegistrationError> {
    if info.r#type != "CSIPlugin" {
        return Err(RegistrationError::UnknownType(info.r#type.clone()));
    }
    if info.name.is_empty() {
        return Err(RegistrationError::NoName);
    }
    let is_known = |version: &String| version.trim_start_matches('v').split('.').next() == Some("1");
    if !info.supported_versions.iter().any(is_known) {
        return Err(RegistrationError::Version {
            driver_name: info.name.clone(),
            versions: info.supported_versions.clone(),
        });
    }
    if info.endpoint.is_empty() {
        return Ok(socket.to_owned());
    }
    Ok(PathBuf::from(info.endpoint.trim_start_matches("unix://")))
}

impl Registrar {
    /// The whole handshake over `socket`; returns the driver that is registered now. The plugin hears of a failure too.
    pub(crate) async fn register(&self, socket: &Path) -> Result<Arc<Driver>, RegistrationError> {
        let mut plugin = RegistrationClient::new(channel(socket));
        let info = tokio::time::timeout(INFO_TIMEOUT, plugin.get_info(InfoRequest {}))
            .await
            .unwrap_or_else(|_elapsed| Err(tonic::Status::deadline_exceeded("no answer in time")))
            .map_err(|status| RegistrationError::GetInfo {
                socket: socket.to_owned(),
                status,
            })?
            .into_inner();
        let registered = match validate(&info, socket) {
            Ok(endpoint) => self.admit(&info.name, &endpoint).await,
            Err(error) => Err(error),
        };
        let status = RegistrationStatus {
            plugin_registered: registered.is_ok(),
            error: registered
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default(),
        };
        let told = tokio::time::timeout(NOTIFY_TIMEOUT, plugin.notify_registration_status(status))
            .await
            .unwrap_or_else(|_elapsed| Err(tonic::Status::deadline_exceeded("no answer in time")));
        let driver = registered?;
        if let Err(status) = told {
            self.deregister(&driver.name, &driver.endpoint).await?;
            return Err(RegistrationError::Notify {
                socket: socket.to_owned(),
                status,
            });
        }
        Ok(driver)
    }

    async fn admit(&self, driver_name: &str, endpoint: &Path) -> Result<Arc<Driver>, RegistrationError> {
        if let Ok(other) = self.drivers.get(driver_name)
            && other.endpoint != endpoint
        {
            return Err(RegistrationError::AlreadyRegistered {
                driver_name: driver_name.to_owned(),
                endpoint: other.endpoint.clone(),
            });
        }
        let client = connect(endpoint, self.csi_call_timeout);
        let (info, capabilities) = tokio::try_join!(client.info(), client.capabilities())?;
        if info.node_id.is_empty() {
            return Err(RegistrationError::NoNodeId(driver_name.to_owned()));
        }
        let facts = DriverFacts {
            driver_name: driver_name.to_owned(),
            node_id: info.node_id.clone(),
            topology: info
                .accessible_topology
                .map(|topology| topology.segments.into_iter().collect())
                .unwrap_or_default(),
            max_volumes: (info.max_volumes_per_node > 0)
                .then(|| i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX)),
        };
        self.show(&facts).await?;
        self.drivers.insert(Driver {
            name: driver_name.to_owned(),
            endpoint: endpoint.to_owned(),
            node_id: info.node_id,
            capabilities,
            client,
        });
        // The map was just written; only a concurrent deregistration could have emptied it.
        self.drivers
            .get(driver_name)
            .map_err(|_gone| RegistrationError::Contended("register driver"))
    }

    /// Takes the driver out of the CSINode and off the Node, unless it lives at another endpoint by now.
    pub(crate) async fn deregister(
        &self,
        driver_name: &str,
        endpoint: &Path,
    ) -> Result<(), RegistrationError> {
        if !self.drivers.remove(driver_name, endpoint) {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        self.change_csi_node(|csi_node| node_facts::without_driver(csi_node, driver_name))
            .await?;
        self.change_node(|node| node_facts::node_patch_without(node, driver_name))
            .await
    }

    async fn show(&self, facts: &DriverFacts) -> Result<(), RegistrationError> {
        let _writing = self.writing.lock().await;
        self.change_node(|node| node_facts::node_patch(node, facts))
            .await?;
        self.change_csi_node(|csi_node| node_facts::with_driver(csi_node, facts))
            .await
    }

    async fn change_node(
        &self,
        change: impl Fn(&Node) -> Result<Option<serde_json::Value>, FactsError>,
    ) -> Result<(), RegistrationError> {
        let nodes: Api<Node> = Api::all(self.client.0.clone());
        for _ in 0..WRITE_ATTEMPTS {
            let node = nodes.get(&self.node_name).await.map_err(api("read node"))?;
            let Some(patch) = change(&node)? else {
                return Ok(());
            };
            match nodes
                .patch(&self.node_name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(api("patch node")(error)),
            }
        }
        Err(RegistrationError::Contended("patch node"))
    }

    async fn change_csi_node(
        &self,
        change: impl Fn(&CSINode) -> Option<CSINode>,
    ) -> Result<(), RegistrationError> {
        let csi_nodes: Api<CSINode> = Api::all(self.client.0.clone());
        for _ in 0..WRITE_ATTEMPTS {
            let csi_node = self.ensure_csi_node().await?;
            let Some(changed) = change(&csi_node) else {
                return Ok(());
            };
            match csi_nodes
                .replace(&self.node_name, &PostParams::default(), &changed)
                .await
            {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(api("replace CSINode")(error)),
            }
        }
        Err(RegistrationError::Contended("replace CSINode"))
    }

    /// The node's CSINode, made when missing, replaced when it belongs to an earlier Node of this name.
    pub(crate) async fn ensure_csi_node(&self) -> Result<CSINode, RegistrationError> {
        let csi_nodes: Api<CSINode> = Api::all(self.client.0.clone());
        let nodes: Api<Node> = Api::all(self.client.0.clone());
        for _ in 0..WRITE_ATTEMPTS {
            let node = nodes.get(&self.node_name).await.map_err(api("read node"))?;
            match csi_nodes
                .get_opt(&self.node_name)
                .await
                .map_err(api("read CSINode"))?
            {
                Some(csi_node) if node_facts::is_foreign(&csi_node, &node) => {
                    let deletion = csi_nodes.delete(&self.node_name, &DeleteParams::default()).await;
                    deletion.map_err(api("delete CSINode of an earlier node"))?;
                }
                Some(csi_node) => return Ok(csi_node),
                None => match csi_nodes
                    .create(&PostParams::default(), &node_facts::new_csi_node(&node))
                    .await
                {
                    Ok(csi_node) => return Ok(csi_node),
                    Err(error) if is_conflict(&error) => {}
                    Err(error) => return Err(api("create CSINode")(error)),
                },
            }
        }
        Err(RegistrationError::Contended("create CSINode"))
    }
}

fn api(action: &'static str) -> impl Fn(kube::Error) -> RegistrationError {
    move |source| RegistrationError::Api { action, source }
}

/// Somebody else was faster: read again and retry.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_csi_plugins_of_major_version_one_are_taken() {
        let info = |kind: &str, name: &str, endpoint: &str, versions: &[&str]| PluginInfo {
            r#type: kind.into(),
            name: name.into(),
            endpoint: endpoint.into(),
            supported_versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        };
        let socket = Path::new("/reg/d.sock");
        let cases = [
            (
                "own endpoint",
                info("CSIPlugin", "d", "/csi.sock", &["1.0.0"]),
                Some("/csi.sock"),
            ),
            (
                "url endpoint",
                info("CSIPlugin", "d", "unix:///csi.sock", &["1.5.0"]),
                Some("/csi.sock"),
            ),
            (
                "same socket",
                info("CSIPlugin", "d", "", &["0.3.0", "v1.2.0"]),
                Some("/reg/d.sock"),
            ),
            (
                "old version",
                info("CSIPlugin", "d", "/csi.sock", &["0.3.0"]),
                None,
            ),
            ("no version", info("CSIPlugin", "d", "/csi.sock", &[]), None),
            (
                "version ten",
                info("CSIPlugin", "d", "/csi.sock", &["10.0.0"]),
                None,
            ),
            (
                "device plugin",
                info("DevicePlugin", "d", "/csi.sock", &["1.0.0"]),
                None,
            ),
            ("no name", info("CSIPlugin", "", "/csi.sock", &["1.0.0"]), None),
        ];
        for (name, info, want) in cases {
            assert_eq!(validate(&info, socket).ok(), want.map(PathBuf::from), "{name}");
        }
    }
}
