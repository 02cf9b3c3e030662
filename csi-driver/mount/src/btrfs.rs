//! Subvolumes of btrfs: making, snapshotting, limiting, removing. By ioctl and sysfs; no tool is run.
//!
//! A limit is a quota group's. Two modes exist: *simple* (Linux 6.7) counts a block where it was first written, which
//! costs next to nothing, but a snapshot counts only what is written to it afterwards; *full* counts whatever a
//! subvolume refers to, and makes snapshots dear when there are many.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags},
    io::Errno,
};

use crate::MountError;

mod ioctl;

const SUPER_MAGIC: u64 = 0x9123_683e;
/// The inode of every subvolume's root.
const ROOT_INODE: u64 = 256;
const SYSFS: &str = "/sys/fs/btrfs";
/// A removed subvolume with a higher tree than this makes full quotas wrong until everything is counted anew.
const DROP_THRESHOLD: &str = "drop_subtree_threshold";
const DROP_THRESHOLD_OFF: &str = "8";

/// How the filesystem counts what subvolumes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaMode {
    /// Not at all; limits can't be set.
    Off,
    /// By who wrote a block first.
    Simple,
    /// By who refers to a block.
    Full,
}

/// What a subvolume uses, by its quota group. Exact after [`sync`]; until then new writes may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubvolumeUsage {
    /// Bytes that it refers to; in simple mode those it wrote first.
    pub referenced: u64,
    /// Bytes that nobody else refers to.
    pub exclusive: u64,
    /// How many bytes it may refer to, if limited.
    pub limit: Option<u64>,
}

/// Is `path` on btrfs?
///
/// # Errors
/// When `path` is not there.
pub fn is_btrfs(path: impl AsRef<Path>) -> Result<bool, MountError> {
    let path = path.as_ref();
    let seen = rustix::fs::statfs(path)
        .map_err(|errno| MountError::call("read the filesystem type of", path, errno))?;
    Ok(u64::try_from(seen.f_type).is_ok_and(|magic| magic == SUPER_MAGIC))
}

/// Is `path` the root of a subvolume? A path that is not there is none; a symlink is not followed.
///
/// # Errors
/// When `path` can't be looked at.
pub fn is_subvolume(path: impl AsRef<Path>) -> Result<bool, MountError> {
    let path = path.as_ref();
    let seen = match rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO) {
        Ok(seen) => seen,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(errno) => return Err(MountError::call("look at", path, errno)),
    };
    Ok(seen.stx_ino == ROOT_INODE && is_btrfs(path)?)
}

/// Makes an empty subvolume, owned by the caller, mode 0755 less the umask.
///
/// # Errors
/// `is_exists` when something is there; `is_unsupported` when the parent is not on btrfs.
pub fn create_subvolume(path: impl AsRef<Path>) -> Result<(), MountError> {
    let path = path.as_ref();
    let (parent, name) = open_parent(path)?;
    let arguments = ioctl::VolumeArguments::named(name).map_err(|why| bad(path, why))?;
    ioctl::create(&parent, arguments).map_err(|errno| MountError::call("make the subvolume", path, errno))
}

/// Makes the subvolume `target`, which shares everything with `source` as it is at this moment. Subvolumes inside of
/// `source` are empty directories in it.
///
/// # Errors
/// `is_exists` when something is at `target`, `is_no_space` when there is no room for the metadata.
pub fn snapshot(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    read_only: bool,
) -> Result<(), MountError> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let from = open_subvolume(source)?;
    let (parent, name) = open_parent(target)?;
    let arguments = ioctl::VolumeArguments::named(name).map_err(|why| bad(target, why))?;
    ioctl::snapshot(&parent, &from, read_only, arguments)
        .map_err(|errno| MountError::call("make the snapshot", target, errno))
}

/// Removes a subvolume with everything in it, subvolumes that its users made inside included, and its quota group.
/// Its blocks become free in the background. Nothing there is fine.
///
/// # Errors
/// [`MountError::BadPath`] when it is no subvolume: a directory is never removed. That it is bind-mounted
/// somewhere does not hold the kernel up: callers ask for mounts before.
pub fn delete_subvolume(path: impl AsRef<Path>) -> Result<(), MountError> {
    let path = path.as_ref();
    let failed = |errno| MountError::call("remove the subvolume", path, errno);
    let opened = match open_subvolume(path) {
        Err(error) if error.is_not_found() => return Ok(()),
        opened => opened?,
    };
    let (parent, name) = open_parent(path)?;
    let arguments = ioctl::VolumeArguments::named(name).map_err(|why| bad(path, why))?;
    let id = ioctl::subvolume_id(&opened).map_err(failed)?;
    let nested = nested_subvolumes(&opened, id).map_err(failed)?;
    if !nested.is_empty() {
        // Nothing can be taken out of a read-only one.
        set_read_only_of(&opened, false).map_err(failed)?;
    }
    for child in &nested {
        match ioctl::destroy_by_id(&opened, *child) {
            Ok(()) | Err(Errno::NOENT) => remove_quota_group(&opened, *child).map_err(failed)?,
            Err(errno) => return Err(failed(errno)),
        }
    }
    drop(opened);
    match ioctl::destroy(&parent, arguments) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed(errno)),
    }
    remove_quota_group(&parent, id).map_err(failed)
}

/// All subvolumes inside of one, the innermost first.
fn nested_subvolumes(filesystem: &OwnedFd, id: u64) -> Result<Vec<u64>, Errno> {
    let mut found = vec![id];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(ioctl::children(filesystem, parent)?);
        next += 1;
    }
    found.remove(0);
    found.reverse();
    Ok(found)
}

/// Newer kernels do that themselves when the last block is gone, and don't let anybody else do it before.
fn remove_quota_group(filesystem: &OwnedFd, id: u64) -> Result<(), Errno> {
    match ioctl::remove_quota_group(filesystem, id) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTCONN | Errno::BUSY | Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Lets nobody write to a subvolume, or lets them again.
///
/// # Errors
/// `ETXTBSY` when it should become read-only while somebody has a file open for writing.
pub fn set_read_only(subvolume: impl AsRef<Path>, on: bool) -> Result<(), MountError> {
    let path = subvolume.as_ref();
    let opened = open_subvolume(path)?;
    set_read_only_of(&opened, on)
        .map_err(|errno| MountError::call("set whether one may write to the subvolume", path, errno))
}

fn set_read_only_of(subvolume: &OwnedFd, on: bool) -> Result<(), Errno> {
    let flags = ioctl::flags(subvolume)?;
    let wanted = if on {
        flags | ioctl::FLAG_READ_ONLY
    } else {
        flags & !ioctl::FLAG_READ_ONLY
    };
    if wanted == flags {
        return Ok(());
    }
    ioctl::set_flags(subvolume, wanted)
}

/// May nobody write to the subvolume?
///
/// # Errors
/// [`MountError::BadPath`] when it is none.
pub fn is_read_only(subvolume: impl AsRef<Path>) -> Result<bool, MountError> {
    let path = subvolume.as_ref();
    ioctl::flags(&open_subvolume(path)?)
        .map(|flags| flags & ioctl::FLAG_READ_ONLY != 0)
        .map_err(|errno| MountError::call("read the flags of the subvolume", path, errno))
}

/// Turns quotas on, simple ones where the kernel has them, and says which are on now. Those that are on already stay.
/// Turning on full ones counts everything there is first; this waits for it.
///
/// # Errors
/// When the caller is not root, or `path` is not on btrfs.
pub fn enable_quota(path: impl AsRef<Path>) -> Result<QuotaMode, MountError> {
    let path = path.as_ref();
    let mode = quota_mode(path)?;
    if mode != QuotaMode::Off {
        return Ok(mode);
    }
    let failed = |errno| MountError::call("turn on the quotas of", path, errno);
    let opened = open_directory(path)?;
    match ioctl::enable_quota(&opened, true) {
        Ok(()) => {}
        // A kernel before 6.7, or a filesystem that can't have them.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            ioctl::enable_quota(&opened, false).map_err(failed)?;
            ioctl::wait_for_rescan(&opened).map_err(failed)?;
        }
        Err(errno) => return Err(failed(errno)),
    }
    quota_mode(path)
}

/// As [`enable_quota`], with full ones on every kernel: a block that a snapshot alone keeps is not counted against who
/// wrote it. Where full ones are on they go on counting however large the subvolumes are that go.
///
/// # Errors
/// As [`enable_quota`].
pub fn enable_full_quota(path: impl AsRef<Path>) -> Result<QuotaMode, MountError> {
    let path = path.as_ref();
    let opened = open_directory(path)?;
    if quota_mode(path)? == QuotaMode::Off {
        let failed = |errno| MountError::call("turn on the quotas of", path, errno);
        ioctl::enable_quota(&opened, false).map_err(failed)?;
        ioctl::wait_for_rescan(&opened).map_err(failed)?;
    }
    let mode = quota_mode(path)?;
    let threshold = quota_groups(path, &opened)?.join(DROP_THRESHOLD);
    if mode == QuotaMode::Full && threshold.exists() {
        std::fs::write(&threshold, DROP_THRESHOLD_OFF)
            .map_err(|source| MountError::call("write", &threshold, source))?;
    }
    Ok(mode)
}

/// The block devices of the filesystem that holds `path`, by major and minor number.
///
/// # Errors
/// When `path` is not on btrfs, or sysfs is not there.
pub fn devices(path: impl AsRef<Path>) -> Result<Vec<(u32, u32)>, MountError> {
    let path = path.as_ref();
    let opened = open_directory(path)?;
    let directory = sysfs_directory(path, &opened)?.join("devices");
    let failed = |source| MountError::call("list", &directory, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let number = std::fs::read_to_string(entry.map_err(failed)?.path().join("dev"));
        // One that has gone meanwhile is none any more.
        let number = number.unwrap_or_default();
        found.extend(
            number
                .trim()
                .split_once(':')
                .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))),
        );
    }
    Ok(found)
}

/// Which quotas are on.
///
/// # Errors
/// When `path` is not on btrfs, or sysfs is not there.
pub fn quota_mode(path: impl AsRef<Path>) -> Result<QuotaMode, MountError> {
    let groups = quota_groups(path.as_ref(), &open_directory(path.as_ref())?)?;
    if !Path::new(SYSFS).exists() {
        return Err(MountError::call("look for quotas in", SYSFS, Errno::NOENT));
    }
    let read = |name: &str| std::fs::read_to_string(groups.join(name)).unwrap_or_default();
    Ok(mode_of(&read("enabled"), &read("mode"), groups.is_dir()))
}

/// `enabled` is there since Linux 5.19, `mode` since 6.7; before, the directory is there when quotas are on.
fn mode_of(enabled: &str, mode: &str, has_directory: bool) -> QuotaMode {
    match (enabled.trim(), mode.trim(), has_directory) {
        ("0", _, _) | (_, "disabled", _) | (_, _, false) => QuotaMode::Off,
        (_, "squota", true) => QuotaMode::Simple,
        (_, _, true) => QuotaMode::Full,
    }
}

/// Limits how many bytes a subvolume may refer to; `None` takes the limit away.
///
/// # Errors
/// `ENOTCONN` when quotas are off.
pub fn set_limit(subvolume: impl AsRef<Path>, bytes: Option<u64>) -> Result<(), MountError> {
    let path = subvolume.as_ref();
    ioctl::set_limit(&open_subvolume(path)?, bytes)
        .map_err(|errno| MountError::call("limit the size of the subvolume", path, errno))
}

/// What a subvolume uses and may use.
///
/// # Errors
/// `is_not_found` when quotas are off.
pub fn usage(subvolume: impl AsRef<Path>) -> Result<SubvolumeUsage, MountError> {
    let path = subvolume.as_ref();
    let opened = open_subvolume(path)?;
    let id = ioctl::subvolume_id(&opened).map_err(|errno| MountError::call("read the id of", path, errno))?;
    let group = quota_groups(path, &opened)?.join(format!("0_{id}"));
    let read = |name: &str| {
        let file = group.join(name);
        std::fs::read_to_string(&file)
            .map_err(|source| MountError::call("read", &file, source))?
            .trim()
            .parse::<u64>()
            .map_err(|_| bad(&file, "holds no number"))
    };
    let is_limited = read("limit_flags")? & ioctl::LIMIT_REFERENCED != 0;
    Ok(SubvolumeUsage {
        referenced: read("referenced")?,
        exclusive: read("exclusive")?,
        limit: is_limited.then(|| read("max_referenced")).transpose()?,
    })
}

fn quota_groups(path: &Path, opened: &OwnedFd) -> Result<PathBuf, MountError> {
    Ok(sysfs_directory(path, opened)?.join("qgroups"))
}

fn sysfs_directory(path: &Path, opened: &OwnedFd) -> Result<PathBuf, MountError> {
    let id = ioctl::filesystem_id(opened)
        .map_err(|errno| MountError::call("read the btrfs filesystem id of", path, errno))?;
    Ok(Path::new(SYSFS).join(crate::filesystem::Identity(id).to_string()))
}

/// Writes everything to the disk and commits it: what was created, snapshotted or removed before stays so.
///
/// # Errors
/// When the disk fails, or `path` is not on btrfs.
pub fn sync(path: impl AsRef<Path>) -> Result<(), MountError> {
    let path = path.as_ref();
    ioctl::sync(&open_directory(path)?)
        .map_err(|errno| MountError::call("sync the filesystem of", path, errno))
}

/// Grows the filesystem mounted at `path` to fill its device.
pub(crate) fn grow(path: &Path) -> Result<(), MountError> {
    ioctl::grow(&open_directory(path)?)
        .map_err(|errno| MountError::call("grow the filesystem at", path, errno))
}

fn open_directory(path: &Path) -> Result<OwnedFd, MountError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| MountError::call("open", path, errno))
}

fn open_subvolume(path: &Path) -> Result<OwnedFd, MountError> {
    let opened = open_directory(path)?;
    let seen = rustix::fs::fstat(&opened).map_err(|errno| MountError::call("look at", path, errno))?;
    let filesystem =
        rustix::fs::fstatfs(&opened).map_err(|errno| MountError::call("look at", path, errno))?;
    if seen.st_ino != ROOT_INODE || u64::try_from(filesystem.f_type) != Ok(SUPER_MAGIC) {
        return Err(bad(path, "is not a btrfs subvolume"));
    }
    Ok(opened)
}

fn open_parent(path: &Path) -> Result<(OwnedFd, &[u8]), MountError> {
    let name = path
        .file_name()
        .map(OsStr::as_bytes)
        .ok_or_else(|| bad(path, "has no file name"))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((open_directory(parent)?, name))
}

fn bad(path: &Path, why: &'static str) -> MountError {
    MountError::BadPath {
        path: path.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_mode_is_read_from_sysfs_of_any_age() {
        let cases = [
            ("off, new kernel", "0\n", "disabled\n", true, QuotaMode::Off),
            ("off, no directory", "", "", false, QuotaMode::Off),
            ("simple", "1\n", "squota\n", true, QuotaMode::Simple),
            ("full, new kernel", "1\n", "qgroup\n", true, QuotaMode::Full),
            ("full, 6.1", "1\n", "", true, QuotaMode::Full),
            ("full, 5.10", "", "", true, QuotaMode::Full),
        ];
        for (name, enabled, mode, has_directory, expected) in cases {
            assert_eq!(mode_of(enabled, mode, has_directory), expected, "{name}");
        }
    }
}
