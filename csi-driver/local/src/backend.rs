//! What differs between ways of keeping volumes, behind one trait. All functions block.
//!
//! The caller makes sure that no two calls for one volume overlap, but for calls at different target paths.

mod directory;
mod loop_file;
mod subvolume;

use std::path::{Path, PathBuf};

use moorline_driver_sdk::{DriverError, ErrorKind, volume::VolumeStats};
use moorline_mount::{
    MountError,
    beneath::{Seen, Target},
    filesystem::FilesystemError,
};
use thiserror::Error;

pub(crate) use self::{
    directory::{Directories, complete as complete_directory},
    loop_file::LoopFiles,
    subvolume::Subvolumes,
};
use crate::{
    config::{BackendKind, PoolConfig},
    copying::Copying,
    fit::MountPlan,
    pool::PoolError,
    record::{Content, Provisioning},
    settings::Settings,
};

/// The own directory in the pool of a volume or a snapshot, and what is in it.
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

/// What a new volume shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewData {
    pub(crate) bytes: u64,
    pub(crate) provisioning: Provisioning,
}

/// Whether a volume's size limit is kept by the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    /// No workload gets beyond it.
    Enforced,
    /// It is only accounted; why, and what to do.
    Accounted { why: String },
}

/// One way of keeping volumes. A snapshot is kept like a volume; nobody writes to it.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Which sizes a volume with this content can have. Pure.
    fn sizes(&self, content: Content) -> SizeRule;

    /// Is the size of a volume in this pool directory enforced?
    fn enforcement(&self, pool: &Path, content: Content) -> Result<Enforcement, BackendError>;

    /// Puts the data of a new, empty volume into its directory, durably. After an error the caller removes all of it.
    fn make(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError>;

    /// As [`Backend::make`], with the content of another volume or snapshot with the same kind of content, which is at most
    /// as large. Nobody writes to the source meanwhile, or its writes are frozen. The filesystem may still be as large
    /// as the source's; it has an identity of its own.
    fn make_from(
        &self,
        files: Files<'_>,
        source: Files<'_>,
        new: NewData,
        copying: &mut Copying,
    ) -> Result<(), BackendError>;

    /// Puts a snapshot of the source into the snapshot's own directory, durably. As for the source, see
    /// [`Backend::make_from`].
    fn cut(&self, snapshot: Files<'_>, source: Files<'_>, copying: &mut Copying) -> Result<(), BackendError>;

    /// Do [`Backend::cut`] and [`Backend::make_from`] share blocks with a source in the same pool, so that they take no time
    /// and see one moment of a source that is being written to? `pool_reflinks`: the pool's files can. Pure.
    fn can_share(&self, content: Content, pool_reflinks: bool) -> bool;

    /// The file that holds the data's blocks; `None` when it is not kept in one file. Pure.
    fn image(&self, files: Files<'_>) -> Option<PathBuf>;

    /// Bytes that the data takes in the pool now, shared ones counted in full.
    fn allocated_bytes(&self, files: Files<'_>) -> Result<u64, BackendError>;

    /// What is wrong with the data, in words; `None`: nothing that can be seen from here.
    fn fault(&self, files: Files<'_>, bytes: u64) -> Result<Option<String>, BackendError>;

    /// The mount points at which writes to the volume can be frozen, one per filesystem; a volume that is in use without
    /// one can't be frozen.
    fn freeze_points(&self, files: Files<'_>) -> Result<Vec<PathBuf>, BackendError>;

    /// Makes what has been written to the devices of a volume that can't be frozen part of its data.
    fn flush(&self, files: Files<'_>) -> Result<(), BackendError>;

    /// Grows the data, durably. Repeating it is fine. Never shrinks.
    fn grow(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError>;

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

    /// Does taking away what is seen at a target undo all of [`Backend::publish`]? Cheap: no list is read.
    fn leaves_nothing(&self, _files: Files<'_>, _seen: Seen) -> Result<bool, BackendError> {
        Ok(true)
    }

    /// Undoes all that [`Backend::publish`] does besides the mount and the entry at the target, which the caller has
    /// undone.
    fn unpublish(&self, files: Files<'_>) -> Result<(), BackendError>;

    /// The paths at which the volume is published now, `staging` left out.
    fn published_at(&self, files: Files<'_>, staging: Option<&Path>) -> Result<Vec<PathBuf>, BackendError>;

    /// Makes the devices and filesystems of a volume that is staged here be as the settings say. Repeating it is fine;
    /// nothing staged, too.
    fn tune(&self, _files: Files<'_>, _settings: &Settings) -> Result<(), BackendError> {
        Ok(())
    }

    /// Major and minor numbers of the devices that stand for the volume here.
    fn devices(&self, _files: Files<'_>) -> Result<Vec<(u32, u32)>, BackendError> {
        Ok(Vec::new())
    }

    /// Lets the filesystem or device that is visible at `path` follow the size of the data.
    fn grow_on_node(&self, files: Files<'_>, path: &Target) -> Result<(), BackendError>;

    /// How full the volume at `path` is.
    fn stats(&self, files: Files<'_>, path: &Target) -> Result<VolumeStats, BackendError>;
}

/// The backend of a volume with this content.
pub(crate) fn of_content(content: Content) -> &'static dyn Backend {
    match content {
        Content::Directory => &Directories,
        Content::Subvolume => &Subvolumes,
        Content::Block | Content::Ext4 | Content::Xfs | Content::Btrfs => &LoopFiles,
    }
}

/// Refuses a pool whose filesystem can't do what its backend needs. Its directory is there.
pub(crate) fn check_pool(config: &PoolConfig) -> Result<(), PoolError> {
    match config.backend {
        BackendKind::Dir | BackendKind::Loop => Ok(()),
        BackendKind::Btrfs => subvolume::check_pool(config),
    }
}

/// Takes the limits of devices away that stand for a volume no more: their numbers are somebody else's next.
pub(crate) fn forget_limits(devices: &[(u32, u32)]) -> Result<(), BackendError> {
    if devices.is_empty() {
        return Ok(());
    }
    loop_file::forget_limits(devices)
}

/// In a thing's own directory, where its content is a directory.
pub(crate) const DATA_DIRECTORY: &str = directory::DATA;

/// Takes away what removing files alone can't: the data in a thing's directory, whatever its content.
pub(crate) fn remove_data(directory: &Path) -> Result<(), PoolError> {
    subvolume::remove_data(directory)?;
    directory::remove_data(directory)
}

/// What went wrong with a volume's data or mounts.
#[derive(Debug, Error)]
pub(crate) enum BackendError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Filesystem(#[from] FilesystemError),
    #[error(transparent)]
    Pool(#[from] PoolError),
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
    #[error("{what}")]
    NotOffered { what: String },
}

impl BackendError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| BackendError::Io { action, path, source }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            BackendError::Mount(error) if error.is_no_space() => ErrorKind::ResourceExhausted,
            BackendError::Pool(error) if error.is_no_space() => ErrorKind::ResourceExhausted,
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
            BackendError::NotOffered { .. } => ErrorKind::InvalidArgument,
            BackendError::NotStaged(_) | BackendError::StillPublished(_) => ErrorKind::FailedPrecondition,
            BackendError::NotThere(_) => ErrorKind::NotFound,
            BackendError::Mount(_)
            | BackendError::Filesystem(_)
            | BackendError::Pool(_)
            | BackendError::Busy(_)
            | BackendError::WrongContent { .. } => ErrorKind::Internal,
        }
    }

    /// The answer to the caller, `what` being the step that failed.
    pub(crate) fn into_driver_error(self, what: &'static str) -> DriverError {
        DriverError::new(self.kind(), what).caused_by(self)
    }
}
