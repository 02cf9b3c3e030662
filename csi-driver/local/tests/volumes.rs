//! One suite over all kinds of volumes, on the real kernel and over the real socket: the whole life, repetitions,
//! restarts, read-only, conflicts. Each test leaves no mount and no loop device.

#![cfg(test)]

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
};

use moorline_mount::filesystem::{self, FsType};
use moorline_proto::csi::{self, volume_capability::access_mode::Mode};
use support::{BLOCK, DIR, Driver, EXT4, Scratch, Use, XFS, cannot_run, delete, text, unpublish, unstage};
use tonic::Code;

#[cfg(test)]
mod support;

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
            async fn block() { check("block", BLOCK).await }
        }
    )* };
}

for_each_use!(
    a_volume_lives_and_dies,
    every_step_can_be_repeated_and_undone_in_any_order,
    a_restart_changes_nothing,
    read_only_is_read_only,
    several_targets_come_and_go,
    a_single_writer_is_alone,
    a_volume_in_use_is_not_deleted,
    planted_paths_lead_nowhere,
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
        eprintln!("skipped: online growth of ext4: needs CAP_SYS_RESOURCE");
        return false;
    }
    true
}

/// A volume that is staged and published at `target`.
struct Published {
    scratch: Scratch,
    driver: Driver,
    volume_id: String,
    staging: std::path::PathBuf,
    target: std::path::PathBuf,
}

impl Published {
    async fn new(usage: Use) -> Self {
        let scratch = Scratch::new();
        let mut driver = Driver::start(&scratch, usage.backend).await;
        let volume = driver
            .controller
            .create_volume(usage.create("pvc-1"))
            .await
            .unwrap()
            .into_inner()
            .volume
            .unwrap();
        let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
        driver
            .node
            .node_stage_volume(usage.stage(&volume.volume_id, &staging))
            .await
            .unwrap();
        driver
            .node
            .node_publish_volume(usage.publish(&volume.volume_id, &staging, &target))
            .await
            .unwrap();
        Published {
            scratch,
            driver,
            volume_id: volume.volume_id,
            staging,
            target,
        }
    }

    async fn end(mut self) {
        self.driver
            .node
            .node_unpublish_volume(unpublish(&self.volume_id, &self.target))
            .await
            .unwrap();
        assert!(!self.target.exists(), "the target is removed");
        self.driver
            .node
            .node_unstage_volume(unstage(&self.volume_id, &self.staging))
            .await
            .unwrap();
        assert_eq!(self.scratch.in_use(), (vec![], vec![]));
        self.driver
            .controller
            .delete_volume(delete(&self.volume_id))
            .await
            .unwrap();
        self.driver.stop().await;
        assert_eq!(
            fs::read_dir(self.scratch.path("pool/volumes")).unwrap().count(),
            0
        );
    }
}

async fn a_volume_lives_and_dies(usage: Use) {
    let mut it = Published::new(usage).await;
    write(usage, &it.target, "data").unwrap();
    let query = csi::NodeGetVolumeStatsRequest {
        volume_id: it.volume_id.clone(),
        volume_path: text(&it.target),
        ..Default::default()
    };
    let before = it
        .driver
        .node
        .node_get_volume_stats(query.clone())
        .await
        .unwrap()
        .into_inner()
        .usage;
    assert_eq!(
        before.len(),
        if usage.fs_type.is_some() { 2 } else { 1 },
        "bytes, and inodes of filesystems"
    );

    let new_size = 2 * usage.bytes;
    let expand = csi::ControllerExpandVolumeRequest {
        volume_id: it.volume_id.clone(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: new_size,
            limit_bytes: 0,
        }),
        ..Default::default()
    };
    for _ in 0..2 {
        let grown = it
            .driver
            .controller
            .controller_expand_volume(expand.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(grown.capacity_bytes, new_size);
        assert_eq!(
            grown.node_expansion_required,
            usage.backend == moorline_driver_local::BackendKind::Loop
        );
    }
    if can_grow(usage) {
        let request = csi::NodeExpandVolumeRequest {
            volume_id: it.volume_id.clone(),
            volume_path: text(&it.target),
            capacity_range: expand.capacity_range,
            staging_target_path: text(&it.staging),
            ..Default::default()
        };
        let grown = it
            .driver
            .node
            .node_expand_volume(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(grown.capacity_bytes, new_size);
        let after = it
            .driver
            .node
            .node_get_volume_stats(query)
            .await
            .unwrap()
            .into_inner()
            .usage;
        if usage.backend == moorline_driver_local::BackendKind::Loop {
            assert!(
                after[0].total > before[0].total + usage.bytes / 2,
                "{before:?} {after:?}"
            );
        }
    }
    assert_eq!(read(usage, &it.target, 4), "data");
    it.end().await;
}

async fn every_step_can_be_repeated_and_undone_in_any_order(usage: Use) {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, usage.backend).await;
    let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
    let first = driver
        .controller
        .create_volume(usage.create("pvc-1"))
        .await
        .unwrap()
        .into_inner();
    let again = driver
        .controller
        .create_volume(usage.create("pvc-1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again);
    let id = first.volume.unwrap().volume_id;

    // Undoing what was never done is fine, also for volumes that never were.
    for volume_id in [id.as_str(), "pvc-unknown"] {
        driver
            .node
            .node_unpublish_volume(unpublish(volume_id, &target))
            .await
            .unwrap();
        driver
            .node
            .node_unstage_volume(unstage(volume_id, &staging))
            .await
            .unwrap();
        driver
            .node
            .node_unstage_volume(unstage(volume_id, &scratch.path("no/such/path")))
            .await
            .unwrap();
    }
    if usage.backend == moorline_driver_local::BackendKind::Loop {
        let early = driver
            .node
            .node_publish_volume(usage.publish(&id, &staging, &target))
            .await
            .unwrap_err();
        assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    }
    for _ in 0..2 {
        driver
            .node
            .node_stage_volume(usage.stage(&id, &staging))
            .await
            .unwrap();
    }
    for _ in 0..2 {
        driver
            .node
            .node_publish_volume(usage.publish(&id, &staging, &target))
            .await
            .unwrap();
    }
    write(usage, &target, "data").unwrap();
    // A node that crashed may unstage first: published volumes stay usable, or the call fails and changes nothing.
    driver
        .node
        .node_unpublish_volume(unpublish(&id, &target))
        .await
        .unwrap();
    driver
        .node
        .node_unpublish_volume(unpublish(&id, &target))
        .await
        .unwrap();
    driver
        .node
        .node_publish_volume(usage.publish(&id, &staging, &target))
        .await
        .unwrap();
    assert_eq!(read(usage, &target, 4), "data");
    driver
        .node
        .node_unpublish_volume(unpublish(&id, &target))
        .await
        .unwrap();
    for _ in 0..2 {
        driver
            .node
            .node_unstage_volume(unstage(&id, &staging))
            .await
            .unwrap();
    }
    assert_eq!(scratch.in_use(), (vec![], vec![]));
    for _ in 0..2 {
        driver.controller.delete_volume(delete(&id)).await.unwrap();
    }
    let gone = driver
        .node
        .node_stage_volume(usage.stage(&id, &staging))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    driver.stop().await;
}

async fn a_restart_changes_nothing(usage: Use) {
    let it = Published::new(usage).await;
    write(usage, &it.target, "data").unwrap();
    it.driver.stop().await;
    assert_eq!(
        read(usage, &it.target, 4),
        "data",
        "volumes do not need the driver to be used"
    );
    let mut driver = Driver::start(&it.scratch, usage.backend).await;
    driver
        .node
        .node_stage_volume(usage.stage(&it.volume_id, &it.staging))
        .await
        .unwrap();
    driver
        .node
        .node_publish_volume(usage.publish(&it.volume_id, &it.staging, &it.target))
        .await
        .unwrap();
    let same = driver
        .controller
        .create_volume(usage.create("pvc-1"))
        .await
        .unwrap()
        .into_inner()
        .volume
        .unwrap();
    assert_eq!(same.volume_id, it.volume_id);
    assert_eq!(read(usage, &it.target, 4), "data");
    Published { driver, ..it }.end().await;
}

async fn read_only_is_read_only(usage: Use) {
    let mut it = Published::new(usage).await;
    write(usage, &it.target, "data").unwrap();
    let second = it.scratch.path("second");
    let request = csi::NodePublishVolumeRequest {
        readonly: true,
        ..usage.publish(&it.volume_id, &it.staging, &second)
    };
    for _ in 0..2 {
        it.driver.node.node_publish_volume(request.clone()).await.unwrap();
    }
    assert_eq!(read(usage, &second, 4), "data");
    assert!(write(usage, &second, "more").is_err(), "not even by root");
    write(usage, &it.target, "more").expect("the other target is writable still");

    // The same target in another way is a conflict, both ways.
    let writable = usage.publish(&it.volume_id, &it.staging, &second);
    assert_eq!(
        it.driver
            .node
            .node_publish_volume(writable)
            .await
            .unwrap_err()
            .code(),
        Code::AlreadyExists
    );
    let read_only = csi::NodePublishVolumeRequest {
        readonly: true,
        ..usage.publish(&it.volume_id, &it.staging, &it.target)
    };
    assert_eq!(
        it.driver
            .node
            .node_publish_volume(read_only)
            .await
            .unwrap_err()
            .code(),
        Code::AlreadyExists
    );

    it.driver
        .node
        .node_unpublish_volume(unpublish(&it.volume_id, &second))
        .await
        .unwrap();
    it.end().await;
}

async fn several_targets_come_and_go(usage: Use) {
    let mut it = Published::new(usage).await;
    let second = it.scratch.path("second");
    it.driver
        .node
        .node_publish_volume(usage.publish(&it.volume_id, &it.staging, &second))
        .await
        .unwrap();
    write(usage, &it.target, "data").unwrap();
    assert_eq!(read(usage, &second, 4), "data");
    it.driver
        .node
        .node_unpublish_volume(unpublish(&it.volume_id, &second))
        .await
        .unwrap();
    assert_eq!(read(usage, &it.target, 4), "data");
    it.end().await;
}

async fn a_single_writer_is_alone(usage: Use) {
    let mut it = Published::new(usage).await;
    let second = it.scratch.path("second");
    let alone = |target: &Path| csi::NodePublishVolumeRequest {
        volume_capability: Some(usage.capability(Mode::SingleNodeSingleWriter)),
        ..usage.publish(&it.volume_id, &it.staging, target)
    };
    it.driver
        .node
        .node_publish_volume(alone(&it.target))
        .await
        .expect("where it is already");
    let refused = it
        .driver
        .node
        .node_publish_volume(alone(&second))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains(&text(&it.target)), "{refused}");
    it.driver
        .node
        .node_unpublish_volume(unpublish(&it.volume_id, &it.target))
        .await
        .unwrap();
    it.driver
        .node
        .node_publish_volume(alone(&second))
        .await
        .expect("free again");
    it.driver
        .node
        .node_unpublish_volume(unpublish(&it.volume_id, &second))
        .await
        .unwrap();
    it.end().await;
}

async fn a_volume_in_use_is_not_deleted(usage: Use) {
    let mut it = Published::new(usage).await;
    write(usage, &it.target, "data").unwrap();
    let refused = it
        .driver
        .controller
        .delete_volume(delete(&it.volume_id))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(read(usage, &it.target, 4), "data");
    it.end().await;
}

async fn planted_paths_lead_nowhere(usage: Use) {
    let mut it = Published::new(usage).await;
    let victim = it.scratch.directory("victim");
    std::os::unix::fs::symlink(&victim, it.scratch.path("link")).unwrap();
    for target in [
        it.scratch.path("link"),
        it.scratch.path("link/below"),
        "/tmp/outside-of-the-root".into(),
    ] {
        let publish = usage.publish(&it.volume_id, &it.staging, &target);
        let refused = it.driver.node.node_publish_volume(publish).await.unwrap_err();
        assert!(
            matches!(refused.code(), Code::InvalidArgument | Code::Internal),
            "{target:?}: {refused}"
        );
    }
    assert!(!Path::new("/tmp/outside-of-the-root").exists());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);

    // Something else that is mounted at the target is neither covered nor taken for the volume.
    let other = it.scratch.directory("other");
    moorline_mount::mount::mount("tmpfs", &other, "tmpfs", &[]).unwrap();
    let refused = it
        .driver
        .node
        .node_publish_volume(usage.publish(&it.volume_id, &it.staging, &other))
        .await;
    assert!(matches!(
        refused.unwrap_err().code(),
        Code::AlreadyExists | Code::InvalidArgument
    ));
    moorline_mount::mount::unmount(&other).unwrap();
    it.end().await;
}

#[tokio::test]
async fn ext4_that_grew_offline_is_grown_when_staged() {
    if cannot_run("ext4_that_grew_offline_is_grown_when_staged", EXT4.tools()) {
        return;
    }
    grows_when_staged(EXT4).await;
}

#[tokio::test]
async fn xfs_that_grew_offline_is_grown_when_staged() {
    if cannot_run("xfs_that_grew_offline_is_grown_when_staged", XFS.tools()) {
        return;
    }
    grows_when_staged(XFS).await;
}

async fn grows_when_staged(usage: Use) {
    let mut it = Published::new(usage).await;
    let before = moorline_mount::usage::filesystem(&it.target).unwrap().bytes.total;
    it.driver
        .node
        .node_unpublish_volume(unpublish(&it.volume_id, &it.target))
        .await
        .unwrap();
    it.driver
        .node
        .node_unstage_volume(unstage(&it.volume_id, &it.staging))
        .await
        .unwrap();
    let expand = csi::ControllerExpandVolumeRequest {
        volume_id: it.volume_id.clone(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: 2 * usage.bytes,
            limit_bytes: 0,
        }),
        ..Default::default()
    };
    it.driver
        .controller
        .controller_expand_volume(expand)
        .await
        .unwrap();
    it.driver
        .node
        .node_stage_volume(usage.stage(&it.volume_id, &it.staging))
        .await
        .unwrap();
    it.driver
        .node
        .node_publish_volume(usage.publish(&it.volume_id, &it.staging, &it.target))
        .await
        .unwrap();
    let after = moorline_mount::usage::filesystem(&it.target).unwrap().bytes.total;
    assert!(after > before + before / 2, "{before} {after}");
    it.end().await;
}
