//! How full a filesystem is and how large a block device is.

use std::path::Path;

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, StatVfsMountFlags, StatxFlags, statx},
    io::Errno,
};

use crate::{MountError, mountinfo};

/// What a filesystem has and what of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In bytes.
    pub bytes: Amount,
    /// In inodes; all zero for filesystems that make them on demand.
    pub inodes: Amount,
    /// The filesystem's block size in bytes.
    pub block_bytes: u64,
    /// Can nothing be written here, because of the mount or of the filesystem?
    pub is_read_only: bool,
}

/// Total, available and used of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// All there is.
    pub total: u64,
    /// What an ordinary user may still take. Smaller than `total - used` where some is set aside for root.
    pub available: u64,
    /// What is taken.
    pub used: u64,
}

/// Usage of the filesystem that holds `path`.
///
/// # Errors
/// When `path` is not there or its filesystem does not answer.
pub fn filesystem(path: impl AsRef<Path>) -> Result<Usage, MountError> {
    let path = path.as_ref();
    let seen =
        rustix::fs::statvfs(path).map_err(|errno| MountError::call("read the usage of", path, errno))?;
    let amount = |total: u64, free: u64, available: u64, unit: u64| Amount {
        total: total.saturating_mul(unit),
        available: available.saturating_mul(unit),
        used: total.saturating_sub(free).saturating_mul(unit),
    };
    Ok(Usage {
        bytes: amount(seen.f_blocks, seen.f_bfree, seen.f_bavail, seen.f_frsize),
        inodes: amount(seen.f_files, seen.f_ffree, seen.f_favail, 1),
        block_bytes: seen.f_bsize,
        is_read_only: seen.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

/// Has the filesystem mounted at `mount_point` stopped taking writes by itself, because of an error? One that was
/// mounted read-only has not.
///
/// # Errors
/// When `mount_point` is not there, or the mount table can't be read.
pub fn is_read_only_by_error(mount_point: impl AsRef<Path>) -> Result<bool, MountError> {
    let path = mount_point.as_ref();
    let failed = |errno| MountError::call("look at", path, errno);
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let seen = match statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
        Ok(seen) => seen,
        // xfs that has shut down answers nothing but this.
        Err(Errno::IO) => return Ok(true),
        Err(errno) => return Err(failed(errno)),
    };
    let entries = mountinfo::read()?;
    let found = entries
        .iter()
        .find(|entry| u64::from(entry.mount_id) == seen.stx_mnt_id);
    Ok(found.is_some_and(|entry| stopped_by_error(&entry.options, &entry.super_options)))
}

/// Old kernels turn the filesystem read-only, which the mount is not; newer ones say what happened.
fn stopped_by_error(mount_options: &str, super_options: &str) -> bool {
    let has = |options: &str, wanted| options.split(',').any(|option| option == wanted);
    has(super_options, "emergency_ro")
        || has(super_options, "shutdown")
        || (has(super_options, "ro") && !has(mount_options, "ro"))
}

/// Size in bytes of a block device (or of a regular file).
///
/// # Errors
/// When `device` can't be opened, or is neither.
pub fn block_size(device: impl AsRef<Path>) -> Result<u64, MountError> {
    let device = device.as_ref();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(device, flags, Mode::empty())
        .map_err(|errno| MountError::call("open", device, errno))?;
    // The end of a block device is its size; no ioctl needed.
    rustix::fs::seek(&opened, SeekFrom::End(0)).map_err(|errno| MountError::call("measure", device, errno))
}

/// Is `path` (followed if it is a symlink) a block device?
///
/// # Errors
/// When `path` is not there.
pub fn is_block_device(path: impl AsRef<Path>) -> Result<bool, MountError> {
    let path = path.as_ref();
    let seen = rustix::fs::stat(path).map_err(|errno| MountError::call("look at", path, errno))?;
    Ok(FileType::from_raw_mode(seen.st_mode).is_block_device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_from_a_wish() {
        let cases = [
            ("healthy", "rw,relatime", "rw", false),
            ("mounted read-only", "ro,relatime", "ro", false),
            ("bound read-only", "ro", "rw", false),
            ("remounted by an error", "rw", "ro,errors=remount-ro", true),
            ("ext4 of Linux 6.15", "rw,relatime", "rw,emergency_ro", true),
            ("shut down", "ro", "rw,shutdown", true),
        ];
        for (name, mount, filesystem, expected) in cases {
            assert_eq!(stopped_by_error(mount, filesystem), expected, "{name}");
        }
    }
}
