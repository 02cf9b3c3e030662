//! One caller of a CSI driver: a connection of its own, and the calls that a benchmark makes.

use std::{
    collections::HashMap,
    path::PathBuf,
    str::FromStr,
    task::{Context, Poll},
};

use anyhow::{Context as _, bail, ensure};
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use moorline_proto::csi::{
    self, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateSnapshotRequest,
    CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest, ListVolumesRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    ProbeRequest, Volume, VolumeCapability,
    controller_client::ControllerClient,
    identity_client::IdentityClient,
    node_client::NodeClient,
    volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
};
use tokio::net::{TcpStream, UnixStream};
use tonic::body::Body;
use tower::Service;

/// A page of ten thousand volumes in one answer is larger than what gRPC clients take unasked.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a driver listens: `unix:///absolute/path` or `tcp://address:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(String),
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unix = text.strip_prefix("unix://").unwrap_or(text);
        if unix.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(unix)));
        }
        match text.strip_prefix("tcp://") {
            Some(address) => Ok(Self::Tcp(address.to_owned())),
            None => bail!("{text:?} is neither unix:///absolute/path nor tcp://address:port"),
        }
    }
}

/// What a driver can do, as far as a benchmark cares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// CREATE_DELETE_SNAPSHOT.
    pub snapshots: bool,
    /// PUBLISH_UNPUBLISH_VOLUME.
    pub attach: bool,
    /// LIST_VOLUMES.
    pub list: bool,
    /// STAGE_UNSTAGE_VOLUME.
    pub stage: bool,
}

/// One HTTP/2 connection, with nothing between it and the caller: what is measured is the driver.
#[derive(Clone, Debug)]
struct Direct(SendRequest<Body>);

impl Direct {
    async fn open(stream: TokioIo<Box<dyn Stream>>) -> anyhow::Result<Self> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        // Ends with the last clone of the sender; what it ends by, the calls are told.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self(sender))
    }
}

impl Service<Request<Body>> for Direct {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A connection and its three clients.
#[derive(Clone, Debug)]
pub struct Client {
    identity: IdentityClient<Direct>,
    controller: ControllerClient<Direct>,
    node: NodeClient<Direct>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let opened = async { Direct::open(open(endpoint).await?).await };
        let direct = opened.await.with_context(|| format!("connect to {endpoint:?}"))?;
        let origin = || Uri::from_static("http://localhost");
        Ok(Self {
            identity: IdentityClient::with_origin(direct.clone(), origin()),
            controller: ControllerClient::with_origin(direct.clone(), origin())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            node: NodeClient::with_origin(direct, origin()),
        })
    }

    /// Is it ready?
    pub async fn probe(&mut self) -> anyhow::Result<()> {
        let answer = self.identity.probe(ProbeRequest {}).await.context("Probe")?;
        ensure!(
            answer.into_inner().ready != Some(false),
            "the driver is not ready"
        );
        Ok(())
    }

    /// Asks what the driver can do.
    pub async fn abilities(&mut self) -> anyhow::Result<Abilities> {
        use csi::{
            ControllerGetCapabilitiesRequest, NodeGetCapabilitiesRequest,
            controller_service_capability::{Type as OfController, rpc::Type as Controller},
            node_service_capability::{Type as OfNode, rpc::Type as Node},
        };
        let controller = self
            .controller
            .controller_get_capabilities(ControllerGetCapabilitiesRequest {})
            .await
            .context("ControllerGetCapabilities")?
            .into_inner();
        let node = self
            .node
            .node_get_capabilities(NodeGetCapabilitiesRequest {})
            .await
            .context("NodeGetCapabilities")?
            .into_inner();
        let of_controller: Vec<i32> = controller
            .capabilities
            .into_iter()
            .filter_map(|capability| capability.r#type.map(|OfController::Rpc(rpc)| rpc.r#type))
            .collect();
        let of_node: Vec<i32> = node
            .capabilities
            .into_iter()
            .filter_map(|capability| capability.r#type.map(|OfNode::Rpc(rpc)| rpc.r#type))
            .collect();
        let has = |wanted: Controller| of_controller.contains(&i32::from(wanted));
        Ok(Abilities {
            snapshots: has(Controller::CreateDeleteSnapshot),
            attach: has(Controller::PublishUnpublishVolume),
            list: has(Controller::ListVolumes),
            stage: of_node.contains(&i32::from(Node::StageUnstageVolume)),
        })
    }

    /// Makes a volume.
    pub async fn create(&mut self, name: String, bytes: u64) -> anyhow::Result<Volume> {
        let request = CreateVolumeRequest {
            name,
            capacity_range: Some(csi::CapacityRange {
                required_bytes: i64::try_from(bytes)?,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![capability()],
            ..CreateVolumeRequest::default()
        };
        let answer = self
            .controller
            .create_volume(request)
            .await
            .context("CreateVolume")?;
        answer.into_inner().volume.context("CreateVolume gave no volume")
    }

    /// Removes a volume.
    pub async fn delete(&mut self, volume_id: String) -> anyhow::Result<()> {
        let request = DeleteVolumeRequest {
            volume_id,
            ..DeleteVolumeRequest::default()
        };
        self.controller
            .delete_volume(request)
            .await
            .context("DeleteVolume")?;
        Ok(())
    }

    /// Attaches a volume to the node that this driver serves.
    pub async fn attach(&mut self, volume: &Volume) -> anyhow::Result<HashMap<String, String>> {
        let request = ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: self.node_id().await?,
            volume_capability: Some(capability()),
            volume_context: volume.volume_context.clone(),
            ..ControllerPublishVolumeRequest::default()
        };
        let answer = self
            .controller
            .controller_publish_volume(request)
            .await
            .context("ControllerPublishVolume")?;
        Ok(answer.into_inner().publish_context)
    }

    /// Undoes [`Client::attach`].
    pub async fn detach(&mut self, volume_id: String) -> anyhow::Result<()> {
        let request = ControllerUnpublishVolumeRequest {
            volume_id,
            node_id: self.node_id().await?,
            ..ControllerUnpublishVolumeRequest::default()
        };
        self.controller
            .controller_unpublish_volume(request)
            .await
            .context("ControllerUnpublishVolume")?;
        Ok(())
    }

    async fn node_id(&mut self) -> anyhow::Result<String> {
        let info = self
            .node
            .node_get_info(csi::NodeGetInfoRequest {})
            .await
            .context("NodeGetInfo")?;
        Ok(info.into_inner().node_id)
    }

    /// Stages a volume.
    pub async fn stage(&mut self, request: NodeStageVolumeRequest) -> anyhow::Result<()> {
        self.node
            .node_stage_volume(request)
            .await
            .context("NodeStageVolume")?;
        Ok(())
    }

    /// Undoes [`Client::stage`].
    pub async fn unstage(&mut self, request: NodeUnstageVolumeRequest) -> anyhow::Result<()> {
        self.node
            .node_unstage_volume(request)
            .await
            .context("NodeUnstageVolume")?;
        Ok(())
    }

    /// Publishes a volume.
    pub async fn publish(&mut self, request: NodePublishVolumeRequest) -> anyhow::Result<()> {
        self.node
            .node_publish_volume(request)
            .await
            .context("NodePublishVolume")?;
        Ok(())
    }

    /// Undoes [`Client::publish`].
    pub async fn unpublish(&mut self, request: NodeUnpublishVolumeRequest) -> anyhow::Result<()> {
        self.node
            .node_unpublish_volume(request)
            .await
            .context("NodeUnpublishVolume")?;
        Ok(())
    }

    /// Lists all volumes in pages of this size, 0 for as many as the driver gives; tells how many volumes and pages.
    pub async fn list(&mut self, page: i32) -> anyhow::Result<(usize, usize)> {
        let (mut volumes, mut pages) = (0, 0);
        let mut starting_token = String::new();
        loop {
            let request = ListVolumesRequest {
                max_entries: page,
                starting_token,
            };
            let answer = self
                .controller
                .list_volumes(request)
                .await
                .context("ListVolumes")?
                .into_inner();
            volumes += answer.entries.len();
            pages += 1;
            starting_token = answer.next_token;
            if starting_token.is_empty() {
                return Ok((volumes, pages));
            }
        }
    }

    /// Cuts a snapshot and gives its id.
    pub async fn snapshot(&mut self, name: String, source_volume_id: String) -> anyhow::Result<String> {
        let request = CreateSnapshotRequest {
            name,
            source_volume_id,
            ..CreateSnapshotRequest::default()
        };
        let answer = self
            .controller
            .create_snapshot(request)
            .await
            .context("CreateSnapshot")?;
        let snapshot = answer
            .into_inner()
            .snapshot
            .context("CreateSnapshot gave no snapshot")?;
        ensure!(snapshot.ready_to_use, "the snapshot is not ready");
        Ok(snapshot.snapshot_id)
    }

    /// Removes a snapshot.
    pub async fn delete_snapshot(&mut self, snapshot_id: String) -> anyhow::Result<()> {
        let request = DeleteSnapshotRequest {
            snapshot_id,
            ..DeleteSnapshotRequest::default()
        };
        self.controller
            .delete_snapshot(request)
            .await
            .context("DeleteSnapshot")?;
        Ok(())
    }
}

/// What all volumes of a benchmark are: filesystems for one writer.
pub fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

/// Either kind of stream, behind one type.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

async fn open(to: &Endpoint) -> std::io::Result<TokioIo<Box<dyn Stream>>> {
    let stream: Box<dyn Stream> = match to {
        Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    };
    Ok(TokioIo::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_or_ports() {
        let cases = [
            ("unix:///run/x", Some(Endpoint::Unix("/run/x".into()))),
            ("/run/x", Some(Endpoint::Unix("/run/x".into()))),
            ("tcp://127.0.0.1:9", Some(Endpoint::Tcp("127.0.0.1:9".into()))),
            ("run/x", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Endpoint>().ok(), expected, "{text:?}");
        }
    }
}
