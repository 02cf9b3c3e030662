//! The `btrfs` backend: a subvolume per volume, bind-mounted at the target. Capacity is enforced by its quota group.
//!
//! Full quotas are turned on where none are: they count what a volume refers to, so that a volume whose snapshots keep
//! what it has overwritten can still be written to its end. Simple quotas, turned on by an administrator, charge that to
//! the volume. Subvolumes that a workload makes inside of its volume have quota groups of their own, without a limit.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use moorline_driver_sdk::volume::{VolumeStats, VolumeUsage};
use moorline_mount::{
    MountError,
    beneath::Target,
    btrfs::{self, QuotaMode},
    copy, usage,
};

use super::{
    Backend, BackendError, Enforcement, Files, NewData, SizeRule,
    directory::{DATA, DATA_MODE, Directories, refuse_thick},
};
use crate::{config::PoolConfig, copying::Copying, fit::MountPlan, pool::PoolError, record::Content};

/// Less is soon full of metadata alone, which counts as well.
const SIZE_MIN_BYTES: u64 = 16 << 20;
const STEP_BYTES: u64 = 4096;

/// Refuses a pool that is not on btrfs, or whose quotas can't be enabled.
pub(super) fn check_pool(config: &PoolConfig) -> Result<(), PoolError> {
    let directory = &config.directory;
    let refuse = |what: String| PoolError::Backend {
        name: config.name.clone(),
        what,
    };
    if !btrfs::is_btrfs(directory)? {
        return Err(refuse(format!(
            "needs a directory on btrfs, which {} is not: mount a btrfs filesystem there (mkfs.btrfs makes one), or \
             use backend=loop",
            directory.display()
        )));
    }
    let mode = btrfs::enable_full_quota(directory).map_err(|error| {
        refuse(format!(
            "needs quotas, which can't be turned on: {}; try `btrfs quota enable {}`, or use backend=loop",
            moorline_driver_sdk::DriverError::internal("btrfs", error).full_message(),
            directory.display()
        ))
    })?;
    match mode {
        QuotaMode::Full => Ok(()),
        QuotaMode::Simple => {
            tracing::warn!(
                pool = config.name,
                "The pool has simple quotas: what snapshots keep counts against the volume that wrote it"
            );
            Ok(())
        }
        QuotaMode::Off => Err(refuse(format!(
            "needs quotas, and they stay off: try `btrfs quota enable {}`, or use backend=loop",
            directory.display()
        ))),
    }
}

/// Removes the subvolume in a thing's directory, if there is one.
pub(super) fn remove_data(directory: &Path) -> Result<(), PoolError> {
    let data = directory.join(DATA);
    if btrfs::is_subvolume(&data)? {
        btrfs::delete_subvolume(&data)?;
    }
    Ok(())
}

pub(crate) struct Subvolumes;

/// Is the source on another filesystem?
fn is_elsewhere(error: &MountError) -> bool {
    let code = error.raw_os_error().map(std::io::Error::from_raw_os_error);
    code.is_some_and(|error| error.kind() == std::io::ErrorKind::CrossesDevices)
}

impl Subvolumes {
    /// Never lowers the limit.
    fn limit(data: &Path, bytes: u64) -> Result<(), BackendError> {
        let limit = btrfs::usage(data)?.limit;
        if limit.is_none_or(|limit| limit < bytes) {
            btrfs::set_limit(data, Some(bytes))?;
        }
        // Neither a subvolume nor a limit is durable by an fsync.
        Ok(btrfs::sync(data)?)
    }
}

impl Backend for Subvolumes {
    fn sizes(&self, _content: Content) -> SizeRule {
        SizeRule {
            min_bytes: SIZE_MIN_BYTES,
            step_bytes: STEP_BYTES,
        }
    }

    fn enforcement(&self, pool: &Path, _content: Content) -> Result<Enforcement, BackendError> {
        Ok(match btrfs::quota_mode(pool)? {
            QuotaMode::Full | QuotaMode::Simple => Enforcement::Enforced,
            QuotaMode::Off => Enforcement::Accounted {
                why: format!(
                    "the quotas of its filesystem were turned off; turn them on by `btrfs quota enable {}`",
                    pool.display()
                ),
            },
        })
    }

    fn make(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError> {
        refuse_thick(new)?;
        let data = Directories::data(files);
        btrfs::create_subvolume(&data)?;
        let mode = fs::Permissions::from_mode(DATA_MODE);
        fs::set_permissions(&data, mode).map_err(BackendError::io("set the mode of", &data))?;
        Self::limit(&data, new.bytes)
    }

    fn make_from(
        &self,
        files: Files<'_>,
        source: Files<'_>,
        new: NewData,
        copying: &mut Copying,
    ) -> Result<(), BackendError> {
        refuse_thick(new)?;
        let (from, data) = (Directories::data(source), Directories::data(files));
        match btrfs::snapshot(&from, &data, false) {
            Err(error) if is_elsewhere(&error) => {
                btrfs::create_subvolume(&data)?;
                copy::tree(&from, &data, &mut |progress| {
                    copying.note(progress.bytes, progress.bytes_total)
                })?;
            }
            other => other?,
        }
        Self::limit(&data, new.bytes)
    }

    fn cut(
        &self,
        snapshot: Files<'_>,
        source: Files<'_>,
        _copying: &mut Copying,
    ) -> Result<(), BackendError> {
        let data = Directories::data(snapshot);
        btrfs::snapshot(Directories::data(source), &data, true)?;
        Ok(btrfs::sync(&data)?)
    }

    fn can_share(&self, _content: Content, _pool_reflinks: bool) -> bool {
        true
    }

    fn image(&self, _files: Files<'_>) -> Option<PathBuf> {
        None
    }

    fn allocated_bytes(&self, files: Files<'_>) -> Result<u64, BackendError> {
        Ok(btrfs::usage(Directories::data(files))?.referenced)
    }

    fn fault(&self, files: Files<'_>, bytes: u64) -> Result<Option<String>, BackendError> {
        let data = Directories::data(files);
        if !btrfs::is_subvolume(&data)? {
            let what = if data.exists() { "is none" } else { "is missing" };
            return Ok(Some(format!("the subvolume {} {what}", data.display())));
        }
        let limit = match btrfs::usage(&data) {
            Ok(usage) => usage.limit,
            Err(error) if error.is_not_found() => {
                return Ok(Some("the quotas of the pool's filesystem are off".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(match limit {
            Some(limit) if limit >= bytes => None,
            Some(limit) => Some(format!(
                "{} is limited to {limit} bytes, not {bytes}",
                data.display()
            )),
            None => Some(format!("{} has lost its limit of {bytes} bytes", data.display())),
        })
    }

    /// A snapshot of a subvolume is of one moment by itself.
    fn freeze_points(&self, _files: Files<'_>) -> Result<Vec<PathBuf>, BackendError> {
        Ok(Vec::new())
    }

    fn flush(&self, _files: Files<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn grow(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError> {
        Self::limit(&Directories::data(files), new.bytes)
    }

    fn needs_node_expansion(&self) -> bool {
        false
    }

    fn users(&self, files: Files<'_>) -> Result<Vec<PathBuf>, BackendError> {
        Directories.users(files)
    }

    fn stage(&self, files: Files<'_>, staging: &Target, plan: &MountPlan) -> Result<(), BackendError> {
        Directories.stage(files, staging, plan)
    }

    fn unstage(&self, _files: Files<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn publish(
        &self,
        files: Files<'_>,
        staging: &Target,
        target: &Target,
        plan: &MountPlan,
    ) -> Result<(), BackendError> {
        Directories.publish(files, staging, target, plan)
    }

    fn unpublish(&self, _files: Files<'_>) -> Result<(), BackendError> {
        Ok(())
    }

    fn published_at(&self, files: Files<'_>, staging: Option<&Path>) -> Result<Vec<PathBuf>, BackendError> {
        Directories.published_at(files, staging)
    }

    fn grow_on_node(&self, files: Files<'_>, path: &Target) -> Result<(), BackendError> {
        Directories.grow_on_node(files, path)
    }

    /// The limit is the size, as if the volume had a filesystem of its own.
    fn stats(&self, files: Files<'_>, path: &Target) -> Result<VolumeStats, BackendError> {
        if !Directories::is_at(files, path)? {
            return Err(BackendError::NotThere(path.path().to_owned()));
        }
        let pool = usage::filesystem(path.pinned_path())?.bytes;
        let own = match btrfs::usage(Directories::data(files)) {
            Ok(usage) => usage,
            // The quotas were turned off, which makes it abnormal, not unmeasurable.
            Err(error) if error.is_not_found() => btrfs::SubvolumeUsage {
                referenced: pool.used,
                exclusive: pool.used,
                limit: None,
            },
            Err(error) => return Err(error.into()),
        };
        let total = own.limit.unwrap_or(pool.total);
        let bytes = VolumeUsage {
            total,
            available: total.saturating_sub(own.referenced).min(pool.available),
            used: own.referenced,
        };
        Ok(VolumeStats {
            bytes: Some(bytes),
            ..VolumeStats::default()
        })
    }
}
