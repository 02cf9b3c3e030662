//! The driver's node service: it mounts by writing down what is mounted.

use moorline_proto::csi::node_server::{Node, NodeServer};
use moorline_proto::csi::node_service_capability::{self, Rpc as NodeRpc, rpc::Type as Capability};
use moorline_proto::csi::*;
use tokio::io::DuplexStream;
use tonic::{Request, Response, Status};

use crate::backend::Backend;
use crate::driver::{Call, Driver};
use crate::plan::Rpc;

/// The service of one node.
#[derive(Clone)]
struct NodeService {
    driver: Driver,
    node: &'static str,
}

/// Serves one connection until it ends.
pub(super) async fn serve(driver: Driver, node: &'static str, stream: DuplexStream) {
    let service = NodeServer::new(NodeService { driver, node });
    let connections = futures::stream::once(async move { Ok::<_, std::io::Error>(stream) });
    let served = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(connections);
    // A connection that breaks is the kubelet's business.
    served.await.ok();
}

/// The pod that a directory below its own is for.
fn pod_of(target: &str) -> Result<String, Status> {
    let mut parts = target.split('/').skip_while(|part| *part != "pods");
    let uid = parts.nth(1).filter(|uid| !uid.is_empty());
    uid.map(str::to_owned)
        .ok_or_else(|| Status::invalid_argument(format!("{target} is no directory of a pod")))
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let (id, node) = (request.into_inner().volume_id, self.node);
        let call = Call::on_node(Rpc::NodeStageVolume, &id, node);
        let work = move |backend: &mut Backend| {
            if !backend.volumes.contains_key(&id) {
                return Err(Status::not_found("no such volume"));
            }
            backend.node_stage(node, &id);
            Ok(NodeStageVolumeResponse {})
        };
        self.driver.follow(call, work).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let (id, node) = (request.into_inner().volume_id, self.node);
        let call = Call::on_node(Rpc::NodeUnstageVolume, &id, node);
        let work = move |backend: &mut Backend| {
            backend.node_unstage(node, &id);
            Ok(NodeUnstageVolumeResponse {})
        };
        self.driver.follow(call, work).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let (request, node) = (request.into_inner(), self.node);
        let mount = (pod_of(&request.target_path)?, request.volume_id);
        let call = Call::on_node(Rpc::NodePublishVolume, &mount.1, node);
        let work = move |backend: &mut Backend| {
            if !backend.staged.contains(&(node.to_owned(), mount.1.clone())) {
                let line = format!("{node} publishes {}, which is not staged there", mount.1);
                backend.broken.push(line);
                return Err(Status::failed_precondition("the volume is not staged"));
            }
            backend.node_publish(node, &mount);
            Ok(NodePublishVolumeResponse {})
        };
        self.driver.follow(call, work).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let (request, node) = (request.into_inner(), self.node);
        let mount = (pod_of(&request.target_path)?, request.volume_id);
        let call = Call::on_node(Rpc::NodeUnpublishVolume, &mount.1, node);
        let work = move |backend: &mut Backend| {
            backend.node_unpublish(node, &mount);
            Ok(NodeUnpublishVolumeResponse {})
        };
        self.driver.follow(call, work).await
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        Err(Status::unimplemented("NodeGetVolumeStats"))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let (request, node) = (request.into_inner(), self.node);
        let (id, range) = (request.volume_id, request.capacity_range);
        let bytes = range.map_or(0, |range| range.required_bytes);
        let call = Call::on_node(Rpc::NodeExpandVolume, &id, node);
        let work = move |backend: &mut Backend| backend.grow(node, &id, bytes);
        self.driver.follow(call, work).await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let can = [Capability::StageUnstageVolume, Capability::ExpandVolume];
        let capabilities = can.map(|kind| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(NodeRpc {
                r#type: kind as i32,
            })),
        });
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: capabilities.to_vec(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node.to_owned(),
            ..Default::default()
        }))
    }
}
