//! Subvolumes: snapshots really share, limits really limit, removal really removes.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_mount::{
    MountError,
    btrfs::{self, QuotaMode},
    copy, extents,
    filesystem::FsType,
    mount,
};
use rustix::event::{Timespec, poll};

use super::support::{Scratch, cannot_run};

const MIB: u64 = 1 << 20;

fn cannot_run_btrfs(test: &str) -> bool {
    cannot_run(test, &["mkfs.btrfs"])
}

/// Writes and fsyncs as much as fits, at most `limit` bytes.
fn fill(path: &Path, limit: u64) -> (u64, Option<io::Error>) {
    let mut file = File::create(path).unwrap();
    let mut written = 0;
    while written < limit {
        if let Err(error) = file.write_all(&[0x5a; 64 << 10]).and_then(|()| file.sync_data()) {
            return (written, Some(error));
        }
        written += 64 << 10;
    }
    (written, None)
}

#[test]
fn a_snapshot_shares_everything_until_one_side_writes() {
    if cannot_run_btrfs("a_snapshot_shares_everything_until_one_side_writes") {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.filesystem("pool", FsType::Btrfs, &[]);
    assert!(btrfs::is_btrfs(&pool).unwrap() && !btrfs::is_btrfs("/proc").unwrap());
    let (volume, snapshot, clone) = (pool.join("volume"), pool.join("snapshot"), pool.join("clone"));
    btrfs::create_subvolume(&volume).unwrap();
    assert!(btrfs::create_subvolume(&volume).unwrap_err().is_exists());
    fs::write(volume.join("file"), vec![7; 1 << 20]).unwrap();
    btrfs::snapshot(&volume, &snapshot, true).unwrap();
    fs::write(volume.join("file"), "changed").unwrap();
    assert!(fs::read(snapshot.join("file")).unwrap() == vec![7; 1 << 20]);
    assert!(fs::write(snapshot.join("file"), "x").is_err(), "read-only");
    assert!(btrfs::is_read_only(&snapshot).unwrap() && !btrfs::is_read_only(&volume).unwrap());

    btrfs::snapshot(&snapshot, &clone, false).unwrap();
    let places = |path: PathBuf| extents::mapped(&File::open(path).unwrap()).unwrap();
    let shared = places(clone.join("file"));
    assert!(shared.iter().all(|extent| extent.is_shared), "{shared:?}");
    assert_eq!(shared, places(snapshot.join("file")));
    fs::write(clone.join("file"), "mine").unwrap();
    assert!(fs::read(snapshot.join("file")).unwrap() == vec![7; 1 << 20]);

    btrfs::set_read_only(&snapshot, false).unwrap();
    fs::write(snapshot.join("file"), "x").unwrap();
    btrfs::sync(&pool).unwrap();
}

#[test]
fn subvolumes_are_told_from_directories() {
    if cannot_run_btrfs("subvolumes_are_told_from_directories") {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.filesystem("pool", FsType::Btrfs, &[]);
    let (volume, directory, link) = (pool.join("volume"), pool.join("directory"), pool.join("link"));
    btrfs::create_subvolume(&volume).unwrap();
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(&volume, &link).unwrap();
    assert!(btrfs::is_subvolume(&volume).unwrap() && btrfs::is_subvolume(&pool).unwrap());
    for path in [
        &directory,
        &link,
        &pool.join("nothing"),
        &scratch.directory("elsewhere"),
    ] {
        assert!(!btrfs::is_subvolume(path).unwrap(), "{}", path.display());
    }
    fs::write(directory.join("file"), "kept").unwrap();
    for path in [&directory, &link] {
        assert!(btrfs::delete_subvolume(path).is_err(), "{}", path.display());
    }
    assert!(directory.join("file").exists() && volume.exists());
    let elsewhere = scratch.path("elsewhere/volume");
    assert!(btrfs::create_subvolume(elsewhere).unwrap_err().is_unsupported());
}

#[test]
fn removal_takes_along_what_users_made_inside() {
    if cannot_run_btrfs("removal_takes_along_what_users_made_inside") {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.filesystem("pool", FsType::Btrfs, &[]);
    let (volume, other) = (pool.join("volume"), pool.join("other"));
    btrfs::create_subvolume(&volume).unwrap();
    btrfs::create_subvolume(&other).unwrap();
    fs::write(other.join("file"), "kept").unwrap();
    fs::create_dir_all(volume.join("deep/down")).unwrap();
    btrfs::create_subvolume(volume.join("deep/down/inner")).unwrap();
    btrfs::create_subvolume(volume.join("deep/down/inner/innermost")).unwrap();
    btrfs::snapshot(&other, volume.join("copy"), true).unwrap();
    for number in 0..150 {
        btrfs::create_subvolume(volume.join(format!("many-{number}"))).unwrap();
    }
    btrfs::set_read_only(&volume, true).unwrap();

    btrfs::delete_subvolume(&volume).unwrap();
    assert!(!volume.exists());
    btrfs::delete_subvolume(&volume).expect("removing twice is fine");
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "kept");
}

#[test]
fn a_limit_holds() {
    if cannot_run_btrfs("a_limit_holds") {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.filesystem("pool", FsType::Btrfs, &[]);
    let volume = pool.join("volume");
    assert_eq!(btrfs::quota_mode(&pool).unwrap(), QuotaMode::Off);
    assert!(
        btrfs::usage(&pool).unwrap_err().is_not_found(),
        "no quotas, no usage"
    );
    let mode = btrfs::enable_quota(&pool).unwrap();
    assert_ne!(mode, QuotaMode::Off);
    assert_eq!(btrfs::enable_quota(&pool).unwrap(), mode, "again is fine");
    btrfs::create_subvolume(&volume).unwrap();
    btrfs::set_limit(&volume, Some(16 * MIB)).unwrap();
    let (written, error) = fill(&volume.join("file"), 64 * MIB);
    let error = error.expect("the limit was not enforced");
    let error = MountError::Call {
        action: "write",
        path: volume.join("file"),
        source: error,
    };
    assert!(error.is_no_space(), "{error}");
    assert!((8 * MIB..=16 * MIB).contains(&written), "{written}");
    btrfs::sync(&pool).unwrap();
    let usage = btrfs::usage(&volume).unwrap();
    assert_eq!(usage.limit, Some(16 * MIB));
    assert!(
        (written..=16 * MIB).contains(&usage.referenced),
        "{usage:?} {written}"
    );

    // The pool has room, so a neighbour can write; and a larger limit takes effect at once.
    let neighbour = pool.join("neighbour");
    btrfs::create_subvolume(&neighbour).unwrap();
    assert!(fill(&neighbour.join("file"), 20 * MIB).1.is_none());
    btrfs::set_limit(&volume, Some(32 * MIB)).unwrap();
    assert!(fill(&volume.join("second"), 8 * MIB).1.is_none());
    btrfs::set_limit(&volume, None).unwrap();
    assert_eq!(btrfs::usage(&volume).unwrap().limit, None);
    assert!(fill(&volume.join("third"), 40 * MIB).1.is_none());
}

#[test]
fn a_removed_subvolume_leaves_no_quota_group() {
    if cannot_run_btrfs("a_removed_subvolume_leaves_no_quota_group") {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.filesystem("pool", FsType::Btrfs, &[]);
    btrfs::enable_quota(&pool).unwrap();
    let (before, volume) = (quota_groups(&pool), pool.join("volume"));
    btrfs::create_subvolume(&volume).unwrap();
    btrfs::set_limit(&volume, Some(100 * MIB)).unwrap();
    fs::write(volume.join("file"), vec![1; 4 << 20]).unwrap();
    btrfs::sync(&pool).unwrap();
    assert_eq!(quota_groups(&pool).len(), before.len() + 1);
    btrfs::delete_subvolume(&volume).unwrap();
    let mut last = Vec::new();
    for _ in 0..600 {
        btrfs::sync(&pool).unwrap();
        last = quota_groups(&pool);
        if last == before {
            return;
        }
        // The cleaner works in the background and tells nobody.
        poll(
            &mut [],
            Some(&Timespec::try_from(Duration::from_millis(100)).unwrap()),
        )
        .unwrap();
    }
    panic!("still there: {last:?}, before {before:?}");
}

fn quota_groups(pool: &Path) -> Vec<String> {
    let image = pool.with_extension("img");
    let id = moorline_mount::filesystem::identity(image).unwrap().unwrap();
    let mut names: Vec<_> = fs::read_dir(format!("/sys/fs/btrfs/{id}/qgroups"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains('_') && name.starts_with(|first: char| first.is_ascii_digit()))
        .collect();
    names.sort();
    names
}

#[test]
fn files_share_blocks_across_subvolumes() {
    if cannot_run_btrfs("files_share_blocks_across_subvolumes") {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.filesystem("pool", FsType::Btrfs, &[]);
    for name in ["one", "two"] {
        btrfs::create_subvolume(pool.join(name)).unwrap();
    }
    fs::write(pool.join("one/file"), vec![3; 2 << 20]).unwrap();
    let from = File::open(pool.join("one/file")).unwrap();
    let to = File::create(pool.join("two/file")).unwrap();
    assert!(copy::reflink(&from, &to).unwrap());
    assert!(
        extents::mapped(&from)
            .unwrap()
            .iter()
            .all(|extent| extent.is_shared)
    );
    assert!(fs::read(pool.join("two/file")).unwrap() == vec![3; 2 << 20]);
}

#[test]
fn a_bind_does_not_hold_up_the_removal() {
    if cannot_run_btrfs("a_bind_does_not_hold_up_the_removal") {
        return;
    }
    let scratch = Scratch::new();
    let pool = scratch.filesystem("pool", FsType::Btrfs, &[]);
    let volume = pool.join("volume");
    btrfs::create_subvolume(&volume).unwrap();
    let target = scratch.directory("target");
    mount::bind(&volume, &target, false).unwrap();
    btrfs::delete_subvolume(&volume).unwrap();
    assert!(!volume.exists());
    btrfs::create_subvolume(&volume).unwrap();
    fs::write(volume.join("file"), "another one").unwrap();
    assert!(!target.join("file").exists(), "who looks there sees the old one");
}
