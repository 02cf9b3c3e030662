//! Volumes and pools without room, and what is read-only: the fault stays with the workload that runs into it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use moorline_driver_local::Config;
use moorline_mount::filesystem::FsType;
use moorline_proto::csi;
use rustix::io::Errno;
use tonic::Code;

use super::{Published, cannot, pool_on, records::record};
use crate::support::{BLOCK, Driver, EXT4, MIB, Scratch, Use, config, text};

const POOL_BYTES: u64 = 256 << 20;

/// Writes and syncs until it fails; why, and how many bytes went before.
fn fill(path: &Path) -> (std::io::Error, usize) {
    let mut options = File::options();
    let mut file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    let chunk = vec![0x5a; 1 << 20];
    let mut written = 0;
    loop {
        // Without a hole: a pool on a filesystem that compresses or shares would not fill up else.
        match file.write_all(&chunk).and_then(|()| file.sync_data()) {
            Ok(()) => written += chunk.len(),
            Err(error) => return (error, written),
        }
        assert!(written < 4 << 30, "{} never fills up", path.display());
    }
}

fn entries(scratch: &Scratch) -> Vec<String> {
    let entries = fs::read_dir(scratch.path("pool/volumes")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| text(&entry.unwrap().path())).collect();
    names.sort();
    names
}

async fn refuses(driver: &mut Driver, scratch: &Scratch, request: csi::CreateVolumeRequest) {
    let before = entries(scratch);
    let refused = driver.create(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(entries(scratch), before, "left after {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_is_full_alone() {
    if cannot("a_full_volume_is_full_alone", EXT4, FsType::Ext4) {
        return;
    }
    let scratch = Scratch::new();
    pool_on(&scratch, FsType::Ext4, POOL_BYTES);
    let mut driver = Driver::start(&scratch, EXT4.backend).await;
    let full = Published::create(&mut driver, &scratch, EXT4, "full").await;
    let other = Published::create(&mut driver, &scratch, EXT4, "other").await;
    let (error, written) = fill(&full.file);
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(written > 8 << 20, "{written}");
    fs::write(&other.file, record(1)).unwrap();
    let large = Use {
        bytes: i64::try_from(POOL_BYTES).unwrap(),
        ..EXT4
    };
    refuses(&mut driver, &scratch, large.create("large")).await;
    let third = Published::create(&mut driver, &scratch, EXT4, "third").await;
    assert_eq!(fs::read(&other.file).unwrap(), record(1));
    fs::remove_file(&full.file).unwrap();
    fs::write(&full.file, record(2)).unwrap();
    for volume in [full, other, third] {
        volume.remove(&mut driver).await;
    }
    driver.stop().await;
}

fn promising_too_much(scratch: &Scratch) -> Config {
    let mut config = config(scratch.root(), EXT4.backend);
    config.pools[0].overcommit = "8".parse().unwrap();
    config
}

/// The pool has promised more than it has, and now workloads want it all.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_fails_those_who_write_and_nobody_else() {
    let test = "a_full_pool_fails_those_who_write_and_nobody_else";
    if cannot(test, EXT4, FsType::Ext4) {
        return;
    }
    let scratch = Scratch::new();
    pool_on(&scratch, FsType::Ext4, POOL_BYTES);
    let mut driver = Driver::with(promising_too_much(&scratch)).await;
    let greedy = Use {
        bytes: 512 * MIB,
        ..BLOCK
    };
    let other = Published::create(&mut driver, &scratch, EXT4, "other").await;
    fs::write(&other.file, record(1)).unwrap();
    File::open(&other.file).unwrap().sync_all().unwrap();
    let greedy_volume = Published::create(&mut driver, &scratch, greedy, "greedy").await;
    let (error, written) = fill(&greedy_volume.file);
    // The device tells of an error; which one is the kernel's choice.
    let kinds = [Some(Errno::NOSPC.raw_os_error()), Some(Errno::IO.raw_os_error())];
    assert!(kinds.contains(&error.raw_os_error()), "{error}");
    assert!(written > 64 << 20, "{written}");
    assert_eq!(fs::read(&other.file).unwrap(), record(1), "who reads is not hurt");

    // The driver goes on: it refuses what needs room, and removes what gives some.
    refuses(&mut driver, &scratch, EXT4.create("more")).await;
    let thick = crate::support::with_parameter(BLOCK.create("thick"), "provisioning", "thick");
    refuses(&mut driver, &scratch, thick).await;
    let cut = driver.snapshot("snapshot", "greedy").await.unwrap_err();
    let refusals = [Code::ResourceExhausted, Code::FailedPrecondition];
    assert!(refusals.contains(&cut.code()), "{cut}");
    assert_eq!(driver.volume_ids().await, ["greedy", "other"]);
    greedy_volume.remove(&mut driver).await;
    let more = Published::create(&mut driver, &scratch, EXT4, "more").await;
    fs::write(&more.file, record(2)).unwrap();
    other.remove(&mut driver).await;
    more.remove(&mut driver).await;
    driver.stop().await;
    assert_eq!(entries(&scratch), [""; 0]);
}

/// All ways of changing a filesystem by its paths.
fn changes(target: &Path) -> Vec<(&'static str, std::io::Result<()>)> {
    let file = target.join("file");
    let mode = fs::Permissions::from_mode(0o600);
    vec![
        ("write", File::options().write(true).open(&file).map(drop)),
        ("make a file", fs::write(target.join("new"), "x")),
        ("make a directory", fs::create_dir(target.join("new"))),
        ("remove", fs::remove_file(&file)),
        ("rename", fs::rename(&file, target.join("other"))),
        ("link", fs::hard_link(&file, target.join("other"))),
        ("change the mode", fs::set_permissions(&file, mode)),
        (
            "change the owner",
            std::os::unix::fs::chown(&file, Some(1), Some(1)),
        ),
    ]
}

#[tokio::test]
async fn read_only_filesystems_can_not_be_changed_in_any_way() {
    let test = "read_only_filesystems_can_not_be_changed_in_any_way";
    if cannot(test, EXT4, FsType::Ext4) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, EXT4.backend).await;
    let it = Published::create(&mut driver, &scratch, EXT4, "pvc-1").await;
    fs::write(&it.file, record(1)).unwrap();
    let second = scratch.path("second");
    let read_only = csi::NodePublishVolumeRequest {
        readonly: true,
        ..EXT4.publish("pvc-1", &it.staging, &second)
    };
    driver.publish(read_only).await.unwrap();
    for (what, changed) in changes(&second) {
        let error = changed.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{what}: {error}");
    }
    assert_eq!(fs::read(second.join("file")).unwrap(), record(1));
    driver.unpublish("pvc-1", &second).await.unwrap();
    it.remove(&mut driver).await;
    driver.stop().await;
}

#[tokio::test]
async fn read_only_devices_can_not_be_written_to() {
    if cannot("read_only_devices_can_not_be_written_to", BLOCK, FsType::Ext4) {
        return;
    }
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BLOCK.backend).await;
    let it = Published::create(&mut driver, &scratch, BLOCK, "pvc-1").await;
    let device = File::options().write(true).open(&it.file).unwrap();
    device.write_all_at(&record(1), 0).unwrap();
    device.sync_all().unwrap();
    let second = scratch.path("second");
    let read_only = csi::NodePublishVolumeRequest {
        readonly: true,
        ..BLOCK.publish("pvc-1", &it.staging, &second)
    };
    driver.publish(read_only).await.unwrap();
    // Who may open the device for writing can't write all the same.
    let written = File::options().write(true).open(&second).and_then(|device| {
        device
            .write_all_at(&record(2), 0)
            .and_then(|()| device.sync_all())
    });
    let error = written.unwrap_err();
    let expected = [Errno::PERM, Errno::ACCESS, Errno::ROFS].map(|errno| Some(errno.raw_os_error()));
    assert!(expected.contains(&error.raw_os_error()), "{error}");
    let mut found = record(0);
    File::open(&second).unwrap().read_exact_at(&mut found, 0).unwrap();
    assert_eq!(found, record(1));
    drop(device);
    driver.unpublish("pvc-1", &second).await.unwrap();
    it.remove(&mut driver).await;
    driver.stop().await;
}
