//! The node service.

use std::sync::Arc;

use moorline_proto::csi::{self, node_server::Node, volume_usage::Unit};
use tonic::{Request, Response, Status};

use super::{capabilities, check_capabilities, check_capability, controller::NoDebug, read, served};
use crate::{
    DriverError,
    driver::Groups,
    in_flight::Claim,
    operations::Operations,
    request::{
        NodeExpandVolume, NodePublishVolume, NodeStageVolume, NodeUnpublishVolume, NodeUnstageVolume,
        VolumeStatsQuery,
    },
    traits::NodePublishing,
    volume::{NodeDescription, VolumeStats, VolumeUsage, bytes},
};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug)]
pub(crate) struct NodeService {
    node: NoDebug<dyn NodePublishing>,
    groups: Arc<Groups>,
    operations: Operations,
}

impl NodeService {
    pub(crate) fn new(node: Arc<dyn NodePublishing>, groups: Arc<Groups>, operations: Operations) -> Self {
        NodeService {
            node: NoDebug(node),
            groups,
            operations,
        }
    }

    fn check_publish(&self, request: NodePublishVolume) -> Result<NodePublishVolume, DriverError> {
        check_capability(&self.groups, &request.capability)?;
        if self.groups.staging.is_some() && request.staging_target_path.is_none() {
            return Err(DriverError::precondition(
                "staging_target_path is missing; this driver stages volumes",
            ));
        }
        Ok(request)
    }
}

fn node_info(node: NodeDescription) -> Result<csi::NodeGetInfoResponse, DriverError> {
    Ok(csi::NodeGetInfoResponse {
        node_id: node.node_id,
        // 0 is "no limit known" on the wire.
        max_volumes_per_node: node.max_volumes.map_or(Ok(0), bytes)?,
        accessible_topology: node.topology.map(Into::into),
    })
}

fn usage(usage: VolumeUsage, unit: Unit) -> Result<csi::VolumeUsage, DriverError> {
    Ok(csi::VolumeUsage {
        available: bytes(usage.available)?,
        total: bytes(usage.total)?,
        used: bytes(usage.used)?,
        unit: unit.into(),
    })
}

fn stats(stats: VolumeStats) -> Result<csi::NodeGetVolumeStatsResponse, DriverError> {
    let units = [(stats.bytes, Unit::Bytes), (stats.inodes, Unit::Inodes)];
    let known = units
        .into_iter()
        .filter_map(|(amount, unit)| Some((amount?, unit)));
    Ok(csi::NodeGetVolumeStatsResponse {
        usage: known
            .map(|(amount, unit)| usage(amount, unit))
            .collect::<Result<_, _>>()?,
        volume_condition: stats.condition.map(Into::into),
    })
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Answer<csi::NodeStageVolumeResponse> {
        let staging = served(self.groups.staging.as_ref(), "NodeStageVolume")?;
        let request = read::<_, NodeStageVolume>(request)?;
        check_capability(&self.groups, &request.capability)?;
        let claims = vec![Claim::Volume(request.volume_id.to_string())];
        let work = async move {
            staging.stage_volume(request).await?;
            Ok(csi::NodeStageVolumeResponse {})
        };
        self.operations.change("NodeStageVolume", claims, work).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Answer<csi::NodeUnstageVolumeResponse> {
        let staging = served(self.groups.staging.as_ref(), "NodeUnstageVolume")?;
        let request = read::<_, NodeUnstageVolume>(request)?;
        let claims = vec![Claim::Volume(request.volume_id.to_string())];
        let work = async move {
            staging.unstage_volume(request).await?;
            Ok(csi::NodeUnstageVolumeResponse {})
        };
        self.operations.change("NodeUnstageVolume", claims, work).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Answer<csi::NodePublishVolumeResponse> {
        let request =
            read::<_, NodePublishVolume>(request).and_then(|request| self.check_publish(request))?;
        let node = Arc::clone(&self.node.0);
        let claims = vec![Claim::Target(
            request.volume_id.to_string(),
            request.target_path.clone(),
        )];
        let work = async move {
            node.publish_volume(request).await?;
            Ok(csi::NodePublishVolumeResponse {})
        };
        self.operations.change("NodePublishVolume", claims, work).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Answer<csi::NodeUnpublishVolumeResponse> {
        let request = read::<_, NodeUnpublishVolume>(request)?;
        let node = Arc::clone(&self.node.0);
        let claims = vec![Claim::Target(
            request.volume_id.to_string(),
            request.target_path.clone(),
        )];
        let work = async move {
            node.unpublish_volume(request).await?;
            Ok(csi::NodeUnpublishVolumeResponse {})
        };
        self.operations.change("NodeUnpublishVolume", claims, work).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Answer<csi::NodeGetVolumeStatsResponse> {
        let group = served(self.groups.stats.as_ref(), "NodeGetVolumeStats")?;
        let query = read::<_, VolumeStatsQuery>(request)?;
        let volume_id = query.volume_id.clone();
        let work = async { stats(group.volume_stats(query).await?) };
        self.operations
            .look("NodeGetVolumeStats", volume_id.as_str(), work)
            .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Answer<csi::NodeExpandVolumeResponse> {
        let expansion = served(self.groups.node_expansion.as_ref(), "NodeExpandVolume")?;
        let request = read::<_, NodeExpandVolume>(request)?;
        check_capabilities(&self.groups, request.capability.as_slice())?;
        let claims = vec![Claim::Volume(request.volume_id.to_string())];
        let work = async move {
            let size = expansion.expand_volume(request).await?;
            Ok(csi::NodeExpandVolumeResponse {
                capacity_bytes: size.map_or(Ok(0), bytes)?,
            })
        };
        self.operations.change("NodeExpandVolume", claims, work).await
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Answer<csi::NodeGetCapabilitiesResponse> {
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {
            capabilities: capabilities::node(&self.groups),
        }))
    }

    async fn node_get_info(
        &self,
        _request: Request<csi::NodeGetInfoRequest>,
    ) -> Answer<csi::NodeGetInfoResponse> {
        let work = async { node_info(self.node.0.describe_node().await?) };
        self.operations.look("NodeGetInfo", "", work).await
    }
}
