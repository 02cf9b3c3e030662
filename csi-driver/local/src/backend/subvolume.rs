//! The `btrfs` backend: a subvolume with a quota group per volume.

use std::path::Path;

use crate::{config::PoolConfig, pool::PoolError};

/// Refuses a pool that is not on btrfs, or whose quotas can't be enabled.
pub(super) fn check_pool(config: &PoolConfig) -> Result<(), PoolError> {
    Err(PoolError::Backend {
        name: config.name.clone(),
        what: "is not served by this version; use backend=loop".to_owned(),
    })
}

/// Removes the subvolume in a thing's directory, if there is one.
pub(super) fn remove_data(_directory: &Path) -> Result<(), PoolError> {
    Ok(())
}
