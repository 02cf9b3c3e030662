//! Requests about snapshots.

use moorline_proto::csi;

use super::{
    ListPage, Secrets, SnapshotId, StringMap, VolumeId,
    field::{self, id},
};
use crate::DriverError;

/// Cut a snapshot. Idempotent by name.
#[derive(Clone, Debug)]
pub struct CreateSnapshot {
    /// The caller's name for it.
    pub name: String,
    /// Of which volume.
    pub source_volume_id: VolumeId,
    /// The driver's own parameters.
    pub parameters: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::CreateSnapshotRequest> for CreateSnapshot {
    type Error = DriverError;

    fn try_from(request: csi::CreateSnapshotRequest) -> Result<Self, DriverError> {
        Ok(CreateSnapshot {
            name: id("name", request.name)?,
            source_volume_id: VolumeId::parse_field("source_volume_id", request.source_volume_id)?,
            parameters: field::map("parameters", request.parameters)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Remove a snapshot.
#[derive(Clone, Debug)]
pub struct DeleteSnapshot {
    /// Which.
    pub snapshot_id: SnapshotId,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::DeleteSnapshotRequest> for DeleteSnapshot {
    type Error = DriverError;

    fn try_from(request: csi::DeleteSnapshotRequest) -> Result<Self, DriverError> {
        Ok(DeleteSnapshot {
            snapshot_id: SnapshotId::parse(request.snapshot_id)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// One page of the list of snapshots, all or those that fit.
#[derive(Clone, Debug)]
pub struct SnapshotQuery {
    /// Which page.
    pub page: ListPage,
    /// Only those of this volume.
    pub source_volume_id: Option<VolumeId>,
    /// Only this one.
    pub snapshot_id: Option<SnapshotId>,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::ListSnapshotsRequest> for SnapshotQuery {
    type Error = DriverError;

    fn try_from(request: csi::ListSnapshotsRequest) -> Result<Self, DriverError> {
        let (source, snapshot) = (request.source_volume_id, request.snapshot_id);
        Ok(SnapshotQuery {
            page: ListPage::parse(request.max_entries, request.starting_token)?,
            source_volume_id: (!source.is_empty())
                .then(|| VolumeId::parse_field("source_volume_id", source))
                .transpose()?,
            snapshot_id: (!snapshot.is_empty())
                .then(|| SnapshotId::parse(snapshot))
                .transpose()?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Look a snapshot up.
#[derive(Clone, Debug)]
pub struct GetSnapshot {
    /// Which.
    pub snapshot_id: SnapshotId,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::GetSnapshotRequest> for GetSnapshot {
    type Error = DriverError;

    fn try_from(request: csi::GetSnapshotRequest) -> Result<Self, DriverError> {
        Ok(GetSnapshot {
            snapshot_id: SnapshotId::parse(request.snapshot_id)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}
