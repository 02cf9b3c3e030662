//! What can be changed about a loop device while it is in use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{LoopDevice, SYS_BLOCK, ioctl};
use crate::MountError;

/// Bypasses the page cache of the backing file, or uses it again. Takes effect with the next request.
///
/// # Errors
/// `EINVAL` when the filesystem of the backing file can't, or wants larger blocks than the device has.
pub fn set_direct_io(device: &LoopDevice, on: bool) -> Result<(), MountError> {
    ioctl::set_direct_io(&device.file, on)
        .map_err(|source| device.error("set whether to bypass the page cache of", source))
}

/// Can files in this directory be read and written without the page cache? Tried on the directory's own filesystem.
///
/// # Errors
/// When the directory can't be written to.
pub fn can_bypass_cache(directory: impl AsRef<Path>) -> Result<bool, MountError> {
    let directory = directory.as_ref();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Ok(true),
        // Neither without the cache nor without a name.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(MountError::call(
            "open a file without page cache in",
            directory,
            errno,
        )),
    }
}

/// Does it bypass the page cache of the backing file?
///
/// # Errors
/// When it has been detached meanwhile.
pub fn is_direct_io(device: &LoopDevice) -> Result<bool, MountError> {
    let info = ioctl::status(&device.file).map_err(|source| device.error("read the status of", source))?;
    Ok(info.lo_flags & ioctl::FLAG_DIRECT_IO != 0)
}

/// Do discards punch holes into the backing file? There is no call to turn them off: Linux (6.18 seen) keeps a device
/// off for all its later files and can't turn it on again. Whether a filesystem sends discards is its mount option.
///
/// # Errors
/// When sysfs is not there.
pub fn has_discard(device: &LoopDevice) -> Result<bool, MountError> {
    Ok(read_number(queue(device, "discard_max_bytes"))? > 0)
}

/// Tells the device that its file has grown.
///
/// # Errors
/// When it is not attached.
pub fn set_capacity(device: &LoopDevice) -> Result<(), MountError> {
    ioctl::set_capacity(&device.file).map_err(|source| device.error("refresh the size of", source))
}

fn queue(device: &LoopDevice, attribute: &str) -> PathBuf {
    let name = device.path.file_name().unwrap_or_default();
    [SYS_BLOCK.as_ref(), name, "queue".as_ref(), attribute.as_ref()]
        .iter()
        .collect()
}

fn read_number(attribute: PathBuf) -> Result<u64, MountError> {
    let text =
        fs::read_to_string(&attribute).map_err(|source| MountError::call("read", &attribute, source))?;
    text.trim().parse().map_err(|_| MountError::BadPath {
        path: attribute,
        why: "holds no number",
    })
}
