//! A driver in this process, served over its real socket, in a directory that is cleaned up also after a panic.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_driver_local::{BackendKind, Config, Error, PoolError};
use moorline_driver_sdk::Endpoint;
use moorline_mount::{
    filesystem::{self, FsType},
    loop_device::{self, AttachOptions},
    mount, tool,
};
use moorline_proto::csi::{
    self,
    controller_client::ControllerClient,
    group_controller_client::GroupControllerClient,
    identity_client::IdentityClient,
    node_client::NodeClient,
    snapshot_metadata_client::SnapshotMetadataClient,
    volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode},
    volume_content_source::{SnapshotSource, Type as Source, VolumeSource},
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, transport::Channel};

pub(crate) const NODE: &str = "node-1";
pub(crate) const MIB: i64 = 1 << 20;
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// How often a test looks at what can't tell it.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(2);
const POOL_IMAGE: &str = "pool.img";
const POOL_BYTES: u64 = 2 << 30;

/// Says on the real stderr, past the test harness's capture, that `test` did not run.
pub(crate) fn skipped(test: &str, reason: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").unwrap();
}

/// Says why `test` can't run here, if it can't.
pub(crate) fn cannot_run(test: &str, tools: &[&str]) -> bool {
    let missing = tools.iter().find(|name| !tool::is_installed(name));
    let reason = match missing {
        _ if !nix::unistd::geteuid().is_root() => "needs root".to_owned(),
        _ if !Path::new("/dev/loop-control").exists() => "no loop devices".to_owned(),
        Some(missing) => format!("{missing} is not installed"),
        None => return false,
    };
    skipped(test, &reason);
    true
}

/// Waits for a condition: looks until there is a value, and fails after [`LONG`] with what was last seen.
pub(crate) async fn until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) => assert!(
                Instant::now() < deadline,
                "not in time: {what}; last seen: {seen}"
            ),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// As [`until`], for what is either so or not.
pub(crate) async fn until_so(what: &str, mut is_so: impl FnMut() -> bool) {
    let look = || {
        std::future::ready(if is_so() {
            Ok(())
        } else {
            Err("it is not so".to_owned())
        })
    };
    until(what, look).await;
}

/// A temporary directory; at its end nothing is mounted below it and no loop device stands for a file in it.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A new btrfs for the pool, mounted where [`config`] has it; the device goes with the mount. Mounted already is fine.
    pub(crate) fn btrfs_pool(&self) {
        let (pool, image) = (self.directory("pool"), self.path(POOL_IMAGE));
        if mount::is_mount_point(&pool).unwrap() {
            return;
        }
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(POOL_BYTES).unwrap();
        filesystem::make(&image, FsType::Btrfs).unwrap();
        let how = AttachOptions {
            autoclear: true,
            ..AttachOptions::default()
        };
        let device = loop_device::attach(&image, how).unwrap();
        mount::mount(device.path(), &pool, "btrfs", &[]).unwrap();
    }

    /// What of ours is mounted or attached, the pool itself left out: `(mount points, backing files)`.
    pub(crate) fn in_use(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (pool, image) = (self.path("pool"), self.path(POOL_IMAGE));
        let mounts = moorline_mount::mountinfo::read().unwrap();
        let mounts = moorline_mount::mountinfo::at_or_below(&mounts, self.dir.path());
        let files = loop_device::list()
            .unwrap()
            .into_iter()
            .map(|entry| entry.backing_file);
        (
            mounts
                .iter()
                .map(|entry| entry.mount_point.clone())
                .filter(|mount_point| *mount_point != pool)
                .collect(),
            files
                .filter(|file| file.starts_with(self.dir.path()) && *file != image)
                .collect(),
        )
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if mount::unmount_tree(self.dir.path()).is_err() {
            // After a panic the driver still has files open in its pool: what is mounted goes when it does.
            let mounts = moorline_mount::mountinfo::read().unwrap_or_default();
            for entry in moorline_mount::mountinfo::at_or_below(&mounts, self.dir.path()) {
                if let Err(error) = mount::unmount_lazy(&entry.mount_point) {
                    eprintln!("left a mount behind: {error}");
                }
            }
        }
        for entry in loop_device::list().unwrap_or_default() {
            if entry.backing_file.starts_with(self.dir.path()) {
                loop_device::detach(&entry.device).ok(); // Autoclear may have been faster.
            }
        }
    }
}

/// Clients of a driver, and the driver if it runs in this process.
pub(crate) struct Driver {
    pub(crate) controller: ControllerClient<Channel>,
    pub(crate) node: NodeClient<Channel>,
    pub(crate) groups: GroupControllerClient<Channel>,
    pub(crate) metadata: SnapshotMetadataClient<Channel>,
    here: Option<Here>,
}

struct Here {
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Driver {
    pub(crate) async fn start(scratch: &Scratch, backend: BackendKind) -> Self {
        if backend == BackendKind::Btrfs {
            scratch.btrfs_pool();
        }
        Self::with(config(scratch.root(), backend)).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let run = || tasks.spawn(moorline_driver_local::run(config.clone(), stop.clone()));
        let deadline = Instant::now() + LONG;
        let mut running = run();
        let mut driver = loop {
            if let Some(driver) = Self::try_connect(&config).await {
                break driver;
            }
            assert!(Instant::now() < deadline, "no driver");
            if running.is_finished() {
                match running.await.unwrap() {
                    // The connections of a driver that was aborted have the pool for a moment longer.
                    Err(Error::Pool(PoolError::Locked(_))) => running = run(),
                    other => panic!("no driver: {other:?}"),
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        driver.here = Some(Here { stop, running });
        driver
    }

    /// Clients of a driver that somebody else runs, as soon as it answers.
    pub(crate) async fn connect(config: &Config) -> Self {
        until("a driver that answers", || async {
            Self::try_connect(config)
                .await
                .ok_or_else(|| "no driver".to_owned())
        })
        .await
    }

    async fn try_connect(config: &Config) -> Option<Self> {
        let endpoint = tonic::transport::Endpoint::from_shared(config.serving.endpoint.to_string()).unwrap();
        let channel = endpoint.connect().await.ok()?;
        let mut identity = IdentityClient::new(channel.clone());
        let ready = identity
            .probe(csi::ProbeRequest {})
            .await
            .ok()?
            .into_inner()
            .ready;
        assert_eq!(ready, Some(true));
        Some(Driver {
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel.clone()),
            groups: GroupControllerClient::new(channel.clone()),
            metadata: SnapshotMetadataClient::new(channel),
            here: None,
        })
    }

    /// Ends the driver in the middle of whatever it does, without its being told.
    pub(crate) async fn abort(self) {
        let here = self.here.expect("it runs here");
        here.running.abort();
        assert!(here.running.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn stop(self) {
        drop((self.controller, self.node, self.groups, self.metadata));
        let here = self.here.expect("it runs here");
        here.stop.cancel();
        tokio::time::timeout(LONG, here.running)
            .await
            .expect("the driver ends")
            .unwrap()
            .unwrap();
    }
}

/// The calls, without the wrapping that tests don't look at.
impl Driver {
    pub(crate) async fn create(&mut self, request: csi::CreateVolumeRequest) -> Result<csi::Volume, Status> {
        let answer = self.controller.create_volume(request).await?;
        Ok(answer.into_inner().volume.unwrap())
    }

    pub(crate) async fn delete(&mut self, volume_id: &str) -> Result<(), Status> {
        self.controller.delete_volume(delete(volume_id)).await.map(drop)
    }

    pub(crate) async fn volume_ids(&mut self) -> Vec<String> {
        let request = csi::ListVolumesRequest::default();
        let answer = self.controller.list_volumes(request).await.unwrap();
        let volumes = answer
            .into_inner()
            .entries
            .into_iter()
            .filter_map(|entry| entry.volume);
        volumes.map(|volume| volume.volume_id).collect()
    }

    /// `(size, does the node have to follow)`.
    pub(crate) async fn expand(&mut self, volume_id: &str, bytes: i64) -> Result<(i64, bool), Status> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume_id.into(),
            capacity_range: Some(range(bytes)),
            ..Default::default()
        };
        let answer = self
            .controller
            .controller_expand_volume(request)
            .await?
            .into_inner();
        Ok((answer.capacity_bytes, answer.node_expansion_required))
    }

    pub(crate) async fn snapshot(&mut self, name: &str, volume_id: &str) -> Result<csi::Snapshot, Status> {
        let request = csi::CreateSnapshotRequest {
            name: name.into(),
            source_volume_id: volume_id.into(),
            ..Default::default()
        };
        let answer = self.controller.create_snapshot(request).await?;
        Ok(answer.into_inner().snapshot.unwrap())
    }

    pub(crate) async fn delete_snapshot(&mut self, snapshot_id: &str) -> Result<(), Status> {
        let request = csi::DeleteSnapshotRequest {
            snapshot_id: snapshot_id.into(),
            ..Default::default()
        };
        self.controller.delete_snapshot(request).await.map(drop)
    }

    /// The ids of all snapshots, or of those of one volume.
    pub(crate) async fn snapshots_of(&mut self, volume_id: &str) -> Vec<String> {
        let request = csi::ListSnapshotsRequest {
            source_volume_id: volume_id.into(),
            ..Default::default()
        };
        let answer = self
            .controller
            .list_snapshots(request)
            .await
            .unwrap()
            .into_inner();
        let snapshots = answer.entries.into_iter().filter_map(|entry| entry.snapshot);
        snapshots.map(|snapshot| snapshot.snapshot_id).collect()
    }

    pub(crate) async fn stage(&mut self, request: csi::NodeStageVolumeRequest) -> Result<(), Status> {
        self.node.node_stage_volume(request).await.map(drop)
    }

    pub(crate) async fn publish(&mut self, request: csi::NodePublishVolumeRequest) -> Result<(), Status> {
        self.node.node_publish_volume(request).await.map(drop)
    }

    pub(crate) async fn unpublish(&mut self, volume_id: &str, target: &Path) -> Result<(), Status> {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: volume_id.into(),
            target_path: text(target),
        };
        self.node.node_unpublish_volume(request).await.map(drop)
    }

    pub(crate) async fn unstage(&mut self, volume_id: &str, staging: &Path) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume_id.into(),
            staging_target_path: text(staging),
        };
        self.node.node_unstage_volume(request).await.map(drop)
    }

    pub(crate) async fn node_expand(
        &mut self,
        volume_id: &str,
        path: &Path,
        bytes: i64,
    ) -> Result<i64, Status> {
        let request = csi::NodeExpandVolumeRequest {
            volume_id: volume_id.into(),
            volume_path: text(path),
            capacity_range: Some(range(bytes)),
            ..Default::default()
        };
        Ok(self
            .node
            .node_expand_volume(request)
            .await?
            .into_inner()
            .capacity_bytes)
    }

    pub(crate) async fn stats(
        &mut self,
        volume_id: &str,
        path: &Path,
    ) -> Result<Vec<csi::VolumeUsage>, Status> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: volume_id.into(),
            volume_path: text(path),
            ..Default::default()
        };
        Ok(self.node.node_get_volume_stats(request).await?.into_inner().usage)
    }
}

pub(crate) fn delete(volume_id: &str) -> csi::DeleteVolumeRequest {
    csi::DeleteVolumeRequest {
        volume_id: volume_id.into(),
        ..Default::default()
    }
}

pub(crate) fn range(required_bytes: i64) -> csi::CapacityRange {
    csi::CapacityRange {
        required_bytes,
        limit_bytes: 0,
    }
}

pub(crate) fn config(root: &Path, backend: BackendKind) -> Config {
    let endpoint = Endpoint::Unix(root.join("csi.sock"));
    let mut config = Config::new(endpoint, NODE, root.join("pool"), backend);
    config.target_root = root.to_owned();
    config
}

/// How a volume is used in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) backend: BackendKind,
    /// `None`: block.
    pub(crate) fs_type: Option<&'static str>,
    pub(crate) bytes: i64,
}

pub(crate) const DIR: Use = Use {
    backend: BackendKind::Dir,
    fs_type: Some(""),
    bytes: 16 * MIB,
};
pub(crate) const EXT4: Use = Use {
    backend: BackendKind::Loop,
    fs_type: Some("ext4"),
    bytes: 32 * MIB,
};
pub(crate) const XFS: Use = Use {
    backend: BackendKind::Loop,
    fs_type: Some("xfs"),
    bytes: 300 * MIB,
};
pub(crate) const BTRFS: Use = Use {
    backend: BackendKind::Loop,
    fs_type: Some("btrfs"),
    bytes: 256 * MIB,
};
pub(crate) const SUBVOLUME: Use = Use {
    backend: BackendKind::Btrfs,
    fs_type: Some(""),
    bytes: 32 * MIB,
};
/// A block device in a pool of subvolumes.
pub(crate) const BLOCK_IN_BTRFS: Use = Use {
    backend: BackendKind::Btrfs,
    fs_type: None,
    bytes: 16 * MIB,
};
pub(crate) const BLOCK: Use = Use {
    backend: BackendKind::Loop,
    fs_type: None,
    bytes: 16 * MIB,
};

impl Use {
    /// Is the volume a file with a loop device?
    pub(crate) fn is_loop(self) -> bool {
        self.backend == BackendKind::Loop || self.fs_type.is_none()
    }

    /// Does a filesystem of its own count inodes?
    pub(crate) fn counts_inodes(self) -> bool {
        self.fs_type.is_some() && self.backend != BackendKind::Btrfs && self.fs_type != Some("btrfs")
    }

    pub(crate) fn tools(self) -> &'static [&'static str] {
        match self.fs_type {
            _ if self.backend == BackendKind::Btrfs => &["mkfs.btrfs"],
            Some("btrfs") => &["mkfs.btrfs"],
            Some("ext4") => &["mkfs.ext4", "e2fsck", "resize2fs"],
            Some("xfs") => &["mkfs.xfs", "xfs_growfs"],
            _ => &[],
        }
    }

    pub(crate) fn capability(self, mode: Mode) -> csi::VolumeCapability {
        let access_type = match self.fs_type {
            None => AccessType::Block(BlockVolume {}),
            Some(fs_type) => AccessType::Mount(MountVolume {
                fs_type: fs_type.into(),
                ..Default::default()
            }),
        };
        csi::VolumeCapability {
            access_type: Some(access_type),
            access_mode: Some(AccessMode { mode: mode.into() }),
        }
    }

    pub(crate) fn create(self, name: &str) -> csi::CreateVolumeRequest {
        csi::CreateVolumeRequest {
            name: name.into(),
            capacity_range: Some(range(self.bytes)),
            volume_capabilities: vec![self.capability(Mode::SingleNodeWriter)],
            ..Default::default()
        }
    }

    pub(crate) fn stage(self, volume_id: &str, staging: &Path) -> csi::NodeStageVolumeRequest {
        csi::NodeStageVolumeRequest {
            volume_id: volume_id.into(),
            staging_target_path: text(staging),
            volume_capability: Some(self.capability(Mode::SingleNodeWriter)),
            ..Default::default()
        }
    }

    pub(crate) fn publish(
        self,
        volume_id: &str,
        staging: &Path,
        target: &Path,
    ) -> csi::NodePublishVolumeRequest {
        csi::NodePublishVolumeRequest {
            volume_id: volume_id.into(),
            staging_target_path: text(staging),
            target_path: text(target),
            volume_capability: Some(self.capability(Mode::SingleNodeWriter)),
            ..Default::default()
        }
    }
}

/// The request with content from a snapshot.
pub(crate) fn from_snapshot(
    request: csi::CreateVolumeRequest,
    snapshot_id: &str,
) -> csi::CreateVolumeRequest {
    let source = SnapshotSource {
        snapshot_id: snapshot_id.into(),
    };
    csi::CreateVolumeRequest {
        volume_content_source: Some(csi::VolumeContentSource {
            r#type: Some(Source::Snapshot(source)),
        }),
        ..request
    }
}

/// The request with content from another volume.
pub(crate) fn from_volume(request: csi::CreateVolumeRequest, volume_id: &str) -> csi::CreateVolumeRequest {
    let source = VolumeSource {
        volume_id: volume_id.into(),
    };
    csi::CreateVolumeRequest {
        volume_content_source: Some(csi::VolumeContentSource {
            r#type: Some(Source::Volume(source)),
        }),
        ..request
    }
}

/// The request with a parameter of its class.
pub(crate) fn with_parameter(
    mut request: csi::CreateVolumeRequest,
    key: &str,
    value: &str,
) -> csi::CreateVolumeRequest {
    request.parameters.insert(key.into(), value.into());
    request
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
