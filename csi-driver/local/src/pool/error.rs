//! Why the pool can't be used, and what the caller is told.

use std::{error::Error, io, path::PathBuf};

use moorline_driver_sdk::{DriverError, ErrorKind};
use moorline_mount::MountError;
use thiserror::Error;

use super::FORMAT;

/// Why the pool can't be used.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A durable write or a mount operation failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The directory was laid out by another version.
    #[error("{} holds {found:?}; this driver knows {FORMAT:?} only", path.display())]
    Format {
        /// The format file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Another controller uses it.
    #[error("another controller uses the pool {}", .0.display())]
    Locked(PathBuf),
    /// The pool's filesystem can't do what the backend needs.
    #[error("pool {name}: the btrfs backend {what}")]
    Backend {
        /// The pool.
        name: String,
        /// What is missing, and what to do.
        what: String,
    },
    /// Other nodes may be using its volumes, and this driver would not heed that.
    #[error(
        "volume {volume_id} of pool {pool} is leased to node {node_id}: start with --attachable, or unpublish it there first"
    )]
    Leased {
        /// The pool.
        pool: String,
        /// The first such volume.
        volume_id: String,
        /// Who has it.
        node_id: String,
    },
    /// There is no such volume, snapshot or group.
    #[error("there is no {noun} {id}")]
    NotThere {
        /// Of what kind.
        noun: &'static str,
        /// Which.
        id: String,
    },
    /// The record can't be used.
    #[error("the record of {noun} {id}")]
    Record {
        /// Of what kind.
        noun: &'static str,
        /// Which.
        id: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something is mounted below the volume's own directory, so that removing its files could remove those of others.
    #[error("{} is mounted inside the volume; unmount it first", .0.display())]
    ForeignMount(PathBuf),
}

impl PoolError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| PoolError::Io { action, path, source }
    }

    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            PoolError::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            PoolError::Mount(error) => error.is_no_space(),
            _ => false,
        }
    }

    pub(crate) fn is_not_there(&self) -> bool {
        matches!(self, PoolError::NotThere { .. })
    }
}

impl From<PoolError> for DriverError {
    fn from(error: PoolError) -> Self {
        let kind = match &error {
            _ if error.is_no_space() => ErrorKind::ResourceExhausted,
            PoolError::NotThere { .. } => ErrorKind::NotFound,
            PoolError::ForeignMount(_) => ErrorKind::FailedPrecondition,
            _ => ErrorKind::Internal,
        };
        DriverError::new(kind, "use the pool").caused_by(error)
    }
}
