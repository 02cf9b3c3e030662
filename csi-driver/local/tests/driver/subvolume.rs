//! The `btrfs` backend: refused elsewhere, its limits hold, and nothing of a volume is left in the quota groups.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use moorline_driver_local::{BackendKind, Error, PoolError};
use moorline_mount::btrfs;
use tokio_util::sync::CancellationToken;

use crate::support::{Driver, MIB, SUBVOLUME, Scratch, cannot_run, config, skipped};

#[tokio::test]
async fn a_pool_elsewhere_is_refused_with_what_to_do() {
    let scratch = Scratch::new();
    if btrfs::is_btrfs(scratch.root()).unwrap() {
        skipped("a_pool_elsewhere_is_refused_with_what_to_do", "all is on btrfs");
        return;
    }
    let config = config(scratch.root(), BackendKind::Btrfs);
    let refused = moorline_driver_local::run(config, CancellationToken::new()).await;
    let Err(Error::Pool(error @ PoolError::Backend { .. })) = refused else {
        panic!("{refused:?}");
    };
    let message = error.to_string();
    assert!(
        message.contains("mkfs.btrfs") && message.contains("backend=loop"),
        "{message}"
    );
    assert_eq!(
        fs::read_dir(scratch.path("pool")).unwrap().count(),
        0,
        "nothing is written there"
    );
}

/// Writes and fsyncs up to `bytes`; how many there was room for.
fn fill(path: &Path, bytes: i64) -> (i64, Option<io::Error>) {
    let mut file = File::create(path).unwrap();
    let mut written = 0;
    while written < bytes {
        if let Err(error) = file.write_all(&[0x5a; 1 << 16]).and_then(|()| file.sync_data()) {
            return (written, Some(error));
        }
        written += 1 << 16;
    }
    (written, None)
}

#[tokio::test]
async fn the_limit_holds_follows_a_growth_and_goes_with_the_volume() {
    if cannot_run(
        "the_limit_holds_follows_a_growth_and_goes_with_the_volume",
        SUBVOLUME.tools(),
    ) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Btrfs).await;
    let groups = || quota_groups(&scratch.path("pool"));
    let before = groups();
    driver.create(SUBVOLUME.create("pvc-1")).await.unwrap();
    let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
    driver.stage(SUBVOLUME.stage("pvc-1", &staging)).await.unwrap();
    driver
        .publish(SUBVOLUME.publish("pvc-1", &staging, &target))
        .await
        .unwrap();
    let stats = driver.stats("pvc-1", &target).await.unwrap();
    assert_eq!(stats[0].total, SUBVOLUME.bytes, "the limit is the size");

    let (written, error) = fill(&target.join("a"), 2 * SUBVOLUME.bytes);
    let error = error.expect("the limit holds");
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    assert!(
        written > SUBVOLUME.bytes / 2 && written <= SUBVOLUME.bytes,
        "{written}"
    );
    driver.expand("pvc-1", 2 * SUBVOLUME.bytes).await.unwrap();
    let (written, error) = fill(&target.join("b"), 20 * MIB);
    assert_eq!(written, 20 * MIB, "{error:?}");
    btrfs::sync(&target).unwrap();
    let stats = driver.stats("pvc-1", &target).await.unwrap();
    assert_eq!(stats[0].total, 2 * SUBVOLUME.bytes);
    assert!(stats[0].used > 20 * MIB + SUBVOLUME.bytes / 2, "{stats:?}");

    driver.unpublish("pvc-1", &target).await.unwrap();
    driver.unstage("pvc-1", &staging).await.unwrap();
    driver.delete("pvc-1").await.unwrap();
    // The group goes when the last block is free, which takes commits.
    for _ in 0..50 {
        if groups() == before {
            break;
        }
        btrfs::sync(scratch.path("pool")).unwrap();
    }
    assert_eq!(groups(), before);
    driver.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

/// Names of the quota groups of the filesystem at `pool`.
fn quota_groups(pool: &Path) -> Vec<String> {
    let device = moorline_mount::mountinfo::read().unwrap();
    let source = device
        .iter()
        .find(|entry| entry.mount_point == pool)
        .unwrap()
        .source
        .clone();
    let name = Path::new(&source).file_name().unwrap().to_owned();
    let all = fs::read_dir("/sys/fs/btrfs").unwrap();
    let own = all
        .map(|entry| entry.unwrap().path())
        .find(|directory| directory.join("devices").join(&name).exists())
        .unwrap();
    let mut names: Vec<_> = fs::read_dir(own.join("qgroups"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("0_"))
        .collect();
    names.sort();
    names
}
