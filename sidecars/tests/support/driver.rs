//! A CSI driver that follows a script: it can fail, lose its answer after doing the work, or hang.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use moorline_proto::csi::controller_server::{Controller, ControllerServer};
use moorline_proto::csi::controller_service_capability::{self, Rpc};
use moorline_proto::csi::group_controller_server::GroupControllerServer;
use moorline_proto::csi::identity_server::{Identity, IdentityServer};
use moorline_proto::csi::plugin_capability::{self, Service, service};
use moorline_proto::csi::*;
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Response, Status};

pub use self::groups::CutGroup;
use super::crash::Crash;

mod groups;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It fails, nothing is done.
    Fail(Code),
    /// It is done, but the answer is an error.
    DoThenFail(Code),
    /// It is done, but no answer comes.
    DoThenHang,
    /// The whole driver dies after doing it.
    DoThenDie,
}

#[derive(Clone, Debug, Default)]
pub struct Made {
    pub id: String,
    pub bytes: i64,
}

/// A snapshot, by its name.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    pub id: String,
    pub volume_id: String,
    /// How often it was asked for.
    pub asked: u32,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, Made>,
    snapshots: BTreeMap<String, Cut>,
    /// Group snapshots by name.
    groups: BTreeMap<String, CutGroup>,
    serves_groups: bool,
    /// Volumes that group snapshots leave out.
    left_out: Vec<String>,
    /// Secrets and parameters of the last call that had some.
    told: BTreeMap<String, String>,
    /// Calls of `CreateSnapshot` after which a snapshot is ready.
    ready_after: u32,
    published: BTreeMap<(String, String), u32>,
    script: HashMap<&'static str, VecDeque<Step>>,
    log: Vec<String>,
    requests: Vec<CreateVolumeRequest>,
    /// Mutable parameters of the last modification.
    parameters: BTreeMap<String, String>,
    /// The parameter `iops` of every modification that was asked for.
    modifications: Vec<String>,
    /// What is wrong with volumes, by their ids.
    conditions: BTreeMap<String, String>,
    capabilities: Vec<i32>,
    topology: Option<HashMap<String, String>>,
    node_expansion: bool,
    /// Bytes to make instead of those asked for.
    bytes: Option<i64>,
    made: u32,
}

#[derive(Clone)]
pub struct Driver {
    state: Arc<Mutex<State>>,
    /// A runtime of its own: dropping it closes all connections at once, as a dying process does.
    serving: Arc<Mutex<Option<Runtime>>>,
    socket: PathBuf,
    /// Where the process that calls it dies.
    crash: Crash,
}

impl Driver {
    pub fn new(socket: PathBuf, capabilities: &[i32], crash: Crash) -> Self {
        let state = State {
            capabilities: capabilities.to_vec(),
            ..Default::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            serving: Arc::default(),
            socket,
            crash,
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn start(&self) {
        std::fs::remove_file(&self.socket).ok(); // There is none the first time.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(&self.socket).expect("bind the driver's socket")
        };
        let server = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(self.clone()))
            .add_service(ControllerServer::new(self.clone()))
            .add_service(GroupControllerServer::new(self.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        *self.serving.lock() = Some(runtime);
    }

    pub async fn stop(&self) {
        if let Some(runtime) = self.serving.lock().take() {
            runtime.shutdown_background();
        }
    }

    pub fn script(&self, rpc: &'static str, steps: &[Step]) {
        self.state.lock().script.entry(rpc).or_default().extend(steps);
    }

    pub fn forget_script(&self) {
        self.state.lock().script.clear();
    }

    /// A volume that exists from the start.
    pub fn make(&self, name: &str, bytes: i64) {
        let mut state = self.state.lock();
        state.made += 1;
        let made = Made {
            id: format!("vol-{}", state.made),
            bytes,
        };
        state.volumes.insert(name.to_string(), made);
    }

    pub fn set_topology(&self, segment: &[(&str, &str)]) {
        let segment = segment
            .iter()
            .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
            .collect();
        self.state.lock().topology = Some(segment);
    }

    pub fn set_node_expansion(&self, needed: bool) {
        self.state.lock().node_expansion = needed;
    }

    /// Something is wrong with a volume, or nothing any more.
    pub fn set_condition(&self, volume_id: &str, trouble: Option<&str>) {
        let mut state = self.state.lock();
        match trouble {
            Some(trouble) => state
                .conditions
                .insert(volume_id.to_string(), trouble.to_string()),
            None => state.conditions.remove(volume_id),
        };
    }

    pub fn set_bytes(&self, bytes: Option<i64>) {
        self.state.lock().bytes = bytes;
    }

    pub fn set_capabilities(&self, capabilities: &[i32]) {
        self.state.lock().capabilities = capabilities.to_vec();
    }

    /// Volumes that exist, by name.
    pub fn volumes(&self) -> BTreeMap<String, Made> {
        self.state.lock().volumes.clone()
    }

    /// Snapshots that exist, by name.
    pub fn snapshots(&self) -> BTreeMap<String, Cut> {
        self.state.lock().snapshots.clone()
    }

    /// A snapshot that exists from the start; its id is its name.
    pub fn cut(&self, name: &str) {
        let cut = Cut {
            id: name.to_string(),
            ..Default::default()
        };
        self.state.lock().snapshots.insert(name.to_string(), cut);
    }

    /// How often a snapshot has to be asked for after the first time until it is ready.
    pub fn set_ready_after(&self, calls: u32) {
        self.state.lock().ready_after = calls;
    }

    /// Volume and node ids of what is published.
    pub fn published(&self) -> Vec<(String, String)> {
        self.state.lock().published.keys().cloned().collect()
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    pub fn calls(&self, rpc: &str) -> usize {
        self.state
            .lock()
            .log
            .iter()
            .filter(|line| line.split(' ').next() == Some(rpc))
            .count()
    }

    /// Mutable parameters of the last modification that was done.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        self.state.lock().parameters.clone()
    }

    /// The parameter `iops` of every modification that was asked for, done or not.
    pub fn modifications(&self) -> Vec<String> {
        self.state.lock().modifications.clone()
    }

    pub fn create_requests(&self) -> Vec<CreateVolumeRequest> {
        self.state.lock().requests.clone()
    }

    /// Does `work` as the script for `rpc` says.
    async fn follow<T>(
        &self,
        rpc: &'static str,
        detail: &str,
        work: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<Response<T>, Status> {
        let action = self
            .crash
            .begin(matches!(
                rpc,
                "CreateVolume"
                    | "DeleteVolume"
                    | "CreateSnapshot"
                    | "DeleteSnapshot"
                    | "CreateVolumeGroupSnapshot"
                    | "DeleteVolumeGroupSnapshot"
            ))
            .await;
        // Whoever sees the call in the log and starts the driver anew must not have that one die in its place.
        let mut dying = None;
        let (step, result) = {
            let mut state = self.state.lock();
            let step = state.script.get_mut(rpc).and_then(VecDeque::pop_front);
            if step == Some(Step::DoThenDie) {
                dying = self.serving.lock().take();
            }
            state.log.push(format!("{rpc} {detail} {step:?}"));
            match step {
                Some(Step::Fail(code)) => return Err(Status::new(code, "scripted failure")),
                _ => (step, work(&mut state)),
            }
        };
        self.crash.end(action).await;
        match step {
            Some(Step::DoThenFail(code)) => Err(Status::new(code, "scripted failure after the work")),
            Some(Step::DoThenHang) => std::future::pending().await,
            Some(Step::DoThenDie) => {
                if let Some(runtime) = dying {
                    runtime.shutdown_background();
                }
                std::future::pending().await
            }
            Some(Step::Fail(_)) | None => result.map(Response::new),
        }
    }
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        let name = super::DRIVER.to_string();
        let info = GetPluginInfoResponse {
            name,
            vendor_version: "1".into(),
            ..Default::default()
        };
        self.follow("GetPluginInfo", "", |_| Ok(info)).await
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let mut services = vec![service::Type::ControllerService];
        if self.state.lock().topology.is_some() {
            services.push(service::Type::VolumeAccessibilityConstraints);
        }
        if self.state.lock().serves_groups {
            services.push(service::Type::GroupControllerService);
        }
        let capabilities = services
            .into_iter()
            .map(|kind| PluginCapability {
                r#type: Some(plugin_capability::Type::Service(Service { r#type: kind as i32 })),
            })
            .collect();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.follow("Probe", "", |_| Ok(ProbeResponse { ready: Some(true) }))
            .await
    }
}

fn condition_of(state: &State, volume_id: &str) -> Option<VolumeCondition> {
    let trouble = state.conditions.get(volume_id);
    Some(VolumeCondition {
        abnormal: trouble.is_some(),
        message: trouble.cloned().unwrap_or_default(),
    })
}

fn volume_of(made: &Made) -> Volume {
    Volume {
        volume_id: made.id.clone(),
        capacity_bytes: made.bytes,
        ..Default::default()
    }
}

fn snapshot_of(cut: &Cut, ready_to_use: bool) -> Snapshot {
    Snapshot {
        snapshot_id: cut.id.clone(),
        source_volume_id: cut.volume_id.clone(),
        size_bytes: 1 << 30,
        ready_to_use,
        ..Default::default()
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
        let name = request.name.clone();
        self.follow("CreateVolume", &name, |state| {
            state.requests.push(request.clone());
            let asked = request
                .capacity_range
                .as_ref()
                .map_or(0, |range| range.required_bytes);
            let bytes = state.bytes.unwrap_or(asked);
            if !state.volumes.contains_key(&name) {
                state.made += 1;
                let made = Made {
                    id: format!("vol-{}", state.made),
                    bytes,
                };
                state.volumes.insert(name.clone(), made);
            }
            let made = state.volumes[&name].clone();
            let volume = Volume {
                volume_id: made.id,
                capacity_bytes: made.bytes,
                volume_context: HashMap::from([("made-by".to_string(), "script".to_string())]),
                content_source: request.volume_content_source.clone(),
                accessible_topology: state
                    .topology
                    .iter()
                    .map(|t| Topology { segments: t.clone() })
                    .collect(),
            };
            Ok(CreateVolumeResponse { volume: Some(volume) })
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        self.follow("DeleteVolume", &id, |state| {
            state.volumes.retain(|_, made| made.id != id);
            Ok(DeleteVolumeResponse {})
        })
        .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.follow("ControllerPublishVolume", &request.volume_id, |state| {
            *state
                .published
                .entry((request.volume_id.clone(), request.node_id.clone()))
                .or_default() += 1;
            let publish_context = HashMap::from([("device".to_string(), "/dev/x".to_string())]);
            Ok(ControllerPublishVolumeResponse { publish_context })
        })
        .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.follow("ControllerUnpublishVolume", &request.volume_id, |state| {
            state
                .published
                .remove(&(request.volume_id.clone(), request.node_id.clone()));
            Ok(ControllerUnpublishVolumeResponse {})
        })
        .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capability = |kind: &i32| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(Rpc { r#type: *kind })),
        };
        let capabilities = self.state.lock().capabilities.iter().map(capability).collect();
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        let request = request.into_inner();
        let iops = request.mutable_parameters.get("iops").cloned();
        self.state.lock().modifications.extend(iops);
        self.follow("ControllerModifyVolume", &request.volume_id, |state| {
            state.parameters = request.mutable_parameters.into_iter().collect();
            Ok(ControllerModifyVolumeResponse {})
        })
        .await
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
        let detail = format!("{} {bytes}", request.volume_id);
        self.follow("ControllerExpandVolume", &detail, |state| {
            let node_expansion_required = state.node_expansion;
            let made = state
                .volumes
                .values_mut()
                .find(|made| made.id == request.volume_id);
            let made = made.ok_or_else(|| Status::not_found("no such volume"))?;
            made.bytes = made.bytes.max(bytes);
            Ok(ControllerExpandVolumeResponse {
                capacity_bytes: made.bytes,
                node_expansion_required,
            })
        })
        .await
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let segment = request
            .into_inner()
            .accessible_topology
            .unwrap_or_default()
            .segments;
        let detail = format!("{segment:?}");
        self.follow("GetCapacity", &detail, |state| {
            let used: i64 = state.volumes.values().map(|made| made.bytes).sum();
            Ok(GetCapacityResponse {
                available_capacity: (100 << 30) - used,
                ..Default::default()
            })
        })
        .await
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        let name = request.name.clone();
        self.follow("CreateSnapshot", &name, |state| {
            let (id, ready_after) = (format!("snap-{}", state.snapshots.len() + 1), state.ready_after);
            let cut = state.snapshots.entry(name.clone()).or_insert_with(|| Cut {
                id,
                volume_id: request.source_volume_id.clone(),
                asked: 0,
            });
            cut.asked += 1;
            let snapshot = snapshot_of(cut, cut.asked > ready_after);
            Ok(CreateSnapshotResponse {
                snapshot: Some(snapshot),
            })
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let id = request.into_inner().snapshot_id;
        self.follow("DeleteSnapshot", &id, |state| {
            state.snapshots.retain(|_, cut| cut.id != id);
            Ok(DeleteSnapshotResponse {})
        })
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let id = request.into_inner().snapshot_id;
        self.follow("ListSnapshots", &id, |state| {
            let found = state.snapshots.values().filter(|cut| cut.id == id);
            let entries = found
                .map(|cut| list_snapshots_response::Entry {
                    snapshot: Some(snapshot_of(cut, true)),
                })
                .collect();
            Ok(ListSnapshotsResponse {
                entries,
                ..Default::default()
            })
        })
        .await
    }

    /// In pages of one volume.
    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let token = request.into_inner().starting_token;
        self.follow("ListVolumes", &token, |state| {
            let start = token.parse().unwrap_or(0);
            let entries = state.volumes.values().skip(start).take(1);
            let entries: Vec<_> = entries
                .map(|made| list_volumes_response::Entry {
                    volume: Some(volume_of(made)),
                    status: Some(list_volumes_response::VolumeStatus {
                        volume_condition: condition_of(state, &made.id),
                        ..Default::default()
                    }),
                })
                .collect();
            let next = start + 1;
            let is_end = next >= state.volumes.len();
            Ok(ListVolumesResponse {
                entries,
                next_token: if is_end { String::new() } else { next.to_string() },
            })
        })
        .await
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let id = request.into_inner().volume_id;
        self.follow("ControllerGetVolume", &id, |state| {
            let found = state.volumes.values().find(|made| made.id == id);
            let made = found.ok_or_else(|| Status::not_found("no such volume"))?;
            Ok(ControllerGetVolumeResponse {
                volume: Some(volume_of(made)),
                status: Some(controller_get_volume_response::VolumeStatus {
                    volume_condition: condition_of(state, &id),
                    ..Default::default()
                }),
            })
        })
        .await
    }

    not_served! {
        validate_volume_capabilities: ValidateVolumeCapabilitiesRequest => ValidateVolumeCapabilitiesResponse,
        get_snapshot: GetSnapshotRequest => GetSnapshotResponse,
    }
}
