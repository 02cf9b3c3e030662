//! What can be changed while a volume is in use, and what goes wrong meanwhile.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use moorline_mount::{
    allocate,
    filesystem::FsType,
    io_limits::{self, Limits, Support},
    loop_device::{self, AttachOptions},
    usage,
};

use super::support::{Scratch, cannot_run, skipped};

#[test]
fn direct_io_is_switched_while_attached() {
    if cannot_run("direct_io_is_switched_while_attached", &["mkfs.ext4"]) {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", FsType::Ext4, &[]);
    let file = File::create_new(dir.join("image")).unwrap();
    file.set_len(16 << 20).unwrap();
    let how = AttachOptions {
        block_size: 4096,
        ..AttachOptions::default()
    };
    let device = loop_device::attach(dir.join("image"), how).unwrap();
    let block_size = fs::read_to_string(format!(
        "/sys/block/{}/queue/logical_block_size",
        device.path().file_name().unwrap().display()
    ));
    assert_eq!(block_size.unwrap().trim(), "4096");
    for on in [true, false, true] {
        loop_device::set_direct_io(&device, on).unwrap();
        assert_eq!(loop_device::is_direct_io(&device).unwrap(), on);
    }
    let node = File::options().write(true).open(device.path()).unwrap();
    node.write_all_at(&vec![7; 4 << 20], 0).unwrap();
    node.sync_all().unwrap();
    assert!(allocate::allocated_bytes(&file).unwrap() >= 4 << 20);

    let punch = || {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&node, flags, 0, 4 << 20)
    };
    assert!(loop_device::has_discard(&device).unwrap());
    punch().unwrap();
    assert!(
        allocate::allocated_bytes(&file).unwrap() < 1 << 20,
        "the hole reached the file"
    );

    file.set_len(32 << 20).unwrap();
    loop_device::set_capacity(&device).unwrap();
    assert_eq!(usage::block_size(device.path()).unwrap(), 32 << 20);
}

#[test]
fn a_filesystem_that_gave_up_is_seen() {
    if cannot_run("a_filesystem_that_gave_up_is_seen", &["mkfs.ext4"]) {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", FsType::Ext4, &["errors=remount-ro"]);
    assert!(!usage::is_read_only_by_error(&dir).unwrap());
    let block_bytes = fs::metadata(&dir).unwrap().blksize();
    assert_eq!(usage::filesystem(&dir).unwrap().block_bytes, block_bytes);
    let minor = rustix::fs::minor(fs::metadata(&dir).unwrap().dev());
    let trigger = format!("/sys/fs/ext4/loop{minor}/trigger_fs_error");
    if fs::write(&trigger, "1").is_err() {
        skipped(
            "a_filesystem_that_gave_up_is_seen",
            "sysfs has no trigger_fs_error",
        );
        return;
    }
    assert!(fs::write(dir.join("file"), "x").is_err());
    assert!(usage::is_read_only_by_error(&dir).unwrap());
}

#[test]
fn io_limits_slow_a_device_down() {
    let test = "io_limits_slow_a_device_down";
    if cannot_run(test, &[]) {
        return;
    }
    let support = io_limits::support().unwrap();
    if let Support::No { why } = &support {
        skipped(test, why);
        return;
    }
    let scratch = Scratch::new();
    let image = scratch.sparse_file("image", 16 << 20);
    let device = loop_device::attach(&image, AttachOptions::default()).unwrap();
    let number = device.number().unwrap();
    let limits = Limits {
        write_bytes_per_second: Some(2 << 20),
        read_iops: Some(1000),
        ..Limits::default()
    };
    io_limits::apply(&support, number, &limits).unwrap();
    let _clear = Cleared(&support, number);
    assert_eq!(io_limits::read(&support, number).unwrap(), limits);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    if !groups.lines().any(|line| line.ends_with("blkio:/")) {
        skipped(
            test,
            "the speed itself: this process is not in the group that is limited",
        );
        return;
    }
    let node = File::options().write(true).open(device.path()).unwrap();
    let begin = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    node.write_all_at(&vec![1; 3 << 20], 0).unwrap();
    node.sync_all().unwrap();
    let end = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let milliseconds = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1_000_000;
    assert!(milliseconds > 700, "3 MiB at 2 MiB/s took {milliseconds} ms");
    io_limits::clear(&support, number).unwrap();
    assert_eq!(io_limits::read(&support, number).unwrap(), Limits::default());
}

struct Cleared<'a>(&'a Support, (u32, u32));

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        if let Err(error) = io_limits::clear(self.0, self.1) {
            eprintln!("left an I/O limit behind: {error}");
        }
    }
}
