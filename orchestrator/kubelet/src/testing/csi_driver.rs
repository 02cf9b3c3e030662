//! A CSI node service with real mounts and scripted failures, on a unix socket.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use moorline_proto::csi;
use moorline_proto::csi::node_server::{Node, NodeServer};
use moorline_proto::csi::node_service_capability::{Rpc, Type, rpc};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status};

/// Name of the driver.
pub(crate) const NAME: &str = "test.csi.example";

/// When a scripted failure happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    /// The work is done, the answer is lost.
    After,
}

#[derive(Default)]
struct Shared {
    calls: Vec<String>,
    contexts: Vec<HashMap<String, String>>,
    failures: HashMap<&'static str, VecDeque<(Moment, Code)>>,
}

/// The driver, as the test sees it.
#[derive(Clone)]
pub(crate) struct Driver {
    pub socket: PathBuf,
    backend: PathBuf,
    stages: bool,
    shared: Arc<Mutex<Shared>>,
}

impl Driver {
    /// Listens below `directory` until `stop`.
    pub(crate) fn start(
        directory: &Path,
        stages: bool,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let driver = Self {
            socket: directory.join("csi.sock"),
            backend: directory.join("backend"),
            stages,
            shared: Arc::default(),
        };
        let listener = UnixListener::bind(&driver.socket).unwrap();
        let server = tonic::transport::Server::builder().add_service(NodeServer::new(driver.clone()));
        let stop = stop.clone();
        tasks.spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            server
                .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
                .await
                .unwrap();
        });
        driver
    }

    /// The next call of `method` fails so; several are used up one by one.
    pub(crate) fn fail(&self, method: &'static str, moment: Moment, code: Code) {
        self.shared
            .lock()
            .failures
            .entry(method)
            .or_default()
            .push_back((moment, code));
    }

    /// Method and volume of each call so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.shared.lock().calls.clone()
    }

    /// Volume contexts of the publish calls so far.
    pub(crate) fn contexts(&self) -> Vec<HashMap<String, String>> {
        self.shared.lock().contexts.clone()
    }

    /// Where the data of a volume really is.
    pub(crate) fn data(&self, volume_id: &str) -> PathBuf {
        self.backend.join(volume_id)
    }

    fn call<T>(
        &self,
        method: &'static str,
        volume_id: &str,
        work: impl FnOnce() -> T,
    ) -> Result<Response<T>, Status> {
        let failure = {
            let mut shared = self.shared.lock();
            shared.calls.push(format!("{method} {volume_id}"));
            shared.failures.get_mut(method).and_then(VecDeque::pop_front)
        };
        match failure {
            Some((Moment::Before, code)) => Err(Status::new(code, "scripted")),
            Some((Moment::After, code)) => {
                work();
                Err(Status::new(code, "scripted"))
            }
            None => Ok(Response::new(work())),
        }
    }

    fn mount(&self, volume_id: &str, target: &str) {
        let data = self.data(volume_id);
        std::fs::create_dir_all(&data).unwrap();
        std::fs::create_dir_all(target).unwrap();
        if !moorline_mount::mount::is_mount_point(target).unwrap() {
            moorline_mount::mount::bind(&data, target, false).unwrap();
        }
    }
}

fn unmount(target: &str) {
    while moorline_mount::mount::is_mount_point(target).unwrap() {
        moorline_mount::mount::unmount(target).unwrap();
    }
}

fn is_block(capability: Option<&csi::VolumeCapability>) -> bool {
    let kind = capability.and_then(|capability| capability.access_type.as_ref());
    matches!(kind, Some(csi::volume_capability::AccessType::Block(_)))
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call("stage", &request.volume_id, || {
            assert!(
                Path::new(&request.staging_target_path).is_dir(),
                "the kubelet makes the staging directory"
            );
            if !is_block(request.volume_capability.as_ref()) {
                self.mount(&request.volume_id, &request.staging_target_path);
            }
            csi::NodeStageVolumeResponse {}
        })
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call("unstage", &request.volume_id, || {
            unmount(&request.staging_target_path);
            csi::NodeUnstageVolumeResponse {}
        })
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.shared.lock().contexts.push(request.volume_context.clone());
        self.call("publish", &request.volume_id, || {
            if is_block(request.volume_capability.as_ref()) {
                std::fs::write(&request.target_path, "").unwrap();
                moorline_mount::mount::bind("/dev/null", &request.target_path, false).unwrap();
            } else {
                self.mount(&request.volume_id, &request.target_path);
            }
            csi::NodePublishVolumeResponse {}
        })
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call("unpublish", &request.volume_id, || {
            unmount(&request.target_path);
            csi::NodeUnpublishVolumeResponse {}
        })
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        self.call(
            "stats",
            &request.into_inner().volume_id,
            csi::NodeGetVolumeStatsResponse::default,
        )
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.capacity_range.map_or(0, |range| range.required_bytes);
        self.call("expand", &format!("{} to {bytes}", request.volume_id), || {
            csi::NodeExpandVolumeResponse {
                capacity_bytes: bytes,
            }
        })
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        let capability = |kind: rpc::Type| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
        };
        let mut capabilities = vec![
            capability(rpc::Type::ExpandVolume),
            capability(rpc::Type::GetVolumeStats),
        ];
        if self.stages {
            capabilities.push(capability(rpc::Type::StageUnstageVolume));
        }
        Ok(Response::new(csi::NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _request: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: "id-1".into(),
            ..Default::default()
        }))
    }
}
