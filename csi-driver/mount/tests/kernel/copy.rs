//! Copies: blocks really shared, holes and attributes really kept, and nobody led out of a tree.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::ControlFlow,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use moorline_mount::{
    MountError, allocate,
    copy::{self, CopiedTree, CopyProgress},
    extents,
    filesystem::FsType,
    mount,
};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::support::{Scratch, cannot_run};

fn go_on(_: CopyProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn create(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap()
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn holey_file(path: &Path) -> File {
    let file = create(path);
    file.set_len(64 << 20).unwrap();
    for (offset, seed) in [(0, 1), (10 << 20, 2), (40 << 20, 3)] {
        file.write_all_at(&pattern(1 << 20, seed), offset).unwrap();
    }
    file
}

fn ranges(file: &File) -> Vec<(u64, u64)> {
    extents::data_ranges(file)
        .map(|range| range.map(|range| (range.offset, range.length)).unwrap())
        .collect()
}

fn sparse_copy_keeps_holes_and_content(fs_type: FsType) {
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", fs_type, &[]);
    let from = holey_file(&dir.join("from"));
    let to = create(&dir.join("to"));
    let copied = copy::sparse(&from, &to, &mut go_on).unwrap();
    assert_eq!((copied.size_bytes, copied.data_bytes), (64 << 20, 3 << 20));
    let expected = [(0, 1 << 20), (10 << 20, 1 << 20), (40 << 20, 1 << 20)];
    assert_eq!(ranges(&from), expected);
    assert_eq!(ranges(&to), expected);
    assert!(allocate::allocated_bytes(&to).unwrap() < 4 << 20);
    assert!(fs::read(dir.join("from")).unwrap() == fs::read(dir.join("to")).unwrap());

    // To another filesystem.
    let outside = create(&scratch.path("outside"));
    copy::sparse(&from, &outside, &mut go_on).unwrap();
    assert_eq!(ranges(&outside), expected);
    assert!(fs::read(dir.join("from")).unwrap() == fs::read(scratch.path("outside")).unwrap());
}

#[test]
fn sparse_copies_keep_holes_and_content() {
    if cannot_run("sparse_copies_keep_holes_and_content", &["mkfs.ext4", "mkfs.xfs"]) {
        return;
    }
    sparse_copy_keeps_holes_and_content(FsType::Ext4);
    sparse_copy_keeps_holes_and_content(FsType::Xfs);
}

#[test]
fn a_copy_that_runs_out_of_room_says_so() {
    if cannot_run("a_copy_that_runs_out_of_room_says_so", &["mkfs.ext4"]) {
        return;
    }
    let scratch = Scratch::new();
    let target = scratch.directory("small");
    mount::mount("tmpfs", &target, "tmpfs", &["size=2m".to_owned()]).unwrap();
    let from = holey_file(&scratch.path("from"));
    let error = copy::sparse(&from, &create(&target.join("to")), &mut go_on).unwrap_err();
    assert!(error.is_no_space(), "{error}");
}

#[test]
fn a_reflink_shares_blocks_until_one_side_writes() {
    if cannot_run("a_reflink_shares_blocks_until_one_side_writes", &["mkfs.xfs"]) {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", FsType::Xfs, &[]);
    let from = holey_file(&dir.join("from"));
    let to = create(&dir.join("to"));
    to.set_len(100 << 20).unwrap();
    assert!(copy::reflink(&from, &to).unwrap());
    assert!(fs::read(dir.join("from")).unwrap() == fs::read(dir.join("to")).unwrap());

    let places = |file: &File| -> Vec<_> {
        extents::mapped(file)
            .unwrap()
            .into_iter()
            .map(|extent| (extent.logical, extent.physical, extent.length, extent.is_shared))
            .collect()
    };
    let shared = places(&to);
    assert_eq!(shared.len(), 3);
    assert!(shared.iter().all(|place| place.3), "{shared:?}");
    assert_eq!(shared, places(&from), "the same places");

    // What is written afterwards is one side's own, and only that.
    to.write_all_at(&pattern(4096, 9), 10 << 20).unwrap();
    let own: Vec<_> = extents::mapped(&to)
        .unwrap()
        .into_iter()
        .filter(|extent| !extent.is_shared)
        .map(|extent| (extent.logical, extent.length, extent.is_comparable))
        .collect();
    assert_eq!(own, [(10 << 20, 4096, true)]);
    let rest: Vec<_> = extents::mapped_from(&to, 40 << 20).map(Result::unwrap).collect();
    assert_eq!(rest.len(), 1, "from an offset on: {rest:?}");
    let mut first = vec![0; 4096];
    from.read_exact_at(&mut first, 10 << 20).unwrap();
    assert_eq!(first, pattern(1 << 20, 2)[..4096], "the original is untouched");
}

#[test]
fn where_blocks_cannot_be_shared_nothing_is_touched() {
    if cannot_run(
        "where_blocks_cannot_be_shared_nothing_is_touched",
        &["mkfs.ext4", "mkfs.xfs"],
    ) {
        return;
    }
    let scratch = Scratch::new();
    let ext4 = scratch.filesystem("ext4", FsType::Ext4, &[]);
    let xfs = scratch.filesystem("xfs", FsType::Xfs, &[]);
    for (name, from, to) in [("unable", &ext4, &ext4), ("another one", &ext4, &xfs)] {
        let from = create(&from.join(format!("{name}-from")));
        from.write_all_at(b"new", 0).unwrap();
        let to_path = to.join(format!("{name}-to"));
        let to = create(&to_path);
        to.write_all_at(b"old and longer", 0).unwrap();
        assert!(!copy::reflink(&from, &to).unwrap(), "{name}");
        assert_eq!(fs::read(&to_path).unwrap(), b"old and longer", "{name}");
    }
}

#[test]
fn many_extents_are_read_in_several_calls() {
    if cannot_run("many_extents_are_read_in_several_calls", &["mkfs.xfs"]) {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", FsType::Xfs, &[]);
    let file = create(&dir.join("file"));
    let count: u64 = 1000;
    for number in 0..count {
        file.write_all_at(&[1; 4096], number * 3 * 4096).unwrap();
    }
    let mapped = extents::mapped(&file).unwrap();
    assert!(mapped.len() >= 1000);
    // What xfs has set aside in between, because of how we write, does not count.
    let written = mapped.iter().filter(|extent| !extent.is_unwritten);
    let starts: Vec<_> = written.map(|extent| extent.logical).collect();
    let expected: Vec<_> = (0..count).map(|number| number * 3 * 4096).collect();
    assert!(starts == expected, "{} of 1000", starts.len());
    assert_eq!(ranges(&file).len(), 1000);
    assert_eq!(extents::mapped(&create(&dir.join("empty"))).unwrap(), []);
}

/// user::rwx, user:1234:r--, group::r--, mask::r-x, other::---
fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01u16, 7u16, u32::MAX),
        (0x02, 4, 1234),
        (0x04, 4, u32::MAX),
        (0x10, 5, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// One of everything.
fn grow_a_tree(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("a/b/empty")).unwrap();
    holey_file(&at("a/holey"));
    fs::write(at("a/b/tool"), "#!/bin/sh\n").unwrap();
    fs::hard_link(at("a/b/tool"), at("second name")).unwrap();
    fs::hard_link(at("a/b/tool"), at("a/third")).unwrap();
    symlink("/etc/passwd", at("a/absolute")).unwrap();
    symlink("../nowhere", at("a/dangling")).unwrap();
    symlink("b", at("a/to-directory")).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("disk", FileType::BlockDevice, rustix::fs::makedev(7, 200)),
    ] {
        rustix::fs::mknodat(CWD, at(name), kind, mode, device).unwrap();
    }
    for (name, attribute, value) in [
        ("a/b/tool", "user.note", b"hello".to_vec()),
        ("a/b", "user.empty", Vec::new()),
        ("a/absolute", "trusted.on-a-link", b"x".to_vec()),
        ("a/holey", "system.posix_acl_access", acl()),
        ("a", "system.posix_acl_default", acl()),
        (
            "a/b/tool",
            "security.capability",
            vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        rustix::fs::lsetxattr(at(name), attribute, &value, XattrFlags::empty()).unwrap();
    }
    for (name, uid, gid) in [
        ("a/b/tool", 12, 34),
        ("a", 1000, 1001),
        ("a/dangling", 5, 6),
        ("fifo", 7, 8),
    ] {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(CWD, at(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    fs::set_permissions(at("a/b/tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(at("a/b"), fs::Permissions::from_mode(0o3050)).unwrap();
    let time = |seconds| Timespec {
        tv_sec: seconds,
        tv_nsec: 123_456_789,
    };
    for (name, seconds) in [
        ("a/b/tool", 100),
        ("a/dangling", 200),
        ("a/b/empty", 300),
        ("a/b", 400),
        ("a", 500),
        ("", 600),
    ] {
        let times = Timestamps {
            last_access: time(seconds),
            last_modification: time(seconds + 1),
        };
        rustix::fs::utimensat(CWD, at(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    links: u64,
    device: u64,
    length: u64,
    content: Vec<u8>,
    attributes: BTreeMap<String, Vec<u8>>,
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

fn survey(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_file() {
            fs::read(&path).unwrap()
        } else if found.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else {
            Vec::new()
        };
        if found.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let entry = Seen {
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            modified: (found.mtime(), found.mtime_nsec()),
            links: found.nlink(),
            device: found.rdev(),
            length: if found.is_dir() { 0 } else { found.len() },
            content,
            attributes: attributes(&path),
        };
        seen.insert(path.strip_prefix(root).unwrap().to_owned(), entry);
    }
    seen
}

fn a_tree_is_copied_with_everything(fs_type: FsType) -> CopiedTree {
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", fs_type, &[]);
    let (from, to) = (dir.join("from"), dir.join("to"));
    fs::create_dir(&from).unwrap();
    grow_a_tree(&from);
    let access_time = fs::metadata(from.join("a/b/tool")).unwrap().atime();
    let copied = copy::tree(&from, &to, &mut go_on).unwrap();
    assert_eq!(fs::metadata(to.join("a/b/tool")).unwrap().atime(), access_time);
    assert_eq!(fs::metadata(from.join("a/b/tool")).unwrap().atime(), access_time);
    let (original, copy) = (survey(&from), survey(&to));
    assert_eq!(
        original.keys().collect::<Vec<_>>(),
        copy.keys().collect::<Vec<_>>()
    );
    for (path, seen) in &original {
        // Not by assert_eq, which would print megabytes.
        assert!(*seen == copy[path], "{} differs", path.display());
    }
    assert_eq!(copied.entries, u64::try_from(copy.len()).unwrap());
    assert_eq!(copied.vanished, 0);
    let inode = |name: &str| fs::metadata(to.join(name)).unwrap().ino();
    assert_eq!(inode("a/b/tool"), inode("second name"));
    assert_eq!(inode("a/b/tool"), inode("a/third"));
    assert_ne!(
        inode("a/b/tool"),
        fs::metadata(from.join("a/b/tool")).unwrap().ino()
    );
    assert_eq!(ranges(&File::open(to.join("a/holey")).unwrap()).len(), 3);
    copied
}

#[test]
fn trees_are_copied_with_everything() {
    if cannot_run("trees_are_copied_with_everything", &["mkfs.ext4", "mkfs.xfs"]) {
        return;
    }
    let copied = a_tree_is_copied_with_everything(FsType::Ext4);
    assert_eq!(copied.reflinked_files, 0);
    assert_eq!(copied.data_bytes, (3 << 20) + 10);
    let copied = a_tree_is_copied_with_everything(FsType::Xfs);
    assert_eq!((copied.reflinked_files, copied.data_bytes), (2, 0));
}

#[test]
fn a_tree_copy_can_be_stopped() {
    if cannot_run("a_tree_copy_can_be_stopped", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let from = scratch.directory("from");
    for number in 0..10 {
        fs::write(from.join(number.to_string()), "x").unwrap();
    }
    let error = copy::tree(&from, &scratch.path("to"), &mut |progress| {
        if progress.entries == 4 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    assert_eq!(fs::read_dir(scratch.path("to")).unwrap().count(), 4);
}

#[test]
fn a_deep_tree_needs_neither_stack_nor_descriptors() {
    if cannot_run("a_deep_tree_needs_neither_stack_nor_descriptors", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let from = scratch.directory("from");
    let dig = |depth: u32, name: &str| {
        let mut at = rustix::fs::open(&from, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..depth {
            match rustix::fs::mkdirat(&at, name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => panic!("{errno}"),
            }
            at = rustix::fs::openat(&at, name, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        }
    };
    dig(300, &"d".repeat(200));
    let copied = copy::tree(&from, &scratch.path("to"), &mut go_on).unwrap();
    assert_eq!(copied.entries, 301);
    dig(1100, "e");
    let error = copy::tree(&from, &scratch.path("again"), &mut go_on).unwrap_err();
    assert!(error.to_string().ends_with("is nested too deeply to be copied"));
}

#[test]
fn a_mount_inside_a_tree_is_not_copied() {
    if cannot_run("a_mount_inside_a_tree_is_not_copied", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let from = scratch.directory("from");
    scratch.directory("from/deep/mounted");
    mount::bind("/etc", from.join("deep/mounted"), true).unwrap();
    let error = copy::tree(&from, &scratch.path("to"), &mut go_on).unwrap_err();
    assert!(matches!(error, MountError::BadPath { .. }), "{error}");
    assert!(!scratch.path("to/deep/mounted/passwd").exists());
}

#[test]
fn symlinks_swapped_underneath_lead_nowhere() {
    if cannot_run("symlinks_swapped_underneath_lead_nowhere", &[]) {
        return;
    }
    let scratch = Scratch::new();
    let (from, outside) = (scratch.directory("from"), scratch.directory("outside"));
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(outside.join("file"), "secret").unwrap();
    scratch.directory("from/dir");
    fs::write(from.join("dir/file"), "mine").unwrap();
    symlink(&outside, from.join("link")).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Swaps directory and symlink atomically, all the time.
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, from.join("dir"), CWD, from.join("link"), flags).unwrap();
            }
        });
        let _stop = Stop(&is_done);
        let (mut found, mut swapped) = (0, 0);
        for number in 0..100 {
            let to = scratch.path(&format!("to-{number}"));
            let copied = copy::tree(&from, &to, &mut go_on).unwrap();
            swapped += copied.vanished;
            for path in survey(&to).keys() {
                assert!(!path.ends_with("secret"), "led out in attempt {number}");
            }
            for name in ["dir/file", "link/file"] {
                let path = to.join(name);
                let is_there = path.symlink_metadata().is_ok()
                    && !fs::symlink_metadata(path.parent().unwrap()).unwrap().is_symlink();
                if is_there {
                    assert_eq!(fs::read_to_string(path).unwrap(), "mine", "attempt {number}");
                    found += 1;
                }
            }
        }
        assert!(
            found > 0,
            "the directory was never copied; {swapped} swaps were seen"
        );
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
