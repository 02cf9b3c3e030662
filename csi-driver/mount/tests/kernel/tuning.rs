//! What can be changed while a volume is in use, and what goes wrong meanwhile.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use moorline_mount::{
    allocate,
    filesystem::FsType,
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
