//! Which loop devices stand for a volume's file, and where they are mounted. Asked of the kernel each time.

use std::path::PathBuf;

use moorline_mount::{
    beneath::Target,
    btrfs,
    loop_device::{self, AttachOptions, LoopDevice},
    mountinfo::{self, MountEntry},
};

use crate::{
    backend::{BackendError, Files},
    record::Content,
};

/// The file that holds the volume.
const IMAGE: &str = "image";

pub(super) fn image(files: Files<'_>) -> PathBuf {
    files.directory.join(IMAGE)
}

pub(super) fn devices(files: Files<'_>) -> Result<Vec<LoopDevice>, BackendError> {
    let image = image(files);
    if !image.exists() {
        return Ok(Vec::new());
    }
    Ok(loop_device::find_all_by_backing_file(image)?)
}

pub(super) fn device(files: Files<'_>, is_read_only: bool) -> Result<Option<LoopDevice>, BackendError> {
    for device in devices(files)? {
        if device.is_read_only()? == is_read_only {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

pub(super) fn ensure_device(files: Files<'_>, options: AttachOptions) -> Result<LoopDevice, BackendError> {
    match device(files, options.read_only)? {
        Some(device) => Ok(device),
        None => Ok(loop_device::attach(image(files), options)?),
    }
}

/// The volume's device with this number, if there is one: no search among all devices.
pub(super) fn device_of_number(
    files: Files<'_>,
    number: (u32, u32),
) -> Result<Option<LoopDevice>, BackendError> {
    let image = image(files);
    match loop_device::open_number(number)? {
        Some(device) if image.exists() && device.stands_for(&image)? => Ok(Some(device)),
        _ => Ok(None),
    }
}

/// The volume's device whose filesystem is mounted at this path.
pub(super) fn mounted_at(files: Files<'_>, path: &Target) -> Result<Option<LoopDevice>, BackendError> {
    match path.look()? {
        Some(seen) if seen.is_mount_point && files.content == Content::Btrfs => btrfs_at(files, path),
        Some(seen) if seen.is_mount_point => device_of_number(files, seen.device),
        _ => Ok(None),
    }
}

/// Files of btrfs do not tell the number of their device: the filesystem is asked.
fn btrfs_at(files: Files<'_>, path: &Target) -> Result<Option<LoopDevice>, BackendError> {
    let path = path.pinned_path();
    if !btrfs::is_btrfs(&path)? {
        return Ok(None);
    }
    match btrfs::devices(&path)?.as_slice() {
        [number] => device_of_number(files, *number),
        _ => Ok(None),
    }
}

/// The volume's device whose node is mounted at this path.
pub(super) fn node_at(files: Files<'_>, path: &Target) -> Result<Option<LoopDevice>, BackendError> {
    match path.look()? {
        Some(seen) if seen.is_mount_point && seen.file_type.is_block_device() => {
            device_of_number(files, seen.represents)
        }
        _ => Ok(None),
    }
}

pub(super) fn filesystem_mounts(files: Files<'_>) -> Result<Vec<MountEntry>, BackendError> {
    filesystem_mounts_of(&devices(files)?, &mountinfo::current()?)
}

/// Those of a table's mounts that show what is on the devices.
pub(super) fn filesystem_mounts_of(
    devices: &[LoopDevice],
    entries: &[MountEntry],
) -> Result<Vec<MountEntry>, BackendError> {
    let numbers = devices
        .iter()
        .map(LoopDevice::number)
        .collect::<Result<Vec<_>, _>>()?;
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    // btrfs has a number of its own in the mount table, too, but names its device.
    let is_of_btrfs = |entry: &MountEntry| {
        let is_source = |device: &LoopDevice| device.path().as_os_str() == entry.source;
        entry.fs_type == "btrfs" && devices.iter().any(is_source)
    };
    Ok(entries
        .iter()
        .filter(|entry| numbers.contains(&entry.device) || is_of_btrfs(entry))
        .cloned()
        .collect())
}

/// Mounts of the nodes of these devices.
pub(super) fn node_mounts(devices: &[LoopDevice]) -> Result<Vec<MountEntry>, BackendError> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let is_node_of = |entry: &MountEntry, device: &LoopDevice| {
        entry.fs_type == "devtmpfs" && entry.root.file_name() == device.path().file_name()
    };
    let entries = mountinfo::current()?;
    let mounts = entries
        .iter()
        .filter(|entry| devices.iter().any(|device| is_node_of(entry, device)));
    Ok(mounts.cloned().collect())
}

pub(super) fn detach(device: LoopDevice) -> Result<(), BackendError> {
    let path = device.path().to_owned();
    drop(device); // Our own descriptor would count as a user.
    loop_device::detach(&path)?;
    Ok(())
}
