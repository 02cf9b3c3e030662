//! Requests as a driver sees them: every field checked once, here, before anything happens.
//!
//! Each type is made by `TryFrom` of its wire message; a violation becomes the specification's code with the name of
//! the field. CSI's 0 and "" for "not given" end here as `None`.

mod capability;
mod capacity;
mod controller;
mod field;
mod group_snapshot;
mod node;
mod snapshot;
mod snapshot_metadata;
mod topology;

pub use capability::{AccessMode, AccessType, MountVolume, VolumeCapability};
pub use capacity::CapacityRange;
pub use controller::{
    CapacityQuery, ContentSource, CreateVolume, DeleteVolume, ExpandVolume, ListPage, ModifyVolume,
    PublishToNode, UnpublishFromNode, ValidateCapabilities,
};
pub use field::{GroupSnapshotId, Secrets, SnapshotId, StringMap, VolumeId};
pub use group_snapshot::{CreateGroupSnapshot, DeleteGroupSnapshot, GetGroupSnapshot};
pub use node::{
    NodeExpandVolume, NodePublishVolume, NodeStageVolume, NodeUnpublishVolume, NodeUnstageVolume,
    VolumeStatsQuery,
};
pub use snapshot::{CreateSnapshot, DeleteSnapshot, GetSnapshot, SnapshotQuery};
pub use snapshot_metadata::{AllocatedBlocks, BlockWindow, ChangedBlocks};
pub use topology::{Topology, TopologyRequirement};

#[cfg(test)]
mod tests;
