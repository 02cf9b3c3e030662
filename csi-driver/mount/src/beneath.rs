//! Making, mounting on and removing paths that somebody else named, without being led astray by symlinks.
//!
//! A path from a request is taken apart below a directory that was opened once and is trusted. The kernel resolves the
//! rest beneath it, following no symlink (openat2), and everything after that is done relative to the opened parent:
//! whoever swaps a component in between gets an error, not a mount in a place of his choice.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags},
};

use crate::{
    MountError,
    mount::{BindOptions, DetachedMount, clone_tree_at, has_nul, unmount_patiently},
};

/// A directory below which paths are resolved without symlinks.
#[derive(Debug)]
pub struct TrustedDir {
    path: PathBuf,
    fd: OwnedFd,
}

/// A path below a [`TrustedDir`]: its parent is opened, its last element may or may not exist.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    parent: OwnedFd,
    name: OsString,
}

/// What is found at a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Directory, file, block device ...
    pub file_type: FileType,
    /// Is something mounted here?
    pub is_mount_point: bool,
    /// Major and minor number of the filesystem the object is on.
    pub device: (u32, u32),
    /// Its inode.
    pub inode: u64,
    /// Major and minor number of the device it stands for, if it is a device node.
    pub represents: (u32, u32),
}

impl TrustedDir {
    /// Opens `path`, following symlinks: this one is the administrator's choice.
    ///
    /// # Errors
    /// When it is not there or no directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MountError> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| MountError::call("open the directory", path, errno))?;
        Ok(TrustedDir {
            path: path.to_owned(),
            fd,
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the parent of `path`.
    ///
    /// # Errors
    /// [`MountError::BadPath`] when `path` is relative, has `..`, or is not below the trusted directory; `is_not_found`
    /// when the parent does not exist; `ELOOP` when a component is a symlink.
    pub fn target(&self, path: impl AsRef<Path>) -> Result<Target, MountError> {
        let path = path.as_ref();
        let below = self.below(path)?;
        let name = below
            .file_name()
            .ok_or_else(|| bad(path, "is the trusted directory itself"))?;
        let parent = match below.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&self.fd, parent, flags, Mode::empty(), resolve)
            .map_err(|errno| MountError::call("open the parent of", path, errno))?;
        Ok(Target {
            path: path.to_owned(),
            parent: opened,
            name: name.to_owned(),
        })
    }

    fn below<'a>(&self, path: &'a Path) -> Result<&'a Path, MountError> {
        if !path.is_absolute() {
            return Err(bad(path, "is not absolute"));
        }
        if has_nul(path) {
            return Err(bad(path, "has a nul byte"));
        }
        if path
            .components()
            .any(|component| component == Component::ParentDir)
        {
            return Err(bad(path, "has a .. in it"));
        }
        path.strip_prefix(&self.path)
            .map_err(|_| bad(path, "is not below the directory that this driver may use"))
    }
}

fn bad(path: &Path, why: &'static str) -> MountError {
    MountError::BadPath {
        path: path.to_owned(),
        why,
    }
}

impl Target {
    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to the same object that goes through the opened parent. Valid as long as `self` lives, in this process.
    pub fn pinned_path(&self) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        path.push(&self.name);
        path
    }

    /// What is there, if anything. A symlink is seen as itself.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub fn look(&self) -> Result<Option<Seen>, MountError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statx(&self.parent, &self.name, flags, StatxFlags::BASIC_STATS) {
            Ok(seen) => Ok(Some(Seen {
                file_type: FileType::from_raw_mode(seen.stx_mode.into()),
                is_mount_point: seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
                device: (seen.stx_dev_major, seen.stx_dev_minor),
                inode: seen.stx_ino,
                represents: (seen.stx_rdev_major, seen.stx_rdev_minor),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(MountError::call("look at", &self.path, errno)),
        }
    }

    /// Makes sure that a directory is there.
    ///
    /// # Errors
    /// When something else is.
    pub fn ensure_directory(&self, mode: u32) -> Result<(), MountError> {
        match rustix::fs::mkdirat(&self.parent, &self.name, Mode::from_raw_mode(mode)) {
            Err(Errno::EXIST) => self.expect(FileType::Directory, "exists but is not a directory"),
            other => other.map_err(|errno| MountError::call("make the directory", &self.path, errno)),
        }
    }

    /// Makes sure that a file is there: an empty one to mount on, or whatever is mounted there already.
    ///
    /// # Errors
    /// When a directory or a symlink is there.
    pub fn ensure_file(&self, mode: u32) -> Result<(), MountError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.parent, &self.name, flags, Mode::from_raw_mode(mode)) {
            Ok(_) => Ok(()),
            Err(Errno::EXIST) => match self.look()? {
                Some(seen)
                    if seen.file_type == FileType::Directory || seen.file_type == FileType::Symlink =>
                {
                    Err(bad(&self.path, "exists but is not a file"))
                }
                _ => Ok(()),
            },
            Err(errno) => Err(MountError::call("make the file", &self.path, errno)),
        }
    }

    fn expect(&self, wanted: FileType, why: &'static str) -> Result<(), MountError> {
        match self.look()? {
            Some(seen) if seen.file_type == wanted => Ok(()),
            _ => Err(bad(&self.path, why)),
        }
    }

    /// Makes a mount appear here.
    ///
    /// # Errors
    /// When nothing is here to mount on, or it is of the wrong type or a symlink.
    pub fn attach(&self, mount: DetachedMount) -> Result<(), MountError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&mount.tree, OsStr::new(""), &self.parent, &self.name, flags)
            .map_err(|errno| MountError::call("attach a mount at", &self.path, errno))
    }

    /// A detached copy of what is mounted here, or of the directory if nothing is.
    ///
    /// # Errors
    /// When nothing is here, or it is a symlink.
    pub fn clone_tree(&self, options: BindOptions) -> Result<DetachedMount, MountError> {
        clone_tree_at(
            &self.parent,
            &self.name,
            &self.path,
            OpenTreeFlags::AT_SYMLINK_NOFOLLOW,
            options,
        )
    }

    /// Takes away all mounts that are stacked here; returns how many there were.
    ///
    /// # Errors
    /// `is_busy` when one is in use.
    pub fn unmount_all(&self) -> Result<usize, MountError> {
        let mut count = 0;
        while self.look()?.is_some_and(|seen| seen.is_mount_point) {
            unmount_patiently(&self.pinned_path())
                .map_err(|errno| MountError::call("unmount", &self.path, errno))?;
            count += 1;
        }
        Ok(count)
    }

    /// Removes an empty directory, or a file. Never descends: data below is an error, not a loss. Nothing there is fine.
    ///
    /// # Errors
    /// When a directory is not empty, or something is mounted here.
    pub fn remove(&self) -> Result<(), MountError> {
        let flags = match self.look()? {
            None => return Ok(()),
            Some(seen) if seen.file_type == FileType::Directory => AtFlags::REMOVEDIR,
            Some(_) => AtFlags::empty(),
        };
        match rustix::fs::unlinkat(&self.parent, &self.name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(MountError::call("remove", &self.path, errno)),
        }
    }
}
