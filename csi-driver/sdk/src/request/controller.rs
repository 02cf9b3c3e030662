//! Requests to the controller service.

use moorline_proto::csi;

use super::{
    CapacityRange, Secrets, SnapshotId, StringMap, Topology, TopologyRequirement, VolumeCapability, VolumeId,
    field::{self, id, node_id, optional_text},
};
use crate::DriverError;

/// Make a volume. Idempotent by name.
#[derive(Clone, Debug)]
pub struct CreateVolume {
    /// The caller's name for it.
    pub name: String,
    /// How large.
    pub capacity: CapacityRange,
    /// All the ways in which it must be usable; at least one.
    pub capabilities: Vec<VolumeCapability>,
    /// The driver's own parameters.
    pub parameters: StringMap,
    /// Parameters that may be changed later. Empty for drivers without MODIFY_VOLUME.
    pub mutable_parameters: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
    /// What it shall contain; `None` for drivers that can neither clone nor restore.
    pub content_source: Option<ContentSource>,
    /// From where it must be reachable; `None` for drivers without topology.
    pub topology: Option<TopologyRequirement>,
}

/// Where the content of a new volume comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentSource {
    /// The snapshot with this id.
    Snapshot(SnapshotId),
    /// The volume with this id.
    Volume(VolumeId),
}

impl ContentSource {
    fn parse(source: csi::VolumeContentSource) -> Result<Self, DriverError> {
        use csi::volume_content_source::Type;
        match source.r#type {
            Some(Type::Snapshot(snapshot)) => {
                SnapshotId::parse(snapshot.snapshot_id).map(ContentSource::Snapshot)
            }
            Some(Type::Volume(volume)) => VolumeId::parse(volume.volume_id).map(ContentSource::Volume),
            None => Err(DriverError::invalid(
                "volume_content_source has neither snapshot nor volume",
            )),
        }
    }
}

impl From<ContentSource> for csi::VolumeContentSource {
    fn from(source: ContentSource) -> Self {
        use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
        let source = match source {
            ContentSource::Snapshot(snapshot_id) => Type::Snapshot(SnapshotSource {
                snapshot_id: snapshot_id.into(),
            }),
            ContentSource::Volume(volume_id) => Type::Volume(VolumeSource {
                volume_id: volume_id.into(),
            }),
        };
        csi::VolumeContentSource { r#type: Some(source) }
    }
}

impl TryFrom<csi::CreateVolumeRequest> for CreateVolume {
    type Error = DriverError;

    fn try_from(request: csi::CreateVolumeRequest) -> Result<Self, DriverError> {
        Ok(CreateVolume {
            name: id("name", request.name)?,
            capacity: CapacityRange::parse(request.capacity_range)?,
            capabilities: VolumeCapability::parse_for_one_volume(request.volume_capabilities)?,
            parameters: field::map("parameters", request.parameters)?,
            mutable_parameters: field::map("mutable_parameters", request.mutable_parameters)?,
            secrets: field::secrets(request.secrets)?,
            content_source: request
                .volume_content_source
                .map(ContentSource::parse)
                .transpose()?,
            topology: request
                .accessibility_requirements
                .map(TopologyRequirement::parse)
                .transpose()?,
        })
    }
}

/// Remove a volume.
#[derive(Clone, Debug)]
pub struct DeleteVolume {
    /// Which.
    pub volume_id: VolumeId,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::DeleteVolumeRequest> for DeleteVolume {
    type Error = DriverError;

    fn try_from(request: csi::DeleteVolumeRequest) -> Result<Self, DriverError> {
        Ok(DeleteVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Can the volume be used in these ways?
#[derive(Clone, Debug)]
pub struct ValidateCapabilities {
    /// Which volume.
    pub volume_id: VolumeId,
    /// What the driver said about it at creation.
    pub volume_context: StringMap,
    /// The ways; at least one.
    pub capabilities: Vec<VolumeCapability>,
    /// The parameters that it is thought to have.
    pub parameters: StringMap,
    /// The mutable parameters that it is thought to have.
    pub mutable_parameters: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::ValidateVolumeCapabilitiesRequest> for ValidateCapabilities {
    type Error = DriverError;

    fn try_from(request: csi::ValidateVolumeCapabilitiesRequest) -> Result<Self, DriverError> {
        Ok(ValidateCapabilities {
            volume_id: VolumeId::parse(request.volume_id)?,
            volume_context: field::map("volume_context", request.volume_context)?,
            capabilities: VolumeCapability::parse_required_list(request.volume_capabilities)?,
            parameters: field::map("parameters", request.parameters)?,
            mutable_parameters: field::map("mutable_parameters", request.mutable_parameters)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// How much more can be created?
#[derive(Clone, Debug)]
pub struct CapacityQuery {
    /// For volumes usable in these ways; may be empty.
    pub capabilities: Vec<VolumeCapability>,
    /// For volumes with these parameters.
    pub parameters: StringMap,
    /// For volumes reachable from here.
    pub topology: Option<Topology>,
}

impl TryFrom<csi::GetCapacityRequest> for CapacityQuery {
    type Error = DriverError;

    fn try_from(request: csi::GetCapacityRequest) -> Result<Self, DriverError> {
        let topology = request
            .accessible_topology
            .map(|topology| Topology::parse("accessible_topology", topology));
        Ok(CapacityQuery {
            capabilities: VolumeCapability::parse_list(request.volume_capabilities)?,
            parameters: field::map("parameters", request.parameters)?,
            topology: topology.transpose()?,
        })
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// At most this many entries.
    pub max_entries: Option<usize>,
    /// Where the page before said that this one begins.
    pub starting_token: Option<String>,
}

impl ListPage {
    pub(super) fn parse(max_entries: i32, starting_token: String) -> Result<Self, DriverError> {
        Ok(ListPage {
            max_entries: field::optional_count("max_entries", max_entries)?,
            starting_token: optional_text("starting_token", starting_token)?,
        })
    }
}

impl TryFrom<csi::ListVolumesRequest> for ListPage {
    type Error = DriverError;

    fn try_from(request: csi::ListVolumesRequest) -> Result<Self, DriverError> {
        ListPage::parse(request.max_entries, request.starting_token)
    }
}

/// Grow a volume.
#[derive(Clone, Debug)]
pub struct ExpandVolume {
    /// Which.
    pub volume_id: VolumeId,
    /// To what size.
    pub capacity: CapacityRange,
    /// How it is used, if the caller knows.
    pub capability: Option<VolumeCapability>,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::ControllerExpandVolumeRequest> for ExpandVolume {
    type Error = DriverError;

    fn try_from(request: csi::ControllerExpandVolumeRequest) -> Result<Self, DriverError> {
        if request.capacity_range.is_none() {
            return Err(DriverError::invalid("capacity_range is missing"));
        }
        Ok(ExpandVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            capacity: CapacityRange::parse(request.capacity_range)?,
            capability: request
                .volume_capability
                .map(VolumeCapability::parse)
                .transpose()?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Make a volume reachable from a node (attach).
#[derive(Clone, Debug)]
pub struct PublishToNode {
    /// Which volume.
    pub volume_id: VolumeId,
    /// From which node; the driver's own id of it.
    pub node_id: String,
    /// How it will be used.
    pub capability: VolumeCapability,
    /// Must the node be kept from writing?
    pub is_read_only: bool,
    /// What the driver said about the volume at creation.
    pub volume_context: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::ControllerPublishVolumeRequest> for PublishToNode {
    type Error = DriverError;

    fn try_from(request: csi::ControllerPublishVolumeRequest) -> Result<Self, DriverError> {
        Ok(PublishToNode {
            volume_id: VolumeId::parse(request.volume_id)?,
            node_id: node_id(request.node_id)?,
            capability: VolumeCapability::parse_required(request.volume_capability)?,
            is_read_only: request.readonly,
            volume_context: field::map("volume_context", request.volume_context)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Undo [`PublishToNode`].
#[derive(Clone, Debug)]
pub struct UnpublishFromNode {
    /// Which volume.
    pub volume_id: VolumeId,
    /// From which node; `None`: from all.
    pub node_id: Option<String>,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::ControllerUnpublishVolumeRequest> for UnpublishFromNode {
    type Error = DriverError;

    fn try_from(request: csi::ControllerUnpublishVolumeRequest) -> Result<Self, DriverError> {
        let node = request.node_id;
        Ok(UnpublishFromNode {
            volume_id: VolumeId::parse(request.volume_id)?,
            node_id: if node.is_empty() {
                None
            } else {
                Some(node_id(node)?)
            },
            secrets: field::secrets(request.secrets)?,
        })
    }
}

/// Change mutable parameters.
#[derive(Clone, Debug)]
pub struct ModifyVolume {
    /// Which volume.
    pub volume_id: VolumeId,
    /// The parameters to change; others stay.
    pub mutable_parameters: StringMap,
    /// Secrets for this call.
    pub secrets: Secrets,
}

impl TryFrom<csi::ControllerModifyVolumeRequest> for ModifyVolume {
    type Error = DriverError;

    fn try_from(request: csi::ControllerModifyVolumeRequest) -> Result<Self, DriverError> {
        Ok(ModifyVolume {
            volume_id: VolumeId::parse(request.volume_id)?,
            mutable_parameters: field::map("mutable_parameters", request.mutable_parameters)?,
            secrets: field::secrets(request.secrets)?,
        })
    }
}
