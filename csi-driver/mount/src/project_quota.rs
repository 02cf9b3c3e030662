//! Limits for directories by project quotas, on ext4 and xfs that are mounted with `prjquota`.
//!
//! A directory is given a project id that everything made below it inherits; the filesystem counts and limits by that
//! id. The kernel lets a process with CAP_SYS_RESOURCE write past the limit on ext4.

use std::{
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
};

use nix::libc;
use rustix::{
    io::Errno,
    ioctl::{Opcode, Setter, Updater, ioctl, opcode},
};

use crate::{MountError, error::path_of};

const EXT_MAGIC: u64 = 0xef53;
const XFS_MAGIC: u64 = 0x5846_5342;
/// quotactl(2) counts space in these.
const QUOTA_BLOCK_BYTES: u64 = 1024;

/// Can directories be limited here?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// Yes.
    Supported,
    /// The filesystem could, but it is not mounted or made so.
    NotMounted {
        /// What to do about it.
        hint: &'static str,
    },
    /// The filesystem or the kernel can't.
    NotSupported,
    /// The kernel tells and lets only those do it who have CAP_SYS_ADMIN.
    NotPermitted,
}

/// What a project uses and may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProjectUsage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files, directories and the like.
    pub inodes: u64,
    /// How many bytes it may have, if limited.
    pub limit: Option<u64>,
}

/// Can directories below `dir` be limited?
///
/// # Errors
/// When `dir` can't be opened.
pub fn support(dir: impl AsRef<Path>) -> Result<Support, MountError> {
    let path = dir.as_ref();
    let opened = std::fs::File::open(path).map_err(|source| MountError::call("open", path, source))?;
    let seen = rustix::fs::fstatfs(&opened)
        .map_err(|errno| MountError::call("read the filesystem type of", path, errno))?;
    let magic = u64::try_from(seen.f_type).unwrap_or(0);
    let mut limits = Limits::EMPTY;
    let asked = control(&opened, GET, 0, &mut limits);
    support_of(magic, asked).map_err(|errno| MountError::call("ask for project quotas of", path, errno))
}

fn support_of(magic: u64, asked: Result<(), Errno>) -> Result<Support, Errno> {
    match (magic, asked) {
        (EXT_MAGIC | XFS_MAGIC, Ok(())) => Ok(Support::Supported),
        // No quota for this project yet, but quotas are on: xfs says so, ext4 never does.
        (XFS_MAGIC, Err(Errno::NOENT)) => Ok(Support::Supported),
        (EXT_MAGIC, Err(Errno::SRCH)) => Ok(Support::NotMounted {
            hint: "unmount it, run tune2fs -O quota,project -Q prjquota on its device, and mount it with -o prjquota",
        }),
        (XFS_MAGIC, Err(Errno::SRCH)) => Ok(Support::NotMounted {
            hint: "unmount it and mount it with -o prjquota",
        }),
        (EXT_MAGIC | XFS_MAGIC, Err(Errno::PERM)) => Ok(Support::NotPermitted),
        (EXT_MAGIC | XFS_MAGIC, Err(errno)) if errno != Errno::NOSYS && errno != Errno::OPNOTSUPP => {
            Err(errno)
        }
        _ => Ok(Support::NotSupported),
    }
}

/// Gives an opened directory, empty as yet, a project id that all below it inherits.
///
/// # Errors
/// `is_unsupported` when the filesystem has no project ids (ext4: made without `-O project`).
pub fn assign(dir: impl AsFd, project_id: u32) -> Result<(), MountError> {
    let failed = |errno| MountError::call("set the project of", path_of(&dir), errno);
    let mut attributes = attributes(&dir).map_err(failed)?;
    attributes.project_id = project_id;
    attributes.flags |= INHERIT;
    set_attributes(&dir, attributes).map_err(failed)
}

/// The project id of an opened file or directory; 0 is nobody's.
///
/// # Errors
/// `is_unsupported` where the filesystem has no project ids.
pub fn project_of(file: impl AsFd) -> Result<u32, MountError> {
    attributes(&file)
        .map(|attributes| attributes.project_id)
        .map_err(|errno| MountError::call("read the project of", path_of(&file), errno))
}

/// Limits the space of a project on the filesystem that `dir` is on; `None` takes the limit away. Rounded down to KiB.
///
/// # Errors
/// `ESRCH` when quotas are not on, see [`support`].
pub fn set_limit(dir: impl AsFd, project_id: u32, bytes: Option<u64>) -> Result<(), MountError> {
    let mut limits = Limits::EMPTY;
    limits.space_hard = bytes.map_or(0, |bytes| (bytes / QUOTA_BLOCK_BYTES).max(1));
    limits.valid = VALID_SPACE_LIMITS;
    control(&dir, SET, project_id, &mut limits)
        .map_err(|errno| MountError::call("set the limit of a project on", path_of(&dir), errno))
}

/// What a project uses and may use on the filesystem that `dir` is on.
///
/// # Errors
/// `ESRCH` when quotas are not on, see [`support`].
pub fn usage(dir: impl AsFd, project_id: u32) -> Result<ProjectUsage, MountError> {
    let mut limits = Limits::EMPTY;
    match control(&dir, GET, project_id, &mut limits) {
        // xfs knows nothing of a project that has nothing.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => {
            return Err(MountError::call(
                "read the usage of a project on",
                path_of(&dir),
                errno,
            ));
        }
    }
    Ok(ProjectUsage {
        bytes: limits.space,
        inodes: limits.inodes,
        limit: (limits.space_hard > 0).then(|| limits.space_hard.saturating_mul(QUOTA_BLOCK_BYTES)),
    })
}

/// The kernel's `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project_id: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// The kernel's `struct if_dqblk`; space limits are in KiB, the space in bytes.
#[repr(C)]
struct Limits {
    space_hard: u64,
    space_soft: u64,
    space: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    space_time: u64,
    inodes_time: u64,
    valid: u32,
}

// The layouts are the kernel's interface: a slip here would corrupt memory.
const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<Limits>() == 72);
const _: () = assert!(std::mem::offset_of!(Limits, valid) == 64);

impl Limits {
    const EMPTY: Self = Limits {
        space_hard: 0,
        space_soft: 0,
        space: 0,
        inodes_hard: 0,
        inodes_soft: 0,
        inodes: 0,
        space_time: 0,
        inodes_time: 0,
        valid: 0,
    };
}

/// New files get the project of their directory.
const INHERIT: u32 = 0x200;
const FS_IOC_FSGETXATTR: Opcode = opcode::read::<Attributes>(b'X', 31);
const FS_IOC_FSSETXATTR: Opcode = opcode::write::<Attributes>(b'X', 32);
const GET: u32 = 0x0080_0007;
const SET: u32 = 0x0080_0008;
const VALID_SPACE_LIMITS: u32 = 1;

#[expect(unsafe_code, reason = "neither rustix nor nix wraps FS_IOC_FSGETXATTR")]
fn attributes(file: &impl AsFd) -> Result<Attributes, Errno> {
    let mut seen = Attributes {
        flags: 0,
        extent_size: 0,
        extents: 0,
        project_id: 0,
        cow_extent_size: 0,
        padding: [0; 8],
    };
    // SAFETY: the opcode is FS_IOC_FSGETXATTR, which fills a `struct fsxattr`; the layout is asserted above, any bytes
    // are valid.
    unsafe { ioctl(file, Updater::<FS_IOC_FSGETXATTR, Attributes>::new(&mut seen)) }?;
    Ok(seen)
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps FS_IOC_FSSETXATTR")]
fn set_attributes(file: &impl AsFd, wanted: Attributes) -> Result<(), Errno> {
    // SAFETY: the opcode is FS_IOC_FSSETXATTR, which reads a `struct fsxattr`; the layout is asserted above.
    unsafe { ioctl(file, Setter::<FS_IOC_FSSETXATTR, Attributes>::new(wanted)) }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps quotactl_fd(2)")]
fn control(file: &impl AsFd, command: u32, project_id: u32, limits: &mut Limits) -> Result<(), Errno> {
    const PROJECT: u32 = 2;
    // SAFETY: the descriptor is borrowed for the whole call; both commands read or fill a `struct if_dqblk`, whose
    // layout is asserted above and of which any bytes are valid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_fd().as_raw_fd(),
            (command << 8) | PROJECT,
            project_id,
            std::ptr::from_mut(limits),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn support_is_told_by_filesystem_and_answer() {
        let ext4_off = support_of(EXT_MAGIC, Err(Errno::SRCH)).unwrap();
        assert!(matches!(ext4_off, Support::NotMounted { hint } if hint.contains("tune2fs")));
        let xfs_off = support_of(XFS_MAGIC, Err(Errno::SRCH)).unwrap();
        assert!(matches!(xfs_off, Support::NotMounted { hint } if hint.contains("-o prjquota")));
        let cases = [
            ("ext4, on", EXT_MAGIC, Ok(()), Ok(Support::Supported)),
            (
                "xfs, on, new project",
                XFS_MAGIC,
                Err(Errno::NOENT),
                Ok(Support::Supported),
            ),
            (
                "xfs without quotas built in",
                XFS_MAGIC,
                Err(Errno::NOSYS),
                Ok(Support::NotSupported),
            ),
            (
                "tmpfs",
                0x0102_1994,
                Err(Errno::NOTBLK),
                Ok(Support::NotSupported),
            ),
            (
                "may not ask",
                EXT_MAGIC,
                Err(Errno::PERM),
                Ok(Support::NotPermitted),
            ),
            ("broken", XFS_MAGIC, Err(Errno::IO), Err(Errno::IO)),
        ];
        for (name, magic, asked, expected) in cases {
            assert_eq!(support_of(magic, asked), expected, "{name}");
        }
    }
}
