//! Requests to the group controller.

use moorline_proto::csi;

use super::{
    GroupSnapshotId, Secrets, SnapshotId, StringMap, VolumeId,
    field::{self, id, unique},
};
use crate::DriverError;

/// Cut several volumes at one point in time. Idempotent by name.
#[derive(Clone, Debug)]
pub struct CreateGroupSnapshot {
    /// The caller's name for it.
    pub name: String,
    /// Of which volumes; at least one, none twice.
    pub source_volume_ids: Vec<VolumeId>,
    /// The driver's own parameters.
    pub parameters: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::CreateVolumeGroupSnapshotRequest> for CreateGroupSnapshot {
    type Error = DriverError;

    fn try_from(request: csi::CreateVolumeGroupSnapshotRequest) -> Result<Self, DriverError> {
        let sources = request
            .source_volume_ids
            .into_iter()
            .map(|id| VolumeId::parse_field("source_volume_ids", id))
            .collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() {
            return Err(DriverError::invalid("source_volume_ids is missing"));
        }
        Ok(CreateGroupSnapshot {
            name: id("name", request.name)?,
            source_volume_ids: unique("source_volume_ids", sources)?,
            parameters: field::map("parameters", request.parameters)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Remove a group and all its snapshots.
#[derive(Clone, Debug)]
pub struct DeleteGroupSnapshot {
    /// Which group.
    pub group_snapshot_id: GroupSnapshotId,
    /// The snapshots that the caller believes to be in it; none twice. A driver that keeps the members itself refuses
    /// a list that names others.
    pub snapshot_ids: Vec<SnapshotId>,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::DeleteVolumeGroupSnapshotRequest> for DeleteGroupSnapshot {
    type Error = DriverError;

    fn try_from(request: csi::DeleteVolumeGroupSnapshotRequest) -> Result<Self, DriverError> {
        Ok(DeleteGroupSnapshot {
            group_snapshot_id: GroupSnapshotId::parse(request.group_snapshot_id)?,
            snapshot_ids: members(request.snapshot_ids)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Look a group up.
#[derive(Clone, Debug)]
pub struct GetGroupSnapshot {
    /// Which group.
    pub group_snapshot_id: GroupSnapshotId,
    /// The snapshots that the caller believes to be in it; none twice.
    pub snapshot_ids: Vec<SnapshotId>,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::GetVolumeGroupSnapshotRequest> for GetGroupSnapshot {
    type Error = DriverError;

    fn try_from(request: csi::GetVolumeGroupSnapshotRequest) -> Result<Self, DriverError> {
        Ok(GetGroupSnapshot {
            group_snapshot_id: GroupSnapshotId::parse(request.group_snapshot_id)?,
            snapshot_ids: members(request.snapshot_ids)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

fn members(ids: Vec<String>) -> Result<Vec<SnapshotId>, DriverError> {
    let ids = ids
        .into_iter()
        .map(|id| SnapshotId::parse_field("snapshot_ids", id))
        .collect::<Result<Vec<_>, _>>()?;
    unique("snapshot_ids", ids)
}
