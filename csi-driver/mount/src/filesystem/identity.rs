//! The UUID of a filesystem, and a new one for a copy, so that the kernel takes it for another filesystem.
//!
//! A copy of a device that was not unmounted has a journal to replay, and the UUID can be changed only then. For xfs and
//! btrfs the kernel alone can replay it: the copy is mounted for a moment, where nobody can see it.

use std::{fmt, path::Path, time::Duration};

use super::{E2FSCK, FilesystemError, FsType, read_head, tool, words};
use crate::{
    MountError,
    loop_device::{self, AttachOptions},
    mount,
    mount_options::MountOptions,
    superblock,
    tool::Tool,
    usage,
};

const TUNE2FS: Tool = tool("tune2fs", "e2fsprogs", Duration::from_secs(900), 0);
const XFS_ADMIN: Tool = tool("xfs_admin", "xfsprogs", Duration::from_secs(900), 0);
const BTRFSTUNE: Tool = tool("btrfstune", "btrfs-progs", Duration::from_secs(900), 0);

/// A filesystem's UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 16]);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// The UUID of the filesystem on the device or in the file, if it is one of ours.
///
/// # Errors
/// When it can't be read.
pub fn identity(device: impl AsRef<Path>) -> Result<Option<Identity>, MountError> {
    Ok(superblock::identity(&read_head(device.as_ref())?).map(Identity))
}

/// Gives the unmounted filesystem on the device or in the file a new random UUID and leaves everything else as it is. A
/// journal is replayed first. Its origin may be mounted meanwhile. Can be repeated: then the UUID is another one.
///
/// # Errors
/// [`crate::tool::ToolError`] with what the tool printed; [`MountError::Refused`] when the journal can't be replayed.
pub fn new_identity(device: impl AsRef<Path>, fs_type: FsType) -> Result<(), FilesystemError> {
    let device = device.as_ref();
    match fs_type {
        FsType::Ext4 => new_ext4_identity(device),
        FsType::Xfs => {
            replay(device, fs_type, &["nouuid"])?;
            XFS_ADMIN.run(words(&["-U", "generate"], &[device.as_os_str()]))?;
            Ok(())
        }
        FsType::Btrfs => {
            if superblock::btrfs_has_log(&read_head(device)?) {
                replay(device, fs_type, &[])?;
            }
            // `-m` writes the superblocks alone; `-u` would write all metadata.
            BTRFSTUNE.run(words(&["-f", "-m", "--"], &[device.as_os_str()]))?;
            Ok(())
        }
    }
}

fn new_ext4_identity(device: &Path) -> Result<(), FilesystemError> {
    let device = [device.as_os_str()];
    let change = || TUNE2FS.run(words(&["-f", "-U", "random", "--"], &device));
    E2FSCK.run(words(&["-p", "--"], &device))?;
    // One made without a checksum seed has all checksums rewritten, and that only right after a full check.
    if change().is_err() {
        E2FSCK.run(words(&["-f", "-p", "--"], &device))?;
        change()?;
    }
    Ok(())
}

/// Mounts and unmounts, without ever appearing in the mount table.
fn replay(device: &Path, fs_type: FsType, options: &[&str]) -> Result<(), FilesystemError> {
    let options: Vec<_> = options.iter().map(|word| (*word).to_owned()).collect();
    let options = MountOptions::parse(&options)?;
    let replay = |device: &Path| {
        mount::new_filesystem(device.as_os_str(), device, fs_type.as_str(), &options).map(drop)
    };
    if usage::is_block_device(device)? {
        return Ok(replay(device)?);
    }
    let how = AttachOptions {
        autoclear: true,
        ..AttachOptions::default()
    };
    let attached = loop_device::attach(device, how)?;
    Ok(replay(attached.path())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_like_a_uuid() {
        let identity = Identity(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x00\x11\x22\x33\x44\x55\x66\x77");
        assert_eq!(identity.to_string(), "01234567-89ab-cdef-0011-223344556677");
    }
}
