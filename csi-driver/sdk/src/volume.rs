//! What a driver answers about volumes and nodes.

use moorline_proto::csi;

use crate::{
    DriverError,
    request::{ContentSource, StringMap, Topology, VolumeCapability, VolumeId},
};

/// A volume as the driver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its id: unique for this driver, never changing.
    pub volume_id: VolumeId,
    /// Its size.
    pub capacity_bytes: u64,
    /// What the driver wants to be told again in later calls.
    pub volume_context: StringMap,
    /// What it was made from.
    pub content_source: Option<ContentSource>,
    /// From where it can be reached; empty: from everywhere.
    pub accessible_topology: Vec<Topology>,
}

impl Volume {
    /// A volume of that size without further properties.
    pub fn new(volume_id: VolumeId, capacity_bytes: u64) -> Self {
        Volume {
            volume_id,
            capacity_bytes,
            volume_context: StringMap::new(),
            content_source: None,
            accessible_topology: Vec::new(),
        }
    }
}

impl TryFrom<Volume> for csi::Volume {
    type Error = DriverError;

    fn try_from(volume: Volume) -> Result<Self, DriverError> {
        Ok(csi::Volume {
            capacity_bytes: bytes(volume.capacity_bytes)?,
            volume_id: volume.volume_id.into(),
            volume_context: volume.volume_context.into_iter().collect(),
            content_source: volume.content_source.map(Into::into),
            accessible_topology: volume.accessible_topology.into_iter().map(Into::into).collect(),
        })
    }
}

/// Sizes are signed on the wire.
pub(crate) fn bytes(count: u64) -> Result<i64, DriverError> {
    i64::try_from(count)
        .map_err(|error| DriverError::internal(format!("{count} does not fit an int64"), error))
}

/// The answer to "can the volume be used in these ways?"
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Yes, in all of them. Only what the driver has checked is listed.
    Confirmed {
        /// The ways.
        capabilities: Vec<VolumeCapability>,
        /// The context, if it is the volume's.
        volume_context: StringMap,
        /// The parameters, if they are the volume's.
        parameters: StringMap,
        /// The mutable parameters, if they are the volume's.
        mutable_parameters: StringMap,
    },
    /// No, and why.
    Refused(String),
}

/// How much more can be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvailableCapacity {
    /// Bytes that new volumes may take in total.
    pub available_bytes: u64,
    /// The largest single volume, if that is less.
    pub maximum_volume_bytes: Option<u64>,
    /// The smallest volume, if there is a limit.
    pub minimum_volume_bytes: Option<u64>,
}

/// Health of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeCondition {
    /// Is something wrong?
    pub is_abnormal: bool,
    /// What, in words for humans.
    pub message: String,
}

impl From<VolumeCondition> for csi::VolumeCondition {
    fn from(condition: VolumeCondition) -> Self {
        csi::VolumeCondition {
            abnormal: condition.is_abnormal,
            message: condition.message,
        }
    }
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVolume {
    /// The volume.
    pub volume: Volume,
    /// Nodes from which it is reachable now, for drivers that know.
    pub published_node_ids: Vec<String>,
    /// Its health, for drivers that know.
    pub condition: Option<VolumeCondition>,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumePage {
    /// The entries.
    pub entries: Vec<ListedVolume>,
    /// Where the next page begins, if there is one.
    pub next_token: Option<String>,
}

/// A volume that has been grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpandedVolume {
    /// Its size now.
    pub capacity_bytes: u64,
    /// Must the node do its part before the user sees the new size?
    pub is_node_expansion_required: bool,
}

/// This node, in the driver's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescription {
    /// The driver's id of it.
    pub node_id: String,
    /// How many volumes it can take, if there is a limit.
    pub max_volumes: Option<u64>,
    /// Where it is.
    pub topology: Option<Topology>,
}

/// How full one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeUsage {
    /// All there is.
    pub total: u64,
    /// What an ordinary user may still take, where that is known.
    pub available: u64,
    /// What is taken, where that is known.
    pub used: u64,
}

/// How full a volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// In bytes.
    pub bytes: Option<VolumeUsage>,
    /// In inodes.
    pub inodes: Option<VolumeUsage>,
    /// Its health.
    pub condition: Option<VolumeCondition>,
}
