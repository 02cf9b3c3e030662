//! The simulated CSI driver: a backend that survives its process, and calls that go wrong as the plan says.
//!
//! The backend keeps the promises of CSI (idempotent by name and id, `DeleteVolume` refused while published) and takes
//! down every call that no correct caller would make.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

use crate::net::{Event, Net, ProcId};
use crate::plan::{Rpc, RpcFault};

/// The driver's name.
pub(crate) const NAME: &str = "sim.moorline.io";
/// How long a call takes that nothing is wrong with.
const WORK: Duration = Duration::from_millis(5);
/// How long a driver stays away that died in a call.
const DOWN_MILLIS: u64 = 2_000;

/// One volume of the backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackendVolume {
    pub(crate) name: String,
    pub(crate) bytes: i64,
    pub(crate) published: BTreeSet<String>,
    pub(crate) is_static: bool,
}

/// What the driver's processes leave behind.
#[derive(Debug, Default)]
pub(crate) struct Backend {
    pub(crate) volumes: BTreeMap<String, BackendVolume>,
    made: u32,
    faults: Vec<(Rpc, RpcFault)>,
    /// Names of the volumes that a call is working on.
    busy: BTreeSet<String>,
    /// What the machines hold: node and volume.
    pub(crate) staged: BTreeSet<(String, String)>,
    /// And what is mounted for pods there: node, then pod and volume.
    pub(crate) mounts: BTreeSet<(String, (String, String))>,
    /// Volumes that went since this was last asked.
    pub(crate) deleted: Vec<String>,
    /// What no correct caller would have asked for.
    pub(crate) broken: Vec<String>,
}

impl Backend {
    /// A volume that an admin has made by hand.
    pub(crate) fn make_static(&mut self, n: u32, bytes: i64) -> String {
        let id = format!("static-{n}");
        let volume = BackendVolume {
            name: id.clone(),
            bytes,
            is_static: true,
            ..BackendVolume::default()
        };
        self.volumes.entry(id.clone()).or_insert(volume);
        id
    }

    /// A node stages a volume.
    pub(crate) fn node_stage(&mut self, node: &str, handle: &str) {
        let is_attached = self
            .volumes
            .get(handle)
            .is_some_and(|volume| volume.published.contains(node));
        if !is_attached {
            self.broken
                .push(format!("{node} stages {handle}, which is not published there"));
        }
        if let Some((other, _)) = self
            .staged
            .iter()
            .find(|(other, held)| held == handle && other != node)
        {
            self.broken
                .push(format!("{node} stages {handle} while {other} has it staged"));
        }
        self.staged.insert((node.to_owned(), handle.to_owned()));
    }

    /// A node mounts a volume for a pod.
    pub(crate) fn node_publish(&mut self, node: &str, mount: &(String, String)) {
        self.mounts.insert((node.to_owned(), mount.clone()));
    }

    /// A node takes a volume from a pod.
    pub(crate) fn node_unpublish(&mut self, node: &str, mount: &(String, String)) {
        self.mounts.remove(&(node.to_owned(), mount.clone()));
    }

    /// A node is done with a volume.
    pub(crate) fn node_unstage(&mut self, node: &str, handle: &str) {
        if self
            .mounts
            .iter()
            .any(|(on, (_, held))| on == node && held == handle)
        {
            self.broken
                .push(format!("{node} unstages {handle}, which is mounted"));
        }
        self.staged.remove(&(node.to_owned(), handle.to_owned()));
    }

    /// A machine lost its power.
    pub(crate) fn node_dies(&mut self, node: &str) {
        self.mounts.retain(|(on, _)| on != node);
        self.staged.retain(|(on, _)| on != node);
    }

    pub(crate) fn add_fault(&mut self, rpc: Rpc, fault: RpcFault) {
        self.faults.push((rpc, fault));
    }

    pub(crate) fn calm(&mut self) {
        self.faults.clear();
    }

    fn take_fault(&mut self, rpc: Rpc) -> Option<RpcFault> {
        let found = self.faults.iter().position(|(target, _)| *target == rpc)?;
        Some(self.faults.remove(found).1)
    }
}

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

    /// Does `work` as the plan says. What takes long goes on when the caller has given up, and the volume is busy
    /// as long as it does.
    async fn follow<T: Send + 'static>(
        &self,
        rpc: Rpc,
        (line, volume): (String, String),
        work: impl Fn(&mut Backend) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let fault = self.backend.lock().take_fault(rpc);
        self.net.trace(|| {
            let fault = fault.map(|fault| format!(" {fault:?}")).unwrap_or_default();
            format!("Driver {line}{fault}")
        });
        let busy = Busy::begin(&self.backend, volume)?;
        tokio::time::sleep(WORK).await;
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

/// One call at a time works on a volume; the others are told to come again.
struct Busy {
    backend: Arc<Mutex<Backend>>,
    volume: String,
}

impl Busy {
    /// `volume` is its id, or its name while it is being made.
    fn begin(backend: &Arc<Mutex<Backend>>, volume: String) -> Result<Self, Status> {
        let mut held = backend.lock();
        let name = held
            .volumes
            .get(&volume)
            .map_or(volume, |known| known.name.clone());
        if !held.busy.insert(name.clone()) {
            return Err(Status::aborted("another call works on the volume"));
        }
        drop(held);
        Ok(Self {
            backend: backend.clone(),
            volume: name,
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.backend.lock().busy.remove(&self.volume);
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
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
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
        let asked = request
            .capacity_range
            .as_ref()
            .map_or(0, |range| range.required_bytes);
        let name = request.name;
        let what = (format!("CreateVolume {name} {asked}"), name.clone());
        self.follow(Rpc::CreateVolume, what, move |backend| {
            Ok(create(backend, &name, asked))
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        let what = (format!("DeleteVolume {id}"), id.clone());
        self.follow(Rpc::DeleteVolume, what, move |backend| delete(backend, &id))
            .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (id, node) = (request.volume_id, request.node_id);
        let what = (format!("ControllerPublishVolume {id} {node}"), id.clone());
        self.follow(Rpc::ControllerPublishVolume, what, move |backend| {
            publish(backend, &id, &node)
        })
        .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let (id, node) = (request.volume_id, request.node_id);
        let what = (format!("ControllerUnpublishVolume {id} {node}"), id.clone());
        self.follow(Rpc::ControllerUnpublishVolume, what, move |backend| {
            if backend.staged.contains(&(node.clone(), id.clone())) {
                backend.broken.push(format!(
                    "ControllerUnpublishVolume of {id} from {node}, where it is staged"
                ));
            }
            if let Some(volume) = backend.volumes.get_mut(&id) {
                volume.published.remove(&node);
            }
            Ok(ControllerUnpublishVolumeResponse {})
        })
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
        ];
        let capabilities = can.map(|kind| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(ControllerRpc {
                r#type: kind as i32,
            })),
        });
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: capabilities.to_vec(),
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let bytes = request
            .capacity_range
            .as_ref()
            .map_or(0, |range| range.required_bytes);
        let id = request.volume_id;
        let what = (format!("ControllerExpandVolume {id} {bytes}"), id.clone());
        self.follow(Rpc::ControllerExpandVolume, what, move |backend| {
            let volume = backend.volumes.get_mut(&id);
            let volume = volume.ok_or_else(|| Status::not_found("no such volume"))?;
            volume.bytes = volume.bytes.max(bytes);
            Ok(ControllerExpandVolumeResponse {
                capacity_bytes: volume.bytes,
                node_expansion_required: false,
            })
        })
        .await
    }

    not_served! {
        get_capacity: GetCapacityRequest => GetCapacityResponse,
        validate_volume_capabilities: ValidateVolumeCapabilitiesRequest => ValidateVolumeCapabilitiesResponse,
        list_volumes: ListVolumesRequest => ListVolumesResponse,
        create_snapshot: CreateSnapshotRequest => CreateSnapshotResponse,
        delete_snapshot: DeleteSnapshotRequest => DeleteSnapshotResponse,
        list_snapshots: ListSnapshotsRequest => ListSnapshotsResponse,
        get_snapshot: GetSnapshotRequest => GetSnapshotResponse,
        controller_get_volume: ControllerGetVolumeRequest => ControllerGetVolumeResponse,
        controller_modify_volume: ControllerModifyVolumeRequest => ControllerModifyVolumeResponse,
    }
}

fn create(backend: &mut Backend, name: &str, bytes: i64) -> CreateVolumeResponse {
    let known = backend.volumes.iter().find(|(_, volume)| volume.name == name);
    let (id, bytes) = match known {
        Some((id, volume)) => (id.clone(), volume.bytes),
        None => {
            backend.made += 1;
            let id = format!("vol-{}", backend.made);
            let volume = BackendVolume {
                name: name.to_owned(),
                bytes,
                ..BackendVolume::default()
            };
            backend.volumes.insert(id.clone(), volume);
            (id, bytes)
        }
    };
    CreateVolumeResponse {
        volume: Some(Volume {
            volume_id: id,
            capacity_bytes: bytes,
            volume_context: HashMap::new(),
            content_source: None,
            accessible_topology: Vec::new(),
        }),
    }
}

fn delete(backend: &mut Backend, id: &str) -> Result<DeleteVolumeResponse, Status> {
    if let Some((node, _)) = backend.staged.iter().find(|(_, held)| held == id) {
        backend
            .broken
            .push(format!("DeleteVolume {id} while {node} has it staged"));
    }
    if let Some(volume) = backend.volumes.get(id) {
        if !volume.published.is_empty() {
            let line = format!(
                "DeleteVolume {id} while it is published on {:?}",
                volume.published
            );
            backend.broken.push(line);
            return Err(Status::failed_precondition("the volume is in use"));
        }
        backend.volumes.remove(id);
        backend.deleted.push(id.to_owned());
    }
    Ok(DeleteVolumeResponse {})
}

fn publish(backend: &mut Backend, id: &str, node: &str) -> Result<ControllerPublishVolumeResponse, Status> {
    let volume = backend.volumes.get_mut(id);
    let volume = volume.ok_or_else(|| Status::not_found("no such volume"))?;
    if let Some(other) = volume.published.iter().find(|other| *other != node) {
        let line = format!("ControllerPublishVolume of {id} on {node} while it is on {other}");
        backend.broken.push(line);
        return Err(Status::failed_precondition("the volume is published elsewhere"));
    }
    volume.published.insert(node.to_owned());
    Ok(ControllerPublishVolumeResponse::default())
}
