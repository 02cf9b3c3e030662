//! One suite over all kinds of volumes: the whole life, repetitions, restarts, read-only, conflicts. Each test leaves no
//! mount and no loop device.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use moorline_mount::{
    filesystem::{self, FsType},
    mount, usage as disk_usage,
};
use moorline_proto::csi::{self, volume_capability::access_mode::Mode};
use tonic::Code;

use crate::support::{
    BLOCK, BLOCK_IN_BTRFS, BTRFS, DIR, Driver, EXT4, SUBVOLUME, Scratch, Use, XFS, cannot_run, skipped, text,
};

/// One test per kind of volume and behaviour.
macro_rules! for_each_use {
    ($($behaviour:ident),* $(,)?) => { $(
        mod $behaviour {
            use super::*;

            async fn check(name: &str, usage: Use) {
                if cannot_run(&format!("{}::{name}", stringify!($behaviour)), usage.tools()) {
                    return;
                }
                super::$behaviour(usage).await;
            }

            #[tokio::test]
            async fn dir() { check("dir", DIR).await }
            #[tokio::test]
            async fn ext4() { check("ext4", EXT4).await }
            #[tokio::test]
            async fn xfs() { check("xfs", XFS).await }
            #[tokio::test]
            async fn btrfs() { check("btrfs", BTRFS).await }
            #[tokio::test]
            async fn subvolume() { check("subvolume", SUBVOLUME).await }
            #[tokio::test]
            async fn block_in_btrfs() { check("block_in_btrfs", BLOCK_IN_BTRFS).await }
            #[tokio::test]
            async fn block() { check("block", BLOCK).await }
        }
    )* };
}

for_each_use!(
    a_volume_lives_grows_and_dies,
    every_step_can_be_repeated,
    undoing_what_was_never_done_is_fine,
    steps_out_of_order_are_refused,
    a_restart_changes_nothing,
    a_driver_that_dies_loses_nothing,
    read_only_is_read_only,
    several_targets_come_and_go,
    a_single_writer_is_alone,
    a_volume_in_use_is_not_deleted,
    planted_paths_lead_nowhere,
    a_busy_target_stays_until_it_is_free,
);

fn write(usage: Use, target: &Path, data: &str) -> std::io::Result<()> {
    if usage.fs_type.is_some() {
        return fs::write(target.join("file"), data);
    }
    let mut device = File::options().write(true).open(target)?;
    device.write_all(data.as_bytes())?;
    device.sync_all()
}

fn read(usage: Use, target: &Path, length: usize) -> String {
    let path = if usage.fs_type.is_some() {
        target.join("file")
    } else {
        target.to_owned()
    };
    let mut data = vec![0; length];
    File::open(path).unwrap().read_exact(&mut data).unwrap();
    String::from_utf8(data).unwrap()
}

fn can_grow(usage: Use) -> bool {
    let is_ext4 = usage.fs_type == Some("ext4");
    if is_ext4 && !filesystem::can_grow_mounted(FsType::Ext4) {
        skipped(
            "a_volume_lives_grows_and_dies::ext4, the growth",
            "needs CAP_SYS_RESOURCE",
        );
        return false;
    }
    true
}

/// A volume and where it goes.
struct Made {
    scratch: Scratch,
    driver: Driver,
    usage: Use,
    id: String,
    staging: PathBuf,
    target: PathBuf,
}

impl Made {
    async fn new(usage: Use) -> Self {
        let scratch = Scratch::new();
        let mut driver = Driver::start(&scratch, usage.backend).await;
        let id = driver.create(usage.create("pvc-1")).await.unwrap().volume_id;
        let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
        Made {
            scratch,
            driver,
            usage,
            id,
            staging,
            target,
        }
    }

    async fn published(usage: Use) -> Self {
        let mut it = Made::new(usage).await;
        it.driver.stage(it.stage_request()).await.unwrap();
        it.driver.publish(it.publish_request(&it.target)).await.unwrap();
        it
    }

    fn stage_request(&self) -> csi::NodeStageVolumeRequest {
        self.usage.stage(&self.id, &self.staging)
    }

    fn publish_request(&self, target: &Path) -> csi::NodePublishVolumeRequest {
        self.usage.publish(&self.id, &self.staging, target)
    }

    async fn end(mut self) {
        self.driver.unpublish(&self.id, &self.target).await.unwrap();
        assert!(!self.target.exists(), "the target is removed");
        self.driver.unstage(&self.id, &self.staging).await.unwrap();
        assert_eq!(self.scratch.in_use(), (vec![], vec![]));
        self.driver.delete(&self.id).await.unwrap();
        self.driver.stop().await;
        assert_eq!(
            fs::read_dir(self.scratch.path("pool/volumes")).unwrap().count(),
            0
        );
    }
}

async fn a_volume_lives_grows_and_dies(usage: Use) {
    let mut it = Made::published(usage).await;
    write(usage, &it.target, "data").unwrap();
    let before = it.driver.stats(&it.id, &it.target).await.unwrap();
    assert_eq!(
        before.len(),
        if usage.counts_inodes() { 2 } else { 1 },
        "bytes, and inodes of filesystems that count them"
    );

    let bytes = 2 * usage.bytes;
    for _ in 0..2 {
        assert_eq!(
            it.driver.expand(&it.id, bytes).await.unwrap(),
            (bytes, usage.is_loop())
        );
    }
    if can_grow(usage) {
        assert_eq!(
            it.driver.node_expand(&it.id, &it.target, bytes).await.unwrap(),
            bytes
        );
        let after = it.driver.stats(&it.id, &it.target).await.unwrap();
        let has_grown = after[0].total > before[0].total + usage.bytes / 2;
        assert!(has_grown || usage == DIR, "{before:?} {after:?}");
    }
    assert_eq!(read(usage, &it.target, 4), "data");
    let too_large = it
        .driver
        .node_expand(&it.id, &it.target, 2 * bytes)
        .await
        .unwrap_err();
    assert_eq!(
        too_large.code(),
        Code::OutOfRange,
        "the controller comes first: {too_large}"
    );
    it.end().await;
}

async fn every_step_can_be_repeated(usage: Use) {
    let mut it = Made::new(usage).await;
    assert_eq!(
        it.driver.create(usage.create("pvc-1")).await.unwrap().volume_id,
        it.id
    );
    for _ in 0..2 {
        it.driver.stage(it.stage_request()).await.unwrap();
    }
    for _ in 0..2 {
        it.driver.publish(it.publish_request(&it.target)).await.unwrap();
    }
    write(usage, &it.target, "data").unwrap();
    for _ in 0..2 {
        it.driver.unpublish(&it.id, &it.target).await.unwrap();
    }
    it.driver.publish(it.publish_request(&it.target)).await.unwrap();
    assert_eq!(read(usage, &it.target, 4), "data");
    it.driver.unpublish(&it.id, &it.target).await.unwrap();
    for _ in 0..2 {
        it.driver.unstage(&it.id, &it.staging).await.unwrap();
    }
    for _ in 0..2 {
        it.driver.delete(&it.id).await.unwrap();
    }
    it.end().await;
}

async fn undoing_what_was_never_done_is_fine(usage: Use) {
    let mut it = Made::new(usage).await;
    for id in [it.id.as_str(), "pvc-unknown", "no/id/of/ours"] {
        it.driver.unpublish(id, &it.target).await.unwrap();
        it.driver
            .unpublish(id, &it.scratch.path("no/such/path"))
            .await
            .unwrap();
        it.driver.unstage(id, &it.staging).await.unwrap();
        it.driver
            .unstage(id, &it.scratch.path("no/such/path"))
            .await
            .unwrap();
    }
    it.end().await;
}

async fn steps_out_of_order_are_refused(usage: Use) {
    let mut it = Made::new(usage).await;
    if usage.is_loop() {
        let early = it
            .driver
            .publish(it.publish_request(&it.target))
            .await
            .unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    }
    let nowhere = it.driver.stats(&it.id, &it.target).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::NotFound, "{nowhere}");
    it.driver.delete(&it.id).await.unwrap();
    let gone = it.driver.stage(it.stage_request()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
    let gone = it.driver.expand(&it.id, usage.bytes).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
    it.end().await;
}

async fn a_restart_changes_nothing(usage: Use) {
    let it = Made::published(usage).await;
    write(usage, &it.target, "data").unwrap();
    it.driver.stop().await;
    assert_eq!(
        read(usage, &it.target, 4),
        "data",
        "volumes do not need the driver to be used"
    );
    let driver = Driver::start(&it.scratch, usage.backend).await;
    let mut it = Made { driver, ..it };
    it.driver.stage(it.stage_request()).await.unwrap();
    it.driver.publish(it.publish_request(&it.target)).await.unwrap();
    assert_eq!(
        it.driver.create(usage.create("pvc-1")).await.unwrap().volume_id,
        it.id
    );
    assert_eq!(read(usage, &it.target, 4), "data");
    it.end().await;
}

/// As after kill -9 between the steps: a new driver finds what the old one has left and undoes it in any order.
async fn a_driver_that_dies_loses_nothing(usage: Use) {
    let it = Made::published(usage).await;
    write(usage, &it.target, "data").unwrap();
    it.driver.abort().await;
    let driver = Driver::start(&it.scratch, usage.backend).await;
    let mut it = Made { driver, ..it };
    // Unstage first: what is published stays usable.
    let early = it.driver.unstage(&it.id, &it.staging).await;
    assert_eq!(
        early.is_err(),
        usage.fs_type.is_none(),
        "a block device would vanish under its user: {early:?}"
    );
    assert_eq!(read(usage, &it.target, 4), "data");
    it.end().await;
}

async fn read_only_is_read_only(usage: Use) {
    let mut it = Made::published(usage).await;
    write(usage, &it.target, "data").unwrap();
    let second = it.scratch.path("second");
    let read_only = |it: &Made, target: &Path| csi::NodePublishVolumeRequest {
        readonly: true,
        ..it.publish_request(target)
    };
    for _ in 0..2 {
        it.driver.publish(read_only(&it, &second)).await.unwrap();
    }
    assert_eq!(read(usage, &second, 4), "data");
    assert!(write(usage, &second, "more").is_err(), "not even by root");
    write(usage, &it.target, "more").expect("the other target is writable still");

    // The same target in another way is a conflict, both ways.
    let conflicts = [it.publish_request(&second), read_only(&it, &it.target)];
    for request in conflicts {
        let refused = it.driver.publish(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    }
    it.driver.unpublish(&it.id, &second).await.unwrap();
    it.end().await;
}

async fn several_targets_come_and_go(usage: Use) {
    let mut it = Made::published(usage).await;
    let second = it.scratch.path("second");
    it.driver.publish(it.publish_request(&second)).await.unwrap();
    write(usage, &it.target, "data").unwrap();
    assert_eq!(read(usage, &second, 4), "data");
    it.driver.unpublish(&it.id, &second).await.unwrap();
    assert_eq!(read(usage, &it.target, 4), "data");
    it.end().await;
}

async fn a_single_writer_is_alone(usage: Use) {
    let mut it = Made::published(usage).await;
    let second = it.scratch.path("second");
    let alone = |it: &Made, target: &Path| csi::NodePublishVolumeRequest {
        volume_capability: Some(usage.capability(Mode::SingleNodeSingleWriter)),
        ..it.publish_request(target)
    };
    it.driver
        .publish(alone(&it, &it.target))
        .await
        .expect("where it is already");
    let refused = it.driver.publish(alone(&it, &second)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(&text(&it.target)), "{refused}");
    let part = it.scratch.directory("part");
    if usage.fs_type.is_some() {
        // A subPath is no publishing of its own, whatever it is called.
        fs::create_dir(it.target.join("data")).unwrap();
        mount::bind(it.target.join("data"), &part, false).unwrap();
    }
    it.driver.unpublish(&it.id, &it.target).await.unwrap();
    it.driver.publish(alone(&it, &second)).await.expect("free again");
    if usage.fs_type.is_some() {
        mount::unmount(&part).unwrap();
    }
    it.driver.unpublish(&it.id, &second).await.unwrap();
    it.end().await;
}

async fn a_volume_in_use_is_not_deleted(usage: Use) {
    let mut it = Made::published(usage).await;
    write(usage, &it.target, "data").unwrap();
    let refused = it.driver.delete(&it.id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(read(usage, &it.target, 4), "data");
    it.end().await;
}

async fn planted_paths_lead_nowhere(usage: Use) {
    let mut it = Made::published(usage).await;
    let victim = it.scratch.directory("victim");
    std::os::unix::fs::symlink(&victim, it.scratch.path("link")).unwrap();
    let outside = PathBuf::from("/tmp/moorline-outside-of-the-target-root");
    for target in [
        it.scratch.path("link"),
        it.scratch.path("link/below"),
        outside.clone(),
    ] {
        let refused = it.driver.publish(it.publish_request(&target)).await.unwrap_err();
        assert!(
            matches!(refused.code(), Code::InvalidArgument | Code::Internal),
            "{target:?}: {refused}"
        );
    }
    assert!(!outside.exists());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);

    // Something else that is mounted at the target is neither covered nor taken for the volume.
    let other = it.scratch.directory("other");
    mount::mount("tmpfs", &other, "tmpfs", &[]).unwrap();
    let refused = it.driver.publish(it.publish_request(&other)).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::AlreadyExists | Code::InvalidArgument),
        "{refused}"
    );
    mount::unmount(&other).unwrap();
    it.end().await;
}

async fn a_busy_target_stays_until_it_is_free(usage: Use) {
    let mut it = Made::published(usage).await;
    write(usage, &it.target, "data").unwrap();
    let path = if usage.fs_type.is_some() {
        it.target.join("file")
    } else {
        it.target.clone()
    };
    let user = File::open(path).unwrap();
    let busy = it.driver.unpublish(&it.id, &it.target).await.unwrap_err();
    assert_eq!(busy.code(), Code::Internal, "{busy}");
    assert!(busy.message().contains("busy"), "{busy}");
    assert_eq!(read(usage, &it.target, 4), "data");
    drop(user);
    it.end().await;
}

#[tokio::test]
async fn ext4_that_grew_offline_is_grown_when_staged() {
    if !cannot_run("ext4_that_grew_offline_is_grown_when_staged", EXT4.tools()) {
        grows_when_staged(EXT4).await;
    }
}

#[tokio::test]
async fn xfs_that_grew_offline_is_grown_when_staged() {
    if !cannot_run("xfs_that_grew_offline_is_grown_when_staged", XFS.tools()) {
        grows_when_staged(XFS).await;
    }
}

#[tokio::test]
async fn btrfs_that_grew_offline_is_grown_when_staged() {
    if !cannot_run("btrfs_that_grew_offline_is_grown_when_staged", BTRFS.tools()) {
        grows_when_staged(BTRFS).await;
    }
}

async fn grows_when_staged(usage: Use) {
    let mut it = Made::published(usage).await;
    let before = disk_usage::filesystem(&it.target).unwrap().bytes.total;
    it.driver.unpublish(&it.id, &it.target).await.unwrap();
    it.driver.unstage(&it.id, &it.staging).await.unwrap();
    it.driver.expand(&it.id, 2 * usage.bytes).await.unwrap();
    it.driver.stage(it.stage_request()).await.unwrap();
    it.driver.publish(it.publish_request(&it.target)).await.unwrap();
    let after = disk_usage::filesystem(&it.target).unwrap().bytes.total;
    assert!(after > before + before / 2, "{before} {after}");
    it.end().await;
}
