//! A driver process with volumes that must survive whatever happens to others, and what can be seen of it all.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use moorline_driver_local::{BackendKind, Config};
use moorline_mount::{loop_device, usage};
use moorline_proto::csi::{
    self,
    volume_capability::{AccessType, access_mode::Mode},
};
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::{
    process::Process,
    support::{DIR, Driver, LONG, NODE, Scratch, Use, config, from_snapshot, text},
};

/// Far below what the disk has, so that only promises count.
const CAPACITY_BYTES: u64 = 1 << 30;
/// In use all the time; acts take snapshots and clones of it.
pub(super) const SUBJECT: &str = "subject";
/// In use all the time; nobody touches it.
const BYSTANDER: &str = "bystander";
const KEPT: &str = "kept-snapshot";
const GROUP_OF_USERS: u32 = 3456;
const SUBJECT_DATA: &str = "what the subject holds";

pub(super) struct World {
    pub(super) usage: Use,
    pub(super) driver: Driver,
    // Dropped before the scratch directory is cleaned up.
    process: Option<Process>,
    config: Config,
    choice: PathBuf,
    armed: usize,
    bystander_data: Vec<u8>,
    pub(super) scratch: Scratch,
}

/// All that can be seen of a driver and its pool, but for contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Id, size, source.
    pub(super) volumes: Vec<(String, i64, String)>,
    /// Id, source, size, group.
    pub(super) snapshots: Vec<(String, String, i64, String)>,
    /// What the pool directory holds, contents of volumes left out.
    pub(super) entries: BTreeSet<String>,
    pub(super) available_bytes: i64,
    pub(super) mounts: BTreeSet<PathBuf>,
    pub(super) attached: BTreeSet<PathBuf>,
}

impl World {
    pub(super) async fn new(usage: Use, is_attachable: bool) -> Self {
        let scratch = Scratch::new();
        if usage.backend == BackendKind::Btrfs {
            scratch.btrfs_pool();
        }
        let mut config = config(scratch.root(), usage.backend);
        config.pools[0].capacity_limit_bytes = Some(CAPACITY_BYTES);
        config.is_attachable = is_attachable;
        let choice = scratch.path("failpoints");
        let process = Process::start(&scratch, &config, &format!("@{}", choice.display()));
        let driver = Driver::connect(&config).await;
        let mut world = World {
            usage,
            driver,
            process: Some(process),
            config,
            choice,
            armed: 0,
            bystander_data: Vec::new(),
            scratch,
        };
        for id in [SUBJECT, BYSTANDER] {
            world.driver.create(usage.create(id)).await.unwrap();
        }
        world.driver.snapshot(KEPT, BYSTANDER).await.unwrap();
        for id in [SUBJECT, BYSTANDER] {
            world.use_it(id).await;
        }
        fs::write(world.file(SUBJECT), SUBJECT_DATA).unwrap();
        let mut random = vec![0; 1 << 20];
        std::io::Read::read_exact(&mut File::open("/dev/urandom").unwrap(), &mut random).unwrap();
        fs::write(world.file(BYSTANDER), &random).unwrap();
        world.bystander_data = random;
        world
    }

    /// From now on the driver does `action` when it passes `point` for the `turn`th time.
    pub(super) fn arm(&mut self, point: &str, action: &str, turn: usize) {
        self.armed += 1;
        let choice = format!("arming {};{point}={action}@{turn}", self.armed);
        fs::write(&self.choice, choice).unwrap();
    }

    pub(super) fn disarm(&self) {
        fs::write(&self.choice, "").unwrap();
    }

    /// The driver has killed itself; another one is started.
    pub(super) async fn has_died(&mut self) {
        self.process.take().unwrap().was_killed().await;
        self.disarm();
        self.start().await;
    }

    pub(super) async fn restart(&mut self) {
        self.disarm();
        self.process.take().unwrap().stop().await;
        self.start().await;
    }

    async fn start(&mut self) {
        let failpoints = format!("@{}", self.choice.display());
        self.process = Some(Process::start(&self.scratch, &self.config, &failpoints));
        self.driver = Driver::connect(&self.config).await;
    }

    fn staging(&self, id: &str) -> PathBuf {
        self.scratch.directory(&format!("staging-{id}"))
    }

    fn target(&self, id: &str) -> PathBuf {
        self.scratch.path(&format!("target-{id}"))
    }

    fn file(&self, id: &str) -> PathBuf {
        match self.usage.fs_type {
            Some(_) => self.target(id).join("file"),
            None => self.target(id),
        }
    }

    /// The publish context of the node.
    pub(super) async fn attach(&mut self, id: &str) -> Result<HashMap<String, String>, Status> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: id.into(),
            node_id: NODE.into(),
            volume_capability: Some(self.usage.capability(Mode::SingleNodeWriter)),
            ..Default::default()
        };
        let answer = self.driver.controller.controller_publish_volume(request).await?;
        Ok(answer.into_inner().publish_context)
    }

    pub(super) async fn detach(&mut self, id: &str) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: id.into(),
            node_id: NODE.into(),
            ..Default::default()
        };
        let detached = self.driver.controller.controller_unpublish_volume(request).await;
        detached.map(drop)
    }

    pub(super) async fn stage(&mut self, id: &str) -> Result<(), Status> {
        let mut request = self.usage.stage(id, &self.staging(id));
        if self.config.is_attachable {
            request.publish_context = self.attach(id).await?;
        }
        self.driver.stage(request).await
    }

    /// With the group of whoever is to use it.
    pub(super) async fn publish(&mut self, id: &str) -> Result<(), Status> {
        let (staging, target) = (self.staging(id), self.target(id));
        let mut request = self.usage.publish(id, &staging, &target);
        if self.config.is_attachable {
            request.publish_context = self.attach(id).await?;
        }
        let capability = request.volume_capability.as_mut();
        if let Some(AccessType::Mount(mount)) = capability.and_then(|it| it.access_type.as_mut()) {
            mount.volume_mount_group = GROUP_OF_USERS.to_string();
        }
        self.driver.publish(request).await
    }

    pub(super) async fn unpublish(&mut self, id: &str) -> Result<(), Status> {
        let target = self.target(id);
        self.driver.unpublish(id, &target).await
    }

    pub(super) async fn unstage(&mut self, id: &str) -> Result<(), Status> {
        let staging = self.staging(id);
        self.driver.unstage(id, &staging).await?;
        fs::remove_dir(staging).unwrap();
        if self.config.is_attachable {
            self.detach(id).await?;
        }
        Ok(())
    }

    async fn use_it(&mut self, id: &str) {
        self.stage(id).await.unwrap();
        self.publish(id).await.unwrap();
    }

    async fn leave_it(&mut self, id: &str) {
        self.unpublish(id).await.unwrap();
        self.unstage(id).await.unwrap();
    }

    pub(super) async fn write_into(&mut self, id: &str, data: &str) {
        self.use_it(id).await;
        fs::write(self.file(id), data).unwrap();
        self.leave_it(id).await;
    }

    /// As [`World::write_into`]; a filesystem on a file is then as after a power cut.
    pub(super) async fn write_and_break_off(&mut self, id: &str, data: &str) {
        self.use_it(id).await;
        fs::write(self.file(id), data).unwrap();
        File::open(self.file(id)).unwrap().sync_all().unwrap();
        let image = self.scratch.path(&format!("pool/volumes/{id}/image"));
        let is_mounted_image = self.usage.is_loop() && self.usage.fs_type.is_some();
        let kept = is_mounted_image.then(|| {
            // What is in the device's cache goes to the file first.
            rustix::fs::sync();
            let aside = self.scratch.path("image-aside");
            fs::copy(&image, &aside).unwrap();
            aside
        });
        self.leave_it(id).await;
        if let Some(aside) = kept {
            fs::copy(&aside, &image).unwrap();
            fs::remove_file(aside).unwrap();
        }
    }

    /// What is written in a published volume; `None`: nothing.
    pub(super) fn content_at(&self, id: &str) -> Option<String> {
        let mut bytes = fs::read(self.file(id)).ok()?;
        // The rest of a device is empty.
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        bytes.truncate(end);
        Some(String::from_utf8(bytes).unwrap())
    }

    /// How large the user sees a published volume, in words.
    pub(super) fn size_at(&self, id: &str) -> String {
        let target = self.target(id);
        match self.usage.fs_type {
            // A directory is as large as its pool, which changes all the time.
            Some("") => String::new(),
            Some(_) => usage::filesystem(&target).unwrap().bytes.total.to_string(),
            None => usage::block_size(&target).unwrap().to_string(),
        }
    }

    /// Whose group a published volume is, in words.
    pub(super) fn owner_at(&self, id: &str) -> String {
        fs::metadata(self.target(id)).unwrap().gid().to_string()
    }

    /// Is the device of a staged volume read and written past the cache? In words.
    pub(super) fn direct_io_of(&self, id: &str) -> String {
        let image = self.scratch.path(&format!("pool/volumes/{id}/image"));
        let device = loop_device::find_by_backing_file(image).unwrap().unwrap();
        let name = device.path().file_name().unwrap().to_owned();
        let path = Path::new("/sys/block").join(name).join("loop/dio");
        fs::read_to_string(path).unwrap()
    }

    /// What a volume holds; `None`: nothing.
    pub(super) async fn content_of(&mut self, id: &str) -> Option<String> {
        self.use_it(id).await;
        let content = self.content_at(id);
        self.leave_it(id).await;
        content
    }

    /// The contents of a snapshot, by way of a volume that is made of it.
    pub(super) async fn content_of_snapshot(&mut self, snapshot_id: &str) -> Option<String> {
        let request = from_snapshot(self.usage.create("looked-into"), snapshot_id);
        self.driver.create(request).await.unwrap();
        let content = self.content_of("looked-into").await;
        self.driver.delete("looked-into").await.unwrap();
        content
    }

    pub(super) async fn state(&mut self) -> State {
        let (mounts, attached) = self.scratch.in_use();
        // First: who asks for the room waits for the data of what is deleted to be gone.
        let available_bytes = self.available_bytes().await;
        State {
            volumes: self.volumes().await,
            snapshots: self.snapshots().await,
            entries: entries(&self.scratch.path("pool"), self.usage == DIR),
            available_bytes,
            mounts: mounts.into_iter().collect(),
            attached: attached.into_iter().collect(),
        }
    }

    async fn volumes(&mut self) -> Vec<(String, i64, String)> {
        let request = csi::ListVolumesRequest::default();
        let answer = self.driver.controller.list_volumes(request).await.unwrap();
        let volumes = answer.into_inner().entries.into_iter();
        volumes
            .map(|entry| {
                let volume = entry.volume.unwrap();
                let source = format!("{:?}", volume.content_source.and_then(|source| source.r#type));
                (volume.volume_id, volume.capacity_bytes, source)
            })
            .collect()
    }

    async fn snapshots(&mut self) -> Vec<(String, String, i64, String)> {
        let request = csi::ListSnapshotsRequest::default();
        let answer = self.driver.controller.list_snapshots(request).await.unwrap();
        let snapshots = answer.into_inner().entries.into_iter();
        snapshots
            .map(|entry| {
                let it = entry.snapshot.unwrap();
                assert!(it.ready_to_use, "{it:?}");
                (
                    it.snapshot_id,
                    it.source_volume_id,
                    it.size_bytes,
                    it.group_snapshot_id,
                )
            })
            .collect()
    }

    async fn available_bytes(&mut self) -> i64 {
        let request = csi::GetCapacityRequest::default();
        let answer = self.driver.controller.get_capacity(request).await.unwrap();
        answer.into_inner().available_capacity
    }

    /// The volumes that nothing was done to hold what they held, and can be written to.
    pub(super) async fn others_are_untouched(&mut self, case: &str) {
        let is_whole = fs::read(self.file(BYSTANDER))
            .unwrap()
            .starts_with(&self.bystander_data);
        assert!(is_whole, "{case}: the bystander was changed");
        let path = self.file(SUBJECT);
        assert_eq!(self.content_at(SUBJECT).as_deref(), Some(SUBJECT_DATA), "{case}");
        // A filesystem that was left frozen would let nobody write.
        let rewriting = spawn_blocking(move || {
            let mut file = File::options().write(true).open(path)?;
            file.write_all(SUBJECT_DATA.as_bytes())?;
            file.sync_all()
        });
        let rewritten = tokio::time::timeout(LONG, rewriting).await;
        let rewritten = rewritten.unwrap_or_else(|_| panic!("{case}: the subject is frozen"));
        rewritten.unwrap().unwrap();
    }

    /// What the driver has logged since its last start.
    pub(super) fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log)
    }

    /// Removes all; nothing may be left.
    pub(super) async fn end(mut self) {
        for id in [SUBJECT, BYSTANDER] {
            self.leave_it(id).await;
            self.driver.delete(id).await.unwrap();
        }
        self.driver.delete_snapshot(KEPT).await.unwrap();
        assert_eq!(
            self.available_bytes().await,
            i64::try_from(CAPACITY_BYTES).unwrap()
        );
        self.process.take().unwrap().stop().await;
        for shelf in ["volumes", "snapshots", "groups", "frozen"] {
            let path = self.scratch.path("pool").join(shelf);
            assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "{}", text(&path));
        }
        assert_eq!(self.scratch.in_use(), (vec![], vec![]));
    }
}

/// Relative paths of all that is below `root`, but for what is in directories that are volumes' data, and the journal, which
/// is made when it is needed first. With a journal, second copies of records come later, and directories of volumes that
/// nobody used wait for others: both may be there or not.
fn entries(root: &Path, has_journal: bool) -> BTreeSet<String> {
    let may_be_there = |path: &Path| {
        let name = text(path.strip_prefix(root.join("volumes")).unwrap_or(Path::new("")));
        name.starts_with(".new-spare.") || name.ends_with("/record.copy")
    };
    let (mut found, mut open) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path == root.join("journal") || (has_journal && may_be_there(&path)) {
                continue;
            }
            let is_data = path.file_name().is_some_and(|name| name == "data");
            if path.is_dir() && !is_data {
                open.push(path.clone());
            }
            found.insert(text(path.strip_prefix(root).unwrap()));
        }
    }
    found
}
