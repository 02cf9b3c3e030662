//! Where things are in a pool directory, for those who only look.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{FORMAT, FORMAT_FILE, FROZEN, GROUPS, ID_FILE, LEASES, LOCK_FILE, PoolError, SNAPSHOTS, VOLUMES};

/// The paths in a pool. Nothing need be there.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    pub(crate) volumes: PathBuf,
    pub(crate) snapshots: PathBuf,
    pub(crate) groups: PathBuf,
    pub(crate) frozen: PathBuf,
    pub(crate) leases: PathBuf,
}

impl Layout {
    pub(crate) fn of(root: &Path) -> Self {
        Layout {
            root: root.to_owned(),
            volumes: root.join(VOLUMES),
            snapshots: root.join(SNAPSHOTS),
            groups: root.join(GROUPS),
            frozen: root.join(FROZEN),
            leases: root.join(LEASES),
        }
    }

    /// Refuses a pool that another version has laid out.
    pub(crate) fn check_format(&self) -> Result<(), PoolError> {
        let path = self.root.join(FORMAT_FILE);
        match fs::read_to_string(&path) {
            Ok(found) if found == FORMAT => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(found) => Err(PoolError::Format { path, found }),
            Err(error) => Err(PoolError::io("read", path)(error)),
        }
    }

    /// The pool's id; nil if it has none.
    pub(crate) fn id(&self) -> Uuid {
        let text = fs::read_to_string(self.root.join(ID_FILE)).ok();
        text.and_then(|text| text.trim_end().parse().ok())
            .unwrap_or_default()
    }

    /// Does a controller use the pool?
    pub(crate) fn is_locked(&self) -> Result<bool, PoolError> {
        let path = self.root.join(LOCK_FILE);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.map_err(PoolError::io("open", &path))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(PoolError::io("lock", &path)(error)),
        }
    }
}
