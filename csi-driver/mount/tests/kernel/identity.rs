//! A copy of a filesystem, mounted beside its origin, and grown.

use std::fs::{self, File};

use moorline_mount::{
    copy,
    filesystem::{self, FsType},
    freeze::Frozen,
    loop_device::{self, AttachOptions},
    mount,
};

use super::support::{Scratch, cannot_run};

/// `still`: whether the origin stands still while it is copied, or leaves a journal to be replayed.
fn a_copy_is_mounted_beside_its_origin(fs_type: FsType, still: bool) {
    let scratch = Scratch::new();
    let origin = scratch.filesystem("origin", fs_type, &[]);
    fs::write(origin.join("before"), "x").unwrap();
    File::open(&origin).unwrap().sync_all().unwrap();
    // Right after an fsync, that is in the journal only.
    fs::write(origin.join("file"), vec![9; 1 << 20]).unwrap();
    File::open(origin.join("file")).unwrap().sync_all().unwrap();
    let frozen = still.then(|| Frozen::freeze(&origin).unwrap());
    let (image, copied) = (scratch.path("origin.img"), scratch.path("copy.img"));
    let to = File::create(&copied).unwrap();
    copy::sparse(&File::open(&image).unwrap(), &to, &mut |_| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(frozen.is_none_or(|frozen| frozen.thaw().unwrap()));
    drop(to);
    let before = filesystem::identity(&image).unwrap().expect("it has one");
    assert_eq!(
        filesystem::identity(&copied).unwrap(),
        Some(before),
        "{fs_type}: a copy"
    );

    filesystem::new_identity(&copied, fs_type).unwrap();
    assert_ne!(
        filesystem::identity(&copied).unwrap(),
        Some(before),
        "{fs_type}: its own now"
    );
    assert_eq!(filesystem::identity(&image).unwrap(), Some(before), "{fs_type}");
    let copy = scratch.mount("copy", fs_type, &[]);
    assert!(
        fs::read(copy.join("file")).unwrap() == vec![9; 1 << 20],
        "{fs_type}"
    );
    fs::write(copy.join("own"), "copy").unwrap();
    fs::write(origin.join("own"), "origin").unwrap();
    assert_eq!(fs::read_to_string(copy.join("own")).unwrap(), "copy");
    mount::unmount(&copy).unwrap();
    filesystem::check(&copied, fs_type).expect("nothing is damaged");

    filesystem::new_identity(&copied, fs_type).expect("again is fine");
    let device = loop_device::attach(&copied, AttachOptions::default()).unwrap();
    filesystem::new_identity(device.path(), fs_type).expect("on a device too");
    mount::mount(device.path(), &copy, fs_type.as_str(), &[]).unwrap();
    assert_eq!(fs::read_to_string(copy.join("own")).unwrap(), "copy");
    assert_eq!(fs::read_to_string(origin.join("own")).unwrap(), "origin");
}

#[test]
fn an_xfs_copy_is_mounted_beside_its_origin() {
    if cannot_run(
        "an_xfs_copy_is_mounted_beside_its_origin",
        &["mkfs.xfs", "xfs_admin"],
    ) {
        return;
    }
    a_copy_is_mounted_beside_its_origin(FsType::Xfs, true);
    a_copy_is_mounted_beside_its_origin(FsType::Xfs, false);
}

#[test]
fn an_ext4_copy_is_mounted_beside_its_origin() {
    if cannot_run(
        "an_ext4_copy_is_mounted_beside_its_origin",
        &["mkfs.ext4", "tune2fs"],
    ) {
        return;
    }
    a_copy_is_mounted_beside_its_origin(FsType::Ext4, true);
    a_copy_is_mounted_beside_its_origin(FsType::Ext4, false);
}

#[test]
fn a_btrfs_copy_is_mounted_beside_its_origin() {
    if cannot_run(
        "a_btrfs_copy_is_mounted_beside_its_origin",
        &["mkfs.btrfs", "btrfstune"],
    ) {
        return;
    }
    a_copy_is_mounted_beside_its_origin(FsType::Btrfs, true);
    a_copy_is_mounted_beside_its_origin(FsType::Btrfs, false);
}
