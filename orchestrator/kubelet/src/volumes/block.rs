//! The files around a published block device: the symlink for containers and a second reference to the device.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::error::VolumeError;
use super::local::remove_empty_parent;
use super::spec::MountId;
use super::vol_data::{self, entries, make_directory, remove_directory, remove_file};
use crate::paths::Layout;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(moorline_mount::MountError) -> VolumeError {
    let path = path.to_owned();
    move |error| VolumeError::Mount {
        action,
        path,
        reason: error.to_string(),
    }
}

/// After publish: a reference that stays should the driver exchange its own, and the pod's symlink.
pub(crate) fn link(layout: &Layout, id: &MountId) -> Result<(), VolumeError> {
    let target = layout.block_publish_target(&id.pod_uid, &id.spec_name);
    let reference = layout.block_reference(&id.pod_uid, &id.spec_name);
    if let Some(parent) = reference.parent() {
        make_directory(parent)?;
    }
    if !reference.exists() {
        std::fs::File::create_new(&reference).map_err(VolumeError::io("create", &reference))?;
    }
    if !moorline_mount::mount::is_mount_point(&reference).map_err(failed("look at", &reference))? {
        moorline_mount::mount::bind(&target, &reference, false)
            .map_err(failed("bind device to", &reference))?;
    }
    let device = layout.pod_device(&id.pod_uid, &id.spec_name);
    if let Some(parent) = device.parent() {
        make_directory(parent)?;
    }
    if std::fs::read_link(&device).is_ok_and(|held| held == target) {
        return Ok(());
    }
    remove_file(&device)?;
    symlink(&target, &device).map_err(VolumeError::io("make symlink", &device))
}

/// Before unpublish: nothing of ours may hold the device.
pub(crate) fn unlink(layout: &Layout, id: &MountId) -> Result<(), VolumeError> {
    let device = layout.pod_device(&id.pod_uid, &id.spec_name);
    remove_file(&device)?;
    remove_empty_parent(&device);
    let reference = layout.block_reference(&id.pod_uid, &id.spec_name);
    while moorline_mount::mount::is_mount_point(&reference).map_err(failed("look at", &reference))? {
        moorline_mount::mount::unmount(&reference).map_err(failed("unmount", &reference))?;
    }
    remove_file(&reference)
}

/// After unpublish.
pub(crate) fn remove_target(layout: &Layout, id: &MountId) -> Result<(), VolumeError> {
    let target = layout.block_publish_target(&id.pod_uid, &id.spec_name);
    if moorline_mount::mount::is_mount_point(&target).map_err(failed("look at", &target))? {
        return Err(VolumeError::Mount {
            action: "remove",
            path: target,
            reason: "the driver answered success but it is still mounted".into(),
        });
    }
    remove_file(&target)?;
    remove_empty_parent(&target);
    Ok(())
}

/// Removes what is kept per block volume once no pod has it.
pub(crate) fn remove_if_unused(layout: &Layout, spec_name: &str) -> Result<(), VolumeError> {
    let volume = layout.block_volume(spec_name);
    if !entries(&volume.join("dev"))?.is_empty() {
        return Ok(());
    }
    let data = layout.block_data(spec_name);
    vol_data::remove(&data)?;
    for directory in [
        data,
        volume.join("dev"),
        layout.block_staging_target(spec_name),
        volume,
    ] {
        remove_directory(&directory)?;
    }
    Ok(())
}
