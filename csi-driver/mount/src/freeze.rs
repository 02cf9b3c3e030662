//! Holding a mounted filesystem still (FIFREEZE) while its device is copied.
//!
//! The freeze belongs to the filesystem, not to the process: one that is killed meanwhile leaves everybody who writes
//! hanging. So the caller first writes down durably what it is going to freeze, and at its next start calls
//! [`thaw_leftover`] for what it finds written down.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
    ioctl::{IntegerSetter, ioctl, opcode},
};

use crate::MountError;

const FREEZE: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'X', 119);
const THAW: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'X', 120);

/// A filesystem that stands still as long as this value lives. What was written before is on its device, whole.
#[derive(Debug)]
#[must_use = "dropping it thaws the filesystem at once"]
pub struct Frozen {
    path: PathBuf,
    /// `None` once thawed.
    mount_point: Option<OwnedFd>,
}

impl Frozen {
    /// Writes everything to the device and lets nobody write until [`Frozen::thaw`] or the drop. May wait for writers.
    ///
    /// # Errors
    /// [`MountError::BadPath`] when `mount_point` is none: else the filesystem around it would stand still, perhaps the
    /// machine's own. `is_busy` when it is frozen already. `is_unsupported` where the filesystem can't.
    pub fn freeze(mount_point: impl AsRef<Path>) -> Result<Self, MountError> {
        let path = mount_point.as_ref();
        let opened = open_mount_point(path)?;
        request::<FREEZE>(&opened).map_err(|errno| MountError::call("freeze", path, errno))?;
        Ok(Frozen {
            path: path.to_owned(),
            mount_point: Some(opened),
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets everybody write again.
    ///
    /// # Errors
    /// When the kernel refuses; that somebody else has thawed it already is fine, but the copy may be torn then:
    /// the answer is false.
    pub fn thaw(mut self) -> Result<bool, MountError> {
        match self.mount_point.take() {
            Some(opened) => thaw(&opened, &self.path),
            None => Ok(false),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some(opened) = self.mount_point.take() else {
            return;
        };
        if let Err(error) = thaw(&opened, &self.path) {
            tracing::error!(path = %self.path.display(), %error, "A frozen filesystem could not be thawed");
        }
    }
}

/// Thaws what a killed process has left frozen; false when it was not frozen.
///
/// # Errors
/// [`MountError::BadPath`] when `mount_point` is none; `is_not_found` when it is not there.
pub fn thaw_leftover(mount_point: impl AsRef<Path>) -> Result<bool, MountError> {
    let path = mount_point.as_ref();
    thaw(&open_mount_point(path)?, path)
}

fn open_mount_point(path: &Path) -> Result<OwnedFd, MountError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| MountError::call("open the mount point", path, errno))?;
    let seen = rustix::fs::statx(&opened, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
        .map_err(|errno| MountError::call("look at", path, errno))?;
    if !seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(MountError::BadPath {
            path: path.to_owned(),
            why: "is not a mount point",
        });
    }
    Ok(opened)
}

fn thaw(mount_point: &OwnedFd, path: &Path) -> Result<bool, MountError> {
    match request::<THAW>(mount_point) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(errno) => Err(MountError::call("thaw", path, errno)),
    }
}

#[expect(unsafe_code, reason = "neither rustix nor nix wraps FIFREEZE and FITHAW")]
fn request<const OPCODE: rustix::ioctl::Opcode>(mount_point: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: both requests ignore their argument and write no memory.
    unsafe { ioctl(mount_point, IntegerSetter::<OPCODE>::new_usize(0)) }
}
