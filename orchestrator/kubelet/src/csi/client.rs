//! Calls to one driver's node service over its unix socket, each with a deadline, each failure with a class.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use moorline_proto::csi;
use moorline_proto::csi::node_client::NodeClient as Stub;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// A failed call to a driver. The text is what users know from events.
#[derive(Debug, Clone, thiserror::Error)]
#[error("rpc error: code = {} desc = {}", code_name(.status.code()), .status.message())]
pub(crate) struct RpcError {
    /// The call, such as `NodeStageVolume`.
    pub method: &'static str,
    /// What came back, or what the transport made of it.
    pub status: Status,
}

impl RpcError {
    /// Whether the call has certainly ended without effect. Otherwise it may be running or done.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(
            self.status.code(),
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
        )
    }

    /// An expansion that will not work with this size, here.
    pub(crate) fn is_infeasible(&self) -> bool {
        matches!(
            self.status.code(),
            Code::InvalidArgument | Code::OutOfRange | Code::NotFound
        )
    }
}

/// The code as gRPC's Go library prints it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// What the driver's node service says it can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodeCapabilities {
    pub stage: bool,
    pub stats: bool,
    pub expand: bool,
    pub single_node_multi_writer: bool,
    pub volume_mount_group: bool,
}

/// A connection to a driver's node service; connects at first use and again when the driver comes back.
#[derive(Debug, Clone)]
pub(crate) struct NodeClient {
    stub: Stub<Channel>,
    timeout: Duration,
}

/// A channel over the unix socket `path` that connects when used.
pub(crate) fn channel(path: &Path) -> Channel {
    let path: PathBuf = path.to_owned();
    // The authority matters: many gRPC servers refuse the encoded path that other clients put there.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    }))
}

macro_rules! call {
    ($self:ident, $method:ident, $name:literal, $request:expr) => {{
        let mut stub = $self.stub.clone();
        let mut request = Request::new($request);
        request.set_timeout($self.timeout);
        let answer = tokio::time::timeout($self.timeout, stub.$method(request)).await;
        match answer {
            Ok(Ok(response)) => Ok(Response::into_inner(response)),
            Ok(Err(status)) => Err(RpcError {
                method: $name,
                status,
            }),
            Err(_elapsed) => Err(RpcError {
                method: $name,
                status: Status::deadline_exceeded("context deadline exceeded"),
            }),
        }
    }};
}

impl NodeClient {
    pub(crate) fn new(socket: &Path, timeout: Duration) -> Self {
        Self::over(channel(socket), timeout)
    }

    /// Over a connection that is there.
    pub(crate) fn over(channel: Channel, timeout: Duration) -> Self {
        Self {
            stub: Stub::new(channel),
            timeout,
        }
    }

    pub(crate) async fn info(&self) -> Result<csi::NodeGetInfoResponse, RpcError> {
        call!(self, node_get_info, "NodeGetInfo", csi::NodeGetInfoRequest {})
    }

    pub(crate) async fn capabilities(&self) -> Result<NodeCapabilities, RpcError> {
        let answer: csi::NodeGetCapabilitiesResponse = call!(
            self,
            node_get_capabilities,
            "NodeGetCapabilities",
            csi::NodeGetCapabilitiesRequest {}
        )?;
        Ok(capabilities_of(&answer))
    }

    pub(crate) async fn stage(&self, request: csi::NodeStageVolumeRequest) -> Result<(), RpcError> {
        call!(self, node_stage_volume, "NodeStageVolume", request).map(|_: csi::NodeStageVolumeResponse| ())
    }

    pub(crate) async fn unstage(&self, request: csi::NodeUnstageVolumeRequest) -> Result<(), RpcError> {
        call!(self, node_unstage_volume, "NodeUnstageVolume", request)
            .map(|_: csi::NodeUnstageVolumeResponse| ())
    }

    pub(crate) async fn publish(&self, request: csi::NodePublishVolumeRequest) -> Result<(), RpcError> {
        call!(self, node_publish_volume, "NodePublishVolume", request)
            .map(|_: csi::NodePublishVolumeResponse| ())
    }

    pub(crate) async fn unpublish(&self, request: csi::NodeUnpublishVolumeRequest) -> Result<(), RpcError> {
        call!(self, node_unpublish_volume, "NodeUnpublishVolume", request)
            .map(|_: csi::NodeUnpublishVolumeResponse| ())
    }

    pub(crate) async fn expand(
        &self,
        request: csi::NodeExpandVolumeRequest,
    ) -> Result<csi::NodeExpandVolumeResponse, RpcError> {
        call!(self, node_expand_volume, "NodeExpandVolume", request)
    }

    pub(crate) async fn stats(
        &self,
        request: csi::NodeGetVolumeStatsRequest,
    ) -> Result<csi::NodeGetVolumeStatsResponse, RpcError> {
        call!(self, node_get_volume_stats, "NodeGetVolumeStats", request)
    }
}

fn capabilities_of(answer: &csi::NodeGetCapabilitiesResponse) -> NodeCapabilities {
    use csi::node_service_capability::{Type, rpc};
    let mut found = NodeCapabilities::default();
    for capability in &answer.capabilities {
        let Some(Type::Rpc(rpc)) = &capability.r#type else {
            continue;
        };
        match rpc::Type::try_from(rpc.r#type) {
            Ok(rpc::Type::StageUnstageVolume) => found.stage = true,
            Ok(rpc::Type::GetVolumeStats) => found.stats = true,
            Ok(rpc::Type::ExpandVolume) => found.expand = true,
            Ok(rpc::Type::SingleNodeMultiWriter) => found.single_node_multi_writer = true,
            Ok(rpc::Type::VolumeMountGroup) => found.volume_mount_group = true,
            // A capability of a later version changes nothing for us.
            Ok(rpc::Type::Unknown | rpc::Type::VolumeCondition) | Err(_) => {}
        }
    }
    found
}
