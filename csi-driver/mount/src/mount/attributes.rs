//! Attributes of mounts that exist: read-only, nosuid and the like, changed by mount_setattr(2).

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::libc;
use rustix::{
    fs::CWD,
    io::Errno,
    mount::{FsPickFlags, MountAttrFlags, OpenTreeFlags},
};

use crate::{MountError, mount_options::Attributes};

/// Changes attributes (`ro`, `nosuid` ...) of the mount at `target`, and of those below when `recursive`.
///
/// # Errors
/// `is_busy` when it should become read-only while files are open for writing.
pub fn set_attributes(
    target: impl AsRef<Path>,
    attributes: Attributes,
    recursive: bool,
) -> Result<(), MountError> {
    let target = target.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, target, flags)
        .and_then(|tree| set_attributes_of(&tree, attributes, recursive))
        .map_err(|errno| MountError::call("set attributes of the mount at", target, errno))
}

/// Makes the mount at `target` read-only, or writable again.
///
/// # Errors
/// `is_busy` when it should become read-only while files are open for writing.
pub fn remount(target: impl AsRef<Path>, read_only: bool) -> Result<(), MountError> {
    let flag = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let none = MountAttrFlags::empty();
    let (set, clear) = if read_only { (flag, none) } else { (none, flag) };
    set_attributes(target, Attributes { set, clear }, false)
}

/// Changes parameters of the filesystem that is mounted at `mount_point`, such as `discard` and `nodiscard`; everything else
/// about it stays. Whether the filesystem heeds them while it is mounted is its own affair.
///
/// # Errors
/// When nothing is mounted there, or the filesystem refuses.
pub fn reconfigure(mount_point: impl AsRef<Path>, flags: &[&str]) -> Result<(), MountError> {
    let path = mount_point.as_ref();
    let how = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_SYMLINK_NOFOLLOW;
    let changed = rustix::mount::fspick(CWD, path, how).and_then(|context| {
        for flag in flags {
            rustix::mount::fsconfig_set_flag(&context, *flag)?;
        }
        rustix::mount::fsconfig_reconfigure(&context)
    });
    changed.map_err(|errno| MountError::call("change options of the filesystem at", path, errno))
}

/// The kernel's `struct mount_attr`, version 0.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps mount_setattr(2)")]
pub(super) fn set_attributes_of(
    tree: &OwnedFd,
    attributes: Attributes,
    recursive: bool,
) -> Result<(), Errno> {
    let mut clear = attributes.clear;
    // Access time is one value: the kernel wants the whole field cleared before another value is set.
    if attributes.set.intersects(MountAttrFlags::MOUNT_ATTR__ATIME) {
        clear |= MountAttrFlags::MOUNT_ATTR__ATIME;
    }
    let attr = MountAttr {
        attr_set: attributes.set.bits().into(),
        attr_clr: clear.bits().into(),
        propagation: 0,
        userns_fd: 0,
    };
    let recurse = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open for the whole call, the path is a nul-terminated literal, and `attr` is a live
    // value of exactly the size that is passed; the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recurse,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
