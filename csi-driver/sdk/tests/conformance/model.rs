//! A driver that keeps everything in a map and does all there is to do: what the conformance checks are checked with.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use moorline_driver_sdk::{
    BlockKind, BlockRange, BlockSink, Driver, DriverError, DriverInfo, ErrorKind, async_trait,
    request::*,
    snapshot::{GroupSnapshot, Snapshot, SnapshotPage, Timestamp},
    traits::*,
    volume::*,
};

const NODE_ID: &str = "node-1";
/// What every snapshot holds, and what differs in any two of one volume.
const BLOCKS: [BlockRange; 5] = [block(0), block(2), block(3), block(7), block(9)];

const fn block(number: u64) -> BlockRange {
    BlockRange {
        byte_offset: number * 4096,
        size_bytes: 4096,
    }
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    snapshots: BTreeMap<String, Snapshot>,
    groups: BTreeMap<String, GroupSnapshot>,
    /// By volume: attached to the one node, and only to be read?
    attached: BTreeMap<String, bool>,
}

#[derive(Default)]
pub(crate) struct Model(Mutex<State>);

pub(crate) fn driver() -> Driver {
    let model = Arc::new(Model::default());
    Driver::builder(DriverInfo::new("model.example.com", "1"))
        .group_snapshots(Arc::clone(&model) as _)
        .snapshot_metadata(Arc::clone(&model) as _)
        .volumes(Arc::clone(&model) as _, |groups| {
            groups
                .capacity(Arc::clone(&model) as _)
                .listing(Arc::clone(&model) as _)
                .lookup(Arc::clone(&model) as _)
                .expansion(Arc::clone(&model) as _)
                .modification(Arc::clone(&model) as _)
                .attachment(Arc::clone(&model) as _)
                .snapshots(Arc::clone(&model) as _)
                .snapshot_listing(Arc::clone(&model) as _)
                .snapshot_lookup(Arc::clone(&model) as _)
                .done();
        })
        .node(Arc::clone(&model) as _, |groups| {
            groups
                .staging(Arc::clone(&model) as _)
                .stats(Arc::clone(&model) as _)
                .node_expansion(model)
                .done();
        })
        .build()
}

impl Model {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn volume(&self, id: &VolumeId) -> Result<&Volume, DriverError> {
        let volume = self.volumes.get(id.as_str());
        volume.ok_or_else(|| DriverError::not_found(format!("no volume {id}")))
    }

    fn cut(
        &mut self,
        id: &str,
        source: &VolumeId,
        group: Option<GroupSnapshotId>,
    ) -> Result<Snapshot, DriverError> {
        let snapshot = Snapshot {
            snapshot_id: SnapshotId::parse(id)?,
            source_volume_id: source.clone(),
            size_bytes: self.volume(source)?.capacity_bytes,
            created_at: Timestamp::UNIX_EPOCH,
            is_ready: true,
            group_snapshot_id: group,
        };
        self.snapshots.insert(id.to_owned(), snapshot.clone());
        Ok(snapshot)
    }
}

impl State {
    fn listed(&self, volume: &Volume) -> ListedVolume {
        let is_attached = self.attached.contains_key(volume.volume_id.as_str());
        ListedVolume {
            volume: volume.clone(),
            published_node_ids: is_attached.then(|| NODE_ID.to_owned()).into_iter().collect(),
            condition: None,
        }
    }

    fn snapshot(&self, id: &SnapshotId) -> Result<&Snapshot, DriverError> {
        let found = self.snapshots.get(id.as_str());
        found.ok_or_else(|| DriverError::not_found("no such snapshot"))
    }
}

/// Tells the blocks that end behind the offset.
async fn tell(snapshot: Snapshot, window: BlockWindow, to: BlockSink) -> Result<(), DriverError> {
    if window.starting_offset > snapshot.size_bytes {
        return Err(DriverError::out_of_range("it begins behind the end"));
    }
    to.set_layout(BlockKind::FixedLength, snapshot.size_bytes);
    let is_wanted = |block: &&BlockRange| block.byte_offset + block.size_bytes > window.starting_offset;
    for block in BLOCKS.iter().filter(is_wanted) {
        to.send(*block).await?;
    }
    Ok(())
}

/// A page of what is in order, by key.
fn page<T: Clone>(all: Vec<(String, T)>, page: &ListPage) -> Result<(Vec<T>, Option<String>), DriverError> {
    let start = match &page.starting_token {
        None => 0,
        Some(token) => all
            .iter()
            .position(|(key, _)| key == token)
            .ok_or_else(|| DriverError::new(ErrorKind::Aborted, "no such token"))?,
    };
    let end = page
        .max_entries
        .map_or(all.len(), |max| all.len().min(start + max));
    let next = all.get(end).map(|(key, _)| key.clone());
    Ok((
        all[start..end].iter().map(|(_, entry)| entry.clone()).collect(),
        next,
    ))
}

#[async_trait]
impl Volumes for Model {
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume, DriverError> {
        let mut state = self.state();
        match &request.content_source {
            Some(ContentSource::Volume(id)) => drop(state.volume(id)?),
            Some(ContentSource::Snapshot(id)) if !state.snapshots.contains_key(id.as_str()) => {
                return Err(DriverError::not_found("no such snapshot"));
            }
            _ => {}
        }
        let size = request.capacity.choose(1 << 30, 1, 1)?;
        let mut volume = Volume::new(VolumeId::parse(request.name.clone())?, size);
        volume.content_source = request.content_source;
        let volume = state.volumes.entry(request.name).or_insert(volume);
        if !request.capacity.admits(volume.capacity_bytes) {
            return Err(DriverError::already_exists("it has another size"));
        }
        Ok(volume.clone())
    }

    async fn delete_volume(&self, request: DeleteVolume) -> Result<(), DriverError> {
        self.state().volumes.remove(request.volume_id.as_str());
        Ok(())
    }

    async fn validate_capabilities(
        &self,
        request: ValidateCapabilities,
    ) -> Result<Confirmation, DriverError> {
        self.state().volume(&request.volume_id)?;
        Ok(Confirmation::Confirmed {
            capabilities: request.capabilities,
            volume_context: request.volume_context,
            parameters: request.parameters,
            mutable_parameters: StringMap::new(),
        })
    }

    fn content_sources(&self) -> ContentSources {
        ContentSources {
            clones: true,
            snapshots: true,
        }
    }
}

#[async_trait]
impl Capacity for Model {
    async fn available_capacity(&self, _: CapacityQuery) -> Result<AvailableCapacity, DriverError> {
        Ok(AvailableCapacity {
            available_bytes: 1 << 40,
            maximum_volume_bytes: Some(1 << 40),
            minimum_volume_bytes: Some(1),
        })
    }
}

#[async_trait]
impl VolumeListing for Model {
    async fn list_volumes(&self, wanted: ListPage) -> Result<VolumePage, DriverError> {
        let state = self.state();
        let all = state
            .volumes
            .iter()
            .map(|(id, volume)| (id.clone(), state.listed(volume)));
        let (entries, next_token) = page(all.collect(), &wanted)?;
        Ok(VolumePage { entries, next_token })
    }

    fn knows_published_nodes(&self) -> bool {
        true
    }
}

#[async_trait]
impl VolumeLookup for Model {
    async fn get_volume(&self, volume_id: VolumeId) -> Result<ListedVolume, DriverError> {
        let state = self.state();
        state.volume(&volume_id).map(|volume| state.listed(volume))
    }
}

#[async_trait]
impl VolumeExpansion for Model {
    async fn expand_volume(&self, request: ExpandVolume) -> Result<ExpandedVolume, DriverError> {
        let mut state = self.state();
        state.volume(&request.volume_id)?;
        let volume = state.volumes.get_mut(request.volume_id.as_str()).unwrap();
        let required = request.capacity.required_bytes.unwrap_or(0);
        volume.capacity_bytes = volume.capacity_bytes.max(required);
        Ok(ExpandedVolume {
            capacity_bytes: volume.capacity_bytes,
            is_node_expansion_required: false,
        })
    }
}

#[async_trait]
impl Modification for Model {
    async fn modify_volume(&self, request: ModifyVolume) -> Result<(), DriverError> {
        self.state().volume(&request.volume_id)?;
        match request.mutable_parameters.keys().find(|key| *key != "speed") {
            Some(key) => Err(DriverError::invalid(format!("{key} can't be changed"))),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Attachment for Model {
    async fn publish_to_node(&self, request: PublishToNode) -> Result<StringMap, DriverError> {
        let mut state = self.state();
        state.volume(&request.volume_id)?;
        if request.node_id != NODE_ID {
            return Err(DriverError::not_found("no such node"));
        }
        let is_read_only = request.is_read_only;
        let before = state.attached.insert(request.volume_id.to_string(), is_read_only);
        if before.is_some_and(|before| before != is_read_only) {
            state
                .attached
                .insert(request.volume_id.to_string(), !is_read_only);
            return Err(DriverError::already_exists("it is attached in another way"));
        }
        Ok(StringMap::from([("lun".to_owned(), "1".to_owned())]))
    }

    async fn unpublish_from_node(&self, request: UnpublishFromNode) -> Result<(), DriverError> {
        self.state().attached.remove(request.volume_id.as_str());
        Ok(())
    }

    fn can_publish_read_only(&self) -> bool {
        true
    }
}

#[async_trait]
impl Snapshots for Model {
    async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Snapshot, DriverError> {
        let mut state = self.state();
        match state.snapshots.get(&request.name) {
            Some(there) if there.source_volume_id == request.source_volume_id => Ok(there.clone()),
            Some(_) => Err(DriverError::already_exists("it is of another volume")),
            None => state.cut(&request.name, &request.source_volume_id, None),
        }
    }

    async fn delete_snapshot(&self, request: DeleteSnapshot) -> Result<(), DriverError> {
        self.state().snapshots.remove(request.snapshot_id.as_str());
        Ok(())
    }
}

#[async_trait]
impl SnapshotListing for Model {
    async fn list_snapshots(&self, query: SnapshotQuery) -> Result<SnapshotPage, DriverError> {
        let state = self.state();
        let fits = |snapshot: &&Snapshot| {
            let by_source = query.source_volume_id.as_ref();
            let by_id = query.snapshot_id.as_ref();
            by_source.is_none_or(|id| *id == snapshot.source_volume_id)
                && by_id.is_none_or(|id| *id == snapshot.snapshot_id)
        };
        let all = state.snapshots.values().filter(fits);
        let all = all.map(|snapshot| (snapshot.snapshot_id.to_string(), snapshot.clone()));
        let (entries, next_token) = page(all.collect(), &query.page)?;
        Ok(SnapshotPage { entries, next_token })
    }
}

#[async_trait]
impl SnapshotLookup for Model {
    async fn get_snapshot(&self, request: GetSnapshot) -> Result<Snapshot, DriverError> {
        self.state().snapshot(&request.snapshot_id).cloned()
    }
}

#[async_trait]
impl GroupSnapshots for Model {
    async fn create_group_snapshot(
        &self,
        request: CreateGroupSnapshot,
    ) -> Result<GroupSnapshot, DriverError> {
        let mut state = self.state();
        if let Some(group) = state.groups.get(&request.name) {
            return Ok(group.clone());
        }
        let group_snapshot_id = GroupSnapshotId::parse(request.name.clone())?;
        let mut snapshots = Vec::new();
        for source in &request.source_volume_ids {
            let id = format!("{}-of-{source}", request.name);
            snapshots.push(state.cut(&id, source, Some(group_snapshot_id.clone()))?);
        }
        let group = GroupSnapshot {
            group_snapshot_id,
            snapshots,
            created_at: Timestamp::UNIX_EPOCH,
            is_ready: true,
        };
        state.groups.insert(request.name, group.clone());
        Ok(group)
    }

    async fn delete_group_snapshot(&self, request: DeleteGroupSnapshot) -> Result<(), DriverError> {
        let mut state = self.state();
        for member in state
            .groups
            .remove(request.group_snapshot_id.as_str())
            .map(|group| group.snapshots)
            .unwrap_or_default()
        {
            state.snapshots.remove(member.snapshot_id.as_str());
        }
        Ok(())
    }

    async fn get_group_snapshot(&self, request: GetGroupSnapshot) -> Result<GroupSnapshot, DriverError> {
        let state = self.state();
        let found = state.groups.get(request.group_snapshot_id.as_str()).cloned();
        found.ok_or_else(|| DriverError::not_found("no such group"))
    }
}

#[async_trait]
impl SnapshotMetadata for Model {
    async fn allocated_blocks(&self, request: AllocatedBlocks, to: BlockSink) -> Result<(), DriverError> {
        let snapshot = self.state().snapshot(&request.snapshot_id)?.clone();
        tell(snapshot, request.window, to).await
    }

    async fn changed_blocks(&self, request: ChangedBlocks, to: BlockSink) -> Result<(), DriverError> {
        self.state().snapshot(&request.base_snapshot_id)?;
        let target = self.state().snapshot(&request.target_snapshot_id)?.clone();
        tell(target, request.window, to).await
    }
}

#[async_trait]
impl NodeExpansion for Model {
    async fn expand_volume(&self, request: NodeExpandVolume) -> Result<Option<u64>, DriverError> {
        let size = self.state().volume(&request.volume_id)?.capacity_bytes;
        Ok(Some(size))
    }
}

#[async_trait]
impl NodePublishing for Model {
    async fn describe_node(&self) -> Result<NodeDescription, DriverError> {
        Ok(NodeDescription {
            node_id: NODE_ID.to_owned(),
            max_volumes: None,
            topology: None,
        })
    }

    async fn publish_volume(&self, request: NodePublishVolume) -> Result<(), DriverError> {
        self.state().volume(&request.volume_id)?;
        std::fs::create_dir_all(&request.target_path).map_err(|error| DriverError::internal("publish", error))
    }

    async fn unpublish_volume(&self, request: NodeUnpublishVolume) -> Result<(), DriverError> {
        if !request.target_path.exists() {
            return Ok(());
        }
        std::fs::remove_dir(&request.target_path).map_err(|error| DriverError::internal("unpublish", error))
    }
}

#[async_trait]
impl NodeStaging for Model {
    async fn stage_volume(&self, request: NodeStageVolume) -> Result<(), DriverError> {
        self.state().volume(&request.volume_id).map(|_| ())
    }

    async fn unstage_volume(&self, _: NodeUnstageVolume) -> Result<(), DriverError> {
        Ok(())
    }
}

#[async_trait]
impl NodeStats for Model {
    async fn volume_stats(&self, query: VolumeStatsQuery) -> Result<VolumeStats, DriverError> {
        let total = self.state().volume(&query.volume_id)?.capacity_bytes;
        Ok(VolumeStats {
            bytes: Some(VolumeUsage {
                total,
                available: total,
                used: 0,
            }),
            ..VolumeStats::default()
        })
    }
}
