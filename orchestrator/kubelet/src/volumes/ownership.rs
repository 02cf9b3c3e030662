//! `fsGroup`: whether it applies to a volume (pure), and giving a tree to a group without following a symlink.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags};

use super::error::VolumeError;

const READ_WRITE_BITS: u32 = 0o660;
const READ_ONLY_BITS: u32 = 0o440;
const EXEC_BITS: u32 = 0o110;
const SET_GID: u32 = 0o2000;

/// How thorough to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangePolicy {
    Always,
    OnRootMismatch,
}

impl ChangePolicy {
    pub(crate) fn of(policy: Option<&str>) -> Self {
        if policy == Some("OnRootMismatch") {
            Self::OnRootMismatch
        } else {
            Self::Always
        }
    }
}

/// What decides whether the kubelet gives a CSI volume to the pod's group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// `fsGroupPolicy` of the CSIDriver; none without such an object.
    pub policy: Option<&'a str>,
    pub fs_type: &'a str,
    pub access_modes: &'a [String],
    pub is_inline: bool,
    pub is_read_only: bool,
    /// The driver does it itself.
    pub is_delegated: bool,
}

/// Whether the kubelet changes ownership.
pub(crate) fn applies(asked: Asked<'_>) -> bool {
    if asked.is_delegated || asked.is_read_only {
        return false;
    }
    match asked.policy {
        Some("File") => true,
        Some("None") => false,
        // ReadWriteOnceWithFSType, also without a CSIDriver object.
        _ => {
            let is_once = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
            !asked.fs_type.is_empty() && (asked.is_inline || asked.access_modes.iter().any(is_once))
        }
    }
}

/// Gives all below `root`, then `root` itself, to the group.
pub(crate) fn give_to_group(
    root: &Path,
    gid: u32,
    read_only: bool,
    policy: ChangePolicy,
) -> Result<(), VolumeError> {
    let directory =
        open_directory(rustix::fs::CWD, root).map_err(|errno| VolumeError::io("open", root)(errno.into()))?;
    let stat =
        rustix::fs::fstat(&directory).map_err(|errno| VolumeError::io("look at", root)(errno.into()))?;
    if policy == ChangePolicy::OnRootMismatch && has_group(stat.st_mode, stat.st_gid, gid, read_only) {
        return Ok(());
    }
    // The root comes last: a half-done run is then seen as a mismatch and done again.
    walk(&directory, gid, read_only)
        .map_err(|errno| VolumeError::io("change group below", root)(errno.into()))?;
    change_directory(&directory, stat.st_mode, gid, read_only)
        .map_err(|errno| VolumeError::io("change group of", root)(errno.into()))
}

fn wanted_bits(is_directory: bool, read_only: bool) -> u32 {
    let mask = if read_only {
        READ_ONLY_BITS
    } else {
        READ_WRITE_BITS
    };
    if is_directory {
        mask | EXEC_BITS | SET_GID
    } else {
        mask
    }
}

fn has_group(mode: u32, held: u32, wanted: u32, read_only: bool) -> bool {
    let bits = wanted_bits(true, read_only);
    held == wanted && mode & bits == bits
}

fn open_directory(at: impl AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        at,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

fn change_directory(directory: &OwnedFd, mode: u32, gid: u32, read_only: bool) -> rustix::io::Result<()> {
    rustix::fs::fchown(directory, None, Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(
        directory,
        Mode::from_raw_mode((mode & 0o7777) | wanted_bits(true, read_only)),
    )
}

fn walk(directory: &OwnedFd, gid: u32, read_only: bool) -> rustix::io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match change_entry(directory.as_fd(), name, gid, read_only) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            // One odd file must not keep the pod from starting.
            Err(errno) => {
                tracing::warn!(file = ?name, error = %errno, "Group of a file could not be changed")
            }
        }
    }
    Ok(())
}

fn change_entry(
    at: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    gid: u32,
    read_only: bool,
) -> rustix::io::Result<()> {
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let child = open_directory(at, name)?;
            walk(&child, gid, read_only)?;
            change_directory(&child, stat.st_mode, gid, read_only)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(at, name, flags, Mode::empty())?;
            rustix::fs::fchown(&file, None, Some(Gid::from_raw(gid)))?;
            rustix::fs::fchmod(
                &file,
                Mode::from_raw_mode((stat.st_mode & 0o7777) | wanted_bits(false, read_only)),
            )
        }
        // Opening these could block or do something: only the owner changes.
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => rustix::fs::chownat(
            at,
            name,
            None,
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::testing::is_root;

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn policy_decides_who_changes_ownership() {
        let rwo = ["ReadWriteOnce".to_owned()];
        let rwx = ["ReadWriteMany".to_owned()];
        let base = Asked {
            policy: None,
            fs_type: "ext4",
            access_modes: &rwo,
            is_inline: false,
            is_read_only: false,
            is_delegated: false,
        };
        let cases = [
            ("default, rwo, fs type", base, true),
            ("no fs type", Asked { fs_type: "", ..base }, false),
            (
                "rwx",
                Asked {
                    access_modes: &rwx,
                    ..base
                },
                false,
            ),
            (
                "rwx, policy File",
                Asked {
                    policy: Some("File"),
                    access_modes: &rwx,
                    ..base
                },
                true,
            ),
            (
                "no fs type, policy File",
                Asked {
                    policy: Some("File"),
                    fs_type: "",
                    ..base
                },
                true,
            ),
            (
                "policy None",
                Asked {
                    policy: Some("None"),
                    ..base
                },
                false,
            ),
            (
                "inline",
                Asked {
                    is_inline: true,
                    access_modes: &[],
                    ..base
                },
                true,
            ),
            (
                "read-only",
                Asked {
                    policy: Some("File"),
                    is_read_only: true,
                    ..base
                },
                false,
            ),
            (
                "driver does it",
                Asked {
                    policy: Some("File"),
                    is_delegated: true,
                    ..base
                },
                false,
            ),
        ];
        for (name, asked, want) in cases {
            assert_eq!(applies(asked), want, "{name}");
        }
    }

    #[test]
    fn tree_is_given_without_following_symlinks() {
        if !is_root("tree_is_given_without_following_symlinks") {
            return;
        }
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let volume = tempfile::tempdir().unwrap();
        std::fs::create_dir(volume.path().join("sub")).unwrap();
        std::fs::write(volume.path().join("sub/file"), "x").unwrap();
        std::os::unix::fs::symlink(&secret, volume.path().join("link")).unwrap();
        give_to_group(volume.path(), 4321, false, ChangePolicy::Always).unwrap();
        let facts = |path: &Path| {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(facts(&secret), (0, 0o600));
        assert_eq!(facts(&volume.path().join("link")).0, 4321);
        assert_eq!(facts(&volume.path().join("sub/file")), (4321, 0o664));
        assert_eq!(facts(&volume.path().join("sub")), (4321, 0o2775));
        std::fs::write(volume.path().join("late"), "x").unwrap();
        give_to_group(volume.path(), 4321, false, ChangePolicy::OnRootMismatch).unwrap();
        let late = std::fs::metadata(volume.path().join("late")).unwrap().mode() & 0o777;
        assert_eq!(late, 0o644, "the root matched, so nothing was walked");
    }
}
