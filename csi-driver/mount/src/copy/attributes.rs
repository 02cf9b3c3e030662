//! Owner, mode, times and extended attributes (ACLs and file capabilities among them), from one opened object to
//! another. Everything goes through `/proc/self/fd`, so that no name is looked up a second time.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use crate::MountError;

/// The longest value and the longest list of names that the kernel allows.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// A path to what is opened, a symlink too: the kernel goes there without following it any further.
pub(super) fn proc_path(opened: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

/// Gives `to` what `from` has. `seen` is what `from` was when it was opened; `path` is for the error's text.
pub(super) fn carry_over(from: &OwnedFd, seen: &Stat, to: &OwnedFd, path: &Path) -> Result<(), MountError> {
    let target = proc_path(to);
    // The order matters: a new owner clears set-user-id bits and file capabilities, everything but the times changes
    // the times.
    rustix::fs::chownat(
        to,
        "",
        Some(Uid::from_raw(seen.st_uid)),
        Some(Gid::from_raw(seen.st_gid)),
        AtFlags::EMPTY_PATH,
    )
    .map_err(|errno| MountError::call("set the owner of", path, errno))?;
    copy_xattrs(&proc_path(from), &target)
        .map_err(|errno| MountError::call("copy the extended attributes of", path, errno))?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(CWD, &target, Mode::from_raw_mode(seen.st_mode), AtFlags::empty())
            .map_err(|errno| MountError::call("set the mode of", path, errno))?;
    }
    rustix::fs::utimensat(CWD, &target, &times(seen), AtFlags::empty())
        .map_err(|errno| MountError::call("set the times of", path, errno))
}

fn times(seen: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(seen.st_atime, seen.st_atime_nsec),
        last_modification: time(seen.st_mtime, seen.st_mtime_nsec),
    }
}

fn copy_xattrs(from: &Path, to: &Path) -> Result<(), Errno> {
    let mut wanted = names(from)?;
    // A new file may have got attributes of its own, such as the ACL that its directory hands down.
    for name in names(to)? {
        if !wanted.contains(&name) {
            rustix::fs::removexattr(to, &*name)?;
        }
    }
    // The lists are short; sorted, so that what fails is the same each time.
    wanted.sort();
    let mut value = vec![0; XATTR_BYTES_MAX];
    for name in wanted {
        match rustix::fs::getxattr(from, &*name, &mut value[..]) {
            Ok(length) => rustix::fs::setxattr(to, &*name, &value[..length], XattrFlags::empty())?,
            Err(Errno::NODATA) => {} // Removed meanwhile.
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn names(of: &Path) -> Result<Vec<CString>, Errno> {
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::listxattr(of, &mut list[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    Ok(list[..length]
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok().map(ToOwned::to_owned))
        .collect())
}
