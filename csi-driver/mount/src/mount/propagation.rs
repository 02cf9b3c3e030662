//! How mounts and unmounts travel from one copy of a mount to the others.

use std::path::Path;

use rustix::mount::MountPropagationFlags;

use super::{BindOptions, bind_with, is_mount_point};
use crate::MountError;

/// How mounts and unmounts below a mount travel to its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Both ways.
    Shared,
    /// From the master to here only.
    Slave,
    /// Not at all.
    Private,
}

/// Makes mounts and unmounts below the mount at `target` visible in its copies and the other way round.
///
/// # Errors
/// When `target` is no mount point.
pub fn make_shared(target: impl AsRef<Path>) -> Result<(), MountError> {
    set_propagation(target, Propagation::Shared, false)
}

/// Cuts the mount at `target` off from its copies.
///
/// # Errors
/// When `target` is no mount point.
pub fn make_private(target: impl AsRef<Path>) -> Result<(), MountError> {
    set_propagation(target, Propagation::Private, false)
}

/// Lets the mount at `target` receive what happens in its peers, but not send.
///
/// # Errors
/// When `target` is no mount point.
pub fn make_slave(target: impl AsRef<Path>) -> Result<(), MountError> {
    set_propagation(target, Propagation::Slave, false)
}

/// Sets how mounts travel, for the mount at `target` and, when `recursive`, for all below it.
///
/// # Errors
/// When `target` is no mount point.
pub fn set_propagation(
    target: impl AsRef<Path>,
    propagation: Propagation,
    recursive: bool,
) -> Result<(), MountError> {
    let target = target.as_ref();
    let mut flags = match propagation {
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Private => MountPropagationFlags::PRIVATE,
    };
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    rustix::mount::mount_change(target, flags)
        .map_err(|errno| MountError::call("set the propagation of", target, errno))
}

/// Makes `directory` a mount point of itself with the given propagation, unless it is one already: what a process
/// does to a directory below which it wants mounts to travel.
///
/// # Errors
/// When the caller may not mount.
pub fn ensure_mount_point(directory: impl AsRef<Path>, propagation: Propagation) -> Result<(), MountError> {
    let directory = directory.as_ref();
    if !is_mount_point(directory)? {
        let options = BindOptions {
            recursive: true,
            ..BindOptions::default()
        };
        bind_with(directory, directory, options)?;
    }
    set_propagation(directory, propagation, false)
}
