//! Filesystems on a device or in a file: what is there, making one, checking it, growing it.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
    str::FromStr,
    time::Duration,
};

use thiserror::Error;

use crate::{
    MountError, btrfs, superblock,
    tool::{Tool, ToolError},
    usage,
};

mod identity;

pub use identity::{Identity, identity, new_identity};

const MKFS_EXT4: Tool = tool("mkfs.ext4", "e2fsprogs", Duration::from_secs(300), 0);
const MKFS_XFS: Tool = tool("mkfs.xfs", "xfsprogs", Duration::from_secs(300), 0);
const MKFS_BTRFS: Tool = tool("mkfs.btrfs", "btrfs-progs", Duration::from_secs(300), 0);
const BTRFS: Tool = tool("btrfs", "btrfs-progs", Duration::from_secs(3600), 0);
/// e2fsck answers 1 when it has corrected everything.
const E2FSCK: Tool = tool("e2fsck", "e2fsprogs", Duration::from_secs(3600), 1);
const XFS_REPAIR: Tool = tool("xfs_repair", "xfsprogs", Duration::from_secs(3600), 0);
const RESIZE2FS: Tool = tool("resize2fs", "e2fsprogs", Duration::from_secs(900), 0);
const XFS_GROWFS: Tool = tool("xfs_growfs", "xfsprogs", Duration::from_secs(900), 0);

const fn tool(program: &'static str, package: &'static str, deadline: Duration, exit_code_max: i32) -> Tool {
    Tool {
        program,
        package,
        deadline,
        exit_code_max,
    }
}

/// What went wrong with a filesystem.
#[derive(Debug, Error)]
pub enum FilesystemError {
    /// A tool failed or is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The device or file can't be read.
    #[error(transparent)]
    Device(#[from] MountError),
    /// A name that is none of [`FsType`].
    #[error("filesystem type {0:?} is not supported; use ext4, xfs or btrfs")]
    UnknownType(String),
    /// The kernel lets only privileged processes grow it while it is mounted.
    #[error(
        "{0} grows while mounted only for a process with CAP_SYS_RESOURCE; it will grow when it is next staged"
    )]
    NeedsCapability(FsType),
}

impl FilesystemError {
    /// Is there no room left below?
    pub fn is_no_space(&self) -> bool {
        match self {
            FilesystemError::Tool(error) => error.is_no_space(),
            FilesystemError::Device(error) => error.is_no_space(),
            FilesystemError::UnknownType(_) | FilesystemError::NeedsCapability(_) => false,
        }
    }
}

/// The filesystems that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsType {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs on a device of its own.
    Btrfs,
}

impl FsType {
    /// Its name for mount(2).
    pub fn as_str(self) -> &'static str {
        match self {
            FsType::Ext4 => "ext4",
            FsType::Xfs => "xfs",
            FsType::Btrfs => "btrfs",
        }
    }

    /// The smallest device that it can be made on with a sensible rest to use. (mkfs.xfs refuses less than 300 MiB,
    /// mkfs.btrfs less than 109 MiB, of which metadata takes most.)
    pub fn size_min_bytes(self) -> u64 {
        match self {
            FsType::Ext4 => 4 << 20,
            FsType::Xfs => 300 << 20,
            FsType::Btrfs => 256 << 20,
        }
    }

    /// Can [`grow_unmounted`] make it larger? If not, it grows after the mount.
    pub fn grows_unmounted(self) -> bool {
        self == FsType::Ext4
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FsType {
    type Err = FilesystemError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "ext4" => Ok(FsType::Ext4),
            "xfs" => Ok(FsType::Xfs),
            "btrfs" => Ok(FsType::Btrfs),
            _ => Err(FilesystemError::UnknownType(name.to_owned())),
        }
    }
}

/// What a device holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Only zeroes where a filesystem would begin.
    Blank,
    /// One of ours.
    Filesystem(FsType),
    /// Somebody's data.
    Foreign,
}

/// What is on the device or in the file, told by its first bytes.
///
/// # Errors
/// When it can't be read.
pub fn content(device: impl AsRef<Path>) -> Result<Content, MountError> {
    let head = read_head(device.as_ref())?;
    Ok(match superblock::filesystem(&head) {
        Some(fs_type) => Content::Filesystem(fs_type),
        None if superblock::is_blank(&head) => Content::Blank,
        None => Content::Foreign,
    })
}

/// The filesystem on the device or in the file, if it is one of ours.
///
/// # Errors
/// When it can't be read.
pub fn probe(device: impl AsRef<Path>) -> Result<Option<FsType>, MountError> {
    Ok(superblock::filesystem(&read_head(device.as_ref())?))
}

fn read_head(device: &Path) -> Result<Vec<u8>, MountError> {
    let mut head = Vec::with_capacity(superblock::HEAD_BYTES);
    let limit = u64::try_from(superblock::HEAD_BYTES).unwrap_or(u64::MAX);
    File::open(device)
        .and_then(|opened| opened.take(limit).read_to_end(&mut head))
        .map_err(|source: io::Error| MountError::call("read the first bytes of", device, source))?;
    Ok(head)
}

/// Makes a filesystem, over whatever is there. On a regular file no loop device is needed.
///
/// # Errors
/// [`ToolError`] with what mkfs printed.
pub fn make(device: impl AsRef<Path>, fs_type: FsType) -> Result<(), FilesystemError> {
    let device = device.as_ref().as_os_str();
    match fs_type {
        // No blocks for root only: the volume belongs to its user. `-F`: a regular file is what we mean.
        // The checksum seed makes a new UUID cheap: without it every checksum hangs on the UUID.
        FsType::Ext4 => {
            let options = ["-q", "-F", "-m", "0", "-O", "metadata_csum_seed", "--"];
            MKFS_EXT4.run(words(&options, &[device]))?
        }
        FsType::Xfs => MKFS_XFS.run(words(&["-q", "-f", "--"], &[device]))?,
        FsType::Btrfs => MKFS_BTRFS.run(words(&["-q", "-f", "--"], &[device]))?,
    };
    Ok(())
}

/// Should the filesystem be checked before it is mounted? When it has noted damage; ext4 also when it was not unmounted, as
/// its own tools do. xfs and btrfs have nothing to do then but replay their journal, which mounting does.
///
/// # Errors
/// When it can't be read.
pub fn needs_check(device: impl AsRef<Path>, fs_type: FsType) -> Result<bool, MountError> {
    match fs_type {
        FsType::Ext4 => {
            let head = read_head(device.as_ref())?;
            Ok(superblock::ext4_has_errors(&head) || superblock::ext4_is_unclean(&head))
        }
        FsType::Btrfs => Ok(superblock::btrfs_has_errors(&read_head(device.as_ref())?)),
        FsType::Xfs => Ok(false),
    }
}

/// Checks a filesystem that is not mounted, and repairs what can be repaired without losing anything.
///
/// # Errors
/// [`ToolError::Failed`] when somebody must decide what to give up.
pub fn check(device: impl AsRef<Path>, fs_type: FsType) -> Result<(), FilesystemError> {
    let device = device.as_ref().as_os_str();
    match fs_type {
        FsType::Ext4 => E2FSCK.run(words(&["-p", "--"], &[device]))?,
        FsType::Xfs => XFS_REPAIR.run(words(&["-n", "--"], &[device]))?,
        FsType::Btrfs => BTRFS.run(words(&["check", "--readonly", "--"], &[device]))?,
    };
    Ok(())
}

/// Bytes that the filesystem on an unmounted device spans, if it is one of ours.
///
/// # Errors
/// When it can't be read.
pub fn size_bytes(device: impl AsRef<Path>) -> Result<Option<u64>, MountError> {
    Ok(superblock::size_bytes(&read_head(device.as_ref())?))
}

/// A filesystem may be a little smaller than its device, because the rest is too small for another block group. From
/// here on it has not followed a device that has grown.
const UNUSED_BYTES_MAX: u64 = 4 << 20;

/// Does the filesystem span its device, give or take a rest that it can't use?
///
/// # Errors
/// When the device can't be read.
pub fn spans_device(device: impl AsRef<Path>) -> Result<bool, MountError> {
    let device = device.as_ref();
    let device_bytes = usage::block_size(device)?;
    let filesystem_bytes = size_bytes(device)?.unwrap_or(device_bytes);
    Ok(device_bytes.saturating_sub(filesystem_bytes) < UNUSED_BYTES_MAX)
}

/// May this process grow the filesystem while it is mounted?
pub fn can_grow_mounted(fs_type: FsType) -> bool {
    match fs_type {
        FsType::Ext4 => rustix::thread::capabilities(None).is_ok_and(|sets| {
            sets.effective
                .contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
        }),
        FsType::Xfs | FsType::Btrfs => true,
    }
}

/// Grows a mounted filesystem to fill its device. Nothing to grow is fine.
///
/// # Errors
/// [`ToolError`] with what the tool printed; [`FilesystemError::NeedsCapability`] before anything is tried.
pub fn grow(
    device: impl AsRef<Path>,
    mount_point: impl AsRef<Path>,
    fs_type: FsType,
) -> Result<(), FilesystemError> {
    if !can_grow_mounted(fs_type) {
        // Only ext4 asks for a capability, and its superblock on the device is current while it is mounted.
        if spans_device(&device)? {
            return Ok(());
        }
        return Err(FilesystemError::NeedsCapability(fs_type));
    }
    match fs_type {
        FsType::Ext4 => RESIZE2FS.run(words(&["--"], &[device.as_ref().as_os_str()]))?,
        FsType::Xfs => XFS_GROWFS.run(words(&["-d", "--"], &[mount_point.as_ref().as_os_str()]))?,
        FsType::Btrfs => {
            btrfs::grow(mount_point.as_ref())?;
            String::new()
        }
    };
    Ok(())
}

/// Grows a filesystem that is not mounted to fill its device, where that is possible: xfs and btrfs grow only
/// mounted.
///
/// # Errors
/// [`ToolError`] with what the tool printed.
pub fn grow_unmounted(device: impl AsRef<Path>, fs_type: FsType) -> Result<(), FilesystemError> {
    let device = device.as_ref().as_os_str();
    if fs_type.grows_unmounted() {
        // resize2fs insists on a fresh check, whatever the superblock says.
        E2FSCK.run(words(&["-f", "-p", "--"], &[device]))?;
        RESIZE2FS.run(words(&["--"], &[device]))?;
    }
    Ok(())
}

fn words<'a>(options: &[&'a str], operands: &[&'a OsStr]) -> Vec<&'a OsStr> {
    options
        .iter()
        .map(|word| OsStr::new(*word))
        .chain(operands.iter().copied())
        .collect()
}
