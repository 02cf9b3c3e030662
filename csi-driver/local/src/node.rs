//! The node's calls: staging, publishing, stats and expansion. What is mounted is asked of the kernel each time.

mod follow;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{
        AccessMode, NodeExpandVolume, NodePublishVolume, NodeStageVolume, NodeUnpublishVolume,
        NodeUnstageVolume, StringMap, VolumeCapability, VolumeId, VolumeStatsQuery,
    },
    traits::{NodeExpansion, NodePublishing, NodeStaging, NodeStats},
    volume::{NodeDescription, VolumeCondition, VolumeStats},
};
use moorline_mount::{
    MountError,
    beneath::{Seen, Target, TrustedDir},
    io_limits::Limits,
    usage,
};

use parking_lot::Mutex;
use thiserror::Error;

use crate::{
    backend::{self, Backend, BackendError, Files},
    blocking::Blocking,
    failpoint,
    fit::{self, MountPlan},
    lease::{self, CONTEXT_KEY},
    leases,
    nodes::{self, NodeRecord},
    pool::{Pool, PoolError},
    pools::Pools,
    reach::{Nodes, Reach},
    record::{Content, Record},
    settings::Settings,
};
pub(crate) use follow::Follower;

pub(crate) struct LocalNode {
    inner: Arc<Inner>,
    blocking: Blocking,
}

/// Who this node is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeRecord,
    pub(crate) reach: Reach,
}

/// What the blocking work needs.
struct Inner {
    pools: Arc<Pools>,
    targets: TrustedDir,
    identity: Identity,
    follower: Arc<Follower>,
    /// Writable devices of block volumes, so that they need not be searched for. Looked at before they are believed.
    devices: Mutex<BTreeMap<VolumeId, (u32, u32)>>,
    /// The read-only device of a volume comes with its first reader and goes with its last: one at a time.
    reading: Mutex<()>,
}

/// A volume whose record has been read, with its backend.
struct Found {
    pool: Arc<Pool>,
    record: Record,
    directory: PathBuf,
    backend: &'static dyn Backend,
}

impl LocalNode {
    /// Where several nodes share the pools, they get to know this one. Blocks.
    pub(crate) fn open(
        pools: Arc<Pools>,
        target_root: &Path,
        blocking: Blocking,
        identity: Identity,
        follower: Arc<Follower>,
    ) -> Result<Self, OpenError> {
        let targets = TrustedDir::open(target_root).map_err(OpenError::TargetRoot)?;
        if identity.reach.is_shared() {
            for pool in pools.iter() {
                nodes::register(pool, &identity.node)?;
            }
        }
        Ok(LocalNode {
            inner: Arc::new(Inner {
                pools,
                targets,
                identity,
                follower,
                devices: Mutex::default(),
                reading: Mutex::default(),
            }),
            blocking,
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let inner = Arc::clone(&self.inner);
        self.blocking.run(what, move || work(&inner)).await?
    }
}

/// Why the node can't work.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    #[error("open the target root")]
    TargetRoot(#[source] MountError),
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Found {
    fn files(&self) -> Files<'_> {
        Files {
            directory: &self.directory,
            content: self.record.content,
        }
    }

    /// All of unstaging but the mount.
    fn release(&self, limited: &[(u32, u32)]) -> Result<(), DriverError> {
        let undone = self.backend.unstage(self.files());
        undone
            .and_then(|()| {
                if limited.is_empty() {
                    return Ok(());
                }
                // One that is published still keeps its device, and its limits.
                let left = self.backend.devices(self.files())?;
                let gone = limited.iter().filter(|number| !left.contains(number));
                backend::forget_limits(&gone.copied().collect::<Vec<_>>())
            })
            .map_err(|error| error.into_driver_error("unstage the volume"))
    }

    /// Is unpublishing done once the target is taken away?
    fn leaves_nothing(&self, target: &Target) -> Result<bool, DriverError> {
        let Some(seen) = look(target)? else {
            return Ok(false);
        };
        let leaves_nothing = self.backend.leaves_nothing(self.files(), seen);
        leaves_nothing.map_err(|error| error.into_driver_error("look at the volume's device"))
    }

    /// The devices with limits that must not stay with their numbers.
    fn limited_devices(&self) -> Result<Vec<(u32, u32)>, DriverError> {
        let settings = Settings::parse(&self.record.mutable_parameters)?;
        if settings.limits == Limits::default() {
            return Ok(Vec::new());
        }
        let numbers = self.backend.devices(self.files());
        numbers.map_err(|error| error.into_driver_error("find the volume's devices"))
    }

    /// What is wrong with the volume that is seen at `path`.
    fn condition(&self, path: &Target) -> VolumeCondition {
        let fault = self.backend.fault(self.files(), self.record.capacity_bytes);
        let fault = fault.and_then(|fault| match fault {
            None if self.record.content != Content::Block
                && usage::is_read_only_by_error(path.pinned_path())? =>
            {
                Ok(Some(
                    "its filesystem has met an error and takes no writes".to_owned(),
                ))
            }
            fault => Ok(fault),
        });
        let message = fault.unwrap_or_else(|error| {
            let error = error.into_driver_error("look at the volume's data");
            Some(error.full_message())
        });
        VolumeCondition {
            is_abnormal: message.is_some(),
            message: message.unwrap_or_else(|| "the volume can be used".to_owned()),
        }
    }
}

impl Inner {
    fn find(&self, volume_id: &str) -> Result<Found, DriverError> {
        let (pool, record) = self.pools.load(volume_id)?;
        let backend = backend::of_content(record.content);
        Ok(Found {
            directory: pool.directory(volume_id),
            pool,
            record,
            backend,
        })
    }

    /// Where several nodes share the pools, only one that has the lease may go on, and in no other way.
    fn check_lease(
        &self,
        found: &Found,
        publish_context: &StringMap,
        plan: &mut MountPlan,
    ) -> Result<(), DriverError> {
        if !self.identity.reach.is_shared() {
            return Ok(());
        }
        let lease = leases::read(&found.pool, &found.record.volume_id)?;
        let told = publish_context.get(CONTEXT_KEY).map(String::as_str);
        let holder = lease::check_held(lease.as_ref(), &self.identity.node.node_id, told)?;
        if holder.is_read_only {
            plan.options.attributes = plan.options.attributes.read_only();
        }
        Ok(())
    }

    /// As `find`, for undoing: a volume that is gone has nothing left to undo.
    fn find_if_any(&self, volume_id: &str) -> Result<Option<Found>, DriverError> {
        match self.pools.load(volume_id) {
            Err(error) if error.is_not_there() => Ok(None),
            _ => self.find(volume_id).map(Some),
        }
    }

    fn target(&self, path: &Path) -> Result<Target, DriverError> {
        self.targets
            .target(path)
            .map_err(|error| BackendError::from(error).into_driver_error("resolve the path"))
    }

    /// The path of something to undo, or `None` if even its parent is gone.
    fn target_if_any(&self, path: &Path) -> Result<Option<Target>, DriverError> {
        match self.targets.target(path) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(BackendError::from(error).into_driver_error("resolve the path")),
        }
    }

    /// A path that must lead to a volume.
    fn existing(&self, path: &Path) -> Result<Target, DriverError> {
        match self.targets.target(path) {
            Ok(target) => Ok(target),
            Err(error) if error.is_not_found() || matches!(error, MountError::BadPath { .. }) => Err(
                DriverError::not_found(format!("there is no volume at {}", path.display())).caused_by(error),
            ),
            Err(error) => Err(BackendError::from(error).into_driver_error("resolve the path")),
        }
    }

    fn stage(&self, request: &NodeStageVolume) -> Result<(), DriverError> {
        let found = self.find(request.volume_id.as_str())?;
        check_fit(self.identity.reach.nodes(), &found.record, &request.capability)?;
        found.pool.settle(&found.record.volume_id)?;
        let mut plan = MountPlan::new(&request.capability, false)?;
        plan.settings = Settings::parse(&found.record.mutable_parameters)?;
        self.check_lease(&found, &request.publish_context, &mut plan)?;
        let staging = self.target(&request.staging_target_path)?;
        let staged = found.backend.stage(found.files(), &staging, &plan);
        // The record may have changed since it was read.
        if found.record.content.is_file() {
            self.follower.look_again(&found.directory);
        }
        staged.map_err(|error| error.into_driver_error("stage the volume"))?;
        // The lease may have been taken meanwhile; from now on the volume is in use for all to see.
        if let Err(lost) = self.check_lease(&found, &request.publish_context, &mut plan) {
            self.undo_stage(&found, &staging)?;
            return Err(lost);
        }
        tracing::info!(path = %staging.path().display(), content = %found.record.content, "Volume staged");
        Ok(())
    }

    fn undo_stage(&self, found: &Found, staging: &Target) -> Result<(), DriverError> {
        let limited = found.limited_devices()?;
        unmount(staging)?;
        failpoint::hit("unstage::after_unmount")?;
        found.release(&limited)
    }

    fn unstage(&self, request: &NodeUnstageVolume) -> Result<(), DriverError> {
        self.devices.lock().remove(&request.volume_id);
        let staging = self.target_if_any(&request.staging_target_path)?;
        let found = self.find_if_any(request.volume_id.as_str())?;
        match (&found, &staging) {
            (Some(found), Some(staging)) => self.undo_stage(found, staging)?,
            (None, Some(staging)) => unmount(staging)?,
            (Some(found), None) => found.release(&found.limited_devices()?)?,
            (None, None) => {}
        }
        if let Some(found) = found.filter(|found| found.record.content.is_file()) {
            self.follower.look_again(&found.directory);
        }
        tracing::info!(path = %request.staging_target_path.display(), "Volume unstaged");
        Ok(())
    }

    fn publish(&self, request: &NodePublishVolume) -> Result<(), DriverError> {
        let found = self.find(request.volume_id.as_str())?;
        check_fit(self.identity.reach.nodes(), &found.record, &request.capability)?;
        found.pool.settle(&found.record.volume_id)?;
        let mut plan = MountPlan::new(&request.capability, request.is_read_only)?;
        self.check_lease(&found, &request.publish_context, &mut plan)?;
        // The SDK lets no publish through without it.
        let staging = request.staging_target_path.as_deref();
        let staging_path =
            staging.ok_or_else(|| DriverError::precondition("staging_target_path is missing"))?;
        let staging = self.target(staging_path)?;
        let target = self.target(&request.target_path)?;
        if request.capability.access_mode == AccessMode::SingleNodeSingleWriter {
            check_only_user(&found, staging_path, &request.target_path)?;
        }
        plan.device = self.devices.lock().get(&request.volume_id).copied();
        let published = {
            let _alone = (plan.is_block && plan.is_read_only()).then(|| self.reading.lock());
            found.backend.publish(found.files(), &staging, &target, &plan)
        };
        published.map_err(|error| error.into_driver_error("publish the volume"))?;
        if plan.is_block && !plan.is_read_only() && plan.device.is_none() {
            let seen = look(&target)?;
            let number = seen.map(|seen| (request.volume_id.clone(), seen.represents));
            self.devices.lock().extend(number);
        }
        tracing::info!(path = %target.path().display(), read_only = plan.is_read_only(), "Volume published");
        Ok(())
    }

    fn unpublish(&self, request: &NodeUnpublishVolume) -> Result<(), DriverError> {
        let found = self.find_if_any(request.volume_id.as_str());
        let target = self.target_if_any(&request.target_path)?;
        let leaves_nothing = match (&found, &target) {
            // Only a shortcut: what is wrong shows on the long way, too.
            (Ok(Some(found)), Some(target)) => found.leaves_nothing(target).unwrap_or(false),
            _ => false,
        };
        if let Some(target) = target {
            unmount(&target)?;
            failpoint::hit("unpublish::after_unmount")?;
            let removed = target.remove();
            removed.map_err(|error| BackendError::from(error).into_driver_error("remove the target"))?;
            failpoint::hit("unpublish::after_removal")?;
        }
        // Whatever its record is like, nobody sees the volume any more.
        if let Some(found) = found?.filter(|_| !leaves_nothing) {
            let _alone = self.reading.lock();
            let undone = found.backend.unpublish(found.files());
            undone.map_err(|error| error.into_driver_error("unpublish the volume"))?;
        }
        tracing::info!(path = %request.target_path.display(), "Volume unpublished");
        Ok(())
    }

    fn stats(&self, query: &VolumeStatsQuery) -> Result<VolumeStats, DriverError> {
        let found = self.find(query.volume_id.as_str())?;
        let path = self.existing(&query.volume_path)?;
        let condition = found.condition(&path);
        let stats = match found.backend.stats(found.files(), &path) {
            Ok(stats) => stats,
            // What is broken may have no numbers any more, but the caller shall know that it is.
            Err(_) if condition.is_abnormal && is_mount_point(&path)? => VolumeStats::default(),
            Err(error) => return Err(error.into_driver_error("measure the volume")),
        };
        Ok(VolumeStats {
            condition: Some(condition),
            ..stats
        })
    }

    fn expand(&self, request: &NodeExpandVolume) -> Result<u64, DriverError> {
        let found = self.find(request.volume_id.as_str())?;
        if let Some(capability) = &request.capability {
            fit::fit(self.identity.reach.nodes(), found.record.content, capability)
                .map_err(DriverError::invalid)?;
        }
        let size = found.record.capacity_bytes;
        if request
            .capacity
            .required_bytes
            .is_some_and(|required| required > size)
        {
            let message = format!("the volume has {size} bytes; the controller must expand it first");
            return Err(DriverError::out_of_range(message));
        }
        let path = self.existing(&request.volume_path)?;
        let grown = found.backend.grow_on_node(found.files(), &path);
        grown.map_err(|error| error.into_driver_error("expand the volume on the node"))?;
        tracing::info!(path = %path.path().display(), capacity_bytes = size, "Volume expanded on the node");
        Ok(size)
    }
}

fn look(path: &Target) -> Result<Option<Seen>, DriverError> {
    path.look()
        .map_err(|error| BackendError::from(error).into_driver_error("look at the path"))
}

fn is_mount_point(path: &Target) -> Result<bool, DriverError> {
    Ok(look(path)?.is_some_and(|seen| seen.is_mount_point))
}

/// CSI 1.12, node calls: "exceeds capabilities" is a failed precondition.
fn check_fit(nodes: Nodes, record: &Record, capability: &VolumeCapability) -> Result<(), DriverError> {
    fit::fit(nodes, record.content, capability).map_err(DriverError::precondition)
}

/// SINGLE_NODE_SINGLE_WRITER: at one target path at most.
fn check_only_user(found: &Found, staging: &Path, target: &Path) -> Result<(), DriverError> {
    let published = found.backend.published_at(found.files(), Some(staging));
    let published =
        published.map_err(|error| error.into_driver_error("find out where the volume is published"))?;
    match published.iter().find(|path| path.as_path() != target) {
        None => Ok(()),
        Some(other) => Err(DriverError::precondition(format!(
            "the volume is for a single writer and already published at {}",
            other.display()
        ))),
    }
}

fn unmount(target: &Target) -> Result<(), DriverError> {
    target
        .unmount_all()
        .map(drop)
        .map_err(|error| BackendError::from(error).into_driver_error("unmount the volume"))
}

#[async_trait]
impl NodePublishing for LocalNode {
    async fn describe_node(&self) -> Result<NodeDescription, DriverError> {
        self.run("describe the node", |inner| {
            let Identity { node, reach } = &inner.identity;
            Ok(NodeDescription {
                node_id: node.node_id.clone(),
                max_volumes: node.max_volumes,
                topology: Some(reach.of_all(inner.pools.iter().map(AsRef::as_ref))?),
            })
        })
        .await
    }

    async fn publish_volume(&self, request: NodePublishVolume) -> Result<(), DriverError> {
        self.run("publish the volume", move |inner| inner.publish(&request))
            .await
    }

    async fn unpublish_volume(&self, request: NodeUnpublishVolume) -> Result<(), DriverError> {
        self.run("unpublish the volume", move |inner| inner.unpublish(&request))
            .await
    }

    fn applies_mount_group(&self) -> bool {
        true
    }
}

#[async_trait]
impl NodeStaging for LocalNode {
    async fn stage_volume(&self, request: NodeStageVolume) -> Result<(), DriverError> {
        self.run("stage the volume", move |inner| inner.stage(&request))
            .await
    }

    async fn unstage_volume(&self, request: NodeUnstageVolume) -> Result<(), DriverError> {
        self.run("unstage the volume", move |inner| inner.unstage(&request))
            .await
    }
}

#[async_trait]
impl NodeStats for LocalNode {
    async fn volume_stats(&self, query: VolumeStatsQuery) -> Result<VolumeStats, DriverError> {
        self.run("measure the volume", move |inner| inner.stats(&query))
            .await
    }

    fn knows_condition(&self) -> bool {
        true
    }
}

#[async_trait]
impl NodeExpansion for LocalNode {
    async fn expand_volume(&self, request: NodeExpandVolume) -> Result<Option<u64>, DriverError> {
        self.run("expand the volume on the node", move |inner| {
            inner.expand(&request)
        })
        .await
        .map(Some)
    }
}
