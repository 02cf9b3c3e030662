//! The node's calls: staging, publishing, stats and expansion. What is mounted is asked of the kernel each time.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{
        AccessMode, NodeExpandVolume, NodePublishVolume, NodeStageVolume, NodeUnpublishVolume,
        NodeUnstageVolume, Topology, VolumeCapability, VolumeStatsQuery,
    },
    traits::{NodeExpansion, NodePublishing, NodeStaging, NodeStats},
    volume::{NodeDescription, VolumeStats},
};
use moorline_mount::{
    MountError,
    beneath::{Target, TrustedDir},
};

use crate::{
    backend::{self, Backend, BackendError, Files},
    blocking::Blocking,
    fit::{self, MountPlan},
    pools::Pools,
    record::Record,
};

pub(crate) struct LocalNode {
    inner: Arc<Inner>,
    blocking: Blocking,
    description: NodeDescription,
}

/// What the blocking work needs.
struct Inner {
    pools: Arc<Pools>,
    targets: TrustedDir,
}

/// A volume whose record has been read, with its backend.
struct Found {
    record: Record,
    directory: PathBuf,
    backend: &'static dyn Backend,
}

impl LocalNode {
    pub(crate) fn open(
        pools: Arc<Pools>,
        target_root: &Path,
        blocking: Blocking,
        node_id: String,
        max_volumes: Option<u64>,
        here: Topology,
    ) -> Result<Self, MountError> {
        let targets = TrustedDir::open(target_root)?;
        Ok(LocalNode {
            inner: Arc::new(Inner { pools, targets }),
            blocking,
            description: NodeDescription {
                node_id,
                max_volumes,
                topology: Some(here),
            },
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

impl Found {
    fn files(&self) -> Files<'_> {
        Files {
            directory: &self.directory,
            content: self.record.content,
        }
    }
}

impl Inner {
    fn find(&self, volume_id: &str) -> Result<Found, DriverError> {
        let (pool, record) = self.pools.load(volume_id)?;
        let backend = backend::of_content(record.content);
        Ok(Found {
            directory: pool.directory(volume_id),
            record,
            backend,
        })
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
        check_fit(&found.record, &request.capability)?;
        let plan = MountPlan::new(&request.capability, false)?;
        let staging = self.target(&request.staging_target_path)?;
        found
            .backend
            .stage(found.files(), &staging, &plan)
            .map_err(|error| error.into_driver_error("stage the volume"))?;
        tracing::info!(path = %staging.path().display(), "Volume staged");
        Ok(())
    }

    fn unstage(&self, request: &NodeUnstageVolume) -> Result<(), DriverError> {
        if let Some(staging) = self.target_if_any(&request.staging_target_path)? {
            unmount(&staging)?;
        }
        if let Some(found) = self.find_if_any(request.volume_id.as_str())? {
            let undone = found.backend.unstage(found.files());
            undone.map_err(|error| error.into_driver_error("unstage the volume"))?;
        }
        tracing::info!(path = %request.staging_target_path.display(), "Volume unstaged");
        Ok(())
    }

    fn publish(&self, request: &NodePublishVolume) -> Result<(), DriverError> {
        let found = self.find(request.volume_id.as_str())?;
        check_fit(&found.record, &request.capability)?;
        let plan = MountPlan::new(&request.capability, request.is_read_only)?;
        // The SDK lets no publish through without it.
        let staging = request.staging_target_path.as_deref();
        let staging_path =
            staging.ok_or_else(|| DriverError::precondition("staging_target_path is missing"))?;
        let staging = self.target(staging_path)?;
        let target = self.target(&request.target_path)?;
        if request.capability.access_mode == AccessMode::SingleNodeSingleWriter {
            check_only_user(&found, staging_path, &request.target_path)?;
        }
        found
            .backend
            .publish(found.files(), &staging, &target, &plan)
            .map_err(|error| error.into_driver_error("publish the volume"))?;
        tracing::info!(path = %target.path().display(), read_only = plan.is_read_only(), "Volume published");
        Ok(())
    }

    fn unpublish(&self, request: &NodeUnpublishVolume) -> Result<(), DriverError> {
        if let Some(target) = self.target_if_any(&request.target_path)? {
            unmount(&target)?;
            let removed = target.remove();
            removed.map_err(|error| BackendError::from(error).into_driver_error("remove the target"))?;
        }
        if let Some(found) = self.find_if_any(request.volume_id.as_str())? {
            let undone = found.backend.unpublish(found.files());
            undone.map_err(|error| error.into_driver_error("unpublish the volume"))?;
        }
        tracing::info!(path = %request.target_path.display(), "Volume unpublished");
        Ok(())
    }

    fn stats(&self, query: &VolumeStatsQuery) -> Result<VolumeStats, DriverError> {
        let found = self.find(query.volume_id.as_str())?;
        let path = self.existing(&query.volume_path)?;
        let stats = found.backend.stats(found.files(), &path);
        stats.map_err(|error| error.into_driver_error("measure the volume"))
    }

    fn expand(&self, request: &NodeExpandVolume) -> Result<u64, DriverError> {
        let found = self.find(request.volume_id.as_str())?;
        if let Some(capability) = &request.capability {
            fit::fit(found.record.content, capability).map_err(DriverError::invalid)?;
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

/// CSI 1.12, node calls: "exceeds capabilities" is a failed precondition.
fn check_fit(record: &Record, capability: &VolumeCapability) -> Result<(), DriverError> {
    fit::fit(record.content, capability).map_err(DriverError::precondition)
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
        Ok(self.description.clone())
    }

    async fn publish_volume(&self, request: NodePublishVolume) -> Result<(), DriverError> {
        self.run("publish the volume", move |inner| inner.publish(&request))
            .await
    }

    async fn unpublish_volume(&self, request: NodeUnpublishVolume) -> Result<(), DriverError> {
        self.run("unpublish the volume", move |inner| inner.unpublish(&request))
            .await
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
