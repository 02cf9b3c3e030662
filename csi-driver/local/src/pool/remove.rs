//! Removing trees from a pool, and what must not be removed.

use std::{fs, io, path::Path};

use moorline_mount::{durable::TEMPORARY_SUFFIX, mountinfo};

use super::PoolError;
use crate::backend;

/// Removes a thing's directory with all it holds. Symlinks in it are removed, not followed. Nothing there is fine.
pub(super) fn all(path: &Path) -> Result<(), PoolError> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    if fs::symlink_metadata(path).is_err_and(|error| is_gone(&error)) {
        return Ok(());
    }
    backend::remove_data(path)?;
    match fs::remove_dir_all(path) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other.map_err(PoolError::io("remove", path)),
    }
}

/// What can't be removed now is no obstacle: the next try for that id or the next start will meet it again.
pub(super) fn half_made(path: &Path) {
    tracing::info!(path = %path.display(), "Removing what a crash has left half-made");
    if let Err(error) = refuse_mounts_below(path).and_then(|()| all(path)) {
        tracing::error!(path = %path.display(), %error, "Something half-made can't be removed");
    }
}

pub(super) fn refuse_mounts_below(path: &Path) -> Result<(), PoolError> {
    let entries = mountinfo::current()?;
    match mountinfo::at_or_below(&entries, path).first() {
        None => Ok(()),
        Some(entry) => Err(PoolError::ForeignMount(entry.mount_point.clone())),
    }
}

/// Leftovers of a record that was being replaced; that they can't be removed harms nobody.
pub(super) fn temporary_files(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            fs::remove_file(entry.path()).ok(); // The next start tries again.
        }
    }
}
