//! Whole trees in the pool: how much they take, and making them durable. Symlinks lead nowhere.

use std::{
    fs::{self, File, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use crate::backend::BackendError;

/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Bytes that a tree's files have allocated; a file with several names counts with each.
pub(super) fn allocated_bytes(root: &Path) -> Result<u64, BackendError> {
    let mut bytes: u64 = 0;
    walk(root, |_, seen| {
        bytes = bytes.saturating_add(seen.blocks().saturating_mul(BLOCK_BYTES));
        Ok(())
    })?;
    Ok(bytes)
}

/// Makes a tree that nobody else writes to durable: each file, then each directory.
pub(super) fn sync(root: &Path) -> Result<(), BackendError> {
    let mut directories = vec![root.to_owned()];
    walk(root, |path, seen| {
        if seen.is_dir() {
            directories.push(path.to_owned());
        } else if seen.is_file() {
            sync_one(path)?;
        }
        Ok(())
    })?;
    directories.iter().try_for_each(|directory| sync_one(directory))
}

fn sync_one(path: &Path) -> Result<(), BackendError> {
    let opened = File::open(path).map_err(BackendError::io("open", path))?;
    opened.sync_all().map_err(BackendError::io("fsync", path))
}

/// Shows `visit` everything below `root`.
fn walk(
    root: &Path,
    mut visit: impl FnMut(&Path, &Metadata) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = match fs::read_dir(&directory) {
            // Somebody who uses the volume may have removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory != root => continue,
            other => other.map_err(BackendError::io("list", &directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(BackendError::io("list", &directory))?;
            let path = entry.path();
            // Of the entry itself: a symlink leads nowhere.
            let seen = match entry.metadata() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(BackendError::io("look at", &path))?,
            };
            visit(&path, &seen)?;
            if seen.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}
