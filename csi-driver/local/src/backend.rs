//! What differs between ways of keeping volumes, behind one trait. All functions block.
//!
//! The caller makes sure that no two calls for one volume overlap, but for calls at different target paths.

mod directory;
mod loop_file;

use std::path::{Path, PathBuf};

use moorline_driver_sdk::{DriverError, ErrorKind, volume::VolumeStats};
use moorline_mount::{MountError, beneath::Target, filesystem::FilesystemError};
use thiserror::Error;

pub(crate) use self::{directory::Directories, loop_file::LoopFiles};
use crate::{config::BackendKind, fit::MountPlan, record::Content};

/// A volume's own directory in the pool and what is in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) content: Content,
}

/// Which sizes are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeRule {
    pub(crate) min_bytes: u64,
    pub(crate) step_bytes: u64,
}

/// One way of keeping volumes.
pub(crate) trait Backend: Send + Sync + 'static {
    fn kind(&self) -> BackendKind;

    /// Which sizes a volume with this content can have. Pure.
    fn sizes(&self, content: Content) -> SizeRule;

    /// Puts the data of a new, empty volume into its directory, durably. After an error the caller removes all of it.
    fn make(&self, files: Files<'_>, bytes: u64) -> Result<(), BackendError>;

    /// Grows the data, durably. Repeating it is fine. Never shrinks.
    fn grow(&self, files: Files<'_>, bytes: u64) -> Result<(), BackendError>;

    /// Must the node act before the user sees that a volume has grown?
    fn needs_node_expansion(&self) -> bool;

    /// Who uses the volume on this machine now; empty: nobody.
    fn users(&self, files: Files<'_>) -> Result<Vec<PathBuf>, BackendError>;

    /// Prepares the volume at the staging path. Repeating it is fine, also after a crash in the middle.
    fn stage(&self, files: Files<'_>, staging: &Target, plan: &MountPlan) -> Result<(), BackendError>;

    /// Undoes all that [`Backend::stage`] does besides the mount at the staging path, which the caller has undone.
    fn unstage(&self, files: Files<'_>) -> Result<(), BackendError>;

    /// Makes the volume appear at the target path, which the caller resolved. Repeating it is fine.
    fn publish(
        &self,
        files: Files<'_>,
        staging: &Target,
        target: &Target,
        plan: &MountPlan,
    ) -> Result<(), BackendError>;

    /// Undoes all that [`Backend::publish`] does besides the mount and the entry at the target, which the caller has
    /// undone.
    fn unpublish(&self, files: Files<'_>) -> Result<(), BackendError>;

    /// The paths at which the volume is published now, `staging` left out.
    fn published_at(&self, files: Files<'_>, staging: Option<&Path>) -> Result<Vec<PathBuf>, BackendError>;

    /// Lets the filesystem or device that is visible at `path` follow the size of the data.
    fn grow_on_node(&self, files: Files<'_>, path: &Target) -> Result<(), BackendError>;

    /// How full the volume at `path` is.
    fn stats(&self, files: Files<'_>, path: &Target) -> Result<VolumeStats, BackendError>;
}

/// The backend for new volumes.
pub(crate) fn of_kind(kind: BackendKind) -> &'static dyn Backend {
    match kind {
        BackendKind::Dir => &Directories,
        BackendKind::Loop => &LoopFiles,
    }
}

/// The backend of an existing volume.
pub(crate) fn of_content(content: Content) -> &'static dyn Backend {
    match content {
        Content::Directory => &Directories,
        Content::Block | Content::Ext4 | Content::Xfs => &LoopFiles,
    }
}

/// What went wrong with a volume's data or mounts.
#[derive(Debug, Error)]
pub(crate) enum BackendError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Filesystem(#[from] FilesystemError),
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Something else, or the same in another way, is there already.
    #[error("{} {what}", path.display())]
    Conflict { path: PathBuf, what: &'static str },
    #[error("the volume is not staged at {}", .0.display())]
    NotStaged(PathBuf),
    #[error("the volume is not at {}", .0.display())]
    NotThere(PathBuf),
    #[error("the volume is still published at {}", .0.display())]
    StillPublished(PathBuf),
    #[error("{} is still in use", .0.display())]
    Busy(PathBuf),
    #[error("{} holds no {expected}; it is not formatted again, so that nothing is lost", path.display())]
    WrongContent { path: PathBuf, expected: Content },
}

impl BackendError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| BackendError::Io { action, path, source }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            BackendError::Mount(error) if error.is_no_space() => ErrorKind::ResourceExhausted,
            // A path or option that can't be used is the caller's.
            BackendError::Mount(MountError::BadPath { .. } | MountError::BadOption { .. }) => {
                ErrorKind::InvalidArgument
            }
            BackendError::Filesystem(error) if error.is_no_space() => ErrorKind::ResourceExhausted,
            BackendError::Filesystem(FilesystemError::NeedsCapability(_)) => ErrorKind::FailedPrecondition,
            BackendError::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    ErrorKind::ResourceExhausted
                }
                _ => ErrorKind::Internal,
            },
            BackendError::Conflict { .. } => ErrorKind::AlreadyExists,
            BackendError::NotStaged(_) | BackendError::StillPublished(_) => ErrorKind::FailedPrecondition,
            BackendError::NotThere(_) => ErrorKind::NotFound,
            BackendError::Mount(_)
            | BackendError::Filesystem(_)
            | BackendError::Busy(_)
            | BackendError::WrongContent { .. } => ErrorKind::Internal,
        }
    }

    /// The answer to the caller, `what` being the step that failed.
    pub(crate) fn into_driver_error(self, what: &'static str) -> DriverError {
        DriverError::new(self.kind(), what).caused_by(self)
    }
}
