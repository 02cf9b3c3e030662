//! Groups of snapshots: all or nothing, at one moment, and gone together.

use std::{fs, path::Path};

use moorline_driver_local::{BackendKind, PoolConfig};
use moorline_proto::csi;
use tonic::{Code, Status};

use crate::support::{BLOCK, DIR, Driver, EXT4, Scratch, cannot_run, config, with_parameter};

async fn group(
    driver: &mut Driver,
    name: &str,
    sources: &[&str],
) -> Result<csi::VolumeGroupSnapshot, Status> {
    let request = csi::CreateVolumeGroupSnapshotRequest {
        name: name.into(),
        source_volume_ids: sources.iter().map(|id| (*id).to_owned()).collect(),
        ..Default::default()
    };
    let answer = driver.groups.create_volume_group_snapshot(request).await?;
    Ok(answer.into_inner().group_snapshot.unwrap())
}

async fn get(driver: &mut Driver, group_id: &str) -> Result<csi::VolumeGroupSnapshot, Status> {
    let request = csi::GetVolumeGroupSnapshotRequest {
        group_snapshot_id: group_id.into(),
        ..Default::default()
    };
    let answer = driver.groups.get_volume_group_snapshot(request).await?;
    Ok(answer.into_inner().group_snapshot.unwrap())
}

async fn delete(driver: &mut Driver, group_id: &str, snapshot_ids: &[String]) -> Result<(), Status> {
    let request = csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group_id.into(),
        snapshot_ids: snapshot_ids.to_vec(),
        ..Default::default()
    };
    driver
        .groups
        .delete_volume_group_snapshot(request)
        .await
        .map(drop)
}

fn members(group: &csi::VolumeGroupSnapshot) -> Vec<String> {
    let members = group.snapshots.iter();
    members.map(|snapshot| snapshot.snapshot_id.clone()).collect()
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_comes_stays_and_goes_as_one() {
    if cannot_run("a_group_comes_stays_and_goes_as_one", EXT4.tools()) {
        return;
    }
    let scratch = Scratch::new();
    let mut config = config(scratch.root(), BackendKind::Loop);
    config
        .pools
        .push(PoolConfig::new("other", scratch.path("other"), BackendKind::Dir));
    let mut driver = Driver::with(config.clone()).await;
    driver.create(EXT4.create("pvc-1")).await.unwrap();
    driver.create(BLOCK.create("pvc-2")).await.unwrap();
    driver
        .create(with_parameter(DIR.create("pvc-3"), "pool", "other"))
        .await
        .unwrap();
    // One of them is in use, and is held still.
    let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
    driver.stage(EXT4.stage("pvc-1", &staging)).await.unwrap();
    driver
        .publish(EXT4.publish("pvc-1", &staging, &target))
        .await
        .unwrap();
    let sources = ["pvc-1", "pvc-2", "pvc-3"];
    let made = group(&mut driver, "group-1", &sources).await.unwrap();
    assert!(made.ready_to_use);
    assert_eq!(made.snapshots.len(), 3);
    assert!(
        made.snapshots
            .iter()
            .all(|one| one.group_snapshot_id == made.group_snapshot_id)
    );
    assert_eq!(
        group(&mut driver, "group-1", &sources).await.unwrap(),
        made,
        "twice is once"
    );
    let others = group(&mut driver, "group-1", &["pvc-1"]).await.unwrap_err();
    assert_eq!(others.code(), Code::AlreadyExists, "{others}");
    let missing = group(&mut driver, "group-2", &["pvc-1", "pvc-9"])
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    assert_eq!(driver.snapshots_of("").await.len(), 3);
    let alone = driver.delete_snapshot(&members(&made)[0]).await.unwrap_err();
    assert_eq!(alone.code(), Code::InvalidArgument, "{alone}");
    driver.unpublish("pvc-1", &target).await.unwrap();
    driver.unstage("pvc-1", &staging).await.unwrap();
    driver.stop().await;

    let mut driver = Driver::with(config).await;
    delete_all(&mut driver, &made).await;
    driver.stop().await;
    for directory in ["pool/groups", "pool/snapshots", "other/snapshots", "pool/frozen"] {
        assert_eq!(count(&scratch.path(directory)), 0, "{directory}");
    }
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

async fn delete_all(driver: &mut Driver, made: &csi::VolumeGroupSnapshot) {
    let wrong = delete(driver, &made.group_snapshot_id, &["x".to_owned()])
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong}");
    for _ in 0..2 {
        delete(driver, &made.group_snapshot_id, &members(made))
            .await
            .unwrap();
    }
    let gone = get(driver, &made.group_snapshot_id).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
}

#[tokio::test]
async fn a_group_whose_record_is_lost_is_known_from_its_snapshots() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    for id in ["pvc-1", "pvc-2"] {
        driver.create(DIR.create(id)).await.unwrap();
    }
    let made = group(&mut driver, "group-1", &["pvc-1", "pvc-2"]).await.unwrap();
    driver.stop().await;
    let record = scratch.path("pool/groups").join(&made.group_snapshot_id);
    fs::remove_dir_all(&record).unwrap();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    let found = get(&mut driver, &made.group_snapshot_id).await.unwrap();
    let sorted = |group: &csi::VolumeGroupSnapshot| {
        let mut ids = members(group);
        ids.sort();
        ids
    };
    assert_eq!(
        (sorted(&found), found.creation_time),
        (sorted(&made), made.creation_time)
    );
    assert!(record.join("record").exists());
    delete_all(&mut driver, &made).await;
    driver.stop().await;
}

#[tokio::test]
async fn what_a_crash_has_left_of_a_group_is_removed_with_its_snapshots() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    for id in ["pvc-1", "pvc-2"] {
        driver.create(DIR.create(id)).await.unwrap();
    }
    driver.snapshot("snapshot-1", "pvc-1").await.unwrap();
    let pool = scratch.path("pool");
    for prefix in [".new-", ".del-"] {
        let made = group(&mut driver, "group-1", &["pvc-1", "pvc-2"]).await.unwrap();
        driver.stop().await;
        // Killed before the last rename, or after the first one of the removal.
        let groups = pool.join("groups");
        fs::rename(
            groups.join(&made.group_snapshot_id),
            groups.join(format!("{prefix}{}", made.group_snapshot_id)),
        )
        .unwrap();
        driver = Driver::start(&scratch, BackendKind::Dir).await;
        assert_eq!(driver.snapshots_of("").await, ["snapshot-1"], "{prefix}");
        assert_eq!(count(&groups), 0, "{prefix}");
    }
    driver.stop().await;
}
