//! What a driver may implement: one trait for each group of calls that the specification makes optional together.
//!
//! For all of them: requests are checked already. Two calls for one volume never overlap, so implementations need no
//! lock for that; calls for different volumes do. Every call may come again after it has succeeded, or after a crash in
//! the middle of it, and must then answer as if it had come once. A call that changes something runs to its end even if
//! the caller has gone; its future is dropped only when the process ends. Work that blocks belongs on a blocking pool.

use async_trait::async_trait;

use crate::{
    BlockSink, DriverError,
    request::{
        AllocatedBlocks, CapacityQuery, ChangedBlocks, CreateGroupSnapshot, CreateSnapshot, CreateVolume,
        DeleteGroupSnapshot, DeleteSnapshot, DeleteVolume, ExpandVolume, GetGroupSnapshot, GetSnapshot,
        ListPage, ModifyVolume, NodeExpandVolume, NodePublishVolume, NodeStageVolume, NodeUnpublishVolume,
        NodeUnstageVolume, PublishToNode, SnapshotQuery, StringMap, UnpublishFromNode, ValidateCapabilities,
        VolumeId, VolumeStatsQuery,
    },
    snapshot::{GroupSnapshot, Snapshot, SnapshotPage},
    volume::{
        AvailableCapacity, Confirmation, ExpandedVolume, ListedVolume, NodeDescription, Volume, VolumePage,
        VolumeStats,
    },
};

/// Making and removing volumes: the controller service and CREATE_DELETE_VOLUME.
#[async_trait]
pub trait Volumes: Send + Sync + 'static {
    /// Makes a volume, or returns the one of that name if it fits the request.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken by one that does not fit. An error of any kind but `Uncertain` promises
    /// that nothing is left behind.
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume, DriverError>;

    /// Removes a volume and its data. One that is not there is fine.
    ///
    /// # Errors
    /// `FailedPrecondition` while it is in use.
    async fn delete_volume(&self, request: DeleteVolume) -> Result<(), DriverError>;

    /// Says whether the volume can be used in all of the given ways.
    ///
    /// # Errors
    /// `NotFound` when there is no such volume.
    async fn validate_capabilities(&self, request: ValidateCapabilities)
    -> Result<Confirmation, DriverError>;

    /// From what `create_volume` can take content; requests for anything else are refused before it is called.
    fn content_sources(&self) -> ContentSources {
        ContentSources::default()
    }
}

/// From what new volumes can take their content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentSources {
    /// From other volumes: CLONE_VOLUME.
    pub clones: bool,
    /// From snapshots; counts only together with [`Snapshots`].
    pub snapshots: bool,
}

/// Free space: GET_CAPACITY.
#[async_trait]
pub trait Capacity: Send + Sync + 'static {
    /// How much more can be created.
    ///
    /// # Errors
    /// When it can't be found out.
    async fn available_capacity(&self, query: CapacityQuery) -> Result<AvailableCapacity, DriverError>;
}

/// The list of all volumes: LIST_VOLUMES.
#[async_trait]
pub trait VolumeListing: Send + Sync + 'static {
    /// A page of the list, in an order that does not change.
    ///
    /// # Errors
    /// `Aborted` when the token is none of ours.
    async fn list_volumes(&self, page: ListPage) -> Result<VolumePage, DriverError>;

    /// Do the entries say where volumes are published? Then LIST_VOLUMES_PUBLISHED_NODES is advertised.
    fn knows_published_nodes(&self) -> bool {
        false
    }

    /// Do the entries tell the volumes' health? See [`VolumeLookup::knows_condition`].
    fn knows_condition(&self) -> bool {
        false
    }
}

/// A single volume looked up: GET_VOLUME.
#[async_trait]
pub trait VolumeLookup: Send + Sync + 'static {
    /// The volume with this id.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    async fn get_volume(&self, volume_id: VolumeId) -> Result<ListedVolume, DriverError>;

    /// Does the answer tell the volume's health? VOLUME_CONDITION of the controller is advertised when listing and
    /// lookup, as far as they are served, both do.
    fn knows_condition(&self) -> bool {
        false
    }
}

/// Making and removing snapshots: CREATE_DELETE_SNAPSHOT.
#[async_trait]
pub trait Snapshots: Send + Sync + 'static {
    /// Cuts a snapshot, or returns the one of that name. It may answer before the snapshot can be used, once it is cut:
    /// callers ask again until it is ready.
    ///
    /// Other snapshots and clones of the same volume may run at the same time, its deletion and growth do not.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken by a snapshot of another volume, `NotFound` for the volume,
    /// `ResourceExhausted`. An error of any kind but `Uncertain` promises that nothing is left behind.
    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Snapshot, DriverError>;

    /// Removes a snapshot. One that is not there is fine.
    ///
    /// # Errors
    /// `FailedPrecondition` while it is in use, `InvalidArgument` when it is part of a group.
    async fn delete_snapshot(&self, request: DeleteSnapshot) -> Result<(), DriverError>;
}

/// The list of all snapshots: LIST_SNAPSHOTS.
#[async_trait]
pub trait SnapshotListing: Send + Sync + 'static {
    /// A page of the list, in an order that does not change. Nothing that fits is an empty page, not an error.
    ///
    /// # Errors
    /// `Aborted` when the token is none of ours.
    async fn list_snapshots(&self, query: SnapshotQuery) -> Result<SnapshotPage, DriverError>;
}

/// A single snapshot looked up: GET_SNAPSHOT.
#[async_trait]
pub trait SnapshotLookup: Send + Sync + 'static {
    /// The snapshot with this id.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    async fn get_snapshot(&self, request: GetSnapshot) -> Result<Snapshot, DriverError>;
}

/// Snapshots of several volumes at one point in time: the group controller service and
/// CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT.
#[async_trait]
pub trait GroupSnapshots: Send + Sync + 'static {
    /// Cuts all volumes at one point in time, or returns the group of that name.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken by a group of other volumes, `NotFound` for a volume,
    /// `FailedPrecondition` when they can't be cut together. Unless it is `Uncertain`, nothing is left behind.
    async fn create_group_snapshot(&self, request: CreateGroupSnapshot)
    -> Result<GroupSnapshot, DriverError>;

    /// Removes a group and its snapshots. One that is not there is fine.
    ///
    /// # Errors
    /// `InvalidArgument` when the snapshots named are not those of the group, `FailedPrecondition` while one is in use.
    async fn delete_group_snapshot(&self, request: DeleteGroupSnapshot) -> Result<(), DriverError>;

    /// The group with this id.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidArgument` when the snapshots named are not those of the group.
    async fn get_group_snapshot(&self, request: GetGroupSnapshot) -> Result<GroupSnapshot, DriverError>;
}

/// Which blocks of snapshots hold data: the snapshot metadata service.
///
/// Ranges are sent in ascending order, without overlaps, after the layout. The future is dropped when the caller goes
/// or the driver stops: the caller asks again from where it was.
#[async_trait]
pub trait SnapshotMetadata: Send + Sync + 'static {
    /// Sends the ranges of the snapshot that hold data.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` when the snapshot is not ready, `OutOfRange` when the offset is behind its end.
    async fn allocated_blocks(&self, request: AllocatedBlocks, to: BlockSink) -> Result<(), DriverError>;

    /// Sends the ranges in which the two snapshots differ.
    ///
    /// # Errors
    /// As above, and `InvalidArgument` when they are not of one volume or the target is the earlier one.
    async fn changed_blocks(&self, request: ChangedBlocks, to: BlockSink) -> Result<(), DriverError>;
}

/// When volumes can grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpansionTime {
    /// Also while they are published.
    Online,
    /// Only while they are not.
    Offline,
}

/// Growing volumes: EXPAND_VOLUME of the controller.
#[async_trait]
pub trait VolumeExpansion: Send + Sync + 'static {
    /// Grows a volume. One that is large enough already is fine.
    ///
    /// # Errors
    /// `NotFound`, `OutOfRange`, or `FailedPrecondition` when it must not be in use for that.
    async fn expand_volume(&self, request: ExpandVolume) -> Result<ExpandedVolume, DriverError>;

    /// When.
    fn time(&self) -> ExpansionTime {
        ExpansionTime::Online
    }
}

/// Changing parameters of a volume: MODIFY_VOLUME.
#[async_trait]
pub trait Modification: Send + Sync + 'static {
    /// Changes the given parameters, all or none.
    ///
    /// # Errors
    /// `InvalidArgument` for parameters that can't be changed, before any is.
    async fn modify_volume(&self, request: ModifyVolume) -> Result<(), DriverError>;
}

/// Making volumes reachable from nodes: PUBLISH_UNPUBLISH_VOLUME.
#[async_trait]
pub trait Attachment: Send + Sync + 'static {
    /// Attaches a volume to a node; returns the publish context for that node.
    ///
    /// # Errors
    /// `NotFound` for the volume or the node, `FailedPrecondition` when it is on another node and may not be on two,
    /// `ResourceExhausted` when the node is full.
    async fn publish_to_node(&self, request: PublishToNode) -> Result<StringMap, DriverError>;

    /// Undoes it. A volume that is not attached there is fine.
    ///
    /// # Errors
    /// When it could not be done.
    async fn unpublish_from_node(&self, request: UnpublishFromNode) -> Result<(), DriverError>;

    /// Can it be done read-only? Then PUBLISH_READONLY is advertised; otherwise such requests are refused.
    fn can_publish_read_only(&self) -> bool {
        false
    }
}

/// Who and where this node is, and volumes appearing on it: the node service.
#[async_trait]
pub trait NodePublishing: Send + Sync + 'static {
    /// This node, in the driver's terms.
    ///
    /// # Errors
    /// When it can't be found out.
    async fn describe_node(&self) -> Result<NodeDescription, DriverError>;

    /// Makes a volume appear at a path.
    ///
    /// # Errors
    /// `NotFound`, or `AlreadyExists` when it appears there in another way.
    async fn publish_volume(&self, request: NodePublishVolume) -> Result<(), DriverError>;

    /// Undoes it and removes what it has made at the path. Nothing there is fine.
    ///
    /// # Errors
    /// When it is in use.
    async fn unpublish_volume(&self, request: NodeUnpublishVolume) -> Result<(), DriverError>;

    /// Does publishing give the volume to the group asked for? Then VOLUME_MOUNT_GROUP is advertised.
    fn applies_mount_group(&self) -> bool {
        false
    }
}

/// Preparing volumes once per node: STAGE_UNSTAGE_VOLUME.
#[async_trait]
pub trait NodeStaging: Send + Sync + 'static {
    /// Prepares a volume at the staging path.
    ///
    /// # Errors
    /// `NotFound`, or `AlreadyExists` when it is staged there in another way.
    async fn stage_volume(&self, request: NodeStageVolume) -> Result<(), DriverError>;

    /// Undoes it. Nothing there is fine.
    ///
    /// # Errors
    /// When it is in use.
    async fn unstage_volume(&self, request: NodeUnstageVolume) -> Result<(), DriverError>;
}

/// Usage of volumes on this node: GET_VOLUME_STATS.
#[async_trait]
pub trait NodeStats: Send + Sync + 'static {
    /// How full the volume is.
    ///
    /// # Errors
    /// `NotFound` when there is no such volume at that path.
    async fn volume_stats(&self, query: VolumeStatsQuery) -> Result<VolumeStats, DriverError>;

    /// Does the answer tell the volume's health? Then VOLUME_CONDITION is advertised.
    fn knows_condition(&self) -> bool {
        false
    }
}

/// Following volumes that have grown: EXPAND_VOLUME of the node.
#[async_trait]
pub trait NodeExpansion: Send + Sync + 'static {
    /// Grows the filesystem into its volume; returns the size, if it is known.
    ///
    /// # Errors
    /// `NotFound`, `OutOfRange`, or `FailedPrecondition` when that needs the volume unpublished.
    async fn expand_volume(&self, request: NodeExpandVolume) -> Result<Option<u64>, DriverError>;
}

/// Whether the driver can work now: Probe.
#[async_trait]
pub trait Readiness: Send + Sync + 'static {
    /// True when ready, false when it soon will be.
    ///
    /// # Errors
    /// `FailedPrecondition` when it never will be as it is set up.
    async fn is_ready(&self) -> Result<bool, DriverError>;
}
