//! The primitives on the real kernel, as root: each test cleans up after itself and names what it can't run.

#![cfg(test)]

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use moorline_mount::{
    beneath::TrustedDir,
    filesystem::{self, Content, FsType},
    loop_device::{self, AttachOptions},
    mount::{self, BindOptions, Propagation},
    mount_options::{Attributes, MountOptions},
    mountinfo, usage,
};
use support::{Scratch, cannot_run, skipped};

mod allocate;
mod btrfs;
mod copy;
mod freeze;
mod identity;
mod project_quota;
mod support;
mod tuning;

fn entry_at(path: &Path) -> Option<mountinfo::MountEntry> {
    mountinfo::read()
        .unwrap()
        .into_iter()
        .rfind(|entry| entry.mount_point == path)
}

fn words(options: &[&str]) -> Vec<String> {
    options.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_followed_mount_table_is_as_fresh_as_a_read_one() {
    if cannot_run("the_followed_mount_table_is_as_fresh_as_a_read_one", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let seen = |path: &Path| {
        let entries = mountinfo::current().unwrap();
        entries.iter().any(|entry| entry.mount_point == path)
    };
    // Other tests mount as well, so that only the own paths are looked for; two threads share what is followed.
    std::thread::scope(|threads| {
        for name in ["one", "two"] {
            let (source, target) = (scratch.directory("source"), scratch.directory(name));
            threads.spawn(move || {
                for round in 0..50 {
                    assert!(!seen(&target), "round {round}: not mounted yet");
                    mount::bind(&source, &target, false).unwrap();
                    assert!(seen(&target), "round {round}: mounted");
                    assert!(seen(&target), "round {round}: still");
                    mount::unmount(&target).unwrap();
                }
                assert!(!seen(&target));
            });
        }
    });
}

#[test]
fn a_bind_shows_its_source_and_read_only_means_it() {
    if cannot_run("a_bind_shows_its_source_and_read_only_means_it", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let (source, target) = (scratch.directory("source"), scratch.directory("target"));
    fs::write(source.join("file"), "data").unwrap();
    assert!(!mount::is_mount_point(&target).unwrap());

    mount::bind(&source, &target, true).unwrap();
    assert!(mount::is_mount_point(&target).unwrap());
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "data");
    assert!(
        fs::write(target.join("file"), "other").is_err(),
        "the bind is read-only"
    );
    fs::write(source.join("file"), "other").expect("the source is not");
    assert!(entry_at(&target).unwrap().is_read_only());
    assert!(usage::filesystem(&target).unwrap().is_read_only);

    mount::remount(&target, false).unwrap();
    fs::write(target.join("file"), "third").expect("writable again");
    mount::unmount(&target).unwrap();
    assert!(!mount::is_mount_point(&target).unwrap());
    assert!(mount::unmount(&target).unwrap_err().is_not_mounted());
    assert!(
        mount::unmount(scratch.path("nowhere"))
            .unwrap_err()
            .is_not_found()
    );
}

#[test]
fn a_mount_in_use_stays_until_it_is_not() {
    if cannot_run("a_mount_in_use_stays_until_it_is_not", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.directory("target");
    mount::mount("tmpfs", &target, "tmpfs", &[]).unwrap();
    let user = fs::File::create(target.join("file")).unwrap();
    assert!(mount::unmount(&target).unwrap_err().is_busy());
    assert!(mount::is_mount_point(&target).unwrap());
    drop(user);
    mount::unmount(&target).unwrap();

    mount::mount("tmpfs", &target, "tmpfs", &[]).unwrap();
    let user = fs::File::create(target.join("file")).unwrap();
    mount::unmount_lazy(&target).expect("never busy");
    assert!(!mount::is_mount_point(&target).unwrap());
    drop(user);
}

#[test]
fn options_reach_the_mount_and_the_filesystem() {
    if cannot_run("options_reach_the_mount_and_the_filesystem", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.directory("target");
    mount::mount(
        "tmpfs",
        &target,
        "tmpfs",
        &words(&["size=1m", "nosuid,nodev", "noatime"]),
    )
    .unwrap();
    let entry = entry_at(&target).unwrap();
    for option in ["nosuid", "nodev", "noatime"] {
        assert!(
            entry.options.split(',').any(|word| word == option),
            "{option} in {}",
            entry.options
        );
    }
    assert_eq!(usage::filesystem(&target).unwrap().bytes.total, 1 << 20);

    let attributes = MountOptions::parse(&["noexec", "strictatime"])
        .unwrap()
        .attributes;
    let second = scratch.directory("second");
    mount::bind_with(
        &target,
        &second,
        BindOptions {
            attributes,
            recursive: false,
        },
    )
    .unwrap();
    let entry = entry_at(&second).unwrap();
    assert!(
        entry.options.contains("noexec") && entry.options.contains("nosuid"),
        "{}",
        entry.options
    );
    assert!(
        !entry.options.contains("atime"),
        "strictatime replaces noatime: {}",
        entry.options
    );
}

#[test]
fn the_kernels_own_words_explain_a_refused_mount() {
    if cannot_run("the_kernels_own_words_explain_a_refused_mount", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.directory("target");
    let error = mount::mount("tmpfs", &target, "tmpfs", &words(&["no_such_option=1"])).unwrap_err();
    assert!(error.to_string().contains("no_such_option"), "{error}");
    assert!(mount::mount("none", &target, "no_such_fs", &[]).is_err());
    assert!(!mount::is_mount_point(&target).unwrap());
}

#[test]
fn options_too_long_for_fsconfig_work_too() {
    if cannot_run("options_too_long_for_fsconfig_work_too", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let (upper, work, target) = (
        scratch.directory("u"),
        scratch.directory("w"),
        scratch.directory("t"),
    );
    let lower: Vec<_> = (0..8)
        .map(|i| scratch.directory(&format!("{i}-{}", "l".repeat(60))))
        .collect();
    fs::write(lower[3].join("file"), "below").unwrap();
    let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
    let options = [
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
    ];
    mount::mount("overlay", &target, "overlay", &options).unwrap();
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "below");
}

#[test]
fn propagation_is_set_and_mounts_travel() {
    if cannot_run("propagation_is_set_and_mounts_travel", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let (one, two) = (scratch.directory("one"), scratch.directory("two"));
    scratch.directory("one/below");
    mount::ensure_mount_point(&one, Propagation::Private).unwrap();
    mount::ensure_mount_point(&one, Propagation::Shared).unwrap();
    assert_eq!(
        mountinfo::at_or_below(&mountinfo::read().unwrap(), &one).len(),
        1,
        "made a mount point once"
    );
    mount::bind(&one, &two, false).unwrap();
    assert_eq!(
        entry_at(&one).unwrap().peer_group(),
        entry_at(&two).unwrap().peer_group()
    );
    mount::mount("tmpfs", one.join("below"), "tmpfs", &[]).unwrap();
    assert!(mount::is_mount_point(two.join("below")).unwrap(), "it travelled");
    mount::make_private(&two).unwrap();
    assert_eq!(entry_at(&two).unwrap().peer_group(), None);
    mount::unmount(one.join("below")).unwrap();
    assert!(mount::is_mount_point(two.join("below")).unwrap(), "cut off");
}

#[test]
fn a_loop_device_is_found_by_its_file_and_follows_its_size() {
    if cannot_run("a_loop_device_is_found_by_its_file_and_follows_its_size", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.sparse_file("image", 4 << 20);
    assert!(loop_device::find_by_backing_file(&file).unwrap().is_none());
    let device = loop_device::attach(&file, AttachOptions::default()).unwrap();
    let found = loop_device::find_by_backing_file(&file)
        .unwrap()
        .expect("attached");
    assert_eq!(found.path(), device.path());
    assert!(loop_device::is_loop_device(device.path()));
    assert_eq!(usage::block_size(device.path()).unwrap(), 4 << 20);

    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    loop_device::refresh_size(device.path()).unwrap();
    assert_eq!(usage::block_size(device.path()).unwrap(), 8 << 20);

    // Another file under the same name is another file.
    fs::rename(&file, scratch.path("old")).unwrap();
    let other = scratch.sparse_file("image", 4 << 20);
    assert!(loop_device::find_by_backing_file(&other).unwrap().is_none());

    let path = device.path().to_owned();
    drop((device, found));
    loop_device::detach(&path).unwrap();
    assert!(
        loop_device::find_by_backing_file(scratch.path("old"))
            .unwrap()
            .is_none()
    );
    loop_device::detach(&path).expect("detaching twice is fine");
}

#[test]
fn an_autoclear_device_ends_with_its_last_user() {
    if cannot_run("an_autoclear_device_ends_with_its_last_user", &["mkfs.ext4"]) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.sparse_file("image", 16 << 20);
    let target = scratch.directory("target");
    filesystem::make(&file, FsType::Ext4).unwrap();
    let options = AttachOptions {
        autoclear: true,
        ..AttachOptions::default()
    };
    let device = loop_device::attach(&file, options).unwrap();
    mount::mount(device.path(), &target, "ext4", &[]).unwrap();
    let number = device.number().unwrap();
    drop(device);
    let found = loop_device::find_by_backing_file(&file)
        .unwrap()
        .expect("the mount keeps it");
    assert_eq!(found.number().unwrap(), number);
    let seen = fs::metadata(&target).unwrap().dev();
    assert_eq!((rustix::fs::major(seen), rustix::fs::minor(seen)), number);
    drop(found);
    mount::unmount(&target).unwrap();
    assert!(
        loop_device::find_by_backing_file(&file).unwrap().is_none(),
        "gone with the mount"
    );
}

#[test]
fn many_threads_attach_at_once() {
    if cannot_run("many_threads_attach_at_once", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let devices: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|i| {
                let file = scratch.sparse_file(&format!("image-{i}"), 1 << 20);
                scope.spawn(move || loop_device::attach(&file, AttachOptions::default()).unwrap())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut paths: Vec<_> = devices.iter().map(|device| device.path().to_owned()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 16);
}

fn filesystem_grows_while_mounted(fs_type: FsType) {
    let scratch = Scratch::new();
    let size = fs_type.size_min_bytes().max(32 << 20);
    let file = scratch.sparse_file("image", size);
    assert_eq!(filesystem::content(&file).unwrap(), Content::Blank);
    filesystem::make(&file, fs_type).unwrap();
    assert_eq!(filesystem::content(&file).unwrap(), Content::Filesystem(fs_type));
    assert!(!filesystem::needs_check(&file, fs_type).unwrap());
    filesystem::check(&file, fs_type).unwrap();

    let target = scratch.directory("target");
    let device = loop_device::attach(
        &file,
        AttachOptions {
            autoclear: true,
            ..AttachOptions::default()
        },
    )
    .unwrap();
    mount::mount(device.path(), &target, fs_type.as_str(), &[]).unwrap();
    fs::write(target.join("file"), "data").unwrap();
    let before = usage::filesystem(&target).unwrap();

    filesystem::grow(device.path(), &target, fs_type).expect("nothing to grow is fine");
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(2 * size)
        .unwrap();
    loop_device::refresh_size(device.path()).unwrap();
    filesystem::grow(device.path(), &target, fs_type).unwrap();
    let after = usage::filesystem(&target).unwrap();
    assert!(
        after.bytes.total > before.bytes.total + size / 2,
        "{before:?} {after:?}"
    );
    assert!(after.inodes.total >= before.inodes.total);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "data");
}

#[test]
fn ext4_grows_while_mounted() {
    if cannot_run("ext4_grows_while_mounted", &["mkfs.ext4", "resize2fs", "e2fsck"]) {
        return;
    }
    if !filesystem::can_grow_mounted(FsType::Ext4) {
        skipped("ext4_grows_while_mounted", "needs CAP_SYS_RESOURCE");
        return;
    }
    filesystem_grows_while_mounted(FsType::Ext4);
}

#[test]
fn xfs_grows_while_mounted() {
    if cannot_run(
        "xfs_grows_while_mounted",
        &["mkfs.xfs", "xfs_growfs", "xfs_repair"],
    ) {
        return;
    }
    filesystem_grows_while_mounted(FsType::Xfs);
}

#[test]
fn btrfs_grows_while_mounted() {
    if cannot_run("btrfs_grows_while_mounted", &["mkfs.btrfs", "btrfs"]) {
        return;
    }
    filesystem_grows_while_mounted(FsType::Btrfs);
}

#[test]
fn ext4_grows_unmounted() {
    if cannot_run("ext4_grows_unmounted", &["mkfs.ext4", "resize2fs", "e2fsck"]) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.sparse_file("image", 32 << 20);
    filesystem::make(&file, FsType::Ext4).unwrap();
    assert_eq!(filesystem::size_bytes(&file).unwrap(), Some(32 << 20));
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    filesystem::grow_unmounted(&file, FsType::Ext4).unwrap();
    assert_eq!(filesystem::size_bytes(&file).unwrap(), Some(64 << 20));
}

#[test]
fn data_of_somebody_else_is_seen_as_such() {
    let scratch = Scratch::new();
    let file = scratch.sparse_file("image", 1 << 20);
    fs::write(&file, [&[0; 3000][..], b"data"].concat()).unwrap();
    assert_eq!(filesystem::content(&file).unwrap(), Content::Foreign);
}

#[test]
fn targets_lead_nowhere_but_beneath() {
    let scratch = Scratch::new();
    let trusted = scratch.directory("trusted");
    let outside = scratch.directory("outside");
    std::os::unix::fs::symlink(&outside, trusted.join("link")).unwrap();
    let trusted_dir = TrustedDir::open(&trusted).unwrap();
    let cases = [
        ("relative", "trusted/x".into()),
        ("outside", outside.join("x")),
        ("dots", trusted.join("../outside/x")),
        ("itself", trusted.clone()),
        ("through a symlink", trusted.join("link/x")),
        ("no parent", trusted.join("no/x")),
    ];
    for (name, path) in cases {
        assert!(trusted_dir.target(&path).is_err(), "{name}");
    }
    let link = trusted_dir
        .target(trusted.join("link"))
        .expect("the last element may be anything");
    assert!(link.ensure_directory(0o750).is_err(), "a symlink is no directory");
    assert!(link.ensure_file(0o640).is_err(), "a symlink is no file");
    link.remove().unwrap();
    assert!(
        outside.is_dir() && !trusted.join("link").exists(),
        "the link is removed, not what it leads to"
    );
}

#[test]
fn removal_never_descends() {
    let scratch = Scratch::new();
    let trusted_dir = TrustedDir::open(scratch.root()).unwrap();
    let target = trusted_dir.target(scratch.path("dir")).unwrap();
    target.remove().expect("nothing there is fine");
    target.ensure_directory(0o750).unwrap();
    target.ensure_directory(0o750).unwrap();
    fs::write(scratch.path("dir/data"), "x").unwrap();
    assert!(target.remove().is_err());
    fs::remove_file(scratch.path("dir/data")).unwrap();
    target.remove().unwrap();
    assert!(target.look().unwrap().is_none());
}

#[test]
fn a_target_takes_mounts_and_gives_them_back() {
    if cannot_run("a_target_takes_mounts_and_gives_them_back", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let source = scratch.directory("source");
    fs::write(source.join("file"), "data").unwrap();
    let trusted_dir = TrustedDir::open(scratch.root()).unwrap();
    let target = trusted_dir.target(scratch.path("target")).unwrap();
    target.ensure_directory(0o750).unwrap();
    for _ in 0..2 {
        let attributes = Attributes::NONE.read_only();
        target
            .attach(
                mount::clone_tree(
                    &source,
                    BindOptions {
                        attributes,
                        recursive: false,
                    },
                )
                .unwrap(),
            )
            .unwrap();
    }
    let seen = target.look().unwrap().unwrap();
    assert!(seen.is_mount_point);
    assert_eq!(seen.inode, fs::metadata(&source).unwrap().ino());
    assert!(fs::write(scratch.path("target/file"), "x").is_err());
    assert!(target.remove().is_err(), "never under a mount");
    assert_eq!(target.unmount_all().unwrap(), 2);
    assert_eq!(target.unmount_all().unwrap(), 0);

    // A mount never appears at what a symlink leads to.
    target.remove().unwrap();
    std::os::unix::fs::symlink(scratch.directory("elsewhere"), scratch.path("target")).unwrap();
    let mount = mount::clone_tree(&source, BindOptions::default()).unwrap();
    assert!(target.attach(mount).is_err());
    assert!(!mount::is_mount_point(scratch.path("elsewhere")).unwrap());
}
