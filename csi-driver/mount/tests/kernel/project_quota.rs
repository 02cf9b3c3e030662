//! Project quotas really limit, where the kernel has them.

use std::{
    fs::{self, File},
    io::Write as _,
};

use moorline_mount::{
    MountError,
    filesystem::{self, FsType},
    loop_device::{self, AttachOptions},
    mount,
    project_quota::{self, Support},
    tool::Tool,
};

use super::support::{Scratch, cannot_run, skipped};

const TUNE2FS: Tool = Tool {
    program: "tune2fs",
    package: "e2fsprogs",
    deadline: std::time::Duration::from_secs(60),
    exit_code_max: 0,
};

fn a_limit_holds(test: &str, fs_type: FsType) {
    let scratch = Scratch::new();
    let image = scratch.sparse_file("fs.img", fs_type.size_min_bytes().max(64 << 20));
    filesystem::make(&image, fs_type).unwrap();
    if fs_type == FsType::Ext4 {
        let words = ["-O", "quota,project", "-Q", "prjquota"].map(std::ffi::OsStr::new);
        TUNE2FS.run(words.into_iter().chain([image.as_os_str()])).unwrap();
    }
    let dir = scratch.directory("fs");
    let how = AttachOptions {
        autoclear: true,
        ..AttachOptions::default()
    };
    let device = loop_device::attach(&image, how).unwrap();
    if let Err(error) = mount::mount(device.path(), &dir, fs_type.as_str(), &["prjquota".to_owned()]) {
        skipped(test, &format!("this kernel mounts no project quotas: {error}"));
        return;
    }
    if project_quota::support(&dir).unwrap() == Support::NotSupported {
        skipped(test, "this kernel has no project quotas for this filesystem");
        return;
    }
    assert_eq!(project_quota::support(&dir).unwrap(), Support::Supported);
    let volume = dir.join("volume");
    fs::create_dir(&volume).unwrap();
    let opened = File::open(&volume).unwrap();
    project_quota::assign(&opened, 4711).unwrap();
    project_quota::set_limit(&opened, 4711, Some(8 << 20)).unwrap();
    without_the_right_to_exceed();
    let mut file = File::create(volume.join("file")).unwrap();
    let error = (0..256).find_map(|_| {
        file.write_all(&[1; 64 << 10])
            .and_then(|()| file.sync_data())
            .err()
    });
    let source = error.expect("the limit was not enforced");
    let path = volume.join("file");
    let action = "write";
    assert!(MountError::Call { action, path, source }.is_no_space());
    let usage = project_quota::usage(&opened, 4711).unwrap();
    assert_eq!(usage.limit, Some(8 << 20));
    assert!((4 << 20..=8 << 20).contains(&usage.bytes), "{usage:?}");
    fs::write(dir.join("outside"), vec![1; 12 << 20]).expect("others are not limited");
}

/// Root may exceed quotas; this thread may not any more.
fn without_the_right_to_exceed() {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective.remove(rustix::thread::CapabilitySet::SYS_RESOURCE);
    rustix::thread::set_capabilities(None, sets).unwrap();
}

#[test]
fn a_project_limit_of_ext4_holds() {
    let test = "a_project_limit_of_ext4_holds";
    if !cannot_run(test, &["mkfs.ext4", "tune2fs"]) {
        a_limit_holds(test, FsType::Ext4);
    }
}

#[test]
fn a_project_limit_of_xfs_holds() {
    let test = "a_project_limit_of_xfs_holds";
    if !cannot_run(test, &["mkfs.xfs"]) {
        a_limit_holds(test, FsType::Xfs);
    }
}

#[test]
fn a_project_is_inherited_and_missing_quotas_are_said() {
    if cannot_run(
        "a_project_is_inherited_and_missing_quotas_are_said",
        &["mkfs.xfs"],
    ) {
        return;
    }
    let scratch = Scratch::new();
    let dir = scratch.filesystem("fs", FsType::Xfs, &[]);
    let volume = dir.join("volume");
    fs::create_dir(&volume).unwrap();
    let opened = File::open(&volume).unwrap();
    assert_eq!(project_quota::project_of(&opened).unwrap(), 0);
    project_quota::assign(&opened, 4711).unwrap();
    fs::create_dir(volume.join("below")).unwrap();
    let below = File::create(volume.join("below/file")).unwrap();
    assert_eq!(project_quota::project_of(&below).unwrap(), 4711);
    assert_ne!(
        project_quota::support(&dir).unwrap(),
        Support::Supported,
        "mounted without"
    );
    assert!(project_quota::set_limit(&opened, 4711, Some(1 << 20)).is_err());
    let shared_memory = Scratch::new();
    let target = shared_memory.directory("tmpfs");
    mount::mount("tmpfs", &target, "tmpfs", &[]).unwrap();
    assert_eq!(project_quota::support(&target).unwrap(), Support::NotSupported);
}
