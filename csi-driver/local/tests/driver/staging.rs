//! What staging does besides mounting: checks, copies beside their origin, groups, options; and how ill health shows.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    time::SystemTime,
};

use moorline_driver_local::{BackendKind, Services};
use moorline_mount::{filesystem, freeze::Frozen, loop_device, mountinfo};
use moorline_proto::csi::{self, volume_capability::AccessType, volume_content_source};
use tonic::Code;

use crate::support::{
    BLOCK, BTRFS, DIR, Driver, EXT4, LONG, MIB, SUBVOLUME, Scratch, Use, XFS, cannot_run, config, range, text,
};

fn clone_request(usage: Use, name: &str, source: &str, bytes: i64) -> csi::CreateVolumeRequest {
    let volume = volume_content_source::VolumeSource {
        volume_id: source.into(),
    };
    csi::CreateVolumeRequest {
        volume_content_source: Some(csi::VolumeContentSource {
            r#type: Some(volume_content_source::Type::Volume(volume)),
        }),
        capacity_range: Some(range(bytes)),
        ..usage.create(name)
    }
}

/// A clone, also a larger one, is mounted while its origin is.
async fn a_clone_is_mounted_beside_its_origin(usage: Use) {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, usage.backend).await;
    driver.create(usage.create("origin")).await.unwrap();
    let place = |name: &str| {
        (
            scratch.directory(&format!("staging-{name}")),
            scratch.path(&format!("target-{name}")),
        )
    };
    let (staging, target) = place("origin");
    driver.stage(usage.stage("origin", &staging)).await.unwrap();
    driver
        .publish(usage.publish("origin", &staging, &target))
        .await
        .unwrap();
    fs::write(target.join("file"), "original").unwrap();
    File::open(target.join("file")).unwrap().sync_all().unwrap();
    let bytes = usage.bytes * 3 / 2 / MIB * MIB;
    driver
        .create(clone_request(usage, "clone", "origin", bytes))
        .await
        .unwrap();
    let (clone_staging, clone_target) = place("clone");
    driver.stage(usage.stage("clone", &clone_staging)).await.unwrap();
    driver
        .publish(usage.publish("clone", &clone_staging, &clone_target))
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(clone_target.join("file")).unwrap(), "original");
    fs::write(clone_target.join("file"), "changed").unwrap();
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "original");
    let stats = driver.stats("clone", &clone_target).await.unwrap();
    let origin = driver.stats("origin", &target).await.unwrap();
    if usage != DIR {
        assert!(
            stats[0].total > origin[0].total + usage.bytes / 4,
            "it has grown: {stats:?} {origin:?}"
        );
    }
    for (id, staging, target) in [
        ("clone", &clone_staging, &clone_target),
        ("origin", &staging, &target),
    ] {
        driver.unpublish(id, target).await.unwrap();
        driver.unstage(id, staging).await.unwrap();
        driver.delete(id).await.unwrap();
    }
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

macro_rules! clones {
    ($($name:ident: $usage:expr),* $(,)?) => { $(
        #[tokio::test]
        async fn $name() {
            if !cannot_run(stringify!($name), $usage.tools()) {
                a_clone_is_mounted_beside_its_origin($usage).await;
            }
        }
    )* };
}

clones!(
    a_directory_clone_is_mounted_beside_its_origin: DIR,
    an_ext4_clone_is_mounted_beside_its_origin: EXT4,
    an_xfs_clone_is_mounted_beside_its_origin: XFS,
    a_btrfs_clone_is_mounted_beside_its_origin: BTRFS,
    a_subvolume_clone_is_mounted_beside_its_origin: SUBVOLUME,
);

#[tokio::test]
async fn an_unclean_filesystem_is_checked_before_it_is_mounted() {
    if cannot_run(
        "an_unclean_filesystem_is_checked_before_it_is_mounted",
        EXT4.tools(),
    ) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(EXT4.create("v")).await.unwrap();
    let staging = scratch.directory("staging");
    driver.stage(EXT4.stage("v", &staging)).await.unwrap();
    fs::write(staging.join("file"), "data").unwrap();
    File::open(staging.join("file")).unwrap().sync_all().unwrap();
    // What a power cut would leave: the file as it is while the filesystem is mounted.
    let image = scratch.path("pool/volumes/v/image");
    let device = loop_device::find_by_backing_file(&image).unwrap().unwrap();
    File::open(device.path()).unwrap().sync_all().unwrap();
    drop(device);
    let cut = fs::read(&image).unwrap();
    driver.unstage("v", &staging).await.unwrap();
    assert!(!filesystem::needs_check(&image, filesystem::FsType::Ext4).unwrap());
    fs::write(&image, cut).unwrap();
    assert!(filesystem::needs_check(&image, filesystem::FsType::Ext4).unwrap());
    driver.stage(EXT4.stage("v", &staging)).await.unwrap();
    assert_eq!(fs::read_to_string(staging.join("file")).unwrap(), "data");
    driver.unstage("v", &staging).await.unwrap();
    driver.delete("v").await.unwrap();
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

#[tokio::test]
async fn the_volume_is_given_to_the_group_asked_for() {
    if cannot_run("the_volume_is_given_to_the_group_asked_for", SUBVOLUME.tools()) {
        return;
    }
    for usage in [DIR, EXT4, SUBVOLUME] {
        let scratch = Scratch::new();
        let mut driver = Driver::start(&scratch, usage.backend).await;
        driver.create(usage.create("v")).await.unwrap();
        let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
        driver.stage(usage.stage("v", &staging)).await.unwrap();
        let with_group = |group: &str| {
            let mut request = usage.publish("v", &staging, &target);
            let capability = request.volume_capability.as_mut().unwrap();
            if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
                mount.volume_mount_group = group.into();
            }
            request
        };
        let refused = driver.publish(with_group("users")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        driver.publish(with_group("4321")).await.unwrap();
        let seen = fs::metadata(&target).unwrap();
        assert_eq!((seen.gid(), seen.mode() & 0o2070), (4321, 0o2070), "{usage:?}");
        fs::write(target.join("file"), "x").unwrap();
        assert_eq!(fs::metadata(target.join("file")).unwrap().gid(), 4321);
        driver.unpublish("v", &target).await.unwrap();
        driver.unstage("v", &staging).await.unwrap();
        driver.delete("v").await.unwrap();
        driver.stop().await;
    }
}

#[tokio::test]
async fn mount_options_reach_the_filesystem_and_the_mount() {
    if cannot_run("mount_options_reach_the_filesystem_and_the_mount", EXT4.tools()) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(EXT4.create("v")).await.unwrap();
    let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
    let with_flags = |capability: &mut Option<csi::VolumeCapability>| {
        if let Some(AccessType::Mount(mount)) = &mut capability.as_mut().unwrap().access_type {
            mount.mount_flags = vec!["noexec,nosuid".into(), "discard".into()];
        }
    };
    let mut stage = EXT4.stage("v", &staging);
    with_flags(&mut stage.volume_capability);
    let mut publish = EXT4.publish("v", &staging, &target);
    with_flags(&mut publish.volume_capability);
    driver.stage(stage).await.unwrap();
    driver.publish(publish).await.unwrap();
    let entries = mountinfo::read().unwrap();
    let entry = entries.iter().find(|entry| entry.mount_point == target).unwrap();
    assert!(
        entry.options.contains("noexec") && entry.options.contains("nosuid"),
        "{entry:?}"
    );
    assert!(entry.super_options.contains("discard"), "{entry:?}");
    driver.unpublish("v", &target).await.unwrap();
    driver.unstage("v", &staging).await.unwrap();
    driver.delete("v").await.unwrap();
    driver.stop().await;
}

/// A controller was killed between freezing and thawing, and does not come back.
#[tokio::test]
async fn what_a_lost_controller_left_frozen_is_thawed_by_the_node() {
    if cannot_run(
        "what_a_lost_controller_left_frozen_is_thawed_by_the_node",
        EXT4.tools(),
    ) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(EXT4.create("v")).await.unwrap();
    driver.stop().await;
    let mut node_config = config(scratch.root(), BackendKind::Loop);
    node_config.services = Services::Node;
    let mut node = Driver::with(node_config).await;
    let staging = scratch.directory("staging");
    node.stage(EXT4.stage("v", &staging)).await.unwrap();

    let marker = File::create(scratch.path("pool/frozen/v")).unwrap();
    let held = Frozen::freeze(&staging).unwrap();
    // Old enough to be sure that no controller is about to thaw it.
    marker.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let path = staging.join("file");
    let written = tokio::task::spawn_blocking(move || fs::write(path, "x"));
    tokio::time::timeout(LONG, written)
        .await
        .expect("it is thawed")
        .unwrap()
        .unwrap();
    assert!(!held.thaw().unwrap(), "somebody else has thawed it");
    node.unstage("v", &staging).await.unwrap();
    node.stop().await;
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    assert_eq!(fs::read_dir(scratch.path("pool/frozen")).unwrap().count(), 0);
    driver.delete("v").await.unwrap();
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

/// The health that node and controller tell of the volume.
async fn conditions(driver: &mut Driver, path: &std::path::Path) -> [csi::VolumeCondition; 2] {
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: "v".into(),
        volume_path: text(path),
        ..Default::default()
    };
    let stats = driver
        .node
        .node_get_volume_stats(request)
        .await
        .unwrap()
        .into_inner();
    let request = csi::ControllerGetVolumeRequest {
        volume_id: "v".into(),
    };
    let volume = driver
        .controller
        .controller_get_volume(request)
        .await
        .unwrap()
        .into_inner();
    [
        stats.volume_condition.unwrap(),
        volume.status.unwrap().volume_condition.unwrap(),
    ]
}

#[tokio::test]
async fn a_file_that_is_cut_off_or_gone_is_ill_health() {
    if cannot_run("a_file_that_is_cut_off_or_gone_is_ill_health", EXT4.tools()) {
        return;
    }
    for usage in [EXT4, BLOCK] {
        let scratch = Scratch::new();
        let mut driver = Driver::start(&scratch, usage.backend).await;
        driver.create(usage.create("v")).await.unwrap();
        let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
        driver.stage(usage.stage("v", &staging)).await.unwrap();
        driver
            .publish(usage.publish("v", &staging, &target))
            .await
            .unwrap();
        for condition in conditions(&mut driver, &target).await {
            assert!(!condition.abnormal, "{condition:?}");
        }
        let image = scratch.path("pool/volumes/v/image");
        let whole = fs::metadata(&image).unwrap().len();
        File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(whole - 4096)
            .unwrap();
        for condition in conditions(&mut driver, &target).await {
            assert!(
                condition.abnormal && condition.message.contains(&whole.to_string()),
                "{condition:?}"
            );
        }
        File::options()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(whole)
            .unwrap();
        let aside = scratch.path("pool/volumes/v/aside");
        fs::rename(&image, &aside).unwrap();
        for condition in conditions(&mut driver, &target).await {
            assert!(
                condition.abnormal && condition.message.contains("missing"),
                "{condition:?}"
            );
        }
        fs::rename(&aside, &image).unwrap();
        for condition in conditions(&mut driver, &target).await {
            assert!(!condition.abnormal, "{condition:?}");
        }
        driver.unpublish("v", &target).await.unwrap();
        driver.unstage("v", &staging).await.unwrap();
        driver.delete("v").await.unwrap();
        driver.stop().await;
        assert_eq!(scratch.in_use(), (vec![], vec![]));
    }
}

#[tokio::test]
async fn a_filesystem_that_met_an_error_is_ill_health() {
    if cannot_run("a_filesystem_that_met_an_error_is_ill_health", EXT4.tools()) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(EXT4.create("v")).await.unwrap();
    let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
    driver.stage(EXT4.stage("v", &staging)).await.unwrap();
    driver
        .publish(EXT4.publish("v", &staging, &target))
        .await
        .unwrap();
    // The kernel's own way to behave as if an error had been met.
    moorline_mount::mount::reconfigure(&staging, &["abort"]).unwrap();
    fs::write(target.join("file"), "x").unwrap_err();
    let [node, controller] = conditions(&mut driver, &target).await;
    assert!(
        node.abnormal && node.message.contains("takes no writes"),
        "{node:?}"
    );
    assert!(
        !controller.abnormal,
        "the controller sees the file only: {controller:?}"
    );
    driver.unpublish("v", &target).await.unwrap();
    driver.unstage("v", &staging).await.unwrap();
    driver
        .stage(EXT4.stage("v", &staging))
        .await
        .expect("checked, repaired, mounted");
    fs::write(staging.join("file"), "x").unwrap();
    driver.unstage("v", &staging).await.unwrap();
    driver.delete("v").await.unwrap();
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}
