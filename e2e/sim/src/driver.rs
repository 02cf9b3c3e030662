//! The simulated CSI driver: calls to its backend, which go wrong as the plan says.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use moorline_proto::csi::controller_server::{Controller, ControllerServer};
use moorline_proto::csi::controller_service_capability::{
    self, Rpc as ControllerRpc, rpc::Type as Capability,
};
use moorline_proto::csi::identity_server::{Identity, IdentityServer};
use moorline_proto::csi::plugin_capability::{self, Service, service};
use moorline_proto::csi::*;
use parking_lot::Mutex;
use tonic::{Code, Request, Response, Status};

use crate::backend::{Backend, source_id};
use crate::net::{Event, Net, ProcId};
use crate::plan::{Rpc, RpcFault};

/// The driver's name.
pub(crate) const NAME: &str = "sim.moorline.io";
/// How long a call takes that nothing is wrong with.
const WORK: Duration = Duration::from_millis(5);
/// And one that copies data.
const COPYING: Duration = Duration::from_millis(1_500);
/// How long a driver stays away that died in a call.
const DOWN_MILLIS: u64 = 2_000;

/// The driver's controller service.
#[derive(Clone)]
pub(crate) struct Driver {
    net: Net,
    backend: Arc<Mutex<Backend>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    pub(crate) fn new(net: &Net, backend: &Arc<Mutex<Backend>>) -> Self {
        Self {
            net: net.clone(),
            backend: backend.clone(),
        }
    }

    /// Serves until its process dies.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let connections = self.net.listen(ProcId::Driver).map(Ok::<_, std::io::Error>);
        tonic::transport::Server::builder()
            .add_service(IdentityServer::new(self.clone()))
            .add_service(ControllerServer::new(self))
            .serve_with_incoming(connections)
            .await?;
        Ok(())
    }

    /// Does `work` as the plan says. What takes long goes on when the caller has given up, and what it works on is busy
    /// as long as it does.
    pub(crate) async fn follow<T: Send + 'static>(
        &self,
        call: Call,
        work: impl Fn(&mut Backend) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let Call {
            rpc,
            line,
            subject,
            source,
        } = call;
        let mut fault = self.backend.lock().take_fault(rpc);
        if matches!(fault, Some(RpcFault::Before { .. })) && self.backend.lock().has_made(&subject) {
            // Most codes say that nothing exists: no driver may say that of what it has made.
            fault = Some(RpcFault::Before {
                code: Code::Unavailable as i32,
            });
        }
        self.net.trace(|| {
            let fault = fault.map(|fault| format!(" {fault:?}")).unwrap_or_default();
            format!("Driver {line}{fault}")
        });
        let takes = if source.is_some() { COPYING } else { WORK };
        let busy = Busy::begin(&self.backend, &subject, source)?;
        tokio::time::sleep(takes).await;
        let injected = |code: i32| Err(Status::new(Code::from_i32(code), "the simulator fails this call"));
        match fault {
            Some(RpcFault::Before { code }) => return injected(code),
            Some(RpcFault::HangBefore) => std::future::pending().await,
            Some(RpcFault::Slow { millis }) => {
                let backend = self.backend.clone();
                let working = tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    let done = work(&mut backend.lock());
                    drop(busy);
                    done
                });
                let done = working
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?;
                return done.map(Response::new);
            }
            Some(RpcFault::Twice) => drop(work(&mut self.backend.lock())),
            Some(RpcFault::After { .. } | RpcFault::HangAfter | RpcFault::DieAfter) | None => {}
        }
        let done = work(&mut self.backend.lock());
        drop(busy);
        if let Err(status) = &done {
            self.net
                .trace(|| format!("  {:?}: {}", status.code(), status.message()));
        }
        match fault {
            Some(RpcFault::After { code }) if done.is_ok() => return injected(code),
            Some(RpcFault::HangAfter) => std::future::pending().await,
            Some(RpcFault::DieAfter) => {
                let death = Event::Kill {
                    process: ProcId::Driver,
                    down_millis: DOWN_MILLIS,
                };
                self.net.push_at(self.net.now(), death);
                std::future::pending().await
            }
            _ => {}
        }
        done.map(Response::new)
    }
}

/// A call that something may go wrong with.
pub(crate) struct Call {
    rpc: Rpc,
    /// For the trace.
    line: String,
    /// The id of what it works on, or the name of what it makes.
    subject: String,
    /// What a new volume is filled from meanwhile.
    source: Option<String>,
}

impl Call {
    fn new(rpc: Rpc, subject: &str, rest: impl fmt::Display) -> Self {
        Self {
            rpc,
            line: format!("{rpc:?} {subject} {rest}"),
            subject: subject.to_owned(),
            source: None,
        }
    }

    /// Calls on different nodes don't know of each other.
    pub(crate) fn on_node(rpc: Rpc, volume: &str, node: &str) -> Self {
        Self {
            subject: format!("{node} {volume}"),
            ..Self::new(rpc, volume, node)
        }
    }
}

/// One call at a time works on a volume or a snapshot; the others are told to come again.
struct Busy {
    backend: Arc<Mutex<Backend>>,
    name: String,
}

impl Busy {
    fn begin(backend: &Arc<Mutex<Backend>>, subject: &str, source: Option<String>) -> Result<Self, Status> {
        let begun = backend.lock().begin(subject, source);
        let name = begun.ok_or_else(|| Status::aborted("another call works on it"))?;
        Ok(Self {
            backend: backend.clone(),
            name,
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.backend.lock().end(&self.name);
    }
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: NAME.to_owned(),
            vendor_version: "1".into(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let kind = service::Type::ControllerService as i32;
        let capability = PluginCapability {
            r#type: Some(plugin_capability::Type::Service(Service { r#type: kind })),
        };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: vec![capability],
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.follow(Call::new(Rpc::Probe, "probe", ""), |_| {
            Ok(ProbeResponse { ready: Some(true) })
        })
        .await
    }
}

macro_rules! not_served {
    ($($method:ident: $request:ty => $response:ty),* $(,)?) => {$(
        fn $method<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        }
    )*};
}

#[tonic::async_trait]
impl Controller for Driver {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let asked = request.capacity_range.map_or(0, |range| range.required_bytes);
        let (name, source) = (request.name, request.volume_content_source);
        let from = source.as_ref().and_then(source_id);
        let told = from
            .as_ref()
            .map(|from| format!(" from {from}"))
            .unwrap_or_default();
        let call = Call {
            source: from,
            ..Call::new(Rpc::CreateVolume, &name, format!("{asked}{told}"))
        };
        self.follow(call, move |backend| backend.create(&name, asked, source.as_ref()))
            .await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        self.follow(Call::new(Rpc::DeleteVolume, &id, ""), move |backend| {
            backend.delete(&id)
        })
        .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (id, node) = (request.volume_id, request.node_id);
        let call = Call::new(Rpc::ControllerPublishVolume, &id, &node);
        self.follow(call, move |backend| backend.publish(&id, &node))
            .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (id, node) = (request.volume_id, request.node_id);
        let call = Call::new(Rpc::ControllerUnpublishVolume, &id, &node);
        self.follow(call, move |backend| Ok(backend.unpublish(&id, &node)))
            .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let can = [
            Capability::CreateDeleteVolume,
            Capability::PublishUnpublishVolume,
            Capability::ExpandVolume,
            Capability::CreateDeleteSnapshot,
            Capability::ListSnapshots,
            Capability::CloneVolume,
        ];
        let capabilities = can.map(|kind| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(ControllerRpc {
                r#type: kind as i32,
            })),
        });
        let capabilities = capabilities.to_vec();
        let call = Call::new(Rpc::ControllerGetCapabilities, "capabilities", "");
        self.follow(call, move |_| {
            Ok(ControllerGetCapabilitiesResponse {
                capabilities: capabilities.clone(),
            })
        })
        .await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.capacity_range.map_or(0, |range| range.required_bytes);
        let id = request.volume_id;
        let call = Call::new(Rpc::ControllerExpandVolume, &id, bytes);
        self.follow(call, move |backend| backend.expand(&id, bytes)).await
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let (name, volume) = (request.name, request.source_volume_id);
        let call = Call::new(Rpc::CreateSnapshot, &name, &volume);
        self.follow(call, move |backend| backend.cut(&name, &volume))
            .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let id = request.into_inner().snapshot_id;
        self.follow(Call::new(Rpc::DeleteSnapshot, &id, ""), move |backend| {
            backend.delete_snapshot(&id)
        })
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let id = request.into_inner().snapshot_id;
        self.follow(Call::new(Rpc::ListSnapshots, &id, ""), move |backend| {
            Ok(backend.list_snapshots(&id))
        })
        .await
    }

    not_served! {
        get_capacity: GetCapacityRequest => GetCapacityResponse,
        validate_volume_capabilities: ValidateVolumeCapabilitiesRequest => ValidateVolumeCapabilitiesResponse,
        list_volumes: ListVolumesRequest => ListVolumesResponse,
        get_snapshot: GetSnapshotRequest => GetSnapshotResponse,
        controller_get_volume: ControllerGetVolumeRequest => ControllerGetVolumeResponse,
        controller_modify_volume: ControllerModifyVolumeRequest => ControllerModifyVolumeResponse,
    }
}
