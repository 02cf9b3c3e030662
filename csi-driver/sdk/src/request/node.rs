//! Requests to the node service.

use std::path::PathBuf;

use moorline_proto::csi;

use super::{
    CapacityRange, Secrets, StringMap, VolumeCapability, VolumeId,
    field::{self, location, optional_path, path},
};
use crate::DriverError;

/// Prepare a volume on this node, once for all its users here.
#[derive(Clone, Debug)]
pub struct NodeStageVolume {
    /// Which volume.
    pub volume_id: VolumeId,
    /// A directory that the caller has made.
    pub staging_target_path: PathBuf,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// What attaching returned.
    pub publish_context: StringMap,
    /// What the driver said about the volume at creation, and what the caller added.
    pub volume_context: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::NodeStageVolumeRequest> for NodeStageVolume {
    type Error = DriverError;

    fn try_from(request: csi::NodeStageVolumeRequest) -> Result<Self, DriverError> {
        Ok(NodeStageVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            staging_target_path: path("staging_target_path", request.staging_target_path)?,
            capability: VolumeCapability::parse_required(request.volume_capability)?,
            publish_context: field::map("publish_context", request.publish_context)?,
            volume_context: field::map("volume_context", request.volume_context)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Undo [`NodeStageVolume`].
#[derive(Clone, Debug)]
pub struct NodeUnstageVolume {
    /// Which volume.
    pub volume_id: VolumeId,
    /// Where it was staged.
    pub staging_target_path: PathBuf,
}

impl TryFrom<csi::NodeUnstageVolumeRequest> for NodeUnstageVolume {
    type Error = DriverError;

    fn try_from(request: csi::NodeUnstageVolumeRequest) -> Result<Self, DriverError> {
        Ok(NodeUnstageVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            staging_target_path: path("staging_target_path", request.staging_target_path)?,
        })
    }
}

/// Make a volume appear at a path, for one workload.
#[derive(Clone, Debug)]
pub struct NodePublishVolume {
    /// Which volume.
    pub volume_id: VolumeId,
    /// Where it is staged; always given to drivers that stage.
    pub staging_target_path: Option<PathBuf>,
    /// Where it shall appear. The caller has made the parent, the driver makes the last element.
    pub target_path: PathBuf,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Must the workload be kept from writing?
    pub is_read_only: bool,
    /// What attaching returned.
    pub publish_context: StringMap,
    /// What the driver said about the volume at creation, and what the caller added.
    pub volume_context: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::NodePublishVolumeRequest> for NodePublishVolume {
    type Error = DriverError;

    fn try_from(request: csi::NodePublishVolumeRequest) -> Result<Self, DriverError> {
        let staging_target_path = optional_path("staging_target_path", request.staging_target_path)?;
        let target_path = path("target_path", request.target_path)?;
        if staging_target_path.as_ref() == Some(&target_path) {
            return Err(DriverError::invalid(
                "target_path and staging_target_path are the same",
            ));
        }
        Ok(NodePublishVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            staging_target_path,
            target_path,
            capability: VolumeCapability::parse_required(request.volume_capability)?,
            is_read_only: request.readonly,
            publish_context: field::map("publish_context", request.publish_context)?,
            volume_context: field::map("volume_context", request.volume_context)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Undo [`NodePublishVolume`].
#[derive(Clone, Debug)]
pub struct NodeUnpublishVolume {
    /// Which volume.
    pub volume_id: VolumeId,
    /// Where it appears.
    pub target_path: PathBuf,
}

impl TryFrom<csi::NodeUnpublishVolumeRequest> for NodeUnpublishVolume {
    type Error = DriverError;

    fn try_from(request: csi::NodeUnpublishVolumeRequest) -> Result<Self, DriverError> {
        Ok(NodeUnpublishVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            target_path: path("target_path", request.target_path)?,
        })
    }
}

/// How full is a volume?
#[derive(Clone, Debug)]
pub struct VolumeStatsQuery {
    /// Which volume.
    pub volume_id: VolumeId,
    /// Where it is said to be staged or published; may be any path.
    pub volume_path: PathBuf,
    /// Where it is staged, if the caller knows.
    pub staging_target_path: Option<PathBuf>,
}

impl TryFrom<csi::NodeGetVolumeStatsRequest> for VolumeStatsQuery {
    type Error = DriverError;

    fn try_from(request: csi::NodeGetVolumeStatsRequest) -> Result<Self, DriverError> {
        Ok(VolumeStatsQuery {
            volume_id: VolumeId::parse(request.volume_id)?,
            volume_path: location("volume_path", request.volume_path)?,
            staging_target_path: optional_path("staging_target_path", request.staging_target_path)?,
        })
    }
}

/// Let the filesystem on this node follow a volume that has grown.
#[derive(Clone, Debug)]
pub struct NodeExpandVolume {
    /// Which volume.
    pub volume_id: VolumeId,
    /// Where it is said to be staged or published; may be any path.
    pub volume_path: PathBuf,
    /// The size to reach, if the caller cares.
    pub capacity: CapacityRange,
    /// Where it is staged, if the caller knows.
    pub staging_target_path: Option<PathBuf>,
    /// How it is used, if the caller knows.
    pub capability: Option<VolumeCapability>,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::NodeExpandVolumeRequest> for NodeExpandVolume {
    type Error = DriverError;

    fn try_from(request: csi::NodeExpandVolumeRequest) -> Result<Self, DriverError> {
        Ok(NodeExpandVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            volume_path: location("volume_path", request.volume_path)?,
            capacity: CapacityRange::parse(request.capacity_range)?,
            staging_target_path: optional_path("staging_target_path", request.staging_target_path)?,
            capability: request
                .volume_capability
                .map(VolumeCapability::parse)
                .transpose()?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}
