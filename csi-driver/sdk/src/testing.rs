//! A driver of which each part can be switched on and off, for tests of what is advertised. It does nothing.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use crate::{
    BlockSink, Driver, DriverError, DriverInfo, ErrorKind,
    driver::DriverBuilder,
    request::*,
    snapshot::{GroupSnapshot, Snapshot, SnapshotPage},
    traits::*,
    volume::*,
};

/// The parts that are on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts(pub(crate) BTreeSet<&'static str>);

fn nothing<T>() -> Result<T, DriverError> {
    Err(DriverError::new(ErrorKind::Internal, "only advertised"))
}

impl Parts {
    pub(crate) fn has(&self, part: &str) -> bool {
        self.0.contains(part)
    }

    /// A builder that was given the parts.
    pub(crate) fn builder(&self) -> DriverBuilder {
        let me = Arc::new(self.clone());
        let mut builder = Driver::builder(DriverInfo::new("parts.example.com", "1"));
        if self.has("topology") {
            builder = builder.topology();
        }
        if self.has("single_node_modes") {
            builder = builder.single_node_modes();
        }
        if self.has("group_snapshots") {
            builder = builder.group_snapshots(Arc::clone(&me) as _);
        }
        if self.has("snapshot_metadata") {
            builder = builder.snapshot_metadata(Arc::clone(&me) as _);
        }
        if self.has("volumes") {
            builder = builder.volumes(Arc::clone(&me) as _, |groups| self.add_to_controller(&me, groups));
        }
        if self.has("node") {
            builder = builder.node(Arc::clone(&me) as _, |groups| self.add_to_node(&me, groups));
        }
        builder
    }

    fn add_to_controller(&self, me: &Arc<Self>, mut groups: crate::driver::ControllerGroups<'_>) {
        macro_rules! add {
            ($($part:ident),*) => {
                $(if self.has(stringify!($part)) {
                    groups = groups.$part(Arc::clone(me) as _);
                })*
            };
        }
        add!(
            capacity,
            listing,
            lookup,
            expansion,
            modification,
            attachment,
            snapshots,
            snapshot_listing,
            snapshot_lookup
        );
        groups.done();
    }

    fn add_to_node(&self, me: &Arc<Self>, mut groups: crate::driver::NodeGroups<'_>) {
        macro_rules! add {
            ($($part:ident),*) => {
                $(if self.has(stringify!($part)) {
                    groups = groups.$part(Arc::clone(me) as _);
                })*
            };
        }
        add!(staging, stats, node_expansion);
        groups.done();
    }
}

#[async_trait]
impl Volumes for Parts {
    async fn create_volume(&self, _: CreateVolume) -> Result<Volume, DriverError> {
        nothing()
    }
    async fn delete_volume(&self, _: DeleteVolume) -> Result<(), DriverError> {
        nothing()
    }
    async fn validate_capabilities(&self, _: ValidateCapabilities) -> Result<Confirmation, DriverError> {
        nothing()
    }
    fn content_sources(&self) -> ContentSources {
        ContentSources {
            clones: self.has("clones"),
            snapshots: self.has("restores"),
        }
    }
}

#[async_trait]
impl Capacity for Parts {
    async fn available_capacity(&self, _: CapacityQuery) -> Result<AvailableCapacity, DriverError> {
        nothing()
    }
}

#[async_trait]
impl VolumeListing for Parts {
    async fn list_volumes(&self, _: ListPage) -> Result<VolumePage, DriverError> {
        nothing()
    }
    fn knows_published_nodes(&self) -> bool {
        self.has("published_nodes")
    }
    fn knows_condition(&self) -> bool {
        self.has("listed_condition")
    }
}

#[async_trait]
impl VolumeLookup for Parts {
    async fn get_volume(&self, _: VolumeId) -> Result<ListedVolume, DriverError> {
        nothing()
    }
    fn knows_condition(&self) -> bool {
        self.has("looked_up_condition")
    }
}

#[async_trait]
impl VolumeExpansion for Parts {
    async fn expand_volume(&self, _: ExpandVolume) -> Result<ExpandedVolume, DriverError> {
        nothing()
    }
    fn time(&self) -> ExpansionTime {
        if self.has("offline") {
            ExpansionTime::Offline
        } else {
            ExpansionTime::Online
        }
    }
}

#[async_trait]
impl Modification for Parts {
    async fn modify_volume(&self, _: ModifyVolume) -> Result<(), DriverError> {
        nothing()
    }
}

#[async_trait]
impl Attachment for Parts {
    async fn publish_to_node(&self, _: PublishToNode) -> Result<StringMap, DriverError> {
        nothing()
    }
    async fn unpublish_from_node(&self, _: UnpublishFromNode) -> Result<(), DriverError> {
        nothing()
    }
    fn can_publish_read_only(&self) -> bool {
        self.has("read_only")
    }
}

#[async_trait]
impl Snapshots for Parts {
    async fn create_snapshot(&self, _: CreateSnapshot) -> Result<Snapshot, DriverError> {
        nothing()
    }
    async fn delete_snapshot(&self, _: DeleteSnapshot) -> Result<(), DriverError> {
        nothing()
    }
}

#[async_trait]
impl SnapshotListing for Parts {
    async fn list_snapshots(&self, _: SnapshotQuery) -> Result<SnapshotPage, DriverError> {
        nothing()
    }
}

#[async_trait]
impl SnapshotLookup for Parts {
    async fn get_snapshot(&self, _: GetSnapshot) -> Result<Snapshot, DriverError> {
        nothing()
    }
}

#[async_trait]
impl GroupSnapshots for Parts {
    async fn create_group_snapshot(&self, _: CreateGroupSnapshot) -> Result<GroupSnapshot, DriverError> {
        nothing()
    }
    async fn delete_group_snapshot(&self, _: DeleteGroupSnapshot) -> Result<(), DriverError> {
        nothing()
    }
    async fn get_group_snapshot(&self, _: GetGroupSnapshot) -> Result<GroupSnapshot, DriverError> {
        nothing()
    }
}

#[async_trait]
impl SnapshotMetadata for Parts {
    async fn allocated_blocks(&self, _: AllocatedBlocks, _: BlockSink) -> Result<(), DriverError> {
        nothing()
    }
    async fn changed_blocks(&self, _: ChangedBlocks, _: BlockSink) -> Result<(), DriverError> {
        nothing()
    }
}

#[async_trait]
impl NodePublishing for Parts {
    async fn describe_node(&self) -> Result<NodeDescription, DriverError> {
        nothing()
    }
    async fn publish_volume(&self, _: NodePublishVolume) -> Result<(), DriverError> {
        nothing()
    }
    async fn unpublish_volume(&self, _: NodeUnpublishVolume) -> Result<(), DriverError> {
        nothing()
    }
    fn applies_mount_group(&self) -> bool {
        self.has("mount_group")
    }
}

#[async_trait]
impl NodeStaging for Parts {
    async fn stage_volume(&self, _: NodeStageVolume) -> Result<(), DriverError> {
        nothing()
    }
    async fn unstage_volume(&self, _: NodeUnstageVolume) -> Result<(), DriverError> {
        nothing()
    }
}

#[async_trait]
impl NodeStats for Parts {
    async fn volume_stats(&self, _: VolumeStatsQuery) -> Result<VolumeStats, DriverError> {
        nothing()
    }
    fn knows_condition(&self) -> bool {
        self.has("node_condition")
    }
}

#[async_trait]
impl NodeExpansion for Parts {
    async fn expand_volume(&self, _: NodeExpandVolume) -> Result<Option<u64>, DriverError> {
        nothing()
    }
}
