//! The group controller service.

use std::sync::Arc;

use moorline_proto::csi::{
    self, GroupControllerServiceCapability,
    group_controller_server::GroupController,
    group_controller_service_capability::{Rpc, Type, rpc},
};
use tonic::{Request, Response, Status};

use super::{controller::NoDebug, read};
use crate::{
    in_flight::Claim,
    operations::Operations,
    request::{CreateGroupSnapshot, DeleteGroupSnapshot, GetGroupSnapshot},
    traits::GroupSnapshots,
};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug)]
pub(crate) struct GroupControllerService {
    group_snapshots: NoDebug<dyn GroupSnapshots>,
    operations: Operations,
}

impl GroupControllerService {
    pub(crate) fn new(group_snapshots: Arc<dyn GroupSnapshots>, operations: Operations) -> Self {
        GroupControllerService {
            group_snapshots: NoDebug(group_snapshots),
            operations,
        }
    }
}

#[tonic::async_trait]
impl GroupController for GroupControllerService {
    async fn group_controller_get_capabilities(
        &self,
        _request: Request<csi::GroupControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::GroupControllerGetCapabilitiesResponse> {
        Ok(Response::new(csi::GroupControllerGetCapabilitiesResponse {
            capabilities: vec![GroupControllerServiceCapability {
                r#type: Some(Type::Rpc(Rpc {
                    r#type: rpc::Type::CreateDeleteGetVolumeGroupSnapshot.into(),
                })),
            }],
        }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<csi::CreateVolumeGroupSnapshotRequest>,
    ) -> Answer<csi::CreateVolumeGroupSnapshotResponse> {
        let request = read::<_, CreateGroupSnapshot>(request)?;
        let group_snapshots = Arc::clone(&self.group_snapshots.0);
        let sources = request.source_volume_ids.iter();
        let claims = std::iter::once(Claim::GroupName(request.name.clone()))
            .chain(sources.map(|volume_id| Claim::VolumeSource(volume_id.to_string())))
            .collect();
        let work = async move {
            let group = group_snapshots.create_group_snapshot(request).await?;
            Ok(csi::CreateVolumeGroupSnapshotResponse {
                group_snapshot: Some(group.try_into()?),
            })
        };
        self.operations
            .change("CreateVolumeGroupSnapshot", claims, work)
            .await
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<csi::DeleteVolumeGroupSnapshotRequest>,
    ) -> Answer<csi::DeleteVolumeGroupSnapshotResponse> {
        let request = read::<_, DeleteGroupSnapshot>(request)?;
        let group_snapshots = Arc::clone(&self.group_snapshots.0);
        let members = request.snapshot_ids.iter();
        let claims = std::iter::once(Claim::Group(request.group_snapshot_id.to_string()))
            .chain(members.map(|snapshot_id| Claim::Snapshot(snapshot_id.to_string())))
            .collect();
        let work = async move {
            group_snapshots.delete_group_snapshot(request).await?;
            Ok(csi::DeleteVolumeGroupSnapshotResponse {})
        };
        self.operations
            .change("DeleteVolumeGroupSnapshot", claims, work)
            .await
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<csi::GetVolumeGroupSnapshotRequest>,
    ) -> Answer<csi::GetVolumeGroupSnapshotResponse> {
        let request = read::<_, GetGroupSnapshot>(request)?;
        let group_snapshot_id = request.group_snapshot_id.clone();
        let work = async {
            let group = self.group_snapshots.0.get_group_snapshot(request).await?;
            Ok(csi::GetVolumeGroupSnapshotResponse {
                group_snapshot: Some(group.try_into()?),
            })
        };
        self.operations
            .look("GetVolumeGroupSnapshot", group_snapshot_id.as_str(), work)
            .await
    }
}
